"""Contours against integrals known in closed form: their order of convergence, and the error they report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike

from rfdiff.theory.contour import ellipse, integrate
from tests.tolerances import rejects

LOW, HIGH = 0.01, 4.0
POLES = np.array([0.02, 0.3, 2.5])
RESIDUES = np.array([0.5, -0.2, 0.7])


def integral(values: ArrayLike) -> tuple[float, float]:
    with jax.enable_x64(True):
        total, error = integrate(jnp.asarray(values))
        return float(total), abs(float(error))


def decaying(size: int, tau: float, **shape: float) -> tuple[float, float]:
    """∮ e^{-τz} Σ res/(z - pole) dz/(2πi) around the three poles."""
    contour = ellipse(LOW, HIGH, size, **shape)
    rational = (RESIDUES / (contour.nodes[:, None] - POLES)).sum(1)
    return integral(contour.weights * np.exp(-tau * contour.nodes) * rational)


@pytest.mark.parametrize("tau", [0.0, 1.0, 100.0])
def test_residues_of_a_rational_function_times_an_exponential(tau: float) -> None:
    expected = float(np.sum(RESIDUES * np.exp(-tau * POLES)))
    assert abs(decaying(256, tau)[0] - expected) < 1e-11
    rejects(lambda: _close(decaying(256, 1.01 * tau + 0.01)[0], expected))


def _close(value: float, expected: float) -> None:
    assert abs(value - expected) < 1e-11


def test_poles_outside_and_entire_functions_contribute_nothing() -> None:
    contour = ellipse(LOW, HIGH, 192)
    for outside in (0.0, -0.3, 9.0):
        assert abs(integral(contour.weights / (contour.nodes - outside))[0]) < 1e-9
    assert abs(integral(contour.weights * np.exp(-contour.nodes))[0]) < 1e-12
    assert abs(integral(contour.weights / (contour.nodes - 1.0))[0] - 1) < 1e-12, "orientation: counter-clockwise"


def test_the_first_and_last_crossings_and_the_half_plane() -> None:
    contour = ellipse(LOW, HIGH, 64)
    fine = ellipse(LOW, HIGH, 4096)
    assert contour.nodes.shape == contour.weights.shape == (32,)
    assert np.all(contour.nodes.imag > 0)
    assert np.all(contour.nodes.real > 0), "e^{-κτz} must not grow"
    np.testing.assert_allclose([fine.nodes[0].real, fine.nodes[-1].real], [HIGH, LOW], rtol=1e-5)


def test_a_shifted_contour_passes_left_of_zero() -> None:
    contour = ellipse(-0.1, HIGH, 512, shift=0.3)
    assert contour.nodes.real.min() < 0
    assert abs(integral(contour.weights * np.exp(-contour.nodes) / contour.nodes)[0] - 1) < 1e-10
    assert abs(integral(contour.weights / (contour.nodes + 0.3))[0]) < 1e-10


def test_convergence_is_geometric() -> None:
    expected = float(np.sum(RESIDUES * np.exp(-POLES)))
    sizes = np.array([16, 32, 48, 64, 80, 96])
    errors = np.array([abs(decaying(int(n), 1.0)[0] - expected) for n in sizes])
    rate, intercept = np.polyfit(sizes, np.log(errors), 1)
    # the pole at 0.02, inside by log 2 of an axis of half-length log(20), bounds the rate
    assert -0.5 < rate < -0.08
    assert np.all(abs(np.log(errors) - rate * sizes - intercept) < 2.0), "a straight line: no power law"
    assert errors[-1] < 1e-4 * errors[0]


@pytest.mark.parametrize("size", [16, 24, 32, 48, 64])
@pytest.mark.parametrize("tau", [0.3, 30.0])
def test_the_reported_error_is_that_of_half_the_nodes(size: int, tau: float) -> None:
    expected = float(np.sum(RESIDUES * np.exp(-tau * POLES)))
    value, error = decaying(size, tau)
    # the half rule takes every second node of the whole contour, each one standing for two
    contour = ellipse(LOW, HIGH, size)
    whole = np.concatenate([contour.nodes, contour.nodes[::-1].conj()])
    weights = np.concatenate([contour.weights, contour.weights[::-1].conj()])
    terms = weights * np.exp(-tau * whole) * (RESIDUES / (whole[:, None] - POLES)).sum(1)
    half = 2 * terms[::2].sum()
    assert abs(error - abs(half - value)) < 1e-12
    assert abs(value - expected) <= error + 1e-14, "an upper bound of the error of the full rule"
