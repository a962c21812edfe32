"""Activations by name and by function, and what is refused."""

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rfdiff.activation import ACTIVATIONS, Activation, as_activation

pytestmark = pytest.mark.usefixtures("strict_ranks")

REFERENCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "erf": special.erf,
    "relu": lambda x: np.where(x > 0, x, 0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "gelu": lambda x: x * stats.norm.cdf(x),
    "sin": np.sin,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_named_activations_are_the_functions_they_say(name: str) -> None:
    x = np.linspace(-4, 4, 33)
    activation = as_activation(name)
    assert activation.name == name and set(ACTIVATIONS) == set(REFERENCE)
    with jax.enable_x64(True):
        np.testing.assert_allclose(activation(x), REFERENCE[name](x), rtol=1e-13, atol=1e-14)
    single = activation(x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, REFERENCE[name](x), rtol=1e-5, atol=1e-5)


def test_only_relu_has_a_kink() -> None:
    assert {name: activation.kinks for name, activation in ACTIVATIONS.items() if activation.kinks} == {"relu": (0.0,)}


def test_a_function_or_an_activation_is_taken_as_it_is() -> None:
    def cubic(x: jax.Array) -> jax.Array:
        return x - x**3 / 10

    activation = as_activation(cubic)
    assert activation == Activation("cubic", cubic) and hash(activation) == hash(as_activation(cubic))
    leaky = Activation("leaky", lambda x: jnp.maximum(x, 0.1 * x), kinks=(0.0,))
    assert as_activation(leaky) is leaky
    assert as_activation(jnp.arctan).name == "arctan"


def test_functions_of_jax_are_the_named_ones_and_pickle() -> None:
    assert as_activation(jnp.tanh) is ACTIVATIONS["tanh"]
    assert as_activation(jax.nn.relu) is ACTIVATIONS["relu"], "its kink must be known"
    for function in (jnp.arctan, jax.nn.elu, jnp.tanh):
        activation = as_activation(function)
        assert pickle.loads(pickle.dumps(activation)) == activation


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Tanh", "activation: unknown name 'Tanh'; allowed: tanh, erf"),
        (3, "activation: got 3; allowed: one of tanh"),
        (None, "activation: got None"),
        (lambda x: jnp.sum(x), r"maps float32 \(7,\) to float32 \(\)"),
        (lambda x: x > 0, "to bool"),
        (jax.nn.softmax, "other values for a part of an array"),
        (lambda x: 1 / x, "gives .*inf.*allowed: finite values"),
        (lambda x: jnp.log(x), "allowed: finite values"),
        (lambda x: float(x), "fails on a JAX array"),
        (lambda x: np.sin(x), "fails on a JAX array of shape .*jax.numpy"),
        (lambda x, y: x + y, "fails on a JAX array"),
        (Activation("broken", lambda x: jnp.sum(x)), "'broken' maps"),
    ],
)
def test_refused(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_activation(spec)
