"""Solutions of the fixed point at any number of points, by any way, in one compiled program (docs/theory/spectrum.md, eq-fixed-point).

Compiling the fixed point takes seconds, and solving it milliseconds. So every way to a point, of one stage or many, from the free
resolvent or from a start, has one shape: pieces of `PIECE` points, and the last of `STAGES` stages.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Complex, Float

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.approaches import from_above, ray
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.ready_programs import ReadyProgram

PIECE = 32  # points solved at once
STAGES = 13
STAGE_TOLERANCE, STAGE_LIMIT = 1e-10, 60  # of a stage on the way
NEGLIGIBLE = 1e-12  # share of the largest feature below which a neuron type has none


class Solved(NamedTuple):
    """Solutions at Z points: unknowns u, g and κ_c, Re det², whether types lie on both sides of a real point, residual; all (Z, …)."""

    u: Complex[np.ndarray, "Z U"]
    g: Complex[np.ndarray, " Z"]
    kappa: Complex[np.ndarray, "Z K"]
    fold: Float[np.ndarray, " Z"]
    straddles: Bool[np.ndarray, " Z"]
    residual: Float[np.ndarray, " Z"]

    @property
    def density(self) -> Float[np.ndarray, " Z"]:
        """ρ(λ) at points λ + i0."""
        return self.g.imag / np.pi

    @property
    def class_density(self) -> Float[np.ndarray, "Z K"]:
        """λ ρ_c(λ) at points λ + i0."""
        return self.kappa.imag / np.pi


@ReadyProgram
@jax.jit
def _along(
    eq: Equivalent, path: jax.Array, start: jax.Array, free: jax.Array, first: jax.Array, tolerances: jax.Array, limits: jax.Array
) -> Solved:
    """Solutions at the end of a path (STAGES, Z) from its stage `first` on, each stage starting the next."""

    def stage(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        solution = resolvent.solve(eq, path[i], state[0], tolerances[i], limits[i])
        return resolvent.pack(solution.point.delta, solution.point.H), solution.residual

    start = jnp.where(free, resolvent.free_start(eq, path[first]), start)
    u, residual = jax.lax.fori_loop(first, STAGES, stage, (start, jnp.full(path.shape[1], jnp.inf)))
    features = resolvent.type_features(eq)
    point = resolvent.expand(eq, features, path[-1], *resolvent.unpack(u, eq.kind_weights.shape[0], eq.linear.shape[1]))
    A = resolvent.jacobian(eq, features, point)
    fold = jnp.real(batched_systems.determinant(jnp.eye(A.shape[-1]) - A) ** 2)
    # types without any share in U have their eigenvalue at 0 and tell nothing
    size = jnp.max(features, 1)
    signs = jnp.where((eq.type_weights > 0) & (size > NEGLIGIBLE * jnp.max(size)), jnp.sign(jnp.real(point.r)), jnp.nan)
    straddles = jnp.nanmax(signs, 1) != jnp.nanmin(signs, 1)
    return Solved(u, *resolvent.stieltjes_of(eq, point), fold, straddles, residual)  # type: ignore[arg-type]  # arrays of JAX inside jit


def along(eq: Equivalent, path: np.ndarray, start: np.ndarray | None, tolerances: ArrayLike, limits: ArrayLike) -> Solved:
    """Solutions at the end of a path (S, Z), S ≤ `STAGES`, each stage starting the next; the first from `start` (Z, U) or free (None).

    Args:
        eq: the Gaussian equivalent.
        path: points of the open upper half-plane or left of 0; real ones right of it from a close start.
        start: unknowns near the first stage's.
        tolerances, limits: relative residual at which each stage (S,) ends, and its largest number of iterations.
    """
    stages, length = path.shape
    kinds, k = eq.kind_weights.shape[0], eq.linear.shape[1]
    given = np.zeros((length, kinds * k + k * (k + 1) // 2), complex) if start is None else np.asarray(start)
    path = np.pad(path.astype(complex), ((STAGES - stages, 0), (0, 0)), mode="edge")
    tolerance, limit = (np.pad(np.broadcast_to(x, stages), (STAGES - stages, 0), mode="edge") for x in (tolerances, limits))
    pieces = []
    for begin in range(0, length, PIECE):
        here = np.minimum(np.arange(begin, begin + PIECE), length - 1)  # the last piece is filled up with copies of its last point
        pieces.append(_along(eq, path[:, here], given[here], start is None, STAGES - stages, tolerance.astype(float), limit))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:length], *pieces)


def free(eq: Equivalent, z: np.ndarray) -> Solved:
    """Solutions at Z points from the free resolvent."""
    return along(eq, z[None], None, 1e-13, 400)


def near(eq: Equivalent, z: np.ndarray, start: np.ndarray, tolerance: float, limit: int) -> Solved:
    """Solutions at Z points from close starts (Z, U)."""
    return along(eq, z[None], start, tolerance, limit)


def anywhere(eq: Equivalent, z: np.ndarray) -> Solved:
    """Solutions at Z points from the free resolvent; where that does not reach one of them, from above or along rays.

    `residual` above `resolvent.RESIDUAL` says which points are not solved all the same. Coupled directions are solved from the same
    law without their coupling, where an iteration is cheap.
    """
    best = free(eq, z) if eq.coupled is None else near(eq, z, anywhere(decoupled(eq), z).u, 1e-13, 60)
    for way in (from_above, ray):
        lost = np.flatnonzero(~(best.residual <= resolvent.RESIDUAL))
        if not lost.size:
            break
        start = along(eq, np.asarray(way(z[lost])), None, STAGE_TOLERANCE, STAGE_LIMIT).u
        best = replaced(best, lost, near(eq, z[lost], start, 1e-13, 400))
    return best


def decoupled(eq: Equivalent) -> Equivalent:
    """The equivalent with the diagonals alone of coupled directions, as so many groups more."""
    assert eq.coupled is not None
    single = jnp.diagonal(eq.coupled.core, axis1=1, axis2=2).T
    weights = jnp.full(len(single), 1.0) * eq.coupled.weight
    values, shares = jnp.concatenate([single, eq.eigenvalues]), jnp.concatenate([weights, eq.group_weights])
    return replace(eq, eigenvalues=values, group_weights=shares, coupled=None)


def better(one: Solved, other: Solved) -> Solved:
    """At each point the one with the smaller residual."""
    pick = one.residual <= other.residual
    return Solved(*(np.where(pick.reshape(-1, *(1,) * (a.ndim - 1)), a, b) for a, b in zip(one, other, strict=True)))


def replaced(solved: Solved, where: np.ndarray, anew: Solved) -> Solved:
    """Solutions with those at the points `where` (N,) replaced by `anew`, at as many points, where these have the smaller residual."""
    best = better(Solved(*(leaf[where] for leaf in solved)), anew)
    leaves = [leaf.copy() for leaf in solved]
    for leaf, values in zip(leaves, best, strict=True):
        leaf[where] = values
    return Solved(*leaves)
