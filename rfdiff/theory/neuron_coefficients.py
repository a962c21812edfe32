"""What neurons of each type make of a class: Gaussian averages α, v² and s² (docs/theory/equivalent.md, eq-coefficients).

Smooth activations are averaged by the trapezoid rule, kinked ones by Gauss-Legendre panels between or around the kinks. How fine a rule
must be follows from the problem (`gauss_rules`); for a user's own activation it is found by refinement.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rfdiff.activation import ACTIVATIONS, Activation
from rfdiff.errors import InputError
from rfdiff.problem import Problem, noise_variance_of

GAUSS_RANGE = 8.5  # e^{-8.5²/2} = 2e-16: nothing beyond matters in float64


class GaussRule(NamedTuple):
    """Rule for an average over g ~ N(0, 1): smooth integrands on `nodes`, kinked ones on panels of the unit interval."""

    nodes: Float[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]


class PanelRule(NamedTuple):
    """Nodes in [0, 1] and Gauss-Legendre weights of panels laid around the kinks of σ smoothed over the noise, by `around`."""

    nodes: Float[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]


class GaussRules(NamedTuple):
    """Rules for the averages over the whole fluctuation of a neuron's input, over its noise alone, and over its signal alone."""

    total: GaussRule
    noise: GaussRule
    signal: GaussRule | PanelRule


class Coefficients(NamedTuple):
    """Of every neuron type and class: α, v² and s²."""

    linear: jax.Array
    kept: jax.Array
    carried: jax.Array


def smooth_rule(scale: float, refinement: int = 0) -> GaussRule:
    """Trapezoid rule on [-8.5, 8.5] for σ(mean + scale g): the step shrinks as the integrand steepens.

    With step h the error is e^{-2π y/(h scale)} for a pole of σ at distance y from the axis: 1e-13 for tanh at h scale = 1/3. The step
    moves on a ladder of factors √2, so that nearby problems share array shapes and compiled code.
    """
    step = 2.0 ** (-math.ceil(2 * math.log2(3 * max(scale, 1.0))) / 2 - refinement / 2)
    half = math.ceil(GAUSS_RANGE / step)
    nodes = step * np.arange(-half, half + 1)
    weights = np.exp(-(nodes**2) / 2)
    return GaussRule(nodes, weights / weights.sum())


def kinked_rule() -> GaussRule:
    """Composite Gauss-Legendre rule on [0, 1], laid between the kinks of σ by `place`."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    panels = np.arange(3)[:, None]
    return GaussRule(((nodes + 1) / 2 + panels).ravel() / 3, np.tile(weights / 6, 3))


def place(rule: GaussRule, kinks: tuple[float, ...], mean: jax.Array, std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes g and weights (…, N) for averages of functions of σ(mean + std g), split where the argument meets a kink."""
    nodes, weights = jnp.asarray(rule.nodes), jnp.asarray(rule.weights)
    if not kinks:
        return nodes, weights
    cuts = [jnp.clip((kink - mean) / std, -GAUSS_RANGE, GAUSS_RANGE) for kink in sorted(kinks)]
    edges = [jnp.full_like(cuts[0], -GAUSS_RANGE), *cuts, jnp.full_like(cuts[0], GAUSS_RANGE)]
    pieces = [(low[..., None] + (high - low)[..., None] * nodes, (high - low)[..., None] * weights) for low, high in pairwise(edges)]
    g = jnp.concatenate([piece[0] for piece in pieces], -1)
    return g, jnp.concatenate([piece[1] for piece in pieces], -1) * jnp.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)


BASE_CUTS = (-GAUSS_RANGE, -GAUSS_RANGE / 2, 0.0, GAUSS_RANGE / 2, GAUSS_RANGE)
KINK_CUTS = (-9.0, -3.0, 3.0, 9.0)  # of panels around a kink, in units of its width; beyond, it is over
PANEL_NODES = 24


def panel_rule(kinks: tuple[float, ...]) -> PanelRule:
    """Rule for an average over the signal of σ smoothed over the noise, however little noise there is."""
    nodes, weights = np.polynomial.legendre.leggauss(PANEL_NODES)
    panels = len(BASE_CUTS) - 1 + len(KINK_CUTS) * len(kinks)
    return PanelRule(np.tile((nodes + 1) / 2, panels), np.tile(weights / 2, panels))


