"""The spectral losses against training itself: real gradient steps, a matrix exponential, direct solves."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest
from scipy.linalg import expm

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Nesterov, Ridge, Rule
from rfdiff.simulation import gradient_flow as module
from rfdiff.simulation.features import Sizes, clean_samples, first_layer, sizes_at
from rfdiff.simulation.gradient_flow import FlowResult, flow_losses, zero_rounding
from rfdiff.simulation.moments import Moments
from rfdiff.simulation.replica import replica_mixture, replica_moments
from rfdiff.simulation.replica_memory import layout_for
from tests.tolerances import rejects

LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
D = 8


class Setup(NamedTuple):
    problem: Problem
    sizes: Sizes
    train: Moments
    test: Moments
    phi: np.ndarray  # (draws, n, p) features of the noised training samples
    noise: np.ndarray  # (draws, n, d)


@functools.cache
def setup(draws: float, psi_p: float = 2.0) -> Setup:
    """A tiny network: p = 16, n = 12, so that p exceeds n m at m = 1 and stays below it at m = 2."""
    problem = Problem(LAW, "tanh", 0.3, psi_p, 1.5, draws)
    sizes = sizes_at(problem, D)
    mixture, keys = replica_mixture(problem, D, jax.random.key(2))
    with jax.enable_x64(True):
        moments = jax.jit(replica_moments, static_argnums=3)
        train, test = jax.tree.map(np.asarray, moments(problem, mixture, keys, layout_for(problem, sizes, "float64")))
        W = np.asarray(first_layer(keys[0], sizes, jnp.float64))
        x = np.asarray(clean_samples(keys[1], mixture, sizes, jnp.float64))
        shapes = range(int(draws) if np.isfinite(draws) else 0)
        noise = np.array([jax.random.normal(jax.random.fold_in(keys[2], r), x.shape, jnp.float32) for r in shapes], np.float64)
    noised = np.exp(-0.3) * x + np.sqrt(-np.expm1(-0.6)) * noise if len(noise) else np.zeros((0, *x.shape))
    return Setup(problem, sizes, train, test, np.tanh(noised @ W.T / np.sqrt(D)), noise)


def losses(case: Setup, rule: Rule, taus: Any) -> tuple[np.ndarray, FlowResult]:
    schedule, clock = rule.schedule(taus, case.problem.kappa)
    with jax.enable_x64(True):
        result = flow_losses(jax.tree.map(jnp.asarray, case.train), case.test, case.sizes, rule, clock, case.problem.kappa)
        return schedule, jax.tree.map(np.asarray, result)


def direct(case: Setup, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Train and test losses (K,) of a readout A (d, p), by the definition L = (1/d) E‖√Δ A φ/√p + ξ‖²."""
    delta, p = -np.expm1(-0.6), case.sizes.p

    def loss(moments: Moments, c: int) -> float:
        quadratic, linear = np.trace(A @ moments.U[c] @ A.T), np.trace(A @ moments.V[c])
        return float(moments.untrained_loss[c] + (delta / p * quadratic + 2 * np.sqrt(delta / p) * linear) / D)

    return np.array([loss(case.train, c) for c in range(2)]), np.array([loss(case.test, c) for c in range(2)])


def mean_moments(case: Setup) -> tuple[np.ndarray, np.ndarray]:
    shares = np.array(case.sizes.counts) / case.sizes.n
    return np.einsum("c,cij->ij", shares, np.stack(case.train.U)), np.einsum("c,cij->ij", shares, np.stack(case.train.V))


def readout(case: Setup, fV: np.ndarray) -> np.ndarray:
    """A = -√(p/Δ) Vᵀ f(U)."""
    return -np.sqrt(case.sizes.p / -np.expm1(-0.6)) * fV.T


