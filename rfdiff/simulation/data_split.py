"""Training set and held-out set of a replica, drawn from a data set: disjoint, class by class, without replacement."""

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation.features import Sizes
from rfdiff.value_types import value_type


@value_type
class Split:
    """Samples of one replica, each set in class order.

    Args:
        train: (n, d) clean training samples, n_c of class c.
        test: (h, d) clean held-out samples, h_c of class c; none of them is among the training samples.
    """

    train: Float[np.ndarray, "n d"]
    test: Float[np.ndarray, "h d"]


def held_out_counts(data: Samples, problem: Problem, sizes: Sizes) -> tuple[int, ...]:
    """K numbers h_c of held-out samples: what n_c training samples leave of the class, up to `data.held_out`.

    Raises:
        InputError: data of another dimension or number of classes than the problem; a class with no sample left to test on.
    """
    if not isinstance(data, Samples):
        raise InputError(f"data: got {type(data).__name__}; allowed: Samples, or None for draws of the problem's mixture")
    if data.num_classes != problem.num_classes:
        raise InputError(f"data: {data.num_classes} classes; allowed: {problem.num_classes}, those of the problem's mixture")
    if data.dimension != sizes.d:
        raise InputError(f"d: {sizes.d}; allowed: {data.dimension}, the dimension of the data")
    if problem.mixture.dimension not in (None, sizes.d):
        raise InputError(f"d: {sizes.d}; allowed: {problem.mixture.dimension}, the dimension of the covariances of the problem's mixture")
    for c, (pool, count) in enumerate(zip(data.counts, sizes.counts, strict=True)):
        if pool <= count:
            raise InputError(
                f"data: class {c} has {pool} samples, and psi_n = {float(problem.psi_n):.4g} asks for {count} to train on; "
                f"allowed: at least {count + 1}, so that one or more are held out, or a smaller psi_n"
            )
    return tuple(min(pool - count, data.held_out) for pool, count in zip(data.counts, sizes.counts, strict=True))


def draw_split(data: Samples, sizes: Sizes, held_out: tuple[int, ...], key: Key[Array, ""]) -> Split:
    """A random split of each class into n_c training samples, h_c held-out ones and the rest, which is not used (on the host).

    Args:
        data: the data set, K classes.
        sizes: K counts n_c.
        held_out: K counts h_c.
        key: JAX random key; class c uses fold_in(key, c).
    """
    train, test = [], []
    for c, (count, held) in enumerate(zip(sizes.counts, held_out, strict=True)):
        members = np.flatnonzero(data.labels == c)
        chosen = members[np.asarray(jax.random.permutation(jax.random.fold_in(key, c), len(members)))]
        train.append(data.samples[chosen[:count]])
        test.append(data.samples[chosen[count : count + held]])
    return Split(np.concatenate(train), np.concatenate(test))
