"""Times at which each class is learned and memorised, read from its curves (docs/theory/times.md).

A time is read where the samples say it: between two training times that are close together. Where the grid ends too early, begins too
late or is too coarse, the time is NaN and carries what is known of it, a lower or an upper bound, and the reason.
"""

import dataclasses
import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from rfdiff.class_times.named_times import TIME_NAMES, ClassTimes
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.errors import InputError
from rfdiff.value_types import as_number, vectorize_text

COARSE = 4.0  # largest ratio of the training times between which a time is interpolated: crossings are then good to 10 %, minima to 20 %
SETTLED = 0.02  # largest change over the last factor `TAIL` of time, relative to the whole, of a curve that counts as being at its end
TAIL = 3.0
EARLY = 0.1  # largest share of its excursion that a curve may have made at the first training time for nothing to have been missed before
LATE = 0.5  # least share of a descent that must be seen for a curve that is lowest at the last training time to have no minimum before
UNTRAINED = "the class is not trained on: its weight in the training loss is 0"
START = 1.0  # loss of the untrained network A = 0
RESOLVED = 3.0  # standard errors over seeds by which a gap must exceed 0, and a train loss fall, to count
WORDS = {"time": "training time", "times": "training times", "first": "first training time", "last": "last training time"}
WORDS |= {"at": "tau", "start": "tau = 0", "before": "before"}
PENALTY_WORDS = {"time": "penalty", "times": "penalties", "first": "largest penalty", "last": "smallest penalty"}
PENALTY_WORDS |= {"at": "penalty", "start": "an infinite penalty", "before": "above"}  # smaller penalties stand for later times


@dataclasses.dataclass(frozen=True)
class Reading:
    """A time read from samples, or what they say of it.

    Args:
        value: the time; NaN if the samples do not give it.
        lower, upper: bounds of a time that is not given, NaN where there is none.
        reason: why it is not given, with names of `WORDS` in braces, and the numbers of the places below.
        places: training times that the reason names.
    """

    value: float = np.nan
    lower: float = np.nan
    upper: float = np.nan
    reason: str = ""
    places: tuple[float, ...] = ()

    def sentence(self, kappa: float, penalties: bool) -> str:
        """The reason in words: of training times, or of the penalties 1/(κτ) that they stand for."""
        places = (f"{1 / (kappa * place) if penalties else place:.4g}" for place in self.places)
        return self.reason.format(*places, **(PENALTY_WORDS if penalties else WORDS))


