"""Maps of class-wise times over two numbers of a problem: which of two classes comes first, and where the order flips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.plots.style import TIME_SYMBOLS, NotebookFigure, class_labels, legend_below, new_figure, parameter_label, plain_log_ticks
from rfdiff.theory_results import TIE, PhaseMap

MEANINGS = {
    "tau_gen": "generalisation: the test loss has made 1 − 1/e of its descent",
    "tau_stop": "early stopping: the test loss is lowest",
    "tau_mem": "memorisation: test minus train loss reaches half its final value",
    "tau_opt": "near-optimality: the test loss has gone the fraction q of the way to that of the exact score",
}
TRANSPARENT = ListedColormap([(0.0, 0.0, 0.0, 0.0)])
EMPTY = "0.75"  # grey of cells without a value


def phase_map(
    result: PhaseMap,
    quantity: str,
    *,
    pair: tuple[int, int] = (0, 1),
    class_names: Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """log10 of the ratio of the times of two classes over two numbers of a problem; of the time itself where there is one class.

    Args:
        result: of `theory.phase_map`, at least 2 × 2 cells.
        quantity: "tau_gen", "tau_stop", "tau_mem" or "tau_opt".
        pair: the two classes that are compared.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Returns:
        A figure. On the black line both times are equal. Grey cells have no value; the hatching says why.

    Raises:
        InputError: an unknown quantity, an axis of one value, classes that do not exist, or a bad name or size.
    """
    if quantity not in TIME_SYMBOLS:
        raise InputError(f"quantity: {quantity!r}; allowed: {', '.join(TIME_SYMBOLS)}")
    if min(np.size(result.first), np.size(result.second)) < 2:
        raise InputError(f"axes: {np.size(result.first)} x {np.size(result.second)} values; allowed: at least 2 on each axis")
    times = np.asarray(getattr(result.times, quantity), np.float64)
    labels = class_labels(times.shape[-1], class_names)
    single = times.shape[-1] == 1
    figure = new_figure(7.2, 5.6, size)
    panel = figure.subplots()
    panel.set_facecolor(EMPTY)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log10(times[..., 0]) if single else result.log_ratio(quantity, pair)
    never = np.isinf(times[..., [0] if single else list(pair)]).any(axis=-1)
    shown = np.where(np.isfinite(values), values, np.nan)
    if not single:
        shown = np.where(abs(shown) < TIE, 0.0, shown)  # the rounding of equal times is no order
    reach = max(float(np.nanmax(abs(shown), initial=0)), TIE)
    colors: dict[str, Any] = {"cmap": "viridis"} if single else {"cmap": "PuOr", "norm": TwoSlopeNorm(0, -reach, reach)}
    mesh = panel.pcolormesh(result.first, result.second, shown.T, shading="nearest", rasterized=True, **colors)
    figure.colorbar(mesh, label=_value_label(quantity, None if single else pair, labels))
    legend_below(figure, _mark_cells(panel, result, shown, np.asarray(never), flips=not single), columns=3)
    for axis, spacing, name in zip((panel.xaxis, panel.yaxis), result.spacings, result.names, strict=True):
        if spacing == "log":
            plain_log_ticks(axis)
        axis.set_label_text(parameter_label(name))
    panel.set_title(MEANINGS[quantity].replace("fraction q", f"fraction {result.times.q:g}"), fontsize=9)
    return figure


def _value_label(quantity: str, pair: tuple[int, int] | None, labels: Sequence[str]) -> str:
    symbol = TIME_SYMBOLS[quantity]
    if pair is None:
        return rf"$\log_{{10}} {symbol}$"
    first, second = (f"{symbol[:-1]},{c}}}" for c in pair)
    return rf"$\log_{{10}}({first}/{second})$   (negative: {labels[pair[0]]} first)"


def _mark_cells(panel: Axes, result: PhaseMap, shown: np.ndarray, never: np.ndarray, flips: bool) -> list[Any]:
    """Hatch the cells without a value and draw the line of equal times. Their legend entries."""
    failed, empty = ~np.asarray(result.converged, bool), np.isnan(shown)
    handles: list[Any] = []
    for cells, hatch, label in (
        (never & empty, "///", "a class never reaches the criterion"),
        (failed, "xx", "not converged"),
        (empty & ~never & ~failed, "...", "this time does not exist"),
    ):
        if cells.any():
            _hatch(panel, result.first, result.second, cells, hatch)
            handles.append(Patch(facecolor=EMPTY, edgecolor="0.35", hatch=hatch, label=label))
    if flips and np.any(shown < 0) and np.any(shown > 0):
        panel.contour(result.first, result.second, shown.T, levels=[0.0], colors="black", linewidths=1.6)
        handles.append(Line2D([], [], color="black", linewidth=1.6, label="equal times: the order flips"))
    return handles


def _hatch(panel: Axes, first: ArrayLike, second: ArrayLike, cells: np.ndarray, hatch: str) -> None:
    """Hatching over some cells that leaves their grey as it is."""
    values = np.ma.masked_array(np.ones(cells.T.shape), mask=~cells.T)
    x, y = np.asarray(first), np.asarray(second)
    panel.pcolor(x, y, values, shading="nearest", cmap=TRANSPARENT, hatch=hatch, edgecolor="0.35", linewidth=0)
