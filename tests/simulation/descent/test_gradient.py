"""Gradients against the definition of the loss, and expectations over batches and fresh noise."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest

from rfdiff.simulation.descent import gradient
from rfdiff.simulation.descent.gradient import batch_gradient, losses, whole_gradient
from rfdiff.simulation.descent.loop import Recipe, advance, start
from rfdiff.simulation.descent.setup import recipe_for
from rfdiff.simulation.features import sizes_at
from tests.simulation.descent.descent_cases import (
    AVERAGED,
    DRAWN,
    SGD,
    D,
    replica,
    some_readout,
)
from tests.synthetic import given
from tests.tolerances import assert_within, rejects


def test_gradient_is_that_of_the_loss() -> None:
    A, delta, scale = some_readout(), -math.expm1(-0.6), math.sqrt(-math.expm1(-0.6) / (2 * D))
    with jax.enable_x64(True):
        training = replica(DRAWN)
        W, x = given(training.samples)
        noise = given(training.noise).reshape(2, *x.shape)
        phi = jnp.tanh((math.exp(-0.3) * x + math.sqrt(delta) * noise) @ W.T / math.sqrt(D))

        def loss(A: jax.Array) -> jax.Array:
            """The definition: (1/d) mean over samples and draws of ‖√Δ A φ/√p + ξ‖²."""
            return jnp.mean(jnp.sum((scale * phi @ A.T + noise) ** 2, axis=-1)) / D

        expected = D**2 * jax.grad(loss)(jnp.asarray(A))
        np.testing.assert_allclose(whole_gradient(jnp.asarray(A), training), expected, rtol=1e-11, atol=1e-12)
        every = jnp.arange(36)
        found = batch_gradient(jnp.asarray(A), training, DRAWN.activation, every % 18, given(training.noise))
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
        train, _ = losses(jnp.asarray(A), training)
        np.testing.assert_allclose(train @ np.array([13, 5]) / 18, loss(jnp.asarray(A)), rtol=1e-12)
        rejects(lambda: np.testing.assert_allclose(found, expected / 2, rtol=1e-2))

        averaged = replica(AVERAGED)
        shares = jnp.array([13, 5]) / 18
        of_average = D**2 * jax.grad(lambda A: shares @ losses(A, averaged)[0])(jnp.asarray(A))
        np.testing.assert_allclose(whole_gradient(jnp.asarray(A), averaged), of_average, rtol=1e-11, atol=1e-12)


def test_blocks_change_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    A, training = some_readout(), replica(DRAWN)
    noise = given(training.noise)
    with jax.enable_x64(True):
        chosen = jnp.arange(36) % 18
        whole = batch_gradient(jnp.asarray(A), training, DRAWN.activation, chosen, noise)
        monkeypatch.setattr(gradient, "BLOCK_VALUES", 5 * 2 * D)  # 8 blocks of 5, the last one with 4 that weigh nothing
        np.testing.assert_allclose(batch_gradient(jnp.asarray(A), training, DRAWN.activation, chosen, noise), whole, rtol=1e-12)


def test_averaged_gradient_is_the_mean_over_fresh_noise() -> None:
    A, training = some_readout(), replica(AVERAGED)
    with jax.enable_x64(True):

        def sampled(key: jax.Array) -> jax.Array:
            pick, draw = jax.random.split(key)
            chosen = jax.random.permutation(pick, 18)[:6]
            return batch_gradient(jnp.asarray(A), training, AVERAGED.activation, chosen, jax.random.normal(draw, (6, D)))

        found = np.asarray(jax.jit(jax.vmap(sampled))(jax.random.split(jax.random.key(8), 4000)))
        exact, drawn = (np.asarray(whole_gradient(jnp.asarray(A), replica(case))) for case in (AVERAGED, DRAWN))
    mean, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(len(found))
    assert_within(mean, error, exact, k=5)
    rejects(lambda: assert_within(mean, error, 1.1 * exact, k=5))
    rejects(lambda: assert_within(mean, error, drawn, k=5))  # two draws are no average


def test_an_epoch_sees_every_pair_once() -> None:
    """Steps that sum gradients at A = 0 and do not move: over an epoch their mean is the whole gradient."""
    summing = optax.GradientTransformation(lambda A: jnp.zeros_like(A), lambda g, total, _=None: (jnp.zeros_like(g), total + g))
    training, recipe = replica(DRAWN, (12,)), Recipe(DRAWN.activation, "fixed", 9, 36, None, 4)
    with jax.enable_x64(True):
        first = advance(start(training, recipe, summing), training, recipe, summing)
        order, mean = np.array(first.order), np.array(first.optimizer) / 4
        whole = np.asarray(whole_gradient(first.A, training))
        second = advance(first, training, recipe, summing)
    np.testing.assert_array_equal(np.sort(order), np.arange(36))
    np.testing.assert_allclose(mean, whole, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(np.asarray(second.optimizer) / 8, whole, rtol=1e-11, atol=1e-13)
    assert np.any(np.asarray(second.order) != order)  # the next epoch has a permutation of its own
    rejects(lambda: np.testing.assert_allclose(np.asarray(second.optimizer) / 9, whole, rtol=1e-2))


@pytest.mark.thorough
def test_fresh_noise_trains_on_the_averaged_loss_in_expectation() -> None:
    """The steps are linear in A, and the noise of each is independent of the A it meets: mean readouts follow the averaged gradient."""
    count, steps, training = 400, 24, replica(AVERAGED, (24,))
    recipe = dataclasses.replace(
        recipe_for(AVERAGED, sizes_at(AVERAGED, D), noise="fresh", batch_size=9, stop=None, num_steps=steps), chunk=steps
    )
    whole = dataclasses.replace(recipe, noise="average", batch=None)
    with jax.enable_x64(True):
        exact = np.asarray(advance(start(training, whole, SGD), training, whole, SGD).A)
        state = start(training, recipe, SGD)

        def final(noise_key: jax.Array, batch_key: jax.Array) -> jax.Array:
            return advance(state, dataclasses.replace(training, keys=(noise_key, batch_key)), recipe, SGD).A

        keys = [jax.random.split(jax.random.key(k), count) for k in (4, 5)]
        found = np.asarray(jax.jit(jax.vmap(final))(*keys))
    mean, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(count)
    assert_within(mean, error, exact, k=5)
    rejects(lambda: assert_within(mean, error, 1.1 * exact, k=5))
