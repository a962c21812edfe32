"""Return probabilities and speciation times: sampling, identities, scaling laws, derivatives."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from rfdiff.backward import classical_time, clone_agreement, return_probability, speciation, speciation_times
from rfdiff.backward.averages import logistic_average
from rfdiff.backward.decisions import Denoiser
from rfdiff.mixture import GaussianMixture, MixtureLaw
from tests.tolerances import assert_within, loglog_slope, rejects

GRAM = np.array([[1.0, 0.2], [0.2, 0.5]])
TWO = np.array([0.7, 0.3]), GRAM, np.array([1.5, 0.5])
THREE = np.array([0.6, 0.3, 0.1]), np.diag([1.0, 0.5, 2.0]), np.array([1.5, 0.5, 1.0])

probability = jax.jit(return_probability)
moments = jax.jit(speciation.log_odds_moments)
found_times = jax.jit(speciation_times)


def at(function: Any, *arguments: Any) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(function(*(jnp.asarray(v, float) for v in arguments)))


@pytest.mark.parametrize("variance", [0.0, 1e-6, 0.5, 0.99, 1.01, 30.0, 1e4])
def test_logistic_average(variance: float) -> None:
    for mean in (-7.0, 0.3, 40.0):
        std = math.sqrt(variance)
        weight = partial(weighted, mean, std)
        points = [min(max(-mean / std, -9), 9)] if std else [0]
        expected = quad(weight, -10, 10, points=points, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
        assert at(logistic_average, mean, variance) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def weighted(mean: float, std: float, z: float) -> float:
    return expit(mean + std * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def sampled(numbers: Any, d: int, t: float, num: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """R_c and its standard error from samples of x_t of each class."""
    law = MixtureLaw.isotropic(numbers[0], numbers[2], numbers[1])
    denoiser = Denoiser(GaussianMixture.from_law(law, d, jax.random.key(0)))
    labels = np.repeat(np.arange(law.num_classes), num)
    posterior = denoiser.posterior(denoiser.draw(jax.random.key(1), labels, t), t)
    own = posterior[np.arange(len(labels)), labels].reshape(-1, num)
    return own.mean(axis=1), own.std(axis=1) / math.sqrt(num)


@pytest.mark.parametrize(
    ("weights", "variances", "t"),
    [([0.5, 0.5], [1.0, 1.0], 2.8), ([0.5, 0.5], [1.5, 0.5], 2.8), ([0.95, 0.05], [0.8, 0.8], 2.5), ([0.99, 0.01], [0.5, 1.5], 2.3)],
)
def test_sampling_at_d_400(weights: list[float], variances: list[float], t: float) -> None:
    numbers = np.array(weights), GRAM, np.array(variances)
    estimate, stderr = sampled(numbers, 400, t)
    predicted = at(probability, *numbers, 400.0, t)
    assert 0.1 < (predicted[1] - weights[1]) / (1 - weights[1]) < 0.9
    assert_within(estimate, stderr, predicted, allowance=5e-4)
    rejects(lambda: assert_within(estimate, stderr, at(probability, numbers[0], GRAM, numbers[2], 400.0, t + 0.1), allowance=5e-4))
    if weights[0] != weights[1]:
        rejects(lambda: assert_within(estimate, stderr, at(probability, numbers[0][::-1], *numbers[1:], 400.0, t), allowance=5e-4))


def test_the_norm_tells_classes_apart_that_share_their_centroid() -> None:
    numbers = np.array([0.8, 0.2]), np.zeros((2, 2)), np.array([1.4, 0.7])
    estimate, stderr = sampled(numbers, 4000, 1.5)
    assert_within(estimate, stderr, at(probability, *numbers, 4000.0, 1.5), allowance=2e-3)
    without = at(probability, numbers[0], numbers[1], np.ones(2), 4000.0, 1.5)
    np.testing.assert_allclose(without, numbers[0], atol=1e-12)
    rejects(lambda: assert_within(estimate, stderr, without, allowance=2e-3))


def test_equal_variances_are_exact_in_any_dimension() -> None:
    """With r = 1 the log-odds are Gaussian at every d: no O(1/√d) at d = 5."""
    numbers = TWO[0], GRAM, np.full(2, 0.6)
    estimate, stderr = sampled(numbers, 5, 0.3)
    assert_within(estimate, stderr, at(probability, *numbers, 5.0, 0.3))
    rejects(lambda: assert_within(estimate, stderr, at(probability, *numbers, 6.0, 0.3)))


def test_three_classes_against_sampling_and_merged_twins() -> None:
    estimate, stderr = sampled(THREE, 400, 2.5)
    assert_within(estimate, stderr, at(probability, *THREE, 400.0, 2.5), allowance=1e-3)
    rejects(lambda: assert_within(estimate, stderr, at(probability, THREE[0], THREE[1][::-1, ::-1], THREE[2], 400.0, 2.5), allowance=1e-3))
    split = np.array([0, 1, 1])
    whole = at(probability, *TWO, 400.0, 2.5)
    parts = at(probability, [0.7, 0.2, 0.1], GRAM[np.ix_(split, split)], TWO[2][split], 400.0, 2.5)
    np.testing.assert_allclose(parts, [whole[0], whole[1] * 2 / 3, whole[1] / 3], rtol=1e-4)
    turned = at(probability, THREE[0][::-1], THREE[1][::-1, ::-1], THREE[2][::-1], 400.0, 2.5)[::-1]
    np.testing.assert_allclose(turned, at(probability, *THREE, 400.0, 2.5), rtol=1e-3)


def test_limits_and_balance() -> None:
    """R → π_c as t → ∞ and 1 as t → 0, never rises, and what leaves one of two classes enters the other: π_0(1 - R_0) = π_1(1 - R_1)."""
    times = np.linspace(0.05, 9, 60)
    with jax.enable_x64(True):
        curve = np.asarray(jax.jit(jax.vmap(return_probability, (None, None, None, None, 0)))(*TWO[:2], np.ones(2), 400.0, times))
        both = float(clone_agreement(*TWO[:2], np.ones(2), 400.0, 2.5))
    np.testing.assert_allclose(curve[0], 1, atol=1e-12)
    np.testing.assert_allclose(curve[-1], TWO[0], atol=1e-5)
    assert np.all(np.diff(curve, axis=0) < 1e-12)
    np.testing.assert_allclose(0.7 * (1 - curve[:, 0]), 0.3 * (1 - curve[:, 1]), atol=1e-12)
    assert both == pytest.approx(float(TWO[0] @ at(probability, *TWO[:2], np.ones(2), 400.0, 2.5)))


def test_speciation_time_is_where_half_of_the_certainty_is_gained() -> None:
    for numbers in (TWO, THREE, (np.array([0.999, 0.001]), GRAM, np.array([1.0, 1.0]))):
        times = at(found_times, *numbers, 400.0)
        for c, t in enumerate(times):
            assert at(probability, *numbers, 400.0, t)[c] == pytest.approx((1 + numbers[0][c]) / 2, abs=1e-9 if len(times) == 2 else 1e-3)
    assert np.all(np.isnan(at(found_times, [0.7, 0.3], GRAM * 0, [1.0, 1.0], 400.0)))  # one law twice


def test_scaling_laws() -> None:
    """½ log d for centroids at distance √d, ¼ log d for variances alone; a rarer class is decided later in the backward process."""
    dims = np.array([1e4, 1e6, 1e8])
    apart = np.array([at(found_times, *TWO, d)[1] for d in dims])
    norms = np.array([at(found_times, TWO[0], GRAM * 0, TWO[2], d)[1] for d in dims])
    assert loglog_slope(dims, np.exp(apart)) == pytest.approx(0.5, abs=1e-3)
    assert loglog_slope(dims, np.exp(norms)) == pytest.approx(0.25, abs=2e-3)
    rare = [at(found_times, [1 - w, w], GRAM, [1.0, 1.0], 400.0)[1] for w in (0.5, 0.1, 0.01, 1e-3)]
    assert np.all(np.diff(rare) < -0.05)


def test_balanced_limit_is_the_classical_time() -> None:
    """Two balanced classes at ±μ: t_s - ½ log Λ tends to one number, whatever ‖μ‖² is."""
    mirror = np.array([[1.0, -1.0], [-1.0, 1.0]])
    balanced = [0.5, 0.5], mirror, [1.0, 1.0]
    gaps = [at(found_times, *balanced, d)[0] - at(classical_time, *balanced, d) for d in (1e4, 1e6)]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4) and abs(gaps[0]) < 0.2
    assert at(classical_time, [0.5, 0.5], mirror, [1.0, 2.0], 400.0) == pytest.approx(math.log(401.5) / 2)


@pytest.mark.parametrize("numbers", [TWO, pytest.param(THREE, marks=pytest.mark.slow)], ids=["two", "three"])
def test_derivatives(numbers: Any) -> None:
    """Jacobian in weights, Gram matrix, variances and d along a random direction against central differences; the same under vmap."""
    rng = np.random.default_rng(0)
    k = len(numbers[0])
    change: tuple[Any, ...] = rng.normal(size=k) * 0.1, (lambda m: m + m.T)(rng.normal(size=(k, k)) * 0.1), rng.normal(size=k) * 0.1, 3.0
    h = 1e-4 if k == 2 else 3e-3
    point = (*numbers, 400.0)
    up, down = (at(found_times, *(v + s * h * w for v, w in zip(point, change, strict=True))) for s in (1, -1))
    with jax.enable_x64(True):
        batch = [jnp.stack([jnp.asarray(v, float)] * 2) for v in point]
        tangent = [jnp.stack([jnp.asarray(w, float), 2 * jnp.asarray(w, float)]) for w in change]
        _, slope = jax.jit(jax.vmap(lambda p, w: jax.jvp(speciation_times, p, w)))(tuple(batch), tuple(tangent))
    np.testing.assert_allclose(slope[0], (up - down) / (2 * h), rtol=1e-6 if k == 2 else 5e-3, atol=1e-6 if k == 2 else 2e-3)
    np.testing.assert_allclose(slope[1], 2 * np.asarray(slope[0]), rtol=1e-9)


def test_derivatives_where_the_covariance_is_singular() -> None:
    """Three classes on a line: moving one off it opens a direction in which a root of the covariance has no derivative, but R has."""
    places = np.array([0.6, 0.0, -1.0])
    line, off = np.outer(places, places), np.diag([0.0, 1.0, 0.0])
    numbers = THREE[0], line, np.ones(3), 400.0, 2.3
    h = 1e-3
    with jax.enable_x64(True):
        along = partial(return_probability, THREE[0], variances=jnp.ones(3), d=400.0, t=2.3)
        slope = np.asarray(jax.jit(lambda g, v: jax.jvp(along, (g,), (v,))[1])(line, off))
    near, far = (at(probability, numbers[0], line + s * off, *numbers[2:]) for s in (h, 2 * h))
    start = at(probability, *numbers)
    np.testing.assert_allclose(slope, (4 * near - far - 3 * start) / (2 * h), rtol=0.05, atol=0.02)
    assert np.abs(slope).max() > 0.3


@pytest.mark.parametrize("function", [return_probability, speciation_times, classical_time, clone_agreement])
def test_one_class_has_no_speciation(function: Any) -> None:
    rest = (0.5,) if function in (return_probability, clone_agreement) else ()
    with pytest.raises(ValueError, match="^weights: .*K >= 2, a single class has no speciation"):
        function(jnp.ones(1), jnp.ones((1, 1)), jnp.ones(1), 10.0, *rest)


def test_published_cloning_threshold() -> None:
    """At t_S = ½ log ‖μ‖² two balanced classes of unit variance at ±μ clone into one class with probability 0.775 (Biroli et al. 2024)."""
    numbers = [0.5, 0.5], [[1.0, -1.0], [-1.0, 1.0]], [1.0, 1.0]
    for d in (100.0, 1e4):
        assert at(clone_agreement, *numbers, d, math.log(d) / 2) == pytest.approx(0.775, abs=5e-4)
    rejects(lambda: np.testing.assert_allclose(at(clone_agreement, *numbers, 100.0, math.log(200) / 2), 0.775, atol=5e-4))
