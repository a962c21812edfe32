"""The one-point solution as a differentiable function of the problem: implicit differentiation of the fixed point.

The solution u of u = F(u; θ) depends on the numbers θ of the problem (and on z) through

    du = (I - ∂F/∂u)^{-1} ∂F/∂θ dθ,

with ∂F/∂u the response system at z1 = z2, which Newton's method forms anyway. No iteration is differentiated, so a gradient needs
the memory of one evaluation, forwards, backwards and for any order.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Point

TOLERANCE = 1e-13
ITERATIONS = 80


def image(eq: Equivalent, z: jax.Array, u: jax.Array) -> jax.Array:
    """F(u): the packed unknowns (Z, U) that the resolvent entries made of u give back; a solution is its own image."""
    point = expand(eq, z, u)
    return resolvent.image(eq, resolvent.type_features(eq), point)


def expand(eq: Equivalent, z: jax.Array, u: jax.Array) -> Point:
    """Everything that follows from the packed unknowns u (Z, U) at z (Z,)."""
    return resolvent.expand(eq, resolvent.type_features(eq), z, *resolvent.unpack(u, eq.kind_weights.shape[0], eq.linear.shape[1]))


@jax.custom_jvp
def unknowns(eq: Equivalent, z: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solution u (Z, U) at z (Z,) from a start, with its relative residual (Z,); derivatives by the implicit function theorem.

    Args:
        eq: the Gaussian equivalent.
        z: points of the open upper half-plane, or real ones with a close start.
        start: (Z, U) where Newton's method begins; the solution does not depend on it.
    """
    solution = resolvent.solve(eq, z, start, TOLERANCE, ITERATIONS)
    return resolvent.pack(solution.point.delta, solution.point.H), solution.residual


@unknowns.defjvp
def _unknowns_jvp(primals: Any, tangents: Any) -> Any:
    eq, z, start = primals
    u, residual = unknowns(eq, z, start)
    _, direct = jax.jvp(lambda eq, z: image(eq, z, u), (eq, z), tangents[:2])
    A = resolvent.jacobian(eq, resolvent.type_features(eq), expand(eq, z, u))
    du = batched_systems.solve(jnp.eye(A.shape[-1]) - A, direct[..., None])[..., 0]
    return (u, residual), (du, jnp.zeros_like(residual))
