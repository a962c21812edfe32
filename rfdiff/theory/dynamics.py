"""Per-class learning curves at all training times, by contour integrals of the two-point function (`equations`, section 5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from numpy.typing import ArrayLike
from scipy.stats import chi2

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import GradientFlow, HeavyBall, Ridge, Rule, check_stability
from rfdiff.theory import resolvent
from rfdiff.theory.contour import SIZES, Contour, Laid, Span, lay
from rfdiff.theory.contour_forms import kernel_from, second_traces, trapezoid_error
from rfdiff.theory.density import FEW_CLASSES, FLOOR, atoms, bounds, extent, support
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.neuron_types import (
    FAR,
    LATTICE_RANK,
    SCRAMBLES,
    SOBOL_LEVELS,
    SOBOL_RATE,
    SOBOL_REACH,
    STUDENT,
    gram_root,
    levels,
    refined_error,
)
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.resolvent import RESIDUAL, Point
from rfdiff.theory.traces import ridge_losses
from rfdiff.value_types import as_integer, as_number

LEAST = 256  # neuron types: enough for the first two levels of two classes, which then share one program
PATIENCE = 1  # refinements of a contour without gain before it is given up
PROBES = 10  # penalties at which the losses of ridge regression by contour are compared with those that need none
TAIL_SHARE = 1 / 40  # of the tolerance: share of the neurons beyond the radius; a loss feels up to 5 times that
TAIL_EFFECT = 5.0


@dataclass(frozen=True)
class _Question:
    """What is asked of every equivalent: losses at T training times with a limit, and how accurate the contour must be."""

    rule: Rule
    kappa: float
    taus: np.ndarray
    clock: PyTree
    tolerance: float
    widening: float = np.inf  # factor by which a contour that cuts the spectrum is widened at once

    def lay(self, span: Span, size: int | None) -> Laid:
        return lay(span, self.rule, self.kappa, self.taus, self.tolerance, size)


class _Answer(NamedTuple):
    """Train and test losses (2, T, K), the errors of the contour and of the neuron types, and what the contour goes around."""

    losses: np.ndarray
    contour_error: float
    types_error: float
    span: Span
    eq: Equivalent


class _Evaluated(NamedTuple):
    """Losses (2, T, K) on one contour, the error of its nodes, what it leaves out, and the residual of the fixed point."""

    losses: np.ndarray
    error: float
    missing: float
    residual: float


Evaluate = Callable[[_Question, Laid], _Evaluated]


@jax.jit
def _on_contour(
    eq: Equivalent, contour: Contour, point: Point, residual: jax.Array, clock: PyTree, kappa: float, rule: Rule, penalties: jax.Array
) -> tuple[jax.Array, ...]:
    """Losses (2, T, K), error of the nodes, gap of ridge losses and residual, from the solution on a contour and, after it, at z = -ρ."""
    size = contour.nodes.shape[0]
    inside, probes = (jax.tree.map(lambda leaf, part=part: leaf[part], point) for part in (slice(size), slice(size, None)))
    kernel = kernel_from(eq, contour, inside, residual, second_traces(eq, inside), 0.0, kappa, np.inf)
    losses, change = kernel.evaluate(rule.filter(kernel.nodes, clock, kappa))
    gap = jnp.max(abs(kernel.evaluate(1 / (kernel.nodes + penalties[:, None]))[0] - ridge_losses(eq, probes)))
    return losses, trapezoid_error(change), gap, kernel.residual


def _evaluate(eq: Equivalent, question: _Question, laid: Laid) -> _Evaluated:
    """Losses from one contour, and how far those of ridge regression by the same contour are from their values without one."""
    low, high = bounds(eq)
    penalties = np.geomspace(max(low / 3, 2 * laid.shift), 3 * high, PROBES)
    solution = resolvent.solve_anywhere(eq, np.concatenate([laid.contour.nodes, -penalties]))
    losses, error, gap, residual = _on_contour(
        eq, laid.contour, solution.point, solution.residual, question.clock, question.kappa, question.rule, penalties
    )
    return _Evaluated(np.asarray(losses), float(error), float(gap), float(residual))


def _evaluate_dense(ready: dense.Dense, work: dense.Work, question: _Question, laid: Laid) -> _Evaluated:
    """`_evaluate` where the covariances do not commute: what is left out is read from the known traces of V."""
    solved = dense.solve(ready, np.asarray(laid.contour.nodes), None, work)
    traces = dense.second_traces(ready, solved, work)
    second = traces[..., : len(solved.nodes)], traces[..., len(solved.nodes) :]
    kernel = kernel_from(ready.system.eq, laid.contour, solved.point, jnp.asarray(solved.residual), second, 0.0, question.kappa, np.inf)
    losses, change = kernel.evaluate(question.rule.filter(kernel.nodes, question.clock, question.kappa))
    return _Evaluated(np.asarray(losses), float(trapezoid_error(change)), float(kernel.missing), float(kernel.residual))


def _converge(eq: Equivalent, question: _Question, span: Span, evaluate: Evaluate) -> tuple[np.ndarray, float, Span]:
    """Losses on a contour refined until its error estimate is below the tolerance; with the estimate, and what the contour goes around."""
    size, last, stalled = None, np.inf, 0
    low, high = bounds(eq)
    everything = Span(low, min(high, 0.99 * question.rule.largest_stable_eigenvalue(question.kappa)))
    while True:
        laid = question.lay(span, size)
        size, values = laid.size, evaluate(question, laid)
        if values.missing > 10 * max(question.tolerance, values.error) and span != everything and span.low > 0:
            # a part of the spectrum lies outside: go around everything there can be
            widened = Span(max(everything.low, span.low / question.widening), min(everything.high, span.high * question.widening))
            span, size = widened, None
            continue
        error = values.error + values.missing
        if values.residual > RESIDUAL or not np.isfinite(error):
            error = np.inf
        stalled = 0 if error < 0.5 * last else stalled + 1  # an oscillating filter may need a second try before its nodes resolve it
        if error <= question.tolerance or size == len(SIZES) - 1 or stalled > PATIENCE:
            return values.losses, error, span
        size, last = size + 1, min(error, last)


def learning_curves(
    problem: Problem,
    taus: ArrayLike | None = None,
    *,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    progress: dense.Progress | None = None,
) -> LearningCurves:
    """Per-class train and test losses and score errors at all training times, in the limit d → ∞ with ψ_p, ψ_n fixed.

    `L_c(τ) = 1 - 2 T1 + T2` with `T1 = -(1/2πi) ∮ f t1 dz` and `T2 = (1/2πi)² ∮∮ f f t2 dz1 dz2` (`equations`, section 5). Numbers of
    contour nodes and neuron types are raised until the estimates of their errors add up to less than `tolerance`. The error of the contour
    is that of its nodes, and how far losses of ridge regression by the same contour are from their values at a single point z = -ρ.

    Outlier eigenvalues of U of size O(p), which class means and even activations make, move no curve of the flow and are not in the
    theory. A discrete rule must be stable for them too, with a step of order 1/d: the simulation checks it, the theory only the bulk.

    Covariances that do not commute cost a matrix per contour node, of d rows for two classes or centred ones and (K - 1) d for more, less
    where the spectra decay; a looser tolerance makes them smaller and fewer.

    Args:
        problem: the problem, K classes.
        taus: (T,) increasing training times ≥ 0, in the unit set by κ = 2Δ/ψ_p; the last may be inf. None for `time_grid(problem)`, or the
            penalties of a `Ridge`.
        rule: training rule.
        tolerance: largest absolute error wanted in any loss, between 1e-9 and 0.1.
        progress: called with (units of work done, expected so far) where the covariances do not commute, and with (1, 1) at the end.

    Returns:
        `LearningCurves`; `error_estimate` is the error reached. Where the fixed point fails, entries are NaN and the estimate inf.
        Entries at τ = ∞ are NaN where the limit diverges (`limit_diverges`: p = n m), and where it is not reached within 10^12 relaxation
        times of the fastest mode. With a Gram matrix of rank above 3 neuron types are averaged by quasi-Monte-Carlo, which stops at about
        1e-4 to 1e-3: the estimate is then 3.2 standard errors over independent point sets, and may stay above the tolerance.

    Raises:
        InputError: malformed taus, tolerance or progress; a step size at which the rule diverges; matrices that do not fit in memory.

    Reference: `equations`, section 5; tests/theory/test_dynamics.py.
    """
    tolerance = check_tolerance(tolerance)
    if progress is not None and not callable(progress):
        raise InputError(f"progress: {progress!r}; allowed: a function of (done, total), or None")
    kappa = float(problem.kappa)
    if taus is None and not isinstance(rule, Ridge):
        taus = time_grid(problem)
    taus, clock = rule.schedule(taus, kappa)
    with jax.enable_x64(True):
        near = dense.surrogate(problem)
        radius, tail = types_radius(problem, tolerance)
        span = spectrum_span(near, rule, kappa, radius)
        times = _Times.within_reach(taus, span, rule, kappa, limit_diverges(problem), tolerance)
        # where every node costs a matrix, a contour is widened in steps
        question = _Question(rule, kappa, times.asked, times.clock(rule, clock, kappa), tolerance / 4, np.inf if near is problem else 2.0)
        refine = _over_levels if gram_root(problem.mixture.centroid_gram).shape[1] <= LATTICE_RANK else _over_scrambles
        answer = refine(near, question, span, radius, tolerance, TAIL_EFFECT * tail)
        if near is not problem:
            answer = _with_matrices(problem, question, answer, tolerance, dense.Work(progress))
    if progress is not None:
        progress(1, 1)
    return _package(problem, taus, *times.read(answer.losses, answer.contour_error + answer.types_error, tolerance))


def check_tolerance(tolerance: float) -> float:
    """The tolerance as a float.

    Raises:
        InputError: it is not a number between 1e-9 and 0.1.
    """
    number = as_number(tolerance)
    if not 1e-9 <= number <= 0.1:
        raise InputError(f"tolerance: {tolerance!r}; allowed: 1e-9 <= tolerance <= 0.1")
    return number


def types_radius(problem: Problem, tolerance: float) -> tuple[float, float]:
    """Standard deviations of h that the neuron types cover, and the share of the neurons beyond, for a tolerance; 0 without centroids."""
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    tail = tolerance * TAIL_SHARE if rank else 0.0
    return (math.sqrt(chi2.isf(tail, rank)), tail) if rank else (0.0, 0.0)


def limit_diverges(problem: Problem) -> bool:
    """Whether test losses grow without bound as τ → ∞: at p = n m, where the spectrum of U reaches down to 0."""
    columns = float(problem.psi_n) * float(problem.noise_draws)
    return math.isfinite(columns) and (1 - math.sqrt(float(problem.psi_p) / columns)) ** 2 < FLOOR


class _Times(NamedTuple):
    """Training times asked for, and those at which the losses are computed: a contour left of 0 reaches finite times only.

    At p = n m losses beyond its reach are unknown. Elsewhere the spectrum near 0 carries little, and the losses at the end of the reach
    stand for all that follow; what they change over the last decade is the error.
    """

    asked: np.ndarray
    position: np.ndarray  # of each training time in `asked`
    beyond: np.ndarray  # which lie outside the reach
    diverges: bool

    @classmethod
    def within_reach(cls, taus: np.ndarray, span: Span, rule: Rule, kappa: float, diverges: bool, tolerance: float) -> "_Times":
        if isinstance(rule, Ridge):
            return cls(taus, np.arange(taus.size), np.zeros(taus.size, bool), diverges)
        reach = np.inf if span.low > 0 else 1 / (kappa * FLOOR * span.high)
        effective = np.where(_settled(taus, rule, kappa, span, tolerance), np.inf, taus)
        beyond = effective > reach
        if diverges and beyond.all():
            raise InputError("taus: only inf, where the test loss diverges (p = n m); allowed: finite training times")
        last = [] if not beyond.any() else [effective[~beyond][-1]] if diverges else [reach / 10, reach]
        asked = np.unique(np.concatenate([effective[~beyond], last]))
        return cls(asked, np.searchsorted(asked, np.where(beyond, asked[-1], effective)), beyond, diverges)

    def clock(self, rule: Rule, clock: PyTree, kappa: float) -> PyTree:
        return clock if isinstance(rule, Ridge) else rule.schedule(self.asked, kappa)[1]

    def read(self, losses: np.ndarray, error: float, tolerance: float) -> tuple[np.ndarray, float]:
        """Losses (2, T, K) at the training times, with NaN where they are unknown, and their error."""
        values = losses[:, self.position]
        if not self.beyond.any():
            return values, error
        change = np.inf if self.diverges else float(np.max(abs(losses[:, -1] - losses[:, -2])))
        if change > max(error, tolerance):
            return np.where(self.beyond[:, None], np.nan, values), error
        return values, error + change


def _settled(taus: np.ndarray, rule: Rule, kappa: float, span: Span, tolerance: float) -> np.ndarray:
    """Training times (T,) at which every mode of a discrete rule has converged: its filter is 1/λ, though no longer smooth off the axis."""
    if not isinstance(rule, HeavyBall) or span.low <= 0:
        return np.zeros(taus.size, bool)
    slowest = float(np.max(rule.growth(np.geomspace(span.low, span.high, 256), kappa)))
    steps = np.clip(taus / rule.step_size, 1, 1e300)
    return (slowest < 1) & (np.log(steps) + steps * math.log(min(slowest, 1.0)) < math.log(1e-3 * tolerance))


def _over_levels(problem: Problem, question: _Question, span: Span, radius: float, tolerance: float, beyond: float) -> _Answer:
    """Losses refined over levels of neuron types until the tolerance is met; `beyond` is the error from neurons outside the radius."""
    before: np.ndarray | None = None
    for level in levels(problem, 1, radius):
        eq = equivalent(problem, level, radius, LEAST)
        losses, error, span = _converge(eq, question, span, partial(_evaluate, eq))
        types = beyond
        if before is not None:
            types += refined_error(problem, float(np.max(abs(losses - before))))
        elif radius:
            types = np.inf  # one level says nothing of its own error
        if error + types <= tolerance:
            break
        before = losses
    return _Answer(losses, error, types, span, eq)


def _over_scrambles(problem: Problem, question: _Question, span: Span, radius: float, tolerance: float, beyond: float) -> _Answer:
    """`_over_levels` for neuron types by quasi-Monte-Carlo: the mean over independent scrambles, and 3.2 standard errors of it.

    A first round measures the error, the second takes the number of points that the tolerance asks for, up to the largest. The contour
    need not be better than such an average can be.
    """
    question = replace(question, tolerance=max(question.tolerance, 1e-5))
    last = SOBOL_LEVELS - 2
    level = 0 if tolerance > SOBOL_REACH else last
    while True:
        runs, errors = [], []
        for scramble in range(SCRAMBLES):
            eq = equivalent(problem, level, radius, LEAST, scramble)
            losses, error, span = _converge(eq, question, span, partial(_evaluate, eq))
            runs.append(losses)
            errors.append(error)
        types = STUDENT * float(np.max(np.std(runs, 0, ddof=1))) / math.sqrt(SCRAMBLES) + beyond
        if types + max(errors) <= tolerance or level == last or not np.isfinite(types):
            return _Answer(np.mean(runs, 0), max(errors), types, span, eq)
        level = min(last, level + max(1, math.ceil(math.log2(types / tolerance) / SOBOL_RATE)))


def _with_matrices(problem: Problem, question: _Question, near: _Answer, tolerance: float, work: dense.Work) -> _Answer:
    """Losses with the covariances as they are, and the error of contour and core, from the surrogate's neuron types and contour."""
    ready = dense.prepare(problem, near.eq, tolerance)
    stable = question.rule.largest_stable_eigenvalue(question.kappa)
    low, high = near.span
    wider = Span(low / dense.WIDENING, min(high * dense.WIDENING, max(math.sqrt(stable) * math.sqrt(high), high)))
    losses, error, span = _converge(dense.spectra(ready, problem), question, wider, partial(_evaluate_dense, ready, work))
    return near._replace(losses=losses, contour_error=error + ready.neglected, span=span)


