"""Laws built from covariance matrices and from samples, and their realisation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.covariance_estimates import ledoit_wolf
from rfdiff.covariances import joint_eigenvalues, symmetric_roots
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw, optimal_loss
from rfdiff.problem import Problem
from rfdiff.simulation.features import Sizes, clean_samples
from rfdiff.simulation.moments import population_moments
from rfdiff.simulation.quadrature import quadrature_for
from tests.synthetic import given
from tests.tolerances import assert_within, rejects

WEIGHTS = [0.6, 0.4]


def rotation(d: int, seed: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0])


def pair(d: int) -> np.ndarray:
    """Two covariances with decaying spectra in unrelated bases."""
    values = np.geomspace(3, 0.1, d), np.geomspace(0.05, 2, d)
    return np.stack([rotation(d, c) * v @ rotation(d, c).T for c, v in enumerate(values)])


@pytest.fixture(scope="module")
def law() -> MixtureLaw:
    return MixtureLaw.from_covariances(WEIGHTS, pair(6), np.random.default_rng(3).standard_normal((2, 6)))


def test_law_keeps_its_matrices(law: MixtureLaw) -> None:
    assert not law.commuting and law.dimension == 6 and law.num_classes == 2
    np.testing.assert_allclose(given(law.covariances), pair(6), atol=1e-15)
    np.testing.assert_allclose(law.centroid_gram, given(law.centroids) @ given(law.centroids).T / 6, rtol=1e-15)
    np.testing.assert_allclose(law.variances, np.trace(pair(6), axis1=1, axis2=2) / 6, rtol=1e-13)
    np.testing.assert_allclose(law.eigenvalues[:, 1], np.geomspace(2, 0.05, 6), rtol=1e-12)
    exact = [np.trace(s @ np.linalg.inv(s + np.eye(6) * (math.exp(0.4) - 1))) / 6 for s in pair(6)]
    np.testing.assert_allclose(optimal_loss(law.eigenvalue_weights, law.eigenvalues, 0.2), exact, rtol=1e-12)
    centred = MixtureLaw.from_covariances(WEIGHTS, pair(6))
    np.testing.assert_array_equal(centred.centroids, np.zeros((2, 6)))


def test_commuting_matrices_are_diagonalised_together() -> None:
    """In any common basis, with repeated and with zero eigenvalues; the pairing is the joint one, not by size."""
    rows = np.array([[1.6, 0.2], [0.4, 1.2], [0.0, 0.7]])
    counts = [4, 3, 1]
    q = rotation(8, 1)
    matrices = np.stack([q * np.repeat(rows[:, c], counts) @ q.T for c in range(2)])
    law = MixtureLaw.from_covariances(WEIGHTS, matrices)
    assert law.commuting and law.dimension == 8
    order = np.argsort(-law.eigenvalues[:, 0])
    np.testing.assert_allclose(law.eigenvalues[order], rows, atol=1e-12)
    np.testing.assert_allclose(law.eigenvalue_weights[order], np.array(counts) / 8, rtol=1e-15)
    same = MixtureLaw.from_covariances([1.0], matrices[:1])
    assert same.commuting and same.eigenvalues.shape == (3, 1)
    assert MixtureLaw.from_covariances(WEIGHTS, np.zeros((2, 3, 3))).eigenvalues.tolist() == [[0, 0]]
    for c in range(1, 10):  # projections on complementary spaces, in any two places among classes that do not tell them apart
        split = np.stack([np.eye(8)] * 10)
        split[0], split[c] = (q * np.repeat(ends, 4) @ q.T for ends in ([1, 0], [0, 1]))
        for first in range(10):
            assert MixtureLaw.from_covariances(np.full(10, 0.1), np.roll(split, first, 0)).eigenvalues.shape == (2, 10)
    slightly = matrices.copy()
    slightly[0, 0, 1] = slightly[0, 1, 0] = slightly[0, 0, 1] + 1e-6
    assert joint_eigenvalues(slightly) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weights", 1.0, r"shape \(\); allowed: \(K,\)"),
        ("weights", [0.5, 0.6], "sums to 1.1"),
        ("covariances", np.eye(3), r"shape \(3, 3\); allowed: \(2, d, d\)"),
        ("covariances", np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        ("covariances", np.zeros((3, 2, 2)), r"shape \(3, 2, 2\)"),
        ("covariances", np.full((2, 2, 2), np.nan), "not finite"),
        ("covariances", [np.eye(2), [[1, 0.1], [0, 1]]], "class 1 differs from its transpose by 0.1; allowed: symmetric"),
        ("covariances", [np.eye(3), np.diag([1.0, 2.0, -1.0])], "class 1 has the eigenvalue -1; allowed: positive semi-definite"),
        ("covariances", [["a"]], "not an array of numbers"),
        ("centroids", np.zeros((2, 5)), r"shape \(2, 5\); allowed: \(2, 3\)"),
        ("centroids", np.full((2, 3), np.inf), "finite"),
    ],
)
def test_malformed_matrices(name: str, value: Any, message: str) -> None:
    good = {"weights": WEIGHTS, "covariances": np.stack([np.eye(3)] * 2), "centroids": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        MixtureLaw.from_covariances(**{**good, name: value})


def test_laws_that_cannot_be_built(law: MixtureLaw) -> None:
    with pytest.raises(ValueError, match="^covariances: traced by JAX; allowed: concrete"):
        jax.jit(lambda s: MixtureLaw.from_covariances([1.0], s).weights)(jnp.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="^covariances: given without centroids, or commuting=False"):
        MixtureLaw(WEIGHTS, law.eigenvalues, law.eigenvalue_weights, law.centroid_gram, commuting=False)
    with pytest.raises(ValueError, match="^d: 7; allowed: 6, the dimension of the covariances"):
        GaussianMixture.from_law(law, 7, jax.random.key(0))
    with pytest.raises(ValueError, match=r"^factors: shape \(2, 6\); allowed: \(2, 6, 6\)"):
        GaussianMixture(np.array(WEIGHTS), np.zeros((2, 6)), np.ones((2, 6)), np.ones((2, 6)))
    with pytest.raises(ValueError, match="^mixture: has covariances of 6 x 6 numbers, which a text does not hold"):
        Problem(law, "tanh", 0.1, 2, 2).to_toml()


def test_realisation_is_the_law_itself(law: MixtureLaw) -> None:
    mixture = GaussianMixture.from_law(law, 6, jax.random.key(0))
    np.testing.assert_array_equal(mixture.means, law.centroids)
    np.testing.assert_allclose(given(mixture.factors) @ np.swapaxes(given(mixture.factors), 1, 2), given(law.covariances), atol=1e-14)
    np.testing.assert_allclose(symmetric_roots(given(law.covariances)), np.swapaxes(given(mixture.factors), 1, 2), atol=1e-14)
    counts = (6000, 4000)
    x, labels = mixture.sample(jax.random.key(1), counts)
    clean = clean_samples(jax.random.key(1), mixture, Sizes(6, 6, counts, None), jnp.float32)
    np.testing.assert_allclose(clean, x, atol=1e-5)
    for c in range(2):
        own = np.asarray(x, np.float64)[np.asarray(labels) == c] - given(law.centroids)[c]
        product = own[:, :, None] * own[:, None, :]
        moment, error = product.mean(0), product.std(0) / np.sqrt(len(own))
        assert_within(moment, error, given(law.covariances)[c], max_stderr=0.1)
        rejects(lambda moment=moment, error=error, c=c: assert_within(moment, error, given(law.covariances)[1 - c], max_stderr=0.1))  # type: ignore[misc]


@pytest.mark.thorough
def test_population_moments_of_matrices_follow_the_rotation() -> None:
    """Rotating the first layer and the classes together changes no feature moment."""
    d, q = 8, rotation(8, 5)
    values = np.stack([np.geomspace(2, 0.3, d), np.geomspace(0.4, 1.5, d)])
    means = np.random.default_rng(0).standard_normal((2, d))
    W = np.random.default_rng(1).standard_normal((10, d))
    diagonal = GaussianMixture(np.array(WEIGHTS), means, values)
    rotated = GaussianMixture(np.array(WEIGHTS), means @ q.T, np.ones((2, d)), np.stack([q * np.sqrt(v) @ q.T for v in values]))
    problem = Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, 1, 1)
    with jax.enable_x64(True):
        rule = quadrature_for(problem.activation, 4.0, 8, "float64")
        moments = [
            population_moments(jnp.asarray(w), m, jnp.asarray(0.1), problem.activation, rule, 8)
            for w, m in ((W, diagonal), (W @ q.T, rotated), (W, rotated))
        ]
        np.testing.assert_allclose(moments[1].U, moments[0].U, atol=1e-12)
        assert np.abs(np.asarray(moments[2].U) - np.asarray(moments[0].U)).max() > 1e-2


def test_ledoit_wolf_against_brute_force() -> None:
    """Both sides of n = d: the sum over samples is done one matrix at a time."""
    for n, d in ((5, 9), (40, 7)):
        x = np.random.default_rng(n).standard_normal((n, d)) * np.geomspace(2, 0.2, d)
        x = x - x.mean(0)
        S = sum(np.outer(row, row) for row in x) / n
        spread = np.linalg.norm(S - np.trace(S) / d * np.eye(d)) ** 2
        noise = sum(np.linalg.norm(np.outer(row, row) - S) ** 2 for row in x) / n**2
        assert ledoit_wolf(x) == pytest.approx(min(noise, spread) / spread, rel=1e-12)
    assert ledoit_wolf(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])) == 1.0  # S is already the scaled identity


def test_fit_converges_to_the_law(law: MixtureLaw) -> None:
    mixture = GaussianMixture.from_law(law, 6, jax.random.key(0))
    errors = []
    for n in (100, 10000):
        x, labels = mixture.sample(jax.random.key(2), (int(0.6 * n), int(0.4 * n)))
        fitted = MixtureLaw.fit(np.asarray(x).reshape(n, 2, 3), np.asarray(labels) * 7 - 1)
        errors.append(
            [np.abs(given(fitted.covariances) - given(law.covariances)).max(), np.abs(given(fitted.centroids) - given(law.centroids)).max()]
        )
        np.testing.assert_allclose(fitted.weights, WEIGHTS)
    assert np.all(np.array(errors[1]) < 0.25 * np.array(errors[0])), "ten times smaller, to a factor of chance"
    assert np.all(np.array(errors[1]) < 0.2)
    plain = MixtureLaw.fit(x, labels, weights=[0.5, 0.5], shrinkage=0.25)
    own = np.asarray(x, np.float64)[np.asarray(labels) == 1]
    S = np.cov(own.T, bias=True)
    np.testing.assert_allclose(given(plain.covariances)[1], 0.75 * S + 0.25 * np.trace(S) / 6 * np.eye(6), atol=1e-12)
    np.testing.assert_array_equal(plain.weights, [0.5, 0.5])


def test_fit_shrinks_few_samples_more() -> None:
    """With fewer samples than dimensions the empirical covariance is singular; the fitted one is not."""
    x = np.random.default_rng(0).standard_normal((30, 40))
    few = MixtureLaw.fit(x, np.repeat([0, 1], 15))
    assert few.eigenvalues.min() > 0.1
    raw = MixtureLaw.fit(x, np.repeat([0, 1], 15), shrinkage=0)
    assert np.linalg.norm(given(few.covariances)[0] - np.eye(40)) < 0.5 * np.linalg.norm(given(raw.covariances)[0] - np.eye(40))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros(4)}, r"^samples: shape \(4,\); allowed: \(n, ...\)"),
        ({"samples": np.zeros((0, 3))}, r"^samples: shape \(0, 3\)"),
        ({"samples": np.where(np.eye(4) > 0, np.nan, 1.0)}, "^samples: row 0 is not finite"),
        ({"samples": np.array([[1.0, 2], [1, 2], [3, 4], [5, 7]])}, "^samples: all samples of class .*0.* are equal"),
        ({"labels": [0, 0, 1]}, r"^labels: shape \(3,\); allowed: \(4,\)"),
        ({"labels": [0, 0, 0, 1]}, "^labels: class 1 has 1 samples; allowed: at least 2"),
        ({"labels": [0.0, 0.0, math.nan, math.nan]}, "^labels: entry 2 is not a number; allowed: numbers or text"),
        ({"labels": [0, 0, 1, None]}, "^labels: cannot be put in order .*allowed: numbers or text, not both"),
        ({"shrinkage": 1.0}, "^shrinkage: 1.0; allowed: 'ledoit-wolf', or a number"),
        ({"shrinkage": "oas"}, "^shrinkage: 'oas'"),
        ({"shrinkage": math.nan}, "^shrinkage: nan"),
        ({"weights": [1.0]}, r"^weights: shape \(1,\); allowed: \(2,\), one for each of the classes \[0, 1\]"),
        ({"weights": [0.7, 0.7]}, r"^weights: \[0.7, 0.7\] sums to 1.4"),
    ],
)
def test_malformed_samples(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"samples": np.array([[1.0, 2], [3, 1], [3, 4], [5, 7]]), "labels": [0, 0, 1, 1]}
    with pytest.raises(ValueError, match=message):
        MixtureLaw.fit(**{**good, **change})
