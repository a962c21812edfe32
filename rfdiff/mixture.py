"""The law of a Gaussian mixture, free of its dimension (docs/theory/model.md, eq-gram)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.covariance_estimates import checked_names, class_moments
from rfdiff.covariances import check_gram, law_fields
from rfdiff.errors import InputError
from rfdiff.noised_mixture import optimal_loss as optimal_loss
from rfdiff.value_types import Value, as_real_array, is_concrete, set_field, static, value_type, vectorize_text

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
        return cls(**law_fields(weights, covariances, centroids)._asdict(), class_names=class_names)

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


def _as_array(name: str, value: Any) -> Any:
    """A float64 array on the host; a JAX array where it is traced, whose precision is the caller's."""
    return as_real_array(name, value) if is_concrete(value) else jnp.asarray(value)
