"""Integration of the backward process for any score: the reverse SDE and the probability-flow ODE on a decreasing grid of times.

With s(x, t) the score of x_t, and h > 0 the step from t to t - h,

    reverse SDE            x_{t-h} = x_t + h (x + 2 s) + √(2h) ξ      (drift at x_t, noise ξ ~ N(0, I))
    probability flow       x_{t-h} = x_t + h (x + s)

both of which carry the law p_t to p_{t-h} if s is exact. The noise is additive, so that the trapezoidal corrector with the predictor's
own noise has weak order 2 (Kloeden and Platen 1992, eq. 15.1.4); tests/backward/test_samplers.py measures the orders 1, 2, 2.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree
from numpy.typing import ArrayLike

from rfdiff.backward.time_grids import check_grid
from rfdiff.errors import InputError
from rfdiff.machine_memory import available_bytes
from rfdiff.progress import Progress, require_progress
from rfdiff.value_types import value_type

Score = Callable[[jax.Array, jax.Array], jax.Array]  # s(x, t), (d,) and a time to (d,)
Observe = Callable[[jax.Array, jax.Array], PyTree]  # of (x, t), small arrays

METHODS = ("euler-maruyama", "heun-sde", "heun-ode")
CHUNK_BYTES = 2**25  # larger chunks leave the cache of a CPU: at d = 16,384 they took half as long again
ACCELERATOR_BYTES = 2**28  # there small chunks leave most of it idle: on an H100 these took half the time
ARRAYS = 12  # state, noise, two scores and their temporaries, as XLA keeps them


class Space(Protocol):
    """Where trajectories live: how a state becomes the vector that a step moves, what noise moves it, and how it becomes a state again."""

    def lift(self, x: jax.Array) -> jax.Array:
        """Vector that a step starts from."""

    def noise(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """Noise ξ of one step."""

    def settle(self, x: jax.Array) -> jax.Array:
        """State in which a step ends."""


@value_type
class Full:
    """All d coordinates, standard normal noise."""

    def lift(self, x: jax.Array) -> jax.Array:
        """The state itself."""
        return x

    def noise(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """Standard normal noise."""
        return jax.random.normal(key, like.shape, like.dtype)

    def settle(self, x: jax.Array) -> jax.Array:
        """The vector itself."""
        return x


def step(
    score: Score, method: str, x: Float[Array, " d"], noise: Float[Array, " d"], t: jax.Array, t_next: jax.Array
) -> Float[Array, " d"]:
    """One step from x_t to x at t_next < t.

    Args:
        score: s(x, t), (d,) to (d,).
        method: "euler-maruyama", "heun-sde" or "heun-ode".
        x: (d,) state at t.
        noise: (d,) standard normal; the ODE does not use it.
        t, t_next: times.

    Reference: module docstring.
    """
    h = t - t_next
    gain = 1 if method == "heun-ode" else 2
    kick = 0 if method == "heun-ode" else jnp.sqrt(2 * h) * noise
    drift = x + gain * score(x, t)
    ahead = x + h * drift + kick
    if method == "euler-maruyama":
        return ahead
    return x + h / 2 * (drift + ahead + gain * score(ahead, t_next)) + kick


@partial(jax.jit, static_argnames="method")
def _run(
    score: Score, observe: Observe, space: Space, x: Float[Array, "N d"], keys: jax.Array, times: Float[Array, " T"], method: str
) -> tuple[Float[Array, "N d"], PyTree, Int[Array, " N"]]:
    """States (N, d) at the last time, what was observed at every time (N, T, ...), and the first step (N,) that is not finite, or -1."""

    def trajectory(x: jax.Array, key: jax.Array) -> tuple[jax.Array, PyTree, jax.Array]:
        def body(carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], PyTree]:
            x, bad = carry
            index, t, t_next = inputs
            start = space.lift(x)
            noise = start if method == "heun-ode" else space.noise(jax.random.fold_in(key, index), start)
            x = space.settle(step(score, method, start, noise, t, t_next))
            bad = jnp.where((bad < 0) & ~jnp.all(jnp.isfinite(x)), index, bad)
            return (x, bad), observe(x, t_next)

        indices = jnp.arange(len(times) - 1)
        (last, bad), seen = jax.lax.scan(body, (x, jnp.asarray(-1)), (indices, times[:-1], times[1:]))
        first = observe(x, times[0])
        return last, jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, seen), bad

    return jax.vmap(trajectory)(x, keys)


def integrate(
    score: Score,
    x: ArrayLike,
    times: ArrayLike,
    *,
    key: jax.Array,
    method: str = "heun-sde",
    observe: Observe | None = None,
    space: Space | None = None,
    progress: Progress | None = None,
) -> tuple[Float[np.ndarray, "N d"], PyTree]:
    """Integrate trajectories of the backward process through a grid of times, each on its own and with its own random numbers.

    Args:
        score: s(x, t), (d,) and a time to (d,). A function is compiled for itself; a `jax.tree_util.Partial` or another callable pytree
            may change its arrays without a new compilation.
        x: (N, d) states at times[0]; their floating type is that of the computation.
        times: (T,) decreasing diffusion times > 0 (`log_snr_grid`).
        key: JAX random key; trajectory i has the same noise whatever N is.
        method: "euler-maruyama" (weak order 1), "heun-sde" (2), or "heun-ode" (probability flow, order 2, no noise).
        observe: function of (x, t) whose small arrays are kept at every time, or None.
        space: where the states live, if not in all coordinates (`reduction.Radial`).
        progress: called with (trajectories done, N) after each chunk, or None.

    Returns:
        (N, d) states at times[-1], and what was observed, each array with leading shape (N, T); None without `observe`.

    Raises:
        InputError: a bad grid or method, a score of the wrong shape, a trajectory that is not finite (with t and step), or states that
            do not fit in memory.

    Reference: docs/theory/speciation.md; tests/backward/test_samplers.py.
    """
    require_progress(progress)
    grid = check_grid(times)
    check_method(method)
    where: Space = Full() if space is None else space
    states = x if isinstance(x, jax.Array) else np.asarray(x)
    if states.ndim != 2 or states.size == 0 or not jnp.issubdtype(states.dtype, jnp.floating):
        raise InputError(f"x: shape {states.shape} of {states.dtype}; allowed: (N, d) floating numbers, one trajectory a row")
    count, dtype = states.shape[0], jnp.asarray(states[:1]).dtype
    chunk = chunk_of(states.shape[1], count, dtype)
    field, seen = _pytree_function(score), _pytree_function(_nothing if observe is None else observe)
    _check_score(field, where, states.shape[1], dtype)
    clock, last, observed = jnp.asarray(grid, dtype), [], []
    for start in range(0, count, chunk):
        begin = min(start, count - chunk)  # the last chunk repeats some, rather than be compiled for another size
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(begin, begin + chunk))
        end, watched, bad = _run(field, seen, where, jnp.asarray(states[begin : begin + chunk]), keys, clock, method)
        _check_finite(np.asarray(bad), grid, begin)
        last.append(np.asarray(end)[start - begin :])
        observed.append(jax.tree.map(lambda values, skip=start - begin: np.asarray(values)[skip:], watched))
        if progress is not None:
            progress(min(start + chunk, count), count)
    together = jax.tree.map(lambda *parts: np.concatenate(parts), *observed)
    return np.concatenate(last), None if observe is None else together


def check_method(method: str) -> None:
    """Refuse an unknown scheme.

    Raises:
        InputError: naming those there are.
    """
    if method not in METHODS:
        raise InputError(f"method: {method!r}; allowed: {', '.join(METHODS)}")


def chunk_bytes() -> int:
    """Memory of a chunk of trajectories."""
    return CHUNK_BYTES if jax.default_backend() == "cpu" else ACCELERATOR_BYTES


def chunk_of(dimension: int, count: int, dtype: DTypeLike) -> int:
    """Trajectories run at once: of bounded memory, all chunks of one size.

    Raises:
        InputError: the states of all trajectories do not fit in memory (with an estimate).
    """
    one = ARRAYS * dimension * np.dtype(dtype).itemsize
    most = max(1, min(count, chunk_bytes() // one))
    chunk = math.ceil(count / math.ceil(count / most))
    need, available = 3 * count * dimension * np.dtype(dtype).itemsize + chunk * one, available_bytes()
    if available is not None and need > available:
        raise InputError(
            f"d: {count} trajectories in {dimension} dimensions need about {need / 2**30:.3g} GiB of {available / 2**30:.3g} GiB; "
            f"allowed: about {max(int(count * available / need), 1)} trajectories at this d, or the exact reduction of isotropic mixtures"
        )
    return chunk


def _nothing(x: jax.Array, t: jax.Array) -> tuple[()]:
    return ()


def _pytree_function(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A callable that is a pytree: itself if it is one, else with itself as static structure."""
    return jax.tree_util.Partial(function) if jax.tree_util.all_leaves([function]) else function


def _check_score(score: Score, space: Space, dimension: int, dtype: DTypeLike) -> None:
    """Refuse a score whose value has another shape than its point, before anything runs."""
    point = jax.eval_shape(space.lift, jax.ShapeDtypeStruct((dimension,), dtype))
    value = jax.eval_shape(score, point, jax.ShapeDtypeStruct((), dtype))
    shape = getattr(value, "shape", None)
    if shape != point.shape:
        raise InputError(f"score: returns shape {shape} at a point of shape {point.shape}; allowed: the same shape")


def _check_finite(bad: np.ndarray, times: np.ndarray, first: int) -> None:
    """Refuse trajectories that left the finite numbers, naming the earliest."""
    if np.any(bad >= 0):
        index = int(bad[bad >= 0].min())
        row = first + int(np.flatnonzero(bad == index)[0])
        raise InputError(
            f"score: trajectory {row} is not finite after step {index} of {len(times) - 1}, from t = {times[index]:.6g} to "
            f"{times[index + 1]:.6g}; allowed: finite scores (a step too long for the score is a likely cause: use more steps)"
        )
