"""Which generated samples are copies of training samples, and the memorised fraction of a class with its bootstrap interval.

A sample is memorised if its nearest training sample is nearer than `THRESHOLD` times its second nearest, in Euclidean distance: the
criterion of Yoon et al. 2023 and Bonnaire et al. 2025 (arXiv:2505.17638). It serves samples of networks and of image models alike.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.value_types import as_integer, as_number

THRESHOLD = 1 / 3
BLOCK_BYTES = 2**25  # distances of so many samples to all training samples are held at once
BOOTSTRAPS = 2000


class NearestTraining(NamedTuple):
    """What is nearest to each of N samples.

    Args:
        memorised: (N,) whether the sample is memorised.
        nearest: (N,) index of the training sample nearest to it.
    """

    memorised: Bool[np.ndarray, " N"]
    nearest: Int[np.ndarray, " N"]


class MemorisedFraction(NamedTuple):
    """Memorised fraction of a class with the ends of its bootstrap interval; NaN for a class without samples.

    Args:
        fraction: memorised part of the samples.
        lower, upper: ends of the interval.
    """

    fraction: float
    lower: float
    upper: float


def near_training(samples: ArrayLike, training: ArrayLike, *, threshold: float = THRESHOLD) -> NearestTraining:
    """Which samples are memorised, and what is nearest to them.

    Args:
        samples: (N, ...) generated samples; further axes are flattened.
        training: (n, ...) training samples, n ≥ 2, on the same scale.
        threshold: ratio of nearest to second-nearest distance below which a sample counts as memorised, 0 < threshold ≤ 1.

    Raises:
        InputError: a threshold out of range, or fewer than two training samples.

    Reference: tests/test_memorisation.py.
    """
    points, references = (np.asarray(x, np.float64).reshape(len(np.asarray(x)), -1) for x in (samples, training))
    check_nearest(threshold, len(references))
    block = max(1, BLOCK_BYTES // (8 * len(references)))
    squares = np.sum(references**2, axis=1)
    nearest = np.empty((len(points), 2), int)
    for start in range(0, len(points), block):
        part = points[start : start + block]
        nearest[start : start + block] = np.argpartition(squares - 2 * part @ references.T, 1, axis=1)[:, :2]
    distances = np.linalg.norm(points[:, None] - references[nearest], axis=2)  # exactly: the expanded square loses digits near a copy
    order = np.argsort(distances, axis=1)
    distances, nearest = np.take_along_axis(distances, order, 1), np.take_along_axis(nearest, order, 1)
    return NearestTraining(distances[:, 0] < threshold * distances[:, 1], nearest[:, 0])


def check_nearest(threshold: float, num_training: int) -> None:
    """Refuse what memorised samples cannot be counted with.

    Raises:
        InputError: a threshold out of range, or fewer than two training samples.
    """
    if not 0 < as_number(threshold) <= 1:
        raise InputError(f"threshold: {threshold!r}; allowed: 0 < threshold <= 1")
    if num_training < 2:
        raise InputError(f"training: {num_training} samples; allowed: at least 2, for a second nearest")


def memorised_fraction(
    counts: ArrayLike, memorised: ArrayLike, *, seed: int = 0, level: float = 0.95, resamples: int = BOOTSTRAPS
) -> MemorisedFraction:
    """Memorised fraction of a class over S networks and its percentile bootstrap interval: networks are drawn again, then their samples.

    Where no sample or every sample is memorised, the interval reaches to the exact binomial bound, since such a sample does not vary under
    the bootstrap.

    Args:
        counts: (S,) samples in the class, of each of S networks.
        memorised: (S,) those of them that are memorised.
        seed: of the bootstrap.
        level: coverage of the interval.
        resamples: number of bootstrap samples.

    Raises:
        InputError: counts that are negative, of another number of networks, or below the memorised ones; a level, a seed or a number of
            resamples out of range.

    Reference: tests/test_memorisation.py (coverage, and resampling one by one).
    """
    counts, memorised = np.atleast_1d(np.asarray(counts, int)), np.atleast_1d(np.asarray(memorised, int))
    if counts.ndim != 1 or counts.shape != memorised.shape or not counts.size or np.any((memorised < 0) | (memorised > counts)):
        raise InputError(f"memorised: {memorised.tolist()} of counts {counts.tolist()}; allowed: 0 to the count, for each network")
    if not 0 < as_number(level) < 1:
        raise InputError(f"level: {level!r}; allowed: 0 < level < 1")
    seed, resamples = as_integer("seed", seed, 0), as_integer("resamples", resamples, 1)
    total, hits = int(counts.sum()), int(memorised.sum())
    if total == 0:
        return MemorisedFraction(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(resamples, len(counts)))
    share = np.divide(memorised, counts, where=counts > 0, out=np.zeros(len(counts)))
    again, whole = rng.binomial(counts[drawn], share[drawn]).sum(axis=1), counts[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(again[whole > 0] / whole[whole > 0], [tail, 1 - tail])
    if hits == 0:
        high = 1 - tail ** (1 / total)
    if hits == total:
        low = tail ** (1 / total)
    return MemorisedFraction(hits / total, float(low), float(high))
