"""Gaussian mixtures: the dimension-free law, and its realisation at a dimension d (`equations`, section 1)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer
from numpy.typing import ArrayLike

from rfdiff.covariance_estimates import checked_names, class_moments
from rfdiff.covariances import check_gram, law_fields, symmetric_roots
from rfdiff.errors import InputError
from rfdiff.noised_mixture import NoisedMixture, noised_mixture
from rfdiff.noised_mixture import optimal_loss as optimal_loss
from rfdiff.value_types import DType, Value, as_real_array, is_concrete, set_field, static, value_type, vectorize_text, whole_number

WEIGHT_TOLERANCE = 1e-6
Numbers: TypeAlias = ArrayLike | jax.Array


@value_type
class MixtureLaw(Value):
    """Law of a K-class Gaussian mixture as d → ∞: class fractions, joint covariance spectrum, centroid Gram matrix.

    A fraction `eigenvalue_weights[l]` of the d directions has the joint eigenvalues `eigenvalues[l] = (λ_1, …, λ_K)` of the class
    covariances. Centroids enter through Q_{cc'} = μ_c·μ_{c'}/d alone. A law built by `from_covariances` or `fit` keeps its matrices,
    which need not commute, and belongs to their dimension.

    Args:
        weights: (K,) class fractions π_c > 0 with Σ π_c = 1.
        eigenvalues: (L, K) joint eigenvalues ≥ 0, variance per direction; not commuting: (d, K), each class's own, descending.
        eigenvalue_weights: (L,) fractions of the directions > 0, summing to 1.
        centroid_gram: (K, K) symmetric positive semi-definite Q.
        covariances: (K, d, d) Σ_c of a law that was built from them, else None.
        centroids: (K, d) μ_c of such a law, else None.
        commuting: whether `eigenvalues` are joint.
        class_names: K names of the classes, () where they have none but their numbers.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    weights: Float[np.ndarray, " K"]
    eigenvalues: Float[np.ndarray, "L K"]
    eigenvalue_weights: Float[np.ndarray, " L"]
    centroid_gram: Float[np.ndarray, "K K"]
    covariances: Float[np.ndarray, "K d d"] | None = None
    centroids: Float[np.ndarray, "K d"] | None = None
    commuting: bool = static(default=True)
    class_names: tuple[str, ...] = static(default=())

    if TYPE_CHECKING:  # what the constructor accepts is wider than what the fields hold

        def __init__(
            self,
            weights: Numbers,
            eigenvalues: Numbers,
            eigenvalue_weights: Numbers,
            centroid_gram: Numbers,
            covariances: Numbers | None = None,
            centroids: Numbers | None = None,
            commuting: bool = True,
            class_names: Sequence[str] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("weights", "eigenvalues", "eigenvalue_weights", "centroid_gram"):
            set_field(self, name, _as_array(name, getattr(self, name)))
        if (self.covariances is None) != (self.centroids is None) or (self.covariances is None and not self.commuting):
            raise InputError("covariances: given without centroids, or commuting=False without them; allowed: build with from_covariances")
        if np.ndim(self.weights) != 1 or np.shape(self.weights)[0] < 1:
            raise InputError(f"weights: shape {np.shape(self.weights)}; allowed: (K,) with K >= 1")
        k = np.shape(self.weights)[0]
        if np.ndim(self.eigenvalues) != 2 or np.shape(self.eigenvalues)[1] != k or np.shape(self.eigenvalues)[0] < 1:
            raise InputError(f"eigenvalues: shape {np.shape(self.eigenvalues)}; allowed: (L, K) with K = {k}, as many as weights")
        groups = np.shape(self.eigenvalues)[0]
        if np.shape(self.eigenvalue_weights) != (groups,):
            raise InputError(
                f"eigenvalue_weights: shape {np.shape(self.eigenvalue_weights)}; allowed: ({groups},), one for each row of eigenvalues"
            )
        if np.shape(self.centroid_gram) != (k, k):
            raise InputError(f"centroid_gram: shape {np.shape(self.centroid_gram)}; allowed: ({k}, {k}), K x K with K = {k} weights")
        set_field(self, "class_names", checked_names(self.class_names, k))
        if is_concrete(self.weights, self.eigenvalues, self.eigenvalue_weights, self.centroid_gram):
            self._check_values()

    def _check_values(self) -> None:
        for name in ("weights", "eigenvalues", "eigenvalue_weights", "centroid_gram"):
            value = getattr(self, name)
            if not np.all(np.isfinite(value)):
                raise InputError(f"{name}: {vectorize_text(np.ravel(value))} has an entry that is not finite; allowed: finite numbers")
        for name in ("weights", "eigenvalue_weights"):
            value = getattr(self, name)
            if np.any(value <= 0):
                raise InputError(f"{name}: {vectorize_text(value)} has an entry <= 0; allowed: every entry > 0")
            if abs(value.sum() - 1) > WEIGHT_TOLERANCE:
                raise InputError(f"{name}: {vectorize_text(value)} sums to {value.sum():.8g}; allowed: a sum of 1")
            if abs(value.sum() - 1) > 1e-15 * value.size:  # a normalised list is left alone, so that a file reads back to the same numbers
                set_field(self, name, value / value.sum())
        if np.any(self.eigenvalues < 0):
            raise InputError(
                f"eigenvalues: smallest variance is {self.eigenvalues.min():.6g}; allowed: variances >= 0 (not standard deviations)"
            )
        check_gram(self.centroid_gram)

    @classmethod
    def isotropic(cls, weights: ArrayLike, variances: ArrayLike, centroid_gram: ArrayLike | None = None) -> "MixtureLaw":
        """Classes with covariance σ_c² I.

        Args:
            weights: (K,) class fractions.
            variances: (K,) variances σ_c² per coordinate (not standard deviations), ≥ 0.
            centroid_gram: (K, K) Gram matrix μ_c·μ_{c'}/d; None for centred classes.

        Raises:
            InputError: naming the field, its value and the allowed range.
        """
        weights = _as_array("weights", weights)
        k = np.size(weights)
        spread = _as_array("variances", variances)
        if np.shape(spread) != (k,):
            raise InputError(f"variances: shape {np.shape(spread)}; allowed: ({k},), one for each of the {k} weights")
        if is_concrete(spread) and not np.all(np.isfinite(spread) & (spread >= 0)):
            raise InputError(f"variances: {vectorize_text(spread)}; allowed: finite numbers >= 0 (variances, not standard deviations)")
        gram = np.zeros((k, k)) if centroid_gram is None else centroid_gram
        return cls(weights, spread[None, :], np.ones(1), gram)

    @classmethod
    def from_covariances(
        cls, weights: ArrayLike, covariances: ArrayLike, centroids: ArrayLike | None = None, *, class_names: Sequence[str] = ()
    ) -> "MixtureLaw":
        """Classes with given covariance matrices, which need not commute, and centroids.

        Matrices that commute to rounding are diagonalised together. The theory takes the matrices as representative of the limit
        d → ∞; a simulation realises exactly this mixture, at this dimension only.

        Args:
            weights: (K,) class fractions.
            covariances: (K, d, d) symmetric positive semi-definite Σ_c.
            centroids: (K, d) μ_c, of norm O(√d); None for centred classes.
            class_names: K names of the classes, () for none.

        Raises:
            InputError: naming the field, its value and the allowed range.
        """
        return cls(*law_fields(weights, covariances, centroids), class_names=class_names)

    @classmethod
    def fit(
        cls, samples: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, shrinkage: str | float = "ledoit-wolf"
    ) -> "MixtureLaw":
        """Law with the empirical means and shrunk empirical covariances `(1 - ρ) S_c + ρ (tr S_c/d) I` of labelled samples.

        S_c averages the outer products of the n_c deviations from the class mean; ρ as in `rfdiff.covariances.ledoit_wolf`, or given.

        Args:
            samples: (n, ...) images or vectors, flattened to (n, d); scaled to a variance of order 1 per coordinate.
            labels: (n,) class labels, numbers or text; classes are the distinct ones in ascending order, and their names are kept.
            weights: (K,) class fractions; None for the fractions of the labels.
            shrinkage: "ledoit-wolf", or a number ρ with 0 ≤ ρ < 1.

        Raises:
            InputError: naming the argument, its value and the allowed range.
        """
        shares, covariances, means, names = class_moments(samples, labels, weights, shrinkage)
        return cls.from_covariances(shares, covariances, means, class_names=names)

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.weights)[-1])

    @property
    def variances(self) -> Float[np.ndarray, " K"]:
        """(K,) class variances σ_c² = tr Σ_c / d."""
        return self.eigenvalue_weights @ self.eigenvalues

    @property
    def dimension(self) -> int | None:
        """Dimension d of the covariances that the law was built from; None for a law without a dimension."""
        return None if self.covariances is None else int(np.shape(self.covariances)[-1])


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


def _as_array(name: str, value: Any) -> Any:
    """A float64 array on the host; a JAX array where it is traced, whose precision is the caller's."""
    return as_real_array(name, value) if is_concrete(value) else jnp.asarray(value)