def spectrum_span(problem: Problem, rule: Rule, kappa: float, radius: float) -> Span:
    """What a contour must go around; for a discrete rule, after checking that its step is stable.

    Raises:
        InputError: a step size at which the rule diverges, or an activation that is constant on the data.
    """
    eq = equivalent(problem, 1 if problem.num_classes <= FEW_CLASSES else 0, radius, LEAST)
    low, high = extent(eq)
    if np.isfinite(rule.largest_stable_eigenvalue(kappa)):
        bulks = support(eq, atoms(eq))[0]
        high = float(bulks[-1, 1]) if len(bulks) else high
        check_stability(rule, kappa, high)
    return Span(low, high)


def _package(problem: Problem, taus: np.ndarray, losses: np.ndarray, error: float) -> LearningCurves:
    law = problem.mixture
    train, test = losses if np.isfinite(error) else losses * np.nan
    optimal = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
    score = (test - optimal) / float(noise_variance_of(problem.t))
    zeros = np.zeros_like(test)
    return LearningCurves(taus, train, test, score, optimal, law.weights, float(problem.kappa), error, zeros, zeros, zeros, source="theory")


def time_grid(problem: Problem, *, num: int = 80) -> Float[np.ndarray, " T"]:
    """Training times (num + 1,), log-spaced from before the first mode learns to after the last one has, then inf.

    From 0.05/(κ λ_max) to 30/(κ λ_min), at most 9 decades; inf is left out where the limit diverges (p = n m).

    Args:
        problem: the problem.
        num: number of finite times.

    Raises:
        InputError: num below 3.
    """
    num = as_integer("num", num, 3)
    with jax.enable_x64(True):
        low, high = extent(equivalent(dense.surrogate(problem), 1, FAR, LEAST))
    kappa = float(problem.kappa)
    grid = np.geomspace(0.05 / (kappa * high), 30 / (kappa * max(low, 6e-7 * high)), num)
    return grid if limit_diverges(problem) else np.append(grid, np.inf)
