"""The U-Net: it starts at ε̂ = 0, takes any side, knows no class; and noise in the convention of the package."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.diffusion import log_snr, noise_variance, signal_scale, time_at_log_snr
from rfdiff.errors import InputError
from rfdiff.images.architecture import Architecture
from rfdiff.images.sampling import moved
from rfdiff.images.settings import Settings
from rfdiff.images.unet import GroupNorm, UNet, initial_parameters, noised
from tests.images.toy import SETTINGS
from tests.tolerances import rejects

SHAPES = jax.ShapeDtypeStruct((3, 7, 7), jnp.float32), jax.ShapeDtypeStruct((3,), jnp.float32)


@pytest.mark.parametrize("size", [{"depth": 1, "attention": 1}, {"depth": 4, "attention": 2}, {"blocks": 2, "attention": 0}])
@pytest.mark.parametrize("side", [pytest.param(28, marks=pytest.mark.thorough), 7])
def test_any_size_and_side_gives_an_image_back(size: dict[str, int], side: int) -> None:
    network = UNet(Architecture(width=8, **size), jnp.bfloat16)
    example = jax.ShapeDtypeStruct((2, side, side), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    parameters = jax.eval_shape(network.init, jax.eval_shape(lambda: jax.random.key(0)), *example)
    out = jax.eval_shape(network.apply, parameters, *example)
    assert out.shape == (2, side, side) and out.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(parameters))


def test_initial_parameters() -> None:
    network = UNet(Architecture(width=16, depth=2))
    parameters = initial_parameters(network, 0, *SHAPES)["params"]
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(parameters["noise"]))
    kernel = parameters["_Residual_1"]["Conv_1"]["kernel"]
    assert np.var(kernel) * np.prod(kernel.shape[:-1]) == pytest.approx(1, abs=0.15)
    same, other = (initial_parameters(network, seed, *SHAPES)["params"] for seed in (0, 1))
    np.testing.assert_array_equal(same["_Residual_1"]["Conv_1"]["kernel"], kernel)
    assert not np.array_equal(other["_Residual_1"]["Conv_1"]["kernel"], kernel)
    assert np.all(parameters["_Residual_1"]["GroupNorm_0"]["scale"] == 1)


def test_group_norm_is_that_of_flax() -> None:
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 5, 5, 16))
    values = {"params": {"scale": jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}}
    found = np.asarray(GroupNorm(jnp.float32).apply(values, x))

    def agrees(groups: int) -> None:
        np.testing.assert_allclose(found, np.asarray(nn.GroupNorm(groups).apply(values, x)), atol=2e-5)

    agrees(8)
    rejects(lambda: agrees(4))


def test_noise_and_times_are_those_of_the_ornstein_uhlenbeck_process() -> None:
    t = np.array([0.001, 0.1, 1.0, 3.0])
    np.testing.assert_allclose(time_at_log_snr(log_snr(t)), t, rtol=1e-12)
    rng = np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 4, 5, 5)).astype(np.float32)
    expected = np.asarray(signal_scale(t))[:, None, None] * x0 + np.sqrt(np.asarray(noise_variance(t)))[:, None, None] * noise
    close = functools.partial(np.testing.assert_allclose, noised(x0, jnp.asarray(log_snr(t), jnp.float32), noise), atol=2e-4)
    close(expected)
    rejects(lambda: close(x0 + np.exp(-log_snr(t) / 2)[:, None, None] * noise))  # the variance-exploding convention


def flowed(variance: float, steps: int, factor: float = 1.0) -> float:
    """Standard deviation that the discretised flow ends at from x = 1 (of unit variance), for normal data of a variance."""
    levels, x = np.linspace(-8.0, 7.0, steps).astype(np.float32), jnp.ones(())
    for i, here in enumerate(levels):
        a, delta = jax.nn.sigmoid(here), jax.nn.sigmoid(-here)
        noise = factor * jnp.sqrt(delta) * x / (a * variance + delta)  # E[ξ | x]
        x = moved(x, noise, here, levels[min(i + 1, steps - 1)], jnp.asarray(i == steps - 1))
    return float(x)


@pytest.mark.parametrize("variance", [0.3, 2.0])
def test_the_flow_of_the_exact_noise_estimate_ends_in_the_data(variance: float) -> None:
    def ends_in_the_data(factor: float) -> None:
        np.testing.assert_allclose(flowed(variance, 400, factor), np.sqrt(variance), rtol=0.01)

    ends_in_the_data(1.0)
    rejects(lambda: ends_in_the_data(0.9))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Architecture, {"width": 6}, "width: 6; allowed: a multiple of 4"),
        (Architecture, {"depth": 5}, "depth: 5; allowed: an integer >= 1 and <= 4"),
        (Architecture, {"depth": 2, "attention": 3}, "attention: 3; allowed: an integer >= 0 and <= 2"),
        (Architecture, {"blocks": True}, "blocks: True"),
        (Settings, {"batch": 2000}, "batch: 2000; allowed: an integer >= 1 and <= 1000"),
        (Settings, {"steps": 0}, "steps: 0"),
        (Settings, {"optimizer": "lion"}, "optimizer: 'lion'; allowed: adam or sgd"),
        (Settings, {"learning_rate": -1.0}, "learning_rate: -1.0; allowed: a finite number > 0"),
        (Settings, {"momentum": 1.0}, "momentum: 1.0; allowed: 0 <= momentum < 1"),
        (Settings, {"t": 0.0}, "t: 0.0; allowed: a diffusion time"),
        (Settings, {"log_snr": (3.0, 1.0)}, "log_snr: .*allowed: two increasing numbers"),
        (Settings, {"dtype": "float16"}, "dtype: 'float16'"),
    ],
)
def test_refusals(kind: type, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        kind(**change)


def test_settings_are_plain_data_and_back() -> None:
    assert Settings.of_record(json.loads(json.dumps(SETTINGS.record()))) == SETTINGS
    with pytest.raises(ValueError, match="^settings: cannot be understood"):
        Settings.of_record({"protocol": {}})
    fixed = dataclasses.replace(SETTINGS, t=0.1)
    np.testing.assert_allclose(time_at_log_snr(fixed.measured_log_snrs()), [0.1], rtol=1e-5)
    np.testing.assert_allclose(SETTINGS.measured_log_snrs(), [-4.25, 3.25])
    with pytest.raises(InputError, match="^t: 11"):
        dataclasses.replace(SETTINGS, t=11)
