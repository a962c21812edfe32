"""Class-wise times of a problem from its closed form, which do not depend on the training times that are shown (`equations`, section 7).

The curves are evaluated on a grid of this file's own, from before the first mode moves to after the last one has relaxed, and at τ = ∞.
They are analytic in log τ, so between its points a cubic through the four nearest gives a crossing to 1e-6 and a quartic through the five
nearest gives the place of a minimum to 1e-4 or better.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from rfdiff.class_times import ClassTimes
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, HeavyBall, Ridge, Rule
from rfdiff.theory.density import extent
from rfdiff.theory.dynamics import LEAST, learning_curves, time_grid
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.input_checks import checked_fraction, require_concrete
from rfdiff.theory.noncommuting import dense

NUM_TIMES = 480  # about 16 in a factor e over ten decades
FIRST, LAST = 1e-3, 40.0  # in relaxation times of the fastest and of the slowest mode
FIRST_STEPS = 256  # of a discrete rule, each looked at: momentum oscillates in them
RADIUS = 5.9
HARD = 6e-7  # of the highest eigenvalue: where the support touches 0, the grid ends as if it began here, after nine decades

INSTEAD = "lays its own grid of training times, outside of jit, grad and vmap; allowed there: theory.class_times of a theory.curve_kernel"


def times(
    problem: Problem,
    *,
    rule: Rule = GradientFlow(),
    q: float = 0.5,
    tolerance: float = 1e-6,
    progress: Callable[[int, int], None] | None = None,
) -> ClassTimes:
    """τ_gen, τ_stop, τ_mem and τ_opt(q) of every class in closed form, read from curves at all times, τ = ∞ included.

    Args:
        problem: the problem, K classes.
        rule: training rule that trains in time: gradient flow, descent, momentum.
        q: fraction of the way to the exact score's loss that counts as learned in τ_opt, in (0, 1).
        tolerance: largest numerical error wanted in a loss.
        progress: as in `learning_curves`.

    Returns:
        `ClassTimes` of arrays (K,): τ_gen is NaN without a descent; τ_stop is inf if the loss falls to the end, 0 if it only rises; τ_mem
        is NaN if the gap between test and train loss does not open, or has no final value (p = n m, where it diverges); τ_opt is inf if
        it is never reached.

    Raises:
        InputError: malformed q, tolerance or progress; `Ridge`, which has no time; what `learning_curves` refuses.

    Reference: `equations`, section 7; tests/theory/test_problem_times.py.
    """
    return curves_and_times(problem, [0.0], rule=rule, q=q, tolerance=tolerance, progress=progress)[1]


def curves_and_times(
    problem: Problem,
    taus: ArrayLike | None = None,
    *,
    rule: Rule = GradientFlow(),
    q: float = 0.5,
    tolerance: float = 1e-6,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LearningCurves, ClassTimes]:
    """Learning curves at the training times that are to be shown, and the times of each class, for the price of one evaluation.

    Args:
        problem: the problem, K classes.
        taus: (T,) training times of the curves; None for `time_grid`.
        rule, q, tolerance, progress: as in `times`.

    Returns:
        The curves as of `learning_curves`, and the times as of `times`, which do not depend on `taus`.

    Raises:
        InputError: as `times`; malformed taus.
    """
    require_concrete(problem, "theory.times", INSTEAD)
    q = checked_fraction(q)
    if isinstance(rule, Ridge):
        raise InputError("rule: Ridge has penalties and no training time; allowed: gradient flow, descent or momentum")
    kappa = float(problem.kappa)
    shown, _ = rule.schedule(time_grid(problem) if taus is None else taus, kappa)
    covering, _ = rule.schedule(_grid(problem, rule), kappa)
    union, where = np.unique(np.concatenate([shown, covering]), return_inverse=True)
    curves = learning_curves(problem, union, rule=rule, tolerance=tolerance, progress=progress)
    read = _at(curves, np.unique(where[shown.size :]))
    return _at(curves, where[: shown.size]), _read(read, q)


def _grid(problem: Problem, rule: Rule) -> Float[np.ndarray, " T"]:
    """Training times that cover every mode, and τ = ∞ where the curves have a limit."""
    with jax.enable_x64(True):
        low, high = extent(equivalent(dense.surrogate(problem), 1, RADIUS, LEAST))
    kappa = float(problem.kappa)
    end = LAST / (kappa * (low if low > 0 else HARD * high))
    if isinstance(rule, HeavyBall):
        momentum, first = float(rule.momentum), float(rule.step_size) * np.arange(1, FIRST_STEPS + 1)
        # slow modes are faster by 1/(1 - momentum); fast ones oscillate, and decay by the momentum alone
        end = max(end * (1 - momentum), LAST * first[0] / (1 - momentum), 2 * first[-1])
        finite = np.concatenate([first, np.geomspace(first[-1], end, NUM_TIMES)[1:]])
    else:
        finite = np.geomspace(FIRST / (kappa * high), end, NUM_TIMES)
    return np.append(finite, np.inf) if low > 0 else finite


def _at(curves: LearningCurves, index: np.ndarray) -> LearningCurves:
    """The curves at some of their times."""
    names = ("taus", *CURVE_NAMES, *(f"{name}_stderr" for name in CURVE_NAMES))
    return dataclasses.replace(curves, **{name: np.asarray(getattr(curves, name))[index] for name in names})


def _read(curves: LearningCurves, q: float) -> ClassTimes:
    """The times of all classes from curves on the grid of `_grid`."""
    columns = zip(curves.train_loss.T, curves.test_loss.T, curves.optimal_loss, strict=True)
    gen, stop, mem, opt = np.array([_class_times(curves.taus, *column, q, float(curves.error_estimate)) for column in columns]).T
    return ClassTimes(gen, stop, mem, opt, q=q)


def _class_times(
    taus: np.ndarray, train: np.ndarray, test: np.ndarray, optimal: float, q: float, noise: float
) -> tuple[float, float, float, float]:
    """τ_gen, τ_stop, τ_mem, τ_opt of one class."""
    finite = np.isfinite(taus)
    if not np.all(np.isfinite(test[finite])):
        return np.nan, np.nan, np.nan, np.nan
    limit = not finite[-1] and bool(np.isfinite(test[-1]))
    x, falling = np.log(taus[finite]), 1 - test[finite]
    stop, lowest = _minimum(x, test[finite])
    if limit and test[-1] - lowest <= noise:
        stop, lowest = np.inf, min(lowest, float(test[-1]))
    if not lowest < 1:
        stop, lowest = 0.0, 1.0
    gen = _first_crossing(x, falling, (1 - np.exp(-1)) * (1 - lowest)) if lowest < 1 else np.nan
    final = float(test[-1] - train[-1]) if limit else np.nan
    mem = _first_crossing(x, (test - train)[finite], final / 2) if final > noise else np.nan
    opt = _first_crossing(x, falling, q * (1 - optimal)) if optimal < 1 else np.nan
    return gen, stop, mem, np.inf if np.isnan(opt) and optimal < 1 else opt


def _first_crossing(x: np.ndarray, values: np.ndarray, level: float) -> float:
    """First τ at which `values` on the grid of x = log τ, 0 and linear in τ before it, reach a level; NaN if they never do."""
    above = np.flatnonzero(values >= level)
    if not above.size:
        return np.nan
    i = int(above[0])
    if i == 0:
        return float(np.exp(x[0]) * level / values[0]) if values[0] > 0 else np.nan
    left = min(max(i - 2, 0), max(x.size - 4, 0))
    nearest = slice(left, left + 4)
    cubic = _polynomial(x[nearest], values[nearest])
    return float(np.exp(brentq(lambda y: float(cubic(y)) - level, x[i - 1], x[i], xtol=1e-13)))


def _minimum(x: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """τ and value of the lowest point of `values` on the grid of x = log τ; inf if they end there."""
    i = int(np.argmin(values))
    if i == x.size - 1:
        return np.inf, float(values[i])
    left = min(max(i - 2, 0), max(x.size - 5, 0))
    nearest = slice(left, left + 5)
    quartic = _polynomial(x[nearest], values[nearest])
    inside = [y.real for y in quartic.deriv().roots() if abs(y.imag) < 1e-9 and x[max(i - 1, 0)] <= y.real <= x[i + 1]]
    place = min([x[i], *inside], key=lambda y: float(quartic(y)))
    return float(np.exp(place)), float(quartic(place))


def _polynomial(x: np.ndarray, values: np.ndarray) -> Polynomial:
    """The polynomial through a few points."""
    return Polynomial.fit(x, values, x.size - 1)
