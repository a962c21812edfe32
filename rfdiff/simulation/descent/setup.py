"""What a training starts from: validated choices, an estimate of the memory, and the moments, samples and noise of the replica."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.errors import InputError
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.rules import log_spaced
from rfdiff.rules.minibatch import MOST_STEPS
from rfdiff.simulation.descent.gradient import Training, fresh_noise
from rfdiff.simulation.descent.loop import Recipe, StopWhen
from rfdiff.simulation.features import Sizes, first_layer
from rfdiff.simulation.gradient_flow import mixed
from rfdiff.simulation.moments import Moments
from rfdiff.simulation.replica import Keys, Source, replica_moments, training_samples
from rfdiff.simulation.replica_memory import Layout, chunk_size, replica_bytes
from rfdiff.value_types import as_integer, whole_number

NOISES = ("average", "fixed", "fresh")
SAMPLINGS = ("weighted", "balanced")
MOST_MEASURED = 59  # steps beside the first, where the user names none
LONGEST_CHUNK = 1024  # steps
CHUNK_FLOPS = 2e10  # about a second of a core


def schedule(num_steps: int, log_steps: Sequence[int] | np.ndarray | None) -> Int[np.ndarray, " T"]:
    """Steps at which to measure, the last step among them; about 60, log-spaced, for None.

    Raises:
        InputError: not a number of steps, or not increasing steps up to it.
    """
    last = as_integer("num_steps", num_steps, 1, MOST_STEPS)
    if log_steps is None:
        return np.array(log_spaced(last, MOST_MEASURED / math.log10(max(last, 2))))
    steps = [whole_number(step) for step in (log_steps if np.iterable(log_steps) else [log_steps])]
    inside = [step for step in steps if step is not None and 0 <= step <= last]
    if not steps or len(inside) < len(steps) or any(b <= a for a, b in itertools.pairwise(inside)):
        raise InputError(f"log_steps: {log_steps!r}; allowed: increasing integers in [0, {last}], num_steps")
    return np.unique(np.array([*inside, last], np.int64))


def recipe_for(
    problem: Problem,
    sizes: Sizes,
    *,
    noise: str | None,
    batch_size: int | None,
    stop: StopWhen | None,
    num_steps: int,
    sampling: str = "weighted",
) -> Recipe:
    """The validated choices of a training; chunks take about a second and are of one length.

    Raises:
        InputError: noise that the problem's number of draws does not go with, a batch size, a sampling or an early stop out of range.
    """
    noise = ("average" if sizes.draws is None else "fixed") if noise is None else noise
    if noise not in NOISES:
        raise InputError(f"noise: {noise!r}; allowed: {', '.join(NOISES)}, or None")
    if (noise == "fixed") == (sizes.draws is None):
        need = "a whole number of noise_draws in the problem" if noise == "fixed" else "noise_draws = inf in the problem"
        raise InputError(f"noise: {noise!r} with noise_draws = {problem.noise_draws}; allowed: with {need}")
    pairs = sizes.n * (1 if sizes.draws is None else sizes.draws)
    batch = None if batch_size is None else as_integer("batch_size", batch_size, 1, pairs, "samples times draws; or None for all")
    if batch is not None and noise == "average":
        raise InputError(f"batch_size: {batch} with noise averaged exactly; allowed: None, or noise='fresh' or 'fixed'")
    if sampling not in SAMPLINGS:
        raise InputError(f"sampling: {sampling!r}; allowed: {' or '.join(SAMPLINGS)}")
    if sampling == "balanced" and batch is None:
        raise InputError("sampling: 'balanced' without batches; allowed: with a batch_size")
    if stop is not None and not isinstance(stop, StopWhen):
        raise InputError(f"stop: {stop!r}; allowed: a StopWhen, or None")
    if stop is not None and stop.class_index is not None and stop.class_index >= problem.num_classes:
        raise InputError(f"class_index: {stop.class_index}; allowed: below {problem.num_classes}, the number of classes")
    exact = batch is None and noise != "fresh"
    flops = 2 * sizes.d * sizes.p * sizes.p if exact else 6 * sizes.d * sizes.p * (batch or sizes.n)
    chunk = int(np.clip(CHUNK_FLOPS // flops, 1, min(LONGEST_CHUNK, num_steps)))
    return Recipe(problem.activation, noise, batch, pairs, stop, chunk, sampling == "balanced")


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
    problem: Problem,
    source: Source,
    keys: Keys,
    batch_key: Key[Array, ""],
    log_steps: Int[np.ndarray, " T"],
    layout: Layout,
    sampled: bool,
) -> tuple[Training, Float[Array, ""]]:
    """A replica's training, and the bound on the error of its exact averages; with its samples, if batches are to be made of them."""
    (U, V), train, test = _moments(problem, source, keys, layout=layout)
    samples, noise = _drawn(source, keys, layout=layout) if sampled else (None, None)
    dtype = jnp.dtype(layout.dtype)
    training = Training(
        U=U,
        V=V,
        train=train,
        test=test,
        samples=samples,
        noise=noise,
        keys=(keys[2], batch_key),
        kappa=jnp.asarray(problem.kappa, dtype),
        signal_scale=jnp.asarray(signal_scale(problem.t), dtype),
        noise_std=jnp.sqrt(jnp.asarray(noise_variance(problem.t), dtype)),
        weights=jnp.asarray(problem.mixture.weights, dtype),
        sample_weights=None if layout.sizes.sample_weights is None else jnp.asarray(layout.sizes.sample_weights, dtype),
        log_steps=jnp.asarray(log_steps),
    )
    return training, jnp.maximum(train.truncation, test.truncation)


@functools.partial(jax.jit, static_argnames="layout")
def _moments(
    problem: Problem, source: Source, keys: Keys, layout: Layout
) -> tuple[tuple[Float[Array, "p p"], Float[Array, "p d"]], Moments, Moments]:
    """U and V of the whole training set, and the moments of each class."""
    sizes = layout.sizes
    train, test = replica_moments(problem, source, keys, layout)
    shares = [np.asarray(share, layout.dtype) for share in sizes.shares]
    return (mixed(shares, train.U), mixed(shares, train.V)), train, test


@functools.partial(jax.jit, static_argnames="layout")
def _drawn(
    source: Source, keys: Keys, layout: Layout
) -> tuple[tuple[Float[Array, "p d"], Float[Array, "n d"]], Float[Array, "pairs d"] | None]:
    """W and the clean samples, and the stored noise if there is any, as `replica_moments` draws them."""
    sizes, dtype = layout.sizes, jnp.dtype(layout.dtype)
    samples = (first_layer(keys[0], sizes, dtype), training_samples(source, keys, layout))
    if sizes.draws is None:
        return samples, None
    noise = jax.lax.map(lambda r: fresh_noise(keys[2], r, (sizes.n, sizes.d), dtype), jnp.arange(sizes.draws))
    return samples, noise.reshape(sizes.draws * sizes.n, sizes.d)
