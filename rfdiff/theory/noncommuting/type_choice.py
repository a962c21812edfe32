"""Neuron types where every contour node costs a matrix and averages over neurons take Sobol points.

Losses of ridge regression of the surrogate need no contour, and say at one penalty after the other what losses along training say at
one time after the other. Those of a few independent sets of points have a mean, with a standard error. The sets pooled are the neuron
types, and the error of the mean is theirs.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.problem import Problem
from rfdiff.theory import implicit, solutions
from rfdiff.theory.contour import PROBES, Span
from rfdiff.theory.contour_ladder import Question, spread_penalties
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.neuron_types import FEW, SCRAMBLES, SOBOL_LEVELS, SOBOL_RATE, STUDENT
from rfdiff.theory.resolvent import RESIDUAL
from rfdiff.theory.traces import ridge_losses

LOOSE = 1e-3  # tolerance from which the first sets are small ones
ENOUGH = 1e-10  # residual of a fixed point that moves a loss by nothing that a set of neuron types could tell


@jax.jit
def _ridge_losses(eq: Equivalent, penalties: jax.Array, u: jax.Array) -> jax.Array:
    """Losses (2, R, K) of ridge regression from the packed solutions u (R, U) at z = -ρ."""
    return ridge_losses(eq, implicit.expand(eq, jax.lax.complex(-penalties, jnp.zeros_like(penalties)), u))


class Chosen(NamedTuple):
    """The Gaussian equivalent with the pooled neuron types, one with fewer of them, near it, and the error of a loss that they cause."""

    eq: Equivalent
    fewer: Equivalent
    error: float


def chosen_types(near: Problem, question: Question, span: Span, radius: float, tolerance: float, beyond: float) -> Chosen:
    """Pooled sets of neuron types, with more points where the tolerance asks for them.

    Args:
        near: the surrogate, with a Gram matrix of high rank.
        question: what is asked, for the penalties that its training times and spectrum go with.
        span: of its spectrum.
        radius: standard deviations of h that neuron types cover.
        tolerance: error of a loss wanted.
        beyond: error of a loss of 1 from neurons outside the radius.
    """
    penalties, level = spread_penalties(question, span), FEW if tolerance >= LOOSE else 0
    if not penalties.size:  # no finite τ but 0, and a spectrum down to 0
        penalties = span.high * np.geomspace(1e-6, 3, PROBES)
    while True:
        sets = [equivalent(near, level, radius, scramble=scramble) for scramble in range(SCRAMBLES)]
        solved = _solved(sets, -penalties)
        losses = np.stack([_ridge_losses(eq, penalties, one.u) for eq, one in zip(sets, solved, strict=True)])
        error = error_of_mean(losses) + beyond * max(1.0, float(np.max(abs(losses))))
        if not all(np.all(one.residual <= RESIDUAL) for one in solved):
            error = np.inf  # losses of a fixed point that is not solved say nothing
        if error <= tolerance or level == SOBOL_LEVELS - 1 or not np.isfinite(error):
            return Chosen(_pooled(sets), sets[0], error)
        level = min(SOBOL_LEVELS - 1, level + max(1, math.ceil(math.log2(error / tolerance) / SOBOL_RATE)))


def error_of_mean(losses: np.ndarray) -> float:
    """3.2 standard errors of the mean of losses (S, …) of S = 4 independent sets: 95 % of them hold."""
    return STUDENT * float(np.max(np.std(losses, 0, ddof=1))) / math.sqrt(len(losses))


def _pooled(sets: list[Equivalent]) -> Equivalent:
    """The neuron types of all sets, each set with the same share."""
    weights, linear, kept, carried = (
        jnp.concatenate([getattr(eq, name) for eq in sets]) for name in ("type_weights", "linear", "kept", "carried")
    )
    return replace(sets[0], type_weights=weights / len(sets), linear=linear, kept=kept, carried=carried)


def _solved(sets: list[Equivalent], z: np.ndarray) -> list[solutions.Solved]:
    """Solutions of every set of neuron types: those of the first, from which the others are near."""
    first = solutions.anywhere(sets[0], z)
    found = [first]
    for eq in sets[1:]:
        solved = solutions.near(eq, z, first.u, ENOUGH, 60)
        found.append(solved if np.all(solved.residual <= RESIDUAL) else solutions.anywhere(eq, z))
    return found
