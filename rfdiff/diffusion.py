"""Ornstein-Uhlenbeck forward process x_t = e^{-t} x_0 + sqrt(Δ) ξ with Δ = 1 - e^{-2t} (`equations`, section 1)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def signal_scale(t: ArrayLike) -> jax.Array:
    """Amplitude e^{-t} of the clean sample in x_t (diffusion time t, dimensionless)."""
    return jnp.exp(-jnp.asarray(t))


def noise_variance(t: ArrayLike) -> jax.Array:
    """Variance Δ = 1 - e^{-2t} of the noise in each coordinate of x_t (through `expm1`, exact as t → 0)."""
    return -jnp.expm1(-2.0 * jnp.asarray(t))


def forward_sample(key: jax.Array, x0: jax.Array, t: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Noised samples x_t and the noise ξ that made them.

    Args:
        key: JAX random key.
        x0: (..., d) clean samples.
        t: diffusion time.

    Returns:
        x_t and ξ, each of the shape and dtype of x0.
    """
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    scale = signal_scale(t).astype(x0.dtype)
    return scale * x0 + jnp.sqrt(noise_variance(t)).astype(x0.dtype) * noise, noise
