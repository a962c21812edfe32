"""Times at which each class is learned and memorised, read from its curves (`equations`, section 7).

A time is read where the samples say it: between two training times that are close together. Where the grid ends too early, begins too
late or is too coarse, the time is NaN and carries what is known of it, a lower or an upper bound, and the reason.
"""

import dataclasses

import numpy as np
from scipy.interpolate import PchipInterpolator

from rfdiff.class_times.named_times import TIME_NAMES, ClassTimes
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.errors import InputError
from rfdiff.value_types import as_number, vectorize_text

COARSE = 4.0  # largest ratio of the training times between which a time is interpolated: crossings are then good to 10 %, minima to 20 %
SETTLED = 0.02  # largest change over the last factor `TAIL` of time, relative to the whole, of a curve that counts as being at its end
TAIL = 3.0
EARLY = 0.1  # largest share of its excursion that a curve may have made at the first training time for nothing to have been missed before
LATE = 0.5  # least share of a descent that must be seen for a curve that is lowest at the last training time to have no minimum before
START = 1.0  # loss of the untrained network A = 0


@dataclasses.dataclass(frozen=True)
class Reading:
    """A time read from samples, or what they say of it.

    Args:
        value: the time; NaN if the samples do not give it.
        lower, upper: bounds of a time that is not given, NaN where there is none.
        reason: why it is not given.
    """

    value: float = np.nan
    lower: float = np.nan
    upper: float = np.nan
    reason: str = ""


