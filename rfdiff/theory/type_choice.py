"""Neuron types where averages over neurons take Sobol points: few types, and how far losses are off for them.

Losses of ridge regression need no contour, and say at one penalty after the other what losses along training say at one time after the
other. Those of a few independent sets of points have a mean, with a standard error. The sets pooled are the neuron types, and the error of
the mean is theirs. Modes under momentum may oscillate, as no ridge regression does: there the losses themselves are compared too, on a
coarse contour.

The points of a set are weighted so that averages come out right (`matched_types.matched`): those of the features, which are known, and
those of the features times resolvent entries at `CONTROLS` of the penalties, which stand for all that losses are made of, and which
`MANY` times as many points tell, by regression on what is known. The entries are those of a few types: whatever they are, no average is
biased by them.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfdiff.problem import Problem
from rfdiff.rules import HeavyBall
from rfdiff.theory import implicit, resolvent, solutions
from rfdiff.theory.contour import PROBES, Span
from rfdiff.theory.contour_ladder import Question, spread_penalties
from rfdiff.theory.contour_losses import coarser, in_halves
from rfdiff.theory.equivalent import Equivalent, equivalent, tables_of
from rfdiff.theory.matched_types import features_at, matched, regressed_means
from rfdiff.theory.neuron_types import FEW, FIRST_LOG2, SCRAMBLES, SOBOL_LEVELS, SOBOL_RATE, STUDENT, sobol_grid
from rfdiff.theory.refined_solutions import refined
from rfdiff.theory.resolvent import RESIDUAL
from rfdiff.theory.traces import ridge_losses

LOOSE, TIGHT = 1e-3, 2e-4  # tolerances from which the first sets are small ones, and below which they are large
ENOUGH = 2  # level of large sets
CONTROLS = (0, 2)  # of the penalties: the smallest, where losses feel the neuron types most, and the third
MANY = 16  # points that averages are taken from, for each type
REGRESSION = 2**36  # operations of a regression on known averages beyond which it takes fewer points
PAIR_BYTES = 2**29  # of the products of features of all types
PIECE = 4096  # points whose features are at hand at once


@jax.jit
def _ridge(eq: Equivalent, few: Equivalent, penalties: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Losses (2, R, K) of ridge regression and residuals (R,) of their fixed points, from solutions (R, U) for few types."""
    point, residual = refined(eq, few, jax.lax.complex(-penalties, jnp.zeros_like(penalties)), start)
    return ridge_losses(eq, point), residual


@jax.jit
def _ridge_anew(eq: Equivalent, penalties: jax.Array, u: jax.Array) -> jax.Array:
    """Losses (2, R, K) of ridge regression from the packed solutions u (R, U) at z = -ρ."""
    return ridge_losses(eq, implicit.expand(eq, jax.lax.complex(-penalties, jnp.zeros_like(penalties)), u))


class Chosen(NamedTuple):
    """The Gaussian equivalent with the pooled neuron types, a near one with fewer, one with few, and the error of a loss they cause."""

    eq: Equivalent
    fewer: Equivalent
    few: Equivalent
    error: float


def chosen_types(
    near: Problem, question: Question, span: Span, radius: float, tolerance: float, beyond: float, last: int = SOBOL_LEVELS - 1
) -> Chosen:
    """Pooled sets of neuron types, with more points where the tolerance asks for them.

    Args:
        near: the problem, or its surrogate, with a Gram matrix of high rank.
        question: what is asked, for the penalties that its training times and spectrum go with.
        span: of its spectrum.
        radius: standard deviations of h that neuron types cover.
        tolerance: error of a loss wanted.
        beyond: error of a loss of 1 from neurons outside the radius.
        last: level with the most points.
    """
    penalties = spread_penalties(question, span)
    level = FEW if tolerance >= LOOSE else 0 if tolerance >= TIGHT else ENOUGH
    if not penalties.size:  # no finite τ but 0, and a spectrum down to 0
        penalties = span.high * np.geomspace(1e-6, 3, PROBES)
    last = min(last, _affordable(near.num_classes))
    level, few = min(level, last), equivalent(near, 0, radius)
    start = solutions.anywhere(few, -penalties)
    controls = _controls(few, start, penalties)
    oscillates = isinstance(question.rule, HeavyBall) and float(question.rule.momentum) > 0
    laid = coarser(question, span)
    while True:
        sets = [_set(near, level, radius, scramble, controls) for scramble in range(SCRAMBLES)]
        found = [_ridge_regression(eq, few, penalties, start.u) for eq in sets]
        losses = np.stack([one for one, _ in found])
        error = error_of_mean(losses) + beyond * max(1.0, float(np.max(abs(losses))))
        if oscillates:  # a filter that is no sum of those of ridge regression
            error = max(error, error_of_mean(np.stack([in_halves(eq, question, laid).losses for eq in sets])))
        if not np.isfinite(error) or not all(np.all(residual <= RESIDUAL) for _, residual in found):
            error = np.inf  # losses of a fixed point that is not solved say nothing
        if error <= tolerance or level == last or not np.isfinite(error):
            return Chosen(_pooled(sets), sets[0], few, error)
        level = min(last, level + max(1, math.ceil(math.log2(error / tolerance) / SOBOL_RATE)))


