"""Class-wise times read from the class-resolved spectrum: the second reading of `equations`, section 7.

U has d modes that see the data's d directions and, because n is finite, modes of single samples. Where the support falls apart
between them, the part above the gap holds a share 1/ψ_p of all p modes, exactly: masses of separate bulks are quantised, and this is how
the gap is told from others (several class variances split the upper part further, noise draws the lower). Above it lies the
generalisation bulk, below it, without atoms, the memorisation bulk, of order ψ_p/ψ_n v² above the floor. A mode λ relaxes in
1/(κλ) = ψ_p/(2Δλ); class c's typical time in a bulk is the geometric mean of that, weighted by the class-resolved density ρ_c.
"""

import numpy as np

from rfdiff.curves import Spectrum
from rfdiff.problem import Problem
from rfdiff.theory.density import FLOOR, spectrum
from rfdiff.theory_results import BulkTimes

MASS_TOLERANCE = 0.01


def bulk_times(problem: Problem, found: Spectrum | None = None) -> BulkTimes:
    """Class-wise generalisation and memorisation times from the bulks of the class-resolved spectrum.

    Args:
        problem: the problem, K classes.
        found: its `spectrum`, if it is there already.

    Returns:
        `BulkTimes`; all NaN and `separated` False if no gap of the support leaves the share 1/ψ_p of the modes above it (to 1 %):
        then the two kinds of modes overlap and this reading does not exist.

    Raises:
        InputError: an activation that is constant on the data.

    Reference: `equations`, section 7; Bonnaire et al. 2025 (2505.17638) take the lower edge, 2/(κ λ_min), for τ_mem;
    tests/theory/test_bulks.py.
    """
    found = spectrum(problem) if found is None else found
    weights = grid_weights(found)
    masses = np.array([np.nansum((weights * found.density)[found.bulk == b]) for b in range(len(found.support))])
    above = np.cumsum(masses[::-1])[::-1]  # mass in a bulk and all those above it
    wanted = min(1.0, 1 / float(problem.psi_p))
    k = found.class_density.shape[1]
    cut = int(np.argmin(abs(above[1:] - wanted))) + 1 if len(masses) > 1 else 0
    if cut == 0 or abs(above[cut] - wanted) > MASS_TOLERANCE * wanted:
        pair, none = np.full((2, 2), np.nan), np.full(k, np.nan)
        return BulkTimes(none, none, pair[0], pair[0], np.full((2, k), np.nan), pair, pair[0], False)
    kappa = float(problem.kappa)
    parts = [found.bulk >= cut, found.bulk < cut]
    log_times = -np.log(kappa * found.eigenvalues)
    shares, typical = [], []
    for part in parts:
        own = np.nan_to_num(weights[:, None] * found.class_density)[part]
        shares.append(own.sum(0) / own.sum())
        typical.append(np.exp(log_times[part] @ own / own.sum(0)))
    edges = np.array([[found.support[cut, 0], found.support[-1, 1]], [found.support[0, 0], found.support[cut - 1, 1]]])
    with np.errstate(divide="ignore"):
        slowest, fastest = 1 / (kappa * edges[:, 0]), 1 / (kappa * edges[:, 1])
    gap = np.array([found.support[cut - 1, 1], found.support[cut, 0]])
    return BulkTimes(typical[0], typical[1], fastest, slowest, np.stack(shares), edges, gap, True)


def grid_weights(found: Spectrum) -> np.ndarray:
    """Weights (G,) with which sums over the grid of a spectrum are integrals over λ: the midpoint rule in each bulk's angle."""
    logs = np.log(np.maximum(found.support, FLOOR * found.support[-1, 1]))
    each = found.eigenvalues.size // len(found.support)
    sines = np.tile(np.sin(np.pi * (np.arange(each) + 0.5) / each), len(found.support))
    return found.eigenvalues * sines * np.repeat(logs[:, 1] - logs[:, 0], each) * np.pi / (2 * each)
