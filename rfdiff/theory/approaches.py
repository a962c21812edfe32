"""Ways to points that the free resolvent does not reach: along rays, and from above (docs/theory/spectrum.md)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfdiff.theory import resolvent
from rfdiff.theory.equivalent import Equivalent

DESCENT = 8  # stages: one of a whole decade leaves nodes near the axis in a cycle of damped steps
RAY = 10.0 ** np.arange(6, -0.25, -0.5)


def ray(z: ArrayLike) -> jax.Array:
    """Paths (S, Z) from 10^6 z inwards to z: for points near 0 where p ≈ n m."""
    return jnp.asarray(z) * jnp.asarray(RAY)[:, None]


def from_above(z: ArrayLike) -> jax.Array:
    """Paths (S, Z) from a height of |z| downwards to z, in stages of one ratio: for points close to the support."""
    height, stages = jnp.abs(jnp.asarray(z)), jnp.linspace(0, 1, DESCENT)[:, None]
    return jnp.real(jnp.asarray(z)) + 1j * height ** (1 - stages) * jnp.maximum(jnp.imag(jnp.asarray(z)), 1e-12 * height) ** stages


def approach_along_rays(eq: Equivalent, z: jax.Array) -> jax.Array:
    """Unknowns at the ends of rays to Z points, each stage starting the next; traceable."""

    def nearer(u: jax.Array, z: jax.Array) -> tuple[jax.Array, None]:
        solution = resolvent.solve(eq, z, u, 1e-10, 60)
        return resolvent.pack(solution.point.delta, solution.point.H), None

    path = ray(z)
    return jax.lax.scan(nearer, resolvent.free_start(eq, path[0]), path)[0]
