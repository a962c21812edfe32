"""Exact score, log-density and class posterior of a Gaussian mixture noised to time t (docs/theory/model.md and docs/theory/speciation.md).

Class c of x_t is N(e^{-t} μ_c, e^{-2t} Σ_c + Δ I). All weights and exponents stay logarithms. The log-odds of the classes are sums over the
coordinates of differences, taken before the sum: the d/2 log-terms that all classes share would drown them in float32 at d = 10⁴.
"""

from types import ModuleType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.value_types import DType, Value, is_concrete, value_type

Array: TypeAlias = np.ndarray | jax.Array  # the host's or a device's


@value_type
class NoisedMixture(Value):
    """Law of x_t when x_0 is drawn from a Gaussian mixture, at every t > 0; each class in the eigenbasis of its own covariance.

    Args:
        weights: (K,) class fractions.
        means: (K, d) centroids μ_c.
        eigenvalues: (K, d) eigenvalues of each class covariance.
        axes: (K, d, d) eigenvectors of each class covariance in columns, or None where they are the coordinates.
    """

    weights: Float[Array, " K"]
    means: Float[Array, "K d"]
    eigenvalues: Float[Array, "K d"]
    axes: Float[Array, "K d d"] | None = None

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.means)[0])

    @property
    def dimension(self) -> int:
        """Dimension d."""
        return int(np.shape(self.means)[1])

    def log_density(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Log-density log p_t(x) of the noised mixture.

        Args:
            x: (..., d) points; their floating type is that of the result.
            t: diffusion time > 0, one or of the leading shape of x.
        """
        return jnp.vectorize(self._log_density, signature="(d),()->()")(_floating(x), t)

    def log_posterior(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Logarithms of the class probabilities P(c | x_t = x), shape (..., K); finite where the probabilities underflow."""
        return jnp.vectorize(lambda x, t: self._terms(x, t)[0], signature="(d),()->(k)")(_floating(x), t)

    def posterior(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Class probabilities P(c | x_t = x), shape (..., K)."""
        return jnp.exp(self.log_posterior(x, t))

    def score(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Score ∇ log p_t(x) = -Σ_c P(c|x) (e^{-2t} Σ_c + Δ I)^{-1} (x - e^{-t} μ_c), shape (..., d).

        Reference: tests/test_noised_mixture.py (autodiff and numerical integration).
        """
        return jnp.vectorize(self._score, signature="(d),()->(d)")(_floating(x), t)

    def draw(self, key: jax.Array, label: ArrayLike, t: ArrayLike, dtype: DType | None = None) -> jax.Array:
        """One sample (d,) of x_t given its class: `e^{-t} μ_c + (e^{-2t} Σ_c + Δ I)^{1/2} g`.

        Args:
            key: JAX random key.
            label: class c, an integer.
            t: diffusion time ≥ 0.
            dtype: floating type.
        """
        noise = jax.random.normal(key, (self.dimension,), dtype)
        mean, variance = jnp.asarray(self.means, noise.dtype)[label], self._variances(t, noise.dtype)[label]
        step = jnp.sqrt(variance) * noise
        if self.axes is not None:
            step = jnp.matmul(jnp.asarray(self.axes, noise.dtype)[label], step, precision=jax.lax.Precision.HIGHEST)
        return signal_scale(jnp.asarray(t, noise.dtype)) * mean + step

    def _variances(self, t: ArrayLike, dtype: DType) -> jax.Array:
        """(K, d) variances of x_t along the axes of each class."""
        t = jnp.asarray(t, dtype)
        return jnp.exp(-2 * t) * jnp.asarray(self.eigenvalues, dtype) + noise_variance(t)

    def _deviations(self, x: jax.Array, t: ArrayLike) -> jax.Array:
        """(K, d) coordinates of x - e^{-t} μ_c along the axes of each class."""
        deviation = x[None, :] - signal_scale(jnp.asarray(t, x.dtype)) * jnp.asarray(self.means, x.dtype)
        if self.axes is None:
            return deviation
        return jnp.einsum("kab,ka->kb", jnp.asarray(self.axes, x.dtype), deviation, precision=jax.lax.Precision.HIGHEST)

    def _terms(self, x: jax.Array, t: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Log-posterior (K,), log-density (), and (K, d) deviations over variances."""
        variance, deviation = self._variances(t, x.dtype), self._deviations(x, t)
        exponent = deviation**2 / variance + jnp.log(variance)
        shared = jnp.mean(exponent, axis=0)
        logits = jnp.log(jnp.asarray(self.weights, x.dtype)) - jnp.sum(exponent - shared[None, :], axis=1) / 2
        total = jax.scipy.special.logsumexp(logits)
        density = total - (jnp.sum(shared) + x.size * np.log(2 * np.pi)) / 2
        return logits - total, density, deviation / variance

    def _log_density(self, x: jax.Array, t: ArrayLike) -> jax.Array:
        return self._terms(x, t)[1]

    def _score(self, x: jax.Array, t: ArrayLike) -> jax.Array:
        log_posterior, _, pull = self._terms(x, t)
        weights = jnp.exp(log_posterior)
        if self.axes is None:
            return -jnp.matmul(weights, pull, precision=jax.lax.Precision.HIGHEST)
        return -jnp.einsum("k,kab,kb->a", weights, jnp.asarray(self.axes, x.dtype), pull, precision=jax.lax.Precision.HIGHEST)


def noised_mixture(weights: Array, means: Array, variances: Array, factors: Array | None = None) -> NoisedMixture:
    """The noised law of a mixture given by the fields of a `GaussianMixture`.

    Covariances that are not diagonal are diagonalised here, once for all times: hold the result where many scores are asked for.
    """
    if factors is None:
        return NoisedMixture(weights, means, variances)
    xp: ModuleType = np if is_concrete(factors) else jnp
    roots, axes = xp.linalg.eigh(factors)
    return NoisedMixture(weights, means, roots**2, axes)


def optimal_loss(weights: ArrayLike, eigenvalues: ArrayLike, t: ArrayLike) -> Any:
    """Loss L_c^* of the exact score of the whole mixture on class c, at leading order in d.

    `L_c^* = Σ_l w_l e^{-2t} λ_lc / (e^{-2t} λ_lc + Δ)`: two classes of a law are either told apart with probability → 1
    (centroids at distance O(√d), or different spectra) or identical, and the posterior drops out either way
    (docs/theory/model.md, eq-optimal).

    Args:
        weights: (L,) fractions of the directions (1/d each for a realised mixture).
        eigenvalues: (L, K) joint eigenvalues.
        t: diffusion time.

    Returns:
        (K,) losses per coordinate, in [0, 1).
    """
    xp: ModuleType = np if is_concrete(weights, eigenvalues, t) else jnp
    signal = xp.exp(-2.0 * xp.asarray(t)) * xp.asarray(eigenvalues)
    return xp.asarray(weights) @ (signal / (signal - xp.expm1(-2.0 * xp.asarray(t))))


def _floating(x: ArrayLike) -> jax.Array:
    """An array of its own floating type, or of the default one if it holds integers."""
    return jnp.asarray(x, jnp.result_type(float, x))
