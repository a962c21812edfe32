"""Second moments of the features from Mehler's terms: as a matrix, or applied to blocks X without it.

On one device a moment is made by square tiles on and below the diagonal, each of which stands for its mirror image too: with U = L + Lᵀ,
where L is halved on the diagonal, the tiles of L give U X = L X + Lᵀ X for half the entries of U, and Xᵀ U X = Xᵀ L X + (Xᵀ L X)ᵀ for half
of the product too. On several devices, each of which holds the rows of its own features, a panel has the rows of a few features of every
device and the columns of its own device, so that only the terms of these few and sums (panel, b) are communicated.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.mehler import MehlerTerms, mehler_rows, product, truncation_rows
from rfdiff.simulation.pieces import piece

TILE = 1024  # side of a tile at most: large enough for fast products, small enough for its operands to stay in cache
ACCELERATOR_TILE = 2048  # on an H100 tiles of this side are made at 93 % of the rate of large products
PANEL_VALUES = 2**22  # entries of a panel (rows, p)

T = TypeVar("T")
TileFunction = Callable[[MehlerTerms, MehlerTerms, Float[Array, "b p"], Bool[Array, "b p"]], jax.Array]  # as `mehler_rows`


def matrix(terms: MehlerTerms, rows: Rows = ALL) -> Float[Array, "p p"]:
    """U (p, p); on one of several devices, its rows."""
    if rows.shards > 1:
        return _by_panels(terms, rows, lambda panel, live, r, off: rows.exchanged(mehler_rows(panel, terms, r, off)))
    p, side = len(terms.energy), tile_side(len(terms.energy))
    padded = side * -(-p // side)

    def write(U: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(U, tile, (i * side, j * side))

    lower = _over_tiles(terms, mehler_rows, write, jnp.zeros((padded, padded), terms.unit.dtype))[:p, :p]
    if p == side:
        return lower
    # Mirrored at the end: on a CPU, tiles written transposed one by one take six times as long. The mask compares numbers that the compiler
    # does not know: as a constant, or one that it can derive, it took seconds to minutes to compile, more the larger p is.
    numbers = jax.lax.optimization_barrier(jnp.arange(p))
    return jnp.where(numbers[:, None] >= numbers, lower, lower.T)


def times(terms: MehlerTerms, X: Float[Array, "p b"], rows: Rows = ALL) -> Float[Array, "p b"]:
    """U X (p, b) for X (p, b)."""
    if rows.shards > 1:
        return _by_panels(terms, rows, lambda panel, live, r, off: rows.scattered(product(mehler_rows(panel, terms, r, off), X)))

    def add(total: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array, X_i: jax.Array, X_j: jax.Array) -> jax.Array:
        return total.at[i].add(product(tile, X_j)).at[j].add(product(tile.T, X_i))

    return _products(terms, X, add)


def half_times(terms: MehlerTerms, X: Float[Array, "p b"], rows: Rows = ALL) -> Float[Array, "p b"]:
    """L X (p, b) of some L with L + Lᵀ = U, the cheapest."""
    if rows.shards > 1:
        return times(terms, X, rows) / 2
    return _products(terms, X, lambda total, i, j, tile, X_i, X_j: total.at[i].add(product(tile, X_j)))


def truncation_bound(
    unit: Float[Array, "p D"], energy: Float[Array, " p"], captured: Float[Array, " p"], order: int, rows: Rows = ALL
) -> Float[Array, ""]:
    """Bound ‖rest‖_F/‖diagonal‖ on the terms beyond an order, up to which the series captures `captured` (p,) of the energies (p,)."""
    # a single centre with the same captured energy has the same remainder
    blank = jnp.zeros((len(energy), 1), unit.dtype)
    terms = MehlerTerms(unit, (jnp.sqrt(captured)[:, None], *(blank for _ in range(order))), energy)
    whole = rows.total(jnp.vdot(energy, energy))
    if rows.shards == 1:
        squares = _over_tiles(terms, truncation_rows, lambda total, i, j, tile: total + _once(i, j) * tile, jnp.zeros((), unit.dtype))
        return jnp.sqrt(2 * squares / whole)

    def squares_of(panel: MehlerTerms, live: jax.Array, r: jax.Array, off: jax.Array) -> jax.Array:
        size = len(live) // rows.shards
        return jnp.broadcast_to(truncation_rows(panel, terms, r, off & live[:, None]) / size, (size,))

    return jnp.sqrt(rows.total(jnp.sum(_by_panels(terms, rows, squares_of))) / whole)


def tile_side(p: int) -> int:
    """Side of the tiles, p over a whole number; where that would be far below the largest side, the last tile is filled up instead."""
    least = -(-p // piece(TILE, ACCELERATOR_TILE))
    count = next((count for count in range(least, 2 * least) if p % count == 0), least)
    return -(-p // count)


def _once(i: jax.Array, j: jax.Array) -> jax.Array:
    """Weight of a tile in L."""
    return jnp.where(i == j, 0.5, 1.0)


def _over_tiles(terms: MehlerTerms, tile: TileFunction, add: Callable[[T, jax.Array, jax.Array, jax.Array], T], start: T) -> T:
    """`add(total, i, j, tile)` from `start`, over the tiles (i, j) on and below the diagonal."""
    p, side = len(terms.energy), tile_side(len(terms.energy))
    count = -(-p // side)
    blocks = jax.tree.map(lambda leaf: _blocks(leaf, side), terms)

    def one(total: T, pair: tuple[jax.Array, jax.Array]) -> tuple[T, None]:
        i, j = pair
        left, right = (jax.tree.map(lambda leaf, k=k: leaf[k], blocks) for k in (i, j))
        off = (i != j) | ~jnp.eye(side, dtype=bool)
        return add(total, i, j, tile(left, right, product(left.unit, right.unit.T), off)), None

    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1)], np.int32)
    return jax.lax.scan(one, start, (jnp.asarray(pairs[:, 0]), jnp.asarray(pairs[:, 1])))[0]


def _products(terms: MehlerTerms, X: Float[Array, "p b"], add: Callable[..., jax.Array]) -> Float[Array, "p b"]:
    """`add(total, i, j, tile of L, block i of X, block j of X)` over all tiles of L, the totals and X being blocks of rows."""
    p, blocks = len(X), _blocks(X, tile_side(len(X)))

    def one(total: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array) -> jax.Array:
        return add(total, i, j, _once(i, j).astype(tile.dtype) * tile, blocks[i], blocks[j])

    return _over_tiles(terms, mehler_rows, one, jnp.zeros_like(blocks)).reshape(-1, X.shape[1])[:p]


def _blocks(x: Float[Array, "p ..."], side: int) -> Float[Array, "blocks side ..."]:
    """x (p, …) as blocks of rows, the last one padded with zeros: features without energy, which enter no sum."""
    count = -(-len(x) // side)
    return jnp.pad(x, ((0, side * count - len(x)), *((0, 0),) * (x.ndim - 1))).reshape(count, side, *x.shape[1:])


def _by_panels(terms: MehlerTerms, rows: Rows, panel: Callable[..., jax.Array]) -> jax.Array:
    """`panel(terms of its rows, which rows are live, correlations (b, p), off-diagonal mask)` of every panel, concatenated along rows.

    A panel has equally many rows of each device and the columns of this one; `panel` returns its rows that belong to this device.
    """
    p = terms.unit.shape[0]
    size = min(p, max(32, PANEL_VALUES // (p * rows.shards)))
    count = -(-p // size)
    columns = rows.numbers(p)

    def one(indices: jax.Array) -> jax.Array:
        which = jnp.minimum(indices, p - 1)
        block, numbers, live = rows.gathered((jax.tree.map(lambda leaf: leaf[which], terms), columns[which], indices < p))
        return panel(block, live, product(block.unit, terms.unit.T), columns != numbers[:, None])

    panels = jax.lax.map(one, jnp.arange(count * size).reshape(count, size))
    return panels.reshape(count * size, *panels.shape[2:])[:p]
