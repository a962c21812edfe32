"""What a training starts from: validated choices, an estimate of the memory, and the moments, samples and noise of the replica."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.errors import InputError
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.simulation.descent.gradient import Training, fresh_noise
from rfdiff.simulation.descent.loop import Recipe, StopWhen, is_integer, log_spaced
from rfdiff.simulation.features import Sizes, clean_samples, first_layer
from rfdiff.simulation.gradient_flow import mixed
from rfdiff.simulation.moments import Moments
from rfdiff.simulation.replica import Keys, replica_moments
from rfdiff.simulation.replica_memory import Layout, chunk_size, replica_bytes

NOISES = ("average", "fixed", "fresh")
MOST_STEPS = 2**31 - 1
LONGEST_CHUNK = 1024  # steps
CHUNK_FLOPS = 2e10  # about a second of a core


def schedule(num_steps: Any, log_steps: Any) -> np.ndarray:
    """Steps at which to measure, the last step among them; about 60, log-spaced, for None.

    Raises:
        InputError: not a number of steps, or not increasing steps up to it.
    """
    if not is_integer(num_steps) or not 1 <= num_steps <= MOST_STEPS:
        raise InputError(f"num_steps: {num_steps!r}; allowed: an integer >= 1 and < 2^31")
    if log_steps is None:
        return log_spaced(int(num_steps))
    steps = list(log_steps) if np.iterable(log_steps) else [log_steps]
    good = all(is_integer(step) and 0 <= step <= num_steps for step in steps)
    if not steps or not good or any(b <= a for a, b in itertools.pairwise(steps)):
        raise InputError(f"log_steps: {log_steps!r}; allowed: increasing integers in [0, {num_steps}], num_steps")
    return np.unique(np.array([*steps, num_steps], np.int64))


def recipe_for(problem: Problem, sizes: Sizes, noise: Any, batch_size: Any, stop: Any, num_steps: int) -> Recipe:
    """The validated choices of a training; chunks take about a second and are of one length.

    Raises:
        InputError: noise that the problem's number of draws does not go with, a batch size or an early stop out of range.
    """
    noise = ("average" if sizes.draws is None else "fixed") if noise is None else noise
    if noise not in NOISES:
        raise InputError(f"noise: {noise!r}; allowed: {', '.join(NOISES)}, or None")
    if (noise == "fixed") == (sizes.draws is None):
        need = "a whole number of noise_draws in the problem" if noise == "fixed" else "noise_draws = inf in the problem"
        raise InputError(f"noise: {noise!r} with noise_draws = {problem.noise_draws}; allowed: with {need}")
    pairs = sizes.n * (1 if sizes.draws is None else sizes.draws)
    if batch_size is not None and (not is_integer(batch_size) or not 1 <= batch_size <= pairs):
        raise InputError(f"batch_size: {batch_size!r}; allowed: an integer from 1 to {pairs} (samples times draws), or None for all")
    if batch_size is not None and noise == "average":
        raise InputError(f"batch_size: {batch_size} with noise averaged exactly; allowed: None, or noise='fresh' or 'fixed'")
    if stop is not None and not isinstance(stop, StopWhen):
        raise InputError(f"stop: {stop!r}; allowed: a StopWhen, or None")
    if stop is not None and stop.class_index is not None and stop.class_index >= problem.num_classes:
        raise InputError(f"class_index: {stop.class_index}; allowed: below {problem.num_classes}, the number of classes")
    batch = None if batch_size is None else int(batch_size)
    exact = batch is None and noise != "fresh"
    flops = 2 * sizes.d * sizes.p * sizes.p if exact else 6 * sizes.d * sizes.p * (batch or sizes.n)
    chunk = int(np.clip(CHUNK_FLOPS // flops, 1, min(LONGEST_CHUNK, num_steps)))
    return Recipe(problem.activation, noise, batch, pairs, stop, chunk)


def check_memory(sizes: Sizes, dtype: str, measurements: int, recipe: Recipe, held_out: tuple[int, ...]) -> None:
    """Refuse what does not fit, before anything is computed.

    Raises:
        InputError: the replica, or the stored noise beside it, is larger than the memory.
    """
    chunk_size(sizes, dtype, measurements, 1, held_out)
    if recipe.batch is None or recipe.noise != "fixed":
        return
    stored = recipe.pairs * sizes.d * np.dtype(dtype).itemsize
    need, available = stored + replica_bytes(sizes, dtype, measurements, held_out=held_out), available_bytes()
    if available is not None and need > available:
        raise InputError(
            f"batch_size: batches of stored draws need {stored / 2**30:.3g} GiB of noise, {need / 2**30:.3g} GiB in all, of "
            f"{available / 2**30:.3g} GiB of memory; allowed: None (whole gradients), noise='fresh', or a smaller d or noise_draws"
        )


def prepared_replica(
    problem: Problem, source: Any, keys: Keys, batch_key: jax.Array, log_steps: Any, layout: Layout, sampled: bool
) -> tuple[Training, jax.Array]:
    """A replica's training, and the bound on the error of its exact averages; with its samples, if batches are to be made of them."""
    (U, V), train, test = _moments(problem, source, keys, layout=layout)
    samples, noise = _drawn(source, keys, layout=layout) if sampled else (None, None)
    dtype = jnp.dtype(layout.dtype)
    training = Training(
        U, V, train, test, samples, noise, (keys[2], batch_key),
        jnp.asarray(problem.kappa, dtype), jnp.asarray(signal_scale(problem.t), dtype),
        jnp.sqrt(jnp.asarray(noise_variance(problem.t), dtype)), jnp.asarray(problem.mixture.weights, dtype), jnp.asarray(log_steps),
    )  # fmt: skip
    return training, jnp.maximum(train.truncation, test.truncation)


@functools.partial(jax.jit, static_argnames="layout")
def _moments(problem: Problem, source: Any, keys: Keys, layout: Layout) -> tuple[tuple[jax.Array, jax.Array], Moments, Moments]:
    """U and V of the whole training set, and the moments of each class."""
    sizes = layout.sizes
    train, test = replica_moments(problem, source, keys, layout)
    shares = [np.asarray(count / sizes.n, layout.dtype) for count in sizes.counts]
    return (mixed(shares, train.U), mixed(shares, train.V)), train, test


@functools.partial(jax.jit, static_argnames="layout")
def _drawn(source: Any, keys: Keys, layout: Layout) -> tuple[tuple[jax.Array, jax.Array], jax.Array | None]:
    """W and the clean samples, and the stored noise if there is any, as `replica_moments` draws them."""
    sizes, dtype = layout.sizes, jnp.dtype(layout.dtype)
    x = jnp.asarray(source.train, dtype) if layout.held_out else clean_samples(keys[1], source, sizes, dtype)
    samples = (first_layer(keys[0], sizes, dtype), x)
    if sizes.draws is None:
        return samples, None
    noise = jax.lax.map(lambda r: fresh_noise(keys[2], r, (sizes.n, sizes.d), dtype), jnp.arange(sizes.draws))
    return samples, noise.reshape(sizes.draws * sizes.n, sizes.d)
