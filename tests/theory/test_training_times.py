"""Training times and tolerances that the closed form accepts, the grid it chooses, and what it refuses."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import Activation
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import Ridge
from rfdiff.theory import learning_curves, time_grid
from tests.theory.curve_cases import TAUS, one_class, with_


@pytest.mark.thorough
def test_the_default_grid_is_the_one_of_time_grid() -> None:
    problem = one_class()
    curves = learning_curves(problem)
    np.testing.assert_array_equal(curves.taus, time_grid(problem))
    assert np.isinf(curves.taus[-1])
    assert curves.error_estimate <= 1e-6


@pytest.mark.parametrize("tolerance", [1e-10, 0.2, -1.0, math.nan, "small", None])
def test_refused_tolerances(case_a: Problem, tolerance: Any) -> None:
    with pytest.raises(ValueError, match="tolerance: .*; allowed: 1e-9 <= tolerance <= 0.1"):
        learning_curves(case_a, [1.0], tolerance=tolerance)


@pytest.mark.parametrize(
    ("taus", "says"),
    [
        ([], "non-empty"),
        ([2.0, 1.0], "does not increase strictly"),
        ([-1.0], ">= 0"),
        ([math.nan], ">= 0"),
        ("soon", "taus"),
    ],
)
def test_refused_times(case_a: Problem, taus: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        learning_curves(case_a, taus)


def test_refused_times_beside_penalties(case_a: Problem) -> None:
    with pytest.raises(ValueError, match="taus: got a grid; allowed: None with Ridge"):
        learning_curves(case_a, [1.0], rule=Ridge([0.1]))


@pytest.mark.thorough
def test_a_steep_activation_is_resolved_and_an_undeclared_kink_refused() -> None:
    steep = learning_curves(one_class(activation=lambda x: jnp.tanh(6 * x)), [1.0, 30.0])
    scaled = one_class(mixture=MixtureLaw.isotropic([1.0], [1.0]))
    assert steep.error_estimate <= 1e-6
    with pytest.raises(ValueError, match="too steep for any rule .* declares its kinks"):
        learning_curves(with_(scaled, activation=Activation("leaky", lambda x: jnp.where(x > 0, x, 0.1 * x))), [1.0])


def test_an_activation_that_is_constant_on_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="activation: .*U vanishes"):
        learning_curves(one_class(activation=lambda x: 0 * x + 0.3), [1.0])


def test_time_grid_spans_training() -> None:
    problem = one_class()
    grid = time_grid(problem, num_times=TAUS.size - 1)
    assert grid.shape == TAUS.shape
    assert np.isinf(grid[-1])
    assert np.all(np.diff(grid) > 0)
    curves = learning_curves(problem, grid)
    assert curves.train_loss[0, 0] > 0.9
    assert abs(curves.train_loss[-2, 0] - curves.train_loss[-1, 0]) < 1e-3
    threshold = time_grid(one_class(1, psi_p=1.5, psi_n=1.5), num_times=12)
    assert threshold.shape == (12,)
    assert np.all(np.isfinite(threshold))


@pytest.mark.parametrize("num", [2, 10.0, None])
def test_refused_grid_sizes(num: Any) -> None:
    with pytest.raises(ValueError, match="num_times: .*; allowed: an integer >= 3"):
        time_grid(one_class(), num_times=num)
