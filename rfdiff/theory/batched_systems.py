"""Many small linear systems at once, one for each spectral point or pair of points.

XLA's CPU backend (seen with jaxlib 0.10) hands a batch of LAPACK calls to the pool of threads it is itself running on and waits for it
there: as many concurrent batches as threads wait for each other for ever. So on a CPU no function of this module calls LAPACK with a batch:
systems of a few unknowns are eliminated side by side, in vector instructions; larger ones, and determinants, go to LAPACK one by one, which
costs the same. The theory solves its systems through this module alone. Accelerators take batches as they are.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

ALONE = 64  # unknowns up to which LAPACK factors a complex matrix without threads
SIDE_BY_SIDE = 8  # unknowns up to which elimination over the whole batch is at least as fast as LAPACK, measured on two cores


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """x (…,N,R) of matrix (…,N,N) x = right (…,N,R), differentiable to any order (implicitly: nothing of the elimination is kept)."""
    dtype = jnp.result_type(matrix, right)
    matrix, right = matrix.astype(dtype), right.astype(dtype)
    batch = jnp.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    right = jnp.broadcast_to(right, (*batch, *right.shape[-2:]))
    method = _eliminate if matrix.shape[-1] <= SIDE_BY_SIDE else partial(_each, jnp.linalg.solve)

    def forwards(_: object, b: jax.Array) -> jax.Array:
        return method(jnp.broadcast_to(matrix, (*batch, *matrix.shape[-2:])), b)

    def transposed(_: object, b: jax.Array) -> jax.Array:
        return method(jnp.broadcast_to(jnp.swapaxes(matrix, -1, -2), (*batch, *matrix.shape[-2:])), b)

    return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, forwards, transposed)


def solve_last(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """x (N,R,P) of matrix (N,N,P) x = right (N,R,P), the batch being the last axis; differentiable as `solve`.

    Small systems are eliminated in unrolled steps that work on ever fewer rows: three times as fast as the loop of `solve`, for half a
    second more of compilation.
    """
    dtype = jnp.result_type(matrix, right)
    matrix, right = matrix.astype(dtype), right.astype(dtype)
    if matrix.shape[0] > SIDE_BY_SIDE:
        return jnp.moveaxis(solve(jnp.moveaxis(matrix, -1, 0), jnp.moveaxis(right, -1, 0)), 0, -1)

    def product(x: jax.Array) -> jax.Array:
        return (matrix[:, :, None] * x).sum(1)

    def forwards(_: object, b: jax.Array) -> jax.Array:
        return _triangular(matrix, b)

    def transposed(_: object, b: jax.Array) -> jax.Array:
        return _triangular(jnp.swapaxes(matrix, 0, 1), b)

    return jax.lax.custom_linear_solve(product, right, forwards, transposed)


def _triangular(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Gaussian elimination with partial pivoting and substitution, unrolled."""
    n = matrix.shape[0]
    table, done = jnp.concatenate([matrix, right], 1), []
    for _ in range(n):
        column = table[:, 0]
        chosen = jnp.arange(len(table))[:, None] == jnp.argmax(abs(jnp.real(column)) + abs(jnp.imag(column)), 0)
        row = jnp.where(chosen[:, None], table, 0).sum(0)
        row = row[1:] / row[0]
        done.append(row)
        rest = jnp.where(chosen[1:, None], table[0], table[1:])  # the first row takes the place of the chosen one
        table = rest[:, 1:] - rest[:, :1] * row
    found: list[jax.Array] = []
    for row in reversed(done):
        solved = len(found)
        found.insert(0, row[solved:] - sum((row[j] * found[j] for j in range(solved)), jnp.zeros(())))
    return jnp.stack(found)


def inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of matrix (…,N,N)."""
    return solve(matrix, jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape))


@jax.custom_jvp
def large_inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of matrix (Z,N,N) of tens to hundreds of unknowns.

    LAPACK's factors, one matrix after the other on a CPU; the inverses of the triangles by products of blocks, for all matrices at once:
    a triangular solve hands its few operations to threads and waits for them, which costs a hundred times as much. So do factors of more
    than `ALONE` unknowns, where the first half is eliminated as a block: its leading blocks must not be singular.
    """
    n = matrix.shape[-1]
    if n <= SIDE_BY_SIDE:
        return inverse(matrix)
    if n > ALONE:
        half = n // 2
        (A, B), (C, D) = ((rows[..., :half], rows[..., half:]) for rows in (matrix[:, :half], matrix[:, half:]))
        first = large_inverse(A)
        left = C @ first
        last = large_inverse(D - left @ B)
        right = first @ B @ last
        rows = jnp.concatenate([first + right @ left, -right], -1), jnp.concatenate([-last @ left, last], -1)
        return jnp.concatenate(rows, -2)
    size = SIDE_BY_SIDE
    while size < n:
        size *= 2
    factors, _, order = (_each_factor if jax.default_backend() == "cpu" else jax.lax.linalg.lu)(matrix)
    padded = jnp.zeros((len(matrix), size, size), matrix.dtype).at[:, :n, :n].set(factors)
    padded = padded + jnp.diag((jnp.arange(size) >= n).astype(matrix.dtype))
    lower = jnp.tril(padded, -1) + jnp.eye(size)
    left, right = (_lower_inverse(part)[:, :n, :n] for part in (lower, jnp.swapaxes(jnp.triu(padded), 1, 2)))
    columns = jnp.argsort(order, -1)  # of the rows that LAPACK exchanged
    return jnp.take_along_axis(jnp.swapaxes(right, 1, 2) @ left, columns[:, None], 2)


@large_inverse.defjvp
def _large_inverse_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    result = large_inverse(primals[0])
    return result, -(result @ tangents[0] @ result)


def _each_factor(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jax.lax.map(lambda one: tuple(jax.lax.linalg.lu(one)), matrix)


def _lower_inverse(triangle: jax.Array) -> jax.Array:
    """Inverse of lower triangles (Z,N,N), N = 8, 16, 32, …: of its diagonal blocks first, then of ever larger ones."""
    z, n = triangle.shape[:2]
    side = SIDE_BY_SIDE
    blocks = triangle.reshape(z, n // side, side, n // side, side)
    blocks = jnp.moveaxis(jnp.diagonal(blocks, axis1=1, axis2=3), -1, 1)
    found = inverse(blocks)  # (Z, blocks, side, side)
    while side < n:
        whole = triangle.reshape(z, n // (2 * side), 2, side, n // (2 * side), 2, side)
        below = jnp.moveaxis(jnp.diagonal(whole[:, :, 1, :, :, 0, :], axis1=1, axis2=3), -1, 1)
        first, last = found[:, 0::2], found[:, 1::2]
        corner = -(last @ below @ first)
        top = jnp.concatenate([first, jnp.zeros_like(first)], -1)
        found = jnp.concatenate([top, jnp.concatenate([corner, last], -1)], -2)
        side *= 2
    return found[:, 0]


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
