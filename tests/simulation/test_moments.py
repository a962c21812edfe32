"""Moments against brute-force Monte-Carlo averages and direct loops, with siblings that must be rejected."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import ACTIVATIONS
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.simulation.features import Sizes
from rfdiff.simulation.moments import Moments, drawn_moments, noise_averaged_moments, population_moments
from rfdiff.simulation.quadrature import hermite_moments, quadrature_for
from tests.tolerances import assert_within, rejects

D, P, COUNTS, T = 6, 5, (3, 2), 0.6
SIGNAL, DELTA = np.exp(-T), -np.expm1(-2 * T)
RNG = np.random.default_rng(7)
W = RNG.standard_normal((P, D))
MIXTURE = GaussianMixture(
    np.array([0.6, 0.4]), np.stack([np.full(D, 0.5), np.linspace(-1, 0.5, D)]), np.stack([np.linspace(0.5, 2.0, D), np.full(D, 0.7)])
)
X = np.concatenate([m + np.sqrt(v) * RNG.standard_normal((n, D)) for m, v, n in zip(MIXTURE.means, MIXTURE.variances, COUNTS, strict=True)])
NUMPY: dict[str, Any] = {"tanh": np.tanh, "relu": lambda y: np.maximum(y, 0)}


def on_host(moments: Moments) -> Moments:
    return jax.tree.map(np.asarray, moments)


@functools.cache
def exact_train(name: str, order: int) -> Moments:
    activation, sizes = ACTIVATIONS[name], Sizes(D, P, COUNTS, None)
    rule = quadrature_for(activation, 3.0, order, "float64")
    with jax.enable_x64(True):
        return on_host(noise_averaged_moments(jnp.asarray(W), jnp.asarray(X), T, sizes, activation, rule, order))


@functools.cache
def exact_population(name: str, order: int) -> Moments:
    activation = ACTIVATIONS[name]
    with jax.enable_x64(True):
        return on_host(population_moments(jnp.asarray(W), MIXTURE, T, activation, quadrature_for(activation, 4.0, order, "float64"), order))


@functools.cache
def sampled(name: str, which: str, draws: int = 100_000) -> list[tuple[Any, Any, Any, Any]]:
    """Brute force: for each class U, its standard error, V, its standard error."""
    rng, results = np.random.default_rng(11), []
    starts = np.cumsum((0, *COUNTS))
    for c in range(2):
        groups = []
        for _ in range(40):
            if which == "train":
                clean = np.repeat(X[starts[c] : starts[c + 1]], draws // 40, axis=0)
            else:
                clean = MIXTURE.means[c] + np.sqrt(MIXTURE.variances[c]) * rng.standard_normal((3 * draws // 40, D))
            noise = rng.standard_normal(clean.shape)
            phi = NUMPY[name]((SIGNAL * clean + np.sqrt(DELTA) * noise) @ W.T / np.sqrt(D))
            groups.append((phi.T @ phi / len(phi), phi.T @ noise / len(phi)))
        U, V = np.stack([g[0] for g in groups]), np.stack([g[1] for g in groups])
        results.append((U.mean(0), U.std(0, ddof=1) / np.sqrt(40), V.mean(0), V.std(0, ddof=1) / np.sqrt(40)))
    return results


def agree(moments: Moments, name: str, which: str) -> None:
    for c, (U, U_error, V, V_error) in enumerate(sampled(name, which)):
        assert_within(U, U_error, moments.U[c], k=4.5, max_stderr=0.01)
        assert_within(V, V_error, moments.V[c], k=4.5, max_stderr=0.01)


@pytest.mark.parametrize("name", ["tanh", pytest.param("relu", marks=pytest.mark.slow)])
@pytest.mark.parametrize("which", [pytest.param("train", marks=pytest.mark.thorough), "population"])
def test_exact_averages_against_monte_carlo(name: str, which: str) -> None:
    exact = exact_train if which == "train" else exact_population
    moments = exact(name, 24)
    agree(moments, name, which)
    assert float(moments.truncation) < 1e-3
    np.testing.assert_array_equal(moments.untrained_loss, 1.0)
    # siblings: Mehler's expansion cut after its linear term; the classes exchanged
    rejects(lambda: agree(exact(name, 1), name, which))
    swapped = Moments(moments.U[::-1], moments.V[::-1], moments.untrained_loss, moments.truncation)
    rejects(lambda: agree(swapped, name, which))


@pytest.mark.thorough
def test_noise_of_one_sample_is_shared_by_its_features() -> None:
    # sibling: correlations set to zero, features of independent noises
    moments = exact_train("tanh", 24)
    starts = np.cumsum((0, *COUNTS))
    rule = quadrature_for(ACTIVATIONS["tanh"], 3.0, 24, "float64")
    with jax.enable_x64(True):
        mean = jnp.asarray(SIGNAL * W @ X.T / np.sqrt(D))
        std = jnp.asarray(np.sqrt(DELTA * (W**2).sum(1) / D))
        first = np.asarray(hermite_moments(ACTIVATIONS["tanh"], rule, mean, std, 24)[0][0])
    independent: list[Any] = []
    for c in range(2):
        own = first[:, starts[c] : starts[c + 1]]
        independent.append(np.where(np.eye(P, dtype=bool), moments.U[c], own @ own.T / COUNTS[c]))
    rejects(lambda: agree(Moments(tuple(independent), moments.V, moments.untrained_loss, moments.truncation), "tanh", "train"))


@pytest.mark.parametrize("name", ["tanh", pytest.param("relu", marks=pytest.mark.slow)])
@pytest.mark.parametrize("exact", [pytest.param(exact_train, marks=pytest.mark.thorough), exact_population])
def test_truncation_bounds_the_error(name: str, exact: Any) -> None:
    best = exact(name, 24)
    for order in (1, 2, 4):
        cut = exact(name, order)
        errors = [np.linalg.norm(u - v) / np.linalg.norm(np.diag(v)) for u, v in zip(cut.U, best.U, strict=True)]
        assert max(errors) <= float(cut.truncation) + float(best.truncation)
        assert max(errors) > 0.01 * float(cut.truncation)  # and is not a bound of another order of magnitude


@pytest.mark.thorough
def test_moments_are_covariances() -> None:
    for moments in (exact_train("tanh", 24), exact_population("tanh", 24)):
        for U, V in zip(moments.U, moments.V, strict=True):
            np.testing.assert_allclose(U, U.T, atol=1e-14)
            assert np.linalg.eigvalsh(U - V @ V.T)[0] > 0  # U - V Vᵀ is the second moment of what is left of φ


@pytest.mark.parametrize("draws", [1, 3])
def test_stored_draws_against_a_loop(draws: int) -> None:
    key, sizes = jax.random.key(3), Sizes(D, P, COUNTS, draws)
    with jax.enable_x64(True):
        moments = on_host(drawn_moments(jnp.asarray(W), jnp.asarray(X), T, sizes, ACTIVATIONS["tanh"], key))
        noise = [np.asarray(jax.random.normal(jax.random.fold_in(key, r), X.shape, jnp.float32), np.float64) for r in range(draws)]
    starts = np.cumsum((0, *COUNTS))
    for c in range(2):
        U, V, leading, terms = np.zeros((P, P)), np.zeros((P, D)), 0.0, COUNTS[c] * draws
        for r in range(draws):
            for i in range(starts[c], starts[c + 1]):
                phi = np.tanh(W @ (SIGNAL * X[i] + np.sqrt(DELTA) * noise[r][i]) / np.sqrt(D))
                U += np.outer(phi, phi) / terms
                V += np.outer(phi, noise[r][i]) / terms
                leading += noise[r][i] @ noise[r][i] / D / terms
        np.testing.assert_allclose(moments.U[c], U, rtol=0, atol=1e-14)
        np.testing.assert_allclose(moments.V[c], V, rtol=0, atol=1e-14)
        assert moments.untrained_loss[c] == pytest.approx(leading, rel=1e-13)
    assert float(moments.truncation) == 0


@pytest.mark.thorough
def test_many_stored_draws_tend_to_the_exact_average() -> None:
    exact = exact_train("tanh", 24)
    distances = []
    with jax.enable_x64(True):
        for draws in (25, 1600):
            sizes = Sizes(D, P, COUNTS, draws)
            drawn = drawn_moments(jnp.asarray(W), jnp.asarray(X), T, sizes, ACTIVATIONS["tanh"], jax.random.key(5))
            distances.append(np.sqrt(np.mean([(np.asarray(u) - v) ** 2 for u, v in zip(drawn.U, exact.U, strict=True)])))
    assert 3 < distances[0] / distances[1] < 20  # 8 for a Monte-Carlo error
