"""Exact scores, log-densities and posteriors of noised mixtures."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from rfdiff.noised_mixture import noised_mixture
from tests.tolerances import assert_within, rejects

pytestmark = pytest.mark.usefixtures("strict_ranks")

T = 0.4
DECAY, DELTA = math.exp(-2 * T), -math.expm1(-2 * T)


def diagonal(d: int = 2) -> GaussianMixture:
    rng = np.random.default_rng(0)
    return GaussianMixture(np.array([0.7, 0.2, 0.1]), rng.normal(size=(3, d)), rng.uniform(0.1, 2, (3, d)))


def dense(d: int = 2) -> GaussianMixture:
    rng = np.random.default_rng(1)
    roots = rng.normal(size=(2, d, d + 1))
    covariances = roots @ np.swapaxes(roots, 1, 2) / d
    law = MixtureLaw.from_covariances([0.8, 0.2], covariances, rng.normal(size=(2, d)))
    return GaussianMixture.from_law(law, d, jax.random.key(0))


def by_matrices(mixture: GaussianMixture, x: np.ndarray, t: float = T) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-density, posterior and score with covariance matrices, inverses and determinants, in float64."""
    k, d = np.shape(mixture.means)
    factors = mixture.factors if mixture.factors is not None else np.stack([np.diag(np.sqrt(v)) for v in mixture.variances])
    logs, pulls = np.zeros(k), np.zeros((k, d))
    for c in range(k):
        covariance = math.exp(-2 * t) * factors[c] @ factors[c].T - math.expm1(-2 * t) * np.eye(d)
        pulls[c] = -np.linalg.solve(covariance, x - math.exp(-t) * mixture.means[c])
        square = -(x - math.exp(-t) * mixture.means[c]) @ pulls[c]
        logs[c] = math.log(mixture.weights[c]) - (square + np.linalg.slogdet(covariance)[1] + d * math.log(2 * math.pi)) / 2
    top = logs.max()
    density = top + math.log(np.exp(logs - top).sum())
    return density, np.exp(logs - density), np.exp(logs - density) @ pulls


@pytest.mark.parametrize("mixture", [diagonal(5), dense(5)], ids=["diagonal", "dense"])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.thorough)])
def test_matrices_give_the_same(mixture: GaussianMixture, dtype: Any) -> None:
    points = np.random.default_rng(2).normal(size=(4, 5)).astype(dtype)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    with jax.enable_x64(dtype == np.float64):
        found = mixture.log_density(points, T), mixture.posterior(points, T), mixture.score(points, T)
        assert all(value.dtype == dtype for value in found)
    for i, x in enumerate(points.astype(np.float64)):
        expected = by_matrices(mixture, x)
        for j in range(3):
            np.testing.assert_allclose(found[j][i], expected[j], rtol=tolerance, atol=tolerance)
    rejects(lambda: np.testing.assert_allclose(found[2][0], by_matrices(mixture, points[0], T + 0.01)[2], rtol=tolerance, atol=tolerance))


@pytest.mark.parametrize("mixture", [diagonal(), dense()], ids=["diagonal", "dense"])
def test_the_score_is_the_gradient_and_the_density_integrates(mixture: GaussianMixture) -> None:
    """Trapezoid rule on a plane: ∫p = 1, ∫P(c|x)p = π_c, ∫s p = 0 and ∫x·s p = -d; and autodiff."""
    axis = np.linspace(-12, 12, 193)
    plane = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    with jax.enable_x64(True):
        functions = jax.jit(lambda m, x: (m.log_density(x, T), m.posterior(x, T), m.score(x, T)))
        log_density, posterior, score = (np.asarray(v) for v in functions(mixture, plane))
        gradient = jax.jit(jax.vmap(jax.grad(lambda x: mixture.log_density(x, T))))(plane[::101])
        mapped = jax.jit(jax.vmap(mixture.score, (0, 0)))(plane[:3], jnp.array([T, 1.0, 2.0]))
        np.testing.assert_allclose(mapped[0], score[0], rtol=1e-12)
    np.testing.assert_allclose(score[::101], gradient, rtol=1e-9, atol=1e-12)
    density = np.exp(log_density) * (axis[1] - axis[0]) ** 2
    assert density.sum() == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(density @ posterior, mixture.weights, atol=1e-10)
    np.testing.assert_allclose(density @ score, 0, atol=1e-10)
    assert density @ np.sum(plane * score, axis=1) == pytest.approx(-2, abs=1e-9)
    mean = math.exp(-T) * mixture.weights @ mixture.means
    np.testing.assert_allclose(density @ plane, mean, atol=1e-10)
    rejects(lambda: np.testing.assert_allclose(density @ posterior, mixture.weights[::-1], atol=1e-10))