PRACTISED = Nesterov(0.5, 0.6, weight_decay=0.05, averaging=0.7)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(GradientDescent(0.5), marks=pytest.mark.thorough),
        pytest.param(HeavyBall(0.5, 0.8), marks=pytest.mark.thorough),
        PRACTISED,
    ],
    ids=["plain", "heavy", "practised"],
)
@pytest.mark.parametrize("draws", [1, 2])
def test_discrete_rules_are_a_loop_of_gradient_steps(rule: HeavyBall, draws: int) -> None:
    case = setup(draws)
    schedule, result = losses(case, rule, [0.5, 2.0, 20.0])
    with jax.enable_x64(True):
        phi, noise, delta = jnp.asarray(case.phi), jnp.asarray(case.noise), -np.expm1(-0.6)

        def residuals(A: jax.Array) -> jax.Array:
            return jnp.sqrt(delta / case.sizes.p) * phi @ A.T + noise

        # gradient flow is dA/dτ = -d² ∇L, so a step of η in units of τ is one of η d² along the gradient
        sgd = optax.sgd(float(rule.step_size) * D**2, momentum=float(rule.momentum), nesterov=isinstance(rule, Nesterov))
        optimizer = optax.chain(optax.add_decayed_weights(case.problem.kappa * float(rule.weight_decay) / D**2), sgd)
        average = optax.ema(float(rule.averaging or 0.0), debias=False)
        gradient = jax.grad(lambda A: jnp.sum(jnp.mean(residuals(A) ** 2, axis=(0, 1))) / D)

        @jax.jit
        def step(A: jax.Array, state: Any) -> Any:
            updates, inner = optimizer.update(gradient(A), state[0], A)
            A = optax.apply_updates(A, updates)
            mean, averaged = average.update(A, state[1])
            return A, (inner, averaged), mean

        weights = jnp.zeros((D, case.sizes.p))
        state, stops = (optimizer.init(weights), average.init(weights)), np.cumsum((0, *case.sizes.counts))
        for count in range(1, 41):
            weights, state, A = step(weights, state)
            where = np.flatnonzero(np.isclose(schedule, count * 0.5))
            for i in where:
                squares = np.asarray(residuals(A)) ** 2
                train = [squares[:, a:b].sum(-1).mean() / D for a, b in itertools.pairwise(stops)]
                np.testing.assert_allclose(result.train_loss[i], train, rtol=1e-11)
                np.testing.assert_allclose(result.test_loss[i], direct(case, np.asarray(A))[1], rtol=1e-11)
    assert result.train_loss[-1].max() < 0.9 * result.train_loss[0].min()  # something was trained


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [1, np.inf])
def test_flow_against_the_matrix_exponential(draws: float) -> None:
    case = setup(draws)
    U, V = mean_moments(case)
    p, kappa, taus = case.sizes.p, case.problem.kappa, [0.0, 0.3, 7.0, 400.0]
    _, result = losses(case, GradientFlow(), taus)
    # dB/dτ = κ (V - U B) from B = 0, as one linear system for (B, 1): no eigenvectors, no division by eigenvalues
    generator = np.block([[-kappa * U, kappa * V], [np.zeros((D, p)), np.zeros((D, D))]])
    for i, tau in enumerate(taus):
        train, test = direct(case, readout(case, expm(tau * generator)[:p, p:]))
        np.testing.assert_allclose(result.train_loss[i], train, rtol=1e-10)
        np.testing.assert_allclose(result.test_loss[i], test, rtol=1e-10)
    np.testing.assert_array_equal(result.test_loss[0], 1.0)

    def other_unit() -> None:
        np.testing.assert_allclose(losses(case, GradientFlow(), [0.6, 14.0])[1].train_loss, result.train_loss[1:3], rtol=1e-3)

    rejects(other_unit)  # a factor 2 in κ


