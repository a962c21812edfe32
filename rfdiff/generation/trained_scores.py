"""Scores of networks trained at every time of a backward grid: one first layer, one training set, the exact flow at each t.

At diffusion time t the readout after training time τ is (docs/theory/model.md, eq-filter)

    A(τ; t)/√p = -(1/√Δ) Vᵀ f_τ(U),      U = E_train[φ φᵀ],  V = E_train[φ ξᵀ]  at this t,

from one eigendecomposition of U for all τ. Samplers evaluate a score only at the times of their grid, so this represents it completely.
With an odd activation (tanh, erf, sin) the score is odd in x, whatever the data: classes at x and -x are then generated equally often.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, check_taus
from rfdiff.simulation.features import Sizes, clean_samples, feature_map, first_layer, floating_type, sizes_at
from rfdiff.simulation.gradient_flow import mixed, zero_rounding
from rfdiff.simulation.mehler import product
from rfdiff.simulation.moments import drawn_moments, noise_averaged_moments
from rfdiff.simulation.replica import check_truncation, replica_mixture
from rfdiff.simulation.replica_memory import Layout, layout_for, replica_bytes
from rfdiff.value_types import as_real_array, static, value_type

CHUNK = 8  # times of the grid in one call: between calls there is progress, and Ctrl-C is heard


@value_type
class GridScore:
    """Score s(x, t) = A(t) φ(x)/√p known on a grid of times; at another t it is that of the nearest, in the logarithm of t.

    Args:
        first_layer: (p, d) W.
        readouts: (G, d, p) A/√p at each time.
        times: (G,) diffusion times.
        activation: σ.
    """

    first_layer: Float[ArrayLike, "p d"]
    readouts: Float[ArrayLike, "G d p"]
    times: Float[ArrayLike, " G"]
    activation: Activation = static()

    def __call__(self, x: Float[Array, " d"], t: ArrayLike) -> Float[Array, " d"]:
        """Score (d,) at a point x (d,)."""
        nearest = jnp.argmin(jnp.abs(jnp.log(jnp.asarray(self.times)) - jnp.log(jnp.asarray(t))))
        readout = jnp.asarray(self.readouts)[nearest]
        return product(readout, feature_map(self.activation, jnp.asarray(self.first_layer), x))


@value_type
class EmpiricalScore:
    """Exact score of the training set itself, (1/n) Σ_i w_i δ(x - x_i) noised to t: what memorises all of it.

    Args:
        samples: (n, d) training samples.
        weights: (n,) weights w_i of the samples in the training loss; None where all weigh 1.
    """

    samples: Float[ArrayLike, "n d"]
    weights: Float[ArrayLike, " n"] | None = None

    def __call__(self, x: Float[Array, " d"], t: ArrayLike) -> Float[Array, " d"]:
        """Score (d,) at a point x (d,)."""
        samples = jnp.asarray(self.samples, x.dtype)
        delta, scale = noise_variance(jnp.asarray(t, x.dtype)), signal_scale(jnp.asarray(t, x.dtype))
        logits = scale * (product(samples, x) - scale * jnp.sum(samples**2, axis=1) / 2) / delta
        if self.weights is not None:
            logits = logits + jnp.log(jnp.asarray(self.weights, x.dtype))
        return (scale * product(jax.nn.softmax(logits), samples) - x) / delta


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """One network trained at every time of a grid, at several training times.

    Args:
        mixture: law of the data, in dimension d.
        samples: (n, d) training samples in class order.
        labels: (n,) their classes.
        sample_weights: (n,) their weights in the training loss; None where all weigh 1.
        first_layer: (p, d) W.
        readouts: (T, G, d, p) A(τ; t)/√p.
        taus: (T,) training times τ.
        times: (G,) diffusion times t.
        activation: σ.
        dtype: floating type.
    """

    mixture: GaussianMixture
    samples: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    sample_weights: Float[np.ndarray, " n"] | None
    first_layer: Float[np.ndarray, "p d"]
    readouts: Float[np.ndarray, "T G d p"]
    taus: Float[np.ndarray, " T"]
    times: Float[np.ndarray, " G"]
    activation: Activation
    dtype: str

    def score(self, index: int) -> GridScore:
        """Score after training time taus[index]."""
        return GridScore(self.first_layer, self.readouts[index], self.times.astype(self.dtype), self.activation)


def train(
    problem: Problem,
    taus: ArrayLike,
    *,
    d: int,
    times: ArrayLike,
    key: jax.Array,
    dtype: DTypeLike | None = None,
    progress: Progress | None = None,
) -> TrainedNetwork:
    """Train a network at each time of a grid by the exact gradient flow.

    Args:
        problem: mixture, activation, ψ_p, ψ_n, noise draws; its own t is not used.
        taus: (T,) increasing training times; inf is convergence.
        d: dimension.
        times: (G,) diffusion times.
        key: JAX random key; the network and its data are those of `simulation.run_seeds` with seed r if it is fold_in(their key, r).
        dtype: float64 or float32; None for the default of the device.
        progress: called with (diffusion times done, G) after each chunk, or None.

    Raises:
        InputError: naming what is wrong; d too large for memory, with an estimate; exact averages that d leaves too uncertain.

    Reference: docs/theory/model.md, eq-filter; tests/generation/test_trained_scores.py.
    """
    require_progress(progress)
    taus, grid, name = check_taus(taus), as_real_array("times", times), floating_type(dtype)
    sizes = sizes_at(problem, d)
    check_memory(sizes, name, len(taus), len(grid))
    layout = layout_for(problem, sizes, name)
    mixture, keys = replica_mixture(problem, d, key)
    with jax.enable_x64(name == "float64"):
        W, x = first_layer(keys[0], sizes, name), clean_samples(keys[1], mixture, sizes, name)
        readouts = np.empty((len(taus), len(grid), d, sizes.p), name)
        chunk = math.ceil(len(grid) / math.ceil(len(grid) / CHUNK))
        for start in range(0, len(grid), chunk):
            begin = min(start, len(grid) - chunk)  # the last chunk repeats some, rather than be compiled for another size
            part = jnp.asarray(grid[begin : begin + chunk], name)
            trained, truncation = _readouts(W, x, part, jnp.asarray(taus, name), problem.psi_p, keys[2], problem.activation, layout)
            check_truncation(np.asarray(truncation), layout)
            readouts[:, begin : begin + chunk] = np.swapaxes(np.asarray(trained), 0, 1)
            if progress is not None:
                progress(min(start + chunk, len(grid)), len(grid))
        labels = np.repeat(np.arange(len(sizes.counts)), sizes.counts)
        return TrainedNetwork(
            mixture, np.asarray(x), labels, sizes.sample_weights, np.asarray(W), readouts, taus, grid, problem.activation, name
        )


def check_memory(sizes: Sizes, dtype: str, num_taus: int, num_times: int) -> None:
    """Refuse readouts, and a training, that do not fit in memory.

    Raises:
        InputError: naming d, with an estimate.
    """
    held = np.dtype(dtype).itemsize * num_taus * (num_times + 2 * CHUNK) * sizes.d * sizes.p
    need, available = held + replica_bytes(sizes, dtype, num_taus), available_bytes()
    if available is not None and need > available:
        fits = int(sizes.d * math.sqrt(available / need))
        raise InputError(
            f"d: {sizes.d} makes p = {sizes.p} features; readouts at {num_taus} training and {num_times} diffusion times need about "
            f"{need / 2**30:.3g} GiB in {dtype}, of {available / 2**30:.3g} GiB of memory; allowed: d up to about {fits}, or fewer times"
        )


@functools.partial(jax.jit, static_argnames=("activation", "layout"))
def _readouts(
    W: Float[Array, "p d"],
    x: Float[Array, "n d"],
    times: Float[Array, " G"],
    taus: Float[Array, " T"],
    psi_p: jax.Array,
    key: jax.Array,
    activation: Activation,
    layout: Layout,
) -> tuple[Float[Array, "G T d p"], Float[Array, " G"]]:
    """A(τ; t)/√p (G, T, d, p) and the truncation (G,) of the averages, one t after another: one U is held at a time."""
    sizes, dtype = layout.sizes, W.dtype
    shares = [np.asarray(share, dtype) for share in sizes.shares]

    def at(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        if sizes.draws is None:
            moments = noise_averaged_moments(W, x, t, sizes, activation, layout.train_rule, layout.train_order)
        else:
            moments = drawn_moments(W, x, t, sizes, activation, key)
        raw, basis = jnp.linalg.eigh(mixed(shares, moments.U), symmetrize_input=False)
        eigenvalues = zero_rounding(raw, sizes.rank)
        # V has no component on the null space of U; rounding would leave one there, multiplied by the largest filter value
        V = jnp.where((eigenvalues > 0)[:, None], product(basis.T, mixed(shares, moments.V)), 0)
        delta = noise_variance(t)
        f = GradientFlow().filter(eigenvalues, taus, 2 * delta / jnp.asarray(psi_p, dtype))
        return -product(f[:, None, :] * V.T[None], basis.T) / jnp.sqrt(delta), moments.truncation

    return jax.lax.map(at, times)