def test_one_dimension_integrates() -> None:
    mixture, axis = diagonal(1), np.linspace(-15, 15, 3001)
    with jax.enable_x64(True):
        density = np.exp(mixture.log_density(axis[:, None], T)) * 0.01
        posterior = np.asarray(mixture.posterior(axis[:, None], T))
    assert density.sum() == pytest.approx(1, abs=1e-12)
    square = mixture.weights @ (DECAY * (mixture.means[:, 0] ** 2 + mixture.variances[:, 0]) + DELTA)
    assert density @ axis**2 == pytest.approx(square, abs=1e-12)
    np.testing.assert_allclose(density @ posterior, mixture.weights, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_high_dimension_and_tiny_weights_stay_finite(dtype: Any) -> None:
    """d = 10⁴, weight 1e-12: the posterior is right where the likelihood just makes up for the weight, and finite everywhere."""
    d, weight = 10_000, 1e-12
    direction = np.ones(d) / math.sqrt(d)
    mixture = GaussianMixture(np.array([1 - weight, weight]), np.stack([0 * direction, 60 * direction]), np.full((2, d), 1.3))
    variance = 1.3 * DECAY + DELTA
    scale = 60 * math.exp(-T)
    middle = scale / 2 - variance * math.log(weight) / scale  # log-odds 0 along the axis
    orthogonal = np.random.default_rng(3).normal(size=d)
    orthogonal -= orthogonal @ direction * direction
    points = np.stack([middle * direction, middle * direction + orthogonal, 1e4 * direction, 0 * direction]).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        posterior, score = np.asarray(mixture.posterior(points, T), float), np.asarray(mixture.score(points, T), float)
        log_posterior, density = np.asarray(mixture.noised.log_posterior(points, T)), np.asarray(mixture.log_density(points, T))
    assert all(np.all(np.isfinite(v)) for v in (posterior, score, log_posterior, density))
    tolerance = 5e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(posterior[:, 1], [0.5, 0.5, 1.0, 0.0], atol=tolerance)
    assert log_posterior[3, 1] == pytest.approx(math.log(weight) - scale**2 / (2 * variance), rel=1e-4)
    np.testing.assert_allclose(score[0] @ direction, (scale / 2 - middle) / variance, rtol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("mixture", [diagonal(), dense()], ids=["diagonal", "dense"])
def test_draws_have_the_law_of_their_class(mixture: GaussianMixture) -> None:
    noised, count = noised_mixture(mixture.weights, mixture.means, mixture.variances, mixture.factors), 20_000
    keys = jax.random.split(jax.random.key(4), count)
    x = np.asarray(jax.vmap(lambda key: noised.draw(key, 1, T))(keys), float)
    root = np.diag(np.sqrt(mixture.variances[1])) if mixture.factors is None else mixture.factors[1]
    covariance = DECAY * root @ root.T + DELTA * np.eye(2)
    centred = x - math.exp(-T) * mixture.means[1]
    assert_within(centred.mean(0), np.sqrt(np.diag(covariance) / count), np.zeros(2), max_stderr=0.02)
    products = centred[:, :, None] * centred[:, None, :]
    stderr = products.std(0) / math.sqrt(count)
    assert_within(products.mean(0), stderr, covariance)
    rejects(lambda: assert_within(products.mean(0), stderr, root @ root.T, max_stderr=0.1))
