"""Gaussian equivalent of a problem: neuron types, coefficients, column kinds (docs/theory/equivalent.md, eq-equivalent, eq-column).

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
class in the training loss (docs/theory/practice.md, eq-effective-samples). A class whose weight is not its fraction π_c of the
samples has columns scaled by √(ω_c/π_c): the same formulas with ω_c for π_c, and with π_c n/ω_c effective samples behind each trace δ_c.
"""

import math
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.matched_types import REACH, Known, TypeTables, features_of, known_averages, matched, type_tables
from rfdiff.theory.neuron_coefficients import Coefficients, GaussRules, coefficients, gauss_rules, table_size, tabulated
from rfdiff.theory.neuron_types import TypeGrid, by_lattice, gram_root, is_odd, type_grid
from rfdiff.theory.noncommuting.coupled_law import CoupledLaw
from rfdiff.value_types import value_type

MOST_KEPT = 8  # equivalents whose neurons are kept: three of one problem's curves and one of its spectrum, twice
LEAST_WEIGHT = 1e-12  # of a class in the loss, where blocks of coupled directions divide by it: moves a loss by no more than about that
LONGEST_TABLE = 1024  # terms of the series in one class's h: centroids of 13 times what a class smooths over take as many
LEAST_VARIANCE = 1e-11  # of the clean signal, relative to the noise: moves the coefficients by no more than that


class Coupled(NamedTuple):
    """Directions that covariances couple: e^{-2t} Σ_c (K, r, r) there, diagonal for class 0, and the share 1/d of each direction."""

    core: Float[Array, "K r r"]
    weight: Float[Array, ""]


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
        coupled: the directions that covariances couple, beside the groups; None where they commute.
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
    coupled: Coupled | None = None


class ColumnKinds(NamedTuple):
    """The column kinds of a number m of noise draws, by the names that `Equivalent` gives them."""

    weights: Float[np.ndarray, " S"]
    signal_gains: Float[np.ndarray, " S"]
    noise_gains: Float[np.ndarray, " S"]
    draws: float
    deterministic: float


