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
