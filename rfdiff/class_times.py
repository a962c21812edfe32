"""Times at which each class is learned and memorised, read from its curves (`equations`, section 7)."""

from typing import ClassVar

import numpy as np
from jaxtyping import Float

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled
from rfdiff.value_types import as_number, html_table, static, value_type, vectorize_text

TIME_NAMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")


@value_type
class ClassTimes(Labelled):
    """Class-wise training times (`equations`, section 7), each (K,), in units of τ.

    Args:
        tau_gen: generalisation: first τ at which L_c has made 1 - 1/e of its descent L_c(0) - min L_c; NaN without a descent.
        tau_stop: early stopping: arg min of L_c; inf if L_c still falls at the end of the grid; 0 if it only rises.
        tau_mem: memorisation: first τ at which the gap L_c - ℓ_c is half of its final value; NaN if the gap does not open.
        tau_opt: first τ at which L_c has gone the fraction q from L_c(0) to L_c^*; inf if it never does.
        q: that fraction.
    """

    tau_gen: Float[np.ndarray, " K"]
    tau_stop: Float[np.ndarray, " K"]
    tau_mem: Float[np.ndarray, " K"]
    tau_opt: Float[np.ndarray, " K"]
    q: float = static(default=0.5)

    LABELS: ClassVar = {
        "tau_gen": Label(("class",), "generalisation: the test loss has made 1 - 1/e of its whole descent", "tau"),
        "tau_stop": Label(("class",), "early stopping: the test loss is lowest", "tau"),
        "tau_mem": Label(("class",), "memorisation: the gap between test and train loss has half its final value", "tau"),
        "tau_opt": Label(("class",), "the test loss has gone the fraction q of the way to that of the exact score", "tau"),
    }

    def _repr_html_(self) -> str:
        """A table, one row a class."""
        rows = [[c, *(f"{np.asarray(getattr(self, name))[c]:.4g}" for name in TIME_NAMES)] for c in range(np.size(self.tau_gen))]
        return html_table(f"Training times of each class (q = {self.q:g})", ["class", *TIME_NAMES], rows)


def times(curves: LearningCurves, q: float = 0.5) -> ClassTimes:
    """Class-wise generalisation, early-stopping, memorisation and near-optimality times of a set of curves.

    Curves are interpolated linearly in log τ between grid points (in τ between 0 and the first), the minimum by a parabola through
    the three lowest points. The final gap is that at the last grid point: let the grid end in inf, or well after memorisation.

    Args:
        curves: per-class curves on an increasing grid; L_c(0) = 1, the loss of A = 0.
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).

    Returns:
        `ClassTimes`, each (K,).

    Raises:
        InputError: q out of range, fewer than 3 training times, or a grid that does not increase (as the penalties of `Ridge` may).
    """
    if not 0 < as_number(q) < 1:
        raise InputError(f"q: {q!r}; allowed: 0 < q < 1")
    taus = np.asarray(curves.taus, np.float64)
    if taus.size < 3:
        raise InputError(f"taus: {taus.size} training times; allowed: at least 3 to read times from")
    if np.any(taus[1:] < taus[:-1]):
        raise InputError(f"taus: {vectorize_text(taus)} decreases; allowed: increasing training times (for Ridge: decreasing penalties)")
    test, train = np.asarray(curves.test_loss, np.float64), np.asarray(curves.train_loss, np.float64)
    optimal = np.asarray(curves.optimal_loss, np.float64)
    unknown = bool(np.isinf(taus[-1]) and np.all(np.isnan(test[-1])) and np.all(np.isfinite(test[:-1])))
    if unknown:  # p = n m: the limit diverges, and only the final gap is lost with it
        taus, test, train = taus[:-1], test[:-1], train[:-1]
    noise = max(float(np.nan_to_num(curves.error_estimate)), 1e-12)
    per_class = [_class_times(taus, test[:, c], train[:, c], optimal[c], q, noise) for c in range(test.shape[1])]
    gen, stop, mem, opt = (np.array(column) for column in zip(*per_class, strict=True))
    return ClassTimes(gen, stop, np.full_like(mem, np.nan) if unknown else mem, opt, q)


def _class_times(
    taus: np.ndarray, test: np.ndarray, train: np.ndarray, optimal: float, q: float, noise: float
) -> tuple[float, float, float, float]:
    if not np.all(np.isfinite(test)) or not np.all(np.isfinite(train)):
        return np.nan, np.nan, np.nan, np.nan  # a failed cell leaves no time that could be trusted
    start = 1.0
    descent, gap = start - test, test - train
    stop, lowest = _minimum(taus, test, noise)
    gen = _first_crossing(taus, descent, (1 - np.exp(-1)) * (start - lowest)) if lowest < start else np.nan
    if not lowest < start:
        stop = 0.0
    mem = _first_crossing(taus, gap, gap[-1] / 2) if gap[-1] > 0 else np.nan
    opt = _first_crossing(taus, descent, q * (start - optimal)) if optimal < start else np.nan
    return gen, stop, mem, np.inf if np.isnan(opt) and optimal < start else opt


def _first_crossing(taus: np.ndarray, values: np.ndarray, level: float) -> float:
    """First τ at which `values`, 0 at τ = 0, reaches `level`; NaN if it never does."""
    above = np.flatnonzero(values >= level)
    if above.size == 0 or not np.isfinite(level):
        return np.nan
    i = int(above[0])
    if i == 0:
        return float(taus[0] * level / values[0]) if values[0] > 0 else float(taus[0])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    if np.isinf(taus[i]):
        return np.inf
    if taus[i - 1] == 0:
        return float(taus[i] * share)
    return float(np.exp(np.log(taus[i - 1]) + share * np.log(taus[i] / taus[i - 1])))


def _minimum(taus: np.ndarray, values: np.ndarray, noise: float) -> tuple[float, float]:
    """Place and value of the minimum, by a parabola in log τ; inf where the values end at their lowest, to within their numerical error."""
    i = int(np.argmin(values))
    if i == len(values) - 1 or values[-1] - values[i] <= noise:
        return np.inf, float(values[i])
    if i == 0 or taus[i - 1] == 0 or np.isinf(taus[i + 1]) or not taus[i - 1] < taus[i] < taus[i + 1]:
        return float(taus[i]), float(values[i])
    x, y = np.log(taus[i - 1 : i + 2] / taus[i]), values[i - 1 : i + 2]
    curvature, slope, _ = np.polyfit(x, y, 2)
    shift = float(np.clip(-slope / (2 * curvature), x[0], x[2])) if curvature > 0 else 0.0
    return float(taus[i] * np.exp(shift)), float(y[1] + slope * shift + curvature * shift**2)
