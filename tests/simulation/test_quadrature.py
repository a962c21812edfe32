import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from rfdiff.activation import ACTIVATIONS, Activation
from rfdiff.errors import InputError
from rfdiff.simulation.quadrature import hermite_moments, mehler_order, quadrature_for

MEANS = np.array([[-2.3, -0.4], [0.0, 0.7], [0.31, 4.0]])
STDS = np.array([0.15, 0.6, 1.1])


def averages(activation: Activation, means: Any, stds: Any, order: int, largest: float, dtype: str = "float64") -> tuple[Any, Any]:
    rule = quadrature_for(activation, largest, order, dtype)
    with jax.enable_x64(dtype == "float64"):
        coefficients, energy = hermite_moments(activation, rule, jnp.asarray(means, dtype), jnp.asarray(stds, dtype), order)
        return np.stack([np.asarray(a, np.float64) for a in coefficients]), np.asarray(energy, np.float64)


def reference(function: Any, mean: Any, std: Any, k: int, kinks: tuple[float, ...] = ()) -> float:
    def integrand(g: float) -> float:
        hermite = special.eval_hermitenorm(k, g) / math.sqrt(math.factorial(k))
        return float(function(mean + std * g) * hermite) * math.exp(-g * g / 2) / math.sqrt(2 * math.pi)

    breaks = sorted({-13.0, 13.0, 0.0, *(min(max((kink - mean) / std, -13.0), 13.0) for kink in kinks)})
    return sum(integrate.quad(integrand, a, b, epsabs=1e-14, epsrel=1e-13, limit=400)[0] for a, b in itertools.pairwise(breaks))


FUNCTIONS = {
    "tanh": math.tanh,
    "erf": math.erf,
    "relu": lambda y: max(y, 0.0),
    "softplus": lambda y: math.log1p(math.exp(-abs(y))) + max(y, 0.0),
    "gelu": lambda y: 0.5 * y * math.erfc(-y / math.sqrt(2)),
    "sin": math.sin,
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_coefficients_and_energy_against_adaptive_integration(name: str) -> None:
    activation, function = ACTIVATIONS[name], FUNCTIONS[name]
    coefficients, energy = averages(activation, MEANS, STDS, 4, 1.2)
    for i, j in np.ndindex(MEANS.shape):
        exact = [reference(function, MEANS[i, j], STDS[i], k, activation.kinks) for k in range(5)]
        np.testing.assert_allclose(coefficients[:, i, j], exact, rtol=0, atol=4e-12)
        square = reference(lambda y: function(y) ** 2, MEANS[i, j], STDS[i], 0, activation.kinks)
        assert energy[i, j] == pytest.approx(square, abs=4e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [8, 16, 32])
def test_averages_that_all_vanish_are_resolved(dtype: str, order: int) -> None:
    """a_k = Im(i^k e^{i mean}) std^k e^{-std²/2}/√k! is small for all k up to 8: what errors must be beside is σ, not the largest a_k."""
    coefficients, energy = averages(ACTIVATIONS["sin"], np.array([[0.7]]), np.array([8.0]), order, 8.0, dtype)
    exact = [(1j**k * np.exp(0.7j)).imag * 8.0**k * math.exp(-32) / math.sqrt(math.factorial(k)) for k in range(order + 1)]
    limit = 1e-11 if dtype == "float64" else 1e-5
    assert np.max(abs(coefficients[:, 0, 0] - exact)) < limit and energy[0, 0] == pytest.approx(0.5, abs=limit)
    assert len(quadrature_for(ACTIVATIONS["sin"], 8.0, order, dtype).nodes) < 100


def test_a_rule_that_ignores_the_kink_is_rejected() -> None:
    smooth = Activation("relu without its kink", lambda x: jnp.maximum(x, 0))
    with pytest.raises(ValueError, match=r"is not resolved at standard deviation 1.2 .*kinks declared"):
        quadrature_for(smooth, 1.2, 4, "float64")


def test_data_far_from_unit_scale_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"not resolved at standard deviation 1e\+06 .*allowed: data scaled to variance of order 1"):
        quadrature_for(ACTIVATIONS["tanh"], 1e6, 4, "float64")


