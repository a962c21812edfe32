"""One replica of an ensemble: its mixture or its training samples, its random keys, and its moments (docs/theory/simulation.md)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture, largest_remainder
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import Split, draw_split
from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.features import Sizes, clean_samples, first_layer
from rfdiff.simulation.moments import Moments, drawn_moments, gathered_moments, noise_averaged_moments, population_moments
from rfdiff.simulation.replica_memory import Layout

TRUNCATION_LIMIT = 1e-3

Keys = tuple[Key[Array, ""], Key[Array, ""], Key[Array, ""]]  # of the first layer, the samples and the noise
Source = GaussianMixture | Split  # what a replica's samples come from


def draw_replica(problem: Problem, data: Samples | None, layout: Layout, key: Key[Array, ""]) -> tuple[Source, Keys]:
    """What one replica's samples come from (on the host), and its keys: the same first layer for a mixture and for a data set.

    Args:
        problem: the problem, K classes.
        data: labelled samples to split, or None for the problem's mixture.
        layout: sizes of the network.
        key: JAX random key of the replica, fold_in(key of the run, replica number).
    """
    if data is None:
        return replica_mixture(problem, layout.sizes.d, key)
    W_key, samples_key, noise_key = (jax.random.fold_in(key, stream) for stream in range(1, 4))
    return draw_split(data, layout.sizes, layout.held_out, samples_key), (W_key, samples_key, noise_key)


def replica_mixture(problem: Problem, d: int, key: Key[Array, ""]) -> tuple[GaussianMixture, Keys]:
    """Mixture at dimension d of one replica (on the host), and the keys of its first layer, samples and noise."""
    mixture_key, W_key, samples_key, noise_key = (jax.random.fold_in(key, stream) for stream in range(4))
    return GaussianMixture.from_law(problem.mixture, d, mixture_key), (W_key, samples_key, noise_key)


def training_samples(source: Source, keys: Keys, layout: Layout) -> Float[Array, "n d"]:
    """Clean training samples of a replica, in class order."""
    dtype = jnp.dtype(layout.dtype)
    if isinstance(source, GaussianMixture):
        return clean_samples(keys[1], source, layout.sizes, dtype)
    return jnp.asarray(source.train, dtype)


def replica_moments(problem: Problem, source: Source, keys: Keys, layout: Layout, rows: Rows = ALL) -> tuple[Moments, Moments]:
    """Training moments and those of the population, or of the held-out samples, of one replica. Traceable.

    Inside a `shard_map` over features each device assembles its own `rows`, and gets the whole.
    """
    sizes, activation, dtype = layout.sizes, problem.activation, jnp.dtype(layout.dtype)
    W = rows.local(first_layer(keys[0], sizes, dtype))
    x = training_samples(source, keys, layout)
    if sizes.draws is None:
        train = noise_averaged_moments(W, x, problem.t, sizes, activation, layout.train_rule, layout.train_order, rows)
    else:
        train = drawn_moments(W, x, problem.t, sizes, activation, keys[2], rows)
    if isinstance(source, GaussianMixture):
        test = population_moments(W, source, problem.t, activation, layout.test_rule, layout.test_order, rows)
    else:
        tested, held_out = jnp.asarray(source.test, dtype), dataclasses.replace(sizes, counts=layout.held_out)
        test = noise_averaged_moments(W, tested, problem.t, held_out, activation, layout.test_rule, layout.test_order, rows)
    return gathered_moments(train, rows), gathered_moments(test, rows)


def realised_optimum(problem: Problem, sizes: Sizes) -> Float[np.ndarray, " K"]:
    """(K,) loss of the exact score of the problem's mixture, with the shares of directions that dimension d can realise."""
    counts = largest_remainder(problem.mixture.eigenvalue_weights, sizes.d)
    return np.asarray(optimal_loss(counts / sizes.d, problem.mixture.eigenvalues, problem.t))


def check_truncation(truncation: Float[np.ndarray, "..."], layout: Layout) -> None:
    """Refuse exact averages whose series is cut too early.

    Raises:
        InputError: a relative error that may exceed `TRUNCATION_LIMIT`.
    """
    worst = float(np.max(truncation))
    if not worst <= TRUNCATION_LIMIT:
        raise InputError(
            f"d: {layout.sizes.d} leaves the exact averages uncertain by {worst:.2g} (the correlations of the features are of order "
            f"1/sqrt(d), to powers {layout.train_order} and {layout.test_order}); allowed: an error below {TRUNCATION_LIMIT:g}, a larger d"
        )
