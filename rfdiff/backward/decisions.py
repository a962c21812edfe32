"""What U-turns, clones and committors share: a mixture in the coordinates its trajectories need, and the class in which they end."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.backward.reduction import ReducedMixture, reduced
from rfdiff.backward.samplers import ARRAYS, Full, backward, chunk_bytes, chunk_of
from rfdiff.backward.speciation import check_classes
from rfdiff.errors import InputError
from rfdiff.mixture import GaussianMixture
from rfdiff.noised_mixture import NoisedMixture
from rfdiff.value_types import as_number

PADDED = 1024


class Denoiser:
    """Trajectories of a mixture under a score, and the classes in which they end.

    The class of a trajectory is drawn from P(c | x) at its last time t_end: this is the class of the clean sample, and where the classes
    are apart at t_end it is certain. With the exact score it makes every probability below independent of t_end.

    Args:
        mixture: the mixture, K ≥ 2 classes.
        score: s(x, t) in d dimensions; None for the exact one.
        full: run all d coordinates even where the exact reduction of isotropic classes (`reduction`) gives the same law.
        t_end: last time, > 0.
        num_steps: steps of one denoising.
        method: scheme of `samplers.backward`.

    Raises:
        InputError: one class, or a number of steps that is not an integer ≥ 1.
    """

    def __init__(
        self,
        mixture: GaussianMixture,
        score: Callable | None = None,
        full: bool = False,
        t_end: float = 0.02,
        num_steps: int = 200,
        method: str = "heun-sde",
    ) -> None:
        check_classes(mixture.weights)
        if not (as_number(num_steps) >= 1 and num_steps == int(num_steps)):
            raise InputError(f"num_steps: {num_steps!r}; allowed: an integer >= 1")
        noised = mixture.noised
        small = None if full or score is not None else reduced(noised)
        self.law: NoisedMixture | ReducedMixture = noised if small is None else small
        self.space: Any = Full() if small is None else small.space
        self.score: Any = jax.tree_util.Partial(type(self.law).score, self.law) if score is None else score
        self.wide = small is not None  # a few numbers for each trajectory: float64 costs nothing
        self.t_end, self.num_steps, self.method = float(t_end), int(num_steps), method
        self.num_classes = noised.num_classes

    def _precision(self) -> Any:
        """float64 where it costs nothing, else what the caller has set."""
        return jax.enable_x64(True) if self.wide else contextlib.nullcontext()

    def draw(self, key: jax.Array, labels: np.ndarray, t: float) -> np.ndarray:
        """States (N, ·) of x_t given their classes, in chunks of bounded memory; t = inf is pure noise.

        Raises:
            InputError: the trajectories do not fit in memory (with an estimate).
        """
        with self._precision():
            return draw_states(self.law, key, labels, t)

    def run(self, x: np.ndarray, times: Any, key: jax.Array, label: str | None = None, observe: Callable | None = None) -> Any:
        """States (N, ·) at the end of a grid, and what was observed, as `samplers.backward`."""
        with self._precision():
            return backward(self.score, x, times, key, self.method, observe, self.space, label)

    def posterior(self, x: np.ndarray, t: float) -> np.ndarray:
        """Class probabilities (N, K) of states at t, in chunks of bounded memory."""
        chunk = max(1, chunk_bytes() // (8 * x.shape[1] * x.dtype.itemsize * self.num_classes))
        with self._precision():
            parts = [np.asarray(_posteriors(self.law, x[i : i + chunk], jnp.asarray(t, x.dtype))) for i in range(0, len(x), chunk)]
        return np.concatenate(parts)

    def classes(self, x: np.ndarray, key: jax.Array) -> np.ndarray:
        """Class (N,) of each trajectory, from its state at t_end."""
        return drawn_classes(self.posterior(x, self.t_end), key)


def draw_states(law: NoisedMixture | ReducedMixture, key: jax.Array, labels: np.ndarray, t: float) -> np.ndarray:
    """States (N, ·) of x_t given their classes (N,), in chunks of bounded memory; one does not depend on how many there are.

    Raises:
        InputError: they do not fit in memory (with an estimate).
    """
    time, count = jnp.asarray(t, float), len(labels)
    size = jax.eval_shape(law.draw, key, 0, time).shape[0]
    chunk_of(size, count, time.dtype)
    most = max(1, chunk_bytes() // (ARRAYS * size * time.dtype.itemsize))
    chunk = min(most, count + -count % PADDED)  # few sizes, few programs
    states = np.empty((count, size), time.dtype)
    for start in range(0, count, chunk):
        own = labels[start : start + chunk]
        drawn = _draws(law, key, jnp.arange(start, start + chunk), np.pad(own, (0, chunk - len(own))), time)
        states[start : start + chunk] = np.asarray(drawn)[: len(own)]
    return states


def drawn_classes(posterior: np.ndarray, key: jax.Array) -> np.ndarray:
    """A class (N,) for each row of class probabilities (N, K), drawn from it."""
    edges = np.cumsum(posterior, axis=1, dtype=np.float64)
    chance = np.asarray(jax.random.uniform(key, (len(posterior), 1)), np.float64)
    return np.minimum(np.sum(chance >= edges, axis=1), posterior.shape[1] - 1)


def check_count(name: str, value: Any, least: int = 2) -> int:
    """A number of trajectories.

    Raises:
        InputError: not an integer ≥ `least`.
    """
    number = as_number(value)
    if not (number >= least and number == int(number)):
        raise InputError(f"{name}: {value!r}; allowed: an integer >= {least}")
    return int(number)


def proportion_error(share: Any, count: Any) -> np.ndarray:
    """Standard error of a measured proportion; where it is 0 or 1 that of half a count, for an error bar of zero says nothing."""
    count = np.maximum(np.asarray(count, np.float64), 1)
    kept = np.clip(np.asarray(share, np.float64), 0.5 / count, 1 - 0.5 / count)
    return np.sqrt(kept * (1 - kept) / count)


@jax.jit
def _draws(law: Any, key: jax.Array, index: jax.Array, labels: jax.Array, t: jax.Array) -> jax.Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    return jax.vmap(law.draw, (0, 0, None))(keys, labels, t)


@jax.jit
def _posteriors(law: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.exp(jax.vmap(partial(law.log_posterior, t=t))(x))
