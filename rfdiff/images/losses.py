"""Losses per class and per t on training and held-out images, always with the same images and the same noise, so that steps compare.

The i-th image of every class and set has the same noise, which so drops out of differences between sets and classes.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from rfdiff.errors import InputError
from rfdiff.images.architecture import Architecture
from rfdiff.images.devices import Devices
from rfdiff.images.protocol import ImageSet
from rfdiff.images.settings import Settings
from rfdiff.images.unet import UNet, noise_estimate, noised

SETS = ("train", "held_out")
BLOCK = 256  # most images of one call, but for the remainder over several devices


class LossMeter:
    """What measures the losses of one run: up to `settings.measured` images of each class and set.

    Args:
        settings: the run.
        images: its images.
        devices: that share a call.
    """

    def __init__(self, settings: Settings, images: ImageSet, devices: Devices) -> None:
        most, classes = settings.measured, range(settings.protocol.num_classes)
        groups = [images.train[images.labels == c][:most] for c in classes] + [images.held_out[c][:most] for c in classes]
        self._sizes = [len(group) for group in groups]
        self._log_snrs = settings.measured_log_snrs()
        x0, place = np.concatenate(groups), np.concatenate([np.arange(size) for size in self._sizes])
        each = -(-len(x0) // -(-len(x0) // BLOCK))  # blocks of one size, no more of them than needed
        block = -(-each // devices.count) * devices.count
        extra = -len(x0) % block  # the last block is filled up with images that are not counted
        x0, place = np.pad(x0, ((0, extra), (0, 0), (0, 0))), np.pad(place, (0, extra)).astype(np.uint32)
        parts = [slice(i, i + block) for i in range(0, len(x0), block)]
        self._blocks = [devices.everywhere((x0[part], place[part])) for part in parts]
        self._program = _program(settings.architecture, settings.dtype, devices)
        self._seed = np.uint32(settings.seed)

    def measure(self, parameters: PyTree) -> dict[str, np.ndarray]:
        """Losses per coordinate and their standard errors over images.

        Returns:
            loss, loss_stderr (2, T, K): train and held-out; mean_loss, mean_loss_stderr (2, K): the mean over the T log-SNRs.

        Raises:
            InputError: a loss that is not finite.
        """
        calls = [
            [self._program(parameters, *block, level, self._seed, np.uint32(j)) for block in self._blocks]
            for j, level in enumerate(self._log_snrs)
        ]
        each = np.stack([np.concatenate([np.asarray(part) for part in row]) for row in calls]).astype(np.float64)
        groups = np.split(each[:, : sum(self._sizes)], np.cumsum(self._sizes)[:-1], axis=1)
        if not np.all(np.isfinite(each)):
            raise InputError(
                "learning_rate: training diverged, a loss is not finite; allowed: a smaller one (the checkpoints written so far are kept)"
            )
        mean = np.stack([group.mean(1) for group in groups], -1)
        error = np.stack([group.std(1, ddof=1) / np.sqrt(group.shape[1]) for group in groups], -1)
        over = [group.mean(0) for group in groups]
        shape = (len(self._log_snrs), 2, -1)
        return {
            "loss": np.moveaxis(mean.reshape(shape), 1, 0),
            "loss_stderr": np.moveaxis(error.reshape(shape), 1, 0),
            "mean_loss": np.array([group.mean() for group in over]).reshape(2, -1),
            "mean_loss_stderr": np.array([group.std(ddof=1) / np.sqrt(group.size) for group in over]).reshape(2, -1),
        }


@functools.lru_cache(maxsize=8)
def _program(architecture: Architecture, dtype: str, devices: Devices) -> Callable[..., jax.Array]:
    """Loss of each image of a block at one log-SNR, with the noise of its place in its group and of the level."""
    network = UNet(architecture, jnp.dtype(dtype))

    def per_image(parameters: PyTree, x0: jax.Array, place: jax.Array, log_snr: jax.Array, seed: jax.Array, level: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2**31), level)
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), x0.shape[1:]))(place)
        x0, levels = devices.split(x0), jnp.full(len(x0), log_snr)
        return jnp.mean((noise_estimate(network, parameters, noised(x0, levels, noise), levels) - noise) ** 2, axis=(1, 2))

    return jax.jit(per_image)
