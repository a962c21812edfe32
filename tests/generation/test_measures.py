"""Measures of generated samples: on samples of the law itself, on copies of training points, and their bootstrap interval."""

import jax
import numpy as np
import pytest

from rfdiff import GaussianMixture, generation
from tests.tolerances import assert_within, rejects

LAW = GaussianMixture(np.array([0.75, 0.25]), np.array([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]), np.array([[1.0] * 4, [0.5] * 4])).noised
T, COUNT = 0.1, 4000


def drawn(t: float = T) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1], [3 * COUNT // 4, COUNT // 4])
    keys = jax.random.split(jax.random.key(0), COUNT)
    return np.asarray(jax.vmap(LAW.draw, (0, 0, None))(keys, labels, t)), labels


def test_samples_of_the_law_have_its_fractions_and_moments() -> None:
    x, _ = drawn()
    classes = generation.draw_classes(LAW, x, T, jax.random.key(1))
    share = np.mean(classes == 0)
    assert_within(share, np.sqrt(share * (1 - share) / COUNT), 0.75)
    mean, variance = generation.generated_moments(LAW, x, classes, T)
    assert np.all(np.abs(mean) < 5e-3) and np.all(np.abs(variance) < 0.1)
    rejects(lambda: assert_moments(generation.generated_moments(LAW, 1.2 * x, classes, T)))
    assert_moments((mean, variance))
    assert np.isnan(generation.generated_moments(LAW, x[:1], np.array([0]), T)).all()


def assert_moments(found: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.all(np.abs(found[0]) < 0.01) and np.all(np.abs(found[1]) < 0.1)


def test_copies_are_memorised_and_fresh_samples_are_not() -> None:
    rng = np.random.default_rng(0)
    training = rng.standard_normal((40, 16))
    copies = np.exp(-T) * training + 0.05 * rng.standard_normal((40, 16))
    assert generation.near_training(copies, training, T).all()
    assert not generation.near_training(rng.standard_normal((40, 16)), training, T).any()
    assert generation.near_training(rng.standard_normal((40, 16)), training, T, threshold=1.0).all()
    with pytest.raises(ValueError, match="^threshold: 0; allowed"):
        generation.near_training(copies, training, T, threshold=0)
    with pytest.raises(ValueError, match="^training: 1 samples; allowed: at least 2"):
        generation.near_training(copies, training[:1], T)


def test_the_interval_covers_and_knows_its_limits() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(100):
        low, high = generation.memorised_interval([200, 200], rng.binomial(200, 0.3, 2), seed, resamples=300)[1:]
        inside += int(low <= 0.3 <= high)
    assert 75 <= inside <= 100  # two networks: the percentile interval is somewhat short
    share, low, high = generation.memorised_interval([50], [0])
    assert share == low == 0 and 0.05 < high < 0.08
    assert generation.memorised_interval([50], [50])[1] > 0.9
    assert np.isnan(generation.memorised_interval([0, 0], [0, 0])).all()


def test_score_errors_are_those_of_a_known_deviation() -> None:
    exact = jax.tree_util.Partial(type(LAW).score, LAW)
    found = generation.score_errors(LAW, exact, np.array([1.0, 0.1]), jax.random.key(0), 16, np.float32)
    assert found.shape == (2, 2) and np.all(found < 1e-10)
    shifted = jax.tree_util.Partial(lambda law, x, t: law.score(x, t) + 0.5, LAW)
    np.testing.assert_allclose(
        generation.score_errors(LAW, shifted, np.array([1.0, 0.1]), jax.random.key(0), 16, np.float32), 0.25, rtol=1e-4
    )
