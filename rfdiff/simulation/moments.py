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


def noise_averaged_moments(
    W: jax.Array, x: jax.Array, t: Any, sizes: Sizes, activation: Activation, quadrature: Quadrature, order: int
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
    """
    dtype, d = W.dtype, sizes.d
    delta = noise_variance(t).astype(dtype)
    overlap = product(W, W.T)
    norms = jnp.sqrt(jnp.diagonal(overlap))
    std = jnp.sqrt(delta / d) * norms
    correlation = overlap / (norms[:, None] * norms[None, :])
    mean = signal_scale(t).astype(dtype) / np.sqrt(d).astype(dtype) * product(W, x.T)
    coefficients, energy = hermite_moments(activation, quadrature, mean, std, order)
    stops = np.cumsum(sizes.counts)
    U, V, bounds = [], [], []
    for start, stop in zip(stops - sizes.counts, stops, strict=True):
        own = [a[:, start:stop] for a in coefficients]
        class_energy = jnp.mean(energy[:, start:stop], axis=1)
        grams = [product(a, a.T) / np.asarray(stop - start, dtype) for a in own]
        U.append(_set_diagonal(_horner(correlation, grams), class_energy))
        V.append((jnp.sqrt(delta / d) * jnp.mean(own[1], axis=1) / std)[:, None] * W)
        kept = sum(jnp.mean(a * a, axis=1) for a in own)
        bounds.append(_truncation(correlation, class_energy, kept, order))
    return Moments(tuple(U), tuple(V), jnp.ones(len(sizes.counts), dtype), jnp.max(jnp.stack(bounds)))


def drawn_moments(W: jax.Array, x: jax.Array, t: Any, sizes: Sizes, activation: Activation, key: jax.Array) -> Moments:
    """Training moments over m stored noise draws per sample: plain averages over the n_c m noised samples of a class.

    Draw by draw, so that no array is larger than (p, n) or (p, p).

    Args:
        W: (p, d) first layer.
        x: (n, d) clean samples in class order.
        t: diffusion time.
        sizes: counts of each class, and m.
        activation: σ.
        key: JAX random key; draw r uses fold_in(key, r), so more draws never change the old ones.
    """
    dtype, k, draws = W.dtype, len(sizes.counts), int(sizes.draws or 0)
    signal = signal_scale(t).astype(dtype) * x
    noise_std = jnp.sqrt(noise_variance(t)).astype(dtype)
    stops = np.cumsum(sizes.counts)

    def add(draw: Any, sums: Any) -> Any:
        noise = jax.random.normal(jax.random.fold_in(key, draw), x.shape, jnp.float32).astype(dtype)
        phi = feature_map(activation, W, signal + noise_std * noise)
        U, V, squares = sums
        parts = [(phi[a:b], noise[a:b]) for a, b in zip(stops - sizes.counts, stops, strict=True)]
        return (
            tuple(total + product(f.T, f) for total, (f, _) in zip(U, parts, strict=True)),
            tuple(total + product(f.T, e) for total, (f, e) in zip(V, parts, strict=True)),
            squares + jnp.stack([jnp.sum(e * e) for _, e in parts]),
        )

    p, d = W.shape
    zeros = ((jnp.zeros((p, p), dtype),) * k, (jnp.zeros((p, d), dtype),) * k, jnp.zeros(k, dtype))
    U, V, squares = jax.lax.fori_loop(0, draws, add, zeros)
    terms = [np.asarray(count * draws, dtype) for count in sizes.counts]
    U = tuple(total / m for total, m in zip(U, terms, strict=True))
    V = tuple(total / m for total, m in zip(V, terms, strict=True))
    return Moments(U, V, squares / jnp.stack(terms) / d, jnp.zeros((), dtype))


def population_moments(
    W: jax.Array, mixture: GaussianMixture, t: Any, activation: Activation, quadrature: Quadrature, order: int
) -> Moments:
    """Population moments of each class, exact: the test loss needs no test set.

    Args:
        W: (p, d) first layer.
        mixture: K classes in dimension d.
        t: diffusion time.
        activation: σ.
        quadrature: rule of the one-dimensional averages, good for the largest standard deviation of a preactivation.
        order: highest power of the correlations.
    """
    dtype, d = W.dtype, W.shape[1]
    delta, scale = noise_variance(t).astype(dtype), signal_scale(t).astype(dtype)
    means, variances = jnp.asarray(mixture.means, dtype), jnp.asarray(mixture.variances, dtype)
    U, V, bounds = [], [], []
    for c in range(mixture.num_classes):
        if mixture.factors is None:
            covariance = product(W * (scale * scale * variances[c] + delta), W.T) / d
        else:
            signal = scale * product(W, jnp.asarray(mixture.factors[c], dtype))
            covariance = (product(signal, signal.T) + delta * product(W, W.T)) / d
        std = jnp.sqrt(jnp.diagonal(covariance))
        correlation = covariance / (std[:, None] * std[None, :])
        mean = scale / np.sqrt(d).astype(dtype) * product(W, means[c])
        averages = hermite_moments(activation, quadrature, mean[:, None], std, order)
        coefficients, energy = [a[:, 0] for a in averages[0]], averages[1][:, 0]
        U.append(_set_diagonal(_horner(correlation, [a[:, None] * a[None, :] for a in coefficients]), energy))
        V.append((jnp.sqrt(delta / d) * coefficients[1] / std)[:, None] * W)
        bounds.append(_truncation(correlation, energy, sum(a * a for a in coefficients), order))
    return Moments(tuple(U), tuple(V), jnp.ones(mixture.num_classes, dtype), jnp.max(jnp.stack(bounds)))


def _horner(correlation: jax.Array, terms: list[jax.Array]) -> jax.Array:
    """Σ_k r^k ∘ terms_k."""
    total = terms[-1]
    for term in terms[-2::-1]:
        total = total * correlation + term
    return total


def _set_diagonal(matrix: jax.Array, diagonal: jax.Array) -> jax.Array:
    return jnp.where(jnp.eye(len(diagonal), dtype=bool), diagonal[:, None], matrix)


def _truncation(correlation: jax.Array, energy: jax.Array, kept: Any, order: int) -> jax.Array:
    """Bound on the Frobenius norm of the terms beyond `order` off the diagonal, relative to that of the diagonal."""
    rest = jnp.maximum(energy - kept, 0)
    squares = jnp.where(jnp.eye(len(energy), dtype=bool), 0, jax.lax.integer_pow(correlation, 2 * (order + 1)))
    return jnp.sqrt(jnp.vdot(rest, product(squares, rest)) / jnp.vdot(energy, energy))
