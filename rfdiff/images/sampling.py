"""Samples of a trained U-Net by the probability-flow ODE, discretised as DDIM in equal steps of the log-SNR.

    x̂_0 = (x - √Δ ε̂)/e^{-t},   x' = e^{-t'} x̂_0 + √Δ' ε̂,   from λ_low (x normal) to λ_high, where x̂_0 is the sample

Reference: Song, Meng and Ermon 2021, arXiv:2010.02502.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from rfdiff.errors import InputError
from rfdiff.images.architecture import Architecture
from rfdiff.images.devices import Devices
from rfdiff.images.settings import Settings
from rfdiff.images.unet import UNet, noise_estimate

BLOCK = 512  # samples drawn together


class _Position(NamedTuple):
    level: Int[Array, ""] | np.int32
    x: Float[Array, "n s s"] | np.ndarray


def draw_samples(parameters: PyTree, settings: Settings, devices: Devices, number: int, steps: int, seed: int) -> np.ndarray:
    """Samples (number, s, s); the same seed starts from the same noise, whatever the parameters.

    Args:
        parameters: of the network.
        settings: of the run that trained it, at all t.
        devices: that share a block of samples.
        number: how many.
        steps: evaluations of the network for each.
        seed: of the noise.

    Raises:
        InputError: a network trained at one t only.
    """
    if settings.t is not None:
        raise InputError(f"t: {settings.t:g}, the one time that the network was trained at; allowed: samples of a network trained at all t")
    side = settings.protocol.side
    block = min(BLOCK, -(-number // devices.count) * devices.count)
    levels = np.linspace(*settings.log_snr, steps).astype(np.float32)
    noise = np.random.default_rng(seed).standard_normal((-(-number // block) * block, side, side)).astype(np.float32)
    run = _program(settings.architecture, settings.dtype, devices)
    parameters, found = devices.everywhere(parameters), []
    for i in range(0, len(noise), block):
        start = devices.everywhere(_Position(np.int32(0), noise[i : i + block]))
        found.append(np.asarray(run(start, steps, parameters, levels).x))
    return np.concatenate(found)[:number]


def moved(x: jax.Array, noise: jax.Array, here: jax.Array, there: jax.Array, last: jax.Array) -> jax.Array:
    """A DDIM step of x from log-SNR `here` to `there` by the noise estimate; the clean image where it is the last."""
    clean = (x - jnp.sqrt(jax.nn.sigmoid(-here)) * noise) / jnp.sqrt(jax.nn.sigmoid(here))
    return jnp.where(last, clean, jnp.sqrt(jax.nn.sigmoid(there)) * clean + jnp.sqrt(jax.nn.sigmoid(-there)) * noise)


@functools.lru_cache(maxsize=4)
def _program(architecture: Architecture, dtype: str, devices: Devices) -> Callable[..., _Position]:
    network = UNet(architecture, jnp.dtype(dtype))

    def step(at: _Position, parameters: PyTree, levels: jax.Array) -> _Position:
        here, there = levels[at.level], levels[jnp.minimum(at.level + 1, len(levels) - 1)]
        x = devices.split(jnp.asarray(at.x))
        noise = noise_estimate(network, parameters, x, jnp.full(len(x), here))
        return _Position(at.level + 1, moved(x, noise, here, there, at.level == len(levels) - 1))

    return devices.repeated(step)
