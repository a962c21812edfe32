"""Return probabilities and speciation times of any law at its dimension, with their errors (docs/theory/speciation.md).

Two classes lose B = π_c (1 - R_c) to each other, an integral of one variable for any covariances. More classes are averaged over points of
quasi-Monte-Carlo, with a measured error. The log-odds are not taken for Gaussian, as they are for isotropic classes in
`rfdiff.backward.speciation`.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from rfdiff.backward.correlated_classes import CorrelatedSampler
from rfdiff.backward.isotropic import checked_dimension
from rfdiff.backward.overlap import contrast, overlap
from rfdiff.backward.posterior_sampling import IndependentSampler, Sampler
from rfdiff.backward.realisation import Realisation, realised
from rfdiff.errors import InputError
from rfdiff.labels import as_dataset
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import as_number, as_real_array

if TYPE_CHECKING:
    import xarray as xr

TOLERANCE = 1e-3
FINEST = 1e-5  # tolerance that quasi-Monte-Carlo can be asked for
EARLIEST = 1e-6  # time at which a class that is not told apart yet never is
STEP = 0.5  # of the times among which roots are bracketed
NEAR, DENSE = 2.0, 0.15  # a root is interpolated where R is as near to its level at some time, in tolerances, or where times are as dense
SLOPE_ERROR = 0.2  # of an interpolated R on its way to the root, for the error of the root
MOST_TIMES = 60


class Estimate(NamedTuple):
    """Numbers and their errors, of one shape.

    Args:
        value: the numbers.
        error: of two classes the numerical error; else three standard errors, and for covariances that do not commute the error of what
            stands for the directions that say little.
    """

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]

    def to_xarray(self) -> "xr.Dataset":
        """Both as a labelled dataset with the axis class, and before it time, or time_0, time_1, … where times are an array of several."""
        before = max(self.value.ndim - 1, 0)
        axes = (*(("time",) if before == 1 else (f"time_{i}" for i in range(before))), "class")
        return as_dataset(
            {"value": (axes, self.value, {"long_name": "estimate"}), "error": (axes, self.error, {"long_name": "error of value"})}, {}, {}
        )


def return_estimate(law: MixtureLaw, times: ArrayLike, *, d: ArrayLike | None = None, tolerance: float = TOLERANCE) -> Estimate:
    """Probability R_c(t) to return to class c, of any law, with its error.

    Args:
        law: K ≥ 2 classes with any covariances; concrete.
        times: diffusion times t > 0, of any shape.
        d: dimension, a whole number by which the directions are shared among eigenvalue groups; None for 256, or that of the matrices.
        tolerance: error wanted of three or more classes.

    Returns:
        R_c and errors, each of the shape of `times` followed by K.

    Raises:
        InputError: one class, a dimension out of range, a time that is not a number > 0, or a tolerance out of range.

    Reference: docs/theory/speciation.md; tests/backward/test_estimates.py.
    """
    checked = as_real_array("times", times)
    if not np.all(checked > 0):
        raise InputError(f"times: {times!r}; allowed: diffusion times > 0")
    curve = _curve(law, d, tolerance)
    found = [curve.at(t) for t in checked.ravel()]
    shape = (*checked.shape, law.num_classes)
    return Estimate(*(np.array([getattr(one, name) for one in found]).reshape(shape) for name in Estimate._fields))


def speciation_estimate(law: MixtureLaw, *, d: ArrayLike | None = None, tolerance: float = TOLERANCE) -> Estimate:
    """Speciation times t_s^c, where R_c = (1 + π_c)/2, of any law, with their errors; NaN where it is not reached.

    Args:
        law, d, tolerance: as in `return_estimate`; the tolerance is that of R.

    Raises:
        InputError: as `return_estimate`.

    Reference: docs/theory/speciation.md; tests/backward/test_estimates.py.
    """
    return _curve(law, d, tolerance).roots()


def _curve(law: MixtureLaw, d: ArrayLike | None, tolerance: float) -> "_Curve":
    if not FINEST <= as_number(tolerance) <= 0.1:
        raise InputError(f"tolerance: {tolerance!r}; allowed: a number from {FINEST:g} to 0.1")
    return _Curve(realised(law, checked_dimension(law, d)), float(tolerance))


class _Curve:
    """R_c of one realisation as a function of t; what was computed is kept."""

    def __init__(self, classes: Realisation, tolerance: float) -> None:
        self.classes, self.tolerance = classes, tolerance
        self.known: dict[float, Estimate] = {}
        self.sampler: Sampler | None = None
        if len(classes.weights) > 2:
            self.sampler = CorrelatedSampler(classes) if classes.is_dense else IndependentSampler(classes)

    def at(self, t: float) -> Estimate:
        """R_c (K,) at a time."""
        t = float(t)
        if t not in self.known:
            if self.sampler is None:
                lost = overlap(contrast(self.classes, t, 0, 1), *self.classes.weights)
                self.known[t] = Estimate(1 - lost.value / self.classes.weights, lost.error / self.classes.weights)
            else:
                self.known[t] = Estimate(*self.sampler.at(t, self.tolerance))
        return self.known[t]

    def roots(self) -> Estimate:
        """Times (K,) at which R_c = (1 + π_c)/2, and their errors."""
        weights = self.classes.weights
        levels = (1 + weights) / 2
        self._bracket(levels)
        times = np.array(sorted(self.known))
        first = self.at(times[0]).value >= levels
        if self.sampler is None:
            return self._exact_root(levels) if first.all() else Estimate(np.full(2, np.nan), np.full(2, np.nan))
        estimates = [self._root(c, levels[c]) if reached else (np.nan, np.nan) for c, reached in enumerate(first)]
        return Estimate(*np.array(estimates).T)

    def _bracket(self, levels: np.ndarray) -> None:
        """Look at times until every R_c is below its level at the last, and above it at the first, or never is."""
        t = self._start()
        while np.any(self.at(t).value + self.at(t).error >= levels):
            t += STEP
        t = min(self.known)
        while np.any(self.at(t).value - self.at(t).error < levels) and t > EARLIEST:
            t = t - STEP if t > 2 * STEP else max(t / 4 if t < STEP else t / 2, EARLIEST)

    def _start(self) -> float:
        """Half the logarithm of the distances and spreads of the classes: where they begin to differ."""
        classes = self.classes
        spread = np.abs(classes.covariances - classes.covariances[0]).max(initial=0) + np.abs(np.ptp(classes.variances, axis=1)).max(
            initial=0
        )
        return max(np.log1p(np.sum(classes.means**2, axis=1).max() + spread) / 2, STEP)

    def _exact_root(self, levels: np.ndarray) -> Estimate:
        """The one time of two classes, at which B = π_0 π_1/2."""
        times = np.array(sorted(self.known))
        above = times[[self.at(t).value[0] >= levels[0] for t in times]].max()
        below = times[[self.at(t).value[0] < levels[0] for t in times]].min()
        root = brentq(lambda t: self.at(t).value[0] - levels[0], above, below, xtol=1e-12)
        step = 1e-4 * root
        slope = abs(self.at(root + step).value[0] - self.at(root - step).value[0]) / (2 * step)
        return Estimate(np.full(2, root), np.full(2, 1e-12 + self.at(root).error[0] / max(slope, 1e-12)))

    def _root(self, c: int, level: float) -> tuple[float, float]:
        """Time of one class and its error, interpolated between times."""
        while True:
            times = np.array(sorted(self.known))
            returned = np.minimum.accumulate([self.at(t).value[c] for t in times])  # what noise of the points lets rise does not
            after = int(np.argmax(returned < level))
            around = slice(max(after - 3, 0), after + 3)
            root = float(brentq(PchipInterpolator(times[around], returned[around] - level), times[after - 1], times[after]))
            nearest = after - 1 if root - times[after - 1] < times[after] - root else after
            off, dense = abs(returned[nearest] - level), np.diff(times[max(after - 2, 0) : after + 2]).max() <= DENSE
            if off < NEAR * self.tolerance or dense or len(times) > MOST_TIMES:
                slope = (returned[after - 1] - returned[after]) / (times[after] - times[after - 1])
                between = 0.0 if dense else SLOPE_ERROR * off
                return root, float((self.at(times[nearest]).error[c] + between) / max(slope, 1e-12))
            self.at(root)
