"""Per-class learning curves at all training times, by contour integrals of the two-point function (`equations`, section 5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpy.typing import ArrayLike

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import GradientFlow, MinibatchSGD, Ridge, Rule, require_rule
from rfdiff.theory import minibatch, pair_traces, solutions
from rfdiff.theory.contour import PROBES, SIZES, Laid, Span, lay
from rfdiff.theory.contour_forms import CurveKernel, first_traces, kernel_from, losses_and_error
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import checked_tolerance, require_concrete
from rfdiff.theory.neuron_types import (
    SCRAMBLES,
    SOBOL_LEVELS,
    SOBOL_RATE,
    SOBOL_REACH,
    STUDENT,
    by_lattice,
    levels,
    refined_error,
)
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.resolvent import RESIDUAL
from rfdiff.theory.support import bounds
from rfdiff.theory.training_times import LEAST, TAIL_EFFECT, Times, limit_diverges, spectrum_span, time_grid, types_radius

ROUNDING = 1e-9  # of a loss: no estimate is below, since solutions of the fixed point are not
PATIENCE = 1  # refinements of a contour without gain before it is given up


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
Noise = Callable[..., minibatch.Excess]  # of an equivalent, a contour and the solutions on it


@jax.jit
def _ridge(kernel: CurveKernel, penalties: jax.Array) -> jax.Array:
    """Losses (2, R, K) of ridge regression by the contour."""
    return kernel.evaluate(1 / (kernel.nodes + penalties[:, None]))[0]


_kernel_from = jax.jit(kernel_from)


def _evaluate(eq: Equivalent, question: _Question, laid: Laid) -> _Evaluated:
    """Losses from one contour, and how far those of ridge regression by the same contour are from their values without one."""
    low, high = bounds(eq)
    penalties = np.geomspace(max(low / 3, 2 * laid.shift), 3 * high, PROBES)
    nodes = np.asarray(laid.contour.nodes)
    solved = solutions.anywhere(eq, np.concatenate([nodes, -penalties]))
    linear, *second = pair_traces.traces(eq, nodes, solved.u[: nodes.size])
    kernel = _kernel_from(eq, laid.contour, linear, solved.residual, second, 0.0, question.kappa, np.inf)
    losses, error = losses_and_error(kernel, question.clock, question.rule)
    gap = np.max(abs(_ridge(kernel, penalties) - pair_traces.ridge_losses(eq, penalties, solved.u[nodes.size :])))
    return _Evaluated(np.asarray(losses), float(error), float(gap), float(kernel.residual))


def _evaluate_dense(ready: dense.Dense, work: dense.Work, question: _Question, laid: Laid) -> _Evaluated:
    """`_evaluate` where the covariances do not commute: what is left out is read from the known traces of V."""
    solved = dense.solve(ready, np.asarray(laid.contour.nodes), None, work)
    traces = dense.second_traces(ready, solved, work)
    second = traces[..., : len(solved.nodes)], traces[..., len(solved.nodes) :]
    linear = first_traces(ready.system.eq, solved.point)
    kernel = kernel_from(ready.system.eq, laid.contour, linear, jnp.asarray(solved.residual), second, 0.0, question.kappa, np.inf)
    losses, error = losses_and_error(kernel, question.clock, question.rule)
    return _Evaluated(np.asarray(losses), float(error), float(kernel.missing), float(kernel.residual))


def _converge(
    eq: Equivalent, question: _Question, span: Span, evaluate: Evaluate, size: int | None = None
) -> tuple[np.ndarray, float, Span, int]:
    """Losses on a contour refined until its error estimate is below the tolerance.

    Returns:
        The losses, the estimate, what the contour goes around, and the index of its size, with which a similar equivalent begins.
    """
    last, stalled = np.inf, 0
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
            return values.losses, error, span, size
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
        Entries at τ = ∞ are NaN where the limit diverges (`limit_diverges`: p = n m without decay), and where it is not reached within
        10^12 relaxation times of the fastest mode. With a Gram matrix of rank above 3 neuron types are averaged by quasi-Monte-Carlo, which
        stops at about 1e-4 to 1e-3: the estimate is then 3.2 standard errors over independent point sets, and may stay above the
        tolerance.

    Raises:
        InputError: malformed taus, tolerance or progress; a step size at which the rule diverges; matrices that do not fit in memory.

    Reference: `equations`, section 5; tests/theory/test_dynamics.py.
    """
    require_concrete(problem, "theory.learning_curves")
    require_rule(rule)
    tolerance = checked_tolerance(tolerance)
    if progress is not None and not callable(progress):
        raise InputError(f"progress: {progress!r}; allowed: a function of (done, total), or None")
    kappa = float(problem.kappa)
    if taus is None and not isinstance(rule, Ridge):
        taus = time_grid(problem)
    taus, clock = rule.schedule(taus, kappa)
    if isinstance(rule, MinibatchSGD):
        return _with_batches(problem, taus, rule, tolerance)
    with jax.enable_x64(True):
        near = dense.surrogate(problem)
        radius, tail = types_radius(problem, tolerance)
        span = spectrum_span(near, rule, kappa, radius)
        times = Times.within_reach(taus, span, rule, kappa, limit_diverges(problem, rule), tolerance)
        # where every node costs a matrix, a contour is widened in steps
        question = _Question(rule, kappa, times.asked, times.clock(rule, clock, kappa), tolerance / 4, np.inf if near is problem else 2.0)
        refine = _over_levels if by_lattice(near, radius) else _over_scrambles
        answer = refine(near, question, span, radius, tolerance, TAIL_EFFECT * tail)
        if near is not problem:
            answer = _with_matrices(problem, question, answer, tolerance, dense.Work(progress))
    if progress is not None:
        progress(1, 1)
    return _package(problem, taus, *times.read(answer.losses, answer.contour_error + answer.types_error, tolerance))


