"""Gaussian equivalent of a problem: neuron types, their coefficients, and column kinds (`equations`, sections 2 and 3).

Derivation in short. Given the frozen W, neuron i sees class c only through two Gaussian numbers: the clean projection
e^{-t} w_i·x/√d, with mean e^{-t} h_c where h = (w_i·μ_1, …, w_i·μ_K)/√d ~ N(0, Q), and the noise projection √Δ w_i·ξ/√d. The
projections of different neurons are correlated at order 1/√d, so to leading order a feature is its mean, its linear part, and two
independent non-linear remainders:

    φ_i = α0_c + α_c (e^{-t} w_i·(x - μ_c)/√d + √Δ w_i·ξ/√d) + v_c ω + s_c ω'

with α0, α, v, s functions of h_i: v² is the non-linear variance that survives an average over the noise ξ, s² the one that the noise
carries. Means α0 only make outlier eigenvalues and move no curve, so they are dropped. A network is then described by the
distribution of h — Gaussian, of the rank of Q — which is replaced here by J quadrature nodes, the neuron types.

Rotating the m noise draws of a sample so that the first axis is their mean turns the n·m columns of features into independent ones
of two kinds: one in m carries m times the clean signal, the others none. Every formula downstream is written for a list of kinds
with a signal gain and a noise gain; m = ∞ is one kind without noise, plus a deterministic noise term of weight ω_c, that of the
class in the training loss (`equations`, section 9.1). A class whose weight is not its fraction π_c of the samples has columns scaled by
√(ω_c/π_c): the same formulas with ω_c for π_c, and with π_c n/ω_c effective samples behind each trace δ_c.
"""

import math
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rfdiff.activation import ACTIVATIONS, Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.theory.neuron_types import TypeGrid, gram_root, is_odd, type_grid
from rfdiff.value_types import value_type

GAUSS_RANGE = 8.5  # e^{-8.5²/2} = 2e-16: nothing beyond matters in float64
LEAST_VARIANCE = 1e-11  # of the clean signal, relative to the noise: moves the coefficients by no more than that


@value_type
class Equivalent:
    """Numbers that determine every prediction (J neuron types, K classes, L eigenvalue groups, S column kinds).

    Args:
        type_weights: (J,) share of the neurons of each type.
        linear: (J, K) α_c, linear coefficient of signal and noise.
        kept: (J, K) v_c², non-linear variance kept by the noise average.
        carried: (J, K) s_c², non-linear variance carried by the noise.
        fractions: (K,) π_c, shares of the samples.
        loss_weights: (K,) ω_c, weights of the classes in the training loss.
        eigenvalues: (L, K) e^{-2t} λ_lc, variance of the clean signal per direction.
        group_weights: (L,) shares of the directions.
        noise_variance: Δ.
        psi_p, psi_n: ratios p/d and n/d.
        kind_weights: (S,) share of each column kind in a class, w_τ/ω_c.
        signal_gains, noise_gains: (S,) gains of signal and noise in the covariance of a column of that kind.
        draws: columns per sample, m (1 for the exact noise average).
        deterministic: 1 if the noise is averaged exactly (m = ∞), else 0.
    """

    type_weights: Float[Array, " J"]
    linear: Float[Array, "J K"]
    kept: Float[Array, "J K"]
    carried: Float[Array, "J K"]
    fractions: Float[Array, " K"]
    loss_weights: Float[Array, " K"]
    eigenvalues: Float[Array, "L K"]
    group_weights: Float[Array, " L"]
    noise_variance: Float[Array, ""]
    psi_p: Float[Array, ""]
    psi_n: Float[Array, ""]
    kind_weights: Float[Array, " S"]
    signal_gains: Float[Array, " S"]
    noise_gains: Float[Array, " S"]
    draws: Float[Array, ""]
    deterministic: Float[Array, ""]


ColumnKinds: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, float, float]


def column_kinds(noise_draws: float) -> ColumnKinds:
    """Shares, signal gains and noise gains of the column kinds, the number of columns a sample, and the deterministic flag."""
    if math.isinf(noise_draws):
        return np.ones(1), np.ones(1), np.zeros(1), 1.0, 1.0
    m = float(noise_draws)
    if m == 1:
        return np.ones(1), np.ones(1), np.ones(1), 1.0, 0.0
    return np.array([1 / m, 1 - 1 / m]), np.array([m, 0.0]), np.ones(2), m, 0.0


class GaussRule(NamedTuple):
    """Rule for an average over g ~ N(0, 1): smooth integrands on `nodes`, kinked ones on panels of the unit interval."""

    nodes: Float[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]


class PanelRule(NamedTuple):
    """Nodes in [0, 1] and Gauss-Legendre weights of panels laid around the kinks of σ smoothed over the noise, by `around`."""

    nodes: Float[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]


