"""The one small network on which training is tested (p = 24, n = 18), and its optimisers: the same objects are compiled once."""

import functools
from typing import Any

import jax
import numpy as np
import optax  # type: ignore[import-untyped]

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.simulation import Descent, descend
from rfdiff.simulation.descent.gradient import Training
from rfdiff.simulation.descent.setup import prepared_replica
from rfdiff.simulation.features import sizes_at
from rfdiff.simulation.replica import replica_mixture
from rfdiff.simulation.replica_memory import layout_for

LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
AVERAGED = Problem(LAW, "tanh", 0.3, 2.0, 1.5)
DRAWN = Problem(LAW, "tanh", 0.3, 2.0, 1.5, noise_draws=2)
WEIGHTED = Problem(LAW, "tanh", 0.3, 2.0, 1.5, noise_draws=2, loss_weights=[0.2, 0.8])
D, KEY, SEED = 12, jax.random.key(2), 3
STEPS = 300
SGD = optax.sgd(0.5)
SMALL = optax.sgd(0.02)
ADAM = optax.adam(0.02)


def run(problem: Problem = AVERAGED, optimizer: Any = SGD, num_steps: int = STEPS, **options: Any) -> Descent:
    """A training of that network, with the options that differ."""
    settings: dict[str, Any] = {"d": D, "key": KEY, "seed": SEED, "step_size": 0.5, **options}
    return descend(problem, optimizer=optimizer, num_steps=num_steps, **settings)


def stochastic(**options: Any) -> Descent:
    """Adam on small batches of fresh noise: everything that a state may hold."""
    return run(optimizer=ADAM, step_size=0.02, noise="fresh", batch_size=5, **options)


def same_bits(one: Descent, other: Descent) -> bool:
    """Whether two trainings gave the same numbers, to the last bit."""
    pairs = [(getattr(one.batch, name), getattr(other.batch, name)) for name in ("taus", "train_loss", "test_loss", "score_error")]
    return one.stopped == other.stopped and all(np.array_equal(a, b) for a, b in [*pairs, (one.readout, other.readout)])


@functools.cache
def replica(problem: Problem, log_steps: tuple[int, ...] = (STEPS,)) -> Training:
    """The network of the tests in float64, with samples (and stored noise) at hand."""
    sizes = sizes_at(problem, D)
    replica_key = jax.random.fold_in(KEY, np.uint32(SEED))
    mixture, keys = replica_mixture(problem, D, replica_key)
    with jax.enable_x64(True):
        layout = layout_for(problem, sizes, "float64")
        steps = np.asarray(log_steps, np.int32)
        return prepared_replica(problem, mixture, keys, jax.random.fold_in(replica_key, 4), steps, layout=layout, sampled=True)[0]


def some_readout() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((D, 2 * D))
