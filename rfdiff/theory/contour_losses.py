"""Losses on one contour, and how far they can be trusted (docs/theory/curves.md, eq-contour)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfdiff.theory import pair_traces, solutions
from rfdiff.theory.contour import Contour, Laid
from rfdiff.theory.contour_forms import CurveKernel, kernel_from, losses_and_change, trapezoid_error
from rfdiff.theory.contour_ladder import OnContour, Question, probe_penalties
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.resolvent import RESIDUAL
from rfdiff.theory.solutions import Solved

FILLED = (32, 48, 64, 128, 256, 768)  # nodes on the upper half of a contour to which smaller ones are filled up


@jax.jit
def _ridge(kernel: CurveKernel, penalties: jax.Array) -> jax.Array:
    """Losses (2, R, K) of ridge regression by the contour."""
    return kernel.evaluate(1 / (kernel.nodes + penalties[:, None]))[0]


_kernel_from = jax.jit(kernel_from)


def evaluate(eq: Equivalent, question: Question, laid: Laid) -> OnContour:
    """Losses from one contour, and how far those of ridge regression by the same contour are from their values without one."""
    penalties = probe_penalties(eq, laid)
    nodes = np.asarray(laid.contour.nodes)
    solved = solutions.anywhere(eq, np.concatenate([nodes, -penalties]))
    kernel = _kernel(eq, question, laid, solved)
    losses, half = losses_and_change(kernel, question.clock, question.rule)
    gap = np.max(abs(_ridge(kernel, penalties) - pair_traces.ridge_losses(eq, penalties, solved.u[nodes.size :])))
    error = float(trapezoid_error(half))
    return OnContour(losses=np.asarray(losses), error=error, missing=float(gap), residual=float(np.max(solved.residual)))


def in_halves(eq: Equivalent, question: Question, laid: Laid) -> Float[np.ndarray, "2 2 T K"]:
    """Losses from one contour, and what half its nodes change of them; NaN where the fixed point is not solved."""
    solved = solutions.anywhere(eq, np.asarray(laid.contour.nodes))
    values = np.stack(losses_and_change(_kernel(eq, question, laid, solved), question.clock, question.rule))
    return values if np.max(solved.residual) <= RESIDUAL else np.full_like(values, np.nan)


def _kernel(eq: Equivalent, question: Question, laid: Laid, solved: Solved) -> CurveKernel:
    """The curves on a contour, from solutions at its nodes and perhaps other points."""
    nodes = np.asarray(laid.contour.nodes)
    linear, *second = pair_traces.traces(eq, nodes, solved.u[: nodes.size])
    return _kernel_from(eq, *_filled(laid.contour, linear, second, solved.residual), 0.0, question.kappa, np.inf)


def _filled(
    contour: Contour, linear: np.ndarray, second: Sequence[np.ndarray], residual: np.ndarray
) -> tuple[Contour, np.ndarray, np.ndarray, list[np.ndarray]]:
    """A contour and its traces, filled up with copies of the last node of weight 0 to one of `FILLED`, so that most share a program."""
    nodes, weights = np.asarray(contour.nodes), np.asarray(contour.weights)
    more = next(size for size in (*FILLED, nodes.size) if size >= nodes.size) - nodes.size
    wide = Contour(jnp.asarray(np.pad(nodes, (0, more), mode="edge")), jnp.asarray(np.pad(weights, (0, more))))
    return wide, np.pad(linear, ((0, 0), (0, 0), (0, more))), residual.max(), [np.pad(x, ((0, 0),) * 2 + ((0, more),) * 2) for x in second]
