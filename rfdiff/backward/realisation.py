"""A law at its dimension, in the coordinates and radii on which the class posterior depends (docs/theory/speciation.md).

A law of joint eigenvalues has no directions of its own. Its d directions are shared among the groups by largest remainder, as
`GaussianMixture.from_law` does, and each group of D_l directions gets the share D_l/d of the centroids' Gram matrix. Where r is the rank of
the centroids, r coordinates of the group then hold this share, and its other D_l - r directions enter through their squared norm alone.
Directions at random, as `from_law` draws them, have this share up to a relative O(1/√D_l). Groups of fewer than r directions hold theirs
together, coordinate by coordinate; where all these have fewer than r, the other groups hold it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import largest_remainder
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import whole_number


class Realisation(NamedTuple):
    """Classes in q coordinates, and across these in L groups of directions in which no centroid has a share.

    Args:
        weights: (K,) class fractions.
        means: (K, q) centroids, from their mean over the classes.
        covariances: (K, q, q) of the coordinates, or (K, q) where they are independent.
        counts: (L,) numbers of further directions, each ≥ 1.
        variances: (L, K) class variances along them.
    """

    weights: Float[np.ndarray, " K"]
    means: Float[np.ndarray, "K q"]
    covariances: Float[np.ndarray, "K q q"] | Float[np.ndarray, "K q"]
    counts: Float[np.ndarray, " L"]
    variances: Float[np.ndarray, "L K"]

    @property
    def is_dense(self) -> bool:
        """Whether the coordinates are correlated."""
        return self.covariances.ndim == 3


def realised(law: MixtureLaw, d: ArrayLike) -> Realisation:
    """A concrete law in dimension d.

    Args:
        law: K ≥ 2 classes.
        d: dimension; of a law of matrices theirs.

    Raises:
        InputError: d is not a whole number, or smaller than the number of groups or than the rank of the centroids.
    """
    weights = np.asarray(law.weights, np.float64)
    if law.covariances is not None and law.centroids is not None:
        means = np.asarray(law.centroids, np.float64)
        none = np.zeros((0, weights.size))
        return Realisation(weights, means - weights @ means, np.asarray(law.covariances, np.float64), none[:, 0], none)
    coordinates = _coordinates(weights, np.asarray(law.centroid_gram, np.float64))
    groups, rank = law.eigenvalues.shape[0], coordinates.shape[1]
    size = whole_number(d)
    if size is None or size < max(groups, rank):
        raise InputError(
            f"d: {d!r}; allowed: a whole number >= {max(groups, rank)}, for {groups} eigenvalue groups and centroids of rank {rank}"
        )
    return _in_groups(weights, coordinates, np.asarray(law.eigenvalues, np.float64), largest_remainder(law.eigenvalue_weights, size))


def _in_groups(weights: np.ndarray, coordinates: np.ndarray, eigenvalues: np.ndarray, counts: np.ndarray) -> Realisation:
    """Each group of at least r directions has r coordinates and a radius; the smaller ones have all their coordinates, or no share."""
    rank, d = coordinates.shape[1], counts.sum()
    large = counts >= rank
    pooled = ~large if counts[~large].sum() >= rank else np.zeros_like(large)
    total = counts[large | pooled].sum()
    means, spread = [np.zeros((weights.size, 0))], [np.zeros((weights.size, 0))]
    for count, values in zip(counts[large], eigenvalues[large], strict=True):
        means.append(np.sqrt(d * count / total) * coordinates)
        spread.append(np.repeat(values[:, None], rank, axis=1))
    if pooled.any():
        size = int(counts[pooled].sum())
        means.append(np.sqrt(d * size / total) * coordinates @ _even_frame(size, rank).T)
        spread.append(np.repeat(eigenvalues[pooled], counts[pooled], axis=0).T)
    across = np.where(large, counts - rank, np.where(pooled, 0, counts))
    return Realisation(
        weights, np.concatenate(means, axis=1), np.concatenate(spread, axis=1), across[across > 0].astype(float), eigenvalues[across > 0]
    )


def _coordinates(weights: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """(K, r) centroids over √d in their span, from their mean over the classes."""
    centred = np.eye(weights.size) - weights[None, :]
    values, vectors = np.linalg.eigh(centred @ gram @ centred.T)
    held = values > 1e-12 * max(float(np.abs(gram).max()), 1e-300)
    return vectors[:, held] * np.sqrt(values[held])


def _even_frame(size: int, rank: int) -> np.ndarray:
    """(size, rank) orthonormal columns of which every run of neighbouring rows holds a nearly equal share.

    Cosines of a frequency near a quarter turn a row, whose squares alternate about 1/size.
    """
    first = (size - rank) // 2
    rows, columns = np.arange(size)[:, None] + 0.5, np.arange(first, first + rank)[None, :]
    frame = np.cos(np.pi * rows * columns / size)
    return frame / np.linalg.norm(frame, axis=0)


def largest_variance(classes: Realisation) -> float:
    """Largest eigenvalue of the covariance of the data, the mixture of all classes."""
    within, roots = np.tensordot(classes.weights, classes.covariances, 1), np.sqrt(classes.weights)[:, None]
    across = float(np.max(classes.variances @ classes.weights, initial=0))
    whole = (within if classes.is_dense else np.diag(within)) + (roots * classes.means).T @ (roots * classes.means)
    return max(float(np.linalg.eigvalsh(whole)[-1]), across) if whole.size else across
