"""Readings of networks at two dimensions, brought to d → ∞ and held against theory: the criterion of experiments 1 to 5.

The rule is that of `rfdiff.agreement`, for a reading y (a logarithm of a time or a loss) in place of a loss. Networks at d and h ≈ d/2
give the first-order term c/d = k (y_h - y_d), k = h/(d - h), and the limit y_d - c/d. The second order is bounded by the geometric
series, (d/h) (c/d)²: the scale of a logarithm is 1. What is left of limit - theory beyond that bound is counted in standard errors.
No allowance is chosen by hand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.stats import t as student

from experiments import harness
from experiments.harness import Criterion

FALSE_ALARM = 0.01  # chance that a true theory is rejected, over all entries of one comparison together
PARTS = ("large", "large_left_out", "small", "small_left_out")


@dataclass(frozen=True)
class Comparison:
    """Networks against theory, entry by entry (arrays of one shape).

    Args:
        theory: the reading in theory.
        seen, seen_error: the reading at d and its standard error (jackknife over networks).
        limit, error: the reading brought to d → ∞, and the standard error of that.
        remainder: bound on the second-order part of the limit.
        threshold: largest number of standard errors of an agreeing whole: Student's t, false alarm 1 % over all entries (Bonferroni).
    """

    theory: np.ndarray
    seen: np.ndarray
    seen_error: np.ndarray
    limit: np.ndarray
    error: np.ndarray
    remainder: np.ndarray
    threshold: float

    @property
    def margin(self) -> np.ndarray:
        """Distance from which on a theory is rejected."""
        return self.threshold * self.error + self.remainder

    def out(self, theory: np.ndarray | None = None) -> np.ndarray:
        """|limit - theory| beyond the remainder, in standard errors; NaN where one of them is not finite."""
        with np.errstate(invalid="ignore"):
            rest = np.maximum(abs(self.limit - (self.theory if theory is None else theory)) - self.remainder, 0) / self.error
        return np.where(np.isfinite(rest), rest, np.nan)


def agreement(what: str, comparisons: Sequence[Comparison]) -> Criterion:
    """Networks at d → ∞ meet theory in every entry of every comparison; shown is the entry that is nearest to failing.

    Args:
        what: what is compared.
        comparisons: each with a threshold for its number of entries.
    """
    outs = [np.where(np.isnan(out := each.out()), -np.inf, out) for each in comparisons]
    known = sum(int(np.isfinite(out).sum()) for out in outs)
    nearest, at = max((float(out.max()) / each.threshold, i) for i, (out, each) in enumerate(zip(outs, comparisons, strict=True)))
    limit = comparisons[at].threshold
    holds = all(np.isfinite(out).any() and out.max() < each.threshold for out, each in zip(outs, comparisons, strict=True))
    name = f"networks at d → ∞ against theory, {what} ({known} values)"
    return Criterion(name, f"{nearest * limit:.1f} s.e.", f"< {limit:.1f} s.e.", holds)


def rejection(what: str, wrong: Sequence[tuple[Comparison, np.ndarray]], other: str = "a theory with exchanged classes") -> Criterion:
    """The same networks reject another theory in each comparison, which shows that agreement could have failed.

    Args:
        what: what is compared.
        wrong: comparisons and the other theory's values.
        other: the other theory in words.
    """
    counts = [(int(np.sum(each.out(values) > each.threshold)), int(np.isfinite(each.out()).sum())) for each, values in wrong]
    rejected, known = min(counts, key=lambda count: count[0] / max(count[1], 1))
    return Criterion(f"networks reject {other}, {what}", f"{rejected} of {known} values", ">= 1", rejected > 0)


def same_order(what: str, leads: Sequence[Comparison]) -> Criterion:
    """Where networks at d have an order of the classes, it is that of theory; and they have one in some entry of each comparison.

    They have one where the log ratio of the times differs from 0 by more than the threshold and more than the change from d to the limit
    beside it.

    Args:
        what: which times.
        leads: comparisons of log ratios.
    """
    clear = [abs(lead.seen) > lead.threshold * lead.seen_error + abs(lead.limit - lead.seen) for lead in leads]
    counts = [int(mask.sum()) for mask in clear]
    against = sum(int(np.sum(np.sign(lead.seen[mask]) != np.sign(lead.theory[mask]))) for lead, mask in zip(leads, clear, strict=True))
    cells = sum(mask.size for mask in clear)
    text = f"networks at d, {what}: clear orders of two classes ({sum(counts)} of {cells} cells) that differ from theory's"
    return Criterion(text, str(against), "0, some clear", against == 0 and min(counts) > 0)


def variables(cells: Sequence[harness.Cell], prefix: str, axes: Mapping[str, int], rest: Sequence[str]) -> dict[str, Any]:
    """Dataset variables `prefix_large`, … of the cells of `readings.two_sizes`.

    Args:
        cells: what it returned.
        prefix: first part of the names.
        axes: names and sizes of the axes of the cells.
        rest: names of the axes of a reading.
    """
    found = {}
    for part in PARTS:
        seeds = (f"network_{part.split('_')[0]}",) if part.endswith("left_out") else ()
        found[f"{prefix}_{part}"] = ((*axes, *seeds, *rest), harness.stack(cells, part, tuple(axes.values())))
    return found


def compare(
    data: xr.Dataset, prefix: str, theory: np.ndarray, read: Callable[[np.ndarray], np.ndarray], d: int, cell_axes: int = 1
) -> Comparison:
    """Compare what `variables` stored with theory.

    Args:
        data: the dataset.
        prefix: as given to `variables`.
        theory: values of theory, as `read` makes them.
        read: the reading (a logarithm, or something linear in logarithms) from values (cells..., [network,] reading, class).
        d: the larger dimension.
        cell_axes: number of axes before that of the networks in what `read` returns.
    """
    h = d // 2
    k = h / (d - h)
    y: dict[str, np.ndarray] = {part: read(data[f"{prefix}_{part}"].values) for part in PARTS}
    error = {side: jackknife_error(y[f"{side}_left_out"], cell_axes) for side in ("large", "small")}
    with np.errstate(invalid="ignore"):
        first = k * (y["small"] - y["large"])
        spread = np.hypot((1 + k) * error["large"], k * error["small"])
    entries = int(np.isfinite(first).sum())
    seeds = y["large_left_out"].shape[cell_axes]
    threshold = float(student.isf(FALSE_ALARM / (2 * max(entries, 1)), seeds - 1))
    return Comparison(theory, y["large"], error["large"], y["large"] - first, spread, d / h * first**2, threshold)


def jackknife_error(left_out: np.ndarray, axis: int) -> np.ndarray:
    """Standard error from readings with one network left out each; NaN where a reading is not finite."""
    count = left_out.shape[axis]
    with np.errstate(invalid="ignore"):
        return np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean(axis=axis, keepdims=True)) ** 2, axis=axis))


def points(panel: Axes, x: np.ndarray, found: Comparison, at: Any, marker: str, color: Any, power: bool = True) -> None:
    """Networks at d (filled) and at d → ∞ (open), with standard errors; `power`: exponentials of the readings, with their errors."""
    for value, error, face in ((found.seen[at], found.seen_error[at], color), (found.limit[at], found.error[at], "none")):
        good = np.isfinite(value)
        value, error = value[good], np.nan_to_num(error[good])
        bars: Any = error
        if power:
            value, bars = np.exp(value), [np.exp(value) - np.exp(value - error), np.exp(value + error) - np.exp(value)]
        panel.errorbar(x[good], value, bars, fmt=marker, color=color, markerfacecolor=face, markersize=5.5, capsize=2, linewidth=1)


def with_error(value: float, error: float) -> str:
    """A positive quantity from its logarithm and the standard error of that, in as many digits as the error leaves."""
    v, e = float(np.exp(value)), float(np.exp(value) * error)
    if not (np.isfinite(v) and np.isfinite(e)):
        return "—"
    decimals = max(0, 1 - int(np.floor(np.log10(e)))) if e > 0 else 3
    return f"{v:.{decimals}f} ± {e:.{decimals}f}"
