"""Traces on a contour of any number of nodes, by one compiled program for tiles of pairs of nodes (docs/theory/curves.md, eq-traces).

`contour_forms.second_traces` does the same in one traceable piece, which is compiled again for every number of nodes.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex

from rfdiff.symmetric import multiplicity
from rfdiff.theory import coupled, implicit, pairs_of_few, resolvent
from rfdiff.theory.contour_forms import BLOCK_BYTES
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.few_entries import SharedAverages, averages_of_pairs, few_entries
from rfdiff.theory.ready_programs import ReadyProgram
from rfdiff.theory.responses import Joint, Point
from rfdiff.theory.support import FEW_CLASSES
from rfdiff.theory.traces import one_trace, two_trace_of_pairs

AHEAD = 1  # pairs of tiles that are begun before one is waited for: another core may have them
PAIRS_LAST = (2, 1024)  # classes and neuron types up to which a tile has the pairs as its last axis; with three classes nothing is gained
TILES = (16, 8, 4, 2)  # nodes on a side, the most that fit in `BLOCK_BYTES`


class Traces(NamedTuple):
    """t1(z_i), t2(z_i, z_j) and t2(z_i, z̄_j) for train and test."""

    linear: Complex[np.ndarray, "2 K Z"]
    same: Complex[np.ndarray, "2 K Z Z"]
    conjugate: Complex[np.ndarray, "2 K Z Z"]


@ReadyProgram
@jax.jit
def _tile(
    eq: Equivalent, z: jax.Array, u: jax.Array, other_z: jax.Array, other_u: jax.Array, shared: SharedAverages | None = None
) -> tuple[jax.Array, jax.Array]:
    """t1 (2, K, N) at N points, and t2 (2, K, N, N) at their pairs with N others, from the packed solutions u (N, U).

    Averages of the pairs are those of the neuron types, or come from what all pairs share.
    """
    size = z.shape[0]
    rows, cols = implicit.expand(eq, z, u), implicit.expand(eq, other_z, other_u)
    first, second = paired(rows.single, cols.single, size)
    directions = None
    if rows.blocks is not None and cols.blocks is not None:
        directions = coupled.products_of_all(eq, rows.blocks, cols.blocks).reshape(size**2, *(eq.linear.shape[1],) * 4)
    averages = resolvent.feature_averages(eq, first.r * second.r) if shared is None else averages_of_pairs(eq, shared)
    joint = Joint(averages, directions)
    pairs = jnp.stack(two_trace_of_pairs(eq, first, second, joint))
    return jnp.swapaxes(jnp.stack(one_trace(eq, rows)), 1, 2), pairs.reshape(*pairs.shape[:2], size, size)


@ReadyProgram
@jax.jit
def _tile_of_few(
    eq: Equivalent, z: jax.Array, u: jax.Array, other_z: jax.Array, other_u: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`_tile` for few classes, with t2 at the conjugates of the others as third: twice as fast."""
    rows, cols, size = implicit.expand(eq, z, u), implicit.expand(eq, other_z, other_u), z.shape[0]
    first, second = paired(rows, cols, size)
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), second, jax.tree.map(jnp.conj, second))
    types = [part.reshape(*part.shape[:2], -1) for part in pairs_of_few.averages_of_pairs(eq, rows.r, cols.r)]
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), first)
    pairs = pairs_of_few.two_trace_of_pairs(eq, twice, both, jnp.concatenate(types, -1)).reshape(2, -1, 2, size, size)
    return jnp.swapaxes(jnp.stack(one_trace(eq, rows)), 1, 2), pairs[:, :, 0], pairs[:, :, 1]


def _with_conjugates(
    eq: Equivalent,
    z: np.ndarray,
    u: np.ndarray,
    other_z: np.ndarray,
    other_u: np.ndarray,
    shares: tuple[SharedAverages | None, SharedAverages | None],
) -> tuple[jax.Array, ...]:
    """t1 (2, K, N) at N points, and t2 (2, K, N, N) at their pairs with N others, and with the conjugates of these."""
    if _pairs_last(eq):
        return _tile_of_few(eq, z, u, other_z, other_u)
    turned = _tile(eq, z, u, other_z.conj(), other_u.conj(), shares[1])[1]
    return *_tile(eq, z, u, other_z, other_u, shares[0]), turned


