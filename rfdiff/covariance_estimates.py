"""Class covariances, means and fractions estimated from labelled samples, with stated shrinkage (host, float64)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rfdiff.covariances import MOST_CLASSES
from rfdiff.errors import InputError
from rfdiff.value_types import as_number, as_real_array, vectorize_text


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
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "K d d"], Float[np.ndarray, "K d"], tuple[str, ...]]:
    """Weights (K,), shrunk covariances (K, d, d), means (K, d) and class names of labelled samples; see `MixtureLaw.fit`.

    Raises:
        InputError: samples that are not finite numbers or are constant in a class; labels that do not match; fewer than 2 samples in a
            class; more than 4096 classes; an unknown shrinkage.
    """
    x = as_real_array("samples", samples)
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"samples: shape {x.shape}; allowed: (n, ...), one sample a row")
    x = x.reshape(x.shape[0], -1)
    if not np.all(np.isfinite(x)):
        raise InputError(f"samples: row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} is not finite; allowed: finite numbers")
    classes, members = distinct_labels(labels, x.shape[0])
    counts = np.bincount(members)
    if counts.min() < 2:
        raise InputError(f"labels: class {classes[counts.argmin()]!r} has {counts.min()} samples; allowed: at least 2 in every class")
    fixed = None if shrinkage == "ledoit-wolf" else as_number(shrinkage)
    if fixed is not None and not 0 <= fixed < 1:
        raise InputError(f"shrinkage: {shrinkage!r}; allowed: 'ledoit-wolf', or a number 0 <= shrinkage < 1")
    share = counts / counts.sum() if weights is None else as_real_array("weights", weights)
    if share.shape != counts.shape:
        raise InputError(
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
            raise InputError(f"samples: those of class {classes[c]!r} are all the same; allowed: samples that vary")
        rho = ledoit_wolf(own) if fixed is None else fixed
        covariances[c] = (1 - rho) * empirical + rho * scale * np.eye(x.shape[1])
    return share, covariances, means, tuple(map(str, classes))


def distinct_labels(labels: ArrayLike, count: int) -> tuple[tuple[str | int | float, ...], Int[np.ndarray, " n"]]:
    """Classes of labelled samples: the distinct labels in ascending order, and the number of each sample's class.

    Args:
        labels: (n,) class labels, numbers or text.
        count: number n of samples.

    Raises:
        InputError: not one label for each sample; NaN; labels that cannot be put in order; more than 4096 classes.
    """
    marks = np.asarray(labels)
    if marks.shape != (count,):
        raise InputError(f"labels: shape {marks.shape}; allowed: ({count},), one for each sample")
    if np.any(marks != marks):
        raise InputError(f"labels: entry {int(np.flatnonzero(marks != marks)[0])} is not a number; allowed: numbers or text")
    try:
        classes, members = np.unique(marks, return_inverse=True)
    except TypeError as err:
        raise InputError(f"labels: cannot be put in order ({err}); allowed: numbers or text, not both") from err
    if classes.size > MOST_CLASSES:
        raise InputError(f"labels: {classes.size} classes; allowed: at most {MOST_CLASSES}")
    return tuple(classes.tolist()), members.astype(np.int64)


def checked_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of K classes, or () where none are given.

    Raises:
        InputError: not one name, a text, for each class, or the same one twice.
    """
    given = tuple(names)
    if given and (len(given) != count or len(set(given)) != count or not all(isinstance(name, str) for name in given)):
        raise InputError(f"class_names: {given!r}; allowed: {count} different names, one for each class, or ()")
    return given
