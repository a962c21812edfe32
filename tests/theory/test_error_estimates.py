"""Learning curves: the error estimate covers the error, and other numbers of the same shapes compile nothing."""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import learning_curves, spectrum
from tests.theory.curve_cases import TAUS, two_classes, with_


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


@pytest.mark.thorough
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