def around(rule: PanelRule, kinks: tuple[float, ...], mean: jax.Array, std: jax.Array, width: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nodes g and weights (N, …) for averages of functions of mean + std g that turn within `width` of a kink."""
    shape = jnp.broadcast_shapes(mean.shape, std.shape)
    cuts = [jnp.clip((kink + side * width - mean) / std, -GAUSS_RANGE, GAUSS_RANGE) for kink in kinks for side in KINK_CUTS]
    edges = jnp.sort(jnp.stack([*(jnp.full(shape, cut) for cut in BASE_CUTS), *cuts]), 0)
    low, length = (jnp.repeat(x, PANEL_NODES, 0) for x in (edges[:-1], edges[1:] - edges[:-1]))
    g = low + length * jnp.asarray(rule.nodes).reshape(-1, *(1,) * len(shape))
    weights = length * jnp.asarray(rule.weights).reshape(-1, *(1,) * len(shape))
    return g, weights * jnp.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)


def coefficients(
    activation: Activation,
    means: jax.Array,
    signal_std: jax.Array,
    noise_std: jax.Array,
    rules: GaussRules,
) -> Coefficients:
    """α_c, v_c², s_c² at every mean (docs/theory/equivalent.md, eq-coefficients), by nested one-dimensional averages.

    `α = E[g σ(mean + Γ g)]/Γ` (Stein), `v² = P - α0² - α² signal²` and `s² = E σ² - P - α² Δ` with `P = E_z (E_ξ σ)²`.

    Args:
        activation: σ.
        means: (J, K) e^{-t} h_c.
        signal_std, noise_std: (K,) e^{-t} σ_c, and √Δ.
        rules: for the averages.

    Returns:
        `Coefficients`, each (J, K); 0 where they are below the rounding of the averages.
    """
    gamma = jnp.sqrt(signal_std**2 + noise_std**2)
    g, weights = place(rules.total, activation.kinks, means, gamma)
    values = activation(means[..., None] + gamma[:, None] * g)
    mean, square = (values * weights).sum(-1), (values**2 * weights).sum(-1)
    alpha = (values * weights * g).sum(-1) / gamma

    def add(kept_square: jax.Array, node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        centre = means + signal_std * node[0]
        g, weights = place(rules.noise, activation.kinks, centre, noise_std)
        averaged = (activation(centre[..., None] + noise_std * g) * weights).sum(-1)
        return kept_square + node[1] * averaged**2, None

    laid = jnp.asarray(rules.signal.nodes), jnp.asarray(rules.signal.weights)
    if isinstance(rules.signal, PanelRule):
        laid = around(rules.signal, activation.kinks, means, signal_std, noise_std)
    kept_square, _ = jax.lax.scan(add, jnp.zeros_like(means), laid)
    kept = kept_square - mean**2 - alpha**2 * signal_std**2
    carried = square - kept_square - alpha**2 * noise_std**2
    # differences of numbers of the size of E σ²: below its rounding they are none
    kept, carried = (jnp.where(x > 1e-14 * square, x, 0) for x in (kept, carried))
    return Coefficients(jnp.where((alpha * gamma) ** 2 > 1e-28 * square, alpha, 0), kept, carried)


class Series(NamedTuple):
    """Chebyshev series of the coefficients of K classes: terms (N,3,K) of α, v² and s², and the scale and width (K,) of each class."""

    terms: jax.Array
    scale: jax.Array
    gamma: jax.Array


def series(
    activation: Activation,
    centre: jax.Array,
    half: jax.Array,
    signal_std: jax.Array,
    noise_std: jax.Array,
    rules: GaussRules,
    size: int,
) -> Series:
    """Series of `size` terms over means from centre - half to centre + half (K,)."""
    angles = np.pi * (np.arange(size) + 0.5) / size
    values = jnp.stack(coefficients(activation, centre + half * np.cos(angles)[:, None], signal_std, noise_std, rules))
    terms = jnp.einsum("nj,xjk->nxk", np.cos(np.outer(np.arange(size), angles)) * 2 / size, values)
    gamma = jnp.sqrt(signal_std**2 + noise_std**2)
    return Series(terms, jnp.max((values[0] * gamma) ** 2 + values[1] + values[2], 0), gamma)


def read_series(series: Series, x: jax.Array) -> Coefficients:
    """Coefficients at x (J,K) in [-1, 1], the place of a mean in the range of its class."""
    terms, scale, gamma = series

    def clenshaw(state: tuple[jax.Array, jax.Array], term: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        return (term[:, None] + 2 * x * state[0] - state[1], state[0]), None

    zero = jnp.zeros((3, *x.shape))
    (first, second), _ = jax.lax.scan(clenshaw, (zero, zero), terms[:0:-1])
    alpha, kept, carried = terms[0][:, None] / 2 + x * first - second
    kept, carried = (jnp.where(share > 1e-14 * scale, share, 0) for share in (kept, carried))
    return Coefficients(jnp.where(abs(alpha) * gamma > 1e-14 * jnp.sqrt(scale), alpha, 0), kept, carried)


def tabulated(
    activation: Activation, means: jax.Array, signal_std: jax.Array, noise_std: jax.Array, rules: GaussRules, size: int
) -> Coefficients:
    """`coefficients` at many means, from a Chebyshev series of `size` terms over the range of each class's means: each is a function of
    one number, so thousands of neuron types need no more averages than the series. Exact to 1e-14 of the largest (`table_size`).
    """
    low, high = jnp.min(means, 0), jnp.max(means, 0)
    centre, half = (low + high) / 2, jnp.where(high > low, (high - low) / 2, 1.0)
    return read_series(series(activation, centre, half, signal_std, noise_std, rules, size), (means - centre) / half)


def table_size(problem: Problem, root: np.ndarray, radius: float) -> int:
    """Terms that a Chebyshev series of the coefficients needs for 1e-15, on a ladder so that neighbouring problems share programs.

    Averages over a Gaussian of width w grow off the axis as e^{y²/2w²}, so on a range of half-length R the terms fall as
    e^{-(n w/R)²/2}. The narrowest, P, squares an average over the noise and averages that over the signal: w² = e^{-2t} σ_c² + Δ/2.
    """
    law, delta = problem.mixture, float(noise_variance_of(problem.t))
    width = np.sqrt((1 - delta) * np.asarray(law.variances) + delta / 2)
    reach = math.sqrt(1 - delta) * radius * np.linalg.norm(root, axis=1)
    return terms_of_series(float(np.max(reach / width)))


def terms_of_series(half: float) -> int:
    """Terms of a series over a range of half-length R, in widths w of the narrowest average: `table_size`."""
    return 64 * math.ceil((8.5 * half + 16) / 64)


def gauss_rules(problem: Problem) -> GaussRules:
    """Rules for the total, noise and signal averages of a problem, fine enough for its steepest class.

    Raises:
        InputError: an activation of the user's own that no rule resolves: it has a kink that is not declared, or is too steep.
    """
    noise_std = math.sqrt(float(noise_variance_of(problem.t)))
    signal_std = math.exp(-float(problem.t)) * math.sqrt(float(np.max(problem.mixture.variances)))
    refinement = 0
    if problem.activation not in ACTIVATIONS.values():  # how steep those are is known
        refinement = _refinement(problem.activation, float(f"{signal_std:.2g}"), float(f"{noise_std:.2g}"))
    return _rules(problem.activation, signal_std, noise_std, refinement)


def _rules(activation: Activation, signal_std: float, noise_std: float, refinement: int) -> GaussRules:
    if activation.kinks:
        # the average over the signal is of σ smoothed over the noise: its features are √Δ wide, whatever the kink
        uniform, panels = smooth_rule(max(1.0, 2 * signal_std / noise_std), refinement), panel_rule(activation.kinks)
        return GaussRules(kinked_rule(), kinked_rule(), uniform if uniform.nodes.size <= panels.nodes.size else panels)
    scales = (math.hypot(signal_std, noise_std), noise_std, signal_std)
    return GaussRules(*(smooth_rule(scale, refinement) for scale in scales))


@lru_cache(maxsize=64)
def _refinement(activation: Activation, signal_std: float, noise_std: float) -> int:
    """Halvings (by √2) of the step after which a user's activation is averaged to 1e-9 at a few means."""
    means = jnp.asarray([[-1.3], [0.0], [0.4], [2.1]])
    before = None
    for refinement in range(0, 11, 2):
        rules = _rules(activation, signal_std, noise_std, refinement)
        now = np.stack(coefficients(activation, means, jnp.asarray([signal_std]), jnp.asarray(noise_std), rules))
        if before is not None and np.max(abs(now - before)) <= 1e-9 * max(1.0, np.max(abs(now))):
            return refinement - 2
        before = now
    raise InputError(
        f"activation: {activation.name!r} is too steep for any rule at standard deviations {signal_std:.2g} and {noise_std:.2g}; "
        "allowed: smooth functions, or an Activation that declares its kinks"
    )
