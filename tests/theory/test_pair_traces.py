"""One compiled program for every number of points: what it gives is what the traceable functions give."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.problem import Problem
from rfdiff.theory import implicit, pair_traces, resolvent, solutions, traces
from rfdiff.theory.contour_forms import first_traces, second_traces
from rfdiff.theory.equivalent import Equivalent, equivalent
from tests.tolerances import rejects

NODES = np.linspace(0.05, 2.0, 21) + 1j * np.linspace(0.3, 0.02, 21)  # one tile and a part of another
PENALTIES = np.array([0.1, 1.0, 7.0])


@pytest.fixture(scope="module")
def solved(case_b: Problem) -> tuple[Equivalent, np.ndarray]:
    """An equivalent, and the solutions at the nodes and then at z = -ρ."""
    with jax.enable_x64(True):
        eq = equivalent(case_b, 0, 3.0)
        return eq, solutions.free(eq, np.concatenate([NODES, -PENALTIES])).u


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-11, atol=1e-12)


@pytest.mark.thorough
def test_points_in_pieces_are_the_points_together(solved: tuple[Equivalent, np.ndarray]) -> None:
    eq, u = solved
    z = np.concatenate([NODES, -PENALTIES])
    with jax.enable_x64(True):
        whole = jax.jit(resolvent.solve)(eq, z)
        close(u, resolvent.pack(whole.point.delta, whole.point.H))
        many = solutions.free(eq, np.concatenate([z, z + 0.01, z]))  # more than a piece, which ends in between
        close(many.u[: z.size], u)
        close(many.u[-z.size :], u)
        read = solutions.free(eq, z)
        close(read.g, resolvent.stieltjes_of(eq, whole.point)[0])
        close(read.kappa, resolvent.stieltjes_of(eq, whole.point)[1])
        from_there = solutions.near(eq, z, u, 1e-12, 5)
        close(from_there.u, u)
    rejects(lambda: close(many.u[z.size : 2 * z.size], u))


@pytest.mark.thorough
@pytest.mark.parametrize("pairs_last", [pair_traces.PAIRS_LAST, (0, 0)])
def test_pairs_in_tiles_are_all_pairs(
    solved: tuple[Equivalent, np.ndarray], monkeypatch: pytest.MonkeyPatch, pairs_last: tuple[int, int]
) -> None:
    """By either program for tiles: they share no formula for the pairs."""
    monkeypatch.setattr(pair_traces, "PAIRS_LAST", pairs_last)
    eq, u = solved
    with jax.enable_x64(True):
        tiled = pair_traces.traces(eq, NODES, u[: NODES.size])
        point = implicit.expand(eq, jnp.asarray(NODES), jnp.asarray(u[: NODES.size]))
        same, conjugate = jax.jit(second_traces)(eq, point)
        close(tiled.linear, first_traces(eq, point))
        close(tiled.same, same)
        close(tiled.conjugate, conjugate)
    rejects(lambda: close(tiled.conjugate, same))


@pytest.mark.thorough
def test_ridge_losses_without_a_contour(solved: tuple[Equivalent, np.ndarray]) -> None:
    eq, u = solved
    with jax.enable_x64(True):
        point = implicit.expand(eq, jnp.asarray(-PENALTIES + 0j), jnp.asarray(u[NODES.size :]))
        expected = jax.jit(traces.ridge_losses)(eq, point)
        found = pair_traces.ridge_losses(eq, PENALTIES, u[NODES.size :])
    close(found, expected)
    assert found.shape == (2, PENALTIES.size, 2) and np.all((found > 0) & (found < 1.5))
    rejects(lambda: close(found[::-1], expected))
