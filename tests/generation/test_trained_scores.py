"""Scores of trained networks on a grid of times: against the exact flow's losses, refusals, and the empirical score as a limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, generation, simulation
from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance
from rfdiff.noised_mixture import NoisedMixture
from rfdiff.simulation.features import sizes_at
from rfdiff.simulation.replica import replica_moments
from rfdiff.simulation.replica_memory import layout_for
from tests.tolerances import rejects

LAW = MixtureLaw.isotropic([0.7, 0.3], [1.0, 0.5], [[0.5, -0.5], [-0.5, 0.5]])
TIMES, TAUS, D = np.array([1.0, 0.3, 0.1]), np.array([1.0, 100.0, np.inf]), 16


def problem(t: float = 0.1, draws: float = np.inf) -> Problem:
    return Problem(LAW, "tanh", t=t, psi_p=2.0, psi_n=2.0, noise_draws=draws)


def losses(network: generation.TrainedNetwork, t: float, place: int, asked: Problem) -> np.ndarray:
    """Test losses (T, K) of the readouts at one t, L_c = 1 + (2√Δ/d) tr B V_c + (Δ/d) tr B U_c Bᵀ."""
    sizes = sizes_at(asked, D)
    key = jax.random.fold_in(jax.random.key(3), np.uint32(0))
    keys = tuple(jax.random.fold_in(key, part) for part in range(1, 4))
    with jax.enable_x64(True):
        test = replica_moments(asked, network.mixture, keys, layout_for(asked, sizes, "float64"))[1]  # type: ignore[arg-type]
        delta = float(noise_variance(t))
        U, V = np.asarray(test.U), np.asarray(test.V)
    B = network.readouts[:, place]
    linear = np.einsum("tdp,cpd->tc", B, V)
    return 1 + (2 * np.sqrt(delta) * linear + delta * np.einsum("tdp,cpq,tdq->tc", B, U, B)) / D


@pytest.mark.parametrize("draws", [pytest.param(np.inf, marks=pytest.mark.thorough), pytest.param(2, marks=pytest.mark.slow)])
def test_readouts_are_those_of_the_exact_flow(draws: float) -> None:
    asked = problem(draws=draws)
    key = jax.random.key(3)
    network = generation.train(asked, TAUS, d=D, times=TIMES, key=jax.random.fold_in(key, np.uint32(0)), dtype="float64")
    expected = simulation.run_seeds(asked, TAUS, d=D, key=key, seeds=[0], dtype="float64").test_loss[0]
    assert network.readouts.shape == (3, 3, D, 32)

    def agree(place: int) -> None:
        np.testing.assert_allclose(losses(network, 0.1, place, asked), expected, rtol=1e-6)

    agree(2)
    rejects(lambda: agree(1))  # the readout of another time


def test_the_score_is_that_of_the_nearest_time() -> None:
    activation = Activation("line", lambda x: x)
    score = generation.GridScore(np.eye(2), np.array([np.eye(2), 2 * np.eye(2)]), np.array([1.0, 0.1]), activation)
    x = jnp.array([1.0, -2.0])
    assert score(x, 0.9) == pytest.approx(np.array([1, -2]) / np.sqrt(2))
    assert score(x, 0.2) == pytest.approx(np.array([2, -4]) / np.sqrt(2))


def test_the_empirical_score_is_that_of_points() -> None:
    points = np.array([[1.0, 0.0], [-1.0, 2.0], [0.5, 0.5]])
    law = NoisedMixture(np.full(3, 1 / 3), points, np.zeros((3, 2)))
    with jax.enable_x64(True):
        x = jnp.array([0.3, -0.4])
        assert generation.EmpiricalScore(points)(x, 0.2) == pytest.approx(np.asarray(law.score(x, 0.2)), rel=1e-10)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"^d: 100000 makes p = .* GiB of memory; allowed: d up to about"):
        generation.train(problem(), TAUS, d=100_000, times=TIMES, key=jax.random.key(0))
    with pytest.raises(ValueError, match="^taus: .*increasing"):
        generation.train(problem(), [2.0, 1.0], d=D, times=TIMES, key=jax.random.key(0))
