"""Moments U_c = E_c[φ φᵀ] and V_c = E_c[φ ξᵀ] of each class at finite size (`equations`, section 6).

Two features of one sample are functions of two Gaussians of correlation r_ij, so by Mehler's formula

    E[φ_i φ_j] = Σ_k r_ij^k a_k(i) a_k(j),      a_k(i) = E_g[ σ(mean_i + std_i g) h_k(g) ],     h_k = He_k/√k!

with no derivative of σ. Over the noise alone (training sample x): mean = e^{-t} w·x/√d, std² = Δ‖w‖²/d; over a whole class
(population): mean = e^{-t} w·μ_c/√d and covariance wᵀ(e^{-2t}Σ_c + ΔI)w/d. Off the diagonal r = O(1/√d), so a few orders do; on it
r = 1 and E[φ_i²] is taken directly. Stein's lemma gives `E[φ_i ξ] = √(Δ/d) w_i a_1(i)/std_i` exactly.

What is left out beyond order k is bounded entry by entry: |rest_ij| ≤ |r_ij|^{k+1} √(e_i e_j), e_i = E[φ_i²] - Σ_{j≤k} a_j(i)².
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff._pytree import value_type
from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.mixture import GaussianMixture
from rfdiff.simulation.features import Sizes, feature_map
from rfdiff.simulation.quadrature import Quadrature, hermite_moments
from rfdiff.simulation.rows import ALL, Rows


@value_type
class Moments:
    """First and second moments of the features, class by class (K classes, p features, d dimensions).

    Args:
        U: K matrices (p, p), E_c[φ φᵀ].
        V: K matrices (p, d), E_c[φ ξᵀ].
        leading: (K,) E_c‖ξ‖²/d, the loss of A = 0: 1 for an exact average, the class's own mean for stored draws.
        truncation: bound on ‖error of U_c‖_F/‖diag U_c‖_F of Mehler's expansion, the largest over classes; 0 for stored draws.
    """

    U: tuple[jax.Array, ...]
    V: tuple[jax.Array, ...]
    leading: jax.Array
    truncation: jax.Array


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product in full precision: reduced-precision matrix units would ruin the small eigenvalues of U."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@value_type
class MehlerTerms:
    """A second moment of the features as Mehler's series, U_ij = Σ_k (z_i·z_j)^k Σ_s a_k(i, s) a_k(j, s) off the diagonal.

    Rows of U can be formed from the same rows of these parts alone, so that it need not be held whole.

    Args:
        unit: (p, D) unit vectors z_i, whose products are the correlations r_ij of the preactivations.
        coefficients: order + 1 matrices (p, S), a_k over √S of each centre of the average (S samples, or one class mean).
        energy: (p,) E φ_i², the diagonal.
    """

    unit: Any
    coefficients: Any
    energy: Any

    @property
    def kept(self) -> jax.Array:
        """(p,) part of E φ_i² that the series reaches."""
        total: jax.Array = sum(jnp.sum(a * a, axis=1) for a in self.coefficients)  # type: ignore[assignment]
        return total


def train_terms(
    W: jax.Array, x: jax.Array, share: Any, t: Any, activation: Activation, quadrature: Quadrature, order: int, rows: Rows = ALL
) -> MehlerTerms:
    """Terms of the noise average over clean samples x (S, d), each of weight `share` (a number, or (S,)), for the features of W."""
    dtype, d = W.dtype, W.shape[1]
    norms = jnp.sqrt(jnp.sum(W * W, axis=1))
    std = jnp.sqrt(noise_variance(t).astype(dtype) / d) * norms
    mean = signal_scale(t).astype(dtype) / np.sqrt(d).astype(dtype) * product(W, x.T)
    coefficients, energy = hermite_moments(activation, quadrature, mean, std, order)
    root = jnp.sqrt(jnp.asarray(share, dtype))
    terms = MehlerTerms(W / norms[:, None], tuple(root * a for a in coefficients), jnp.sum(share * energy, axis=1))
    return jax.tree.map(rows.masked, terms)


def population_terms(
    W: jax.Array, mixture: GaussianMixture, c: int, t: Any, activation: Activation, quadrature: Quadrature, order: int, held: Rows = ALL
) -> tuple[MehlerTerms, jax.Array]:
    """Terms of the average over the whole class c, and the factor (p,) of V_c = factor_i w_i (Stein's lemma), for the features of W."""
    dtype, d = W.dtype, W.shape[1]
    delta, scale = noise_variance(t).astype(dtype), signal_scale(t).astype(dtype)
    if mixture.factors is None:
        rows = W * jnp.sqrt(scale * scale * jnp.asarray(mixture.variances, dtype)[c] + delta)
    else:  # data and noise side by side: their covariances add up
        rows = jnp.concatenate([scale * product(W, jnp.asarray(mixture.factors, dtype)[c]), jnp.sqrt(delta) * W], axis=1)
    norms = jnp.sqrt(jnp.sum(rows * rows, axis=1))
    root = np.sqrt(d).astype(dtype)
    mean = scale / root * product(W, jnp.asarray(mixture.means, dtype)[c])
    coefficients, energy = hermite_moments(activation, quadrature, mean[:, None], norms / root, order)
    terms = MehlerTerms(rows / norms[:, None], tuple(coefficients), energy[:, 0])
    terms = jax.tree.map(held.masked, terms)
    return terms, jnp.sqrt(delta) * terms.coefficients[1][:, 0] / norms


def mehler_rows(rows: MehlerTerms, terms: MehlerTerms, correlation: jax.Array, off_diagonal: jax.Array) -> jax.Array:
    """Rows (b, p) of a second moment, from the terms of these rows and of all; `off_diagonal` (b, p) is False on its diagonal."""
    grams = [product(own, a.T) for own, a in zip(rows.coefficients, terms.coefficients, strict=True)]
    return jnp.where(off_diagonal, _horner(correlation, grams), rows.energy[:, None])


def truncation_rows(rows: MehlerTerms, terms: MehlerTerms, correlation: jax.Array, off_diagonal: jax.Array) -> jax.Array:
    """Part from some rows of the squared bound on the terms beyond the order, off the diagonal; over ‖energy‖² it is relative."""
    order = len(terms.coefficients) - 1
    squares = jnp.where(off_diagonal, jax.lax.integer_pow(correlation, 2 * (order + 1)), 0)
    left, right = (jnp.maximum(part.energy - part.kept, 0) for part in (rows, terms))
    return jnp.vdot(left, product(squares, right))


def noise_averaged_moments(
    W: jax.Array, x: jax.Array, t: Any, sizes: Sizes, activation: Activation, quadrature: Quadrature, order: int, rows: Rows = ALL
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
        rows: which features these are; the moments then have their rows alone, (p/parts, p) and (p/parts, d).
    """
    stops, dtype = np.cumsum(sizes.counts), W.dtype
    correlation: Any = None
    U, V, bounds = [], [], []
    for count, stop in zip(sizes.counts, stops, strict=True):
        share = np.asarray(1 / count, dtype)
        own = train_terms(W, x[stop - count : stop], share, t, activation, quadrature, order, rows)
        terms = rows.everywhere(own)
        correlation = product(own.unit, terms.unit.T) if correlation is None else correlation  # the same for every class
        moment, bound = _whole(own, terms, correlation, rows)
        U.append(moment)
        V.append((np.sqrt(share) * jnp.sum(own.coefficients[1], axis=1))[:, None] * own.unit)
        bounds.append(bound)
    return Moments(tuple(U), tuple(V), jnp.ones(len(sizes.counts), dtype), jnp.max(jnp.stack(bounds)))


def drawn_moments(W: jax.Array, x: jax.Array, t: Any, sizes: Sizes, activation: Activation, key: jax.Array, rows: Rows = ALL) -> Moments:
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

    def add(draw: Any, sums: Any) -> Any:
        noise = jax.random.normal(jax.random.fold_in(key, draw), x.shape, jnp.float32).astype(dtype)
        own = rows.masked(feature_map(activation, W, signal + noise_std * noise), axis=1)
        phi = rows.everywhere(own, axis=1)
        U, V, squares = sums
        parts = [(own[a:b], phi[a:b], noise[a:b]) for a, b in zip(stops - sizes.counts, stops, strict=True)]
        return (
            tuple(total + product(f.T, g) for total, (f, g, _) in zip(U, parts, strict=True)),
            tuple(total + product(f.T, e) for total, (f, _, e) in zip(V, parts, strict=True)),
            squares + jnp.stack([jnp.sum(e * e) for *_, e in parts]),
        )

    p, d = W.shape
    zeros = ((jnp.zeros((p, p * rows.parts), dtype),) * k, (jnp.zeros((p, d), dtype),) * k, jnp.zeros(k, dtype))
    U, V, squares = jax.lax.fori_loop(0, draws, add, zeros)
    terms = [np.asarray(count * draws, dtype) for count in sizes.counts]
    U = tuple(total / m for total, m in zip(U, terms, strict=True))
    V = tuple(total / m for total, m in zip(V, terms, strict=True))
    return Moments(U, V, squares / jnp.stack(terms) / d, jnp.zeros((), dtype))


def population_moments(
    W: jax.Array, mixture: GaussianMixture, t: Any, activation: Activation, quadrature: Quadrature, order: int, rows: Rows = ALL
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
        own, factor = population_terms(W, mixture, c, t, activation, quadrature, order, rows)
        terms = rows.everywhere(own)
        moment, bound = _whole(own, terms, product(own.unit, terms.unit.T), rows)
        U.append(moment)
        V.append(factor[:, None] * W)
        bounds.append(bound)
    return Moments(tuple(U), tuple(V), jnp.ones(mixture.num_classes, W.dtype), jnp.max(jnp.stack(bounds)))


def _whole(own: MehlerTerms, terms: MehlerTerms, correlation: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    """Own rows (p, p) of a second moment, and the relative bound on what the series of the whole leaves out."""
    off_diagonal = rows.numbers(len(own.energy))[:, None] != jnp.arange(len(terms.energy))
    bound = rows.total(truncation_rows(own, terms, correlation, off_diagonal)) / jnp.vdot(terms.energy, terms.energy)
    return mehler_rows(own, terms, correlation, off_diagonal), jnp.sqrt(bound)


def together(own: Moments, rows: Rows) -> Moments:
    """Whole moments on every device, from the rows that each holds."""
    if rows.parts == 1:
        return own
    U, V = (tuple(rows.everywhere(part)[: rows.p] for part in parts) for parts in (own.U, own.V))
    return Moments(tuple(part[:, : rows.p] for part in U), V, own.leading, own.truncation)


def _horner(correlation: jax.Array, terms: list[jax.Array]) -> jax.Array:
    """Σ_k r^k ∘ terms_k."""
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * correlation + term
    return total
