"""Weights of Sobol points with which averages over neurons that are known come out right (docs/theory/equivalent.md, eq-matched).

Whatever a prediction needs of the neurons are averages of their features v_c², s_c² and α_a α_b, times resolvent entries, which are
functions of the features themselves. An error of such an average is therefore mostly that of the averages of the features, and these are
known: integrals over one class's h_c, or over two, each to rounding. Points whose weights give them exactly err far less in everything
else: regression on control variates, for all averages at once.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from rfdiff.activation import Activation
from rfdiff.symmetric import pair_products, upper
from rfdiff.theory.neuron_coefficients import Coefficients, GaussRules, series

REACH = 9.0  # standard deviations of h_c that the tables cover: 2 in 10^19 neurons are beyond
BLOCK = 8  # degrees of Chebyshev polynomials that share a factor
ROUNDING = 1e-12  # of the features from the tables, relative to their size
PIECE = 1024  # points that are read from the tables at once
MOST_TERMS = 1024  # of a Hermite series; classes with centroids 7 times as long as Γ_c √d need as many
NEGLIGIBLE = 1e-13  # share of a second moment that a Hermite series may leave out
KNOWN = 1e-9  # of √(E α_a² E α_b²): error up to which E[α_a α_b] counts as known
POINTS_A_FUNCTION = 4  # points at least for each function that is matched: fewer would fit what other functions do by chance
SMALLEST = 1e-10  # variance of a combination of functions, relative to the largest, below which it is no further function
CONSTANT = 1e-9  # spread of a function, relative to its size, below which it is a constant, and rounding
SLACK = 1e-6  # of a matched average, in its standard deviations times its multiplier: keeps multipliers finite where no weights fit
NEWTON_STEPS = 50


class TypeTables(NamedTuple):
    """What neurons make of each class, as a series in h_c over `REACH` standard deviations.

    factors (8, N/8, 3, K): of α, v² and s², by `_factored`. root (K, rank) with root rootᵀ = Q. scale: e^{-t}. half (K,): half of the
    range of e^{-t} h_c. width (K,): over which features vary least. size (K,): of the features.
    """

    factors: Float[np.ndarray, "8 B 3 K"]
    root: Float[np.ndarray, "K rank"]
    scale: float
    half: Float[np.ndarray, " K"]
    width: Float[np.ndarray, " K"]
    size: Float[np.ndarray, " K"]


def type_tables(
    activation: Activation, root: np.ndarray, scale: float, signal_std: np.ndarray, noise_std: float, rules: GaussRules, size: int
) -> TypeTables:
    """Tables for neuron types anywhere (inside `jax.enable_x64`).

    Args:
        activation: σ.
        root: (K, rank) with root rootᵀ = Q.
        scale: e^{-t}.
        signal_std, noise_std: (K,) e^{-t} σ_c, and √Δ.
        rules: for the averages.
        size: terms of the series.
    """
    reach = scale * REACH * np.linalg.norm(root, axis=1)
    half, width = np.where(reach > 0, reach, 1.0), np.sqrt(signal_std**2 + noise_std**2 / 2)
    made = _series(activation, jnp.zeros(len(root)), jnp.asarray(half), jnp.asarray(signal_std), jnp.asarray(noise_std), rules, size)
    return TypeTables(_factored(np.asarray(made.terms)), root, scale, half, width, np.asarray(made.scale))


_series = partial(jax.jit, static_argnums=(0, 6))(series)


def _factored(terms: np.ndarray) -> Float[np.ndarray, "8 B 3 K"]:
    """Chebyshev terms (N, 3, K) as f_ij of Σ_ij f_ij T_i T_8j, i < 8: N/8 + 8 polynomials are evaluated, and the rest is products.

    From the last on, T_{8j+i} = 2 T_i T_8j - T_{8j-i}.
    """
    left, blocks = terms.copy(), len(terms) // BLOCK
    left[0] /= 2
    factors = np.zeros((BLOCK, blocks, *terms.shape[1:]))
    for j in range(blocks - 1, 0, -1):
        factors[0, j] = left[BLOCK * j]
        for i in range(1, BLOCK):
            factors[i, j] = 2 * left[BLOCK * j + i]
            left[BLOCK * j - i] -= left[BLOCK * j + i]
    factors[:, 0] = left[:BLOCK]
    return factors


def _polynomials(x: np.ndarray, count: int) -> Float[np.ndarray, "n J"]:
    """Chebyshev polynomials of degrees below `count` at x (J,)."""
    found = np.ones((count, len(x)))
    found[1] = x
    for n in range(2, count):
        found[n] = 2 * x * found[n - 1] - found[n - 2]
    return found


def features_at(tables: TypeTables, nodes: np.ndarray) -> Float[np.ndarray, "J F"]:
    """Features of neurons at nodes (J, rank) of N(0, I), to 1e-12 of their size."""
    return features_of(_at_places(tables, tables.scale * (nodes @ tables.root.T) / tables.half))


def _at_places(tables: TypeTables, places: np.ndarray) -> Coefficients:
    """Coefficients (J, K) at places (J, K) in [-1, 1] of each class's range; a `PIECE` at a time, which stays in the cache."""
    blocks = tables.factors.shape[1]
    found = np.empty((3, *places.shape))
    for start in range(0, len(places), PIECE):
        here = slice(start, start + PIECE)
        for k, column in enumerate(np.clip(places[here], -1, 1).T):
            low = _polynomials(column, BLOCK + 1)
            high = _polynomials(low[BLOCK], blocks)
            inner = tables.factors[..., k].reshape(BLOCK, -1).T @ low[:BLOCK]
            found[:, here, k] = (inner.reshape(blocks, 3, -1) * high[:, None]).sum(0)
    kept, carried = (np.where(share > ROUNDING * tables.size, share, 0) for share in found[1:])
    return Coefficients(found[0], kept, carried)  # type: ignore[arg-type]  # arrays of numpy, not of JAX


