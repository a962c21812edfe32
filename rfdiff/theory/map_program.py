"""The compiled programs of a map: one cell after the other, each beginning where its neighbour ended.

Inside a cell all nodes, and all pairs of them, are worked on at once; that fills the vector units and stays in the cache, so that cells
side by side gain nothing. In the order of the map a cell's contour and solution are close to those before it, which leaves Newton's method
a third of its steps.

What an activation makes of a class depends on the class's variance, on t and on one number of the neuron: it is tabulated once for each
pair (variance, t) of the map, not averaged again for the neurons of every cell.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from rfdiff.activation import Activation
from rfdiff.class_times import ClassTimes
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.problem import Problem
from rfdiff.theory import implicit, resolvent
from rfdiff.theory.approaches import approach_along_rays
from rfdiff.theory.contour import ellipse
from rfdiff.theory.contour_forms import kernel_of
from rfdiff.theory.equivalent import LEAST_VARIANCE, ColumnKinds, Equivalent, build
from rfdiff.theory.learning_times import times_of_forms
from rfdiff.theory.neuron_coefficients import GaussRules, Series, read_series, series
from rfdiff.theory.neuron_types import TypeGrid
from rfdiff.theory.plans import optimal_and_rate
from rfdiff.theory.real_forms import RealForms
from rfdiff.theory.resolvent import RESIDUAL, free_start
from rfdiff.theory.support import outer_bounds
from rfdiff.theory.traces import ridge_losses

HARD = 1e-9  # lower bound of the spectrum, relative to the upper, below which the contour passes left of 0 instead
SOLVED = 1e-11  # relative residual at which the fixed point is left
PROBES = (0.1, 1.0, 10.0, 100.0, 1000.0)
X = TypeVar("X")
Y = TypeVar("Y")
PENALTIES = 6  # of ridge regression, at which two levels of neuron types are compared


class Tables(NamedTuple):
    """Series of the coefficients for Q pairs of variance and t, over means from -reach to reach."""

    series: Series
    reach: Float[np.ndarray, ""] | jax.Array


class Cells(NamedTuple):
    """Cells of a map (C): problems with their leaves stacked, roots of their Gram matrices, and the rows of each class in the tables."""

    problems: Problem
    roots: Float[np.ndarray, "C K rank"]
    rows: Int[np.ndarray, "C K"]


class Setting(NamedTuple):
    """What all cells share: neuron types, quadrature rules, column kinds, and the tables if there are centroids."""

    grid: TypeGrid
    rules: GaussRules
    kinds: ColumnKinds
    tables: Tables | None


@partial(jax.jit, static_argnames=("activation", "size"))
def tabulate(activation: Activation, variances: jax.Array, t: jax.Array, reach: jax.Array, rules: GaussRules, size: int) -> Tables:
    """Tables of `size` terms for Q pairs of variance and t."""

    def one(pair: tuple[jax.Array, jax.Array]) -> Series:
        delta, variance = noise_variance(pair[1]), signal_scale(pair[1]) ** 2 * pair[0]
        variance = variance + jnp.where(variance < LEAST_VARIANCE * delta, LEAST_VARIANCE * delta, 0)
        zero = jnp.zeros(1)
        return series(activation, zero, zero + reach, jnp.sqrt(variance)[None], jnp.sqrt(delta), rules, size)

    return Tables(jax.lax.map(one, (variances, t)), reach)


def _equivalent(cell: Cells, setting: Setting) -> Equivalent:
    """The Gaussian equivalent of one cell."""
    problem, features = cell.problems, None
    if setting.tables is not None:
        table = jax.tree.map(lambda leaf: jnp.moveaxis(leaf[cell.rows], 0, -1)[..., 0, :], setting.tables.series)
        means = signal_scale(problem.t) * (jnp.asarray(setting.grid.nodes) @ jnp.asarray(cell.roots).T)
        features = read_series(table, means / setting.tables.reach)
    return build(
        problem.activation, problem.mixture, problem.training_weights, problem.t, problem.psi_p, problem.psi_n,
        setting.kinds, cell.roots, setting.grid, setting.rules, features=features,
    )  # fmt: skip


@jax.jit
def bounds(cells: Cells, setting: Setting) -> tuple[jax.Array, jax.Array]:
    """Norm bounds (C,) of the spectra of all cells."""
    return jax.lax.map(lambda cell: outer_bounds(_equivalent(cell, setting)), cells)


@jax.jit
def ridge(cells: Cells, setting: Setting, low: jax.Array, high: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Losses of ridge regression (C, 2, P, K) at P penalties within and around the spectra, and whether they are solved (C,)."""

    def one(start: jax.Array, cell: tuple[Cells, jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        eq = _equivalent(cell[0], setting)
        penalties = jnp.exp(jnp.linspace(jnp.log(jnp.maximum(cell[1], HARD * cell[2]) / 3), jnp.log(3 * cell[2]), PENALTIES))
        z = jax.lax.complex(-penalties, jnp.zeros_like(penalties))
        u, residual = _solved(eq, z, start)
        solved = jnp.max(residual) < RESIDUAL
        return jnp.where(solved, u, jnp.nan), (ridge_losses(eq, implicit.expand(eq, z, u)), solved)

    return _one_by_one(one, _nowhere(cells, setting, PENALTIES), (cells, low, high), count)


@partial(jax.jit, static_argnames=("size", "careful"))
def forms(cells: Cells, setting: Setting, narrowed: jax.Array, count: jax.Array, size: int, careful: bool) -> tuple[RealForms, jax.Array]:
    """Learning curves (C) on contours of `size` nodes with their errors (C,).

    Args:
        narrowed: (C,) by which the upper bound of a spectrum is divided: a part left outside shows in the error.
        count: number of cells to compute, the first ones.
        careful: every node is approached from far out along its ray.
    """

    def one(start: jax.Array, given: tuple[Cells, jax.Array]) -> tuple[jax.Array, tuple[RealForms, jax.Array]]:
        cell, narrower = given
        eq = _equivalent(cell, setting)
        low, bound = outer_bounds(eq)
        hard = low < HARD * bound  # p = n m: finite times only
        shift = jnp.where(hard, HARD * bound, 0)
        contour = ellipse(jnp.where(hard, -shift / 2, low / 2), 1.5 * bound / narrower, size, shift=shift)
        optimal, kappa = optimal_and_rate(cell.problems)
        latest = jnp.where(hard, 1 / (kappa * jnp.where(hard, shift, 1)), jnp.inf)
        u, residual = _solved(eq, contour.nodes, approach_along_rays(eq, contour.nodes) if careful else start)
        kernel = kernel_of(eq, contour, u, residual, optimal, kappa, latest)
        error = jnp.where(kernel.residual < RESIDUAL, kernel.error(jnp.append(jnp.asarray(PROBES) / (kappa * bound), latest)), jnp.inf)
        end = jnp.where(jnp.max(residual) < RESIDUAL, u, jnp.nan)
        return end, (RealForms.of(kernel), jnp.where(jnp.isfinite(error), error, jnp.inf))

    return _one_by_one(one, _nowhere(cells, setting, size // 2), (cells, narrowed), count)


@partial(jax.jit, static_argnames=("q",))
def times(curves: RealForms, count: jax.Array, q: float) -> ClassTimes:
    """Times (C, K) of the first cells."""
    return _one_by_one(lambda none, each: (none, times_of_forms(each, q)), jnp.zeros(()), curves, count)


def _one_by_one(one: Callable[[jax.Array, X], tuple[jax.Array, Y]], start: jax.Array, cells: X, count: jax.Array) -> Y:
    """Results of the first cells, each given what the one before hands on; zeros for the others."""
    _, shapes = jax.eval_shape(one, start, jax.tree.map(lambda leaf: leaf[0], cells))
    size = jax.tree.leaves(cells)[0].shape[0]
    empty = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), shapes)

    def step(i: jax.Array, state: tuple[jax.Array, Y]) -> tuple[jax.Array, Y]:
        handed, found = one(state[0], jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], cells))
        return handed, jax.tree.map(lambda whole, part: whole.at[i].set(part), state[1], found)

    return jax.lax.fori_loop(0, count, step, (start, empty))[1]


def _nowhere(cells: Cells, setting: Setting, points: int) -> jax.Array:
    """No start yet, in place of the unknowns of a neighbour."""
    k = cells.roots.shape[1]
    return jnp.full((points, setting.kinds.weights.size * k + k * (k + 1) // 2), jnp.nan, complex)


def _solved(eq: Equivalent, z: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Unknowns and residuals at Z points from a neighbour's unknowns, or where these are NaN from the free resolvent."""
    solution = resolvent.solve(eq, z, jnp.where(jnp.isfinite(start), start, free_start(eq, z)), SOLVED, implicit.ITERATIONS)
    return resolvent.pack(solution.point.delta, solution.point.H), solution.residual
