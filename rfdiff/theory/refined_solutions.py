"""Solutions of the fixed point for many neuron types, from those for few (docs/theory/spectrum.md, eq-fixed-point).

Newton's matrix takes averages of all products of features, the fixed point itself those of the features. The matrix of a few types, at
their own solution, is so close to that of many that u ← u + (I - A)^{-1} (F(u) - u) gains digits at every step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from rfdiff.theory import batched_systems, implicit, resolvent, solutions
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Point

STEPS = 40
SOLVED = 1e-13  # residual at which steps end
ENOUGH = 1e-11  # residual that they must reach; else all is solved anew


class Refined(NamedTuple):
    """Packed solutions (Z, U) at Z points and their relative residuals (Z,)."""

    u: Complex[np.ndarray, "Z U"]
    residual: Float[np.ndarray, " Z"]


def refined(eq: Equivalent, few: Equivalent, z: jax.Array, start: jax.Array) -> tuple[Point, jax.Array]:
    """Solutions for many neuron types from those of `few`, start (Z, U), at points of the upper half-plane or left of 0; traceable.

    The residuals (Z,) are inf where the resolvent entry of a type lies on the wrong side.
    """
    split = eq.kind_weights.shape[0] * eq.linear.shape[1]
    features = resolvent.type_features(eq)
    A = resolvent.jacobian(few, resolvent.type_features(few), implicit.expand(few, z, start))
    inverse = batched_systems.inverse(jnp.eye(A.shape[-1]) - A)

    def left(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        difference = resolvent.image(eq, features, implicit.expand(eq, z, u)) - u
        return difference, resolvent.relative(difference, u, split)

    def step(state: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        u, difference, residual, count = state
        trial = u + (inverse @ difference[..., None])[..., 0]
        apart, now = left(trial)
        better = now < residual  # the last steps are rounding, and a point that stalls stays as it is
        wide = better[:, None]
        return jnp.where(wide, trial, u), jnp.where(wide, apart, difference), jnp.where(better, now, residual), count + 1

    first = (start, *left(start), jnp.zeros((), int))
    u, _, residual, _ = jax.lax.while_loop(lambda s: (s[3] < STEPS) & jnp.any(s[2] > SOLVED), step, first)
    point = implicit.expand(eq, z, u)
    upper = (jnp.imag(z) > 0)[:, None]
    physical = jnp.all(jnp.where(upper, jnp.imag(point.r), jnp.real(point.r)) > 0, 1)
    return point, jnp.where(physical, residual, jnp.inf)


@jax.jit
def _refined(eq: Equivalent, few: Equivalent, z: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    point, residual = refined(eq, few, z, start)
    return resolvent.pack(point.delta, point.H), residual


def from_few(eq: Equivalent, few: Equivalent, z: np.ndarray) -> Refined:
    """Solutions at Z points for many neuron types, from those of `few`; anew where that does not lead to them."""
    start = solutions.anywhere(few, z).u
    u, residual = (np.asarray(x) for x in _refined(eq, few, jnp.asarray(z, complex), jnp.asarray(start)))
    if np.all(residual <= ENOUGH):
        return Refined(u, residual)
    anew = solutions.anywhere(eq, z)
    return Refined(anew.u, anew.residual)
