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


@pytest.mark.thorough
def test_samples_of_the_law_have_its_fractions_and_moments() -> None:
    x, _ = drawn()
    classes = generation.draw_classes(LAW, x, T, key=jax.random.key(1))
    share = np.mean(classes == 0)
    assert_within(share, np.sqrt(share * (1 - share) / COUNT), 0.75)
    moments = generation.generated_moments(LAW, x, classes, T)
    assert_moments(moments)
    rejects(lambda: assert_moments(generation.generated_moments(LAW, 1.2 * x, classes, T)))
    few = generation.generated_moments(LAW, x[:1], np.array([0]), T)
    assert np.isnan(few).all()


def assert_moments(moments: generation.ClassMoments) -> None:
    """The squared error of the mean is what a finite sample of the right mean shows: a few times its floor at most."""
    assert np.all(moments.mean_error >= 0) and np.all(moments.mean_error < 3 * moments.mean_error_floor)
    assert np.all(np.abs(moments.variance_error) < 0.1)


def test_squared_errors_of_few_wide_samples_are_not_negative() -> None:
    """Two samples of a class with a huge spread: the error of the mean is ≥ 0, and its floor says that it means nothing."""
    x = np.array([[80.0, -90.0, 70.0, 60.0], [-85.0, 75.0, -60.0, -70.0], [2.0, 0.0, 0.0, 0.0], [1.8, 0.0, 0.3, 0.0]])
    moments = generation.generated_moments(LAW, x, np.array([1, 1, 0, 0]), T)
    assert np.all(moments.mean_error >= 0)
    assert moments.mean_error_floor[1] > 100 * moments.mean_error_floor[0] and moments.mean_error[1] < moments.mean_error_floor[1]


@pytest.mark.thorough
def test_score_errors_are_those_of_a_known_deviation() -> None:
    exact = jax.tree_util.Partial(type(LAW).score, LAW)
    found = generation.score_errors(LAW, exact, np.array([1.0, 0.1]), key=jax.random.key(0), num_samples=16, dtype=np.float32)
    assert found.shape == (2, 2) and np.all(found < 1e-10)
    shifted = jax.tree_util.Partial(lambda law, x, t: law.score(x, t) + 0.5, LAW)
    np.testing.assert_allclose(
        generation.score_errors(LAW, shifted, np.array([1.0, 0.1]), key=jax.random.key(0), num_samples=16, dtype=np.float32),
        0.25,
        rtol=1e-4,
    )
