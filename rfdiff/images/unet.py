"""The denoising U-Net: residual blocks with group norm, a log-SNR embedding, attention at the coarse levels, no class conditioning.

It estimates the noise: ε̂(x_t, λ) with λ = log(e^{-2t}/Δ), so the score is s = -ε̂/√Δ and the loss per coordinate ‖ε̂ - ξ‖²/d is the package's
(1/d)‖√Δ s + ξ‖². The last convolution starts at zero: ε̂ = 0, the loss is 1, as that of A = 0 in the theory.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from rfdiff.images.architecture import Architecture
from rfdiff.images.convolution import Conv

LAST = "noise"  # name of the layer that starts at zero
HEAD = 64  # channels of an attention head
FREQUENCIES = 16  # of the embedding, in each of sine and cosine
GROUPS, EPSILON = 8, 1e-6  # of a group norm: groups of channels, what is added to a variance


class UNet(nn.Module):
    """Noise estimate ε̂ of noised images.

    Args:
        architecture: its size.
        dtype: floating type of the arithmetic; parameters are float32 always.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n s s"], log_snr: Float[Array, " n"]) -> Float[Array, "n s s"]:
        """Noise estimates (n, s, s), float32, of images x (n, s, s) at log-SNRs (n,)."""
        size, dtype = self.architecture, self.dtype
        levels = range(size.depth)
        embedding = _Embedding(4 * size.width, dtype)(log_snr)
        h = Conv(size.width, dtype=dtype)(x[..., None].astype(dtype))
        skips = [h]
        for level in levels:
            for _ in range(size.blocks):
                h = self._block(h, embedding, level)
                skips.append(h)
            if level < size.depth - 1:
                h = Conv(size.channels(level + 1), stride=2, dtype=dtype)(h)
                skips.append(h)
        h = self._block(h, embedding, size.depth - 1)
        h = _Residual(size.channels(size.depth - 1), dtype)(h, embedding)
        for level in reversed(levels):
            for _ in range(size.blocks + 1):
                h = self._block(jnp.concatenate([h, skips.pop()], axis=-1), embedding, level)
            if level:
                finer = skips[-1].shape[1]
                h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)[:, :finer, :finer]  # an odd side was rounded up
                h = Conv(size.channels(level - 1), dtype=dtype)(h)
        h = nn.silu(GroupNorm(dtype)(h))
        out = Conv(1, name=LAST)(h.astype(jnp.float32))
        return out[..., 0]

    def _block(self, h: jax.Array, embedding: jax.Array, level: int) -> jax.Array:
        h = _Residual(self.architecture.channels(level), self.dtype)(h, embedding)
        return _Attention(self.dtype)(h) if level >= self.architecture.depth - self.architecture.attention else h


