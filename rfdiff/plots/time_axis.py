"""Training time on a logarithmic axis; τ = 0 and τ = ∞, which no logarithm holds, stand at its ends, each behind a break."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import ArrayLike

END_GAP = 0.09  # share of the logarithmic range between the last finite time and ∞, and between 0 and the first
MARGIN = 0.03  # share of it beyond the outermost position
MOST_DECADES = 6  # labels between the ends
BREAK = [(-0.6, -1), (0.6, 1)]  # a slanted stroke through the axis


class TimeAxis:
    """Positions of training times on the axis.

    Args:
        grids: (T,) training times of everything that is to be drawn.
    """

    def __init__(self, grids: Sequence[ArrayLike]) -> None:
        times = np.unique(np.concatenate([np.asarray(grid, np.float64) for grid in grids]))
        inner = times[(times > 0) & np.isfinite(times)]
        inner = inner if inner.size else np.ones(1)
        self.low, self.high = float(inner[0]), float(inner[-1])
        self._range = max(self.high / self.low, 10.0)
        self.zero, self.limit = self.low / self._range**END_GAP, self.high * self._range**END_GAP
        self.has_zero, self.has_limit = bool(times[0] == 0), bool(np.isinf(times[-1]))

    def positions(self, taus: ArrayLike) -> np.ndarray:
        """Where training times stand on the axis, 0 and ∞ included."""
        taus = np.asarray(taus, np.float64)
        return np.where(taus == 0, self.zero, np.where(np.isinf(taus), self.limit, taus))

    def apply(self, panel: Axes, label: bool = True) -> None:
        """Give a panel this axis: scale, ticks, break marks and label."""
        panel.set_xscale("log")
        margin = self._range**MARGIN
        panel.set_xlim((self.zero if self.has_zero else self.low) / margin, (self.limit if self.has_limit else self.high) * margin)
        first, last = int(np.ceil(np.log10(self.low) - 1e-9)), int(np.floor(np.log10(self.high) + 1e-9))
        step = max(1, -(-(last - first + 1) // MOST_DECADES))
        ticks = [(10.0**exponent, f"$10^{{{exponent}}}$") for exponent in range(first, last + 1, step)]
        ticks = [(self.zero, "0")] * self.has_zero + ticks + [(self.limit, r"$\infty$")] * self.has_limit
        panel.xaxis.set_major_locator(FixedLocator([position for position, _ in ticks]))
        panel.set_xticklabels([text for _, text in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        breaks = [np.sqrt(self.zero * self.low)] * self.has_zero + [np.sqrt(self.limit * self.high)] * self.has_limit
        for position in breaks:
            break_mark(panel, position)
        if label:
            panel.set_xlabel(r"training time $\tau$")


def break_mark(panel: Axes, position: float) -> None:
    """A stroke through the horizontal axis that says it is broken here."""
    panel.plot([position], [0], marker=BREAK, markersize=9, color="0.2", transform=panel.get_xaxis_transform(), clip_on=False)
