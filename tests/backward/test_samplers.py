"""Backward samplers: weak orders by exact propagation of moments, laws of samples, refusals."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.backward import integrate, log_snr_grid, process, reduced, samplers
from rfdiff.diffusion import log_snr
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.noised_mixture import NoisedMixture
from tests.tolerances import assert_within, loglog_slope, rejects

MEAN, VARIANCE = 1.3, 0.3
MIXTURE = GaussianMixture(np.array([0.8, 0.2]), np.array([[0.5, 0.0], [-1.5, 1.5]]), np.array([[0.5, 1.5], [0.2, 0.2]]))
GRID = log_snr_grid(4.0, 0.02, 150)


def law(t: float) -> tuple[float, float]:
    return MEAN * math.exp(-t), VARIANCE * math.exp(-2 * t) - math.expm1(-2 * t)


def moment_errors(method: str, grid: np.ndarray, gain: float = 1.0) -> tuple[float, float]:
    """Errors of mean and variance at the end of a grid; a step of a Gaussian is affine, x' = A x + B ξ + c, so both propagate exactly."""

    def score(x: jax.Array, t: Any) -> jax.Array:
        return -gain * (x - MEAN * jnp.exp(-t)) / (VARIANCE * jnp.exp(-2 * t) - jnp.expm1(-2 * t))

    with jax.enable_x64(True):
        states, noises = jnp.array([[0.0], [1.0], [0.0]]), jnp.array([[0.0], [0.0], [1.0]])

        def moved(t: Any, t_next: Any) -> jax.Array:
            return jax.vmap(lambda x, noise: samplers.step(score, method, x, noise, t, t_next))(states, noises)[:, 0]

        moves = jax.jit(jax.vmap(moved))(grid[:-1], grid[1:])
    mean, variance = law(grid[0])
    for shift, by_state, by_noise in np.asarray(moves):
        A, B = by_state - shift, by_noise - shift
        mean, variance = A * mean + shift, A**2 * variance + B**2
    exact = law(grid[-1])
    return mean - exact[0], variance - exact[1]


@pytest.mark.parametrize(("method", "order"), [("euler-maruyama", 1), ("heun-sde", 2), ("heun-ode", 2)])
def test_weak_order_of_convergence(method: str, order: int) -> None:
    steps = np.array([80, 160, 320, 640])
    errors = np.array([moment_errors(method, log_snr_grid(3.0, 0.05, n)) for n in steps])
    for i in range(2):
        assert_order(errors[:, i], steps, order)
    rejects(lambda: assert_order(errors[:, 1], steps, 3 - order))
    assert np.all(np.abs(errors[-1]) < (2e-2 if order == 1 else 2e-4))
    wrong = [moment_errors(method, log_snr_grid(3.0, 0.05, n), gain=1.05) for n in steps]
    assert abs(loglog_slope(1 / steps, np.array(wrong)[:, 1])) < 0.5  # a wrong score: the error stays


def assert_order(values: np.ndarray, steps: np.ndarray, order: int) -> None:
    assert loglog_slope(1 / steps, values) == pytest.approx(order, abs=0.12)


def draws(noised: Any, labels: np.ndarray, t: float, seed: int = 0) -> np.ndarray:
    return process.draw_states(noised, jax.random.key(seed), labels, t)


@pytest.fixture(scope="module")
def start() -> np.ndarray:
    return draws(MIXTURE.noised, np.repeat([0, 1], [6400, 1600]), GRID[0])


