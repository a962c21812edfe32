"""Learning curves of covariances that do not commute: from few coupled directions, extrapolated to all (docs/theory/spectrum.md).

What a core leaves out moves a loss by an amount almost proportional to its coupling (`working_basis.WorkingBasis`). So losses from cores
of more and more directions, each a fraction of the cost of the next, are extrapolated to a coupling of 0 by a parabola. Its error is
read from what one core more or less changes, with a share of the whole move as the least, and the ladder is climbed until it is small
enough. Where the coupling does not fall with the directions, all that the tolerance needs are taken at once.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfdiff.problem import Problem
from rfdiff.theory.contour import Laid, Span
from rfdiff.theory.contour_forms import first_traces, kernel_from, losses_and_error
from rfdiff.theory.contour_ladder import OnContour, Question, refine_contour
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.noncommuting import closed_system, dense
from rfdiff.theory.noncommuting.working_basis import WorkingBasis
from rfdiff.theory.resolvent import RESIDUAL

FEWEST = 48  # directions of the first core: smaller ones cost no less
GROWTH = 1.6  # of the number of directions from one core to the next, at least
FALL = 0.6  # of the coupling left out from one core to the next, at most
WORTH = 0.7  # of the directions that need no extrapolation: a core of more costs almost as much as they do
SAFETY = 3.0  # times what two polynomials differ by: the largest true error found was 1.4 times that
LEAST = 0.05  # of the move from the last core to none left out, that the error is at least
STEEPEST = 2.0  # power of the coupling by which the error may be expected to fall


class _Start(NamedTuple):
    """Nodes of a contour and δ and H solved there, from which the next core starts."""

    nodes: np.ndarray
    delta: np.ndarray
    H: np.ndarray


class CoupledLosses(NamedTuple):
    """Losses (2, T, K), the error of contour and cores, and what the contour goes around."""

    losses: Float[np.ndarray, "2 T K"]
    error: float
    span: Span


def learning_losses(
    problem: Problem, near: Equivalent, start: Equivalent, question: Question, span: Span, tolerance: float, work: dense.Work
) -> CoupledLosses:
    """Losses with the covariances as they are, on cores of more and more directions until the tolerance is met.

    Args:
        problem: with covariances.
        near: Gaussian equivalent of its surrogate.
        start: the same or one near it, as in `dense.Dense`.
        question: what is asked of a contour.
        span: what the contour goes around at first.
        tolerance: error that contour and cores may leave in the losses.
        work: told of each finished point.
    """
    basis, evaluation = dense.basis_for(problem), _Evaluation(work)
    sizes = core_sizes(basis, dense.CORE_SHARE * tolerance)
    left_out, losses, errors = list[float](), list[np.ndarray](), list[float]()
    size: int | None = None
    while sizes:
        ready = dense.with_core(near, start, basis.matrices(sizes.pop(0)))
        refined = refine_contour(dense.spectra(ready, problem), question, span, partial(evaluation, ready), size)
        values, span, size = refined.values, refined.span, refined.size
        left_out.append(ready.neglected)
        losses.append(values.losses)
        errors.append(values.total_error)
        if len(losses) < 3 or not sizes:
            continue
        found, error = extrapolated(left_out, losses)
        of_contours = float(np.abs(weights_at_none(left_out[-3:])) @ errors[-3:])
        if error + of_contours <= tolerance:
            return CoupledLosses(found, error + of_contours, span)
        if not any(error * (basis.left_out[r] / left_out[-1]) ** STEEPEST <= tolerance for r in sizes[:-1]):
            sizes = sizes[-1:]
    return CoupledLosses(losses[-1], errors[-1] + left_out[-1], span)


def core_sizes(basis: WorkingBasis, tolerance: float) -> list[int]:
    """Numbers of directions of the cores to try; the last one leaves out so little that it needs no extrapolation."""
    last, sizes = basis.enough(tolerance), [FEWEST]
    while sizes[-1] < WORTH * last:
        fewer = np.nonzero(basis.left_out <= FALL * basis.left_out[sizes[-1]])[0]
        sizes.append(max(int(GROWTH * sizes[-1]), int(fewer[0]) if fewer.size else last))
    return [*sizes[:-1], last] if len(sizes) > 3 else [last]


def extrapolated(left_out: Sequence[float], losses: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Losses where nothing is left out, by a parabola through the last three cores, and its error.

    The error is read from the cubic through four cores, or where there are only three from the line through two.

    Args:
        left_out: falling couplings left out, three or more.
        losses: (2, T, K) each.
    """
    parabola, other = (_at_none(left_out[-n:], losses[-n:]) for n in (3, 4 if len(losses) > 3 else 2))
    error = max(SAFETY * float(np.max(abs(parabola - other))), LEAST * float(np.max(abs(parabola - losses[-1]))))
    return parabola, error if np.isfinite(error) else np.inf


def _at_none(left_out: Sequence[float], losses: Sequence[np.ndarray]) -> np.ndarray:
    return np.tensordot(weights_at_none(left_out), np.stack(losses), 1)


def weights_at_none(left_out: Sequence[float]) -> np.ndarray:
    """Weights of the values that a polynomial goes through, at a coupling of 0."""
    x = np.asarray(left_out)
    return np.array([np.prod(np.delete(x, i) / (np.delete(x, i) - x[i])) for i in range(len(x))])


class _Evaluation:
    """`evaluate` for one core after another: each starts from what the one before it found at the same nodes."""

    def __init__(self, work: dense.Work) -> None:
        self.work = work
        self.start: _Start | None = None

    def __call__(self, ready: dense.Dense, question: Question, laid: Laid) -> OnContour:
        nodes = np.asarray(laid.contour.nodes)
        known = self.start is not None and np.array_equal(self.start.nodes, nodes)
        values, solved = evaluate(ready, self.work, question, laid, self.start[1:] if self.start is not None and known else None)
        if np.all(np.isfinite(solved.residual)):
            self.start = _Start(nodes, np.asarray(solved.point.delta), np.asarray(solved.point.H))
        return values


def evaluate(
    ready: dense.Dense, work: dense.Work, question: Question, laid: Laid, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[OnContour, closed_system.PointSolutions]:
    """Losses on one contour, and the solutions at its nodes: what is left out is read from the known traces of V.

    Args:
        ready: a problem made ready, with its core.
        work: told of each finished point.
        question: what is asked.
        laid: the contour.
        start: δ and H at its nodes to start from; None for those of the surrogate.
    """
    allowed = max(dense.RESIDUAL_SHARE * question.tolerance, closed_system.NEWTON_TOLERANCE)
    solved = dense.solve(ready, np.asarray(laid.contour.nodes), start, work, allowed)
    traces = dense.second_traces(ready, solved, work)
    second = traces[..., : len(solved.nodes)], traces[..., len(solved.nodes) :]
    linear = first_traces(ready.system.eq, solved.point)
    kernel = kernel_from(ready.system.eq, laid.contour, linear, jnp.asarray(solved.residual), second, 0.0, question.kappa, np.inf)
    losses, error = losses_and_error(kernel, question.clock, question.rule)
    values = OnContour(
        losses=np.asarray(losses),
        error=float(error),
        missing=float(kernel.missing),
        residual=float(kernel.residual),
        allowed=max(allowed, RESIDUAL),
    )
    return values, solved
