"""Density of the spectrum of U on a grid that resolves every bulk, with edges that do not depend on how neuron types are drawn.

The support comes from `support`, the solutions on it from `real_axis` (docs/theory/spectrum.md, eq-density).
"""

import numpy as np

from rfdiff.curves import Spectrum
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.neuron_types import gram_root, is_odd, levels, type_grid
from rfdiff.theory.noncommuting.coupled_law import CoupledLaw, apart, coupled_law
from rfdiff.theory.real_axis import polish, retry
from rfdiff.theory.solutions import Solved
from rfdiff.theory.support import FLOOR, INSIDE, POINTS, atoms, support
from rfdiff.theory.training_times import LEAST
from rfdiff.value_types import as_integer

CHEBYSHEV = 48  # points at which a bulk is solved before its grid
SPECTRUM_RADIUS = 4.5  # standard deviations of h: fewer neurons than `EDGE_SHARE` are beyond, but they stretch the support by decades
FEW_TYPES = 128  # half of what the curves begin with: thousands of points are solved, whose cost is that of the types
EDGE_SHARE = 1e-3  # of the modes of a bulk, left outside each of its edges where neuron types spread
REFINED_LEVELS = 3  # finer neuron types than these change an edge by less than a hundredth
COUPLED_REFINEMENT = 2  # the same where every point costs a matrix
MOST_LEFT_OUT = 0.01  # of a loss, by the couplings that a spectrum leaves out
EQUATIONS = 64  # of coupled directions: thousands of points are solved
COUPLING = 1e-2  # of covariances that do not commute, relative, that may be left out where that is affordable
REFINEMENT = 8  # times more scan points when the first spectrum lacks mass
RAGGED_SCAN = 2  # the same when it only shows single neuron types: it has the bulks, and its edges are read once more


def density(eq: Equivalent, intervals: np.ndarray, num: int, scanned: np.ndarray, scan: Solved) -> tuple[np.ndarray, np.ndarray, Solved]:
    """Grid λ (G,), bulk index (G,) and solutions on it: G ≈ num points shared by the bulks, denser towards their edges.

    In the angle θ of λ = exp(mid + half cos θ) the solution is analytic across a square-root edge, with an even real part and an odd
    imaginary part, so a bulk is solved at Chebyshev points and the grid starts from their interpolant.
    """
    lam, bulk, theta = _grid(intervals, num)
    nodes = (np.arange(CHEBYSHEV) + 0.5) * np.pi / CHEBYSHEV
    mid, half = _logs(intervals)
    at = np.exp(mid + half * np.cos(nodes)).ravel()
    coarse = retry(eq, at, polish(eq, at, _between(np.log(at), np.log(scanned), scan.u)))
    orders = np.arange(CHEBYSHEV)
    fit = np.cos(np.outer(orders, nodes)) * (2 - (orders == 0))[:, None] / CHEBYSHEV
    basis = np.cos(np.outer(theta, orders)) @ fit
    known = coarse.u.reshape(len(intervals), CHEBYSHEV, -1)
    real = np.einsum("gc,bcn->bgn", basis, known.real)
    imaginary = np.einsum("gc,bcn->bgn", basis, known.imag / np.sin(nodes)[:, None]) * np.sin(theta)[:, None]
    u = real + 1j * np.maximum(imaginary, 0)
    return lam, bulk, retry(eq, lam, polish(eq, lam, u.reshape(lam.size, -1), limit=7))