def assert_law(x: np.ndarray, t: float, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> None:
    """Class fractions from the posterior, first and second moments weighted by it, against those of the noised mixture."""
    posterior = np.asarray(MIXTURE.posterior(x, t), float)
    count = len(x)
    assert_within(posterior.mean(0), posterior.std(0) / math.sqrt(count), weights, allowance=2e-3, max_stderr=0.01)
    for c in range(2):
        first = posterior[:, c, None] * (x - means[c]) / weights[c]
        assert_within(first.mean(0), first.std(0) / math.sqrt(count), np.zeros(2), allowance=3e-3, max_stderr=0.1)
        spread = (x - means[c])[:, :, None] * (x - means[c])[:, None, :] - np.diag(variances[c])
        second = posterior[:, c, None, None] * spread / weights[c]
        assert_within(second.mean(0), second.std(0) / math.sqrt(count), np.zeros((2, 2)), allowance=5e-3, max_stderr=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["euler-maruyama", "heun-sde", "heun-ode"])
def test_samples_of_the_exact_score_have_the_law_of_the_mixture(method: str, start: np.ndarray) -> None:
    """Class fractions, means and covariances in standard errors; a score without the factor of its weights fails."""
    t = GRID[-1]
    grid = log_snr_grid(GRID[0], t, 600) if method == "euler-maruyama" else GRID
    score = jax.tree_util.Partial(NoisedMixture.score, MIXTURE.noised)
    x, seen = integrate(score, start, grid, key=jax.random.key(1), method=method)
    assert seen is None and x.shape == (8000, 2) and x.dtype == np.float32
    decay = math.exp(-2 * t)
    expected = MIXTURE.weights, math.exp(-t) * MIXTURE.means, decay * MIXTURE.variances + 1 - decay
    assert_law(x, t, *expected)
    rejects(lambda: assert_law(x, t, np.array([0.77, 0.23]), *expected[1:]))
    rejects(lambda: assert_law(x, t, *expected[:2], expected[2][::-1]))
    if method == "heun-sde":
        balanced = NoisedMixture(np.array([0.5, 0.5]), MIXTURE.means, MIXTURE.variances)
        other, _ = integrate(jax.tree_util.Partial(NoisedMixture.score, balanced), start, grid, key=jax.random.key(1), method=method)
        rejects(lambda: assert_law(other, t, *expected))


def test_trajectories_do_not_depend_on_the_chunks(start: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    score = jax.tree_util.Partial(NoisedMixture.score, MIXTURE.noised)
    arguments: dict[str, Any] = {"score": score, "x": start[:10], "times": GRID[:11], "key": jax.random.key(3)}
    arguments["observe"] = first_coordinate
    whole, path = integrate(**arguments)
    assert path.shape == (10, 11)
    np.testing.assert_array_equal(path[:, [0, -1]], np.stack([start[:10, 0], whole[:, 0]], axis=1))
    monkeypatch.setattr(samplers, "CHUNK_BYTES", 4 * 2 * 4 * samplers.ARRAYS)
    assert samplers.chunk_of(2, 10, np.float32) == 4
    told: list[tuple[int, int]] = []
    parts, path_of_parts = integrate(**arguments, progress=lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(path_of_parts, path, rtol=1e-5, atol=1e-6)
    assert told == [(4, 10), (8, 10), (10, 10)]


def first_coordinate(x: jax.Array, t: jax.Array) -> jax.Array:
    return x[0]


def test_a_second_call_compiles_nothing(start: np.ndarray) -> None:
    arguments: Any = (start[:10], GRID[:11])
    size = getattr(samplers._run, "_cache_size")  # noqa: B009 - it has no type
    integrate(jax.tree_util.Partial(NoisedMixture.score, MIXTURE.noised), *arguments, key=jax.random.key(3))
    before = size()
    other = NoisedMixture(np.array([0.5, 0.5]), MIXTURE.means, MIXTURE.variances)
    integrate(jax.tree_util.Partial(NoisedMixture.score, other), *arguments, key=jax.random.key(3))
    assert size() == before


def test_grid_is_uniform_in_log_snr() -> None:
    grid = log_snr_grid(5.0, 1e-3, 40)
    steps = np.diff(log_snr(grid))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)
    assert grid[0] == 5.0 and grid[-1] == 1e-3 and np.all(np.diff(grid) < 0)
    assert grid[1] == pytest.approx(5 - steps[0] / 2, rel=1e-3) and grid[-2] / grid[-1] == pytest.approx(math.exp(steps[0]), rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.0, 10), "^t_end: 0.0; allowed: a finite number > 0"),
        ((1.0, math.nan, 10), "^t_end: nan"),
        ((1.0, 2.0, 10), "^t_start: 1.0; allowed: t_end = 2 < t_start"),
        ((1.0, 0.1, 0), "^num_steps: 0; allowed: an integer from 1"),
        ((1.0, 0.1, 2.5), "^num_steps: 2.5"),
    ],
)
def test_bad_grids(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        log_snr_grid(*arguments)


def linear(x: jax.Array, t: jax.Array) -> jax.Array:
    return -x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [1.0, 0.5, 0.5]}, r"^times: \[0.5, 0.5\] at 1, 2; allowed: strictly decreasing"),
        ({"times": [1.0, 0.5, 0.0]}, "^times: 0 at 2; allowed: finite times > 0"),
        ({"times": [0.5, 1.0]}, "strictly decreasing"),
        ({"times": [0.5]}, "at least 2 times"),
        ({"method": "leapfrog"}, "^method: 'leapfrog'; allowed: euler-maruyama"),
        ({"x": np.zeros(3)}, r"^x: shape \(3,\) of float64; allowed: \(N, d\)"),
        ({"x": np.zeros((3, 2), int)}, "floating numbers"),
        ({"score": lambda x, t: x[0]}, r"^score: returns shape \(\) at a point of shape \(2,\); allowed: the same"),
        ({"score": lambda x, t: (x, x)}, "^score: returns shape None"),
        (
            {"score": lambda x, t: jnp.where(t < 0.4, jnp.nan, -x)},
            "^score: trajectory 0 is not finite after step 1 of 2, from t = 0.5 to 0.3; allowed: finite scores",
        ),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    arguments = {"score": linear, "x": np.ones((3, 2)), "times": [1.0, 0.5, 0.3], "key": jax.random.key(0), **change}
    with pytest.raises(InputError, match=message):
        integrate(**arguments)


