"""The exact overlap of two classes: against sampling, integration, closed forms and its own symmetries."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from rfdiff.backward import return_probability
from rfdiff.backward.overlap import Contrast, contrast, overlap
from rfdiff.backward.realisation import realised
from rfdiff.mixture import MixtureLaw
from tests.tolerances import rejects


def in_one_dimension(ratio: float, apart: float, weight: float) -> float:
    """B of N(apart, ratio) of this weight and N(0, 1) of the rest, by numerical integration."""

    def lost(x: float) -> float:
        one, other = weight * norm.pdf(x, apart, np.sqrt(ratio)), (1 - weight) * norm.pdf(x)
        return one * other / (one + other) if one + other else 0.0

    reach = 12 * max(1, np.sqrt(ratio))
    return quad(lost, min(0, apart) - reach, max(0, apart) + reach, epsabs=1e-13, limit=500, points=[0, apart])[0]


@pytest.mark.parametrize(
    ("ratio", "apart", "weight"), [(1.0, 1.0, 0.5), (4.0, 0.3, 0.2), (0.01, 2.0, 0.7), (300.0, 5.0, 0.9), (1.0, 9.0, 0.01)]
)
def test_one_dimension(ratio: float, apart: float, weight: float) -> None:
    pair = Contrast(np.array([ratio - 1]), np.ones(1), np.array([apart**2]))
    found = overlap(pair, weight, 1 - weight)
    expected = in_one_dimension(ratio, apart, weight)
    assert found.value == pytest.approx(expected, rel=1e-8, abs=1e-11) and found.error < 1e-9
    rejects(lambda: np.testing.assert_allclose(overlap(pair, 1 - weight + 1e-3, weight + 1e-3).value, expected, rtol=1e-6))


def test_multiplicities_symmetry_and_weights() -> None:
    """Equal directions count as often as they are; B is that of the exchanged classes, and of degree 1 in the weights."""
    rng = np.random.default_rng(0)
    law = MixtureLaw.from_covariances([0.7, 0.3], wishart(rng, 2, 6), rng.normal(size=(2, 6)))
    classes = realised(law, 6)
    there, back = contrast(classes, 0.4, 0, 1), contrast(classes, 0.4, 1, 0)
    one = overlap(there, 0.7, np.array([0.3, 0.1]))
    np.testing.assert_allclose(one.value, [overlap(back, b, 0.7).value for b in (0.3, 0.1)], rtol=1e-10)
    np.testing.assert_allclose(overlap(there, 1.4, 0.6).value, 2 * one.value[0], rtol=1e-12)
    twice = Contrast(*(np.repeat(field, 2) for field in there))
    doubled = Contrast(there.excess, 2 * there.counts, 2 * there.squares)
    np.testing.assert_allclose(overlap(twice, 0.7, 0.3).value, overlap(doubled, 0.7, 0.3).value, rtol=1e-12)


def test_the_gaussian_closed_form_where_it_is_exact_and_where_it_is_not() -> None:
    """Equal variances: to rounding at any d. Other variances: a deviation that falls as 1/d."""
    gram = [[1.0, 0.2], [0.2, 0.5]]
    for variances, largest in (([0.8, 0.8], 1e-12), ([1.5, 0.5], 6e-4)):
        law = MixtureLaw.isotropic([0.7, 0.3], variances, gram)
        lost = overlap(contrast(realised(law, 400), 2.5, 0, 1), *law.weights).value
        np.testing.assert_allclose(1 - lost / law.weights, return_probability(law, 2.5, d=400), atol=largest)


def test_classes_far_apart_lose_nothing_and_equal_ones_all() -> None:
    far = overlap(Contrast(np.zeros(1), np.ones(1), np.array([1e4])), 0.5, 0.5)
    assert far.value == 0 and 0 < far.error < 1e-20
    same = overlap(Contrast(np.zeros(3), np.ones(3), np.zeros(3)), 0.7, 0.3)
    assert same.value == pytest.approx(0.21, rel=1e-12)


def wishart(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """(count, size, size) random covariances."""
    roots = rng.normal(size=(count, size, 2 * size))
    return roots @ np.swapaxes(roots, 1, 2) / (2 * size)
