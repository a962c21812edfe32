"""Many small linear systems at once, one for each spectral point or pair of points.

XLA's CPU backend of jaxlib 0.10 hands a batch of LAPACK calls to the pool of threads it is itself running on and waits for it there: as
many concurrent batches as threads wait for each other for ever. So on a CPU no batch reaches LAPACK from here: systems of a few unknowns
are eliminated side by side, in vector instructions; larger ones go to LAPACK one by one, which costs the same as in a batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

SIDE_BY_SIDE = 8  # unknowns up to which elimination over the whole batch is at least as fast as LAPACK, measured on two cores


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """x (…,N,R) of matrix (…,N,N) x = right (…,N,R), differentiable to any order (implicitly: nothing of the elimination is kept)."""
    dtype = jnp.result_type(matrix, right)
    matrix, right = matrix.astype(dtype), right.astype(dtype)
    batch = jnp.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    right = jnp.broadcast_to(right, (*batch, *right.shape[-2:]))
    method = _eliminate if matrix.shape[-1] <= SIDE_BY_SIDE else partial(_each, jnp.linalg.solve)

    def forwards(_: Any, b: jax.Array) -> jax.Array:
        return method(jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:])), b)

    def transposed(_: Any, b: jax.Array) -> jax.Array:
        return method(jnp.broadcast_to(jnp.swapaxes(matrix, -1, -2), (*batch, *matrix.shape[-2:])), b)

    return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, forwards, transposed)


def inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of matrix (…,N,N)."""
    return solve(matrix, jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape))


def determinant(matrix: jax.Array) -> jax.Array:
    """Determinant (…) of matrix (…,N,N)."""
    return _each(jnp.linalg.det, matrix)


def _each(function: Callable[..., jax.Array], *stacks: jax.Array) -> jax.Array:
    """A function of matrices over stacks of them: one by one on a CPU, however often it is mapped; elsewhere as a batch."""

    def one_by_one(*stacks: jax.Array) -> jax.Array:
        mapped: Callable[..., jax.Array] = jax.custom_batching.sequential_vmap(function)
        for _ in range(stacks[0].ndim - 2):
            mapped = jax.vmap(mapped)
        return mapped(*stacks)

    return jax.lax.platform_dependent(*stacks, cpu=one_by_one, default=function)


def _eliminate(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Gauss-Jordan elimination with partial pivoting; the batch is the last axis, so that every step is one pass over it."""
    n, width = right.shape[-2:]
    rows = jnp.arange(n)[:, None]
    table = jnp.moveaxis(jnp.concatenate([matrix, right], -1).reshape(-1, n, n + width), 0, -1)  # (N, N + R, Z)

    def step(i: jax.Array, table: jax.Array) -> jax.Array:
        column = table[:, i]
        size = jnp.where(rows >= i, abs(jnp.real(column)) + abs(jnp.imag(column)), -1.0)
        chosen = rows == jnp.argmax(size, 0)  # (N, Z)
        pivot = jnp.where(chosen, column, 0).sum(0)
        row = jnp.where(chosen[:, None], table, 0).sum(0) / pivot
        exchanged = jnp.where(chosen[:, None], table[i], table)
        cleared = exchanged - exchanged[:, i][:, None] * row
        return jnp.where(rows[:, None] == i, row, cleared)

    table = jax.lax.fori_loop(0, n, step, table)
    return jnp.moveaxis(table[:, n:], -1, 0).reshape(right.shape)
