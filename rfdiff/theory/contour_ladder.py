"""A contour refined until losses on it are accurate to a tolerance, whatever computes them (docs/theory/curves.md).

The numbers of nodes form a ladder (`contour.SIZES`). Each rung has an error estimate of its own, so that two never need to be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, PyTree

from rfdiff.rules import Ridge, Rule
from rfdiff.theory.contour import PROBES, SIZES, Laid, Span, lay
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.resolvent import RESIDUAL
from rfdiff.theory.support import bounds

PATIENCE = 1  # refinements of a contour without gain before it is given up
LEFT_OUT = 10  # times the tolerance: losses that miss so much leave out a part of the spectrum, which more nodes do not bring back


@dataclass(frozen=True)
class Question:
    """What is asked of every equivalent: losses at T training times, and how accurate the contour must be.

    Args:
        rule: training rule, with rate kappa.
        kappa: κ.
        taus: (T,) training times.
        clock: the rule's clock at these times.
        tolerance: error of a loss that the contour may leave.
        widening: factor by which a contour that cuts the spectrum is widened; inf for one around everything at once.
        thinner: as in `contour.lay`.
    """

    rule: Rule
    kappa: float
    taus: np.ndarray
    clock: PyTree
    tolerance: float
    widening: float = np.inf
    thinner: float = 1.0

    def cut(self, error: float) -> float:
        """What losses miss beyond which a part of the spectrum lies outside, on a contour of nodes with an error.

        Widening in steps costs little, and more nodes never bring it back; around everything at once is dear.
        """
        return LEFT_OUT * max(self.tolerance, error) if np.isinf(self.widening) else max(self.tolerance, LEFT_OUT * error)

    def lay(self, span: Span, size: int | None = None) -> Laid:
        """The contour around a span, with as many nodes as the tolerance asks for or the number at an index of `SIZES`."""
        return lay(span, self.rule, self.kappa, self.taus, self.tolerance, size, self.thinner)


@dataclass(frozen=True, kw_only=True)
class OnContour:
    """Losses on one contour and how far they can be trusted.

    Args:
        losses: (2, T, K) train and test losses.
        error: error of the nodes.
        missing: error from what lies outside the contour.
        residual: largest relative residual of the fixed point at a node.
        allowed: residual up to which the fixed point counts as solved.
    """

    losses: Float[np.ndarray, "2 T K"]
    error: float
    missing: float
    residual: float
    allowed: float = RESIDUAL

    @property
    def total_error(self) -> float:
        """Both errors; inf where the fixed point failed."""
        total = self.error + self.missing
        return total if self.residual <= self.allowed and np.isfinite(total) else np.inf


C = TypeVar("C", bound=OnContour)


@dataclass(frozen=True)
class Refined(Generic[C]):
    """The last contour of a refinement.

    Args:
        values: what was computed on it.
        span: what it goes around.
        size: index of its number of nodes, with which a similar equivalent begins.
    """

    values: C
    span: Span
    size: int


def probe_penalties(eq: Equivalent, laid: Laid) -> Float[np.ndarray, " R"]:
    """Penalties, around the spectrum, at which the losses of ridge regression by a contour are compared with those that need none."""
    low, high = bounds(eq)
    return np.geomspace(max(low / 3, 2 * laid.shift), 3 * high, PROBES)


def spread_penalties(question: Question, span: Span) -> Float[np.ndarray, " R"]:
    """Penalties at which ridge regression stands for training until the times asked for: ρ = 1/(κτ), within and around a spectrum.

    Down to a third of the smallest eigenvalue where τ = ∞ is asked for, and to the smallest penalty of a `Ridge`; none where neither the
    times nor the spectrum say how small penalties are.
    """
    finite = question.taus[np.isfinite(question.taus) & (question.taus > 0)]
    low, smallest = max(span.low, 0.0) / 3, 1 / (question.kappa * float(finite.max())) if finite.size else 0.0
    if isinstance(question.rule, Ridge) and min(low, smallest) > 0:
        least = min(low, smallest)
    elif low > 0 and np.isinf(question.taus).any():
        least = low
    else:
        least = max(low, smallest)
    return np.geomspace(least, 3 * max(span.high, least), PROBES) if least > 0 else np.zeros(0)


def refine_contour(
    eq: Equivalent,
    question: Question,
    span: Span,
    evaluate: Callable[[Question, Laid], C],
    size: int | None = None,
    glimpse: Callable[[Laid], float] | None = None,
) -> Refined[C]:
    """Values on a contour refined until its error is below the tolerance, or until refinement no longer helps.

    A contour that leaves out a part of the spectrum is widened first, up to the bounds of the spectrum.

    Args:
        eq: Gaussian equivalent, for its bounds.
        question: what is asked.
        span: where to begin.
        evaluate: computes the values on a contour.
        size: index of the number of nodes to begin with; None for the one that the tolerance asks for.
        glimpse: what losses miss on a contour, where that costs less than they do: contours that miss too much are not evaluated.
    """
    last, stalled = np.inf, 0
    low, high = bounds(eq)
    everything = Span(low, min(high, 0.99 * question.rule.largest_stable_eigenvalue(question.kappa)))
    while True:
        laid, wider = question.lay(span, size), _widened(span, everything, question.widening)
        if glimpse is not None and wider != span and glimpse(laid) > question.cut(0.0):
            span = wider
            continue
        values = evaluate(question, laid)
        if wider != span and values.missing > question.cut(values.error):
            span, size = wider, None
            continue
        error = values.total_error
        stalled = 0 if error < 0.5 * last else stalled + 1  # an oscillating filter may need a second try before its nodes resolve it
        if error <= question.tolerance or laid.size == len(SIZES) - 1 or stalled > PATIENCE:
            return Refined(values, span, laid.size)
        size, last = laid.size + 1, min(error, last)


def _widened(span: Span, everything: Span, factor: float) -> Span:
    """A span widened by a factor, up to everything; one that reaches 0 as it is."""
    if span.low <= 0:
        return span
    return Span(max(everything.low, span.low / factor), min(everything.high, span.high * factor))
