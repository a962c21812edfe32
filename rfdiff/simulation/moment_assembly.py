"""Second moments of the features from Mehler's terms: as a matrix, or applied to blocks X without it.

On one device a moment is made by square tiles on and below the diagonal, each of which stands for its mirror image too: with U = L + Lᵀ,
where L is halved on the diagonal, the tiles of L give U X = L X + Lᵀ X for half the entries of U, and Xᵀ U X = Xᵀ L X + (Xᵀ L X)ᵀ for half
of the product too. On several devices, each of which holds the rows of its own features, a panel has the rows of a few features of every
device and the columns of the own ones, so that only the terms of these few and sums (panel, b) travel.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.mehler import MehlerTerms, mehler_rows, product, truncation_rows
from rfdiff.simulation.pieces import piece

TILE = 1024  # side of a tile at most: large enough for fast products, small enough for what it is made of to stay near the processor
ACCELERATOR_TILE = 2048  # on an H100 tiles of this side are made at 93 % of the rate of large products
PANEL_VALUES = 2**22  # entries of a panel (rows, p)


def matrix(terms: MehlerTerms, rows: Rows = ALL) -> jax.Array:
    """U (p, p); of several devices, own rows."""
    if rows.parts > 1:
        return _by_panels(terms, rows, lambda part, live, r, off: rows.exchanged(mehler_rows(part, terms, r, off)))
    p, side = len(terms.energy), tile_side(len(terms.energy))
    padded = side * -(-p // side)

    def write(U: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(U, tile, (i * side, j * side))

    lower = _over_tiles(terms, mehler_rows, write, jnp.zeros((padded, padded), terms.unit.dtype))[:p, :p]
    if p == side:
        return lower
    # Mirrored at the end: on a CPU, tiles written transposed one by one take six times as long. The mask is made by the program: as a
    # constant of p² bytes it took seconds to compile.
    return jnp.where(jnp.tri(p, dtype=bool), lower, lower.T)


def times(terms: MehlerTerms, X: jax.Array, rows: Rows = ALL) -> jax.Array:
    """U X (p, b) for X (p, b)."""
    if rows.parts > 1:
        return _by_panels(terms, rows, lambda part, live, r, off: rows.scattered(product(mehler_rows(part, terms, r, off), X)))

    def add(total: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
        return total.at[i].add(product(tile, other)).at[j].add(product(tile.T, own))

    return _products(terms, X, add)


def half_times(terms: MehlerTerms, X: jax.Array, rows: Rows = ALL) -> jax.Array:
    """L X (p, b) of some L with L + Lᵀ = U, the cheapest."""
    if rows.parts > 1:
        return times(terms, X, rows) / 2
    return _products(terms, X, lambda total, i, j, tile, own, other: total.at[i].add(product(tile, other)))


def left_out(unit: jax.Array, energy: jax.Array, kept: jax.Array, order: int, rows: Rows = ALL) -> jax.Array:
    """Relative bound ‖rest‖_F/‖diagonal‖ on the series beyond an order, which reaches the part `kept` (p,) of the energies (p,)."""
    # one centre whose squares add up to what the series keeps has the same remainder
    blank = jnp.zeros((len(energy), 1), unit.dtype)
    terms = MehlerTerms(unit, (jnp.sqrt(kept)[:, None], *(blank for _ in range(order))), energy)
    whole = rows.total(jnp.vdot(energy, energy))
    if rows.parts == 1:
        squares = _over_tiles(terms, truncation_rows, lambda total, i, j, tile: total + _once(i, j) * tile, jnp.zeros((), unit.dtype))
        return jnp.sqrt(2 * squares / whole)

    def panel(part: MehlerTerms, live: jax.Array, r: jax.Array, off: jax.Array) -> jax.Array:
        size = len(live) // rows.parts
        return jnp.broadcast_to(truncation_rows(part, terms, r, off & live[:, None]) / size, (size,))

    return jnp.sqrt(rows.total(jnp.sum(_by_panels(terms, rows, panel))) / whole)


def tile_side(p: int) -> int:
    """Side of the tiles, p over a whole number; where that would be far below the largest side, the last tile is filled up instead."""
    least = -(-p // piece(TILE, ACCELERATOR_TILE))
    count = next((count for count in range(least, 2 * least) if p % count == 0), least)
    return -(-p // count)


def _once(i: jax.Array, j: jax.Array) -> jax.Array:
    """Weight of a tile in L."""
    return jnp.where(i == j, 0.5, 1.0)


def _over_tiles(terms: MehlerTerms, tile: Any, add: Callable[..., Any], start: Any) -> Any:
    """`add(total, i, j, tile)` from `start`, over the tiles (i, j) on and below the diagonal; `tile` makes one as `mehler_rows` does."""
    p, side = len(terms.energy), tile_side(len(terms.energy))
    count = -(-p // side)
    parts = jax.tree.map(lambda leaf: _blocks(leaf, side), terms)

    def one(total: Any, pair: Any) -> tuple[Any, None]:
        i, j = pair
        own, other = (jax.tree.map(lambda leaf, k=k: leaf[k], parts) for k in (i, j))
        off = (i != j) | ~jnp.eye(side, dtype=bool)
        return add(total, i, j, tile(own, other, product(own.unit, other.unit.T), off)), None

    pairs: Any = np.array([(i, j) for i in range(count) for j in range(i + 1)], np.int32)
    return jax.lax.scan(one, start, pairs)[0]


def _products(terms: MehlerTerms, X: jax.Array, add: Callable[..., jax.Array]) -> jax.Array:
    """`add(total, i, j, tile of L, block i of X, block j of X)` over all tiles of L, the totals and X being blocks of rows."""
    p, blocks = len(X), _blocks(X, tile_side(len(X)))

    def one(total: jax.Array, i: jax.Array, j: jax.Array, tile: jax.Array) -> jax.Array:
        return add(total, i, j, _once(i, j).astype(tile.dtype) * tile, blocks[i], blocks[j])

    return _over_tiles(terms, mehler_rows, one, jnp.zeros_like(blocks)).reshape(-1, X.shape[1])[:p]


def _blocks(x: jax.Array, side: int) -> jax.Array:
    """x (p, …) as blocks of rows, the last one filled up with zeros: features without energy, which are no part of any sum."""
    count = -(-len(x) // side)
    return jnp.pad(x, ((0, side * count - len(x)), *((0, 0),) * (x.ndim - 1))).reshape(count, side, *x.shape[1:])


def _by_panels(terms: MehlerTerms, rows: Rows, panel: Callable[..., jax.Array]) -> jax.Array:
    """`panel(terms of its rows, which are no repetition, correlations (b, p), off-diagonal mask)` of every panel, put together along rows.

    A panel has as many rows of each device, and the columns of this one; what `panel` returns has those of its rows that are this device's.
    """
    p = terms.unit.shape[0]
    size = min(p, max(32, PANEL_VALUES // (p * rows.parts)))
    count = -(-p // size)
    columns = rows.numbers(p)

    def one(where: jax.Array) -> Any:
        which = jnp.minimum(where, p - 1)
        part, numbers, live = rows.everywhere((jax.tree.map(lambda leaf: leaf[which], terms), columns[which], where < p))
        return panel(part, live, product(part.unit, terms.unit.T), columns != numbers[:, None])

    parts = jax.lax.map(one, np.arange(count * size).reshape(count, size))
    return parts.reshape(count * size, *parts.shape[2:])[:p]
