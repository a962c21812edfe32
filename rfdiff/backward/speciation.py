"""When a class is decided in the backward process, by Bayes (`equations`, section 8): return probabilities and speciation times.

A sample of class c, noised to t and denoised afresh with the exact score, returns to class c with probability

    R_c(t) = E_{x_t | c}[ P(c | x_t) ],        from π_c (t = ∞) to 1 (t = 0);     t_s^c:  R_c(t_s^c) = (1 + π_c)/2.

R_c never rises with t: R_c = E[P(c|x_t)²]/π_c, and noise takes information away. For isotropic classes of variance σ_c² the log-odds
ℓ_a = log P(c|x_t)/P(a|x_t) given class c are jointly Gaussian up to O(1/√d): with Γ_c² = e^{-2t} σ_c² + Δ, r_a = Γ_c²/Γ_a² and
δ_a = e^{-t}(μ_c - μ_a),

    E ℓ_a         = log(π_c/π_a) + (d/2)(r_a - 1 - log r_a) + ‖δ_a‖²/(2Γ_a²)
    cov(ℓ_a, ℓ_b) = (d/2)(r_a - 1)(r_b - 1) + Γ_c² δ_a·δ_b/(Γ_a² Γ_b²)

Everything is a function of class fractions (K,), centroid Gram matrix Q = μ_a·μ_b/d (K, K), variances (K,) and d, differentiable and
mappable in all of them; in float64 inside `jax.enable_x64(True)`. Two classes have one time: π_0 (1 - R_0) = π_1 (1 - R_1) at every t.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.backward.averages import posterior_average
from rfdiff.errors import InputError

EARLIEST, BISECTIONS = 1e-6, 60


def log_odds_moments(weights: Any, gram: Any, variances: Any, d: Any, t: Any) -> tuple[jax.Array, jax.Array]:
    """Means (K, K) of ℓ_a given class c, and covariances (K, K, K) of ℓ_a and ℓ_b given class c; zero where a or b is c.

    Args:
        weights: (K,) class fractions.
        gram: (K, K) centroid Gram matrix μ_a·μ_b/d.
        variances: (K,) class variances σ_c².
        d: dimension.
        t: diffusion time > 0.
    """
    weights, gram, variances = as_floats(weights, gram, variances)
    signal = jnp.exp(-2 * t)
    excess = signal * (variances - 1)  # of Γ² over 1, from which small differences are exact
    gamma = 1 + excess
    shift = (excess[:, None] - excess[None, :]) / gamma[None, :]  # r_a - 1
    norms = jnp.diagonal(gram)
    distance = norms[:, None] + norms[None, :] - 2 * gram
    inner = norms[:, None, None] - gram[:, :, None] - gram[:, None, :] + gram[None, :, :]
    log_weights = jnp.log(weights)
    mean = log_weights[:, None] - log_weights[None, :] + d / 2 * (shift - jnp.log1p(shift)) + d * signal * distance / (2 * gamma[None, :])
    by_centroids = gamma[:, None, None] / (gamma[None, :, None] * gamma[None, None, :]) * d * signal * inner
    return mean, d / 2 * shift[:, :, None] * shift[:, None, :] + by_centroids


def return_probability(weights: Any, gram: Any, variances: Any, d: Any, t: Any) -> jax.Array:
    """Probability R_c(t) (K,) that a sample of class c, noised to t and denoised, is of class c again.

    Args:
        weights, gram, variances, d, t: as in `log_odds_moments`.

    Raises:
        InputError: fewer than two classes.

    Reference: equations, section 8; tests/backward/test_speciation.py (sampling at d = 400, published cloning threshold).
    """
    check_classes(weights)
    mean, covariance = log_odds_moments(weights, gram, variances, d, t)
    return jnp.stack([_of_class(mean[c], covariance[c], c) for c in range(mean.shape[0])])


def clone_agreement(weights: Any, gram: Any, variances: Any, d: Any, t: Any) -> jax.Array:
    """Probability Σ_c π_c R_c(t) that two copies which part at t end in one class.

    Raises:
        InputError: fewer than two classes.
    """
    returned = return_probability(weights, gram, variances, d, t)
    return jnp.sum(jnp.asarray(weights, returned.dtype) * returned)


def speciation_times(weights: Any, gram: Any, variances: Any, d: Any) -> jax.Array:
    """Speciation time t_s^c (K,) of every class: where R_c = (1 + π_c)/2; NaN where the classes overlap so much that it is not reached.

    Derivatives are those of the implicit function.

    Args:
        weights, gram, variances, d: as in `log_odds_moments`.

    Raises:
        InputError: fewer than two classes.
    """
    check_classes(weights)
    weights, gram, variances = as_floats(weights, gram, variances)
    numbers, target = (weights, gram, variances, jnp.asarray(d, weights.dtype)), (1 + weights) / 2
    low, high = _roots(*jax.lax.stop_gradient(numbers))
    root = jax.lax.stop_gradient((low + high) / 2)
    classes = range(target.shape[0])

    def deficit(t: jax.Array, numbers: tuple) -> jax.Array:
        return jnp.stack([_single(numbers, t[c], c) for c in classes]) - target

    slope = jax.jvp(lambda t: deficit(t, jax.lax.stop_gradient(numbers)), (root,), (jnp.ones_like(root),))[1]
    slope = jax.lax.stop_gradient(jnp.where(slope < 0, slope, -1.0))
    change = deficit(root, numbers)
    step = change - jax.lax.stop_gradient(change)  # zero, with the derivative of the deficit
    reached = high > 2 * EARLIEST
    return jnp.where(reached, root - step / slope, jnp.nan)


def classical_time(weights: Any, gram: Any, variances: Any, d: Any) -> jax.Array:
    """The classical estimate ½ log Λ of one speciation time, Λ the largest eigenvalue of the covariance of the data.

    The balanced limit of the two readings up to a constant: two classes of weight ½ at ±μ have Λ = ‖μ‖² + σ², and the potential of
    unit variance splits at ½ log(2‖μ‖²).

    Args:
        weights, gram, variances, d: as in `log_odds_moments`.

    Raises:
        InputError: fewer than two classes.
    """
    check_classes(weights)
    weights, gram, variances = as_floats(weights, gram, variances)
    roots = jnp.sqrt(weights)
    centred = jnp.eye(weights.shape[0], dtype=weights.dtype) - weights[None, :]
    between = d * roots[:, None] * (centred @ gram @ centred.T) * roots[None, :]
    return jnp.log(jnp.max(jnp.linalg.eigvalsh(between)) + jnp.sum(weights * variances)) / 2


def check_classes(weights: Any) -> None:
    """Refuse a mixture of one class.

    Raises:
        InputError: fewer than two classes.
    """
    if np.ndim(weights) != 1 or np.shape(weights)[0] < 2:
        raise InputError(f"weights: shape {np.shape(weights)}; allowed: (K,) with K >= 2, a single class has no speciation")


def as_floats(*values: Any) -> tuple[jax.Array, ...]:
    """Arrays of the widest floating type among them, at least the default one."""
    dtype = jnp.result_type(float, *values)
    return tuple(jnp.asarray(value, dtype) for value in values)


def _of_class(mean: jax.Array, covariance: jax.Array, c: int) -> jax.Array:
    others = np.delete(np.arange(mean.shape[0]), c)
    return posterior_average(mean[others], covariance[np.ix_(others, others)])


def _single(numbers: tuple, t: jax.Array, c: int) -> jax.Array:
    """R_c at one time."""
    weights, gram, variances, d = numbers
    mean, covariance = log_odds_moments(weights, gram, variances, d, t)
    return _of_class(mean[c], covariance[c], c)


def _roots(weights: Any, gram: Any, variances: Any, d: Any) -> tuple[jax.Array, jax.Array]:
    """Brackets (K,) of the times at which R_c falls through (1 + π_c)/2, by bisection of log t; both EARLIEST where it is below always."""
    numbers = weights, gram, variances, d
    signal = 4 * d * jnp.max(jnp.diagonal(gram)) + jnp.ptp(variances) * jnp.sqrt(d) + 1
    target = (1 + weights) / 2

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = jnp.sqrt(low * high)
        above = jnp.stack([_single(numbers, middle[c], c) for c in range(target.shape[0])]) > target
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.full_like(target, EARLIEST), jnp.full_like(target, 1.0) * (jnp.log(signal) / 2 + 10)
    return jax.lax.fori_loop(0, BISECTIONS, halve, ends)
