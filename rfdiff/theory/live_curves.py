"""Curves of a problem whose numbers keep changing: one compiled program for all problems of one shape, good to about 1e-3 of a loss.

`theory.plan_curves` chooses neuron types, quadrature rules and a contour for one problem, and their sizes are part of the compiled program.
Here the sizes are fixed beforehand and wide enough for a whole range of problems, while what they stand for follows the numbers: the step
of the quadrature rules shrinks with the widest class, and the contour goes around norm bounds of U, which need no search. So moving a
number never compiles anything, and the error estimate says where the fixed sizes are too small (docs/theory/curves.md).
"""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw, optimal_loss
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, Rule, require_filter
from rfdiff.theory import implicit
from rfdiff.theory.contour import ellipse
from rfdiff.theory.contour_forms import CurveKernel, first_traces, kernel_from, losses_and_error, second_traces
from rfdiff.theory.equivalent import ColumnKinds, Equivalent, build, column_kinds, with_ratios
from rfdiff.theory.neuron_coefficients import GaussRule, GaussRules, panel_rule
from rfdiff.theory.neuron_types import TypeGrid, gram_root, is_odd, lattice_grid
from rfdiff.theory.ready_programs import ReadyProgram
from rfdiff.theory.resolvent import RESIDUAL, free_start
from rfdiff.theory.support import outer_bounds

NODES = (48, 64, 96)  # of the whole contour; more where the spectrum spans more decades
MARGIN = 1.15  # factor by which the contour passes beyond the norm bounds, which are wide already
RANK = 2  # of the Gram matrix of the centroids, at most
STEP, REACH = 0.35, 4.2  # of the lattice of neuron types, in standard deviations of h
SMOOTH_NODES, SMOOTH_REACH = 49, 6.0  # of the averages over a neuron's input; the step, 1/4, resolves widths up to 3.4
NOISE_NODES = 25  # of those over its noise alone, whose width is below 1: the step, 1/2, leaves 3e-9 of tanh
KINKED_NODES = 32  # on each side of a kink: 12 leave a tenth of a loss of relu at small t, 24 leave 3e-6
TYPES_ERROR = 3e-4  # of a loss, by the lattice
AVERAGES_ERROR = 1e-5  # of a loss, by the averages over inputs
LONGEST = 2.0  # centroid norm over √d that the lattice resolves to 1e-3
WIDEST = 10.0  # variance that the averages resolve
HARD = 1e-9  # as in `maps`
MOST_SHAPES = 32  # whose neurons are kept


class Shape(NamedTuple):
    """What a compiled program belongs to; problems that differ in nothing else share it.

    Args:
        num_classes: K.
        groups: eigenvalue groups L of the mixture.
        activation: σ.
        kinds: column kinds, 2 for several noise draws, else 1.
        rank: of the Gram matrix of the centroids.
    """

    num_classes: int
    groups: int
    activation: Activation
    kinds: int
    rank: int


class LiveCurves(NamedTuple):
    """Losses (T, K) at T training times, losses L_c^* (K,) of the exact score, the error, the part of it that more nodes mend, and the
    solutions on the contour (Z, U).
    """

    train: Float[np.ndarray, "T K"]
    test: Float[np.ndarray, "T K"]
    optimal: Float[np.ndarray, " K"]
    error: float
    contour_error: float
    solutions: Complex[np.ndarray, "Z U"]


def shape_of(problem: Problem) -> Shape:
    """The shape of a problem.

    Raises:
        InputError: covariances that do not commute, or centroids that do not lie in a plane.
    """
    law = problem.mixture
    rank = gram_root(law.centroid_gram).shape[1]
    if not law.commuting or rank > RANK:
        what = f"centroids of rank {rank}" if law.commuting else "covariances that do not commute"
        raise InputError(f"mixture: {what}; allowed: joint eigenvalues and centroids in a plane, or theory.learning_curves")
    kinds = len(column_kinds(problem.noise_draws).weights)
    return Shape(law.num_classes, law.eigenvalues.shape[0], problem.activation, kinds, rank)