def features_of(coefficients: Coefficients) -> Float[np.ndarray, "J F"]:
    """(J, F) features, in the order of `resolvent.type_features`."""
    linear, kept, carried = (np.asarray(x) for x in coefficients)
    return np.concatenate([kept, carried, pair_products(linear)], 1)


class Known(NamedTuple):
    """Averages (F,) of the features over all neurons, and which of them are known."""

    values: Float[np.ndarray, " F"]
    known: Bool[np.ndarray, " F"]


def known_averages(tables: TypeTables) -> Known:
    """E_h of v_c² and s_c² by a rule in one dimension, and E[α_a α_b] = Σ_n ρ_ab^n A_na A_nb (Mehler) with A_n = E[α He_n]/√n!.

    What a series leaves out is at most |ρ|^n √(R_a R_b), with R_a = E α_a² - Σ A_na² (Cauchy-Schwarz): beyond `KNOWN` of its size an
    average is not known.
    """
    std = np.linalg.norm(tables.root, axis=1)
    unit = tables.root / np.where(std > 0, std, 1)[:, None]
    x, weights = _fine_rule(float(np.max(tables.scale * std / tables.width)))
    alpha, kept, carried = _at_places(tables, x[:, None] * (tables.scale * std / tables.half))
    second = weights @ np.asarray(alpha) ** 2
    correlation = unit @ unit.T
    power, total, left = np.ones_like(correlation), np.zeros_like(correlation), second.copy()
    before, function = np.zeros_like(x), np.sqrt(weights)
    weighted = function[:, None] * alpha
    for n in range(MOST_TERMS):
        term = function @ weighted
        total, left, power = total + power * np.outer(term, term), left - term**2, power * correlation
        if np.all(left <= NEGLIGIBLE * second):
            break
        before, function = function, (x * function - math.sqrt(n) * before) / math.sqrt(n + 1)
    off = abs(power) * np.sqrt(np.outer(np.maximum(left, 0), np.maximum(left, 0)))
    np.fill_diagonal(total, second)
    np.fill_diagonal(off, 0)
    sure = upper(off <= KNOWN * np.sqrt(np.outer(second, second)))
    return Known(np.concatenate([weights @ kept, weights @ carried, upper(total)]), np.concatenate([np.ones(2 * len(std), bool), sure]))