def _pairs_last(eq: Equivalent) -> bool:
    classes, types = PAIRS_LAST
    return eq.coupled is None and eq.linear.shape[1] <= classes and eq.type_weights.size <= types


def paired(rows: Point, cols: Point, size: int) -> tuple[Point, Point]:
    """Both points of each pair of `size` rows with as many columns, the columns fastest."""
    first = jax.tree.map(lambda leaf: jnp.repeat(leaf, size, 0), rows)
    return first, jax.tree.map(lambda leaf: jnp.tile(leaf, (size, *(1,) * (leaf.ndim - 1))), cols)


def traces(eq: Equivalent, z: np.ndarray, u: np.ndarray) -> Traces:
    """Traces at Z nodes of the upper half-plane, from the packed solutions u (Z, U) there."""
    size, k = len(z), eq.linear.shape[1]
    side = tile_side(eq)
    padded = side * -(-size // side)
    z, u = (np.concatenate([x, np.repeat(x[-1:], padded - size, 0)]) for x in (z, u))
    few = few_entries(eq, z, u) if k > FEW_CLASSES else None

    def shared(row: slice, col: slice, conjugated: bool) -> SharedAverages | None:
        if few is None:
            return None
        cols = few.shares[col]
        return SharedAverages(few.shares[row], cols.conj() if conjugated else cols, few.table)

    linear = np.zeros((2, k, padded), complex)
    same, conjugate = np.zeros((2, 2, k, padded, padded), complex)
    waiting: deque[tuple[slice, slice, tuple[jax.Array, ...]]] = deque()

    def placed() -> None:
        row, col, (one, two, other) = waiting.popleft()
        linear[..., row] = one
        for whole, values, mirrored in ((same, np.asarray(two), np.asarray(two)), (conjugate, np.asarray(other), np.conj(other))):
            whole[..., row, col] = values
            whole[..., col, row] = np.swapaxes(mirrored, -1, -2)

    for row, col in pair_tiles(padded, side):
        shares = shared(row, col, False), shared(row, col, True)
        waiting.append((row, col, _with_conjugates(eq, z[row], u[row], z[col], u[col], shares)))
        if len(waiting) > AHEAD:
            placed()
    while waiting:
        placed()
    return Traces(linear[..., :size], same[..., :size, :size], conjugate[..., :size, :size])


def ridge_losses(eq: Equivalent, penalties: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Train and test losses (2, R, K) of ridge regression, from the packed solutions u (R, U) at z = -ρ: no contour is needed."""
    side, size = tile_side(eq), len(penalties)
    few = few_entries(eq, -penalties + 0j, u) if eq.linear.shape[1] > FEW_CLASSES else None
    losses = []
    for start in range(0, size, side):
        here = np.minimum(np.arange(start, start + side), size - 1)
        z = -penalties[here] + 0j
        shared = None if few is None else SharedAverages(few.shares[here], few.shares[here], few.table)
        values = _tile_of_few(eq, z, u[here], z, u[here]) if _pairs_last(eq) else _tile(eq, z, u[here], z, u[here], shared)
        one, two = (np.asarray(x) for x in values[:2])
        losses.append(np.real(1 - 2 * one + np.diagonal(two, axis1=-2, axis2=-1)))
    return np.swapaxes(np.concatenate(losses, -1)[..., :size], 1, 2)


def pair_tiles(size: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles on and above the diagonal."""
    starts = range(0, size, side)
    return ((slice(i, i + side), slice(j, j + side)) for i in starts for j in starts if i <= j)


def tile_side(eq: Equivalent) -> int:
    """Nodes on a side of a tile, so that its arrays stay below `BLOCK_BYTES`."""
    k = eq.linear.shape[1]
    features, unknowns = 2 * k + multiplicity(k).size, eq.kind_weights.size * k + multiplicity(k).size
    pair_bytes = 16 * (eq.type_weights.size + 10 * max(features, unknowns) ** 2)
    return next((side for side in TILES if side**2 * pair_bytes <= BLOCK_BYTES), TILES[-1])
