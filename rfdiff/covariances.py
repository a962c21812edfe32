"""Class covariances given as d×d matrices: validation, joint diagonalisation, roots, and estimates from samples (host, float64)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rfdiff._pytree import as_number, as_real_array, is_concrete, vectorize_text

ROUNDING = 1e-9  # of a symmetric, positive or commuting matrix, relative to its size
COMMUTING = 1e-9  # off-diagonal part in the joint eigenbasis; it moves an eigenvalue by its square
MOST_CLASSES = 4096


def check_gram(gram: np.ndarray) -> None:
    """Refuse a centroid Gram matrix that no centroids have.

    Raises:
        ValueError: not symmetric, or not positive semi-definite.
    """
    scale = max(1.0, float(np.abs(gram).max()))
    if np.abs(gram - gram.T).max() > ROUNDING * scale:
        raise ValueError(f"centroid_gram: differs from its transpose by {np.abs(gram - gram.T).max():.3g}; allowed: symmetric")
    smallest = float(np.linalg.eigvalsh(gram)[0])
    if smallest < -ROUNDING * scale:
        raise ValueError(
            f"centroid_gram: smallest eigenvalue is {smallest:.6g}; allowed: positive semi-definite (centroid inner products over d)"
        )


def law_fields(weights: Any, covariances: Any, centroids: Any) -> tuple[Any, ...]:
    """Fields of `MixtureLaw`, in their order, for `MixtureLaw.from_covariances`.

    Raises:
        ValueError: weights, covariances or centroids that are malformed or of different shapes.
    """
    shares = as_real_array("weights", weights)
    if shares.ndim != 1 or shares.size < 1:
        raise ValueError(f"weights: shape {shares.shape}; allowed: (K,) with K >= 1")
    matrices = as_covariances(covariances, shares.size)
    k, d, _ = matrices.shape
    means = np.zeros((k, d)) if centroids is None else as_real_array("centroids", centroids)
    if means.shape != (k, d) or not np.all(np.isfinite(means)):
        raise ValueError(f"centroids: shape {means.shape}; allowed: ({k}, {d}), finite, one for each covariance")
    spectra = class_eigenvalues(matrices)
    joint = joint_eigenvalues(matrices)
    values, groups = (spectra, np.full(d, 1 / d)) if joint is None else joint
    return shares, values, groups, means @ means.T / d, matrices, means, joint is not None


def as_covariances(covariances: Any, num_classes: int) -> np.ndarray:
    """Validated (K, d, d) class covariances, made exactly symmetric.

    Raises:
        ValueError: traced by JAX, not (K, d, d), not finite, not symmetric or not positive semi-definite.
    """
    if not is_concrete(covariances):  # tracers have shapes but no eigenvectors
        raise ValueError("covariances: traced by JAX; allowed: concrete arrays (their eigenvectors are found on the host)")
    matrices = as_real_array("covariances", covariances)
    if matrices.ndim != 3 or matrices.shape[0] != num_classes or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] < 1:
        raise ValueError(f"covariances: shape {matrices.shape}; allowed: ({num_classes}, d, d), one for each of the {num_classes} weights")
    if not np.all(np.isfinite(matrices)):
        raise ValueError("covariances: an entry is not finite; allowed: finite numbers")
    for c, matrix in enumerate(matrices):
        scale = float(np.abs(matrix).max())
        gap = float(np.abs(matrix - matrix.T).max())
        if gap > ROUNDING * scale:
            raise ValueError(f"covariances: class {c} differs from its transpose by {gap:.3g}; allowed: symmetric")
    return (matrices + np.swapaxes(matrices, 1, 2)) / 2


def class_eigenvalues(covariances: np.ndarray) -> np.ndarray:
    """(d, K) eigenvalues of each class covariance, descending, rounding below 0 removed.

    Raises:
        ValueError: an eigenvalue below 0 by more than rounding.
    """
    values = np.linalg.eigvalsh(covariances)[:, ::-1].T
    for c, column in enumerate(values.T):
        if column[-1] < -ROUNDING * max(float(column[0]), 1e-300):
            raise ValueError(f"covariances: class {c} has the eigenvalue {column[-1]:.6g}; allowed: positive semi-definite")
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
    _, basis = np.linalg.eigh(np.einsum("k,kab->ab", mix / sizes, covariances))
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


def symmetric_roots(covariances: np.ndarray) -> np.ndarray:
    """(K, d, d) symmetric square roots F_c with F_c F_cᵀ = Σ_c."""
    values, vectors = np.linalg.eigh(covariances)
    return (vectors * np.sqrt(np.maximum(values, 0))[:, None, :]) @ np.swapaxes(vectors, 1, 2)


def ledoit_wolf(deviations: np.ndarray) -> float:
    """Shrinkage intensity ρ in [0, 1] of S = XᵀX/n towards (tr S/d) I that is optimal for large n and d.

    `ρ = min(b̄², d²)/d²` with `d² = ‖S - (tr S/d) I‖²_F` and `b̄² = (1/n²) Σ_k ‖x_k x_kᵀ - S‖²_F`.

    Args:
        deviations: (n, d) samples minus their mean.

    Reference: Ledoit and Wolf 2004, J. Multivariate Anal. 88, 365, section 3.2; tests/test_covariances.py.
    """
    n, d = deviations.shape
    square = _sum_of_squares(deviations)  # ‖S‖²_F
    spread = square - float(np.einsum("nd,nd->", deviations, deviations) / n) ** 2 / d
    fourth = float(np.sum(np.einsum("nd,nd->n", deviations, deviations) ** 2))
    noise = (fourth / n - square) / n
    return float(np.clip(noise / spread, 0, 1)) if spread > 1e-14 * square else 1.0


def _sum_of_squares(deviations: np.ndarray) -> float:
    n, d = deviations.shape
    gram = deviations.T @ deviations if d <= n else deviations @ deviations.T
    return float(np.einsum("ab,ab->", gram, gram)) / n**2


def class_moments(
    samples: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, shrinkage: str | float = "ledoit-wolf"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K,), shrunk covariances (K, d, d) and means (K, d) of labelled samples; see `MixtureLaw.fit`.

    Raises:
        ValueError: samples that are not finite numbers or are constant in a class; labels that do not match; fewer than 2 samples in a
            class; more than 4096 classes; an unknown shrinkage.
    """
    x = as_real_array("samples", samples)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"samples: shape {x.shape}; allowed: (n, ...), one sample a row")
    x = x.reshape(x.shape[0], -1)
    if not np.all(np.isfinite(x)):
        raise ValueError(f"samples: row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} is not finite; allowed: finite numbers")
    marks = np.asarray(labels)
    if marks.shape != x.shape[:1]:
        raise ValueError(f"labels: shape {marks.shape}; allowed: ({x.shape[0]},), one for each sample")
    if np.any(marks != marks):
        raise ValueError(f"labels: entry {int(np.flatnonzero(marks != marks)[0])} is not a number; allowed: numbers or text")
    try:
        classes, members = np.unique(marks, return_inverse=True)
    except TypeError as err:
        raise ValueError(f"labels: cannot be put in order ({err}); allowed: numbers or text, not both") from err
    counts = np.bincount(members)
    if counts.min() < 2:
        raise ValueError(
            f"labels: class {classes.tolist()[counts.argmin()]!r} has {counts.min()} samples; allowed: at least 2 in every class"
        )
    if classes.size > MOST_CLASSES:
        raise ValueError(f"labels: {classes.size} classes; allowed: at most {MOST_CLASSES}")
    fixed = None if shrinkage == "ledoit-wolf" else as_number(shrinkage)
    if fixed is not None and not 0 <= fixed < 1:
        raise ValueError(f"shrinkage: {shrinkage!r}; allowed: 'ledoit-wolf', or a number 0 <= shrinkage < 1")
    share = counts / counts.sum() if weights is None else as_real_array("weights", weights)
    if share.shape != counts.shape:
        raise ValueError(
            f"weights: shape {share.shape}; allowed: ({counts.size},), one for each of the classes {vectorize_text(classes, str)}"
        )
    means, covariances = np.zeros((counts.size, x.shape[1])), np.zeros((counts.size, x.shape[1], x.shape[1]))
    for c in range(counts.size):
        own = x[members == c]
        means[c] = own.mean(0)
        own = own - means[c]
        empirical = own.T @ own / len(own)
        scale = float(np.trace(empirical)) / x.shape[1]
        if not scale > 1e-24 * float(np.mean(means[c] ** 2)):
            raise ValueError(f"samples: those of class {classes.tolist()[c]!r} are all the same; allowed: samples that vary")
        rho = ledoit_wolf(own) if fixed is None else fixed
        covariances[c] = (1 - rho) * empirical + rho * scale * np.eye(x.shape[1])
    return share, covariances, means
