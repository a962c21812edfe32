"""Moments U_c = E_c[φ φᵀ] and V_c = E_c[φ ξᵀ] of each class at finite size (docs/theory/simulation.md, eq-mehler)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.simulation import moment_assembly
from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.features import Sizes, feature_map
from rfdiff.simulation.mehler import MehlerTerms, population_terms, product, train_terms
from rfdiff.simulation.quadrature import Quadrature
from rfdiff.value_types import value_type


@value_type
class Moments:
    """First and second moments of the features, class by class (K classes, p features, d dimensions).

    Args:
        U: K matrices (p, p), E_c[φ φᵀ].
        V: K matrices (p, d), E_c[φ ξᵀ].
        untrained_loss: (K,) E_c‖ξ‖²/d, the loss at A = 0: 1 for an exact average, the class's sample mean for stored draws.
        truncation: bound on ‖error of U_c‖_F/‖diag U_c‖_F of Mehler's expansion, the largest over classes; 0 for stored draws.
    """

    U: tuple[Float[Array, "p p"], ...]
    V: tuple[Float[Array, "p d"], ...]
    untrained_loss: Float[Array, " K"]
    truncation: Float[Array, ""]


def noise_averaged_moments(
    W: Float[Array, "p d"],
    x: Float[Array, "n d"],
    t: ArrayLike,
    sizes: Sizes,
    activation: Activation,
    quadrature: Quadrature,
    order: int,
    rows: Rows = ALL,
) -> Moments:
    """Training moments with the noise averaged exactly (m = ∞).

    Args:
        W: (p, d) first layer.
        x: (n, d) clean samples in class order.
        t: diffusion time.
        sizes: counts of each class.
        activation: σ.
        quadrature: rule of the one-dimensional averages, good for std up to max ‖w‖/√d.
        order: highest power of r.
        rows: which features these are; the moments then have their rows alone, (p/shards, p) and (p/shards, d).
    """
    stops, dtype = np.cumsum(sizes.counts), W.dtype
    U, V, bounds = [], [], []
    for count, stop in zip(sizes.counts, stops, strict=True):
        share = np.asarray(1 / count, dtype)
        terms = train_terms(W, x[stop - count : stop], share, t, activation, quadrature, order, rows)
        moment, bound = _assembled(terms, rows)
        U.append(moment)
        V.append((np.sqrt(share) * jnp.sum(terms.coefficients[1], axis=1))[:, None] * terms.unit)
        bounds.append(bound)
    return Moments(tuple(U), tuple(V), jnp.ones(len(sizes.counts), dtype), jnp.max(jnp.stack(bounds)))


def drawn_moments(
    W: Float[Array, "p d"],
    x: Float[Array, "n d"],
    t: ArrayLike,
    sizes: Sizes,
    activation: Activation,
    key: Key[Array, ""],
    rows: Rows = ALL,
) -> Moments:
    """Training moments over m stored noise draws per sample: plain averages over the n_c m noised samples of a class.

    Draw by draw, so that no array is larger than (p, n) or (p, p).

    Args:
        W: (p, d) first layer.
        x: (n, d) clean samples in class order.
        t: diffusion time.
        sizes: counts of each class, and m.
        activation: σ.
        key: JAX random key; draw r uses fold_in(key, r), so more draws never change the old ones.
        rows: as in `noise_averaged_moments`.
    """
    dtype, k, draws = W.dtype, len(sizes.counts), int(sizes.draws or 0)
    signal = signal_scale(t).astype(dtype) * x
    noise_std = jnp.sqrt(noise_variance(t)).astype(dtype)
    stops = np.cumsum(sizes.counts)
    ranges = [slice(stop - count, stop) for count, stop in zip(sizes.counts, stops, strict=True)]

    def add(draw: jax.Array, sums: tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], jax.Array]) -> tuple:
        noise = jax.random.normal(jax.random.fold_in(key, draw), x.shape, jnp.float32).astype(dtype)
        local = rows.masked(feature_map(activation, W, signal + noise_std * noise), axis=1)
        phi = rows.gathered(local, axis=1)
        U, V, squares = sums
        return (
            tuple(total + product(local[c].T, phi[c]) for total, c in zip(U, ranges, strict=True)),
            tuple(total + product(local[c].T, noise[c]) for total, c in zip(V, ranges, strict=True)),
            squares + jnp.stack([jnp.sum(noise[c] * noise[c]) for c in ranges]),
        )

    p, d = W.shape
    zeros = ((jnp.zeros((p, p * rows.shards), dtype),) * k, (jnp.zeros((p, d), dtype),) * k, jnp.zeros(k, dtype))
    U, V, squares = jax.lax.fori_loop(0, draws, add, zeros)
    terms = [np.asarray(count * draws, dtype) for count in sizes.counts]
    U = tuple(total / m for total, m in zip(U, terms, strict=True))
    V = tuple(total / m for total, m in zip(V, terms, strict=True))
    return Moments(U, V, squares / jnp.stack(terms) / d, jnp.zeros((), dtype))


def population_moments(
    W: Float[Array, "p d"],
    mixture: GaussianMixture,
    t: ArrayLike,
    activation: Activation,
    quadrature: Quadrature,
    order: int,
    rows: Rows = ALL,
) -> Moments:
    """Population moments of each class, exact: the test loss needs no test set.

    Args:
        W: (p, d) first layer.
        mixture: K classes in dimension d.
        t: diffusion time.
        activation: σ.
        quadrature: rule of the one-dimensional averages, good for the largest standard deviation of a preactivation.
        order: highest power of the correlations.
        rows: as in `noise_averaged_moments`.
    """
    U, V, bounds = [], [], []
    for c in range(mixture.num_classes):
        terms, factor = population_terms(W, mixture, c, t, activation, quadrature, order, rows)
        moment, bound = _assembled(terms, rows)
        U.append(moment)
        V.append(factor[:, None] * W)
        bounds.append(bound)
    return Moments(tuple(U), tuple(V), jnp.ones(mixture.num_classes, W.dtype), jnp.max(jnp.stack(bounds)))


def _assembled(terms: MehlerTerms, rows: Rows) -> tuple[Float[Array, "local p"], Float[Array, ""]]:
    """This device's rows of a second moment, and the relative bound on the truncation error of the whole."""
    order = len(terms.coefficients) - 1
    bound = moment_assembly.truncation_bound(terms.unit, terms.energy, terms.captured_energy, order, rows)
    return moment_assembly.matrix(terms, rows), bound


def gathered_moments(moments: Moments, rows: Rows) -> Moments:
    """Whole moments on every device, from the rows that each holds."""
    if rows.shards == 1:
        return moments
    U, V = (tuple(rows.gathered(matrix)[: rows.p] for matrix in matrices) for matrices in (moments.U, moments.V))
    return Moments(tuple(matrix[:, : rows.p] for matrix in U), V, moments.untrained_loss, moments.truncation)
