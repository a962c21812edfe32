"""One call gives the gradient of any functional of the curves: against differences of the adaptive theory, with siblings rejected."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import set_parameter
from rfdiff.problem import Problem
from rfdiff.theory import curve_gradient
from tests.tolerances import rejects

TAUS = [1.0, 10.0, 100.0]


def problem() -> Problem:
    return Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def functional(curves: LearningCurves) -> Any:
    """Uses a loss, a score error, and the total over classes."""
    return curves.test_loss[1, 0] + jnp.log(curves.score_error[2, 1]) - 2 * curves.total("train_loss")[0]


@pytest.mark.thorough
def test_every_number_against_differences_and_a_second_functional_compiles_nothing() -> None:
    slopes = theory.gradient(problem(), TAUS, functional, tolerance=1e-8)
    programs: Any = curve_gradient._curves
    compiled = programs._cache_size()

    def value(name: str, at: float) -> float:
        curves = theory.learning_curves(set_parameter(problem(), name, at), np.array(TAUS), tolerance=1e-9)
        with jax.enable_x64(True):
            return float(functional(curves))

    cases = [("t", 0.1, slopes.t), ("psi_p", 4.0, slopes.psi_p), ("psi_n", 3.0, slopes.psi_n)]
    for name, at, exact in [*cases, ("variance_1", 0.4, slopes.mixture.eigenvalues[0, 1])]:
        difference = (value(name, at * 1.001) - value(name, at * 0.999)) / (2e-3 * at)
        assert isinstance(exact, np.ndarray | np.floating) and abs(difference) > 1e-3
        assert float(exact) == pytest.approx(difference, rel=2e-5)
        rejects(partial(np.testing.assert_allclose, 1.001 * exact, difference, rtol=2e-5))
    other = theory.gradient(problem(), TAUS, lambda curves: curves.test_loss[0, 1], tolerance=1e-8)
    assert programs._cache_size() == compiled and other.psi_n != slopes.psi_n
    # a unit of loss moves with the centroids of centred classes too, unless that was not asked for
    assert np.all(np.isfinite(slopes.mixture.centroid_gram)) and np.any(slopes.mixture.centroid_gram != 0)


@pytest.mark.slow
def test_without_the_directions_that_have_no_width() -> None:
    slopes = theory.gradient(problem(), TAUS, lambda curves: curves.train_loss[1, 0], gram_derivatives=False)
    assert np.all(np.isnan(slopes.mixture.centroid_gram)) and np.isfinite(slopes.psi_n)


def test_refusals() -> None:
    def inside(psi_n: Any) -> Any:
        return theory.gradient(dataclasses.replace(problem(), psi_n=psi_n), TAUS, functional).t

    with jax.enable_x64(True), pytest.raises(InputError, match=r"theory.gradient makes its own plan.*allowed inside: theory.curve_kernel"):
        jax.jit(inside)(3.0)
    with pytest.raises(InputError, match="taus: inf, where the test loss diverges"):
        theory.gradient(dataclasses.replace(problem(), psi_p=3.0, noise_draws=1), [1.0, np.inf], functional)


@pytest.mark.thorough
def test_a_functional_returns_one_number() -> None:
    with pytest.raises(InputError, match="functional: returned .*allowed: a function of the curves that returns one real number"):
        theory.gradient(problem(), TAUS, lambda curves: curves.test_loss[1], tolerance=1e-8)  # the program of the first test
