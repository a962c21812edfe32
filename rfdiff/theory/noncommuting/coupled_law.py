"""A law whose covariances do not commute as r coupled directions and groups of others (docs/theory/spectrum.md, eq-blocks).

The r directions of largest variance in the mean of the class covariances keep their matrices; the others keep the diagonals, in groups.
What this leaves out is estimated (`CoupledLaw.neglected`). Everything else about the law, fractions, variances and centroids, is read from
the law itself, so that derivatives by them exist; a variance scales the matrix of its class.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.noncommuting.working_basis import best_core, grouped, rotated
from rfdiff.value_types import value_type

MOST_EQUATIONS = 128  # of the coupled directions, (K - 1) r, solved at every point
SIZES = (8, 16, 32, 64, 128)  # numbers of coupled directions: a ladder, so that problems share compiled programs
GROUPS = 32  # of the other directions


@value_type
class CoupledLaw:
    """Class covariances in a working basis (r coupled directions, L groups of others).

    Args:
        core: (K, r, r) Σ_c in the coupled directions, diagonal for class 0.
        eigenvalues: (L, K) variances of the groups.
        shares: (L,) shares of the d directions that they have.
        weight: 1/d, the share of a coupled direction.
        variances: (K,) tr Σ_c / d of the law it was made for.
        neglected: estimate of the error of a loss from couplings that are left out.
    """

    core: Float[np.ndarray, "K r r"]
    eigenvalues: Float[np.ndarray, "L K"]
    shares: Float[np.ndarray, " L"]
    weight: float
    variances: Float[np.ndarray, " K"]
    neglected: float


class _Made(NamedTuple):
    covariances: np.ndarray
    noise_variance: float
    tolerance: float
    most: int
    law: CoupledLaw


_last: list[_Made] = []  # the one made last: plans of near problems share it


def coupled_law(problem: Problem, tolerance: float, most: int = MOST_EQUATIONS) -> CoupledLaw | None:
    """The coupled law of a problem; None where the covariances commute.

    Args:
        problem: the problem, with numbers that are known.
        tolerance: error of a loss that the couplings left out may cause; where this takes more than `most` equations they cause more.
        most: largest number (K - 1) r of equations.
    """
    law = problem.mixture
    if law.commuting:
        return None
    covariances, delta = np.asarray(law.covariances), float(-np.expm1(-2 * float(problem.t)))
    for made in _last:
        if made.covariances is law.covariances and (made.noise_variance, made.tolerance, made.most) == (delta, tolerance, most):
            return made.law
    result = _made(covariances, np.asarray(law.variances), delta, tolerance, most)
    if isinstance(law.covariances, np.ndarray):
        _last[:] = [_Made(law.covariances, delta, tolerance, most, result)]
    return result


def _made(covariances: np.ndarray, variances: np.ndarray, delta: float, tolerance: float, equations: int) -> CoupledLaw:
    k, d = covariances.shape[:2]
    matrices, diagonal, left_out = rotated(covariances, 1 - delta, delta)
    most = max(equations // (k - 1), 1)
    sizes = [*(size for size in SIZES if size < min(most, d)), min(most, d)]
    r = next((size for size in sizes if left_out(size) <= tolerance), sizes[-1])
    core = best_core(matrices[:, :r, :r])
    eigenvalues, shares = grouped(diagonal[:, r:], d, GROUPS)
    return CoupledLaw(core, eigenvalues, shares, 1 / d, variances, left_out(r))


def apart(problem: Problem) -> Problem:
    """The problem without its matrices, each class with its own spectrum: all that is asked of a law beside its coupled one."""
    law = problem.mixture
    if law.commuting:
        return problem
    plain = MixtureLaw(law.weights, law.eigenvalues, law.eigenvalue_weights, law.centroid_gram, class_names=law.class_names)
    return problem.with_mixture(plain)