def test_steep_functions_get_a_finer_step() -> None:
    wide = quadrature_for(ACTIVATIONS["tanh"], 8.0, 4, "float64")
    narrow = quadrature_for(ACTIVATIONS["tanh"], 1.2, 4, "float64")
    assert len(wide.nodes) > 4 * len(narrow.nodes)
    mean, std = np.array([[1.3]]), np.array([8.0])
    exact = [reference(math.tanh, 1.3, 8.0, k) for k in range(5)]
    np.testing.assert_allclose(averages(ACTIVATIONS["tanh"], mean, std, 4, 8.0)[0][:, 0, 0], exact, rtol=0, atol=4e-12)
    # the rule for narrow preactivations is not good enough: the calibration matters
    assert np.max(np.abs(averages(ACTIVATIONS["tanh"], mean, std, 4, 1.2)[0][:, 0, 0] - exact)) > 1e-6


def test_parseval_of_many_orders() -> None:
    coefficients, energy = averages(ACTIVATIONS["tanh"], MEANS, STDS, 32, 1.2)
    np.testing.assert_allclose((coefficients**2).sum(axis=0), energy, rtol=1e-6)
    assert np.all((coefficients[:4] ** 2).sum(axis=0) < energy)


def test_two_kinks() -> None:
    hard = Activation("hard tanh", lambda x: jnp.clip(x, -1, 1), kinks=(1.0, -1.0))
    coefficients, _ = averages(hard, MEANS, STDS, 3, 1.2)
    clipped = lambda y: min(max(y, -1.0), 1.0)  # noqa: E731
    for i, j in np.ndindex(MEANS.shape):
        exact = [reference(clipped, MEANS[i, j], STDS[i], k, (-1.0, 1.0)) for k in range(4)]
        np.testing.assert_allclose(coefficients[:, i, j], exact, rtol=0, atol=4e-12)


def test_single_precision() -> None:
    double = averages(ACTIVATIONS["tanh"], MEANS, STDS, 4, 1.2)
    single = averages(ACTIVATIONS["tanh"], MEANS, STDS, 4, 1.2, "float32")
    np.testing.assert_allclose(single[0], double[0], atol=1e-6)
    assert len(quadrature_for(ACTIVATIONS["tanh"], 1.2, 4, "float32").nodes) < len(
        quadrature_for(ACTIVATIONS["tanh"], 1.2, 4, "float64").nodes
    )


def test_blocks_of_rows_change_nothing() -> None:
    rng = np.random.default_rng(0)
    means, stds = rng.standard_normal((37, 700)), rng.uniform(0.3, 1.0, 37)
    whole, energy = averages(ACTIVATIONS["tanh"], means, stds, 2, 1.2)
    rows = [averages(ACTIVATIONS["tanh"], means[i : i + 1], stds[i : i + 1], 2, 1.2) for i in (0, 17, 36)]
    for i, (part, part_energy) in zip((0, 17, 36), rows, strict=True):
        np.testing.assert_allclose(whole[:, i], part[:, 0], atol=1e-14)
        np.testing.assert_allclose(energy[i], part_energy[0], atol=1e-14)


@pytest.mark.thorough
def test_orders_fall_with_the_dimension_and_with_smoothness() -> None:
    orders = [mehler_order(ACTIVATIONS["tanh"], 1.0, 8 * d, d, 1e-6) for d in (16, 64, 256, 1024)]
    assert orders == sorted(orders, reverse=True)
    assert 3 <= orders[-1] < orders[0] <= 32
    assert mehler_order(ACTIVATIONS["relu"], 1.0, 512, 64, 1e-6) > mehler_order(ACTIVATIONS["tanh"], 1.0, 512, 64, 1e-6)
    assert mehler_order(ACTIVATIONS["tanh"], 1.0, 8, 2, 1e-6) == 32
