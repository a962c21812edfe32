"""One factor, steps per unit of training time, between the theory's curves and the losses of a real training; with its error.

The losses of class c at step k are taken for `a_c + b_c L_c(k/ρ)` plus noise, with L_c the theory's train and held-out (test) loss, ρ the
steps per unit of τ, one for all classes, and a_c, b_c ≥ 0 an offset and a scale of the class, the same for train and held-out losses: they
stand for another unit of the data, another weighting of diffusion times, and an architecture's floor. ρ maximises the Gaussian likelihood
with one unknown variance a class, `Σ_c N_c log RSS_c(ρ)`, in which a_c and b_c are profiled out by linear least squares.

The error of log ρ is the jackknife's over consecutive blocks of steps, left out of all classes at once, so that noise and misfits that are
correlated along training or between classes count as what they are: the larger of those over blocks and over pairs of blocks. Where the
classes, fitted alone, differ by more than their errors, it is multiplied by √(χ²/(K-1)).
"""

import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import PchipInterpolator

from rfdiff.calibration.loss_record import LossRecord
from rfdiff.class_times import ClassTimes, stacked
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled
from rfdiff.value_types import value_type

BLOCKS = 10  # at most, an even number, of consecutive steps
SPACING = 0.05  # of log ρ in the first search
WINDOW_POINTS = 41
FINE = 20  # a window this many times wider than the spread of its minima is narrowed
NARROW = 1e-5  # of log ρ: within it losses that fit exactly are ruled by rounding
MOST_WINDOWS = 12
LARGEST_ERROR = 1.0  # of log ρ, beyond which the losses tell nothing

Objective = Callable[[np.ndarray], np.ndarray]


@value_type
class Calibration(Labelled):
    """Steps of a training per unit of τ, and how the losses follow the theory at that factor (K classes; NaN for classes without losses).

    Args:
        steps_per_tau: ρ, training steps per unit of τ.
        log_error: standard error of log ρ.
        disagreement: √(χ²/(K-1)) of the classes' own factors, ≥ 1, by which the error is multiplied; 1 with one class.
        class_steps_per_tau: (K,) ρ from each class alone; NaN where it does not determine one.
        class_log_error: (K,) their standard errors of log ρ.
        offset, scale: (K,) a_c and b_c of `a_c + b_c L_c(k/ρ)`.
        misfit: (K,) root mean square of what the fit leaves, over the standard deviation of the losses of the class.
        steps: (4, K) step of each of `TIME_NAMES`: ρ τ.
        reached: (4, K) whether that step lies within the record of the class.
    """

    steps_per_tau: float
    log_error: float
    disagreement: float
    class_steps_per_tau: Float[np.ndarray, " K"]
    class_log_error: Float[np.ndarray, " K"]
    offset: Float[np.ndarray, " K"]
    scale: Float[np.ndarray, " K"]
    misfit: Float[np.ndarray, " K"]
    steps: Float[np.ndarray, "4 K"]
    reached: Bool[np.ndarray, "4 K"]

    LABELS: ClassVar = {
        "steps_per_tau": Label((), "training steps per unit of training time tau", "1/tau"),
        "log_error": Label((), "standard error of the logarithm of steps_per_tau"),
        "disagreement": Label((), "factor of the error for what the classes differ by"),
        "class_steps_per_tau": Label(("class",), "training steps per unit of tau, from the class alone", "1/tau"),
        "class_log_error": Label(("class",), "standard error of the logarithm of class_steps_per_tau"),
        "offset": Label(("class",), "offset of the losses of the class: offset + scale * theory"),
        "scale": Label(("class",), "scale of the losses of the class: offset + scale * theory"),
        "misfit": Label(("class",), "root mean square of what the fit leaves, over the standard deviation of the losses"),
        "steps": Label(("quantity", "class"), "training step at which the time of the class is reached"),
        "reached": Label(("quantity", "class"), "whether that step lies within the record of the class"),
    }

    def interval(self, standard_errors: float = 1.0) -> tuple[float, float]:
        """Steps per τ, so many standard errors of the logarithm below and above."""
        factor = float(np.exp(standard_errors * self.log_error))
        return self.steps_per_tau / factor, self.steps_per_tau * factor