GaussRules: TypeAlias = tuple[GaussRule, GaussRule, GaussRule | PanelRule]  # over the whole fluctuation, the noise, the signal


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
    total: GaussRule,
    inner: GaussRule,
    outer: GaussRule | PanelRule,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """α_c, v_c², s_c² at every mean (`equations`, section 2), by nested one-dimensional averages.

    `α = E[g σ(mean + Γ g)]/Γ` (Stein), `v² = P - α0² - α² signal²` and `s² = E σ² - P - α² Δ` with `P = E_z (E_ξ σ)²`.

    Args:
        activation: σ.
        means: (J, K) e^{-t} h_c.
        signal_std, noise_std: (K,) e^{-t} σ_c, and √Δ.
        total, inner, outer: rules for the averages over the whole fluctuation, the noise alone, and the signal alone.

    Returns:
        α, v², s², each (J, K); 0 where they are below the rounding of the averages.
    """
    gamma = jnp.sqrt(signal_std**2 + noise_std**2)
    g, weights = place(total, activation.kinks, means, gamma)
    values = activation(means[..., None] + gamma[:, None] * g)
    mean, square = (values * weights).sum(-1), (values**2 * weights).sum(-1)
    alpha = (values * weights * g).sum(-1) / gamma

    def add(kept_square: jax.Array, node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        centre = means + signal_std * node[0]
        g, weights = place(inner, activation.kinks, centre, noise_std)
        averaged = (activation(centre[..., None] + noise_std * g) * weights).sum(-1)
        return kept_square + node[1] * averaged**2, None

    laid = jnp.asarray(outer.nodes), jnp.asarray(outer.weights)
    if isinstance(outer, PanelRule):
        laid = around(outer, activation.kinks, means, signal_std, noise_std)
    kept_square, _ = jax.lax.scan(add, jnp.zeros_like(means), laid)
    kept = kept_square - mean**2 - alpha**2 * signal_std**2
    carried = square - kept_square - alpha**2 * noise_std**2
    # differences of numbers of the size of E σ²: below its rounding they are none
    kept, carried = (jnp.where(x > 1e-14 * square, x, 0) for x in (kept, carried))
    return jnp.where((alpha * gamma) ** 2 > 1e-28 * square, alpha, 0), kept, carried


def tabulated(
    activation: Activation, means: jax.Array, signal_std: jax.Array, noise_std: jax.Array, rules: GaussRules, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`coefficients` at many means, from a Chebyshev series of `size` terms over the range of each class's means: each is a function of
    one number, so thousands of neuron types need no more averages than the series. Exact to 1e-14 of the largest (`table_size`).
    """
    low, high = jnp.min(means, 0), jnp.max(means, 0)
    centre, half = (low + high) / 2, jnp.where(high > low, (high - low) / 2, 1.0)
    angles = np.pi * (np.arange(size) + 0.5) / size
    values = jnp.stack(coefficients(activation, centre + half * np.cos(angles)[:, None], signal_std, noise_std, *rules))
    series = jnp.einsum("nj,xjk->nxk", np.cos(np.outer(np.arange(size), angles)) * 2 / size, values)
    x = (means - centre) / half

    def clenshaw(state: tuple[jax.Array, jax.Array], term: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        return (term[:, None] + 2 * x * state[0] - state[1], state[0]), None

    zero = jnp.zeros((3, *means.shape))
    (first, second), _ = jax.lax.scan(clenshaw, (zero, zero), series[:0:-1])
    alpha, kept, carried = series[0][:, None] / 2 + x * first - second
    gamma = jnp.sqrt(signal_std**2 + noise_std**2)
    scale = jnp.max((values[0] * gamma) ** 2 + values[1] + values[2], 0)
    kept, carried = (jnp.where(share > 1e-14 * scale, share, 0) for share in (kept, carried))
    return jnp.where(abs(alpha) * gamma > 1e-14 * jnp.sqrt(scale), alpha, 0), kept, carried


def table_size(problem: Problem, root: np.ndarray, radius: float) -> int:
    """Terms that a Chebyshev series of the coefficients needs for 1e-15, on a ladder so that neighbouring problems share programs.

    Averages over a Gaussian of width w grow off the axis as e^{y²/2w²}, so on a range of half-length R the terms fall as
    e^{-(n w/R)²/2}. The narrowest, P, squares an average over the noise and averages that over the signal: w² = e^{-2t} σ_c² + Δ/2.
    """
    law, delta = problem.mixture, float(noise_variance_of(problem.t))
    width = np.sqrt((1 - delta) * np.asarray(law.variances) + delta / 2)
    reach = math.sqrt(1 - delta) * radius * np.linalg.norm(root, axis=1)
    return 64 * math.ceil((8.5 * float(np.max(reach / width)) + 16) / 64)


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
        # the outer integrand is σ smoothed over the noise: its features are √Δ wide, whatever the kink
        uniform, panels = smooth_rule(max(1.0, 2 * signal_std / noise_std), refinement), panel_rule(activation.kinks)
        return kinked_rule(), kinked_rule(), uniform if uniform.nodes.size <= panels.nodes.size else panels
    scales = (math.hypot(signal_std, noise_std), noise_std, signal_std)
    return tuple(smooth_rule(scale, refinement) for scale in scales)  # type: ignore[return-value]


@lru_cache(maxsize=64)
def _refinement(activation: Activation, signal_std: float, noise_std: float) -> int:
    """Halvings (by √2) of the step after which a user's activation is averaged to 1e-9 at a few means."""
    means = jnp.asarray([[-1.3], [0.0], [0.4], [2.1]])
    before = None
    for refinement in range(0, 11, 2):
        rules = _rules(activation, signal_std, noise_std, refinement)
        now = np.stack(coefficients(activation, means, jnp.asarray([signal_std]), jnp.asarray(noise_std), *rules))
        if before is not None and np.max(abs(now - before)) <= 1e-9 * max(1.0, np.max(abs(now))):
            return refinement - 2
        before = now
    raise InputError(
        f"activation: {activation.name!r} is too steep for any rule at standard deviations {signal_std:.2g} and {noise_std:.2g}; "
        "allowed: smooth functions, or an Activation that declares its kinks"
    )


@partial(jax.jit, static_argnames=("activation", "table"))
def build(
    activation: Activation,
    mixture: MixtureLaw,
    loss_weights: ArrayLike,
    t: ArrayLike,
    psi_p: ArrayLike,
    psi_n: ArrayLike,
    kinds: ColumnKinds,
    root: ArrayLike,
    grid: TypeGrid,
    rules: GaussRules,
    table: int = 0,
) -> Equivalent:
    """The Gaussian equivalent of a problem on a given grid of neuron types (float64, inside `jax.enable_x64`).

    Args:
        activation: σ.
        mixture: the `MixtureLaw`.
        loss_weights: (K,) ω_c, the problem's `training_weights`.
        t, psi_p, psi_n: of the problem.
        kinds: result of `column_kinds`.
        root: (K, rank) with root rootᵀ = Q.
        grid: nodes of N(0, I_rank).
        rules: result of `gauss_rules`.
        table: terms of the series from which the coefficients are read (`table_size`); 0 for none.
    """
    delta, scale = noise_variance(t), signal_scale(t)
    eigenvalues = scale**2 * jnp.asarray(mixture.eigenvalues)
    group_weights = jnp.asarray(mixture.eigenvalue_weights)
    means = scale * (jnp.asarray(grid.nodes) @ jnp.asarray(root).T)
    variance = group_weights @ eigenvalues
    # averages are smooth in the variance, its root is not: a class without variance is given a little, so that derivatives exist
    signal_std = jnp.sqrt(variance + jnp.where(variance < LEAST_VARIANCE * delta, LEAST_VARIANCE * delta, 0))
    if table:
        alpha, kept, carried = tabulated(activation, means, signal_std, jnp.sqrt(delta), rules, table)
    else:
        alpha, kept, carried = coefficients(activation, means, signal_std, jnp.sqrt(delta), *rules)
    shares, signal_gains, noise_gains, draws, deterministic = (jnp.asarray(x, jnp.float64) for x in kinds)
    return Equivalent(
        jnp.asarray(grid.weights), alpha, kept, carried, jnp.asarray(mixture.weights), jnp.asarray(loss_weights), eigenvalues,
        group_weights, delta, jnp.asarray(psi_p, jnp.float64), jnp.asarray(psi_n, jnp.float64), shares, signal_gains, noise_gains, draws,
        deterministic,
    )  # fmt: skip


def equivalent(problem: Problem, level: int, radius: float, least: int = 64, scramble: int = 0) -> Equivalent:
    """The Gaussian equivalent of a problem (inside `jax.enable_x64`).

    Args:
        problem: the problem.
        level: refinement of the neuron types; without effect for centred classes.
        radius: standard deviations of h that are kept.
        least: smallest number of neuron types to fill up to.
        scramble: which of the independent point sets, for Gram matrices of rank above 3.

    Raises:
        InputError: class covariances that do not commute and so have no joint eigenvalues.
    """
    if not problem.mixture.commuting:
        raise InputError(
            "mixture: its class covariances do not commute; allowed here: a law with joint eigenvalues "
            "(theory.learning_curves, theory.time_grid and theory.stieltjes take matrices; Im g/pi is the density)"
        )
    root = gram_root(problem.mixture.centroid_gram)
    grid = type_grid(root, level, radius, is_odd(problem.activation), least, scramble)
    table = table_size(problem, root, float(np.max(np.linalg.norm(grid.nodes, axis=1), initial=0)))
    return build(
        problem.activation, problem.mixture, problem.training_weights, problem.t, problem.psi_p, problem.psi_n,
        column_kinds(problem.noise_draws), root, grid, gauss_rules(problem), table if 2 * table < grid.weights.size else 0,
    )  # fmt: skip