def _fine_rule(steepness: float) -> tuple[np.ndarray, np.ndarray]:
    """Trapezoid rule for N(0, 1), fine enough for functions that vary over 1/steepness times a Hermite function of the highest degree."""
    step = 2 * math.pi / (2 * math.sqrt(MOST_TERMS) + 10 * max(steepness, 1.0))
    half = math.ceil(REACH / step)
    x = step * np.arange(-half, half + 1)
    weights = np.exp(-(x**2) / 2)
    return x, weights / weights.sum()


def matched(functions: np.ndarray, means: np.ndarray) -> Float[np.ndarray, " J"]:
    """Positive weights (J,) that sum to 1, nearest to equal ones in relative entropy, with which functions (J, C) have given means (C,).

    Functions that are combinations of others count once, and no more than a `POINTS_A_FUNCTION`th of the points: those combinations that
    vary most. Where no positive weights give all means, they come as near as weights of reasonable size do.
    """
    size = len(functions)
    apart = functions - means
    spread, typical = np.sqrt(np.mean(apart**2, 0)), np.sqrt(np.mean(functions**2, 0))
    varies = spread > CONSTANT * typical
    apart = apart[:, varies] / spread[varies]
    if not apart.shape[1]:
        return np.full(size, 1 / size)
    variances, directions = np.linalg.eigh(apart.T @ apart / size)
    most = min(max(size // POINTS_A_FUNCTION, 1), int(np.sum(variances > SMALLEST * variances[-1])))
    whitened = apart @ (directions[:, -most:] / np.sqrt(variances[-most:]))
    return _tilted(whitened)


def _tilted(functions: np.ndarray) -> Float[np.ndarray, " J"]:
    """Weights ∝ e^{functions·λ} with which functions (J, q) of unit variance average to 0: Newton's method for the convex dual
    log mean e^{functions·λ} + SLACK λ²/2.
    """

    def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        exponents = functions @ multipliers
        top = float(np.max(exponents))
        values = np.exp(exponents - top)
        return top + math.log(float(values.sum())) + SLACK * float(multipliers @ multipliers) / 2, values / values.sum()

    multipliers = np.zeros(functions.shape[1])
    height, weights = dual(multipliers)
    for _ in range(NEWTON_STEPS):
        mean = weights @ functions
        slope = mean + SLACK * multipliers
        curvature = (functions * weights[:, None]).T @ functions - np.outer(mean, mean)
        step = np.linalg.solve(curvature + SLACK * np.eye(len(mean)), slope)
        fall, share = float(slope @ step), 1.0
        if fall < 1e-20:
            break
        while True:
            trial, found = dual(multipliers - share * step)
            if trial <= height - 0.1 * share * fall or share < 1e-6:
                break
            share /= 2
        multipliers, height, weights = multipliers - share * step, trial, found
    return weights


def regressed_means(pieces: list[np.ndarray], known: Known, made: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means of features and of functions made of them over many equally weighted points, by regression on the known averages.

    Args:
        pieces: the features (J, F) of all points, in pieces.
        known: averages of the features.
        made: functions (J, C) of them, in the same pieces.

    Returns:
        (F,) the known averages, and the means of the others; (C,).
    """
    count = sum(len(piece) for piece in pieces)
    both = [np.concatenate([piece[:, known.known] - known.values[known.known], piece[:, ~known.known], more], 1)
            for piece, more in zip(pieces, made, strict=True)]  # fmt: skip
    controls = int(known.known.sum())
    mean = sum((x.sum(0) for x in both), np.zeros(both[0].shape[1])) / count
    moments = sum((x[:, :controls].T @ x for x in both), np.zeros((controls, both[0].shape[1]))) / count
    covariance = moments - np.outer(mean[:controls], mean)
    spread = np.sqrt(np.maximum(np.diagonal(covariance[:, :controls]), 1e-300))
    scaled = covariance / spread[:, None]
    slopes = np.linalg.lstsq(scaled[:, :controls] / spread, scaled[:, controls:], rcond=SMALLEST)[0]
    found = mean[controls:] - (mean[:controls] / spread) @ slopes
    features = known.values.copy()
    unknown = int((~known.known).sum())
    features[~known.known] = found[:unknown]
    return features, found[unknown:]