def fit_steps(curves: LearningCurves, record: LossRecord, read: ClassTimes) -> Calibration:
    """The factor between steps and τ that fits a record of losses best.

    Args:
        curves: the theory's curves, on times that cover every mode (`theory.covering_curves`).
        record: losses of the training.
        read: the theory's times.

    Raises:
        InputError: classes in the record that the curves do not have; losses that do not determine the factor, such as a record that ends
            before any descent; losses that move against the theory in every class.

    Reference: tests/calibration/test_steps_per_tau.py measures how often the error covers a known factor.
    """
    if record.member.max() >= curves.num_classes:
        raise InputError(f"record: class {int(record.member.max())}; allowed: 0 to {curves.num_classes - 1}, those of the curves")
    sums = _Sums(curves, record)
    low, high = sums.reach()
    grid = np.arange(low, high + SPACING, SPACING)
    whole = sums.objective(grid)
    if not np.any(whole[:, 0] < whole[0, 0]):
        raise InputError("losses: they rise where the theory's fall, in every class; allowed: losses that fall with training")
    log_rho, error = _estimate(sums.objective, grid, whole)
    if not error < LARGEST_ERROR:
        raise InputError(
            "losses: they do not determine the steps per tau; allowed: a record that covers the descent of a class, from before to after"
        )
    each = np.full((2, curves.num_classes), np.nan)
    for c in np.unique(record.member):
        each[:, c] = _estimate(functools.partial(sums.objective, classes=[c]), grid)
    known = np.isfinite(each).all(axis=0)
    mean = np.average(each[0, known], weights=each[1, known] ** -2.0) if known.any() else log_rho
    chi_squared = float(np.sum(((each[0, known] - mean) / each[1, known]) ** 2))
    disagreement = float(np.sqrt(max(1.0, chi_squared / max(known.sum() - 1, 1))))
    rho = float(np.exp(log_rho))
    offset, scale, misfit = sums.maps(log_rho)
    steps = rho * stacked(read)
    last = np.array([record.step[record.member == c].max(initial=-np.inf) for c in range(curves.num_classes)])
    return Calibration(
        rho, error * disagreement, disagreement, np.exp(each[0]), each[1], offset, scale, misfit, steps, steps <= last
    )  # fmt: skip


