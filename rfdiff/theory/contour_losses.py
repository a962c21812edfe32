"""Losses on one contour, and how far they can be trusted (docs/theory/curves.md, eq-contour).

Traces come from compiled programs that fit any contour, and the forms that they make are evaluated by numpy: so a contour with another
number of nodes compiles at most the filter, for one of a few sizes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float, PyTree

from rfdiff.rules import Rule
from rfdiff.theory import pair_traces, solutions
from rfdiff.theory.contour import Laid, Span
from rfdiff.theory.contour_forms import evaluate_forms, trapezoid_error
from rfdiff.theory.contour_ladder import OnContour, Question, probe_penalties
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.pair_traces import Traces
from rfdiff.theory.refined_solutions import from_few
from rfdiff.theory.resolvent import RESIDUAL

COARSER = 2  # sizes of a contour below that of the tolerance
FILLED = (32, 64, 128, 256, 768)  # nodes on the upper half of a contour to which smaller ones are filled up for the filter


class Halves(NamedTuple):
    """Losses (2, T, K) by all nodes of a contour, and what half of them change."""

    losses: Float[np.ndarray, "2 T K"]
    change: Float[np.ndarray, "2 T K"]


@jax.jit
def _filter(rule: Rule, nodes: jax.Array, clock: PyTree, kappa: jax.Array) -> jax.Array:
    return rule.filter(nodes, clock, kappa)


def evaluate(eq: Equivalent, question: Question, laid: Laid, few: Equivalent | None = None) -> OnContour:
    """Losses from one contour, and how far those of ridge regression by the same contour are from their values without one; solutions
    begin with those of a few neuron types, if these are given.
    """
    penalties = probe_penalties(eq, laid)
    nodes = np.asarray(laid.contour.nodes)
    points = np.concatenate([nodes, -penalties])
    solved = solutions.anywhere(eq, points) if few is None else from_few(eq, few, points)
    traces = pair_traces.traces(eq, nodes, solved.u[: nodes.size])
    found = _losses(traces, laid, _filter_values(question, nodes))
    ridge = _losses(traces, laid, 1 / (nodes + penalties[:, None])).losses
    gap = np.max(abs(ridge - pair_traces.ridge_losses(eq, penalties, solved.u[nodes.size :])))
    error, residual = float(trapezoid_error(jnp.asarray(found.change))), float(np.max(solved.residual))
    return OnContour(losses=found.losses, error=error, missing=float(gap), residual=residual)


def coarser(question: Question, span: Span) -> Laid:
    """A contour of about half the nodes that the tolerance asks for, on which near equivalents are told apart."""
    return question.lay(span, max(question.lay(span).size - COARSER, 0))


def in_halves(eq: Equivalent, question: Question, laid: Laid) -> Halves:
    """Losses from one contour, and what half its nodes change of them; NaN where the fixed point is not solved."""
    nodes = np.asarray(laid.contour.nodes)
    solved = solutions.anywhere(eq, nodes)
    found = _losses(pair_traces.traces(eq, nodes, solved.u), laid, _filter_values(question, nodes))
    return found if np.max(solved.residual) <= RESIDUAL else Halves(found.losses * np.nan, found.change * np.nan)


def _losses(traces: Traces, laid: Laid, f: Complex[np.ndarray, "T Z"]) -> Halves:
    return Halves(*evaluate_forms(np, np.asarray(laid.contour.weights), *traces, f))


def _filter_values(question: Question, nodes: np.ndarray) -> Complex[np.ndarray, "T Z"]:
    """f_τ at the nodes, which are filled up with the last one to one of `FILLED`, so that most numbers of them share a program."""
    more = next(size for size in (*FILLED, nodes.size) if size >= nodes.size) - nodes.size
    padded = np.pad(nodes, (0, more), mode="edge")
    return np.asarray(_filter(question.rule, padded, question.clock, question.kappa))[:, : nodes.size]
