"""Class covariances given as d×d matrices: validation, joint diagonalisation, roots (host, float64)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.value_types import as_real_array, is_concrete

ROUNDING = 1e-9  # of a symmetric, positive or commuting matrix, relative to its size
COMMUTING = 1e-9  # off-diagonal part in the joint eigenbasis; it moves an eigenvalue by its square
MOST_CLASSES = 4096


def check_gram(gram: np.ndarray) -> None:
    """Raise if this is not a valid Gram matrix.

    Raises:
        InputError: not symmetric, or not positive semi-definite.
    """
    scale = max(1.0, float(np.abs(gram).max()))
    if np.abs(gram - gram.T).max() > ROUNDING * scale:
        raise InputError(f"centroid_gram: differs from its transpose by {np.abs(gram - gram.T).max():.3g}; allowed: symmetric")
    smallest = float(np.linalg.eigvalsh(gram)[0])
    if smallest < -ROUNDING * scale:
        raise InputError(
            f"centroid_gram: smallest eigenvalue is {smallest:.6g}; allowed: positive semi-definite (centroid inner products over d)"
        )


class LawFields(NamedTuple):
    """Fields of `MixtureLaw` by their names."""

    weights: Float[np.ndarray, " K"]
    eigenvalues: Float[np.ndarray, "L K"]
    eigenvalue_weights: Float[np.ndarray, " L"]
    centroid_gram: Float[np.ndarray, "K K"]
    covariances: Float[np.ndarray, "K d d"]
    centroids: Float[np.ndarray, "K d"]
    commuting: bool


def law_fields(weights: ArrayLike, covariances: ArrayLike, centroids: ArrayLike | None) -> LawFields:
    """Fields of `MixtureLaw` for `MixtureLaw.from_covariances`.

    Raises:
        InputError: weights, covariances or centroids that are malformed or of different shapes.
    """
    shares = as_real_array("weights", weights)
    if shares.ndim != 1 or shares.size < 1:
        raise InputError(f"weights: shape {shares.shape}; allowed: (K,) with K >= 1")
    matrices = as_covariances(covariances, shares.size)
    k, d, _ = matrices.shape
    means = np.zeros((k, d)) if centroids is None else as_real_array("centroids", centroids)
    if means.shape != (k, d) or not np.all(np.isfinite(means)):
        raise InputError(f"centroids: shape {means.shape}; allowed: ({k}, {d}), finite, one for each covariance")
    spectra = class_eigenvalues(matrices)
    joint = joint_eigenvalues(matrices)
    values, groups = (spectra, np.full(d, 1 / d)) if joint is None else joint
    return LawFields(
        weights=shares,
        eigenvalues=values,
        eigenvalue_weights=groups,
        centroid_gram=means @ means.T / d,
        covariances=matrices,
        centroids=means,
        commuting=joint is not None,
    )


def as_covariances(covariances: ArrayLike, num_classes: int) -> Float[np.ndarray, "K d d"]:
    """Validated (K, d, d) class covariances, made exactly symmetric.

    Raises:
        InputError: traced by JAX, not (K, d, d), not finite, not symmetric or not positive semi-definite.
    """
    if not is_concrete(covariances):  # tracers have shapes but no eigenvectors
        raise InputError("covariances: traced by JAX; allowed: concrete arrays (their eigenvectors are found on the host)")
    matrices = as_real_array("covariances", covariances)
    if matrices.ndim != 3 or matrices.shape[0] != num_classes or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] < 1:
        raise InputError(f"covariances: shape {matrices.shape}; allowed: ({num_classes}, d, d), one for each of the {num_classes} weights")
    if not np.all(np.isfinite(matrices)):
        raise InputError("covariances: an entry is not finite; allowed: finite numbers")
    for c, matrix in enumerate(matrices):
        scale = float(np.abs(matrix).max())
        gap = float(np.abs(matrix - matrix.T).max())
        if gap > ROUNDING * scale:
            raise InputError(f"covariances: class {c} differs from its transpose by {gap:.3g}; allowed: symmetric")
    return (matrices + np.swapaxes(matrices, 1, 2)) / 2


def class_eigenvalues(covariances: np.ndarray) -> np.ndarray:
    """(d, K) eigenvalues of each class covariance, descending, rounding below 0 removed.

    Raises:
        InputError: an eigenvalue below 0 by more than rounding.
    """
    values = np.linalg.eigvalsh(covariances)[:, ::-1].T
    for c, column in enumerate(values.T):
        if column[-1] < -ROUNDING * max(float(column[0]), 1e-300):
            raise InputError(f"covariances: class {c} has the eigenvalue {column[-1]:.6g}; allowed: positive semi-definite")
    return np.maximum(values, 0)


def joint_eigenvalues(covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Joint eigenvalues (L, K) and their multiplicities over d (L,) if the matrices commute to rounding, else None.

    The eigenbasis is that of a generic linear combination, in which commuting matrices are diagonal (their relative commutator norm is
    bounded by the off-diagonal part there). Rows that agree to rounding are put together.
    """
    k, d, _ = covariances.shape
    sizes = np.sqrt(np.einsum("kab,kab->k", covariances, covariances))
    sizes = np.where(sizes > 0, sizes, 1)
    mix = (np.arange(k) * (np.sqrt(5) - 1) / 2) % 1 + 0.3  # no two alike: P and I - P must not add up to I
    generic = np.einsum("k,kab->ab", mix / sizes, covariances)
    if _commutator_seen(covariances, generic, sizes):
        return None
    _, basis = np.linalg.eigh(generic)
    rotated = basis.T @ covariances @ basis
    values = np.einsum("kaa->ak", rotated).copy()
    off = rotated.copy()
    off[:, np.arange(d), np.arange(d)] = 0
    if np.any(np.sqrt(np.einsum("kab,kab->k", off, off)) > COMMUTING * sizes):
        return None
    values = np.maximum(values, 0)
    resolution = 1e-11 * np.maximum(values.max(0), 1e-300)
    order = np.lexsort(np.round(values / resolution).T[::-1])[::-1]
    values = values[order]
    starts = np.flatnonzero(np.concatenate([[True], np.any(np.abs(np.diff(values, axis=0)) > resolution, axis=1)]))
    counts = np.diff(np.append(starts, d))
    return np.add.reduceat(values, starts, axis=0) / counts[:, None], counts / d


def _commutator_seen(covariances: np.ndarray, generic: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether one vector v tells that the matrices do not commute: without an eigenbasis, which is dear at d = 3072.

    Where the off-diagonal part in the eigenbasis of M is at most ε‖Σ_c‖ for all classes, |(Σ_c M - M Σ_c) v| ≤ 2 ε ‖Σ_c‖ ‖M‖ |v|.
    """
    v = np.cos(np.arange(covariances.shape[1]) * np.sqrt(2.0))
    commutator = covariances @ (generic @ v) - (covariances @ v) @ generic
    return bool(np.any(np.linalg.norm(commutator, axis=1) > 2 * COMMUTING * sizes * np.linalg.norm(generic) * np.linalg.norm(v)))


def symmetric_roots(covariances: np.ndarray) -> np.ndarray:
    """(K, d, d) symmetric square roots F_c with F_c F_cᵀ = Σ_c."""
    values, vectors = np.linalg.eigh(covariances)
    return (vectors * np.sqrt(np.maximum(values, 0))[:, None, :]) @ np.swapaxes(vectors, 1, 2)
