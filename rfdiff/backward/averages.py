"""Gaussian averages of class posteriors: E[P] for jointly Gaussian log-odds, accurate for any covariance, singular ones included."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm, qmc

LOG2_NODES = 13
STEP, REACH = 0.125, 38.0  # trapezoid rule; beyond the reach a logistic density is below 1e-16


def logistic_average(mean: jax.Array, variance: jax.Array) -> jax.Array:
    """E[1/(1 + e^{-ℓ})] for ℓ ~ N(mean, variance), to about 1e-14.

    Trapezoid rules converge exponentially where the integrand is smooth on their step: over ℓ itself where it is narrow; where it is wide
    over a logistic variable X, since 1/(1 + e^{-ℓ}) = P(X < ℓ) makes the average E_X[Φ((mean - X)/std)].

    Args:
        mean, variance: of one shape; variance ≥ 0.
    """
    mean, variance = jnp.asarray(mean), jnp.asarray(variance)
    std = jnp.sqrt(jnp.maximum(variance, 1e-24))
    wide = std > 1
    z = np.arange(-10, 10 + STEP / 2, STEP)
    normal = np.exp(-(z**2) / 2)
    narrow_std = jnp.where(wide, 1.0, std)
    by_odds = jax.nn.sigmoid(mean[..., None] + narrow_std[..., None] * z) @ (normal / normal.sum())
    x = np.arange(-REACH, REACH + STEP / 2, STEP)
    logistic = STEP / (4 * np.cosh(x / 2) ** 2)
    by_logistic = jax.scipy.stats.norm.cdf((mean[..., None] - x) / jnp.where(wide, std, 1.0)[..., None]) @ logistic
    return jnp.where(wide, by_logistic, by_odds)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _average(order: int, nodes: int, mean: jax.Array, covariance: jax.Array) -> jax.Array:
    """E of the derivative tensor of the given order of P(ℓ) = 1/(1 + Σ_a e^{-ℓ_a}), ℓ ~ N(mean, covariance) (r,)."""
    derivative = _posterior
    for _ in range(order):
        derivative = jax.grad(derivative) if derivative is _posterior else jax.jacfwd(derivative)
    normals = jnp.asarray(_sobol_normals(mean.size, nodes), mean.dtype)
    points = mean[None, :] + jnp.matmul(normals, _triangle(covariance).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.mean(jax.vmap(derivative)(points), axis=0)


@_average.defjvp
def _average_jvp(order: int, nodes: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Price's theorem: dE[f] = E[∇f]·dm + ½ tr(E[∇∇f] dC), which needs no derivative of a root of C and holds where C is singular."""
    mean, covariance = primals
    mean_dot, covariance_dot = tangents
    slope, curvature = _average(order + 1, nodes, mean, covariance), _average(order + 2, nodes, mean, covariance)
    change = jnp.tensordot(slope, mean_dot, 1) + jnp.tensordot(curvature, covariance_dot, 2) / 2
    return _average(order, nodes, mean, covariance), change


def posterior_average(mean: jax.Array, covariance: jax.Array, log2_nodes: int = LOG2_NODES) -> jax.Array:
    """E[1/(1 + Σ_a e^{-ℓ_a})] for jointly Gaussian log-odds ℓ against r other classes.

    One other class: to rounding. More: scrambled Sobol points, good to about 1e-4 of the average.

    Args:
        mean: (r,) means.
        covariance: (r, r) covariance, which may be singular.
        log2_nodes: logarithm of the number of points.

    Reference: docs/theory/speciation.md, eq-log-odds; tests/backward/test_speciation.py.
    """
    if mean.shape[0] == 1:
        return logistic_average(mean[0], covariance[0, 0])
    return _average(0, log2_nodes, mean, covariance)


def _posterior(log_odds: jax.Array) -> jax.Array:
    return jax.nn.softmax(jnp.append(-log_odds, jnp.zeros((), log_odds.dtype)))[-1]


def _sobol_normals(dimension: int, log2_nodes: int) -> np.ndarray:
    """(2^n, dimension) scrambled Sobol points for N(0, I), centred and scaled to mean 0 and variance 1."""
    points = qmc.Sobol(dimension, rng=np.random.default_rng(0)).random_base2(log2_nodes)
    normals = norm.ppf(np.clip(points, 1e-15, 1 - 1e-15))
    return (normals - normals.mean(axis=0)) / normals.std(axis=0)


def _triangle(covariance: jax.Array) -> jax.Array:
    """Lower triangular root of a positive semi-definite matrix; a direction without variance gets a column of zeros."""
    size = covariance.shape[0]
    floor = 100 * jnp.finfo(covariance.dtype).eps * jnp.max(jnp.diagonal(covariance))
    rest, columns = covariance, []
    for j in range(size):
        pivot = rest[j, j]
        held = pivot > floor
        column = jnp.where(held, rest[:, j] / jnp.sqrt(jnp.where(held, pivot, 1.0)), 0.0)
        column = jnp.where(jnp.arange(size) >= j, column, 0.0)
        columns.append(column)
        rest = rest - jnp.outer(column, column)
    return jnp.stack(columns, axis=1)
