"""Moments by tiles: the same matrix, products and bound as entry by entry, whether or not the tiles fill the matrix."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.simulation import moment_assembly, moment_operators
from rfdiff.simulation.mehler import MehlerTerms
from tests.tolerances import rejects

D, S, ORDER = 12, 5, 3


def terms(p: int) -> MehlerTerms:
    draws = np.random.default_rng(p)
    unit = draws.standard_normal((p, D))
    coefficients: Any = tuple(draws.standard_normal((p, S)) for _ in range(ORDER + 1))
    energy: Any = 20 + draws.random(p)
    return MehlerTerms(unit / np.linalg.norm(unit, axis=1, keepdims=True), coefficients, energy)


def entries(own: MehlerTerms) -> np.ndarray:
    """Every entry by itself."""
    r = np.asarray(own.unit @ own.unit.T)
    U = np.sum([r**k * np.asarray(a @ a.T) for k, a in enumerate(own.coefficients)], axis=0)
    np.fill_diagonal(U, own.energy)
    return U


def far(found: Any, expected: np.ndarray) -> float:
    return float(np.max(abs(np.asarray(found) - expected)) / np.max(abs(expected)))


@pytest.fixture(params=[48, 61], ids=["tiles fill the matrix", "the last tiles do not"])
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(moment_assembly, "TILE", 16)
    with jax.enable_x64(True):
        own = terms(request.param)
        yield jax.tree.map(jnp.asarray, own), entries(own)


def test_the_matrix(case: tuple[MehlerTerms, np.ndarray]) -> None:
    own, U = case
    assert moment_assembly.tile_side(len(U)) == 16
    found = moment_assembly.matrix(own)
    assert far(found, U) < 1e-14
    rejects(lambda: np.testing.assert_array_less(far(jnp.tril(found), U), 1e-14))


def test_products(case: tuple[MehlerTerms, np.ndarray]) -> None:
    """U X, and the half L X whose matrix and its mirror image add up to U."""
    own, U = case
    X = np.random.default_rng(0).standard_normal((len(U), 3))
    assert far(moment_assembly.times(own, jnp.asarray(X)), U @ X) < 1e-14
    half = np.asarray(moment_assembly.half_times(own, jnp.eye(len(U))))
    assert far(half + half.T, U) < 1e-14
    assert np.count_nonzero(half) < 0.7 * half.size
    rejects(lambda: np.testing.assert_array_less(far(2 * half, U), 1e-14))


def test_the_bound_on_the_truncation(case: tuple[MehlerTerms, np.ndarray]) -> None:
    own, _ = case
    own = dataclasses.replace(own, energy=own.energy + 40)
    r = np.array(own.unit @ own.unit.T)
    np.fill_diagonal(r, 0)
    rest = np.asarray(own.energy - own.captured_energy).clip(0)
    expected = np.sqrt(rest @ r ** (2 * ORDER + 2) @ rest) / np.linalg.norm(own.energy)
    assert float(moment_assembly.truncation_bound(own.unit, own.energy, own.captured_energy, ORDER)) == pytest.approx(expected, rel=1e-12)
    assert float(moment_assembly.truncation_bound(own.unit, own.energy, own.captured_energy, ORDER + 1)) < 0.9 * expected


def test_no_mask_of_all_entries_is_part_of_a_program() -> None:
    """A constant of p² entries takes seconds to compile where p is large."""
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), terms(1500))
    closed = jax.make_jaxpr(moment_assembly.matrix)(own)
    sizes = [np.size(constant) for constant in closed.consts]
    assert max(sizes, default=0) < 1500
    assert "1500,1500" in str(closed) and "bool[1500,1500] = [" not in str(closed)


def test_the_mask_compares_numbers_that_the_compiler_does_not_know() -> None:
    """A mask of p² entries that follows from the program alone took a CPU's compiler minutes at p = 2048."""
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), terms(1500))

    def hides_its_numbers(function: Any) -> None:
        program = str(jax.make_jaxpr(function)(own))
        mask = next(line for line in program.splitlines() if "bool[1500,1500] = ge" in line)
        sources = [line for line in program.splitlines() if any(f"{name}:" in line for name in mask.split(" ge ")[1].split())]
        assert sources and "optimization_barrier" in program and not any("iota" in line for line in sources)

    hides_its_numbers(moment_assembly.matrix)
    rejects(lambda: hides_its_numbers(lambda own: jnp.where(jnp.tri(1500, dtype=bool), own.unit[:, :1], own.unit[:, 0])))


def test_tiles_fill_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moment_assembly.tile_side(16384) == 1024
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert moment_assembly.tile_side(16384) == 2048
    assert moment_operators.block_values() == moment_operators.ACCELERATOR_VALUES > moment_operators.BLOCK_VALUES
