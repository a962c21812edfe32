"""Learning curves of covariances that do not commute: from few coupled directions, extrapolated to all (docs/theory/spectrum.md).

What a core leaves out moves a loss by an amount almost proportional to its coupling x (`working_basis.WorkingBasis`). Of many classes,
elements outside a core count to second order (`coupled_tail`): what is left then goes with x², and with x where the core's directions are
strongly coupled. So losses from cores of more and more directions, each a fraction of the cost of the next, are extrapolated to x = 0.
Their error is read from what one core more or less changes, with a share of the whole move as the least, and the ladder is climbed until
it is small enough. Where x does not fall with the directions, all that the tolerance needs are taken at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfdiff.problem import Problem
from rfdiff.theory.contour import SIZES, Laid, Span
from rfdiff.theory.contour_forms import first_traces, kernel_from, losses_and_change, outside, trapezoid_error
from rfdiff.theory.contour_ladder import OnContour, Question, refine_contour
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.noncommuting import closed_system, dense
from rfdiff.theory.noncommuting.working_basis import WorkingBasis
from rfdiff.theory.resolvent import RESIDUAL

FEWEST, FEWEST_OF_MANY = 48, 8  # equations of the first core, and its directions at least: smaller ones cost no less
MANY = 5  # classes: two of d = 784 took 38 s and 17 with plain cores, ten of d = 3072 took 101 s and 388; between them, not measured
MOST_EQUATIONS = 4096  # of a core beyond which losses are extrapolated, whatever that leaves
ROUGH = 1e-5  # residual of a fixed point that tells what lies outside a contour
SKIPPED = 2  # rungs of the nodes' ladder below what is enough for any law: contours of the first core are cheap, and say what they miss
GROWTH = 1.6, 2.0  # of the number of directions from one core to the next, at least and at most
FALL = 0.6  # of the coupling left out from one core to the next, at most
WORTH = 0.7  # of the directions that need no extrapolation: a core of more costs almost as much as they do
SAFETY = 3.0  # times what two polynomials differ by: the largest true error found was 1.4 times that
LEAST = 0.125  # share of the extrapolated move that the error of three terms is at least: the largest true one found was 0.11
LEAST_OF_TWO = 4 / 3  # and of two terms: with `SAFETY` it covers a rest of order x or x² at any ratio of the couplings
STEEPEST = 2.0  # power of the coupling by which the error may be expected to fall


class _Start(NamedTuple):
    """Nodes of a contour and δ and H solved there, from which the next core starts."""

    nodes: np.ndarray
    delta: np.ndarray
    H: np.ndarray


@dataclass(frozen=True, kw_only=True)
class CoreLosses(OnContour):
    """Losses of one core, and the errors of its contour with their signs.

    Args:
        half_change: what half the nodes change.
        outside: shares of V that lie outside the contour.
    """

    half_change: Float[np.ndarray, "2 T K"]
    outside: Float[np.ndarray, "2 K"]


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
    sizes = core_sizes(basis, dense.CORE_SHARE * tolerance, equations_of_a_direction(near))
    left_out, found, order = list[float](), list[CoreLosses](), order_left_out(near)
    best = CoupledLosses(np.full((2, question.taus.size, problem.mixture.num_classes), np.nan), np.inf, span)
    size = max(question.lay(span).size - SKIPPED, 0) if len(sizes) > 1 else None
    while sizes:
        core = sizes.pop(0)
        counted = order == 2 and 0 < core < basis.turned.shape[1]
        ready = dense.with_core(near, start, *(basis.with_outside(core) if counted else (basis.matrices(core),)))
        if size is not None and found and not dense.fits(ready, SIZES[size] // 2):
            break
        glimpse = None if found else partial(evaluation.outside, ready)
        refined = refine_contour(dense.spectra(ready, problem), question, span, partial(evaluation, ready), size, glimpse)
        span, size = refined.span, refined.size
        left_out.append(ready.neglected)
        found.append(refined.values)
        best = min(best, CoupledLosses(found[-1].losses, found[-1].total_error + left_out[-1], span), key=lambda one: one.error)
        if len(found) < 3:
            continue
        best = min(best, _at_no_coupling(left_out, found, span, order), key=lambda one: one.error)
        if best.error <= tolerance:
            break
        hope = best.error * (basis.left_out[sizes[:-1]] / left_out[-1]) ** STEEPEST
        if basis.left_out[sizes[-1:]].max(initial=0) <= dense.CORE_SHARE * tolerance and not np.any(hope <= tolerance):
            sizes = sizes[-1:]
    return best


def order_left_out(near: Equivalent) -> int:
    """Order in x of what a core leaves out: 2 where elements outside it count, from `MANY` classes on, each direction being so dear."""
    kinds, k = near.linear.shape
    return 2 if kinds > 1 and k >= MANY else 1


def equations_of_a_direction(near: Equivalent) -> int:
    """Rows of a node's matrix for each direction of a core: K - 1, and one for centred classes."""
    kinds, k = near.linear.shape
    return k - 1 if kinds > 1 else 1


