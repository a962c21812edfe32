"""Forward process x_t = e^{-t} x_0 + sqrt(Δ) ξ with Δ = 1 - e^{-2t}, and its log-SNR (docs/theory/model.md, eq-forward)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float


def signal_scale(t: ArrayLike) -> jax.Array:
    """Amplitude e^{-t} of the clean sample in x_t (diffusion time t, dimensionless)."""
    return jnp.exp(-jnp.asarray(t))


def noise_variance(t: ArrayLike) -> jax.Array:
    """Variance Δ = 1 - e^{-2t} of the noise in each coordinate of x_t (through `expm1`, exact as t → 0)."""
    return -jnp.expm1(-2.0 * jnp.asarray(t))


def log_snr(t: ArrayLike) -> Float[np.ndarray, "..."]:
    """Log signal-to-noise ratio λ = log(e^{-2t}/Δ) of x_t: -log(2t) as t → 0, -2t as t → ∞; float64 on the host."""
    return -np.log(np.expm1(2 * np.asarray(t, np.float64)))


def time_at_log_snr(value: ArrayLike) -> Float[np.ndarray, "..."]:
    """Diffusion time at which the log signal-to-noise ratio is λ: t = log(1 + e^{-λ})/2; float64 on the host."""
    return np.logaddexp(0, -np.asarray(value, np.float64)) / 2