def _ridge_regression(eq: Equivalent, few: Equivalent, penalties: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses (2, R, K) of ridge regression and residuals (R,) of their fixed points, from solutions for few types if these will do."""
    losses, residual = (np.asarray(x) for x in _ridge(eq, few, penalties, start))
    if not np.all(residual <= RESIDUAL):
        anew = solutions.anywhere(eq, -penalties)
        losses, residual = np.asarray(_ridge_anew(eq, penalties, anew.u)), anew.residual
    return losses, residual


def error_of_mean(losses: np.ndarray) -> float:
    """4.6 standard errors of the mean of losses (S, …) of S = 4 independent sets: 98 % of them hold."""
    return STUDENT * float(np.max(np.std(losses, 0, ddof=1))) / math.sqrt(len(losses))


def _affordable(k: int) -> int:
    """The last level at which the products of features of all types stay below `PAIR_BYTES`."""
    features = 2 * k + k * (k + 1) // 2
    types = PAIR_BYTES / (4 * features * (features + 1))
    return max(FEW, int(math.log2(types / SCRAMBLES)) - FIRST_LOG2)


class _Controls(NamedTuple):
    """By which resolvent entries of any neuron are r = 1/(coefficients · features + ρ): (R, F), and the penalties (R,)."""

    coefficients: Float[np.ndarray, "R F"]
    penalties: Float[np.ndarray, " R"]

    def of(self, features: np.ndarray) -> Float[np.ndarray, "J RF"]:
        """Features (J, F) of neurons times each of their resolvent entries."""
        entries = 1 / (features @ self.coefficients.T + self.penalties)
        return (entries[:, :, None] * features[:, None]).reshape(len(features), -1)


def _controls(few: Equivalent, solved: solutions.Solved, penalties: np.ndarray) -> _Controls:
    """Resolvent entries at two of the penalties, of solutions for a few types; none where that is no solution."""
    chosen = [i for i in CONTROLS if i < len(penalties) and solved.residual[i] <= RESIDUAL]
    coefficients = _of_features(few, jnp.asarray(-penalties[chosen] + 0j), jnp.asarray(solved.u[chosen]))
    return _Controls(np.real(np.asarray(coefficients)), penalties[chosen])


@jax.jit
def _of_features(eq: Equivalent, z: jax.Array, u: jax.Array) -> jax.Array:
    """(Z, F) by which resolvent entries at z are 1/(coefficients · features - z)."""
    return resolvent.of_features(eq, implicit.expand(eq, z, u))


def _set(near: Problem, level: int, radius: float, scramble: int, controls: _Controls) -> Equivalent:
    """One set of neuron types, with the weights that give the averages of many."""
    eq, made = equivalent(near, level, radius, scramble=scramble), tables_of(near)
    if made is None:  # of centroids too long for tables
        return eq
    tables, known = made
    features = np.asarray(resolvent.type_features(eq))
    size, width = len(features), features.shape[1]
    many = min(MANY * size, max(size, 2 ** int(math.log2(REGRESSION / (width**2 * (1 + len(controls.penalties)))))))
    nodes = np.asarray(sobol_grid(tables.root.shape[1], int(math.log2(many)), scramble).nodes)  # the first of them are the set's
    pieces = [features_at(tables, nodes[i : i + PIECE]) for i in range(0, many, PIECE)]
    means = np.concatenate(regressed_means(pieces, known, [controls.of(piece) for piece in pieces]))
    return replace(eq, type_weights=jnp.asarray(matched(np.concatenate([features, controls.of(features)], 1), means)))


def _pooled(sets: list[Equivalent]) -> Equivalent:
    """The neuron types of all sets, each set with the same share."""
    weights, linear, kept, carried = (
        jnp.concatenate([getattr(eq, name) for eq in sets]) for name in ("type_weights", "linear", "kept", "carried")
    )
    return replace(sets[0], type_weights=weights / len(sets), linear=linear, kept=kept, carried=carried)