def _logs(intervals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half-length (B, 1) of the bulks in log λ."""
    logs = np.log(np.maximum(intervals, FLOOR * intervals[-1, 1]))
    return logs.mean(1)[:, None], (logs[:, 1] - logs[:, 0])[:, None] / 2


def _grid(intervals: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid λ (G,), bulk index (G,), and the angles (G/B,) of the points of each bulk."""
    each = max(num // len(intervals), 16)
    theta = np.pi * (1 - (np.arange(each) + 0.5) / each)
    mid, half = _logs(intervals)
    return np.exp(mid + half * np.cos(theta)).ravel(), np.repeat(np.arange(len(intervals)), each), theta


def grid_weights(intervals: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
    """Weights (G,) with which sums over the grid of a spectrum are integrals over λ: the midpoint rule in each bulk's angle.

    There dlog λ = half sin θ dθ is smooth across square-root edges.
    """
    each = eigenvalues.size // len(intervals)
    sines = np.sin(np.pi * (np.arange(each) + 0.5) / each)
    return eigenvalues * (_logs(intervals)[1] * sines * np.pi / each).ravel()


def _trimmed(eq: Equivalent, intervals: np.ndarray, scanned: np.ndarray, scan: Solved) -> tuple[np.ndarray, np.ndarray, Solved]:
    """The bulks less `EDGE_SHARE` of their modes at each edge, with the grid and solutions from which the edges were read.

    Neuron types are unbounded, so a bulk has tails that carry next to nothing. In a computation they are bands of single types, and where
    these lie and end is an artefact; the quantiles of the bulk are not.
    """
    level = scanned * np.nan_to_num(scan.density)
    outer = []
    for low, high in intervals:
        cumulated = np.cumsum(np.where((scanned >= low) & (scanned <= high), level * np.gradient(np.log(scanned)), 0))
        seen = np.searchsorted(cumulated, np.array([0.1 * EDGE_SHARE, 1 - 0.1 * EDGE_SHARE]) * cumulated[-1])
        outer.append([max(low, scanned[max(seen[0] - 1, 0)]), min(high, scanned[min(seen[1] + 1, scanned.size - 1)])])
    intervals = np.array(outer)
    lam, bulk, axis = density(eq, intervals, POINTS * len(intervals), scanned, scan)
    modes = grid_weights(intervals, lam) * np.nan_to_num(axis.density)
    edges = []
    for b in range(len(intervals)):
        here = bulk == b
        quantile = (np.cumsum(modes[here]) - modes[here] / 2) / modes[here].sum()
        edges.append(np.exp(np.interp([EDGE_SHARE, 1 - EDGE_SHARE], quantile, np.log(lam[here]))))
    return np.array(edges), lam, axis


def _between(x: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation of (N, U) values at known (N,) points."""
    right = np.clip(np.searchsorted(known, x), 1, known.size - 1)
    share = ((x - known[right - 1]) / (known[right] - known[right - 1]))[:, None]
    return (1 - share) * values[right - 1] + share * values[right]


def coupled_directions(problem: Problem) -> CoupledLaw | None:
    """The directions in which a spectrum keeps the covariances as they are; None where these commute.

    Raises:
        InputError: the couplings of the others count for more than `MOST_LEFT_OUT`.
    """
    coupled = coupled_law(problem, COUPLING, EQUATIONS)
    if coupled is not None and coupled.neglected > MOST_LEFT_OUT:
        kept, dimension = coupled.core.shape[-1], round(1 / coupled.weight)
        raise InputError(
            f"mixture: covariances that do not commute in {dimension} directions, of which a spectrum couples {kept}; the others are "
            f"worth about {coupled.neglected:.2g} of a loss; allowed: at most {MOST_LEFT_OUT:g}, for example {kept} principal components"
        )
    return coupled


def spectrum(problem: Problem, *, num_points: int = 1000) -> Spectrum:
    """Limiting spectrum of U: support, density and class-resolved density on a grid that resolves each bulk, atoms.

    ρ(λ) = Im g(λ + i0)/π and ρ_c(λ) = Im κ_c(λ + i0)/(π λ). Edges of centred classes are sharp. With centroids neurons differ without
    bound, and no edge is: those given leave out 10⁻³ of the modes of their bulk on either side. Scan and neuron types are refined until
    the missing mass is below 1e-3 and no gap between single neuron types shows, or the largest number of types is reached.

    Covariances that do not commute keep their matrices in the r directions of largest variance, (K - 1) r ≤ 64, and their diagonals
    elsewhere. Up to that dimension this is exact; above it the couplings left out must be worth less than 1 % of a loss.

    Args:
        problem: the problem, K classes.
        num_points: number of grid points, shared evenly by the bulks.

    Returns:
        `Spectrum`; `missing_mass` says how far the whole is from 1.

    Raises:
        InputError: num_points below 32, an activation that is constant on the data, or covariances that do not commute in too many
            directions.

    Reference: docs/theory/spectrum.md, eq-density and eq-class-density; tests/theory/test_density.py.
    """
    require_concrete(problem, "theory.spectrum")
    num_points = as_integer("num_points", num_points, 32)
    coupled, problem = coupled_directions(problem), apart(problem)
    with double_on_host():
        finer_scan = (REFINEMENT if coupled is None else COUPLED_REFINEMENT) * POINTS
        best, ragged = _assemble(_equivalent(problem, 2, coupled), num_points, POINTS)
        finer_levels = levels(problem, 2, SPECTRUM_RADIUS)[: REFINED_LEVELS if coupled is None else 1]
        for level in finer_levels:
            lacks_mass = best.missing_mass >= 1e-3
            if not (lacks_mass or ragged):
                break
            if not lacks_mass and level == finer_levels[0] and len(finer_levels) > 1:
                continue  # what shows single types has the bulks: more of them are needed, not more points
            # either a bulk narrower than the scan was missed, or the neuron types are too coarse: finer in both, where mass is missing
            points = finer_scan if lacks_mass else min(finer_scan, RAGGED_SCAN * POINTS)
            finer, shows_types = _assemble(_equivalent(problem, level, coupled), num_points, points)
            if finer.missing_mass < max(best.missing_mass, 1e-3):
                best, ragged = finer, shows_types
    return best


def _equivalent(problem: Problem, level: int, coupled: CoupledLaw | None) -> Equivalent:
    """The equivalent at a level of neuron types; few of them, as two classes need at first, are filled up to `FEW_TYPES` alone."""
    root = gram_root(problem.mixture.centroid_gram)
    size = type_grid(root, level, SPECTRUM_RADIUS, is_odd(problem.activation), 1).weights.size
    return equivalent(problem, level, SPECTRUM_RADIUS, FEW_TYPES if size <= FEW_TYPES else LEAST, coupled=coupled)


def _assemble(eq: Equivalent, num: int, points: int) -> tuple[Spectrum, bool]:
    """The spectrum of an equivalent, and whether its density vanishes between single neuron types."""
    places, weights = atoms(eq)
    intervals, scanned, scan = support(eq, (places, weights), points)
    if not len(intervals):
        empty = np.zeros((0, eq.linear.shape[1]))
        missing = float(abs(1 - weights.sum()))
        return Spectrum(intervals, empty[:, 0], empty[:, 0], empty, np.zeros(0, int), places, weights, missing), False
    spread = eq.type_weights.size > 1
    if spread:
        intervals, scanned, scan = _trimmed(eq, intervals, scanned, scan)
        lam, bulk, _ = _grid(intervals, num)
        axis = retry(eq, lam, polish(eq, lam, _between(np.log(lam), np.log(scanned), scan.u)))
    else:
        lam, bulk, axis = density(eq, intervals, num, scanned, scan)
    bad = axis.residual > 1e-6
    values = np.where(bad, np.nan, axis.density)
    classes = np.where(bad[:, None], np.nan, axis.class_density) / lam[:, None]
    mass = np.nansum(grid_weights(intervals, lam) * values) / (1 - 2 * EDGE_SHARE * spread)
    ragged = spread and bool(np.any(lam * values < INSIDE))
    return Spectrum(intervals, lam, values, classes, bulk, places, weights, float(abs(1 - mass - weights.sum()))), ragged