class _Sums:
    """Sums of losses and theory over each block of steps and class, from which every fit of the jackknife is made at once."""

    def __init__(self, curves: LearningCurves, record: LossRecord) -> None:
        steps = np.unique(record.step)
        self.num_blocks, self.num_classes = min(BLOCKS, 2 * (steps.size // 4)), curves.num_classes
        block = np.searchsorted(steps, record.step) * self.num_blocks // steps.size
        taus = np.asarray(curves.taus, np.float64)
        first, last = np.argmax(taus > 0), np.flatnonzero(np.isfinite(taus))[-1]
        self.span = (float(taus[first]), float(taus[last]))
        self.steps = record.step
        self.parts = []  # (class, steps, block, centred losses, theory's loss of τ)
        for name, losses in (("train_loss", record.train), ("test_loss", record.held_out)):
            values = np.asarray(getattr(curves, name), np.float64)[first : last + 1]
            for c in range(curves.num_classes):
                there = (record.member == c) & np.isfinite(losses)
                if there.any():
                    theory = PchipInterpolator(np.log(taus[first : last + 1]), values[:, c])
                    self.parts.append((c, record.step[there], block[there], losses[there], theory))

    def reach(self) -> tuple[float, float]:
        """Least and largest log ρ at which the record and the curves overlap."""
        positive = self.steps[self.steps > 0]
        return float(np.log(positive.min() / self.span[1])), float(np.log(positive.max() / self.span[0]))

    def _theory(self, loss: PchipInterpolator, steps: np.ndarray, log_rho: np.ndarray) -> np.ndarray:
        """(M, N) loss at τ = k/ρ: linear from 1 at τ = 0 to the first time of the curves, constant after the last."""
        first, last = self.span
        with np.errstate(divide="ignore"):
            log_taus = np.log(steps)[None, :] - log_rho[:, None]
        within = loss(np.clip(log_taus, np.log(first), np.log(last)))
        return np.where(log_taus < np.log(first), 1 + (within - 1) * np.exp(log_taus) / first, within)

    def moments(self, log_rho: np.ndarray) -> np.ndarray:
        """(6, M, K, G): number, Σx, Σy, Σx², Σxy, Σy² of theory x and losses y, each about its mean over the class."""
        values = [(c, block, self._theory(loss, steps, log_rho), losses) for c, steps, block, losses, loss in self.parts]
        sums = np.zeros((6, log_rho.size, self.num_classes, self.num_blocks))
        for c in range(self.num_classes):
            of_class = [part for part in values if part[0] == c]
            if not of_class:
                continue
            block = np.concatenate([part[1] for part in of_class])
            x = np.concatenate([part[2] for part in of_class], axis=1)
            y = np.concatenate([part[3] for part in of_class])[None, :]
            x, y = x - x.mean(axis=1, keepdims=True), np.broadcast_to(y - y.mean(), x.shape)
            in_block = (block[:, None] == np.arange(self.num_blocks)).astype(float)
            sums[:, :, c] = np.stack([term @ in_block for term in (np.ones_like(x), x, y, x * x, x * y, y * y)])
        return sums

    def objective(self, log_rho: np.ndarray, classes: list[int] | None = None) -> np.ndarray:
        """(M, 1 + G + G/2) values of Σ_c N_c log RSS_c: of the whole record, without each block, and without each pair of neighbours."""
        sums = self.moments(log_rho)
        whole, pairs = sums.sum(axis=-1, keepdims=True), sums[..., ::2] + sums[..., 1::2]
        sums = np.concatenate([whole, whole - sums, whole - pairs], axis=-1)[:, :, slice(None) if classes is None else classes]
        number, rest, total = sums[0], *_regression(sums)[2:]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.maximum(rest / total, 1e-24)  # what is left of exact losses is rounding
            return np.where(number * total > 0, number * np.log(share), 0.0).sum(axis=1)

    def maps(self, log_rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offset, scale and misfit of each class at a factor; NaN for classes without losses."""
        at = np.array([log_rho])
        slope, _, rest, total = (value[0, :, 0] for value in _regression(self.moments(at).sum(axis=-1, keepdims=True)))
        means = np.full((2, self.num_classes), np.nan)
        for c in {part[0] for part in self.parts}:
            of_class = [part for part in self.parts if part[0] == c]
            means[0, c] = np.mean(np.concatenate([self._theory(loss, steps, at)[0] for _, steps, _, _, loss in of_class]))
            means[1, c] = np.mean(np.concatenate([losses for _, _, _, losses, _ in of_class]))
        slope = np.where(np.isnan(means[0]), np.nan, slope)
        with np.errstate(invalid="ignore", divide="ignore"):
            return means[1] - slope * means[0], slope, np.where(np.isnan(means[0]), np.nan, np.sqrt(rest / total))


def _regression(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slope ≥ 0 and offset of losses on theory, the sum of squares that is left, and the whole one, from `_Sums.moments`."""
    number, sum_x, sum_y, square_x, product, square_y = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = sum_x / number, sum_y / number
        spread_x, spread, total = square_x - number * mean_x**2, product - number * mean_x * mean_y, square_y - number * mean_y**2
        slope = np.where((spread > 0) & (spread_x > 0), spread / spread_x, 0.0)
    return slope, mean_y - slope * mean_x, np.maximum(total - slope * spread, 0.0), total


def _estimate(objective: Objective, grid: np.ndarray, values: np.ndarray | None = None) -> tuple[float, float]:
    """Where an objective is smallest, and the jackknife error of that place; NaN where either lies at an end of the grid."""
    values = objective(grid) if values is None else values
    best = np.argmin(values, axis=0)
    if np.any((best == 0) | (best == grid.size - 1)):
        return np.nan, np.nan
    center = float(np.median(grid[best]))
    half = max(1.5 * SPACING, float(np.ptp(grid[best])))
    for _ in range(MOST_WINDOWS):
        window = np.linspace(center - half, center + half, WINDOW_POINTS)
        values = objective(window)
        best = np.argmin(values, axis=0)
        if np.any((best == 0) | (best == window.size - 1)):
            half *= 2
            continue
        places = _vertices(window, values, best)
        center, spread = float(places[0]), float(np.ptp(places))
        if spread > half / FINE or half < NARROW:
            break
        half = max(2 * spread, half / FINE)
    else:
        return np.nan, np.nan
    blocks = 2 * (places.size - 1) // 3
    return center, max(_jackknife(places[1 : 1 + blocks]), _jackknife(places[1 + blocks :]))


def _jackknife(without: np.ndarray) -> float:
    """Standard error from the estimates without each part in turn."""
    return float(np.sqrt((without.size - 1) / without.size * np.sum((without - without.mean()) ** 2)))


def _vertices(window: np.ndarray, values: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The lowest place of the parabola through each least value and its neighbours."""
    left, middle, right = (np.take_along_axis(values, (best + shift)[None, :], axis=0)[0] for shift in (-1, 0, 1))
    curvature = left - 2 * middle + right
    shift = np.where(curvature > 0, 0.5 * (left - right) / np.where(curvature > 0, curvature, 1), 0.0)
    return window[best] + shift * (window[1] - window[0])
