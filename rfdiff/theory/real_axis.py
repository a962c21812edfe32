"""Solutions of the fixed point just above the real axis, λ + i0 (`equations`, section 4).

The axis is approached from above, λ(1 + iε) with ε falling to 1e-11, each solution starting the next. Every stage is solved to a small
part of its own distance from the axis: in a gap the imaginary parts are of that order, and their sign is what tells the physical solution.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent

APPROACH = tuple(10.0**-k for k in range(12))
NEGLIGIBLE = 1e-12  # share of the largest feature below which a neuron type has none
CHUNK = 96  # spectral points solved at once: with FEW, the only two shapes
FEW = 32


class Axis(NamedTuple):
    """Solutions just above the real axis: unknowns u, ρ, λρ_c, Re det², whether types straddle λ, residual; all (Z, …)."""

    u: Any
    density: Any
    class_density: Any
    fold: Any
    straddles: Any
    residual: Any


def _read(eq: Equivalent, z: jax.Array, u: jax.Array, residual: jax.Array) -> Axis:
    features = resolvent.type_features(eq)
    shape = eq.kind_weights.shape[0], eq.linear.shape[1]
    p = resolvent.expand(eq, features, z, *resolvent.unpack(u, *shape))
    g, kappa = resolvent.stieltjes_of(eq, p)
    A = resolvent.jacobian(eq, features, p)
    fold = jnp.real(batched_systems.determinant(jnp.eye(A.shape[-1]) - A) ** 2)
    # types without any share in U have their eigenvalue at 0 and tell nothing
    size = jnp.max(features, 1)
    signs = jnp.where((eq.type_weights > 0) & (size > NEGLIGIBLE * jnp.max(size)), jnp.sign(jnp.real(p.r)), jnp.nan)
    straddles = jnp.nanmax(signs, 1) != jnp.nanmin(signs, 1)
    return Axis(u, jnp.imag(g) / jnp.pi, jnp.imag(kappa) / jnp.pi, fold, straddles, residual)


@jax.jit
def _descend(eq: Equivalent, real: jax.Array, unit: jax.Array) -> Axis:
    def nearer(u: jax.Array, stage: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        epsilon, tolerance = stage
        solution = resolvent.solve(eq, real + 1j * epsilon * unit, u, tolerance, 60)
        return resolvent.pack(solution.point.delta, solution.point.H), solution.residual

    distances = jnp.asarray(APPROACH)
    free = resolvent.free_start(eq, real + 1j * distances[0] * unit)
    u, residuals = jax.lax.scan(nearer, free, (distances, jnp.maximum(1e-3 * distances, 1e-12)))
    return _read(eq, real + 1j * APPROACH[-1] * unit, u, residuals[-1])


@jax.jit
def _polish(eq: Equivalent, lam: jax.Array, u: jax.Array, tolerance: jax.Array, limit: jax.Array) -> Axis:
    z = lam * (1 + 1j * APPROACH[-1])
    solution = resolvent.solve(eq, z, u, tolerance[0], limit[0])
    return _read(eq, z, resolvent.pack(solution.point.delta, solution.point.H), solution.residual)


def _in_chunks(function: Any, eq: Equivalent, *arrays: np.ndarray) -> Axis:
    """Apply to arrays of any length in pieces of one of two shapes, so that two compiled programs serve every length."""
    length = len(arrays[0])
    chunk = FEW if length <= 2 * FEW else CHUNK
    pieces = []
    for start in range(0, length, chunk):
        parts = [array[start : start + chunk] for array in arrays]
        fill = chunk - len(parts[0])
        pieces.append(function(eq, *(np.concatenate([part, np.repeat(part[-1:], fill, 0)]) for part in parts)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:length], *pieces)


def descend(eq: Equivalent, real: np.ndarray, unit: np.ndarray) -> Axis:
    """Solutions at real + i 1e-11 unit, (Z,) points, from the free resolvent at real + i unit down to the axis.

    Every stage is solved to a small part of its own distance from the axis: in a gap the imaginary parts are of that order, and their
    sign is what tells the physical solution. `density` is ρ + O(1e-11).
    """
    return _in_chunks(_descend, eq, real, unit)


def approach(eq: Equivalent, lam: np.ndarray) -> Axis:
    """Solutions at λ + i0 for λ > 0."""
    return descend(eq, lam, lam)


def polish(eq: Equivalent, lam: np.ndarray, u: np.ndarray, tolerance: float = 1e-11, limit: int = 16) -> Axis:
    """Solutions at λ + i0 from close starts u."""
    return _in_chunks(_polish, eq, lam, u, np.full(len(lam), tolerance), np.full(len(lam), limit))


def retry(eq: Equivalent, lam: np.ndarray, axis: Axis) -> Axis:
    """Where a polished start has not converged, solve again from the free resolvent."""
    failed = np.flatnonzero(axis.residual > 1e-9)
    if not failed.size:
        return axis
    again = approach(eq, lam[failed])

    def put(leaf: np.ndarray, values: np.ndarray) -> np.ndarray:
        leaf = leaf.copy()
        leaf[failed] = values
        return leaf

    return jax.tree.map(put, axis, again)
