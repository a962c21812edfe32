"""Symmetric matrices by their upper entries a ≤ b, row by row: K(K + 1)/2 numbers in place of K²; for numpy and JAX arrays alike."""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int

Array = TypeVar("Array", np.ndarray, jax.Array)


def upper_indices(k: int, *, diagonal: bool = True) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Rows and columns (M,) of the M = K(K + 1)/2 upper entries; of the K(K - 1)/2 beside the diagonal without it."""
    rows, cols = np.triu_indices(k, 0 if diagonal else 1)
    return rows, cols


def upper(matrix: Array) -> Array:
    """Upper entries (…, M) of matrices (…, K, K)."""
    rows, cols = upper_indices(matrix.shape[-1])
    return matrix[..., rows, cols]


def symmetric(entries: Array, k: int) -> Array:
    """Symmetric matrices (…, K, K) of their upper entries (…, M)."""
    index = np.zeros((k, k), int)
    index[upper_indices(k)] = np.arange(k * (k + 1) // 2)
    return entries[..., np.maximum(index, index.T)]


def pair_products(values: Array) -> Array:
    """Products x_a x_b (…, M) of the entries a ≤ b of vectors (…, K)."""
    rows, cols = upper_indices(values.shape[-1])
    return values[..., rows] * values[..., cols]


def multiplicity(k: int) -> Float[np.ndarray, " M"]:
    """How often each upper entry occurs in a symmetric quadratic form: 1 on the diagonal, 2 beside it."""
    rows, cols = upper_indices(k)
    return np.where(rows == cols, 1.0, 2.0)