def test_too_large_for_memory() -> None:
    with pytest.raises(InputError, match=r"^d: 1000000000 trajectories in 16384 dimensions need about .* GiB of .* GiB; allowed: about"):
        samplers.chunk_of(16384, 10**9, np.float32)


@pytest.mark.slow  # U-turns of both in test_decisions say it by default
@pytest.mark.parametrize("method", ["heun-sde", "heun-ode"])
def test_reduction_has_the_law_of_the_full_process(method: str) -> None:
    """Two isotropic classes of different variance in d = 12: span coordinate, norm across and posterior, full against reduced."""
    d = 12
    means = np.zeros((2, d))
    means[0, 3], means[1, 3] = 1.5, -0.5
    noised = GaussianMixture(np.array([0.6, 0.4]), means, np.repeat([[1.6], [0.3]], d, axis=1)).noised
    small = reduced(noised)
    assert small is not None and small.num_classes == 2
    labels, grid = np.repeat([0, 1], [2400, 1600]), log_snr_grid(0.8, 0.05, 96)
    x = draws(noised, labels, grid[0], 5)
    full, _ = integrate(jax.tree_util.Partial(NoisedMixture.score, noised), x, grid, key=jax.random.key(6), method=method)
    score = jax.tree_util.Partial(type(small).score, small)
    with jax.enable_x64(True):
        few, _ = integrate(score, draws(small, labels, grid[0], 7), grid, key=jax.random.key(8), method=method, space=small.space)
    sign = np.sign(small.coordinates[0, 0])
    one = np.stack([full[:, 3], np.sum(np.delete(full, 3, axis=1) ** 2, axis=1)], axis=1)
    two = np.stack([sign * few[:, 0], few[:, 1] ** 2], axis=1)
    posteriors = np.asarray(noised.posterior(full, grid[-1])), process._posteriors(small, few, grid[-1])

    def moments(z: np.ndarray, posterior: np.ndarray) -> np.ndarray:
        return np.concatenate([z, z**2, np.prod(z, axis=1, keepdims=True), posterior], axis=1)

    a, b = moments(one, posteriors[0]), moments(two, posteriors[1])
    stderr = np.sqrt((a.var(0) + b.var(0)) / len(a))
    assert_within(a.mean(0), stderr, b.mean(0))
    two[:, 1] *= (d - 2) / (d - 1)
    rejects(lambda: assert_within(a.mean(0), stderr, moments(two, posteriors[1]).mean(0)))


def test_what_cannot_be_reduced() -> None:
    assert reduced(MIXTURE.noised) is None  # anisotropic
    assert reduced(NoisedMixture(np.ones(1), np.ones((1, 2)), np.ones((1, 2)))) is None  # one dimension across the centroids
