"""One-dimensional Gaussian averages of the activation against Hermite polynomials, for whole matrices of means at once.

Smooth activations use the trapezoid rule, which converges exponentially in the distance of the nearest pole, |Im| = (π/2)/std for
tanh (docs/theory/equivalent.md); its step is calibrated on the host. Activations with kinks are split there, with Gauss-Legendre
nodes on each side, since a rule that ignores a kink converges only as step².
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.simulation.pieces import piece

STEPS = tuple(1 / k for k in (1.5, 2, 2.5, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256))
PRECISION = {"float64": 1e-12, "float32": 1e-7}
MAX_ORDER = 32
BLOCK_VALUES = 2**19  # of σ at all nodes, at once
ACCELERATOR_VALUES = 2**26  # on an H100 the averages took a quarter of the time

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)


@dataclass(frozen=True)
class Quadrature:
    """Rule of a Gaussian average E_g[…], hashable so that it is static under jit.

    Args:
        nodes, weights: the trapezoid rule with its Gaussian weights; or, with kinks, a Gauss-Legendre rule on [0, 1] for each side.
        reach: the range [-reach, reach] of g.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    reach: float


def hermite_moments(
    activation: Activation, quadrature: Quadrature, mean: jax.Array, std: jax.Array, order: int
) -> tuple[list[jax.Array], jax.Array]:
    """Coefficients a_k = E_g[σ(mean + std g) He_k(g)/√k!] for k = 0 … order, and the energy E_g[σ²] ≥ Σ_k a_k².

    One pass over σ for all k, a block of rows at a time, so that σ at all nodes is never held for the whole matrix.

    Args:
        activation: σ.
        quadrature: a rule from `quadrature_for` with the same activation.
        mean: (p, n) means of the preactivation.
        std: (p,) standard deviations > 0.
        order: highest k ≥ 1.

    Returns:
        order + 1 coefficient matrices (p, n), and the energies (p, n).
    """
    p, n = mean.shape
    rows = min(p, 2 ** int(math.log2(max(1, piece(BLOCK_VALUES, ACCELERATOR_VALUES) / (n * len(quadrature.nodes))))))
    blocks = -(-p // rows)
    padding = blocks * rows - p
    means = jnp.pad(mean, ((0, padding), (0, 0))).reshape(blocks, rows, n)
    stds = jnp.pad(std, (0, padding), constant_values=1).reshape(blocks, rows, 1)
    average = _split_averages if activation.kinks else _smooth_averages
    coefficients, energy = jax.lax.map(lambda block: average(activation, quadrature, block[0], block[1], order), (means, stds))
    coefficients, energy = jax.tree.map(lambda part: part.reshape(blocks * rows, n)[:p], (coefficients, energy))
    return coefficients, energy


def _smooth_averages(
    activation: Activation, rule: Quadrature, mean: jax.Array, std: jax.Array, order: int
) -> tuple[list[jax.Array], jax.Array]:
    """The trapezoid rule: σ at all nodes times one small matrix of weighted Hermite polynomials."""
    nodes, weights = np.asarray(rule.nodes), np.asarray(rule.weights)
    table = (np.stack(_hermite(nodes, order)) * weights).astype(mean.dtype)
    values = activation(mean + std * nodes[:, None, None].astype(mean.dtype))
    flat = values.reshape(len(nodes), -1)
    coefficients = jnp.matmul(table, flat, precision=jax.lax.Precision.HIGHEST)
    energy = jnp.sum(weights[:, None, None].astype(mean.dtype) * values * values, axis=0)
    return [row.reshape(mean.shape) for row in coefficients], energy


def _split_averages(
    activation: Activation, rule: Quadrature, mean: jax.Array, std: jax.Array, order: int
) -> tuple[list[jax.Array], jax.Array]:
    """Gauss-Legendre on each side of each kink, whose place in g differs from entry to entry."""
    dtype = mean.dtype
    nodes = np.asarray(rule.nodes, dtype)[:, None, None]
    weights = np.asarray(rule.weights, dtype)[:, None, None]
    reach = np.asarray(rule.reach, dtype)
    edges = [jnp.clip((np.asarray(kink, dtype) - mean) / std, -reach, reach) for kink in sorted(activation.kinks)]
    edges = [jnp.full_like(mean, -reach), *edges, jnp.full_like(mean, reach)]
    coefficients, energy = [jnp.zeros_like(mean)] * (order + 1), jnp.zeros_like(mean)
    for low, high in itertools.pairwise(edges):
        g = low + (high - low) * nodes
        values = activation(mean + std * g)
        weighted = (high - low) * weights * jnp.exp(-g * g / 2) * values
        coefficients = [a + jnp.sum(weighted * h, axis=0) for a, h in zip(coefficients, _hermite(g, order), strict=True)]
        energy = energy + jnp.sum(weighted * values, axis=0)
    return coefficients, energy


def _hermite(g: ArrayT, order: int) -> list[ArrayT]:
    """Orthonormal Hermite polynomials h_k = He_k/√k! by `√(k+1) h_{k+1} = g h_k - √k h_{k-1}`."""
    values = [g * 0 + 1, g]
    for k in range(1, order):
        values.append((g * values[k] - math.sqrt(k) * values[k - 1]) / math.sqrt(k + 1))
    return values[: order + 1]


@functools.lru_cache(maxsize=256)
def quadrature_for(activation: Activation, largest_std: float, order: int, dtype: str) -> Quadrature:
    """The cheapest rule that resolves σ(mean + std g) h_k(g) for k ≤ order and std ≤ largest_std in the given precision.

    Args:
        activation: σ.
        largest_std: largest standard deviation of a preactivation.
        order: highest Hermite order.
        dtype: "float64" (averages to 1e-12 of the root of the largest E σ², which bounds them, that to 1e-11) or "float32" (1e-7).

    Raises:
        InputError: no step resolves σ; it is too steep, not smooth (declare its kinks), or grows faster than a Gaussian decays.
    """
    reach = _reach(order, PRECISION[dtype])
    if activation.kinks:
        nodes, weights = np.polynomial.legendre.leggauss(int(4 * reach) + 2 * order)
        weights = weights / 2 / np.sqrt(2 * np.pi)
        return Quadrature(tuple(((nodes + 1) / 2).tolist()), tuple(weights.tolist()), reach)
    errors = []
    finest, energies = _averages(activation, *_trapezoid(STEPS[-1], reach), largest_std, order)
    size = max(float(np.max(energies)), 1e-300)  # the coefficients may all vanish beside it: those of sin fall as e^{-std²/2}
    for step in STEPS[:-1]:
        averages, energy = _averages(activation, *_trapezoid(step, reach), largest_std, order)
        missed = np.max(abs(averages - finest)) / math.sqrt(size), np.max(abs(energy - energies)) / size / 10
        errors.append(float(max(missed)))
        if errors[-1] <= PRECISION[dtype]:
            nodes, weights = _trapezoid(step, reach)
            return Quadrature(tuple(nodes.tolist()), tuple(weights.tolist()), reach)
    raise InputError(
        f"activation: {activation.name!r} is not resolved at standard deviation {largest_std:.3g} by a step of {STEPS[-2]:.3g} "
        f"(error {errors[-1]:.1e}); allowed: data scaled to variance of order 1; smooth functions of "
        "moderate slope, with their kinks declared, slower than a Gaussian"
    )


def mehler_order(activation: Activation, largest_std: float, p: int, effective_dimension: float, tolerance: float) -> int:
    """Highest power of r_ij kept in Mehler's expansion of a (p, p) moment, between 2 and 32.

    The rest has Frobenius norm `√(p (2k+1)!! / d^{k+1})` relative to the diagonal (E r^{2k+2} of a Gaussian correlation of variance
    1/d), times the share of the energy E[σ²] beyond order k; it is asked to be below `tolerance`.

    Args:
        activation: σ.
        largest_std: largest standard deviation of a preactivation.
        p: features.
        effective_dimension: 1/variance of the correlations: d, or (tr S)²/tr S² for a preactivation covariance S.
        tolerance: allowed relative Frobenius norm of the rest.
    """
    rule = quadrature_for(activation, largest_std, MAX_ORDER, "float64")
    shares = _energy_beyond(activation, rule, largest_std)
    log_norm = 0.5 * math.log(p) - 0.5 * math.log(effective_dimension)
    for k in range(MAX_ORDER):
        log_norm += 0.5 * math.log(max((2 * k + 1) / effective_dimension, 1e-300)) if k else 0.0
        if k >= 2 and math.exp(min(log_norm, 300.0)) * shares[k] <= tolerance:
            return k
    return MAX_ORDER


PROBES = (0.0, -0.37, 0.81, -1.5)


def _averages(activation: Activation, nodes: np.ndarray, weights: np.ndarray, std: float, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients a_k (probes, order + 1) and energies E σ² (probes,) at a few means, in float64, by a plain sum."""
    with jax.enable_x64(True):
        means = np.asarray(PROBES)[:, None] * max(std, 1.0)
        values = np.asarray(activation(jnp.asarray(means + std * nodes)), np.float64)
    return (values * weights) @ np.stack(_hermite(nodes, order), axis=1), values**2 @ weights


@functools.lru_cache(maxsize=64)
def _energy_beyond(activation: Activation, rule: Quadrature, std: float) -> np.ndarray:
    """(MAX_ORDER + 1,) largest share over the probes of E[σ²] beyond order k."""
    with jax.enable_x64(True):
        means = jnp.asarray(np.asarray(PROBES)[None, :] * max(std, 1.0))
        averages = hermite_moments(activation, rule, means, jnp.asarray([std]), MAX_ORDER)
        squares, energy = np.stack([np.asarray(a[0]) ** 2 for a in averages[0]]), np.asarray(averages[1][0])
    rest = np.maximum(energy - np.cumsum(squares, axis=0), 0)
    return np.max(rest / np.where(energy > 0, energy, 1), axis=1)


def _trapezoid(step: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    nodes = step * np.arange(-math.ceil(reach / step), math.ceil(reach / step) + 1)
    weights = np.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


def _reach(order: int, precision: float) -> float:
    """Smallest half-range beyond which (1 + g²) |h_k(g)| e^{-g²/2} stays below a tenth of `precision` for every k ≤ order."""
    g = np.arange(40.0, 0.0, -0.25)
    with np.errstate(over="ignore"):
        size = np.max(np.abs(np.stack(_hermite(g, order))), axis=0) * (1 + g**2) * np.exp(-(g**2) / 2)
    return float(g[np.argmax(size > precision / 10)]) + 0.25