class _Embedding(nn.Module):
    """Features of the log-SNR: sines and cosines of geometric frequencies, then two dense layers."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, log_snr: jax.Array) -> jax.Array:
        angles = log_snr[:, None] * jnp.geomspace(0.05, 3.0, FREQUENCIES, dtype=jnp.float32)[None, :]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1).astype(self.dtype)
        hidden = nn.silu(nn.Dense(self.features, dtype=self.dtype)(waves))
        return nn.silu(nn.Dense(self.features, dtype=self.dtype)(hidden))


class _Residual(nn.Module):
    """Norm, convolution, shift and scale by the embedding, norm, convolution, plus the input."""

    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        h = Conv(self.channels, dtype=self.dtype)(nn.silu(GroupNorm(self.dtype)(x)))
        scale, shift = jnp.split(nn.Dense(2 * self.channels, dtype=self.dtype)(embedding)[:, None, None, :], 2, axis=-1)
        h = GroupNorm(self.dtype)(h) * (1 + scale) + shift
        h = Conv(self.channels, dtype=self.dtype)(nn.silu(h))
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, dtype=self.dtype)(x)
        return (x + h) / math.sqrt(2)


class _Attention(nn.Module):
    """Self-attention among the pixels, plus the input."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, rows, columns, channels = x.shape
        h = GroupNorm(self.dtype)(x).reshape(n, rows * columns, channels)
        heads = math.gcd(channels, max(channels // HEAD, 1))
        parts = nn.Dense(3 * channels, dtype=self.dtype)(h).reshape(n, rows * columns, 3, heads, channels // heads)
        h = jax.nn.dot_product_attention(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2])
        h = nn.Dense(channels, dtype=self.dtype)(h.reshape(n, rows * columns, channels))
        return (x + h.reshape(x.shape)) / math.sqrt(2)


class GroupNorm(nn.Module):
    """Values less the mean of their group of channels, over its standard deviation, scaled and shifted by channel.

    Sums run over pixels first and over the few channels of a group then: vectors on a CPU, where flax's norm sums number by number.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "n s s c"]) -> Float[Array, "n s s c"]:
        """The normed values."""
        channels = x.shape[-1]
        scale, bias = self.param("scale", nn.initializers.ones, (channels,)), self.param("bias", nn.initializers.zeros, (channels,))
        groups = math.gcd(channels, GROUPS)
        wide = x.astype(jnp.float32)

        def averaged(by_channel: jax.Array) -> jax.Array:
            mean = by_channel.reshape(-1, groups, channels // groups).mean(-1, keepdims=True)
            return jnp.broadcast_to(mean, (len(by_channel), groups, channels // groups)).reshape(-1, channels)

        mean = averaged(wide.mean((1, 2)))
        variance = jnp.maximum(averaged((wide * wide).mean((1, 2))) - mean * mean, 0)
        factor = jax.lax.rsqrt(variance + EPSILON) * scale
        return (wide * factor[:, None, None] + (bias - mean * factor)[:, None, None]).astype(self.dtype)


def initial_parameters(network: nn.Module, seed: int, *example: jax.ShapeDtypeStruct | jax.Array) -> PyTree:
    """Parameters of a network: kernels normal of variance 1/(inputs of a unit), the last layer's and biases 0, scales of norms 1.

    Drawn by numpy into the shapes of the network, since JAX would compile a program for each shape.

    Args:
        network: the network.
        seed: of the kernels.
        example: arguments of a call, or their shapes (`jax.ShapeDtypeStruct`).
    """
    rng = np.random.default_rng(seed)

    def drawn(path: tuple[jax.tree_util.DictKey, ...], like: jax.ShapeDtypeStruct) -> np.ndarray:
        names = [str(part.key) for part in path]
        if names[-1] != "kernel" or LAST in names:
            return np.full(like.shape, float(names[-1] == "scale"), np.float32)
        return (rng.standard_normal(like.shape) / math.sqrt(math.prod(like.shape[:-1]))).astype(np.float32)

    shapes = jax.eval_shape(network.init, jax.eval_shape(lambda: jax.random.key(0)), *example)
    return jax.tree_util.tree_map_with_path(drawn, shapes)


def noise_estimate(network: UNet, parameters: PyTree, x: Float[Array, "n s s"], log_snr: Float[Array, " n"]) -> Float[Array, "n s s"]:
    """ε̂ (n, s, s) of images x (n, s, s) at log-SNRs (n,)."""
    estimate: PyTree = network.apply(parameters, x, log_snr)
    return estimate


def noised(x0: Float[Array, "n s s"], log_snr: Float[Array, " n"], noise: Float[Array, "n s s"]) -> Float[Array, "n s s"]:
    """x_t = e^{-t} x_0 + √Δ ξ at log-SNRs (n,): e^{-2t} is the logistic function of λ, and Δ that of -λ."""
    signal_part, noise_part = (jnp.sqrt(jax.nn.sigmoid(sign * log_snr))[:, None, None] for sign in (1, -1))
    return signal_part * x0 + noise_part * noise
