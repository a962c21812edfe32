"""Second moments of the features as Mehler's series (docs/theory/simulation.md, eq-mehler).

Two features of one sample are functions of two Gaussians of correlation r_ij, so by Mehler's formula

    E[φ_i φ_j] = Σ_k r_ij^k a_k(i) a_k(j),      a_k(i) = E_g[ σ(mean_i + std_i g) h_k(g) ],     h_k = He_k/√k!

with no derivative of σ. Over the noise alone (training sample x): mean = e^{-t} w·x/√d, std² = Δ‖w‖²/d; over a whole class
(population): mean = e^{-t} w·μ_c/√d and covariance wᵀ(e^{-2t}Σ_c + ΔI)w/d. Off the diagonal r = O(1/√d), so a few orders do; on it
r = 1 and E[φ_i²] is taken directly. Stein's lemma gives `E[φ_i ξ] = √(Δ/d) w_i a_1(i)/std_i` exactly.

The terms beyond order k are bounded entry by entry: |rest_ij| ≤ |r_ij|^{k+1} √(e_i e_j), e_i = E[φ_i²] - Σ_{j≤k} a_j(i)².
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.quadrature import Quadrature, hermite_moments
from rfdiff.value_types import value_type


def product(a: Float[Array, "m k"], b: Float[Array, "k n"]) -> Float[Array, "m n"]:
    """Matrix product in full precision: reduced-precision matrix units would ruin the small eigenvalues of U."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@value_type
class MehlerTerms:
    """A second moment of the features as Mehler's series, U_ij = Σ_k (z_i·z_j)^k Σ_s a_k(i, s) a_k(j, s) off the diagonal.

    A block of rows of U needs only the same rows of these arrays on its left, so that U need not be held whole.

    Args:
        unit: (p, D) unit vectors z_i, whose products are the correlations r_ij of the preactivations.
        coefficients: order + 1 matrices (p, S), a_k over √S of each centre of the average (S samples, or one class mean).
        energy: (p,) E φ_i², the diagonal.
    """

    unit: Float[Array, "p D"]
    coefficients: tuple[Float[Array, "p S"], ...]
    energy: Float[Array, " p"]

    @property
    def captured_energy(self) -> Float[Array, " p"]:
        """(p,) the part Σ_k Σ_s a_k(i, s)² of E φ_i² that the series captures up to its order."""
        return functools.reduce(jnp.add, [jnp.sum(a * a, axis=1) for a in self.coefficients])


def train_terms(
    W: Float[Array, "p d"],
    x: Float[Array, "S d"],
    share: ArrayLike,
    t: ArrayLike,
    activation: Activation,
    quadrature: Quadrature,
    order: int,
    rows: Rows = ALL,
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
    W: Float[Array, "p d"],
    mixture: GaussianMixture,
    c: int,
    t: ArrayLike,
    activation: Activation,
    quadrature: Quadrature,
    order: int,
    rows: Rows = ALL,
) -> tuple[MehlerTerms, Float[Array, " p"]]:
    """Terms of the average over the whole class c, and the factor (p,) of V_c = factor_i w_i (Stein's lemma), for the features of W."""
    dtype, d = W.dtype, W.shape[1]
    delta, scale = noise_variance(t).astype(dtype), signal_scale(t).astype(dtype)
    if mixture.factors is None:
        preactivation = W * jnp.sqrt(scale * scale * jnp.asarray(mixture.variances, dtype)[c] + delta)
    else:  # data and noise side by side: their covariances add up
        preactivation = jnp.concatenate([scale * product(W, jnp.asarray(mixture.factors, dtype)[c]), jnp.sqrt(delta) * W], axis=1)
    norms = jnp.sqrt(jnp.sum(preactivation * preactivation, axis=1))
    root = np.sqrt(d).astype(dtype)
    mean = scale / root * product(W, jnp.asarray(mixture.means, dtype)[c])
    coefficients, energy = hermite_moments(activation, quadrature, mean[:, None], norms / root, order)
    terms = MehlerTerms(preactivation / norms[:, None], tuple(coefficients), energy[:, 0])
    terms = jax.tree.map(rows.masked, terms)
    return terms, jnp.sqrt(delta) * terms.coefficients[1][:, 0] / norms


def mehler_rows(
    rows: MehlerTerms, terms: MehlerTerms, correlation: Float[Array, "b p"], off_diagonal: Bool[Array, "b p"]
) -> Float[Array, "b p"]:
    """Rows (b, p) of a second moment, from the terms of these rows and of all; `off_diagonal` (b, p) is False on its diagonal."""
    grams = [product(a_rows, a.T) for a_rows, a in zip(rows.coefficients, terms.coefficients, strict=True)]
    return jnp.where(off_diagonal, _horner(correlation, grams), rows.energy[:, None])


def truncation_rows(
    rows: MehlerTerms, terms: MehlerTerms, correlation: Float[Array, "b p"], off_diagonal: Bool[Array, "b p"]
) -> Float[Array, ""]:
    """Contribution of some rows to the squared bound on the terms beyond the order, off the diagonal; over ‖energy‖² it is relative."""
    order = len(terms.coefficients) - 1
    squares = jnp.where(off_diagonal, jax.lax.integer_pow(correlation, 2 * (order + 1)), 0)
    left, right = (jnp.maximum(moment.energy - moment.captured_energy, 0) for moment in (rows, terms))
    return jnp.vdot(left, product(squares, right))


def _horner(correlation: Float[Array, "b p"], terms: list[jax.Array]) -> Float[Array, "b p"]:
    """Σ_k r^k ∘ terms_k."""
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * correlation + term
    return total
