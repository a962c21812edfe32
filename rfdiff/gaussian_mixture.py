"""A Gaussian mixture in a dimension d, and how the law of one is realised there (docs/theory/model.md, eq-gram)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import ArrayLike

from rfdiff.covariances import symmetric_roots
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.noised_mixture import NoisedMixture, noised_mixture
from rfdiff.value_types import DType, Value, value_type, whole_number


@value_type
class GaussianMixture(Value):
    """A K-class Gaussian mixture in dimension d; without `factors`, in the joint eigenbasis of its class covariances.

    Args:
        weights: (K,) class fractions.
        means: (K, d) centroids μ_c, of norm O(√d).
        variances: (K, d) diagonal of each class covariance.
        factors: (K, d, d) symmetric F_c with Σ_c = F_c F_cᵀ, or None where the covariances are diagonal.

    Raises:
        InputError: shapes that do not fit together.
    """

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K d"]
    variances: Float[np.ndarray, "K d"]
    factors: Float[np.ndarray, "K d d"] | None = None

    def __post_init__(self) -> None:
        shape = (np.size(self.weights), np.shape(self.means)[-1] if np.ndim(self.means) else 0)
        for name in ("means", "variances"):
            if np.shape(getattr(self, name)) != shape:
                raise InputError(f"{name}: shape {np.shape(getattr(self, name))}; allowed: {shape}, K classes in one dimension d")
        if self.factors is not None and np.shape(self.factors) != (*shape, shape[1]):
            raise InputError(f"factors: shape {np.shape(self.factors)}; allowed: {(*shape, shape[1])}, a square matrix for each class")

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(self.means.shape[0])

    @property
    def dimension(self) -> int:
        """Dimension d."""
        return int(self.means.shape[1])

    @classmethod
    def from_law(cls, law: MixtureLaw, d: int, key: jax.Array) -> "GaussianMixture":
        """Realise a law in dimension d: exact Gram matrix, uniformly random directions of the centroids.

        The d directions are shared among the eigenvalue groups by largest remainder, and the centroids lie along a random
        orthonormal frame. A law built from covariances is realised as it is, by its own matrices and centroids.

        Args:
            law: the law, L eigenvalue groups and K classes.
            d: dimension, at least L and at least the rank of the Gram matrix; the law's own if it was built from covariances.
            key: JAX random key of the centroid directions.

        Raises:
            InputError: d not an integer, too small for the law, or another than that of its covariances.
        """
        if whole_number(d) is None:
            raise InputError(f"d: {d!r}; allowed: an integer >= 1")
        if law.covariances is not None and law.centroids is not None:
            if d != law.dimension:
                raise InputError(f"d: {d}; allowed: {law.dimension}, the dimension of the covariances that the law was built from")
            matrices = np.asarray(law.covariances)
            return cls(np.asarray(law.weights), law.centroids, np.einsum("kaa->ka", matrices), symmetric_roots(matrices))
        gram = np.asarray(law.centroid_gram, np.float64)
        values, vectors = np.linalg.eigh(gram)
        rank = int(np.sum(values > 1e-12 * max(values[-1], 1e-300)))
        groups = law.eigenvalues.shape[0]
        if d < max(groups, rank, 1):
            raise InputError(f"d: {d}; allowed: at least {max(groups, rank, 1)} ({groups} eigenvalue groups, Gram matrix of rank {rank})")
        counts = largest_remainder(law.eigenvalue_weights, d)
        variances = np.repeat(np.asarray(law.eigenvalues), counts, axis=0).T
        used = slice(gram.shape[0] - rank, None)  # eigh sorts ascending: the non-zero eigenvalues are the last
        directions = np.asarray(jax.random.normal(key, (d, rank), jnp.float32), np.float64)
        frame, triangle = np.linalg.qr(directions)
        frame = frame * np.sign(np.diagonal(triangle))  # LAPACK's sign choice alone would leave half a sphere
        means = np.sqrt(d) * (vectors[:, used] * np.sqrt(values[used])) @ frame.T
        return cls(np.asarray(law.weights), means, variances)

    @property
    def noised(self) -> NoisedMixture:
        """The law of x_t at every t, which is the exact score in a form to hold and to hand on (`rfdiff.noised_mixture`)."""
        return noised_mixture(self.weights, self.means, self.variances, self.factors)

    def score(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Exact score ∇ log p_t(x) (..., d) of the mixture noised to time t > 0, at points x (..., d)."""
        return self.noised.score(x, t)

    def log_density(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Log-density log p_t(x) of the mixture noised to time t > 0, at points x (..., d)."""
        return self.noised.log_density(x, t)

    def posterior(self, x: ArrayLike, t: ArrayLike) -> jax.Array:
        """Class probabilities P(c | x_t = x) (..., K) at points x (..., d) and time t > 0."""
        return self.noised.posterior(x, t)

    def sample(
        self, key: jax.Array, counts: tuple[int, ...], dtype: DType | None = None
    ) -> tuple[Float[jax.Array, "n d"], Integer[jax.Array, " n"]]:
        """Samples of each class in class order.

        Args:
            key: JAX random key.
            counts: K sample counts n_c (static).
            dtype: floating type of the samples.

        Returns:
            x (n, d) with n = Σ n_c, and labels (n,).

        Raises:
            InputError: not one count >= 0 for each class.
        """
        if len(counts) != self.num_classes or any((whole_number(n) or 0) < 0 or whole_number(n) is None for n in counts):
            raise InputError(f"counts: {counts!r}; allowed: {self.num_classes} integers >= 0, one for each class")
        labels = np.repeat(np.arange(len(counts)), counts)
        return self.place(jax.random.normal(key, (len(labels), self.dimension), dtype), counts), jnp.asarray(labels)

    def place(self, noise: jax.Array, counts: tuple[int, ...]) -> jax.Array:
        """Samples (n, d) in class order, μ_c + Σ_c^{1/2} g, from standard normals g (n, d) and the K static counts n_c."""
        labels = np.repeat(np.arange(len(counts)), counts)
        means = jnp.asarray(self.means, noise.dtype)
        if self.factors is None:
            return means[labels] + jnp.sqrt(jnp.asarray(self.variances, noise.dtype))[labels] * noise
        factors, stops = jnp.asarray(self.factors, noise.dtype), np.cumsum(counts)
        own = [
            jnp.matmul(noise[stop - count : stop], factors[c], precision=jax.lax.Precision.HIGHEST)
            for c, (stop, count) in enumerate(zip(stops, counts, strict=True))
        ]
        return means[labels] + jnp.concatenate(own)


def largest_remainder(weights: ArrayLike, total: int) -> np.ndarray:
    """Integers summing to `total`, as near to `weights * total` as can be, each at least 1.

    Raises:
        InputError: fewer units than weights.
    """
    shares = np.asarray(weights, np.float64) * total
    if total < shares.size:
        raise InputError(f"total: {total} cannot be shared among {shares.size} weights with at least 1 each; allowed: >= {shares.size}")
    counts = np.maximum(np.floor(shares + 1e-9).astype(int), 1)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        excess = np.where((counts > 1) | (step > 0), step * (shares - counts), -np.inf)
        counts[int(np.argmax(excess))] += step
    return counts
