"""Solutions of the fixed point just above the real axis, λ + i0 (docs/theory/spectrum.md, eq-density).

The axis is approached from above, λ(1 + iε) with ε falling to 1e-11, each solution starting the next. Every stage is solved to a small
part of its own distance from the axis: in a gap the imaginary parts are of that order, and their sign is what tells the physical solution.
"""

import numpy as np

from rfdiff.theory import solutions
from rfdiff.theory.approaches import ray
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.solutions import Solved

APPROACH = 10.0 ** -np.arange(12.0)
LOST = 1e-6  # residual above which an approach has not reached the axis, and its density means nothing
UNSOLVED = 1e-9  # residual above which a polished start has not converged


def descend(eq: Equivalent, real: np.ndarray, unit: np.ndarray) -> Solved:
    """Solutions at real + i 1e-11 unit, (Z,) points, from the free resolvent at real + i unit down to the axis; ρ + O(1e-11).

    Where that does not arrive, from the end of a ray to real + i unit. Coupled directions are first tried from the solutions without
    their coupling: in the upper half-plane only one solution is physical, so whatever arrives is it.
    """
    path, tolerances = real + 1j * APPROACH[:, None] * unit, np.maximum(1e-3 * APPROACH, 1e-12)
    if eq.coupled is not None:
        close = descend(solutions.decoupled(eq), real, unit)
        solved = solutions.near(eq, path[-1], close.u, 1e-11, 24)
        far = np.flatnonzero(~(solved.residual <= 1e-10))
        return solutions.replaced(solved, far, _down(eq, path[:, far], tolerances)) if far.size else solved
    return _down(eq, path, tolerances)


def _down(eq: Equivalent, path: np.ndarray, tolerances: np.ndarray) -> Solved:
    """Solutions at the ends of paths (12, Z), every stage from the one before."""
    solved = solutions.along(eq, path, None, tolerances, 60)
    lost = np.flatnonzero(~(solved.residual <= LOST))
    if not lost.size:
        return solved
    # deep in a gap between 0 and the support, where p is close to n m, the free resolvent is too far: begin at the end of a ray
    path = path[:, lost]
    start = solutions.along(eq, np.asarray(ray(path[0])), None, solutions.STAGE_TOLERANCE, solutions.STAGE_LIMIT).u
    return solutions.replaced(solved, lost, solutions.along(eq, path, start, tolerances, 60))


def approach(eq: Equivalent, lam: np.ndarray) -> Solved:
    """Solutions at λ + i0 for λ > 0."""
    return descend(eq, lam, lam)


def polish(eq: Equivalent, lam: np.ndarray, u: np.ndarray, tolerance: float = 1e-11, limit: int = 16) -> Solved:
    """Solutions at λ + i0 from close starts u."""
    return solutions.near(eq, lam * (1 + 1j * APPROACH[-1]), u, tolerance, limit)


def retry(eq: Equivalent, lam: np.ndarray, solved: Solved) -> Solved:
    """Where a polished start has not converged, solve again from the free resolvent."""
    failed = np.flatnonzero(solved.residual > UNSOLVED)
    if not failed.size:
        return solved
    return solutions.replaced(solved, failed, approach(eq, lam[failed]))