def times(curves: LearningCurves, *, q: float = 0.5, loss_weights: ArrayLike | None = None, penalties: bool = False) -> ClassTimes:
    """Class-wise generalisation, early-stopping, memorisation and near-optimality times of a set of curves.

    Between training times the curves are interpolated by monotone cubics in log τ (PCHIP), which never leave the samples; the minimum
    lies at the vertex of the parabola in log τ through the lowest sample and its neighbours. Nothing is read across a gap of the grid
    wider than a factor of `COARSE`. The final gap is that at τ = ∞, or at the last training time if it changed by less than `SETTLED`
    of itself over the last factor `TAIL` of time.

    Args:
        curves: per-class curves on an increasing grid; L_c(0) = 1, the loss of A = 0.
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).
        loss_weights: (K,) weights of the classes in the training loss (`Problem.training_weights`); None where all are above 0. A class
            of weight 0 is not trained on, and has no τ_mem.
        penalties: whether the training times stand for the penalties of `Ridge`; the reasons then name penalties.

    Returns:
        `ClassTimes`, each (K,), with bounds and reasons for those that the grid does not resolve. Over several seeds a class has a τ_mem
        only if its last gap is above 3 standard errors.

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
    spread = np.maximum(RESOLVED * _last_gap_stderr(curves), noise)
    columns = [_class_times(taus[distinct], test[:, c], train[:, c], optimal[c], q, noise, spread[c]) for c in range(test.shape[1])]
    for c in np.flatnonzero(np.asarray(loss_weights) == 0) if loss_weights is not None else ():
        columns[c] = (*columns[c][:2], Reading(reason=UNTRAINED), columns[c][3])
    values = {name: np.array([column[i].value for column in columns]) for i, name in enumerate(TIME_NAMES)}
    bounds = {name: np.array([[column[i].lower, column[i].upper] for column in columns]) for i, name in enumerate(TIME_NAMES)}
    kappa = float(curves.kappa)
    reasons = tuple(tuple(column[i].sentence(kappa, penalties) for column in columns) for i in range(len(TIME_NAMES)))
    return ClassTimes(**values, q=float(q), bounds=bounds, reasons=reasons)


def _last_gap_stderr(curves: LearningCurves) -> np.ndarray:
    """(K,) standard errors over seeds of the last gap between test and train loss; 0 without two seeds or more."""
    seeds = curves.per_seed
    if seeds is None or len(seeds["test_loss"]) < 2:
        return np.zeros(np.shape(curves.test_loss)[1])
    gaps = np.asarray(seeds["test_loss"], np.float64)[:, -1] - np.asarray(seeds["train_loss"], np.float64)[:, -1]
    return np.nan_to_num(gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps)))


def readings(curves: LearningCurves, q: float, loss_weights: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """τ_gen, τ_stop, τ_mem, τ_opt and the lowest test loss of each class, and their standard errors over seeds.

    Args:
        curves, q, loss_weights: as for `times`.

    Returns:
        Values and errors, each (5, K); errors are NaN for theory, for fewer than two seeds and where a seed has no such time.
    """
    values = _read(curves, q, loss_weights)
    if curves.per_seed is None or len(curves.per_seed["test_loss"]) < 2:
        return values, np.full_like(values, np.nan)
    seeds = (dict(zip(CURVE_NAMES, losses, strict=True)) for losses in zip(*(curves.per_seed[name] for name in CURVE_NAMES), strict=True))
    runs = np.stack([_read(dataclasses.replace(curves, **seed, per_seed=None), q, loss_weights) for seed in seeds])
    everywhere = np.isfinite(runs).all(axis=0) & ~np.isnan(values)
    spread = np.std(np.where(everywhere, runs, 0.0), axis=0, ddof=1) / np.sqrt(len(runs))
    return values, np.where(everywhere, spread, np.nan)


def _read(curves: LearningCurves, q: float, loss_weights: ArrayLike | None) -> np.ndarray:
    read = times(curves, q=q, loss_weights=loss_weights)
    rows = [np.asarray(getattr(read, name), np.float64) for name in TIME_NAMES]
    test = np.asarray(curves.test_loss, np.float64)
    diverges = bool(np.isinf(np.asarray(curves.taus)[-1]) and np.isnan(test[-1]).all())  # at τ = ∞ where p = n m
    return np.stack([*rows, (test[:-1] if diverges else test).min(axis=0)])


def _class_times(
    taus: np.ndarray, test: np.ndarray, train: np.ndarray, optimal: float, q: float, noise: float, spread: float
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
        mem = _memorisation(taus, test - train, spread)
    return _generalisation(taus, test, stop), stop, mem, _optimality(taus, test, optimal, q, bool(diverges))


def _generalisation(taus: np.ndarray, test: np.ndarray, stop: Reading) -> Reading:
    """Where 1 - 1/e of the descent is made; bounds where the depth of the descent is not known."""
    depth = START - float(test.min())
    if depth <= 0:
        reason = stop.reason or "the test loss is never below its value at {start}"
        return Reading(upper=stop.upper, reason=reason, places=stop.places)
    read = _first_crossing(taus, START - test, (1 - np.exp(-1)) * depth)
    still_falling = not np.isnan(stop.lower) and np.isnan(stop.upper) and not np.isinf(taus[-1])
    if not np.isnan(stop.value) or (still_falling and _settled(taus, START - test)):
        return read
    least = read.lower if np.isnan(read.value) else read.value  # the descent is at least as deep as the samples
    return Reading(lower=least, upper=stop.upper, reason=f"the lowest test loss is not resolved ({stop.reason})", places=stop.places)


def _stopping(taus: np.ndarray, test: np.ndarray, noise: float) -> Reading:
    """Where the test loss is lowest."""
    i, first, last = int(np.argmin(test)), int(taus[0] == 0), len(test) - 1
    early = abs(test[first] - START) <= EARLY * np.max(abs(test - START))
    if test[i] >= START:
        if early:
            return Reading(0.0)
        reason, place = "the test loss is above its value at {start} from {at} = {0} on", float(taus[first])
        return Reading(upper=place, reason=reason, places=(place,))
    at_end = i == last or test[last] - test[i] <= noise
    if i <= first and not at_end:
        return Reading(upper=float(taus[i + 1]), reason="the test loss is lowest at the {first}, {0}", places=(float(taus[i]),))
    if not early and test[first] - test[i] < (LATE if at_end else EARLY) * (START - test[i]):
        return Reading(reason="most of the descent lies {before} the {first}, {0}", places=(float(taus[first]),))
    if at_end:
        if np.isinf(taus[last]) and test[last - 1] - test[last] <= EARLY * (START - test[i]):
            return Reading(np.inf)
        if np.isinf(taus[last]):
            return Reading(lower=float(taus[last - 1]), reason="no {times} between {0} and inf", places=(float(taus[last - 1]),))
        reason = "the test loss is lowest at the {last}, {0}"
        return Reading(lower=float(taus[max(i - 1, first)]), reason=reason, places=(float(taus[last]),))
    left, middle, right = (float(tau) for tau in taus[i - 1 : i + 2])
    if np.isinf(right):
        return Reading(lower=left, reason="the test loss is lowest at the last finite {time}, {0}", places=(middle,))
    if right > COARSE * left:
        return Reading(lower=left, upper=right, reason="no {times} between {0}, {1} and {2}", places=(left, middle, right))
    x, y = np.log(taus[i - 1 : i + 2] / taus[i]), test[i - 1 : i + 2]
    curvature, slope, _ = np.polyfit(x, y, 2)
    shift = float(np.clip(-slope / (2 * curvature), x[0], x[2])) if curvature > 0 else 0.0
    return Reading(float(taus[i] * np.exp(shift)))


def _memorisation(taus: np.ndarray, gap: np.ndarray, spread: float) -> Reading:
    """Where the gap has half its final value; a lower bound where it still grows at the last training time.

    A gap below `spread` is noise. One that opens while the noise of minibatches keeps the train loss up is memorisation all the same.
    """
    if gap[-1] <= spread:
        by = "" if gap[-1] <= 0 else f" by more than its error, {spread:.1e}"
        return Reading(reason=f"the test loss does not part from the train loss{by}")
    read = _first_crossing(taus, gap, gap[-1] / 2)
    if np.isinf(taus[-1]) or _settled(taus, gap):
        return read
    least = read.lower if np.isnan(read.value) else read.value
    reason = "the gap between test and train loss still grows at the {last}, {0}"
    return Reading(lower=least, reason=reason, places=(float(taus[-1]),))


def _optimality(taus: np.ndarray, test: np.ndarray, optimal: float, q: float, diverges: bool) -> Reading:
    """Where the fraction q of the way to the exact score's loss is made; inf where it never is.

    A test loss that diverges as τ → ∞ (`diverges`) never comes down again once it rises at the end of the grid.
    """
    if np.isnan(optimal):
        return Reading(reason="the loss of the exact score is not known")
    if optimal >= START:
        return Reading(reason="the exact score is no better than the untrained network")
    level = q * (START - optimal)
    if np.max(START - test) >= level:
        return _first_crossing(taus, START - test, level)
    if np.isinf(taus[-1]) or (diverges and len(test) > 1 and test[-1] > test[-2] and test[-1] > test.min()):
        return Reading(np.inf, reason=f"never reached: the lowest test loss is {test.min():.4g}, and {START - level:.4g} is asked for")
    return Reading(lower=float(taus[-1]), reason="not reached at the {last}, {0}", places=(float(taus[-1]),))


def _first_crossing(taus: np.ndarray, values: np.ndarray, level: float) -> Reading:
    """First τ at which `values`, 0 at τ = 0 and at `level` somewhere on the grid, reaches it."""
    i = int(np.flatnonzero(values >= level)[0])
    left, right = (float(taus[i - 1]) if i else 0.0), float(taus[i])
    if values[i] == level and not np.isinf(right):
        return Reading(right)
    if np.isinf(right):
        return Reading(lower=left, reason="reached after the last finite {time}, {0}", places=(left,))
    if left == 0:
        return Reading(upper=right, reason="reached {before} the {first}, {0}", places=(right,))
    if right > COARSE * left:
        return Reading(lower=left, upper=right, reason="no {times} between {0} and {1}", places=(left, right))
    first, last = (1 if taus[0] == 0 else 0), (len(taus) - 1 if np.isinf(taus[-1]) else len(taus))
    piece = _monotone_piece(np.log(taus[first:last]), values[first:last], i - 1 - first)
    origin, low, high = math.log(left), math.log(left), math.log(right)
    for _ in range(60):  # halvings, down to rounding; the interpolant is monotone between two samples
        middle = (low + high) / 2
        x = middle - origin
        low, high = (low, middle) if ((piece[0] * x + piece[1]) * x + piece[2]) * x + piece[3] >= level else (middle, high)
    return Reading(math.exp(high))


def _monotone_piece(x: np.ndarray, y: np.ndarray, i: int) -> tuple[float, float, float, float]:
    """Coefficients, highest power of x - x_i first, of the monotone cubic (PCHIP, Fritsch and Butland 1984) between samples i and i + 1.

    It feels one more sample on either side, so that no interpolant through all of them is needed.
    """
    start = max(i - 1, 0)
    xs, ys, at = x[start : i + 3].tolist(), y[start : i + 3].tolist(), i - start
    widths = [right - left for left, right in pairwise(xs)]
    slopes = [(right - left) / width for (left, right), width in zip(pairwise(ys), widths, strict=True)]
    ends = [_monotone_slope(widths, slopes, at), _monotone_slope(widths, slopes, at + 1)]
    width, slope = widths[at], slopes[at]
    cubic = (ends[0] + ends[1] - 2 * slope) / width**2
    return cubic, (3 * slope - 2 * ends[0] - ends[1]) / width, ends[0], ys[at]


def _monotone_slope(widths: list[float], slopes: list[float], i: int) -> float:
    """Slope at sample i: a harmonic mean of those beside it, 0 at an extremum; at an end of three points or more a one-sided one."""
    if 0 < i < len(slopes):
        before, after = slopes[i - 1], slopes[i]
        if before * after <= 0:
            return 0.0
        first, second = 2 * widths[i] + widths[i - 1], widths[i] + 2 * widths[i - 1]
        return (first + second) / (first / before + second / after)
    if len(slopes) == 1:
        return slopes[0]
    (h, s), (h2, s2) = ((widths[0], slopes[0]), (widths[1], slopes[1])) if i == 0 else ((widths[-1], slopes[-1]), (widths[-2], slopes[-2]))
    slope = ((2 * h + h2) * s - h * s2) / (h + h2)
    if slope * s <= 0:
        return 0.0
    return 3 * s if s * s2 <= 0 and abs(slope) > 3 * abs(s) else slope


def _settled(taus: np.ndarray, values: np.ndarray) -> bool:
    """Whether a curve that begins at 0 is at its end: at τ = ∞, or changed by less than `SETTLED` of itself since τ/`TAIL`."""
    if np.isinf(taus[-1]):
        return True
    before = taus[-1] / TAIL
    if not np.any((taus > 0) & (taus <= before)):
        return False
    x, y = np.log(taus[taus > 0]), values[taus > 0]
    i = min(int(np.searchsorted(x, math.log(before), side="right")) - 1, len(x) - 2)
    cubic, square, slope, value = _monotone_piece(x, y, i)
    distance = math.log(before) - x[i]
    earlier = ((cubic * distance + square) * distance + slope) * distance + value
    return bool(abs(values[-1] - earlier) <= SETTLED * abs(values[-1]))