def size_of(losses: np.ndarray) -> float:
    """The largest loss, if above 1: what errors of losses scale with."""
    return float(np.max(abs(losses), initial=1.0, where=np.isfinite(losses)))


def _over_levels(problem: Problem, question: _Question, span: Span, radius: float, tolerance: float, beyond: float) -> _Answer:
    """Losses refined over levels of neuron types until the tolerance is met; `beyond` is the error of a loss of 1 from neurons outside
    the radius.
    """
    before: np.ndarray | None = None
    size: int | None = None
    change = 0.0
    for level in levels(problem, 1, radius):
        eq = equivalent(problem, level, radius, LEAST)
        losses, error, span, size = _converge(eq, question, span, partial(_evaluate, eq), size)
        tail = beyond * size_of(losses)
        earlier, change = change, 0.0 if before is None else float(np.max(abs(losses - before)))
        types = refined_error(True, change, earlier) if before is not None else np.inf if radius else 0.0
        if error + types <= max(tolerance - tail, tail):  # finer types would not change what the tail adds
            types += tail
            break
        types += tail
        before = losses
    return _Answer(losses, error, types, span, eq)


def _over_scrambles(problem: Problem, question: _Question, span: Span, radius: float, tolerance: float, beyond: float) -> _Answer:
    """`_over_levels` for neuron types by quasi-Monte-Carlo: the mean over independent scrambles, and 3.2 standard errors of it.

    A first round measures the error, the second takes the number of points that the tolerance asks for, up to the largest. The contour
    need not be better than such an average can be.
    """
    question = replace(question, tolerance=max(question.tolerance, 1e-5))
    last = SOBOL_LEVELS - 2
    level, size = 0 if tolerance > SOBOL_REACH else last, None
    while True:
        runs, errors = [], []
        for scramble in range(SCRAMBLES):
            eq = equivalent(problem, level, radius, LEAST, scramble)
            losses, error, span, size = _converge(eq, question, span, partial(_evaluate, eq), size)
            runs.append(losses)
            errors.append(error)
        types = STUDENT * float(np.max(np.std(runs, 0, ddof=1))) / math.sqrt(SCRAMBLES) + beyond * size_of(np.stack(runs))
        if types + max(errors) <= tolerance or level == last or not np.isfinite(types):
            return _Answer(np.mean(runs, 0), max(errors), types, span, eq)
        level = min(last, level + max(1, math.ceil(math.log2(types / tolerance) / SOBOL_RATE)))


def _with_matrices(problem: Problem, question: _Question, near: _Answer, tolerance: float, work: dense.Work) -> _Answer:
    """Losses with the covariances as they are, and the error of contour and core, from the surrogate's neuron types and contour."""
    ready = dense.prepare(problem, near.eq, tolerance)
    stable = question.rule.largest_stable_eigenvalue(question.kappa)
    low, high = near.span
    wider = Span(low / dense.WIDENING, min(high * dense.WIDENING, max(math.sqrt(stable) * math.sqrt(high), high)))
    losses, error, span, _ = _converge(dense.spectra(ready, problem), question, wider, partial(_evaluate_dense, ready, work))
    return near._replace(losses=losses, contour_error=error + ready.neglected, span=span)


def _with_batches(problem: Problem, taus: np.ndarray, rule: MinibatchSGD, tolerance: float) -> LearningCurves:
    """Losses under minibatch SGD: those of the steps along the whole gradient, and what the noise of the batches adds."""
    minibatch.check_covered(problem, rule)
    with jax.enable_x64(True):
        steps = np.where(np.isinf(taus), np.inf, np.rint(taus / float(rule.step_size)))
        return with_noise(problem, taus, rule.descent, partial(minibatch.excess, problem, rule=rule, steps=steps), tolerance)


def with_noise(problem: Problem, taus: np.ndarray, calm: Rule, noise: Noise, tolerance: float) -> LearningCurves:
    """Losses under a rule that is a filter and noise beside it: those of the filter, and what `noise` adds on a contour.

    Inside `jax.enable_x64`, for centred classes. The contour is laid for all times: stability is a question about all of them.
    """
    clock, kappa, eq = calm.schedule(taus, float(problem.kappa))[1], float(problem.kappa), equivalent(problem, 1, 0.0, LEAST)
    question = _Question(calm, kappa, minibatch.ALL_TIMES, clock, tolerance / 2)

    def evaluate(question: _Question, laid: Laid) -> _Evaluated:
        still, solved = _evaluate(eq, question, laid), solutions.anywhere(eq, np.asarray(laid.contour.nodes))
        added = noise(eq, contour=laid.contour, u=solved.u)
        return still._replace(losses=still.losses + added.losses, error=still.error + added.error)

    losses, error, *_ = _converge(eq, question, spectrum_span(problem, calm, kappa, 0.0), evaluate)
    return _package(problem, taus, losses, error)


def _package(problem: Problem, taus: np.ndarray, losses: np.ndarray, error: float) -> LearningCurves:
    law = problem.mixture
    error = max(error, ROUNDING * size_of(losses))
    train, test = losses if np.isfinite(error) else losses * np.nan
    optimal = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
    score = (test - optimal) / float(noise_variance_of(problem.t))
    zeros = np.zeros_like(test)
    return LearningCurves(taus, train, test, score, optimal, law.weights, float(problem.kappa), error, zeros, zeros, zeros, source="theory")