def column_kinds(noise_draws: float) -> ColumnKinds:
    """The column kinds of m noise draws: one for m = 1 and for m = ∞, else the mean over a sample's draws and the other directions."""
    if math.isinf(noise_draws):
        return ColumnKinds(np.ones(1), np.ones(1), np.zeros(1), draws=1.0, deterministic=1.0)
    m = float(noise_draws)
    if m == 1:
        return ColumnKinds(np.ones(1), np.ones(1), np.ones(1), draws=1.0, deterministic=0.0)
    return ColumnKinds(np.array([1 / m, 1 - 1 / m]), np.array([m, 0.0]), np.ones(2), draws=m, deterministic=0.0)


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
    coupled: CoupledLaw | None = None,
    features: Coefficients | None = None,
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
        coupled: what the directions are where covariances do not commute; the mixture then has each class's own spectrum.
        features: the coefficients, where they are known.
    """
    delta, scale = noise_variance(t), signal_scale(t)
    eigenvalues = scale**2 * jnp.asarray(mixture.eigenvalues)
    group_weights = jnp.asarray(mixture.eigenvalue_weights)
    means = scale * (jnp.asarray(grid.nodes) @ jnp.asarray(root).T)
    variance = group_weights @ eigenvalues
    core = None
    if coupled is not None:
        factor = variance / jnp.where(jnp.asarray(coupled.variances) > 0, coupled.variances, 1)
        eigenvalues, group_weights = factor * jnp.asarray(coupled.eigenvalues), jnp.asarray(coupled.shares)
        core = Coupled(factor[:, None, None] * jnp.asarray(coupled.core), jnp.asarray(coupled.weight))
        loss_weights = jnp.maximum(jnp.asarray(loss_weights), LEAST_WEIGHT)
    # averages are smooth in the variance, its root is not: a class without variance is given a little, so that derivatives exist
    signal_std = jnp.sqrt(variance + jnp.where(variance < LEAST_VARIANCE * delta, LEAST_VARIANCE * delta, 0))
    if features is not None:
        pass
    elif table:
        features = tabulated(activation, means, signal_std, jnp.sqrt(delta), rules, table)
    else:
        features = coefficients(activation, means, signal_std, jnp.sqrt(delta), rules)
    return Equivalent(
        type_weights=jnp.asarray(grid.weights),
        linear=features.linear,
        kept=features.kept,
        carried=features.carried,
        fractions=jnp.asarray(mixture.weights),
        loss_weights=jnp.asarray(loss_weights),
        eigenvalues=eigenvalues,
        group_weights=group_weights,
        noise_variance=delta,
        psi_p=jnp.asarray(psi_p, jnp.float64),
        psi_n=jnp.asarray(psi_n, jnp.float64),
        kind_weights=jnp.asarray(kinds.weights, jnp.float64),
        signal_gains=jnp.asarray(kinds.signal_gains, jnp.float64),
        noise_gains=jnp.asarray(kinds.noise_gains, jnp.float64),
        draws=jnp.asarray(kinds.draws, jnp.float64),
        deterministic=jnp.asarray(kinds.deterministic, jnp.float64),
        coupled=core,
    )


def equivalent(
    problem: Problem, level: int, radius: float, least: int = 64, scramble: int = 0, coupled: CoupledLaw | None = None
) -> Equivalent:
    """The Gaussian equivalent of a problem (inside `jax.enable_x64`).

    Args:
        problem: the problem; without matrices where they are given as `coupled`.
        level: refinement of the neuron types; without effect for centred classes.
        radius: standard deviations of h that are kept.
        least: smallest number of neuron types to fill up to.
        scramble: which of the independent point sets, for Gram matrices of rank above 3.
        coupled: the directions of covariances that do not commute.

    Raises:
        InputError: class covariances that do not commute and so have no joint eigenvalues.
    """
    if not problem.mixture.commuting:
        raise InputError(
            "mixture: its class covariances do not commute; allowed here: a law with joint eigenvalues (minibatch SGD has no closed "
            "form for others)"
        )
    root, kinds = gram_root(problem.mixture.centroid_gram), column_kinds(problem.noise_draws)
    grid, rules = type_grid(root, level, radius, is_odd(problem.activation), least, scramble), gauss_rules(problem)
    table = table_size(problem, root, float(np.max(np.linalg.norm(grid.nodes, axis=1), initial=0)))
    table = table if 2 * table < grid.weights.size else 0
    law = problem.mixture
    leaves, tree = jax.tree.flatten((law.eigenvalues, law.eigenvalue_weights, root, problem.t, grid, rules))
    key = (problem.activation, table, tree, *((np.shape(x), np.asarray(x, np.float64).tobytes()) for x in leaves))
    before = _LATEST.get(key) if coupled is None else None
    if before is not None:
        return with_ratios(before, problem, kinds)
    weights, ratios = problem.training_weights, (problem.psi_p, problem.psi_n)
    eq = build(problem.activation, law, weights, problem.t, *ratios, kinds, root, grid, rules, table, coupled)
    if root.shape[1] and not by_lattice(problem, radius) and (tables := tables_of(problem)) is not None:
        known, features = tables[1], features_of(Coefficients(eq.linear, eq.kept, eq.carried))
        eq = replace(eq, type_weights=jnp.asarray(matched(features[:, known.known], known.values[known.known])))
    if coupled is None:
        while len(_LATEST) >= MOST_KEPT:
            _LATEST.pop(next(iter(_LATEST), ()), None)  # the oldest
        _LATEST[key] = eq
    return eq


@lru_cache(maxsize=4)
def tables_of(problem: Problem) -> tuple[TypeTables, Known] | None:
    """What neurons anywhere make of a problem's classes, and the averages over them that are known (inside `jax.enable_x64`).

    None for centroids so long that it would take more than `LONGEST_TABLE` terms.
    """
    root = gram_root(problem.mixture.centroid_gram)
    size = table_size(problem, root, REACH)
    if size > LONGEST_TABLE:
        return None
    law, delta, scale = problem.mixture, float(noise_variance(problem.t)), float(signal_scale(problem.t))
    variance = scale**2 * (np.asarray(law.eigenvalue_weights) @ np.asarray(law.eigenvalues))
    signal_std = np.sqrt(variance + np.where(variance < LEAST_VARIANCE * delta, LEAST_VARIANCE * delta, 0))
    tables = type_tables(problem.activation, root, scale, signal_std, math.sqrt(delta), gauss_rules(problem), size)
    return tables, known_averages(tables)


def with_ratios(eq: Equivalent, problem: Problem, kinds: ColumnKinds) -> Equivalent:
    """The equivalent of a problem from that of another one whose neurons make the same of its classes: with its own fractions, weights of
    the classes, ψ_p, ψ_n and noise draws. Averages over neurons' inputs, the larger part of `build`, are kept.
    """
    numbers = (problem.mixture.weights, problem.training_weights, problem.psi_p, problem.psi_n, *kinds)
    arrays: list[Any] = [np.asarray(x, np.float64) for x in numbers]  # ten small arrays of JAX would cost a millisecond
    fractions, loss_weights, psi_p, psi_n, *of_kinds = arrays
    kind_weights, signal_gains, noise_gains, draws, deterministic = of_kinds
    return replace(
        eq, fractions=fractions, loss_weights=loss_weights, psi_p=psi_p, psi_n=psi_n, kind_weights=kind_weights,
        signal_gains=signal_gains, noise_gains=noise_gains, draws=draws, deterministic=deterministic,
    )  # fmt: skip


_LATEST: dict[tuple[object, ...], Equivalent] = {}  # by the bytes of what their neurons depend on
