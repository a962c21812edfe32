"""Classes of correlated coordinates: what stands for the directions that say little, against the exact overlap of two classes."""

import numpy as np
import pytest

from rfdiff.backward.correlated_classes import HEAD, CorrelatedSampler, _bhattacharyya, _gram, _Head
from rfdiff.backward.overlap import contrast, overlap
from rfdiff.backward.posterior_sampling import over_replicates
from rfdiff.backward.realisation import Realisation, realised
from rfdiff.mixture import MixtureLaw
from tests.backward.test_overlap import wishart

WEIGHTS = np.array([0.7, 0.3])


def classes(kind: str) -> Realisation:
    """Two classes in 80 dimensions that differ in all directions alike, or in few as images do."""
    rng = np.random.default_rng(0)
    covariances, means = wishart(rng, 2, 80), 0.1 * rng.normal(size=(2, 80))
    if kind == "few":
        scales = 4 / np.sqrt(1 + np.arange(80))
        covariances, means = covariances * np.outer(scales, scales), means * scales
    return realised(MixtureLaw.from_covariances(WEIGHTS, covariances, means), 80)


def exact(two: Realisation, t: float) -> np.ndarray:
    return 1 - overlap(contrast(two, t, 0, 1), *WEIGHTS).value / WEIGHTS


@pytest.mark.parametrize("kind", ["alike", "few"])
def test_the_error_covers(kind: str) -> None:
    two = classes(kind)
    sampler = CorrelatedSampler(two)
    for t in (0.3, 0.8, 1.5):
        value, error = sampler.at(t, 1e-3)
        assert np.all(abs(value - exact(two, t)) <= error) and error.max() <= 1e-3


def test_the_other_directions_count() -> None:
    """The first 16 of 80 coordinates and weak directions for the rest are right to their error; without the rest 0.02 is missing."""
    two = classes("alike")
    means, excess, whole = CorrelatedSampler(two)._turned(0.8)
    first = means[:, :HEAD], excess[:, :HEAD, :HEAD]
    head = _Head(WEIGHTS, *first, whole, _bhattacharyya(means, excess), 0)
    mean = over_replicates(head.returned(9))
    error = head.error(mean.value)
    assert np.all(abs(mean.value - exact(two, 0.8)) < error + 3 * mean.stderr) and error.max() < 5e-3
    alone = _Head(WEIGHTS, *first, _gram(*first), _bhattacharyya(*first), 0)
    assert alone.left < 1e-9 < head.left and not alone.error(mean.value).any()
    assert np.all(exact(two, 0.8) - over_replicates(alone.returned(9)).value > 0.02)


def test_all_coordinates_are_exact_and_seeds_differ() -> None:
    two = classes("few")
    value, error = CorrelatedSampler(two, seed=1).at(0.5, 1e-5)
    other, _ = CorrelatedSampler(two, seed=2).at(0.5, 1e-5)
    assert np.all(abs(value - exact(two, 0.5)) <= error + 1e-6) and not np.array_equal(value, other)
