"""Mixture laws and their realisation at a dimension."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.gaussian_mixture import GaussianMixture, largest_remainder
from rfdiff.mixture import MixtureLaw, optimal_loss
from tests.tolerances import assert_within, rejects

pytestmark = pytest.mark.usefixtures("strict_ranks")

GOOD: dict[str, Any] = {
    "weights": [0.5, 0.3, 0.2],
    "eigenvalues": [[1.5, 0.4, 0.1], [0.2, 1.0, 0.0]],
    "eigenvalue_weights": [0.6, 0.4],
    "centroid_gram": [[0.5, 0.1, 0.0], [0.1, 1.0, -0.2], [0.0, -0.2, 0.3]],
}


@pytest.fixture(scope="module")
def law() -> MixtureLaw:
    return MixtureLaw(**GOOD)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weights", [0.5, 0.3, 0.3], r"\[0.5, 0.3, 0.3\] sums to 1.1; allowed: a sum of 1"),
        ("weights", [0.5, 0.5, 0.0], "entry <= 0; allowed: every entry > 0"),
        ("weights", [0.9, 0.3, -0.2], "entry <= 0"),
        ("weights", [0.5, 0.5, math.nan], "not finite; allowed: finite numbers"),
        ("weights", [0.5, 0.5, math.inf], "not finite"),
        ("weights", ["0.5", "0.3", "0.2"], "not an array of numbers; allowed: a rectangular array"),
        ("weights", [True, False, False], "not an array of numbers"),
        ("weights", [0.5, 0.3, 0.2j], "not an array of numbers"),
        ("weights", [0.5, [0.3, 0.2]], "not an array of numbers"),
        ("weights", None, "not an array of numbers"),
        ("weights", 1.0, r"shape \(\); allowed: \(K,\)"),
        ("weights", [[0.5, 0.3, 0.2]], r"shape \(1, 3\); allowed: \(K,\)"),
        ("weights", [], r"shape \(0,\); allowed: \(K,\) with K >= 1"),
        ("eigenvalues", [1.5, 0.4, 0.1], r"shape \(3,\); allowed: \(L, K\) with K = 3"),
        ("eigenvalues", [[1.5, 0.4], [1.0, 1.0]], r"shape \(2, 2\); allowed"),
        ("eigenvalues", np.zeros((0, 3)), r"shape \(0, 3\)"),
        ("eigenvalues", [[1.5, 0.4, 0.1], [0.2, -1.0, 0.0]], "smallest variance is -1; allowed: variances >= 0"),
        ("eigenvalues", [[1.5, math.nan, 0.1], [0.2, 1.0, 0.0]], "not finite"),
        ("eigenvalue_weights", [1.0], r"shape \(1,\); allowed: \(2,\)"),
        ("eigenvalue_weights", [0.6, 0.6], "sums to 1.2"),
        ("eigenvalue_weights", [1.0, 0.0], "entry <= 0"),
        ("centroid_gram", np.eye(2), r"shape \(2, 2\); allowed: \(3, 3\)"),
        ("centroid_gram", [1.0, 1.0, 1.0], r"shape \(3,\)"),
        ("centroid_gram", [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], "differs from its transpose by 0.1; allowed: symmetric"),
        ("centroid_gram", [[1, 2, 0], [2, 1, 0], [0, 0, 1]], "smallest eigenvalue is -1; allowed: positive semi-definite"),
        ("centroid_gram", [[1, math.inf, 0], [math.inf, 1, 0], [0, 0, 1]], "not finite"),
    ],
)
def test_malformed_laws(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        MixtureLaw(**{**GOOD, name: value})


@pytest.mark.parametrize(
    ("variances", "message"),
    [
        ([1.0], r"shape \(1,\); allowed: \(2,\), one for each of the 2 weights"),
        ([1.0, -0.1], "allowed: finite numbers >= 0"),
        ([1.0, math.nan], "allowed: finite numbers >= 0"),
        ([1.0, math.inf], "allowed: finite numbers >= 0"),
        (["a", "b"], "not an array of numbers"),
        (1.0, r"shape \(\)"),
    ],
)
def test_malformed_variances(variances: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^variances: .*{message}"):
        MixtureLaw.isotropic([0.5, 0.5], variances)


def test_long_lists_are_cut_in_messages() -> None:
    with pytest.raises(ValueError, match=r"^weights: \[0.05(, 0.05){7}, …\] sums to 0.5"):
        MixtureLaw.isotropic([0.05] * 10, [1.0] * 10)


def test_laws_keep_copies_and_normalise_rounded_weights() -> None:
    weights = np.array([0.3333333, 0.3333333, 0.3333333])
    law = MixtureLaw.isotropic(weights, [1, 2, 3])
    assert law.weights.sum() == pytest.approx(1, abs=1e-15) and weights[0] == 0.3333333
    assert law.num_classes == 3 and law.weights.dtype == np.float64
    np.testing.assert_array_equal(law.centroid_gram, np.zeros((3, 3)))
    np.testing.assert_array_equal(law.variances, [1, 2, 3])
    source = np.array([0.5, 0.5])
    kept = MixtureLaw.isotropic(source, [1, 1])
    source[0] = 7
    assert kept.weights[0] == 0.5


def test_class_variances_average_the_spectrum(law: MixtureLaw) -> None:
    np.testing.assert_allclose(law.variances, [0.98, 0.64, 0.06], rtol=1e-14)


def test_laws_are_differentiated_and_mapped_without_validation() -> None:
    def variance(scale: jax.Array) -> jax.Array:
        return MixtureLaw.isotropic(jnp.array([0.5, 0.5]), scale * jnp.array([1.0, 2.0])).variances.sum()

    assert float(jax.grad(variance)(1.0)) == pytest.approx(3.0)
    np.testing.assert_allclose(jax.vmap(variance)(jnp.array([1.0, -1.0])), [3.0, -3.0])
    with pytest.raises(ValueError, match=r"^variances: shape \(3,\)"):  # shapes are known even to a tracer
        jax.jit(lambda x: MixtureLaw.isotropic([0.5, 0.5], x).variances)(jnp.ones(3))


@pytest.mark.parametrize("d", [3, 7, 50])
def test_realisation_has_the_exact_gram_and_group_sizes(law: MixtureLaw, d: int) -> None:
    mixture = GaussianMixture.from_law(law, d, jax.random.key(0))
    assert (mixture.num_classes, mixture.dimension) == (3, d)
    np.testing.assert_allclose(mixture.means @ mixture.means.T / d, law.centroid_gram, atol=1e-12)
    rows, counts = np.unique(mixture.variances.T, axis=0, return_counts=True)
    np.testing.assert_array_equal(rows, law.eigenvalues[::-1])
    assert counts.tolist() == [round(0.4 * d), d - round(0.4 * d)]


def test_realisation_works_below_k_dimensions_if_the_rank_allows() -> None:
    gram = np.outer([1.0, -1.0, 0.5], [1.0, -1.0, 0.5])
    line = MixtureLaw.isotropic([0.4, 0.4, 0.2], [1, 1, 1], gram)
    np.testing.assert_allclose((m := GaussianMixture.from_law(line, 2, jax.random.key(0)).means) @ m.T / 2, gram, atol=1e-12)
    centred = GaussianMixture.from_law(MixtureLaw.isotropic([0.4, 0.6], [1, 1]), 1, jax.random.key(0))
    np.testing.assert_array_equal(centred.means, np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"^d: 2; allowed: at least 3 \(2 eigenvalue groups, Gram matrix of rank 3\)"):
        GaussianMixture.from_law(MixtureLaw(**GOOD), 2, jax.random.key(0))
    with pytest.raises(ValueError, match="^d: 0; allowed: at least 1"):
        GaussianMixture.from_law(MixtureLaw.isotropic([1.0], [1.0]), 0, jax.random.key(0))


def test_centroid_directions_are_uniform_on_the_sphere() -> None:
    """Mean 0 and variance 1/d in every coordinate; half a sphere (an unsigned QR) would show a mean of order 1/√d."""
    law, d, count = MixtureLaw.isotropic([1.0], [1.0], [[1.0]]), 4, 400
    means = np.stack([GaussianMixture.from_law(law, d, jax.random.fold_in(jax.random.key(1), i)).means[0] for i in range(count)])
    stderr = means.std(axis=0, ddof=1) / np.sqrt(count)
    assert_within(means.mean(axis=0), stderr, np.zeros(d), max_stderr=0.06)
    rejects(lambda: assert_within(np.abs(means).mean(axis=0), stderr, np.zeros(d), max_stderr=0.06))
    square = means**2
    assert_within(square.mean(axis=0), square.std(axis=0, ddof=1) / np.sqrt(count), np.ones(d))


@pytest.fixture(scope="module")
def drawn(law: MixtureLaw) -> tuple[GaussianMixture, np.ndarray, np.ndarray]:
    mixture = GaussianMixture.from_law(law, 10, jax.random.key(0))
    x, labels = mixture.sample(jax.random.key(2), (4000, 0, 6000))
    return mixture, np.asarray(x, np.float64), np.asarray(labels)


def test_samples_have_the_moments_of_their_class(drawn: tuple[GaussianMixture, np.ndarray, np.ndarray]) -> None:
    mixture, x, labels = drawn
    assert x.shape == (10000, 10) and labels.tolist() == [0] * 4000 + [2] * 6000
    moments = {}
    for c in (0, 2):
        count = np.sum(labels == c)
        centred = x[labels == c] - mixture.means[c]
        std = np.sqrt(mixture.variances[c])
        quiet = std == 0
        np.testing.assert_allclose(centred[:, quiet], 0, atol=1e-6)
        mean, square = centred[:, ~quiet].mean(axis=0), (centred[:, ~quiet] ** 2).mean(axis=0)
        assert_within(mean, std[~quiet] / np.sqrt(count), np.zeros(mean.size), max_stderr=0.02)
        moments[c] = (square, std[~quiet] ** 2 * np.sqrt(2 / count), std[~quiet] ** 2)
        assert_within(*moments[c])
    square, stderr, variance = moments[0]
    rejects(lambda: assert_within(square, stderr, np.sqrt(variance)))  # a variance is not a standard deviation
    rejects(lambda: assert_within(square, stderr, variance[::-1]))
    covariance = np.cov(x[labels == 0].T) / np.sqrt(np.outer(mixture.variances[0], mixture.variances[0]))
    off = covariance[~np.eye(10, dtype=bool)]
    assert_within(off, 1 / np.sqrt(4000), np.zeros(off.size), max_stderr=0.02)


def test_samples_depend_on_the_key_alone(drawn: tuple[GaussianMixture, np.ndarray, np.ndarray]) -> None:
    mixture, x, _ = drawn
    again, _ = mixture.sample(jax.random.key(2), (4000, 0, 6000))
    np.testing.assert_array_equal(np.asarray(again, np.float64), x)
    other, _ = mixture.sample(jax.random.key(3), (4000, 0, 6000))
    assert np.abs(np.asarray(other) - x).max() > 1
    with jax.enable_x64(True):
        assert mixture.sample(jax.random.key(2), (1, 1, 1), jnp.float64)[0].dtype == np.float64
    assert mixture.sample(jax.random.key(2), (1, 1, 1), jnp.float32)[0].dtype == np.float32


@pytest.mark.parametrize("counts", [(1, 2), (1, 2, 3, 4), (1, -1, 2)])
def test_counts_must_match_the_classes(drawn: tuple[GaussianMixture, np.ndarray, np.ndarray], counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="^counts: .*allowed: 3 integers >= 0"):
        drawn[0].sample(jax.random.key(0), counts)


@pytest.mark.parametrize(
    ("means", "variances", "name"), [((2, 5), (3, 5), "means"), ((3, 5), (3, 4), "variances"), ((3,), (3, 5), "means")]
)
def test_shapes_of_a_mixture_built_by_hand(means: tuple[int, ...], variances: tuple[int, ...], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: shape .*K classes in one dimension"):
        GaussianMixture(np.ones(3) / 3, np.zeros(means), np.ones(variances))


@pytest.mark.parametrize(
    ("weights", "total", "counts"),
    [
        ([0.5, 0.3, 0.2], 10, [5, 3, 2]),
        ([0.5, 0.3, 0.2], 9, [4, 3, 2]),
        ([1 / 3, 1 / 3, 1 / 3], 8, [3, 3, 2]),
        ([0.98, 0.01, 0.01], 10, [8, 1, 1]),
        ([0.1 + 0.2, 0.7], 10, [3, 7]),
        ([1.0], 5, [5]),
        ([0.4, 0.6], 2, [1, 1]),
    ],
)
def test_largest_remainder(weights: list[float], total: int, counts: list[int]) -> None:
    assert largest_remainder(weights, total).tolist() == counts


def test_largest_remainder_refuses_too_few_units() -> None:
    with pytest.raises(ValueError, match="^total: 2 cannot be shared among 3 weights"):
        largest_remainder([0.5, 0.3, 0.2], 2)


def test_optimal_loss(law: MixtureLaw) -> None:
    """Between 0 and 1, rising with the variance; isotropic it is e^{-2t}σ²/Γ² (equations, section 1)."""
    t = 0.3
    isotropic = optimal_loss([1.0], [[1.5, 0.4, 0.0]], t)
    decay, delta = math.exp(-0.6), 1 - math.exp(-0.6)
    np.testing.assert_allclose(isotropic, [decay * 1.5 / (decay * 1.5 + delta), decay * 0.4 / (decay * 0.4 + delta), 0], rtol=1e-14)
    general = optimal_loss(law.eigenvalue_weights, law.eigenvalues, t)
    expected = 0.6 * optimal_loss([1.0], law.eigenvalues[:1], t) + 0.4 * optimal_loss([1.0], law.eigenvalues[1:], t)
    np.testing.assert_allclose(general, expected, rtol=1e-14)
    traced = jax.jit(lambda t: optimal_loss(law.eigenvalue_weights, law.eigenvalues, t))(t)
    np.testing.assert_allclose(traced, general, rtol=1e-5)


def test_forward_process_loses_no_digits() -> None:
    for t in (1e-6, 0.4, 5.0):
        assert float(signal_scale(t)) ** 2 + float(noise_variance(t)) == pytest.approx(1, rel=1e-6)
        assert float(noise_variance(t)) == pytest.approx(-math.expm1(-2 * t), rel=1e-5)  # no cancellation in float32
