"""The backward process of a mixture, in the coordinates its trajectories need, and the classes in which trajectories end."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from numpy.typing import ArrayLike

from rfdiff.backward.isotropic import check_classes
from rfdiff.backward.reduction import Radial, ReducedMixture, reduced
from rfdiff.backward.samplers import ARRAYS, Full, Observe, Score, chunk_bytes, chunk_of, integrate
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.noised_mixture import NoisedMixture
from rfdiff.progress import Progress
from rfdiff.value_types import as_number

PADDED = 1024


class BackwardProcess:
    """Trajectories of the backward process of a mixture under a score, and the classes in which they end.

    The class of a trajectory is drawn from P(c | x) at its last time t_end: this is the class of the clean sample, and where the classes
    are apart at t_end it is certain. With the exact score it makes every probability below independent of t_end.

    Args:
        mixture: the mixture, K ≥ 2 classes.
        score: s(x, t) in d dimensions; None for the exact one.
        full: integrate all d coordinates even where the exact reduction of isotropic classes (`reduction`) gives the same law.
        t_end: last time, > 0.
        num_steps: steps from any time to t_end.
        method: scheme of `integrate`.

    Raises:
        InputError: one class, or a number of steps that is not an integer ≥ 1.
    """

    def __init__(
        self,
        mixture: GaussianMixture,
        *,
        score: Score | None = None,
        full: bool = False,
        t_end: float = 0.02,
        num_steps: int | np.integer = 200,
        method: str = "heun-sde",
    ) -> None:
        check_classes(mixture.weights)
        noised = mixture.noised
        reduction = None if full or score is not None else reduced(noised)
        self.law: NoisedMixture | ReducedMixture = noised if reduction is None else reduction
        self.space: Full | Radial = Full() if reduction is None else reduction.space
        self.score: Score = jax.tree_util.Partial(type(self.law).score, self.law) if score is None else score
        self.is_reduced = reduction is not None
        self.t_end, self.num_steps, self.method = float(t_end), check_count("num_steps", num_steps, 1), method
        self.num_classes = noised.num_classes

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """float64 where a trajectory is a few numbers, else what the caller has set."""
        return jax.enable_x64(True) if self.is_reduced else contextlib.nullcontext()

    def draw(self, key: jax.Array, labels: Int[np.ndarray, " N"], t: float) -> Float[np.ndarray, "N r"]:
        """States (N, ·) of x_t given their classes, in chunks of bounded memory; t = inf is pure noise.

        Raises:
            InputError: the trajectories do not fit in memory (with an estimate).
        """
        with self._precision():
            return draw_states(self.law, key, labels, t)

    def run(
        self,
        x: Float[np.ndarray, "N r"],
        times: ArrayLike,
        key: jax.Array,
        *,
        observe: Observe | None = None,
        progress: Progress | None = None,
    ) -> tuple[Float[np.ndarray, "N r"], PyTree]:
        """States (N, ·) at the end of a grid, and what was observed, as `integrate`."""
        with self._precision():
            return integrate(self.score, x, times, key=key, method=self.method, observe=observe, space=self.space, progress=progress)

    def posterior(self, x: Float[np.ndarray, "N r"], t: float) -> Float[np.ndarray, "N K"]:
        """Class probabilities (N, K) of states at t, in chunks of bounded memory."""
        chunk = max(1, chunk_bytes() // (8 * x.shape[1] * x.dtype.itemsize * self.num_classes))
        with self._precision():
            parts = [np.asarray(_posteriors(self.law, x[i : i + chunk], jnp.asarray(t, x.dtype))) for i in range(0, len(x), chunk)]
        return np.concatenate(parts)

    def classes(self, x: Float[np.ndarray, "N r"], key: jax.Array) -> Int[np.ndarray, " N"]:
        """Class (N,) of each trajectory, from its state at t_end."""
        return drawn_classes(self.posterior(x, self.t_end), key)


def draw_states(law: NoisedMixture | ReducedMixture, key: jax.Array, labels: Int[np.ndarray, " N"], t: float) -> Float[np.ndarray, "N r"]:
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
        here = labels[start : start + chunk]
        drawn = _draws(law, key, jnp.arange(start, start + chunk), np.pad(here, (0, chunk - len(here))), time)
        states[start : start + chunk] = np.asarray(drawn)[: len(here)]
    return states


def drawn_classes(posterior: Float[np.ndarray, "N K"], key: jax.Array) -> Int[np.ndarray, " N"]:
    """A class (N,) for each row of class probabilities (N, K), drawn from it."""
    edges = np.cumsum(posterior, axis=1, dtype=np.float64)
    chance = np.asarray(jax.random.uniform(key, (len(posterior), 1)), np.float64)
    return np.minimum(np.sum(chance >= edges, axis=1), posterior.shape[1] - 1)


def check_count(name: str, value: object, least: int = 2) -> int:
    """A number of trajectories, steps or the like.

    Raises:
        InputError: not an integer ≥ `least`.
    """
    number = as_number(value)
    if not (number >= least and number == int(number)):
        raise InputError(f"{name}: {value!r}; allowed: an integer >= {least}")
    return int(number)


def proportion_error(share: ArrayLike, count: ArrayLike) -> Float[np.ndarray, "..."]:
    """Standard error of a measured proportion; where it is 0 or 1 that of half a count, for an error bar of zero says nothing."""
    count = np.maximum(np.asarray(count, np.float64), 1)
    inside = np.clip(np.asarray(share, np.float64), 0.5 / count, 1 - 0.5 / count)
    return np.sqrt(inside * (1 - inside) / count)


@jax.jit
def _draws(
    law: NoisedMixture | ReducedMixture, key: jax.Array, index: Int[Array, " N"], labels: Int[Array, " N"], t: jax.Array
) -> Float[Array, "N r"]:
    keys = jax.vmap(partial(jax.random.fold_in, key))(index)
    return jax.vmap(law.draw, (0, 0, None))(keys, labels, t)


@jax.jit
def _posteriors(law: NoisedMixture | ReducedMixture, x: Float[Array, "N r"], t: jax.Array) -> Float[Array, "N K"]:
    return jnp.exp(jax.vmap(partial(law.log_posterior, t=t))(x))