def times(curves: LearningCurves, *, q: float = 0.5) -> ClassTimes:
    """Class-wise generalisation, early-stopping, memorisation and near-optimality times of a set of curves.

    Between training times the curves are interpolated by monotone cubics in log τ (PCHIP), which never leave the samples; the minimum
    lies at the vertex of the parabola in log τ through the lowest sample and its neighbours. Nothing is read across a gap of the grid
    wider than a factor of `COARSE`. The final gap is that at τ = ∞, or at the last training time if it changed by less than `SETTLED`
    of itself over the last factor `TAIL` of time.

    Args:
        curves: per-class curves on an increasing grid; L_c(0) = 1, the loss of A = 0.
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).

    Returns:
        `ClassTimes`, each (K,), with bounds and reasons for those that the grid does not resolve.

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
    distinct = np.append(True, taus[1:] > taus[:-1])  # rules with steps round several times to the same one
    test, train = (np.asarray(loss, np.float64)[distinct] for loss in (curves.test_loss, curves.train_loss))
    optimal, noise = np.asarray(curves.optimal_loss, np.float64), max(float(np.nan_to_num(curves.error_estimate)), 1e-12)
    columns = [_class_times(taus[distinct], test[:, c], train[:, c], optimal[c], q, noise) for c in range(test.shape[1])]
    values = {name: np.array([column[i].value for column in columns]) for i, name in enumerate(TIME_NAMES)}
    bounds = {name: np.array([[column[i].lower, column[i].upper] for column in columns]) for i, name in enumerate(TIME_NAMES)}
    reasons = tuple(tuple(column[i].reason for column in columns) for i in range(len(TIME_NAMES)))
    return ClassTimes(**values, q=float(q), bounds=bounds, reasons=reasons)


def readings(curves: LearningCurves, q: float) -> tuple[np.ndarray, np.ndarray]:
    """τ_gen, τ_stop, τ_mem, τ_opt and the lowest test loss of each class, and their standard errors over seeds.

    Returns:
        Values and errors, each (5, K); errors are NaN for theory, for fewer than two seeds and where a seed has no such time.
    """
    values = _read(curves, q)
    if curves.per_seed is None or len(curves.per_seed["test_loss"]) < 2:
        return values, np.full_like(values, np.nan)
    seeds = range(len(curves.per_seed["test_loss"]))
    runs = np.stack([_read(dataclasses.replace(curves, **{name: curves.per_seed[name][s] for name in CURVE_NAMES}), q) for s in seeds])
    everywhere = np.isfinite(runs).all(axis=0)
    spread = np.std(np.where(everywhere, runs, 0.0), axis=0, ddof=1) / np.sqrt(len(runs))
    return values, np.where(everywhere, spread, np.nan)


def _read(curves: LearningCurves, q: float) -> np.ndarray:
    read = times(curves, q=q)
    rows = [np.asarray(getattr(read, name), np.float64) for name in TIME_NAMES]
    test = np.asarray(curves.test_loss, np.float64)
    diverges = bool(np.isinf(np.asarray(curves.taus)[-1]) and np.isnan(test[-1]).all())  # at τ = ∞ where p = n m
    return np.stack([*rows, (test[:-1] if diverges else test).min(axis=0)])


def _class_times(
    taus: np.ndarray, test: np.ndarray, train: np.ndarray, optimal: float, q: float, noise: float
) -> tuple[Reading, Reading, Reading, Reading]:
    diverges = np.isinf(taus[-1]) and np.isnan(test[-1])  # at τ = ∞ where p = n m: what happens before is sound
    if diverges:
        taus, test, train = taus[:-1], test[:-1], train[:-1]
    if test.size == 0 or not np.all(np.isfinite(test)) or not np.all(np.isfinite(train)):
        failed = Reading(reason="a loss is not finite")  # a failed cell leaves no time that could be trusted
        return failed, failed, failed, failed
    stop = _stopping(taus, test, noise)
    if diverges:
        mem = Reading(reason="the gap between test and train loss has no final value: the test loss diverges as tau -> inf (p = n m)")
    else:
        mem = _memorisation(taus, test - train)
    return _generalisation(taus, test, stop), stop, mem, _optimality(taus, test, optimal, q)


def _generalisation(taus: np.ndarray, test: np.ndarray, stop: Reading) -> Reading:
    """Where 1 - 1/e of the descent is made; bounds where the depth of the descent is not known."""
    depth = START - float(test.min())
    if depth <= 0:
        return Reading(upper=stop.upper, reason=stop.reason or "the test loss is never below its value at tau = 0")
    read = _first_crossing(taus, START - test, (1 - np.exp(-1)) * depth)
    still_falling = not np.isnan(stop.lower) and np.isnan(stop.upper) and not np.isinf(taus[-1])
    if not np.isnan(stop.value) or (still_falling and _settled(taus, START - test)):
        return read
    least = read.lower if np.isnan(read.value) else read.value  # the descent is at least as deep as the samples
    return Reading(lower=least, upper=stop.upper, reason=f"the lowest test loss is not resolved ({stop.reason})")


def _stopping(taus: np.ndarray, test: np.ndarray, noise: float) -> Reading:
    """Where the test loss is lowest."""
    i, first, last = int(np.argmin(test)), int(taus[0] == 0), len(test) - 1
    early = abs(test[first] - START) <= EARLY * np.max(abs(test - START))
    if test[i] >= START:
        if early:
            return Reading(0.0)
        return Reading(upper=float(taus[first]), reason=f"the test loss is above its value at tau = 0 from tau = {taus[first]:.4g} on")
    at_end = i == last or test[last] - test[i] <= noise
    if i <= first and not at_end:
        return Reading(upper=float(taus[i + 1]), reason=f"the test loss is lowest at the first training time, {taus[i]:.4g}")
    if not early and test[first] - test[i] < (LATE if at_end else EARLY) * (START - test[i]):
        return Reading(reason=f"most of the descent lies before the first training time, {taus[first]:.4g}")
    if at_end:
        if np.isinf(taus[last]) and test[last - 1] - test[last] <= EARLY * (START - test[i]):
            return Reading(np.inf)
        if np.isinf(taus[last]):
            return Reading(lower=float(taus[last - 1]), reason=f"no training times between {taus[last - 1]:.4g} and inf")
        return Reading(lower=float(taus[max(i - 1, first)]), reason=f"the test loss is lowest at the last training time, {taus[last]:.4g}")
    left, right = float(taus[i - 1]), float(taus[i + 1])
    if np.isinf(right):
        return Reading(lower=left, reason=f"the test loss is lowest at the last finite training time, {taus[i]:.4g}")
    if right > COARSE * left:
        return Reading(lower=left, upper=right, reason=f"no training times between {left:.4g}, {taus[i]:.4g} and {right:.4g}")
    x, y = np.log(taus[i - 1 : i + 2] / taus[i]), test[i - 1 : i + 2]
    curvature, slope, _ = np.polyfit(x, y, 2)
    shift = float(np.clip(-slope / (2 * curvature), x[0], x[2])) if curvature > 0 else 0.0
    return Reading(float(taus[i] * np.exp(shift)))


def _memorisation(taus: np.ndarray, gap: np.ndarray) -> Reading:
    """Where the gap has half its final value; a lower bound where it still grows at the last training time."""
    if gap[-1] <= 0:
        return Reading(reason="the test loss does not part from the train loss")
    read = _first_crossing(taus, gap, gap[-1] / 2)
    if np.isinf(taus[-1]) or _settled(taus, gap):
        return read
    least = read.lower if np.isnan(read.value) else read.value
    return Reading(lower=least, reason=f"the gap between test and train loss still grows at the last training time, {taus[-1]:.4g}")


def _optimality(taus: np.ndarray, test: np.ndarray, optimal: float, q: float) -> Reading:
    """Where the fraction q of the way to the exact score's loss is made."""
    if np.isnan(optimal):
        return Reading(reason="the loss of the exact score is not known")
    if optimal >= START:
        return Reading(reason="the exact score is no better than the untrained network")
    level = q * (START - optimal)
    if np.max(START - test) >= level:
        return _first_crossing(taus, START - test, level)
    if np.isinf(taus[-1]):
        return Reading(np.inf)
    return Reading(lower=float(taus[-1]), reason=f"not reached at the last training time, {taus[-1]:.4g}")


