"""Weights of the classes in the training loss: every solver on the same networks, and samples that stand twice (docs: practice.md)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, simulation
from rfdiff.rules import GradientFlow
from rfdiff.simulation import SeedBatch
from rfdiff.simulation.features import Sizes, first_layer, sizes_at
from rfdiff.simulation.gradient_flow import flow_losses
from rfdiff.simulation.moments import noise_averaged_moments
from rfdiff.simulation.replica import replica_mixture, replica_moments, training_samples
from rfdiff.simulation.replica_memory import layout_for
from tests.tolerances import rejects

D, KEY = 16, jax.random.key(3)
TAUS = np.array([0.0, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, np.inf])
LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
WEIGHTS = (0.2, 0.8)


def problem(draws: float, weights: tuple[float, float] | None) -> Problem:
    return Problem(LAW, "tanh", t=0.1, psi_p=16.0, psi_n=2.0, noise_draws=draws, loss_weights=weights)


@functools.cache
def batch(solver: str, draws: float, weights: tuple[float, float] | None) -> SeedBatch:
    return simulation.run_seeds(problem(draws, weights), TAUS, d=D, key=KEY, seeds=[0], solver=solver)


def close(one: SeedBatch, other: SeedBatch, tolerance: float = 1e-9) -> None:
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("solver", "draws"),
    [
        ("krylov", math.inf),
        pytest.param("krylov-matrix-free", 3, marks=pytest.mark.thorough),
        pytest.param("krylov", 3, marks=pytest.mark.slow),
        pytest.param("krylov-matrix-free", math.inf, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("weights", [WEIGHTS, pytest.param((0.0, 1.0), marks=pytest.mark.thorough)])
def test_the_solvers_agree(solver: str, draws: float, weights: tuple[float, float]) -> None:
    """Class 1 is left out of the products here, and class 0 for the class fractions."""
    found = batch(solver, draws, weights)
    close(found, batch("exact", draws, weights))
    rejects(lambda: close(found, batch("exact", draws, None), 1e-3))


@pytest.mark.slow
def test_probes_estimate_the_same_curves() -> None:
    exact, found = batch("exact", math.inf, WEIGHTS), batch("krylov-probes", math.inf, WEIGHTS)
    assert found.probe_stderr is not None

    def near(other: SeedBatch) -> None:
        for i, name in enumerate(("train_loss", "test_loss")):
            excess = abs(getattr(found, name) - getattr(other, name)) / (np.asarray(found.probe_stderr)[i] + 1e-9)
            assert np.max(excess) < 5

    near(exact)
    rejects(lambda: near(batch("exact", math.inf, None)))


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [math.inf, 3])
def test_the_fractions_of_the_samples_are_the_default(draws: float) -> None:
    """Of n = 32 samples, 22 are of class 0: these weights change nothing."""
    close(batch("exact", draws, (22 / 32, 10 / 32)), batch("exact", draws, None), 1e-10)


@pytest.mark.thorough
def test_a_class_of_weight_0_trains_nothing() -> None:
    """Stored draws of class 0 do not count as columns: 10 samples and 3 draws leave 30 eigenvalues of 256."""
    found = batch("exact", 3, (0.0, 1.0))
    assert found.eigenvalues is not None and found.class_weights is not None
    assert np.sum(found.eigenvalues > 0) == 30
    np.testing.assert_array_equal(found.class_weights[..., 0], 0)
    assert np.all(found.train_loss[0, -1, 1] < 1e-6) and found.train_loss[0, -1, 0] > 0.5
    one_class = simulation.run_seeds(
        Problem(MixtureLaw.isotropic([1.0], [1.5]), "tanh", 0.1, 16.0, 2.0, 3, [1.0]), TAUS, d=D, key=KEY, seeds=[0]
    )
    assert np.all(np.isfinite(one_class.test_loss))


@pytest.mark.thorough
def test_samples_that_stand_twice_weigh_twice() -> None:
    """m = ∞: a class whose samples stand twice in the training set is a class of twice the weight; the samples once are not."""
    asked = problem(math.inf, None)
    sizes, keys = sizes_at(asked, D), replica_mixture(asked, D, jax.random.fold_in(KEY, 0))
    (n0, n1), total = sizes.counts, sizes.n + sizes.counts[1]
    repeated = dataclasses.replace(sizes, counts=(n0, 2 * n1))
    layout = layout_for(asked, sizes, "float64")

    @functools.partial(jax.jit, static_argnames="sizes")
    def test_losses(sizes: Sizes) -> jax.Array:
        W, x = first_layer(keys[1][0], sizes, "float64"), training_samples(*keys, layout)
        x = jnp.concatenate([x, x[n0:]]) if sizes.counts[1] == 2 * n1 else x
        train = noise_averaged_moments(W, x, jnp.asarray(asked.t), sizes, asked.activation, layout.train_rule, layout.train_order)
        test = replica_moments(dataclasses.replace(asked, t=jnp.asarray(asked.t)), *keys, layout)[1]
        clock = GradientFlow().schedule(TAUS, asked.kappa)[1]
        return flow_losses(train, test, sizes, GradientFlow(), clock, asked.kappa).test_loss

    def losses(sizes: Sizes) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(test_losses(sizes))

    weighted = losses(dataclasses.replace(sizes, loss_weights=(n0 / total, 2 * n1 / total)))
    np.testing.assert_allclose(weighted, losses(repeated), rtol=0, atol=1e-11)
    rejects(lambda: np.testing.assert_allclose(losses(sizes), losses(repeated), rtol=0, atol=1e-3))
