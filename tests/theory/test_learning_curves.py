"""Learning curves: an honest error estimate, no compilation for other numbers, refused input, and the default grid of times."""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import Activation
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import Ridge
from rfdiff.theory import learning_curves, spectrum, time_grid
from tests.theory.curve_cases import TAUS, one_class, two_classes, with_


def _random_problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    law = MixtureLaw.isotropic(rng.dirichlet([4.0, 4.0]), rng.uniform(0.2, 3.0, 2))
    draws = math.inf if seed % 2 else int(rng.integers(1, 2)) + 1
    name = ("tanh", "erf", "sin", "softplus", "relu", "gelu")[seed % 6]
    return Problem(law, name, float(rng.uniform(0.03, 0.6)), float(rng.uniform(0.5, 12)), float(rng.uniform(0.5, 8)), draws)


def honest(problem: Problem) -> None:
    rough, fine = (learning_curves(problem, TAUS, tolerance=tolerance) for tolerance in (1e-6, 1e-9))
    assert rough.error_estimate <= 1e-6
    for name in ("train_loss", "test_loss"):
        assert np.nanmax(abs(getattr(rough, name) - getattr(fine, name))) <= rough.error_estimate + 1e-9


@pytest.mark.parametrize("seed", [1, 3])
def test_error_estimate_is_honest(seed: int) -> None:
    honest(_random_problem(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, *range(4, 12)])
def test_error_estimate_is_honest_for_more_centred_problems(seed: int) -> None:
    honest(_random_problem(seed))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_error_estimate_is_honest_with_centroids(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    problem = _random_problem(seed)
    root = rng.normal(size=(2, 1 + seed % 2)) * 0.7
    law = MixtureLaw(problem.mixture.weights, problem.mixture.eigenvalues, [1.0], root @ root.T)
    honest(with_(problem, mixture=law))


def test_other_numbers_of_the_same_shapes_do_not_compile(caplog: pytest.LogCaptureFixture) -> None:
    problem = two_classes()
    other = two_classes(mixture=MixtureLaw.isotropic([0.6, 0.4], [1.35, 0.55]), t=0.16, psi_p=2.25, psi_n=1.65)

    def compiled(action: Callable[[], Any]) -> int:
        caplog.clear()
        with caplog.at_level(logging.WARNING), jax.log_compiles():
            action()
        return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)

    learning_curves(problem, TAUS)
    spectrum(problem)
    assert compiled(lambda: learning_curves(other, 1.1 * TAUS)) == 0
    assert compiled(lambda: spectrum(other)) == 0
    assert compiled(lambda: learning_curves(other, TAUS[::2])) > 0, "other shapes do: the count works"


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
    grid = time_grid(problem, num=TAUS.size - 1)
    assert grid.shape == TAUS.shape
    assert np.isinf(grid[-1])
    assert np.all(np.diff(grid) > 0)
    curves = learning_curves(problem, grid)
    assert curves.train_loss[0, 0] > 0.9
    assert abs(curves.train_loss[-2, 0] - curves.train_loss[-1, 0]) < 1e-3
    threshold = time_grid(one_class(1, psi_p=1.5, psi_n=1.5), num=12)
    assert threshold.shape == (12,)
    assert np.all(np.isfinite(threshold))


@pytest.mark.parametrize("num", [2, 10.0, None])
def test_refused_grid_sizes(num: Any) -> None:
    with pytest.raises(ValueError, match="num: .*; allowed: an integer >= 3"):
        time_grid(one_class(), num=num)
