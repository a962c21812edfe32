"""Return probabilities and speciation times: sampling, identities, scaling laws, derivatives."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from rfdiff.backward import (
    BackwardProcess,
    classical_time,
    clone_agreement,
    potential_times,
    return_probability,
    speciation_times,
    well_times,
)
from rfdiff.backward.averages import logistic_average
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from tests.tolerances import assert_within, loglog_slope, rejects

GRAM = np.array([[1.0, 0.2], [0.2, 0.5]])
MIRROR = np.array([[1.0, -1.0], [-1.0, 1.0]])
TWO = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.5], GRAM)
EQUAL = MixtureLaw.isotropic([0.7, 0.3], [1.0, 1.0], GRAM)
THREE = MixtureLaw.isotropic([0.6, 0.3, 0.1], [1.5, 0.5, 1.0], np.diag([1.0, 0.5, 2.0]))
BALANCED = MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], MIRROR)


def law(weights: Any, variances: Any, gram: Any = GRAM) -> MixtureLaw:
    return MixtureLaw.isotropic(weights, variances, gram)


@pytest.mark.parametrize("variance", [0.0, 1e-6, 0.5, 0.99, 1.01, 30.0, 1e4])
def test_logistic_average(variance: float) -> None:
    for mean in (-7.0, 0.3, 40.0):
        std = math.sqrt(variance)
        weight = partial(weighted, mean, std)
        points = [min(max(-mean / std, -9), 9)] if std else [0]
        expected = quad(weight, -10, 10, points=points, epsabs=1e-13, epsrel=1e-12, limit=400)[0]
        with jax.enable_x64(True):
            assert float(logistic_average(jnp.asarray(mean), jnp.asarray(variance))) == pytest.approx(expected, rel=1e-10, abs=1e-12)


def weighted(mean: float, std: float, z: float) -> float:
    return expit(mean + std * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def sampled(mixture: MixtureLaw, d: int, t: float, num: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """R_c and its standard error from samples of x_t of each class."""
    process = BackwardProcess(GaussianMixture.from_law(mixture, d, jax.random.key(0)))
    labels = np.repeat(np.arange(mixture.num_classes), num)
    posterior = process.posterior(process.draw(jax.random.key(1), labels, t), t)
    of_class = posterior[np.arange(len(labels)), labels].reshape(-1, num)
    return of_class.mean(axis=1), of_class.std(axis=1) / math.sqrt(num)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("weights", "variances", "t"),
    [([0.5, 0.5], [1.0, 1.0], 2.8), ([0.5, 0.5], [1.5, 0.5], 2.8), ([0.95, 0.05], [0.8, 0.8], 2.5), ([0.99, 0.01], [0.5, 1.5], 2.3)],
)
def test_sampling_at_d_400(weights: list[float], variances: list[float], t: float) -> None:
    mixture = law(weights, variances)
    estimate, stderr = sampled(mixture, 400, t)
    predicted, later = return_probability(mixture, [t, t + 0.1], d=400)
    assert 0.1 < (predicted[1] - weights[1]) / (1 - weights[1]) < 0.9
    assert_within(estimate, stderr, predicted, allowance=5e-4)
    rejects(lambda: assert_within(estimate, stderr, later, allowance=5e-4))
    if weights[0] != weights[1]:
        swapped = return_probability(law(weights[::-1], variances), t, d=400)
        rejects(lambda: assert_within(estimate, stderr, swapped, allowance=5e-4))


@pytest.mark.thorough
def test_the_norm_tells_classes_apart_that_share_their_centroid() -> None:
    mixture, same = law([0.8, 0.2], [1.4, 0.7], np.zeros((2, 2))), law([0.8, 0.2], [1.0, 1.0], np.zeros((2, 2)))
    estimate, stderr = sampled(mixture, 4000, 1.5)
    assert_within(estimate, stderr, return_probability(mixture, 1.5, d=4000), allowance=2e-3)
    without = return_probability(same, 1.5, d=4000)
    np.testing.assert_allclose(without, [0.8, 0.2], atol=1e-12)
    rejects(lambda: assert_within(estimate, stderr, without, allowance=2e-3))


@pytest.mark.thorough
def test_equal_variances_are_exact_in_any_dimension() -> None:
    """With r = 1 the log-odds are Gaussian at every d: no O(1/√d) at d = 5."""
    mixture = law([0.7, 0.3], [0.6, 0.6])
    estimate, stderr = sampled(mixture, 5, 0.3)
    assert_within(estimate, stderr, return_probability(mixture, 0.3, d=5))
    rejects(lambda: assert_within(estimate, stderr, return_probability(mixture, 0.3, d=6)))


@pytest.mark.thorough
def test_three_classes_against_sampling_and_merged_twins() -> None:
    estimate, stderr = sampled(THREE, 400, 2.5)
    predicted = return_probability(THREE, 2.5, d=400)
    assert_within(estimate, stderr, predicted, allowance=1e-3)
    wrong = law(THREE.weights, THREE.variances, THREE.centroid_gram[::-1, ::-1])
    rejects(lambda: assert_within(estimate, stderr, return_probability(wrong, 2.5, d=400), allowance=1e-3))
    split = np.array([0, 1, 1])
    whole = return_probability(TWO, 2.5, d=400)
    parts = return_probability(law([0.7, 0.2, 0.1], TWO.variances[split], GRAM[np.ix_(split, split)]), 2.5, d=400)
    np.testing.assert_allclose(parts, [whole[0], whole[1] * 2 / 3, whole[1] / 3], rtol=1e-4)
    turned = law(THREE.weights[::-1], THREE.variances[::-1], THREE.centroid_gram[::-1, ::-1])
    np.testing.assert_allclose(return_probability(turned, 2.5, d=400)[::-1], predicted, rtol=1e-3)


def test_limits_and_balance() -> None:
    """R → π_c as t → ∞ and 1 as t → 0, never rises, and what leaves one of two classes enters the other: π_0(1 - R_0) = π_1(1 - R_1)."""
    curve = return_probability(EQUAL, np.linspace(0.05, 9, 60), d=400)
    assert curve.dtype == np.float64 and curve.shape == (60, 2)
    np.testing.assert_allclose(curve[0], 1, atol=1e-12)
    np.testing.assert_allclose(curve[-1], EQUAL.weights, atol=1e-5)
    assert np.all(np.diff(curve, axis=0) < 1e-12)
    np.testing.assert_allclose(0.7 * (1 - curve[:, 0]), 0.3 * (1 - curve[:, 1]), atol=1e-12)
    np.testing.assert_allclose(clone_agreement(EQUAL, [2.5, 3.0], d=400), return_probability(EQUAL, [2.5, 3.0], d=400) @ EQUAL.weights)


def test_two_classes_have_one_time_where_their_variances_agree_and_to_order_one_over_d_elsewhere() -> None:
    """The identity π_0(1 - R_0) = π_1(1 - R_1) is exact; the Gaussian log-odds of the closed form keep it for equal variances alone."""
    dims = np.array([50, 200, 800, 3200])
    equal = np.array([speciation_times(EQUAL, d=d) for d in dims])
    np.testing.assert_allclose(equal[:, 0], equal[:, 1], rtol=1e-12)
    apart = np.array([np.ptp(speciation_times(TWO, d=d)) for d in dims])
    assert loglog_slope(dims, apart) == pytest.approx(-1, abs=0.15)
    assert apart[0] > 1e-3


@pytest.mark.thorough
def test_speciation_time_is_where_half_of_the_certainty_is_gained() -> None:
    for mixture in (TWO, THREE, law([0.999, 0.001], [1.0, 1.0])):
        times = speciation_times(mixture, d=400)
        found = np.diagonal(return_probability(mixture, times, d=400))
        accuracy = 1e-9 if len(times) == 2 else 1e-3
        np.testing.assert_allclose(found, (1 + mixture.weights) / 2, rtol=0, atol=accuracy)
    assert np.all(np.isnan(speciation_times(law([0.7, 0.3], [1.0, 1.0], GRAM * 0), d=400)))  # one law twice


def test_scaling_laws() -> None:
    """½ log d for centroids at distance √d, ¼ log d for variances alone; a rarer class is decided later in the backward process."""
    dims = np.array([1e4, 1e6, 1e8])
    apart = np.array([speciation_times(TWO, d=d)[1] for d in dims])
    norms = np.array([speciation_times(law(TWO.weights, TWO.variances, GRAM * 0), d=d)[1] for d in dims])
    assert loglog_slope(dims, np.exp(apart)) == pytest.approx(0.5, abs=1e-3)
    assert loglog_slope(dims, np.exp(norms)) == pytest.approx(0.25, abs=2e-3)
    rare = [speciation_times(law([1 - w, w], [1.0, 1.0]), d=400)[1] for w in (0.5, 0.1, 0.01, 1e-3)]
    assert np.all(np.diff(rare) < -0.05)


def test_balanced_limit_is_the_classical_time() -> None:
    """Two balanced classes at ±μ: t_s - ½ log Λ tends to one number, whatever ‖μ‖² is."""
    gaps = [speciation_times(BALANCED, d=d)[0] - classical_time(BALANCED, d=d) for d in (1e4, 1e6)]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4) and abs(gaps[0]) < 0.2
    assert classical_time(law([0.5, 0.5], [1.0, 2.0], MIRROR), d=400) == pytest.approx(math.log(401.5) / 2)


def moved(mixture: MixtureLaw, change: MixtureLaw, step: float) -> MixtureLaw:
    """A law a step along a direction (a law-shaped tree of numbers)."""
    return jax.tree.map(lambda value, slope: value + step * slope, mixture, change)


@pytest.mark.thorough
@pytest.mark.parametrize("mixture", [TWO, pytest.param(THREE, marks=pytest.mark.slow)], ids=["two", "three"])
def test_derivatives(mixture: MixtureLaw) -> None:
    """Jacobian in the law and d along a random direction against central differences; the same under vmap."""
    rng = np.random.default_rng(0)
    k = mixture.num_classes
    gram = rng.normal(size=(k, k)) * 0.1
    with jax.enable_x64(True):
        still = jax.tree.map(np.zeros_like, mixture)
    changed = {"weights": rng.normal(size=k) * 0.1, "centroid_gram": gram + gram.T, "eigenvalues": rng.normal(size=(1, k)) * 0.1}
    for name, value in changed.items():
        object.__setattr__(still, name, value)
    h = 1e-4 if k == 2 else 3e-3

    def times(mixture: MixtureLaw, d: Any) -> Any:
        return speciation_times(mixture, d=d)

    with jax.enable_x64(True):
        compiled = jax.jit(times)
        up, down = (np.asarray(compiled(moved(mixture, still, s * h), 400 + s * h * 3)) for s in (1, -1))
        batch = jax.tree.map(lambda v: jnp.stack([jnp.asarray(v, float)] * 2), (mixture, 400.0))
        tangent = jax.tree.map(lambda w: jnp.stack([jnp.asarray(w, float), 2 * jnp.asarray(w, float)]), (still, 3.0))
        _, slope = jax.jit(jax.vmap(lambda p, w: jax.jvp(times, p, w)))(batch, tangent)
    np.testing.assert_allclose(slope[0], (up - down) / (2 * h), rtol=1e-6 if k == 2 else 5e-3, atol=1e-6 if k == 2 else 2e-3)
    np.testing.assert_allclose(slope[1], 2 * np.asarray(slope[0]), rtol=1e-9)


def test_derivatives_where_the_covariance_is_singular() -> None:
    """Three classes on a line: moving one off it opens a direction in which a root of the covariance has no derivative, but R has."""
    places = np.array([0.6, 0.0, -1.0])
    line, off = np.outer(places, places), np.diag([0.0, 1.0, 0.0])
    h = 1e-3

    def along(step: Any) -> Any:
        mixture = MixtureLaw(THREE.weights, np.ones((1, 3)), np.ones(1), jnp.asarray(line) + step * off)
        return return_probability(mixture, 2.3, d=400)

    with jax.enable_x64(True):
        start, slope = map(np.asarray, jax.jit(lambda s: jax.jvp(along, (s,), (jnp.ones_like(s),)))(0.0))
    near, far = (return_probability(law(THREE.weights, np.ones(3), line + s * off), 2.3, d=400) for s in (h, 2 * h))
    np.testing.assert_allclose(slope, (4 * near - far - 3 * start) / (2 * h), rtol=0.05, atol=0.02)
    assert np.abs(slope).max() > 0.3


CLOSED_FORMS: list[Callable[[MixtureLaw, Any], Any]] = [
    lambda law, d: speciation_times(law, d=d),
    lambda law, d: classical_time(law, d=d),
    lambda law, d: potential_times(law, d=d),
    lambda law, d: well_times(law, d=d),
    lambda law, d: return_probability(law, 0.5, d=d),
    lambda law, d: clone_agreement(law, 0.5, d=d),
]


@pytest.mark.parametrize("function", CLOSED_FORMS)
def test_refusals(function: Callable[[MixtureLaw, Any], Any]) -> None:
    with pytest.raises(InputError, match="^weights: .*K >= 2, since a single class has no speciation"):
        function(MixtureLaw.isotropic([1.0], [1.0]), 10)
    for d in (0, math.nan, math.inf, "x", True):
        with pytest.raises(InputError, match="^d: .*; allowed: a finite number >= 1"):
            function(TWO, d)
    built = MixtureLaw.from_covariances([0.7, 0.3], np.stack([1.5 * np.eye(8), 0.5 * np.eye(8)]))
    with pytest.raises(InputError, match="^d: 10; allowed: 8, the dimension of the covariances"):
        function(built, 10)


def test_laws_that_are_not_isotropic_are_not_traced() -> None:
    """All but the wells, which take the variance along a random direction."""
    anisotropic = MixtureLaw([0.7, 0.3], [[1.5, 0.6], [0.5, 0.6]], [0.5, 0.5], GRAM)
    for function in (*CLOSED_FORMS[:2], *CLOSED_FORMS[4:]):
        with pytest.raises(InputError, match="^law: the classes are not isotropic, and traced by JAX; allowed: covariances σ_c² I"):
            jax.jit(lambda law, f=function: f(law, 10))(anisotropic)
        with pytest.raises(InputError, match="^law: the classes are not isotropic, and traced by JAX"):
            jax.jit(lambda d, f=function: f(anisotropic, d))(10)


def test_bad_times() -> None:
    for function in (return_probability, clone_agreement):
        for times in (0.0, [1.0, -1.0], math.nan):
            with pytest.raises(InputError, match="^times: .*; allowed: diffusion times > 0"):
                function(TWO, times, d=10)


def test_laws_given_as_matrices_and_numpy_scalars() -> None:
    """Isotropic covariances given as matrices are isotropic; d may be any number type."""
    built = MixtureLaw.from_covariances([0.7, 0.3], np.stack([1.5 * np.eye(8), 0.5 * np.eye(8)]), np.zeros((2, 8)))
    same = law([0.7, 0.3], [1.5, 0.5], np.zeros((2, 2)))
    for d in (np.int64(8), np.float64(8), np.asarray(8), jnp.asarray(8)):
        np.testing.assert_allclose(return_probability(built, [0.5], d=d), return_probability(same, [0.5], d=8), rtol=1e-12)


def test_published_cloning_threshold() -> None:
    """At t_S = ½ log ‖μ‖² two balanced classes of unit variance at ±μ clone into one class with probability 0.775 (Biroli et al. 2024)."""
    for d in (100.0, 1e4):
        assert clone_agreement(BALANCED, math.log(d) / 2, d=d) == pytest.approx(0.775, abs=5e-4)
    rejects(lambda: np.testing.assert_allclose(clone_agreement(BALANCED, math.log(200) / 2, d=100), 0.775, atol=5e-4))
