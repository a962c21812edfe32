"""Batches of small systems: the same as LAPACK's, in values and derivatives, and no deadlock where many run at once."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.theory import batched_systems

SIZES = (1, 2, batched_systems.SIDE_BY_SIDE, batched_systems.SIDE_BY_SIDE + 5)


def problem(size: int, *batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    matrix = rng.standard_normal((*batch, size, size)) + 1j * rng.standard_normal((*batch, size, size))
    if size > 1:
        matrix[..., 0, 0] = 0  # nothing without an exchange of rows
    return matrix, rng.standard_normal((*batch, size, 3)) + 0j


@pytest.mark.parametrize("size", SIZES)
def test_the_same_as_lapack(size: int) -> None:
    matrix, right = problem(size, 2, 7)
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            batched_systems.solve(jnp.asarray(matrix), jnp.asarray(right)), np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-9
        )
        np.testing.assert_allclose(batched_systems.inverse(jnp.asarray(matrix)), np.linalg.inv(matrix), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(batched_systems.determinant(jnp.asarray(matrix)), np.linalg.det(matrix), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "size", [3, pytest.param(21, marks=pytest.mark.thorough), pytest.param(batched_systems.ALONE + 5, marks=pytest.mark.thorough)]
)
def test_inverses_of_many_unknowns(size: int) -> None:
    matrix = problem(size, 3)[0] / np.sqrt(size) + np.eye(size) * 1j
    with jax.enable_x64(True):
        found, slope = jax.jvp(batched_systems.large_inverse, (jnp.asarray(matrix),), (jnp.asarray(matrix),))
    wanted = np.linalg.inv(matrix)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9 * abs(wanted).max())
    np.testing.assert_allclose(slope, -wanted, rtol=1e-8, atol=1e-9 * abs(wanted).max())  # d(1/(1 + s)A) at s = 0


@pytest.mark.thorough
@pytest.mark.parametrize("size", [2, batched_systems.SIDE_BY_SIDE + 5])
def test_derivatives_of_every_kind(size: int) -> None:
    """Mapped, forwards and backwards, twice: against the derivatives of jnp.linalg.solve."""
    matrix, right = problem(size, 3)

    def value(solve: object, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.real(solve(matrix * jnp.exp(1j * x), right * x)) ** 3)  # type: ignore[operator]

    with jax.enable_x64(True):
        for derivative in (jax.grad, jax.jacfwd, lambda f: jax.grad(jax.grad(f)), jax.hessian):
            found, wanted = (
                jax.jit(jax.vmap(derivative(lambda x, solve=solve: value(solve, x))))(jnp.array([0.3, 1.1]))
                for solve in (batched_systems.solve, jnp.linalg.solve)
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.thorough
def test_independent_batches_do_not_wait_for_each_other() -> None:
    """More independent batches than threads, on two threads, many times over: a deadlock of jaxlib 0.10 where they reach LAPACK."""
    code = """
import jax, jax.numpy as jnp
from rfdiff.theory import batched_systems
def many(matrices, rights):
    return sum(batched_systems.solve(a, b).sum() for a, b in zip(matrices, rights))
for size in (4, 12):
    matrices = [jnp.eye(size) * (2 + i) + jnp.zeros((400, 1, 1)) for i in range(6)]
    rights = [jnp.ones((400, size, 20)) for _ in range(6)]
    run = jax.jit(many)
    for _ in range(60):
        run(matrices, rights).block_until_ready()
print("done")
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env={**os.environ, "JAX_PLATFORMS": "cpu"}
    )
    assert found.stdout.strip() == "done", found.stderr
