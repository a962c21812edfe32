"""Per-class learning curves at all training times, by contour integrals of the two-point function (docs/theory/curves.md, eq-contour)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.curves import LearningCurves
from rfdiff.host import double_on_host
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, MinibatchSGD, Ridge, Rule, require_rule
from rfdiff.theory import minibatch, pair_traces, solutions
from rfdiff.theory.contour import Contour, Laid, Span
from rfdiff.theory.contour_forms import CurveKernel, kernel_from, losses_and_error
from rfdiff.theory.contour_ladder import OnContour, Question, probe_penalties, refine_contour, spread_penalties
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import checked_tolerance, require_concrete
from rfdiff.theory.neuron_types import SOBOL_LEVELS, LevelErrors, by_lattice, levels, refined_error
from rfdiff.theory.noncommuting import core_ladder, dense
from rfdiff.theory.refined_solutions import from_few
from rfdiff.theory.training_times import (
    LEAST,
    TAIL_EFFECT,
    Times,
    coarse_level,
    covered_by_far,
    limit_diverges,
    problem_extents,
    spectrum_span,
    time_grid,
    types_radius,
)
from rfdiff.theory.type_choice import Chosen, chosen_types

FASTER = 1.4  # power of the change by one level that the next one makes
OF_TYPES = 0.75  # of the tolerance, for Sobol points: contour and cores reach theirs easily
CONTOUR_SHARE = 0.25  # of the error of Sobol points, that a contour may add
SURELY = 2.0  # times the tolerance: an expected error above which a level is left out
FILLED = (32, 48, 64, 128, 256, 768)  # nodes on the upper half of a contour to which smaller ones are filled up
ROUNDING = 1e-9  # of a loss: no estimate is below, since solutions of the fixed point are not

Noise = Callable[..., minibatch.Excess]  # of an equivalent, a contour and the solutions on it


class _Answer(NamedTuple):
    """Train and test losses (2, T, K), the errors of the contour and of the neuron types, and what the contour goes around."""

    losses: np.ndarray
    contour_error: float
    types_error: float
    span: Span
    eq: Equivalent


@jax.jit
def _ridge(kernel: CurveKernel, penalties: jax.Array) -> jax.Array:
    """Losses (2, R, K) of ridge regression by the contour."""
    return kernel.evaluate(1 / (kernel.nodes + penalties[:, None]))[0]


_kernel_from = jax.jit(kernel_from)


def _evaluate(eq: Equivalent, question: Question, laid: Laid, few: Equivalent | None = None) -> OnContour:
    """Losses from one contour, and how far those of ridge regression by the same contour are from their values without one; solutions
    begin with those of a few neuron types, if these are given.
    """
    penalties = probe_penalties(eq, laid)
    nodes = np.asarray(laid.contour.nodes)
    points = np.concatenate([nodes, -penalties])
    solved = solutions.anywhere(eq, points) if few is None else from_few(eq, few, points)
    linear, *second = pair_traces.traces(eq, nodes, solved.u[: nodes.size])
    kernel = _kernel_from(eq, *_filled(laid.contour, linear, second, solved.residual), 0.0, question.kappa, np.inf)
    losses, error = losses_and_error(kernel, question.clock, question.rule)
    gap = np.max(abs(_ridge(kernel, penalties) - pair_traces.ridge_losses(eq, penalties, solved.u[nodes.size :])))
    return OnContour(losses=np.asarray(losses), error=float(error), missing=float(gap), residual=float(kernel.residual))


def _filled(
    contour: Contour, linear: np.ndarray, second: Sequence[np.ndarray], residual: np.ndarray
) -> tuple[Contour, np.ndarray, np.ndarray, list[np.ndarray]]:
    """A contour and its traces, filled up with copies of the last node of weight 0 to one of `FILLED`, so that most share a program."""
    nodes, weights = np.asarray(contour.nodes), np.asarray(contour.weights)
    more = next(size for size in (*FILLED, nodes.size) if size >= nodes.size) - nodes.size
    wide = Contour(jnp.asarray(np.pad(nodes, (0, more), mode="edge")), jnp.asarray(np.pad(weights, (0, more))))
    return wide, np.pad(linear, ((0, 0), (0, 0), (0, more))), residual.max(), [np.pad(x, ((0, 0),) * 2 + ((0, more),) * 2) for x in second]


def learning_curves(
    problem: Problem,
    taus: ArrayLike | None = None,
    *,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> LearningCurves:
    """Per-class train and test losses and score errors at all training times, in the limit d → ∞ with ψ_p, ψ_n fixed.

    `L_c(τ) = 1 - 2 T1 + T2` with `T1 = -(1/2πi) ∮ f t1 dz` and `T2 = (1/2πi)² ∮∮ f f t2 dz1 dz2` (docs/theory/curves.md, eq-contour).
    Numbers of contour nodes and neuron types are raised until the estimates of their errors add up to less than `tolerance`. The error of
    the contour is that of its nodes, and how far losses of ridge regression by the same contour are from their values at one point z = -ρ.

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
        10^12 relaxation times of the fastest mode. With a Gram matrix of rank above 3 neurons are averaged over weighted Sobol
        points, which stops at about 1e-7 (short centroids) to 5e-4: the estimate is then 4.6 standard errors over independent point
        sets, and may stay above the tolerance.

    Raises:
        InputError: malformed taus, tolerance or progress; a step size at which the rule diverges; matrices that do not fit in memory.

    Reference: docs/theory/curves.md, eq-contour; tests/theory/test_dynamics.py.
    """
    require_concrete(problem, "theory.learning_curves")
    require_rule(rule)
    tolerance = checked_tolerance(tolerance)
    require_progress(progress)
    kappa = float(problem.kappa)
    if taus is None and not isinstance(rule, Ridge):
        taus = time_grid(problem)
    taus, clock = rule.schedule(taus, kappa)
    if isinstance(rule, MinibatchSGD):
        return _with_batches(problem, taus, rule, tolerance)
    with double_on_host():
        near = dense.surrogate(problem)
        radius, tail = types_radius(problem, tolerance)
        made = cache(lambda level: equivalent(near, level, radius, LEAST))
        # without centroids there is one neuron type, whatever the radius; around matrices a contour is widened anyway
        same = problem_extents(problem)[0] if radius == 0 or near is not problem or covered_by_far(problem, radius, tolerance) else None
        span = spectrum_span(made(coarse_level(near)), rule, kappa, same)
        times = Times.within_reach(taus, span, rule, kappa, limit_diverges(problem, rule=rule), tolerance)
        # where every node costs a matrix, a contour is widened in steps
        question = Question(rule, kappa, times.asked, times.clock(rule, clock, kappa), tolerance / 4, np.inf if near is problem else 2.0)
        beyond = TAIL_EFFECT * tail
        if by_lattice(near, radius):
            answer = _over_levels(near, made, question, span, radius, tolerance, beyond)
            types, span = Chosen(answer.eq, answer.eq, answer.eq, answer.types_error), answer.span
        else:
            types = chosen_types(
                near, question, span, radius, OF_TYPES * tolerance, beyond, SOBOL_LEVELS - (1 if near is not problem else 2)
            )
        if near is not problem:
            answer = _with_matrices(problem, question, types, span, tolerance, dense.Work(progress))
        elif not by_lattice(near, radius):
            answer = _over_points(types, question, span)
    if progress is not None:
        progress(1, 1)
    return _package(problem, taus, *times.read(answer.losses, answer.contour_error + answer.types_error, tolerance))


def size_of(losses: np.ndarray) -> float:
    """The largest loss, if above 1: what errors of losses scale with."""
    return float(np.max(abs(losses), initial=1.0, where=np.isfinite(losses)))


def largest_change(losses: np.ndarray, before: np.ndarray) -> float:
    """The largest difference of two sets of losses."""
    return float(np.max(abs(losses - before)))


def _over_levels(
    problem: Problem,
    made: Callable[[int], Equivalent],
    question: Question,
    span: Span,
    radius: float,
    tolerance: float,
    beyond: float,
) -> _Answer:
    """Losses refined over levels of neuron types, whose equivalents `made` gives, until the tolerance is met; `beyond` is the error of a
    loss of 1 from neurons outside the radius.
    """
    size: int | None = None
    errors, everything = LevelErrors(problem, radius, largest_change), levels(problem, 1, radius)
    first = _first_level(made, everything, question, span, tolerance)
    for level in range(first, everything[-1] + 1):
        eq = made(level)
        refined = refine_contour(eq, question, span, partial(_evaluate, eq), size)
        values, span, size = refined.values, refined.span, refined.size
        tail, types = beyond * size_of(values.losses), float(errors.of(values.losses))
        if values.total_error + types <= max(tolerance - tail, tail):  # finer types would not change what the tail adds
            break
    return _Answer(values.losses, values.total_error, types + tail, span, eq)


def _first_level(made: Callable[[int], Equivalent], everything: range, question: Question, span: Span, tolerance: float) -> int:
    """Level of neuron types to begin with: the first, or a later one if losses of ridge regression say that the second will not do.

    They need no contour, so two levels of them cost little, and a level whose error is too large need not be computed on a contour.
    Weights of the classes other than their fractions can make the averages over neurons so much harder.
    """
    first, penalties, losses = everything[0], spread_penalties(question, span), list[np.ndarray]()
    if len(everything) < 3 or not penalties.size:
        return first
    for eq in map(made, everything[:2]):
        losses.append(np.asarray(pair_traces.ridge_losses(eq, penalties, solutions.anywhere(eq, -penalties).u)))
    change = largest_change(*losses)
    while refined_error(True, change) > SURELY * tolerance and first + 2 in everything:
        first, change = first + 1, change**FASTER
    return first


def _over_points(types: Chosen, question: Question, span: Span) -> _Answer:
    """Losses on a contour for neuron types by Sobol points; it need not be much better than these."""
    question = replace(question, tolerance=max(question.tolerance, CONTOUR_SHARE * types.error))
    refined = refine_contour(types.eq, question, span, partial(_evaluate, types.eq, few=types.few))
    return _Answer(refined.values.losses, refined.values.total_error, types.error, refined.span, types.eq)


def _with_matrices(problem: Problem, question: Question, types: Chosen, span: Span, tolerance: float, work: dense.Work) -> _Answer:
    """Losses with the covariances as they are, from the surrogate's neuron types and what its contour goes around."""
    wider = dense.widened(span, question.rule, question.kappa)
    left = max(tolerance - types.error, tolerance / 4)
    found = core_ladder.learning_losses(problem, types.eq, types.fewer, question, wider, left, work)
    return _Answer(found.losses, found.error, types.error, found.span, types.eq)


