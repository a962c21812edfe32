"""Minibatch SGD as `rules.MinibatchSGD` has it: batches drawn independently at every step, with fresh noise or stored draws.

(docs/theory/practice.md.) A batch of `descend` belongs to an epoch that sees every sample once, whose noise is smaller; here a sample may
come twice in a batch, and in the next one.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress
from rfdiff.rules import MinibatchSGD, Taus
from rfdiff.rules.minibatch import MOST_STEPS
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.descent.gradient import Training, batch_gradient, drawn_by_class, fresh_noise, losses
from rfdiff.simulation.descent.loop import Recipe
from rfdiff.simulation.descent.setup import check_memory, prepared_replica
from rfdiff.simulation.features import floating_type, sizes_at
from rfdiff.simulation.replica import check_truncation, draw_replica, realised_optimum
from rfdiff.simulation.replica_memory import layout_for
from rfdiff.simulation.seed_batches import SeedBatch, check_seeds

STEPS_AT_ONCE = 1000  # between two chances to be interrupted
BATCH_STREAM = 4  # replicas use the streams 0 to 3 of their key


class _State(NamedTuple):
    """Readout A, velocity and average (d, p)."""

    A: Float[Array, "d p"]
    velocity: Float[Array, "d p"]
    mean: Float[Array, "d p"]


def sgd_seeds(
    problem: Problem,
    taus: Taus,
    *,
    d: int,
    key: Key[Array, ""],
    seeds: Sequence[int],
    rule: MinibatchSGD,
    dtype: DTypeLike | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
) -> SeedBatch:
    """Curves of chosen replicas, trained by SGD; arguments as in `run_seeds`.

    Raises:
        InputError: as `learning_curves`; a training time that no number of steps reaches; a training that diverges.
    """
    replicas, sizes, name = check_seeds(seeds), sizes_at(problem, d), floating_type(dtype)
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    schedule, steps, recipe = sgd_recipe(problem, taus, d=d, rule=rule, dtype=dtype, held_out=held_out)
    layout, runs, truncations, untrained = layout_for(problem, sizes, name, held_out), [], [], []
    for done, number in enumerate(replicas, 1):
        with jax.enable_x64(name == "float64"):
            seed_key = jax.random.fold_in(key, np.uint32(number))
            source, keys = draw_replica(problem, data, layout, seed_key)
            batch_key = jax.random.fold_in(seed_key, BATCH_STREAM)
            training, truncation = prepared_replica(problem, source, keys, batch_key, np.zeros(1, np.int32), layout, sampled=True)
            check_truncation(np.asarray(truncation), layout)
            runs.append(_trained(training, rule, recipe, steps.astype(np.int64)))
            untrained.append(np.asarray(training.train.untrained_loss, np.float64))
        truncations.append(float(truncation))
        if progress is not None:
            progress(done, len(replicas))
    train, test = np.stack(runs, 1)[..., np.searchsorted(steps, np.rint(schedule / float(rule.step_size))), :]
    optimal = realised_optimum(problem, sizes)
    return SeedBatch(
        seeds=np.asarray(replicas),
        taus=schedule,
        train_loss=train,
        test_loss=test,
        score_error=(test - optimal) / noise_variance_of(problem.t),
        eigenvalues=None,
        class_weights=None,
        truncation=np.array(truncations),
        optimal_loss=optimal,
        weights=np.asarray(problem.mixture.weights),
        kappa=float(problem.kappa),
        untrained_loss=np.stack(untrained),
        dimension=sizes.d,
        dtype=name,
    )


def sgd_recipe(
    problem: Problem, taus: Taus, *, d: int, rule: MinibatchSGD, dtype: DTypeLike | None, held_out: tuple[int, ...] = ()
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " S"], Recipe]:
    """Training times, the distinct numbers of steps that they are, and how the steps are taken; nothing is computed.

    Raises:
        InputError: as `sgd_seeds`, but for a training that diverges.
    """
    rule.check_loss_weights(problem.loss_weights, problem.mixture.weights)
    sizes, name = sizes_at(problem, d), floating_type(dtype)
    schedule = rule.schedule(taus, problem.kappa)[0]
    steps = np.unique(np.rint(schedule / float(rule.step_size)))
    if not steps[-1] <= MOST_STEPS:
        raise InputError(f"taus: {schedule[-1]:g} takes {steps[-1]:g} steps, one by one; allowed: at most {MOST_STEPS} of them")
    pairs, noise = sizes.n * (sizes.draws or 1), "fresh" if sizes.draws is None else "fixed"
    recipe = Recipe(problem.activation, noise, rule.batch_size(sizes.d), pairs, None, 1)
    check_memory(sizes, name, len(steps), recipe, held_out)
    need, available = rule.batch_size(sizes.d) * 2 * (sizes.d + sizes.p) * np.dtype(name).itemsize, available_bytes()
    if available is not None and need > available:
        raise InputError(
            f"batch_per_dimension: {float(rule.batch_per_dimension):g} makes batches of {rule.batch_size(sizes.d)} pairs at d = {sizes.d}, "
            f"about {need / 2**30:.3g} GiB of {available / 2**30:.3g} GiB of memory; allowed: smaller ones"
        )
    return schedule, steps, recipe


def _trained(training: Training, rule: MinibatchSGD, recipe: Recipe, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, "2 T K"]:
    """Train and test losses after given numbers of steps.

    Raises:
        InputError: they are not finite.
    """
    state = _State(*(jnp.zeros(training.V.shape[::-1], training.V.dtype) for _ in range(3)))
    assert recipe.batch is not None
    curves, before = [], 0
    for step in steps.tolist():
        for begin in range(before, step, STEPS_AT_ONCE):
            end = min(begin + STEPS_AT_ONCE, step)
            state = jax.block_until_ready(_advance(state, training, rule, begin, end, recipe.activation, recipe.batch))
        measured = np.asarray(_measured(state, training, rule), np.float64)
        if not np.all(np.isfinite(measured)):
            raise InputError(
                f"step_size: {float(rule.step_size):.6g} diverges: the training is not finite after {step} steps; allowed: a smaller "
                "one, or a larger batch_per_dimension (theory.sgd_stability says which)"
            )
        curves.append(measured)
        before = step
    return np.stack(curves, 1)


@jax.jit
def _measured(state: _State, training: Training, rule: MinibatchSGD) -> Float[Array, "2 K"]:
    return jnp.stack(losses(state.A if rule.averaging is None else state.mean, training))


@functools.partial(jax.jit, static_argnames=("activation", "batch"))
def _advance(state: _State, training: Training, rule: MinibatchSGD, start: int, stop: int, activation: Activation, batch: int) -> _State:
    """The state after step `stop`, given that after step `start`."""
    assert training.samples is not None
    noise_key, batch_key = training.keys
    n, d = training.samples[1].shape
    pairs = n if training.noise is None else len(training.noise)
    real = state.A.dtype
    eta, momentum, decay = (jnp.asarray(x, real) for x in (rule.step_size, rule.momentum, training.kappa * rule.weight_decay))

    def step(k: jax.Array, state: _State) -> _State:
        key, weights = jax.random.fold_in(batch_key, k), training.sample_weights
        if rule.sampling == "balanced":
            chosen = drawn_by_class(key, training, batch, pairs // n)
        else:
            chosen = jax.random.randint(key, (batch,), 0, pairs)
        weights = weights[chosen % n] if rule.sampling == "weighted" and weights is not None else None
        noise = fresh_noise(noise_key, k, (batch, d), real) if training.noise is None else training.noise[chosen]
        gradient = batch_gradient(state.A, training, activation, chosen % n, noise, weights) + decay * state.A
        velocity = momentum * state.velocity - eta * gradient
        A = state.A + velocity
        if rule.averaging is None:
            return _State(A, velocity, state.mean)
        gamma = jnp.asarray(rule.averaging, real)
        return _State(A, velocity, gamma * state.mean + (1 - gamma) * A)

    result: _State = jax.lax.fori_loop(start, stop, step, state)
    return result
