"""What two Gaussian classes lose to each other at a time t, exactly, for any covariances (docs/theory/speciation.md).

With densities p_c and p_a of x_t, the part of the mixture that leaves class c for class a in a U-turn is

    B = π_c (1 - R_c) = ∫ π_c p_c π_a p_a/(π_c p_c + π_a p_a) dx = π_a (1 - R_a)
      = ½ ∫ dω M(½ + iω)/cosh(πω),      M(s) = π_c^{1-s} π_a^s ∫ p_c^{1-s} p_a^s dx,

from 1/(1 + e^ℓ) = ½ ∫ dω e^{-(½+iω)ℓ}/cosh(πω). In the coordinates in which class a has variance 1 and class c variances 1 + h_i, their
centroids δ_i apart,

    log ∫ p_c^{1-s} p_a^s dx = ½ Σ_i [ s log(1 + h_i) - log(1 + s h_i) - δ_i² s(1 - s)/(1 + s h_i) ].

On the line Re s = ½ the integrand is analytic and decays as e^{-π|ω|}: the trapezoid rule converges exponentially.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from rfdiff.backward.realisation import Realisation

REACH = 12.0  # of ω: beyond it the kernel is below 1e-16
TAIL = 80.0  # of log-odds beyond 12 standard deviations: at ½ their tail is at least as steep as e^{-|ℓ|/2}
NEGLIGIBLE = -60.0  # of the logarithm of an overlap
ROUNDING = 1e-13


class Contrast(NamedTuple):
    """Class c seen from class a, direction by direction.

    Args:
        excess: (M,) h = Γ_c/Γ_a - 1, variances of class c over those of class a along directions in which both are diagonal, less 1.
        counts: (M,) multiplicities of the directions.
        squares: (M,) squared distances δ² of the centroids in units of the variances of class a.
    """

    excess: Float[np.ndarray, " M"]
    counts: Float[np.ndarray, " M"]
    squares: Float[np.ndarray, " M"]


def contrast(classes: Realisation, t: float, c: int, a: int) -> Contrast:
    """Class c seen from class a at time t."""
    signal, noise = np.exp(-2 * t), -np.expm1(-2 * t)
    shift, covariances = classes.means[c] - classes.means[a], classes.covariances
    if classes.is_dense:
        excess, axes = scipy.linalg.eigh(signal * (covariances[c] - covariances[a]), signal * covariances[a] + noise * np.eye(shift.size))
        squares = signal * (axes.T @ shift) ** 2
    else:
        variance = signal * covariances[a] + noise
        excess, squares = signal * (covariances[c] - covariances[a]) / variance, signal * shift**2 / variance
    across = signal * (classes.variances[:, c] - classes.variances[:, a]) / (signal * classes.variances[:, a] + noise)
    return Contrast(
        np.append(excess, across),
        np.append(np.ones(excess.size), classes.counts),
        np.append(squares, np.zeros(across.size)),
    )


class Overlap(NamedTuple):
    """What two classes lose to each other.

    Args:
        value: B = π_c (1 - R_c) = π_a (1 - R_a) of the two alone.
        error: numerical error.
    """

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]


def overlap(pair: Contrast, weight_c: ArrayLike, weight_a: ArrayLike) -> Overlap:
    """B of two classes, for one or several pairs of weights.

    Args:
        pair: class c seen from class a.
        weight_c, weight_a: π_c and π_a > 0, of shapes that broadcast; they need not sum to 1.

    Reference: module docstring; tests/backward/test_overlap.py.
    """
    log_c, log_a = np.broadcast_arrays(np.log(weight_c), np.log(weight_a))
    excess, counts, squares = pair
    half = 1 + excess / 2
    shared = np.sum(counts * (np.log1p(excess) / 2 - np.log(half))) / 2 - np.sum(squares / half) / 8
    log_bound = (log_c + log_a) / 2 + shared
    seen = log_bound > NEGLIGIBLE
    if not seen.any():
        return Overlap(np.zeros(seen.shape), np.full(seen.shape, np.exp(NEGLIGIBLE)))
    # the log-odds under the law ∝ √(p_c p_a), whose spread sets the step
    mean = log_a - log_c + np.sum(counts * (np.log1p(excess) - excess / half)) / 2 + np.sum(squares * excess / half**2) / 8
    variance = np.sum(counts * (excess / half) ** 2) / 2 + np.sum(squares * (1 + excess) / half**3)
    step = 2 * np.pi / (np.abs(mean[seen]).max() + 12 * np.sqrt(variance) + TAIL)
    omega = np.arange(0, REACH + step / 2, step / 2)
    kernel = np.exp(_log_affinity(pair, omega)) / np.cosh(np.pi * omega) * np.where(omega > 0, 1, 0.5)
    s = 0.5 + 1j * omega
    values = (np.exp((1 - s) * log_c[..., None] + s * log_a[..., None]) * kernel).real
    fine, coarse = step / 2 * values.sum(axis=-1), step * values[..., ::2].sum(axis=-1)
    value = np.where(seen, fine, 0.0)
    return Overlap(value, np.where(seen, abs(fine - coarse) + ROUNDING * np.exp(log_bound), np.exp(NEGLIGIBLE)))


def _log_affinity(pair: Contrast, omega: Float[np.ndarray, " Z"]) -> Complex[np.ndarray, " Z"]:
    """log ∫ p_c^{1-s} p_a^s dx at s = ½ + iω, in blocks of bounded memory."""
    excess, counts, squares = pair
    values = np.empty(omega.size, complex)
    block = max(1, 2**20 // excess.size)
    for start in range(0, omega.size, block):
        s = 0.5 + 1j * omega[start : start + block, None]
        scaled = 1 + s * excess
        values[start : start + block] = ((s * np.log1p(excess) - np.log(scaled)) @ counts - (s * (1 - s) / scaled) @ squares) / 2
    return values
