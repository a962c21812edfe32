"""Gradients of a loss with class weights: whole, in weighted batches, and in balanced ones, whose classes are drawn with their weights."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent
from rfdiff.simulation import run_seeds
from rfdiff.simulation.descent.gradient import Training, drawn_by_class, losses, whole_gradient
from rfdiff.simulation.descent.loop import Recipe, _gradient, start
from rfdiff.simulation.descent.setup import recipe_for
from rfdiff.simulation.features import sizes_at
from tests.simulation.descent.descent_cases import AVERAGED, DRAWN, KEY, SEED, SGD, WEIGHTED, D, replica, run, some_readout
from tests.tolerances import assert_within, rejects

AVERAGED_WEIGHTED = dataclasses.replace(WEIGHTED, noise_draws=math.inf)
WEIGHTS = np.array([0.2, 0.8])


def gradients(problem: Problem, recipe: Recipe, steps: int) -> np.ndarray:
    """(steps, d, p) gradients of the steps of a training, all at one readout."""
    training = replica(problem)
    with jax.enable_x64(True):
        state = dataclasses.replace(start(training, recipe, SGD), A=jnp.asarray(some_readout()))
        found = []
        step = jax.jit(functools.partial(_gradient, training=training, recipe=recipe))
        for k in range(steps):
            order, gradient = step(dataclasses.replace(state, step=jnp.int32(k)))
            state = dataclasses.replace(state, order=order)
            found.append(np.asarray(gradient))
    return np.stack(found)


def recipe(problem: Problem, batch: int, **options: Any) -> Recipe:
    return recipe_for(problem, sizes_at(problem, D), batch_size=batch, stop=None, num_steps=4, **{"noise": None, **options})


def whole(problem: Problem) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(whole_gradient(jnp.asarray(some_readout()), replica(problem)))


@pytest.mark.thorough
@pytest.mark.parametrize("problem", [pytest.param(WEIGHTED, marks=pytest.mark.thorough), AVERAGED_WEIGHTED], ids=["drawn", "averaged"])
def test_the_whole_gradient_is_that_of_the_weighted_loss(problem: Problem) -> None:
    training: Training = replica(problem)
    with jax.enable_x64(True):
        expected = D**2 * jax.grad(lambda A: jnp.asarray(WEIGHTS) @ losses(A, training)[0])(jnp.asarray(some_readout()))
    np.testing.assert_allclose(whole(problem), expected, rtol=1e-11, atol=1e-12)
    rejects(lambda: np.testing.assert_allclose(whole(DRAWN if problem is WEIGHTED else AVERAGED), expected, rtol=1e-2))


@pytest.mark.thorough
def test_an_epoch_of_weighted_batches_adds_up_to_it() -> None:
    mean = gradients(WEIGHTED, recipe(WEIGHTED, 9), 4).mean(0)
    np.testing.assert_allclose(mean, whole(WEIGHTED), rtol=1e-11, atol=1e-12)
    rejects(lambda: np.testing.assert_allclose(mean, whole(DRAWN), rtol=1e-2))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("problem", "options"),
    [
        (WEIGHTED, {"sampling": "balanced"}),
        (AVERAGED_WEIGHTED, {"sampling": "balanced", "noise": "fresh"}),
        pytest.param(AVERAGED_WEIGHTED, {"noise": "fresh"}, marks=pytest.mark.slow),
    ],
    ids=["balanced", "balanced-fresh", "weighted-fresh"],
)
def test_batches_are_unbiased(problem: Problem, options: dict[str, Any]) -> None:
    found = gradients(problem, recipe(problem, 9, **options), 1200)
    mean, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(len(found))
    assert_within(mean, error, whole(problem), k=5)
    plain = DRAWN if problem is WEIGHTED else AVERAGED
    rejects(lambda: assert_within(mean, error, whole(plain), k=5))


@pytest.mark.thorough
def test_balanced_batches_hold_the_classes_as_they_weigh() -> None:
    """18 samples, 13 of class 0, two draws each: class 1 has a share of 0.8, and all of its ten pairs occur alike."""
    with jax.enable_x64(True):
        pairs = np.asarray(drawn_by_class(jax.random.key(1), replica(WEIGHTED), 40_000, 2))
    counts = np.bincount(pairs, minlength=36)
    of_class_1 = np.arange(36) % 18 >= 13
    assert abs(counts[of_class_1].sum() / 40_000 - 0.8) < 5 * math.sqrt(0.16 / 40_000)
    for expected, here in ((3200.0, counts[of_class_1]), (8000 / 26, counts[~of_class_1])):
        assert np.max(abs(here - expected)) < 5 * math.sqrt(expected)


@pytest.mark.thorough
def test_training_follows_the_weighted_filters() -> None:
    trained = run(WEIGHTED)
    exact = run_seeds(WEIGHTED, trained.batch.taus, d=D, key=KEY, seeds=[SEED], rule=GradientDescent(0.5))
    np.testing.assert_allclose(trained.batch.test_loss, exact.test_loss, rtol=1e-11)
    plain = run_seeds(DRAWN, trained.batch.taus, d=D, key=KEY, seeds=[SEED], rule=GradientDescent(0.5))
    rejects(lambda: np.testing.assert_allclose(trained.batch.test_loss, plain.test_loss, rtol=1e-3))


def test_what_sampling_is_refused() -> None:
    with pytest.raises(InputError, match="^sampling: 'even'; allowed: weighted or balanced"):
        run(WEIGHTED, batch_size=4, sampling="even")
    with pytest.raises(InputError, match="^sampling: 'balanced' without batches; allowed: with a batch_size"):
        run(WEIGHTED, sampling="balanced")