def _with_batches(problem: Problem, taus: np.ndarray, rule: MinibatchSGD, tolerance: float) -> LearningCurves:
    """Losses under minibatch SGD: those of the steps along the whole gradient, and what the noise of the batches adds."""
    minibatch.check_covered(problem, rule)
    with double_on_host():
        steps = np.where(np.isinf(taus), np.inf, np.rint(taus / float(rule.step_size)))
        return with_noise(problem, taus, rule.descent, partial(minibatch.excess, problem, rule=rule, steps=steps), tolerance)


def with_noise(problem: Problem, taus: np.ndarray, calm: Rule, noise: Noise, tolerance: float) -> LearningCurves:
    """Losses under a rule that is a filter and noise beside it: those of the filter, and what `noise` adds on a contour.

    Inside `jax.enable_x64`, for centred classes. The contour is laid for all times: stability is a question about all of them.
    """
    clock, kappa, eq = calm.schedule(taus, float(problem.kappa))[1], float(problem.kappa), equivalent(problem, 1, 0.0, LEAST)
    question = Question(calm, kappa, minibatch.ALL_TIMES, clock, tolerance / 2, thinner=minibatch.THINNER)

    def evaluate(question: Question, laid: Laid) -> OnContour:
        still, solved = _evaluate(eq, question, laid), solutions.anywhere(eq, np.asarray(laid.contour.nodes))
        added = noise(eq, contour=laid.contour, u=solved.u)
        return replace(still, losses=still.losses + added.losses, error=still.error + added.error)

    values = refine_contour(eq, question, spectrum_span(eq, calm, kappa), evaluate).values
    return _package(problem, taus, values.losses, values.total_error)


def _package(problem: Problem, taus: np.ndarray, losses: np.ndarray, error: float) -> LearningCurves:
    law = problem.mixture
    error = max(error, ROUNDING * size_of(losses))
    train, test = losses if np.isfinite(error) else losses * np.nan
    optimal = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
    score = (test - optimal) / float(noise_variance_of(problem.t))
    zeros = np.zeros_like(test)
    return LearningCurves(
        taus=taus,
        train_loss=train,
        test_loss=test,
        score_error=score,
        optimal_loss=optimal,
        weights=law.weights,
        kappa=float(problem.kappa),
        error_estimate=error,
        train_loss_stderr=zeros,
        test_loss_stderr=zeros,
        score_error_stderr=zeros,
        source="theory",
    )
