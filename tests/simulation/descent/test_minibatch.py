"""SGD of the networks: each step is the gradient of its own batch, with momentum, decay and average as optax has them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest

from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD
from rfdiff.simulation import run_seeds
from rfdiff.simulation.descent import minibatch
from rfdiff.simulation.descent.gradient import drawn_by_class, fresh_noise, losses
from tests.simulation.descent.descent_cases import AVERAGED, DRAWN, KEY, SEED, WEIGHTED, D, replica
from tests.tolerances import rejects

RULE = MinibatchSGD(0.5, 0.75, momentum=0.6, weight_decay=0.05, averaging=0.7)


BALANCED, MULTIPLIED = (dataclasses.replace(RULE, sampling=sampling) for sampling in ("balanced", "weighted"))


def trained(problem: Problem, rule: MinibatchSGD = RULE, taus: Any = (0.5, 2.0, 5.0)) -> Any:
    return run_seeds(problem, np.array(taus), d=D, key=KEY, seeds=[SEED], rule=rule, dtype="float64")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("problem", "rule"),
    [
        (AVERAGED, RULE),
        (DRAWN, RULE),
        (WEIGHTED, BALANCED),
        (WEIGHTED, MULTIPLIED),
    ],
    ids=["fresh noise", "stored draws", "balanced", "weighted"],
)
def test_steps_are_those_of_optax_on_the_same_batches(problem: Problem, rule: MinibatchSGD) -> None:
    batch = trained(problem, rule)
    with jax.enable_x64(True):
        training, kappa = replica(problem), float(problem.kappa)
        W, x = training.samples  # type: ignore[misc]
        n, p, delta = len(x), len(W), float(training.noise_std) ** 2
        pairs = n if training.noise is None else len(training.noise)
        optimizer = optax.chain(optax.add_decayed_weights(kappa * 0.05), optax.sgd(0.5, momentum=0.6))
        average = optax.ema(0.7, debias=False)
        noise_key, batch_key = training.keys

        factors = jnp.ones(n) if rule is not MULTIPLIED else jnp.asarray(np.repeat([0.2 / (13 / 18), 0.8 / (5 / 18)], [13, 5]))

        def loss(A: jax.Array, chosen: jax.Array, xi: jax.Array) -> jax.Array:
            phi = jnp.tanh((training.signal_scale * x[chosen % n] + training.noise_std * xi) @ W.T / math.sqrt(D))
            squares = jnp.sum((jnp.sqrt(delta / p) * phi @ A.T + xi) ** 2, 1)
            return factors[chosen % n] @ squares / (D * len(chosen))

        A = jnp.zeros((D, p))
        state, mean_state, measured = optimizer.init(A), average.init(A), []
        for k in range(10):
            key = jax.random.fold_in(batch_key, k)
            drawn = drawn_by_class(key, training, 9, pairs // n) if rule is BALANCED else jax.random.randint(key, (9,), 0, pairs)
            chosen = np.asarray(drawn)
            xi = fresh_noise(noise_key, jnp.int32(k), (9, D), A.dtype) if training.noise is None else training.noise[chosen]
            updates, state = optimizer.update(D**2 * jax.grad(loss)(A, chosen, xi), state, A)
            A = optax.apply_updates(A, updates)
            mean, mean_state = average.update(A, mean_state)
            if k + 1 in (1, 4, 10):
                measured.append(np.stack(losses(mean, training)))
        raw = np.stack(losses(A, training))
    expected = np.stack(measured)
    np.testing.assert_allclose(batch.taus, [0.5, 2.0, 5.0])
    np.testing.assert_allclose(batch.train_loss[0], expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose(batch.test_loss[0], expected[:, 1], rtol=1e-10)
    rejects(lambda: np.testing.assert_allclose(batch.test_loss[0], raw[1], rtol=1e-3))


@pytest.mark.thorough
def test_times_between_do_not_change_the_steps() -> None:
    few, many = trained(AVERAGED, taus=(5.0,)), trained(AVERAGED, taus=(0.5, 1.0, 2.5, 5.0))
    np.testing.assert_array_equal(few.test_loss[0, -1], many.test_loss[0, -1])


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (MinibatchSGD(50.0, 0.75), {"taus": np.array([5e4])}, "^step_size: 50 diverges: the training is not finite after 1000 steps"),
        (RULE, {"taus": np.array([1.0, math.inf])}, "^taus: inf takes inf steps, one by one; allowed: at most"),
        (RULE, {"problem": WEIGHTED}, "^loss_weights: 0.2, 0.8 with rule sgd and uniform batches"),
        (RULE, {"solver": "krylov"}, "^solver: 'krylov' with rule sgd"),
        (MinibatchSGD(0.5, 0.01), {}, "^batch_per_dimension: 0.01 makes no batch at d = 12"),
    ],
)
def test_refused(rule: MinibatchSGD, options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"problem": AVERAGED, "taus": np.array([1.0]), "dtype": "float64", **options}
    with pytest.raises(ValueError, match=message):
        run_seeds(d=D, key=KEY, seeds=[SEED], rule=rule, **settings)


def test_pieces_between_chances_to_be_interrupted_do_not_change_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(AVERAGED)
    monkeypatch.setattr(minibatch, "STEPS_AT_ONCE", 2)
    pieces = trained(AVERAGED)
    np.testing.assert_array_equal(pieces.test_loss, whole.test_loss)
    rejects(lambda: np.testing.assert_array_equal(trained(AVERAGED, taus=(0.5, 2.0, 5.5)).test_loss, whole.test_loss))
