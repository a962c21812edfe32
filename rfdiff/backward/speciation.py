"""When a class is decided in the backward process, by Bayes (docs/theory/speciation.md, eq-return, eq-log-odds): R_c(t) and times.

A sample of class c, noised to t and denoised afresh with the exact score, returns to class c with probability

    R_c(t) = E_{x_t | c}[ P(c | x_t) ],        from π_c (t = ∞) to 1 (t = 0);     t_s^c:  R_c(t_s^c) = (1 + π_c)/2.

R_c never rises with t: R_c = E[P(c|x_t)²]/π_c, and noise takes information away. For isotropic classes of variance σ_c² the log-odds
ℓ_a = log P(c|x_t)/P(a|x_t) given class c are jointly Gaussian up to O(1/√d): with Γ_c² = e^{-2t} σ_c² + Δ, r_a = Γ_c²/Γ_a² and
δ_a = e^{-t}(μ_c - μ_a),

    E ℓ_a         = log(π_c/π_a) + (d/2)(r_a - 1 - log r_a) + ‖δ_a‖²/(2Γ_a²)
    cov(ℓ_a, ℓ_b) = (d/2)(r_a - 1)(r_b - 1) + Γ_c² δ_a·δ_b/(Γ_a² Γ_b²)

Other laws (joint eigenvalue groups, matrices that do not commute) have log-odds that are no sums of many small terms: `estimates` computes
R_c at the dimension d without the Gaussian approximation. They are not differentiable.

Laws are dimension-free; `d` realises them. Values are float64 on the host. Inside `jax.jit`, `grad` or `vmap` over a law or d they are
JAX arrays in the caller's precision (float64 inside `jax.enable_x64(True)`), differentiable by the implicit function theorem.

For two classes π_0 (1 - R_0) = π_1 (1 - R_1) holds exactly for the true R at every t, so that both have one speciation time. The closed
form keeps this identity where the variances are equal, for there the log-odds are Gaussian at every d. For other variances its two times
differ by O(1/d), which is the error of the Gaussian approximation.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from rfdiff.backward.averages import posterior_average
from rfdiff.backward.estimates import return_estimate, speciation_estimate
from rfdiff.backward.isotropic import IsotropicClasses, checked_dimension, evaluated, has_closed_form
from rfdiff.backward.realisation import largest_variance, realised
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import as_real_array, is_concrete

EARLIEST, BISECTIONS = 1e-6, 60


def return_probability(law: MixtureLaw, times: ArrayLike, *, d: ArrayLike | None = None) -> Float[np.ndarray, "... K"]:
    """Probability R_c(t) that a sample of class c, noised to t and denoised with the exact score, is of class c again.

    `R_c(t) = E_{x_t | c}[P(c | x_t)]`, from 1 at t = 0 to π_c at t = ∞. Of three or more classes that are not isotropic it is an estimate
    to 1e-3, whose error `return_estimate` returns.

    Args:
        law: K ≥ 2 classes.
        times: diffusion times t > 0, of any shape.
        d: dimension; None for 256, or that of the law's matrices. Without isotropic classes a whole number.

    Returns:
        R_c at each time, the shape of `times` followed by K.

    Raises:
        InputError: one class, a dimension out of range, a time that is not a number > 0, or a traced law whose classes are not isotropic.

    Reference: docs/theory/speciation.md, eq-return; tests/backward/test_speciation.py (sampling at d = 400, published cloning threshold).
    """
    if not has_closed_form(law, times, d):
        return return_estimate(law, times, d=d).value
    return evaluated(_return_probabilities, law, d, _checked_times(times))


def clone_agreement(law: MixtureLaw, times: ArrayLike, *, d: ArrayLike | None = None) -> Float[np.ndarray, "..."]:
    """Probability Σ_c π_c R_c(t) that two copies of a trajectory which part at t end in one class.

    Args:
        law: K ≥ 2 classes.
        times: diffusion times t > 0, of any shape.
        d: dimension.

    Raises:
        InputError: as `return_probability`.

    Reference: Biroli, Bonnaire, de Bortoli and Mézard 2024 (arXiv:2402.18491); tests/backward/test_speciation.py.
    """
    if not has_closed_form(law, times, d):
        return return_estimate(law, times, d=d).value @ law.weights
    return evaluated(_clone_agreements, law, d, _checked_times(times))


def speciation_times(law: MixtureLaw, *, d: ArrayLike | None = None) -> Float[np.ndarray, " K"]:
    """Speciation time t_s^c of every class: where R_c = (1 + π_c)/2; NaN where classes overlap so much that it is not reached.

    Two classes of one variance have one time, exactly; for other variances the two numbers differ by O(1/d) (module docstring). Of classes
    that are not isotropic they are one number again; `speciation_estimate` returns the errors.

    Args:
        law: K ≥ 2 classes.
        d: dimension.

    Raises:
        InputError: one class, a dimension out of range, or a traced law whose classes are not isotropic.

    Reference: docs/theory/speciation.md, eq-return; tests/backward/test_speciation.py.
    """
    if not has_closed_form(law, d):
        return speciation_estimate(law, d=d).value
    return evaluated(_speciation_times, law, d)


def classical_time(law: MixtureLaw, *, d: ArrayLike | None = None) -> Float[np.ndarray, ""]:
    """The classical estimate ½ log Λ of one speciation time, Λ the largest eigenvalue of the covariance of the data.

    Up to a constant the other estimates reduce to it for equal weights: two classes of weight ½ at ±μ have Λ = ‖μ‖² + σ², and the potential
    of unit variance splits at ½ log(2‖μ‖²).

    Args:
        law: K ≥ 2 classes.
        d: dimension.

    Raises:
        InputError: as `speciation_times`.

    Reference: docs/theory/speciation.md, eq-return; tests/backward/test_speciation.py.
    """
    if not has_closed_form(law, d):
        return np.asarray(np.log(largest_variance(realised(law, checked_dimension(law, d)))) / 2)
    return evaluated(_classical_time, law, d)


def log_odds_moments(classes: IsotropicClasses, t: Float[Array, ""]) -> tuple[Float[Array, "K K"], Float[Array, "K K K"]]:
    """Means (K, K) of ℓ_a given class c, and covariances (K, K, K) of ℓ_a and ℓ_b given class c; zero where a or b is c.

    Args:
        classes: the classes.
        t: diffusion time > 0.
    """
    weights, gram, variances, d = classes
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


@jax.jit
def _return_probabilities(classes: IsotropicClasses, times: jax.Array) -> Float[Array, "... K"]:
    flat = jax.lax.map(lambda t: _return_probability(classes, t), jnp.ravel(times))
    return flat.reshape(*jnp.shape(times), -1)


@jax.jit
def _clone_agreements(classes: IsotropicClasses, times: jax.Array) -> Float[Array, "..."]:
    return _return_probabilities(classes, times) @ classes.weights


@jax.jit
def _speciation_times(classes: IsotropicClasses) -> Float[Array, " K"]:
    """Roots by bisection; their derivatives are those of the implicit function."""
    fixed, target = jax.lax.stop_gradient(classes), (1 + classes.weights) / 2
    low, high = jax.lax.stop_gradient(_roots(fixed))
    root = (low + high) / 2

    def deficit(t: jax.Array, classes: IsotropicClasses) -> jax.Array:
        return jnp.stack([_of_class(classes, t[c], c) for c in range(target.shape[0])]) - target

    slope = jax.jvp(lambda t: deficit(t, fixed), (root,), (jnp.ones_like(root),))[1]
    slope = jax.lax.stop_gradient(jnp.where(slope < 0, slope, -1.0))
    change = deficit(root, classes)
    step = change - jax.lax.stop_gradient(change)  # zero, with the derivative of the deficit
    reached = high > 2 * EARLIEST
    return jnp.where(reached, root - step / slope, jnp.nan)


@jax.jit
def _classical_time(classes: IsotropicClasses) -> Float[Array, ""]:
    weights, gram, variances, d = classes
    roots = jnp.sqrt(weights)
    centred = jnp.eye(weights.shape[0], dtype=weights.dtype) - weights[None, :]
    between = d * roots[:, None] * (centred @ gram @ centred.T) * roots[None, :]
    return jnp.log(jnp.max(jnp.linalg.eigvalsh(between)) + jnp.sum(weights * variances)) / 2


def _return_probability(classes: IsotropicClasses, t: jax.Array) -> Float[Array, " K"]:
    """R_c of every class at one time."""
    mean, covariance = log_odds_moments(classes, t)
    return jnp.stack([_average_of(mean, covariance, c) for c in range(mean.shape[0])])


def _of_class(classes: IsotropicClasses, t: jax.Array, c: int) -> Float[Array, ""]:
    """R_c of one class at one time."""
    return _average_of(*log_odds_moments(classes, t), c)


def _average_of(mean: Float[Array, "K K"], covariance: Float[Array, "K K K"], c: int) -> Float[Array, ""]:
    """E[P(c | x_t)] given class c, from the moments of the log-odds."""
    others = np.delete(np.arange(mean.shape[0]), c)
    return posterior_average(mean[c][others], covariance[c][np.ix_(others, others)])


def _roots(classes: IsotropicClasses) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """Brackets (K,) of the times at which R_c falls through (1 + π_c)/2, by bisection of log t; both EARLIEST where it is below always."""
    weights, gram, variances, d = classes
    signal = 4 * d * jnp.max(jnp.diagonal(gram)) + jnp.ptp(variances) * jnp.sqrt(d) + 1
    target = (1 + weights) / 2

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = jnp.sqrt(low * high)
        above = jnp.stack([_of_class(classes, middle[c], c) for c in range(target.shape[0])]) > target
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.full_like(target, EARLIEST), jnp.full_like(target, 1.0) * (jnp.log(signal) / 2 + 10)
    return jax.lax.fori_loop(0, BISECTIONS, halve, ends)


def _checked_times(times: ArrayLike) -> ArrayLike:
    """Diffusion times, traced ones as they are.

    Raises:
        InputError: one that is not a number > 0.
    """
    if not is_concrete(times):
        return times
    checked = as_real_array("times", times)
    if not np.all(checked > 0):
        raise InputError(f"times: {times!r}; allowed: diffusion times > 0")
    return checked