def live_curves(
    problem: Problem,
    taus: Float[np.ndarray, " T"],
    *,
    rule: Rule = GradientFlow(),
    size: int = 0,
    near: Complex[np.ndarray, "Z U"] | None = None,
) -> LiveCurves:
    """Curves of a problem by the program of its shape, compiled at the first problem of that shape and for that number of training times.

    Args:
        problem: the problem.
        taus: (T,) finite training times.
        rule: training rule with a filter.
        size: index in `NODES` of the contour's size, each with a program of its own.
        near: the `solutions` of a near problem, from which those of this one are found three times as fast. Others of another shape
            are not looked at, and those of a far problem mended by the same iteration.

    Returns:
        `LiveCurves`; an `error` above the tolerance asks for a larger size, or for `theory.learning_curves`. The part of the
        contour is estimated. The rest, of the fixed lattice and averages, is a fixed bound, measured for centroids below `LONGEST` and
        variances below `WIDEST`.

    Raises:
        InputError: another shape of problem than `shape_of` takes; SGD, which has no filter; malformed taus.

    Reference: docs/theory/curves.md; tests/theory/test_live_curves.py.
    """
    require_filter(rule)
    _, clock = rule.schedule(taus, float(problem.kappa))
    shape, law = shape_of(problem), problem.mixture
    kinds = column_kinds(problem.noise_draws)
    solutions = (NODES[size] // 2, kinds.weights.size * shape.num_classes + shape.num_classes * (shape.num_classes + 1) // 2)
    close = near is not None and np.shape(near) == solutions
    start = near if close else np.zeros(solutions, complex)
    with double_on_host():
        eq = _equivalent(problem, shape, kinds)
        optimal = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
        kernel, unknowns = _KERNEL(eq, optimal, float(problem.kappa), start, not close, size=NODES[size])
        found = _LOSSES(kernel, clock, rule)
        (losses, contour), missing, residual, unknowns = jax.device_get((found, kernel.missing, kernel.residual, unknowns))
    if close and not residual < RESIDUAL:
        return live_curves(problem, taus, rule=rule, size=size)
    solved = float(residual) < RESIDUAL and np.isfinite(losses).all()
    error = float(contour) + float(missing) if solved else math.inf
    averages = AVERAGES_ERROR + (TYPES_ERROR if shape.rank else 0.0)
    return LiveCurves(losses[0], losses[1], optimal, error + averages, error, unknowns)


def _equivalent(problem: Problem, shape: Shape, kinds: ColumnKinds) -> Equivalent:
    """The Gaussian equivalent; what neurons make of the classes as in the problem before, where spectra, centroids and t are the same."""
    law = problem.mixture
    made_of = (law.eigenvalues, law.eigenvalue_weights, law.centroid_gram, problem.t, STEP)
    same = tuple(np.asarray(x, np.float64).tobytes() for x in made_of)
    before = _LATEST.get(shape)
    if before is None or before[0] != same:
        eq = _BUILD(
            shape.activation, MixtureLaw(law.weights, law.eigenvalues, law.eigenvalue_weights, law.centroid_gram),
            np.asarray(problem.training_weights, np.float64), float(problem.t), float(problem.psi_p), float(problem.psi_n),
            kinds, gram_root(law.centroid_gram), _types(shape.rank, shape.activation, STEP), _rules(shape.activation),
        )  # fmt: skip
        if len(_LATEST) >= MOST_SHAPES:
            _LATEST.clear()
        _LATEST[shape] = same, eq
        return eq
    return with_ratios(before[1], problem, kinds)


_LATEST: dict[Shape, tuple[tuple[bytes, ...], Equivalent]] = {}  # of each shape the last spectra, centroids and t, and the equivalent


@lru_cache(maxsize=32)
def _types(rank: int, activation: Activation, step: float) -> TypeGrid:
    """The lattice of neuron types of every problem of a shape."""
    return lattice_grid(np.full(rank, step), REACH, is_odd(activation))


@lru_cache(maxsize=32)
def _rules(activation: Activation) -> GaussRules:
    """Rules of fixed size for the averages over inputs; those of smooth activations are finer the wider the input is."""
    if activation.kinks:
        nodes, weights = np.polynomial.legendre.leggauss(KINKED_NODES)
        kinked = GaussRule((nodes + 1) / 2, weights / 2)
        return GaussRules(kinked, kinked, panel_rule(activation.kinks))
    wide, narrow = (_trapezoid(nodes) for nodes in (SMOOTH_NODES, NOISE_NODES))
    return GaussRules(wide, narrow, wide)


def _trapezoid(count: int) -> GaussRule:
    nodes = np.linspace(-SMOOTH_REACH, SMOOTH_REACH, count)
    weights = np.exp(-(nodes**2) / 2)
    return GaussRule(nodes, weights / weights.sum())


@partial(jax.jit, static_argnames="size")
def _kernel(
    eq: Equivalent, optimal: jax.Array, kappa: jax.Array, near: jax.Array, free: jax.Array, size: int
) -> tuple[CurveKernel, jax.Array]:
    """The kernel on a contour of `size` nodes around the norm bounds of U, and the solutions there, from near ones or freely.

    It does not know the activation, so that all share it.
    """
    low, high = outer_bounds(eq)
    hard = low < HARD * high  # p = n m: finite times only
    shift = jnp.where(hard, HARD * high, 0)
    contour = ellipse(jnp.where(hard, -shift / 2, low / MARGIN), MARGIN * high, size, shift=shift)
    latest = jnp.where(hard, 1 / (kappa * jnp.where(hard, shift, 1)), jnp.inf)
    start = jnp.where(free, free_start(eq, contour.nodes), near)
    unknowns, residual = implicit.unknowns(eq, contour.nodes, start)
    point = implicit.expand(eq, contour.nodes, unknowns)
    kernel = kernel_from(eq, contour, first_traces(eq, point), residual, second_traces(eq, point), optimal, kappa, latest)
    return kernel, unknowns


_BUILD, _KERNEL, _LOSSES = ReadyProgram(build), ReadyProgram(_kernel), ReadyProgram(losses_and_error)