def test_ridge_against_a_direct_solve() -> None:
    case, penalties = setup(1), np.array([1e-3, 0.1, 2.0])
    U, V = mean_moments(case)
    schedule, result = losses(case, Ridge(penalties), None)
    np.testing.assert_allclose(schedule, 1 / (case.problem.kappa * penalties), rtol=1e-14)
    for i, penalty in enumerate(penalties):
        train, test = direct(case, readout(case, np.linalg.solve(U + penalty * np.eye(len(U)), V)))
        np.testing.assert_allclose(result.train_loss[i], train, rtol=1e-10)
        np.testing.assert_allclose(result.test_loss[i], test, rtol=1e-10)


@pytest.mark.parametrize("draws", [1, *(pytest.param(m, marks=pytest.mark.thorough) for m in (2, np.inf))])
def test_convergence_is_the_pseudo_inverse(draws: float) -> None:
    case = setup(draws)
    U, V = mean_moments(case)
    _, result = losses(case, GradientFlow(), [1e13, np.inf])
    rank = case.sizes.rank
    values, vectors = np.linalg.eigh(U)
    inverse = np.concatenate([np.zeros(len(U) - rank), 1 / values[len(U) - rank :]])
    train, test = direct(case, readout(case, vectors @ (inverse[:, None] * (vectors.T @ V))))
    np.testing.assert_allclose(result.train_loss[1], train, atol=1e-9)
    np.testing.assert_allclose(result.test_loss[1], test, rtol=1e-8)
    np.testing.assert_allclose(result.train_loss[0], result.train_loss[1], atol=1e-9)
    np.testing.assert_allclose(result.test_loss[0], result.test_loss[1], rtol=1e-8)


def test_zero_modes_and_interpolation() -> None:
    case = setup(1)
    assert case.sizes.p == 16 and case.sizes.rank == 12
    _, result = losses(case, GradientFlow(), [1.0, np.inf])
    np.testing.assert_array_equal(result.eigenvalues[:4], 0.0)
    np.testing.assert_array_equal(result.class_weights[:4], 0.0)
    assert np.all(result.eigenvalues[4:] > 0)
    # more features than noised samples: the network reproduces every stored draw, so the train loss ends at 0 (with the draws' own
    # ‖ξ‖²/d as its leading term; with 1 in its place it would not)
    np.testing.assert_allclose(result.train_loss[1], 0.0, atol=1e-10)
    assert np.all(np.abs(case.train.untrained_loss - 1) > 1e-3)


@pytest.mark.parametrize("draws", [1, *(pytest.param(m, marks=pytest.mark.thorough) for m in (2, np.inf))])
def test_class_weights_sum_to_one_over_p(draws: float) -> None:
    case = setup(draws)
    _, result = losses(case, GradientFlow(), [1.0])
    sums, p = result.class_weights.sum(axis=1), case.sizes.p
    np.testing.assert_allclose(sums[result.eigenvalues > 0], 1 / p, rtol=1e-12)
    U, _ = mean_moments(case)
    values, vectors = np.linalg.eigh(U)
    own = np.einsum("ia,ij,ja->a", vectors, case.train.U[1], vectors) * case.sizes.counts[1] / case.sizes.n
    np.testing.assert_allclose(result.class_weights[-8:, 1], (own / (p * values))[-8:], rtol=1e-9)


@pytest.mark.thorough
def test_panels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case, taus = setup(np.inf), [0.5, 50.0, np.inf]
    _, whole = losses(case, GradientFlow(), taus)
    monkeypatch.setattr(module, "MIN_PANELLED", 1)
    _, panelled = losses(case, GradientFlow(), taus)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(panelled), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_zero_rounding() -> None:
    with jax.enable_x64(True):
        values = jnp.asarray([-1e-17, 3e-16, 1e-12, 1.0])
        np.testing.assert_array_equal(zero_rounding(values, 4), [0.0, 0.0, 1e-12, 1.0])
        np.testing.assert_array_equal(zero_rounding(values, 1), [0.0, 0.0, 0.0, 1.0])
