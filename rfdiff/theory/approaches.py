"""Ways to points where the fixed point is not reached from the free resolvent: along rays, and from above (`equations`, section 4)."""

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.theory import resolvent
from rfdiff.theory.equivalent import Equivalent

DESCENT = 8
RAY = 10.0 ** np.arange(6, -0.25, -0.5)


def approach_along_rays(eq: Equivalent, z: jax.Array) -> jax.Array:
    """Unknowns at Z points that the free resolvent does not reach (near p = n m): each from 10^6 z inwards along its ray."""
    return _approach(eq, z * jnp.asarray(RAY)[:, None])


def approach_from_above(eq: Equivalent, z: jax.Array) -> jax.Array:
    """Unknowns at Z points close to the support: each from a height of |z| downwards, in stages of one ratio."""
    height, stages = jnp.abs(z), jnp.linspace(0, 1, DESCENT)[:, None]
    return _approach(eq, jnp.real(z) + 1j * height ** (1 - stages) * jnp.maximum(jnp.imag(z), 1e-12 * height) ** stages)


def _approach(eq: Equivalent, path: jax.Array) -> jax.Array:
    """Unknowns at the end of a path (stages, Z), each stage starting the next."""

    def nearer(u: jax.Array, z: jax.Array) -> tuple[jax.Array, None]:
        solution = resolvent.solve(eq, z, u, 1e-10, 60)
        return resolvent.pack(solution.point.delta, solution.point.H), None

    return jax.lax.scan(nearer, resolvent.free_start(eq, path[0]), path)[0]


_approaches = jax.jit(approach_from_above), jax.jit(approach_along_rays)


def solve_anywhere(eq: Equivalent, z: np.ndarray) -> resolvent.Solution:
    """The solution at Z points, from the free resolvent; where that does not reach one of them, from above or along rays (on the host).

    `residual` above `resolvent.RESIDUAL` says which points are not solved all the same.
    """
    best = resolvent.solve_jit(eq, z)
    for approach in _approaches:
        if np.max(np.asarray(best.residual)) <= resolvent.RESIDUAL:
            break
        other = resolvent.solve_jit(eq, z, approach(eq, z))
        better = ~(best.residual <= other.residual)
        pick = [jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old) for new, old in zip(other.point, best.point, strict=True)]
        best = resolvent.Solution(resolvent.Point(*pick), jnp.where(better, other.residual, best.residual), other.iterations)
    return best
