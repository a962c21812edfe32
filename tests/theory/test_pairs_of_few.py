"""Traces at all pairs of few classes: those of the general equations, for every kind of column."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import contour_forms, pairs_of_few, resolvent
from rfdiff.theory.batched_systems import solve_last
from rfdiff.theory.equivalent import equivalent


@pytest.mark.parametrize(
    ("k", "groups", "draws", "loss_weights", "rank"),
    [
        (2, 1, np.inf, None, 0),
        pytest.param(1, 2, 1, None, 1, marks=pytest.mark.thorough),
        pytest.param(2, 3, 3, [0.2, 0.8], 2, marks=pytest.mark.thorough),
        pytest.param(3, 2, np.inf, [0.2, 0.8, 0.0], 2, marks=pytest.mark.thorough),
    ],
)
def test_traces_equal_the_general_ones(k: int, groups: int, draws: float, loss_weights: Any, rank: int) -> None:
    rng = np.random.default_rng(k)
    arms = rng.standard_normal((k, max(rank, 1))) * (rank > 0)
    weights, shares = (rng.dirichlet(np.full(size, 3.0)) for size in (k, groups))
    eigenvalues = rng.uniform(0.2, 2, (groups, k))
    law = MixtureLaw(weights=weights, eigenvalues=eigenvalues, eigenvalue_weights=shares, centroid_gram=arms @ arms.T)
    problem = Problem(law, "tanh", t=0.2, psi_p=3.0, psi_n=2.0, noise_draws=draws, loss_weights=loss_weights)
    with double_on_host():
        eq = equivalent(problem, 1, 5.5)
        point = resolvent.solve(eq, jnp.asarray(rng.uniform(-1, 3, 6) + 1j * rng.uniform(0.2, 2, 6))).point
        assert pairs_of_few.fits(eq, 6) and not pairs_of_few.fits(eq, 10**4)
        ways = contour_forms._of_few, contour_forms._by_response
        found, expected = (np.asarray(jax.jit(way)(eq, point)) for way in ways)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.max(abs(expected)))


def test_systems_in_a_row_are_solved_with_pivots_and_differentiated() -> None:
    rng = np.random.default_rng(0)
    with double_on_host():
        A, b = (jnp.asarray(rng.standard_normal(size) + 1j * rng.standard_normal(size)) for size in ((5, 5, 7), (5, 2, 7)))
        A = A.at[0, 0].set(0)  # needs an exchange of rows
        x = np.moveaxis(np.asarray(solve_last(A, b)), -1, 0)
        matrices, sides = (np.moveaxis(np.asarray(leaf), -1, 0) for leaf in (A, b))
        np.testing.assert_allclose(x, np.linalg.solve(matrices, sides), rtol=1e-10)
        tangent = jax.jvp(lambda A: solve_last(A, b), (A,), (A,))[1]  # A x = b: dx = -x for dA = A
        np.testing.assert_allclose(np.moveaxis(np.asarray(tangent), -1, 0), -x, rtol=1e-9)
