"""Per-class learning curves at all training times, by contour integrals of the two-point function (docs/theory/curves.md, eq-contour)."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rfdiff.curves import LearningCurves
from rfdiff.host import double_on_host
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, MinibatchSGD, Ridge, Rule, require_rule
from rfdiff.theory import contour_losses, minibatch, solutions
from rfdiff.theory.contour import Laid, Span
from rfdiff.theory.contour_ladder import OnContour, Question, refine_contour
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import checked_tolerance, require_concrete
from rfdiff.theory.neuron_types import SOBOL_LEVELS, by_lattice
from rfdiff.theory.noncommuting import core_ladder, dense
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
from rfdiff.theory.type_levels import level_of_types, size_of

CONTOUR_SHARE = 0.25  # of the tolerance, or of the error of Sobol points, that a contour may add
OF_CONTOUR = 0.1  # of the tolerance: what it mostly adds
OF_TYPES = 0.75  # of the tolerance, for Sobol points: contour and cores reach theirs easily
ROUNDING = 1e-9  # of a loss: no estimate is below, since solutions of the fixed point are not

Noise = Callable[..., minibatch.Excess]  # of an equivalent, a contour and the solutions on it


class _Answer(NamedTuple):
    """Train and test losses (2, T, K), the errors of the contour and of the neuron types, and what the contour goes around."""

    losses: np.ndarray
    contour_error: float
    types_error: float
    span: Span
    eq: Equivalent


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
        widening, clock = (np.inf if near is problem else 2.0), times.clock(rule, clock, kappa)
        question = Question(rule, kappa, times.asked, clock, CONTOUR_SHARE * tolerance, widening)
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


def _over_levels(
    problem: Problem,
    made: Callable[[int], Equivalent],
    question: Question,
    span: Span,
    radius: float,
    tolerance: float,
    beyond: float,
) -> _Answer:
    """Losses at the level of neuron types that meets the tolerance, of those whose equivalents `made` gives; `beyond` is the error of a
    loss of 1 from neurons outside the radius.

    How far levels are apart is read on a coarse contour, so that all but the last cost little; again on one that was widened, and where
    the contour left less of the tolerance than expected.
    """
    size, left = None, OF_CONTOUR * tolerance
    while True:
        level, types = level_of_types(problem, made, question, span, radius, tolerance - left, beyond)
        refined = refine_contour(made(level), question, span, partial(contour_losses.evaluate, made(level)), size)
        values, same = refined.values, refined.span == span
        span, size = refined.span, refined.size
        error = values.total_error
        reached = error <= left or error + types <= tolerance or left >= tolerance / 2
        if types == 0 or not np.isfinite(error) or (same and reached):
            return _Answer(values.losses, error, types + beyond * size_of(values.losses), span, made(level))
        left = min(error, tolerance / 2) if same else left


def _over_points(types: Chosen, question: Question, span: Span) -> _Answer:
    """Losses on a contour for neuron types by Sobol points; it need not be much better than these."""
    if np.isfinite(types.error):
        question = replace(question, tolerance=max(question.tolerance, CONTOUR_SHARE * types.error))
    refined = refine_contour(types.eq, question, span, partial(contour_losses.evaluate, types.eq, few=types.few))
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
        still, solved = contour_losses.evaluate(eq, question, laid), solutions.anywhere(eq, np.asarray(laid.contour.nodes))
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
