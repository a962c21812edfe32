"""Upper entries of symmetric matrices: there and back, and the quadratic forms they stand for."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.symmetric import multiplicity, pair_products, symmetric, upper, upper_indices


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_there_and_back(xp: object, k: int) -> None:
    rng = np.random.default_rng(k)
    a, x = rng.normal(size=(3, k, k)), rng.normal(size=(3, k))
    matrix = (a + np.swapaxes(a, 1, 2)).astype(np.float32)
    given: Any = matrix if xp is np else jnp.asarray(matrix)
    entries = upper(given)
    assert entries.shape == (3, k * (k + 1) // 2) and type(entries) is type(given)
    np.testing.assert_array_equal(symmetric(entries, k), matrix)
    np.testing.assert_array_equal(pair_products(x), np.einsum("za,zb->zab", x, x)[:, *upper_indices(k)])
    form = np.einsum("za,zab,zb->z", x, matrix, x)
    np.testing.assert_allclose(np.sum(multiplicity(k) * upper(matrix) * pair_products(x), axis=1), form, rtol=1e-5)


def test_indices_beside_the_diagonal() -> None:
    rows, cols = upper_indices(3, diagonal=False)
    assert list(zip(rows, cols, strict=True)) == [(0, 1), (0, 2), (1, 2)] and upper_indices(1, diagonal=False)[0].size == 0