def _first_crossing(taus: np.ndarray, values: np.ndarray, level: float) -> Reading:
    """First τ at which `values`, 0 at τ = 0 and at `level` somewhere on the grid, reaches it."""
    i = int(np.flatnonzero(values >= level)[0])
    left, right = (float(taus[i - 1]) if i else 0.0), float(taus[i])
    if values[i] == level and not np.isinf(right):
        return Reading(right)
    if np.isinf(right):
        return Reading(lower=left, reason=f"reached after the last finite training time, {left:.4g}")
    if left == 0:
        return Reading(upper=right, reason=f"reached before the first training time, {right:.4g}")
    if right > COARSE * left:
        return Reading(lower=left, upper=right, reason=f"no training times between {left:.4g} and {right:.4g}")
    start = 1 if taus[0] == 0 else 0
    stop = len(taus) - 1 if np.isinf(taus[-1]) else len(taus)
    between = PchipInterpolator(np.log(taus[start:stop]), values[start:stop])
    low, high = np.log(left), np.log(right)
    for _ in range(60):  # halvings, down to rounding; the interpolant is monotone between two samples
        middle = (low + high) / 2
        low, high = (low, middle) if between(middle) >= level else (middle, high)
    return Reading(float(np.exp(high)))


def _settled(taus: np.ndarray, values: np.ndarray) -> bool:
    """Whether a curve that begins at 0 is at its end: at τ = ∞, or changed by less than `SETTLED` of itself since τ/`TAIL`."""
    if np.isinf(taus[-1]):
        return True
    before = taus[-1] / TAIL
    if not np.any((taus > 0) & (taus <= before)):
        return False
    x = np.log(taus[taus > 0])
    return bool(abs(values[-1] - PchipInterpolator(x, values[taus > 0])(np.log(before))) <= SETTLED * abs(values[-1]))