def core_sizes(basis: WorkingBasis, tolerance: float, equations: int = 1) -> list[int]:
    """Numbers of directions of the cores to try; the last one leaves out so little that it needs no extrapolation, if that is possible.

    Args:
        basis: of the covariances.
        tolerance: coupling that the last core may leave out.
        equations: of a direction.
    """
    last = min(basis.enough(tolerance), max(MOST_EQUATIONS // equations, 1))
    sizes = [max(FEWEST // equations, FEWEST_OF_MANY)]
    while sizes[-1] < WORTH * last:
        fewer = np.nonzero(basis.left_out <= FALL * basis.left_out[sizes[-1]])[0]
        least, most = (int(growth * sizes[-1]) for growth in GROWTH)
        sizes.append(max(least, min(most, int(fewer[0]) if fewer.size else last)))
    return [*sizes[:-1], last] if len(sizes) > 3 else [last]


def _at_no_coupling(left_out: Sequence[float], cores: Sequence[CoreLosses], span: Span, order: int) -> CoupledLosses:
    """Losses extrapolated from cores, and their error: what contours leave is extrapolated with its sign, and so is the error of that."""
    losses, error, weights = extrapolated(left_out, [core.losses for core in cores], order)
    last = cores[-len(weights) :]
    nodes, outside = (np.tensordot(weights, np.stack([getattr(core, name) for core in last]), 1) for name in ("half_change", "outside"))
    of_contours = float(trapezoid_error(jnp.asarray(nodes))) + float(np.max(abs(outside)))
    solved = all(np.isfinite(core.total_error) for core in cores[-4:])
    return CoupledLosses(losses, error + of_contours if solved else np.inf, span)


def extrapolated(left_out: Sequence[float], losses: Sequence[np.ndarray], order: int) -> tuple[np.ndarray, float, np.ndarray]:
    """Losses where nothing is left out, their error, and the weights of the last two or three cores that they come from.

    Either 1 and x^order through the last two cores, or 1, x and x² through three, whichever has the smaller error. That of two terms is
    read from the pair one core earlier, with more than its move as the least: it takes what is left out as being of one order only. That of
    three terms is read from a cubic through four cores, or where there are only three from the line through two.

    Args:
        left_out: falling couplings x left out, three or more.
        losses: (2, T, K) each.
        order: of what is left out, in x.
    """
    found = []
    for n, power, beside, least in (
        (2, order, slice(-3, -1), LEAST_OF_TWO),
        (3, 1, slice(-4, None) if len(losses) > 3 else slice(-2, None), LEAST),
    ):
        weights = weights_at_none(left_out[-n:], power)
        answer = np.tensordot(weights, np.stack(losses[-n:]), 1)
        other = np.tensordot(weights_at_none(left_out[beside], power), np.stack(losses[beside]), 1)
        error = max(SAFETY * _largest(answer - other), least * _largest(answer - losses[-1]))
        found.append((answer, error if np.isfinite(error) else np.inf, weights))
    return min(found, key=lambda one: one[1])


def _largest(values: np.ndarray) -> float:
    return float(np.max(abs(values)))


def weights_at_none(left_out: Sequence[float], order: int) -> np.ndarray:
    """Weights of the values at x that a polynomial of the terms 1, x^order, x^(order + 1), … goes through, at x = 0."""
    x, powers = np.asarray(left_out), np.array([0, *range(order, order + len(left_out) - 1)])
    if not np.all(np.diff(x) < 0):  # no more was coupled: nothing is known of what is left
        return np.full(x.size, np.nan)
    return np.asarray(np.linalg.solve((x / x.max()) ** powers[:, None], powers == 0))


class _Evaluation:
    """`evaluate` for one core after another: each starts from what the one before it found at the same nodes."""

    def __init__(self, work: dense.Work) -> None:
        self.work = work
        self.start: _Start | None = None

    def __call__(self, ready: dense.Dense, question: Question, laid: Laid) -> CoreLosses:
        nodes = np.asarray(laid.contour.nodes)
        values, solved = evaluate(ready, self.work, question, laid, self._known(nodes))
        self._keep(nodes, solved)
        return values

    def outside(self, ready: dense.Dense, laid: Laid) -> float:
        """Largest share of V outside a contour, which takes no pairs of points."""
        nodes = np.asarray(laid.contour.nodes)
        solved = dense.solve(ready, nodes, self._known(nodes), self.work, ROUGH)
        self._keep(nodes, solved)
        return float(np.max(abs(outside(ready.system.eq, laid.contour, first_traces(ready.system.eq, solved.point)))))

    def _known(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        return self.start[1:] if self.start is not None and np.array_equal(self.start.nodes, nodes) else None

    def _keep(self, nodes: np.ndarray, solved: closed_system.PointSolutions) -> None:
        if np.all(np.isfinite(solved.residual)):
            self.start = _Start(nodes, np.asarray(solved.point.delta), np.asarray(solved.point.H))


def evaluate(
    ready: dense.Dense, work: dense.Work, question: Question, laid: Laid, start: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[CoreLosses, closed_system.PointSolutions]:
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
    losses, half_change = losses_and_change(kernel, question.clock, question.rule)
    values = CoreLosses(
        losses=np.asarray(losses),
        error=float(trapezoid_error(half_change)),
        half_change=np.asarray(half_change),
        outside=np.asarray(outside(ready.system.eq, laid.contour, linear)),
        missing=float(kernel.missing),
        residual=float(kernel.residual),
        allowed=max(allowed, RESIDUAL),
    )
    return values, solved
