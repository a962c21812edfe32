"""The network at finite size: frozen first layer W (p, d), features φ(x) = σ(W x/√d), and the integers behind ψ_p and ψ_n."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture, largest_remainder
from rfdiff.problem import Problem
from rfdiff.value_types import as_integer

DTYPES = ("float32", "float64")
LARGEST_DIMENSION = 2**31
MOST_COLUMNS = 10**10  # noisy samples n m of a training set; more would run for months


@jax.tree_util.register_static
@dataclass(frozen=True)
class Sizes:
    """Integers of a network and its training set, all static (they are shapes), compared by value so that equal sizes compile once.

    Args:
        d: dimension.
        p: features, round(ψ_p d).
        counts: K samples n_c of each class, each ≥ 1; their sum is n = round(ψ_n d).
        draws: noise draws m per sample; None for the exact noise average.
        loss_weights: K weights ω_c of the classes in the training loss; None for the fractions n_c/n.
    """

    d: int
    p: int
    counts: tuple[int, ...]
    draws: int | None
    loss_weights: tuple[float, ...] | None = None

    @property
    def n(self) -> int:
        """Samples n = Σ_c n_c."""
        return sum(self.counts)

    @property
    def shares(self) -> tuple[float, ...]:
        """K weights of the classes in U = Σ_c ω_c U_c and V = Σ_c ω_c V_c."""
        return tuple(count / self.n for count in self.counts) if self.loss_weights is None else self.loss_weights

    @property
    def sample_weights(self) -> Float[np.ndarray, " n"] | None:
        """(n,) weights ω_c n/n_c of the samples in the training loss, of mean 1; None where all weigh 1."""
        if self.loss_weights is None:
            return None
        return np.repeat(np.asarray(self.loss_weights) * self.n / np.asarray(self.counts), self.counts)

    @property
    def rank(self) -> int:
        """Largest rank of U: p, or for drawn noise the number n m of columns of the classes that are trained on, if smaller."""
        trained = sum(count for count, share in zip(self.counts, self.shares, strict=True) if share > 0)
        return self.p if self.draws is None else min(self.p, trained * self.draws)


def sizes_at(problem: Problem, d: int) -> Sizes:
    """Sizes of a problem in dimension d: p = round(ψ_p d), n = round(ψ_n d), n_c by largest remainder.

    Raises:
        InputError: d not an integer from 1 to 2^31, too small for one feature and one sample of each class, or so large that there are
            more than 10^10 noisy samples n m.
    """
    d, k = as_integer("d", d, 1, LARGEST_DIMENSION), problem.num_classes
    p, n = round(float(problem.psi_p) * d), round(float(problem.psi_n) * d)
    if p < 1 or n < k:
        smallest = max(0.5 / float(problem.psi_p), (k - 0.5) / float(problem.psi_n))
        raise InputError(
            f"d: {d} makes p = {p} features and n = {n} samples; allowed: at least 1 feature and 1 sample of each of the {k} classes, "
            f"d > {smallest:.4g} at psi_p = {float(problem.psi_p):.4g}, psi_n = {float(problem.psi_n):.4g}"
        )
    draws = None if np.isinf(problem.noise_draws) else int(problem.noise_draws)
    columns = n * (1 if draws is None else draws)
    if columns > MOST_COLUMNS:
        raise InputError(
            f"d: {d} makes n = {n} samples, {columns:.4g} with their noise draws; allowed: at most {MOST_COLUMNS:.0e}, "
            "a smaller d, psi_n or noise_draws"
        )
    counts = tuple(int(count) for count in largest_remainder(problem.mixture.weights, n))
    weights = None if problem.loss_weights is None else tuple(np.asarray(problem.loss_weights, np.float64).tolist())
    return Sizes(d, p, counts, draws, weights)


def floating_type(dtype: DTypeLike | None) -> str:
    """Name of the floating type of a simulation: None is float64 on a CPU and float32 on an accelerator.

    Raises:
        InputError: neither float32 nor float64.
    """
    if dtype is None:
        return "float64" if jax.default_backend() == "cpu" else "float32"
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = repr(dtype)
    if name not in DTYPES:
        raise InputError(f"dtype: {name}; allowed: {' or '.join(DTYPES)}, or None for the default of the device")
    return name


def first_layer(key: jax.Array, sizes: Sizes, dtype: DTypeLike) -> Float[Array, "p d"]:
    """Frozen first layer W (p, d), i.i.d. N(0, 1), rows not normalised.

    Drawn in float32 whatever the dtype, so that a replica is the same network in both precisions.
    """
    return jax.random.normal(key, (sizes.p, sizes.d), jnp.float32).astype(dtype)


def clean_samples(key: jax.Array, mixture: GaussianMixture, sizes: Sizes, dtype: DTypeLike) -> Float[Array, "n d"]:
    """Clean training samples x (n, d) in class order; standard normals drawn in float32, then scaled and shifted in the dtype."""
    return mixture.place(jax.random.normal(key, (sizes.n, sizes.d), jnp.float32).astype(dtype), sizes.counts)


def feature_map(activation: Activation, W: Float[Array, "p d"], x: Float[Array, "*batch d"]) -> Float[Array, "*batch p"]:
    """Features φ(x) = σ(W x/√d) of samples x (..., d): (..., p)."""
    projection = jnp.matmul(x, W.T, precision=jax.lax.Precision.HIGHEST)
    return activation(projection / np.sqrt(W.shape[1]).astype(W.dtype))
