"""Stieltjes transform of the spectrum of U at given points (docs/theory/spectrum.md, eq-density)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.theory import real_axis, resolvent, solutions
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import POINTS_INSTEAD, checked_tolerance, require_concrete
from rfdiff.theory.neuron_types import FAR, LevelErrors, levels
from rfdiff.theory.noncommuting import dense
from rfdiff.theory_results import Stieltjes

OFFSET = 1e-11  # distance from the real axis, relative to |z|, at which z = λ + i0 is evaluated
LARGEST_ERROR = 1e-2  # of 1 + |g|: beyond it the neuron types are too few close to the spectrum, and a value is none
SOLVED = 1e-8  # residual of the fixed point below which a value counts
STAGE = 0.1  # of the distance from the axis, from one stage to the next


def stieltjes(problem: Problem, z: ArrayLike, *, tolerance: float = 1e-8) -> Stieltjes:
    """Stieltjes transform g(z) = (1/p) tr (U - z)^{-1} and its class-resolved parts.

    Args:
        problem: the problem, K classes.
        z: (Z,) complex points other than 0. A real point means z + i0: inside the support Im g/π is the density.
        tolerance: neuron types are refined until g changes by less than this times 1 + |g| (only centroids need it).

    Returns:
        `Stieltjes`.

    Raises:
        InputError: points that are 0 or not finite, or not a list of numbers; a tolerance out of range.

    Reference: docs/theory/spectrum.md, eq-density and eq-class-density; tests/theory/test_transform.py.
    """
    require_concrete(problem, "theory.stieltjes", POINTS_INSTEAD)
    tolerance = checked_tolerance(tolerance)
    try:
        points = np.atleast_1d(np.asarray(z, np.complex128))
    except (TypeError, ValueError) as err:
        raise InputError(f"z: {z!r}; allowed: a list of complex numbers") from err
    if points.ndim != 1 or not points.size or not np.all(np.isfinite(points)) or np.any(points == 0):
        raise InputError(f"z: {z!r}; allowed: a non-empty list of finite complex numbers other than 0")
    with double_on_host():
        near = dense.surrogate(problem)
        errors, relative, unknowns = LevelErrors(near, FAR, _relative_change), np.full(points.size, np.inf), None
        for level in levels(near, 3, FAR):
            eq = equivalent(near, level, FAR)
            values, unknowns = _at(eq, points, unknowns)
            before, relative = relative, np.broadcast_to(errors.of(values.g), points.shape)
            hopeless = (relative > LARGEST_ERROR) & (relative > 0.5 * before)  # finer types cost more and would not help
            if not np.any((relative > tolerance) & ~hopeless):
                break
        error = np.where(np.isinf(relative), np.nan, relative) * (1 + abs(values.g))
        if near is not problem:
            ready = dense.prepare(problem, eq, tolerance)
            values = _with_matrices(ready, points)
            error = error + ready.neglected
    solved = values.residual < SOLVED
    converged = solved & ~(error > LARGEST_ERROR * (1 + abs(values.g)))
    value, classes = np.where(converged, values.g, np.nan), np.where(converged[:, None], values.kappa, np.nan)
    return Stieltjes(value, classes, values.residual, converged, np.where(solved, error, np.nan))


class _Values(NamedTuple):
    """g and κ_c at Z points, and the relative residual of the fixed point there."""

    g: Complex[np.ndarray, " Z"]
    kappa: Complex[np.ndarray, "Z K"]
    residual: Float[np.ndarray, " Z"]


def _relative_change(g: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Change of g relative to 1 + |g|, at each point."""
    return np.asarray(abs(g - before) / (1 + abs(g)))


def _at(eq: Equivalent, points: np.ndarray, start: np.ndarray | None = None) -> tuple[_Values, np.ndarray]:
    """Values and unknowns at each point, by conjugation from the upper half-plane; the positive axis is approached from above.

    `start` holds the unknowns of a coarser level of neuron types, close enough to save the way to all points but a few.
    """
    upper, lifted = _lifted(points)
    solved = None if start is None else solutions.near(eq, lifted, start, 1e-12, 40)
    if solved is None or np.any(solved.residual > SOLVED):
        on_axis = (upper.imag <= OFFSET * abs(upper)) & (upper.real > 0)
        start = real_axis.approach(eq, np.where(on_axis, upper.real, abs(upper))).u
        free = solutions.free(eq, np.where(on_axis, 2j * abs(upper), lifted))
        anew = solutions.near(eq, lifted, np.where(on_axis[:, None], start, free.u), 1e-12, 100)
        solved = anew if solved is None else solutions.better(solved, anew)
    g, kappa = solved.g.copy(), solved.kappa.copy()
    lower = points.imag < 0
    g[lower], kappa[lower] = g[lower].conj(), kappa[lower].conj()
    return _Values(g, kappa, solved.residual), solved.u


def _lifted(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points mirrored into the upper half-plane, and those lifted off the axis."""
    upper = np.where(points.imag < 0, points.conj(), points)
    return upper, np.where(upper.imag <= OFFSET * abs(upper), upper.real + 1j * OFFSET * abs(upper), upper)


def _with_matrices(ready: dense.Dense, points: np.ndarray) -> _Values:
    """`_at` where the covariances do not commute: from far above each point down to it, every stage from the one before."""
    _, lifted = _lifted(points)
    g, kappa = np.zeros(points.size, complex), np.zeros((points.size, ready.system.shape[1]), complex)
    residual = np.zeros(points.size)
    for i, z in enumerate(lifted):  # one at a time: each keeps a matrix
        start, distance = None, abs(z)
        while True:
            stage = z.real + 1j * max(distance, z.imag)
            solved = dense.solve(ready, np.array([stage]), start, dense.Work(None))
            start = solved.point.delta, solved.point.H
            if stage == z:
                break
            distance *= STAGE
        values = resolvent.stieltjes_of(ready.system.eq, solved.point)
        g[i], kappa[i], residual[i] = np.asarray(values[0])[0], np.asarray(values[1])[0], solved.residual[0]
    lower = points.imag < 0
    g[lower], kappa[lower] = g[lower].conj(), kappa[lower].conj()
    return _Values(g, kappa, residual)
