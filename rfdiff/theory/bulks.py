"""Class-wise times read from the class-resolved spectrum: the second estimate of docs/theory/times.md.

U has d modes that see the data's d directions and, because n is finite, modes of single samples. Where the support falls apart
between them, the part above the gap holds a share 1/ψ_p of all p modes, exactly: masses of separate bulks are quantised, and this is how
the gap is distinguished from others (several class variances split the upper part further, noise draws the lower). Above it lies the
generalisation bulk, below it, without atoms, the memorisation bulk, of order ψ_p/ψ_n v² above the floor. A mode λ relaxes in
1/(κλ) = ψ_p/(2Δλ); class c's typical time in a bulk is the geometric mean of that, weighted by the class-resolved density ρ_c.
"""

import numpy as np

from rfdiff.curves import Spectrum
from rfdiff.problem import Problem
from rfdiff.theory import density
from rfdiff.theory.density import grid_weights
from rfdiff.theory_results import BulkTimes

MASS_TOLERANCE = 0.01


def bulk_times(problem: Problem, *, spectrum: Spectrum | None = None) -> BulkTimes:
    """Class-wise generalisation and memorisation times from the bulks of the class-resolved spectrum.

    Args:
        problem: the problem, K classes.
        spectrum: its `theory.spectrum`, if it is there already.

    Returns:
        `BulkTimes`; all NaN and `separated` False if no gap of the support leaves the share 1/ψ_p of the modes above it (to 1 %):
        then the two kinds of modes overlap and this reading does not exist.

    Raises:
        InputError: an activation that is constant on the data.

    Reference: docs/theory/times.md; Bonnaire et al. 2025 (2505.17638) take the lower edge, 2/(κ λ_min), for τ_mem;
    tests/theory/test_bulks.py.
    """
    spectrum = density.spectrum(problem) if spectrum is None else spectrum
    support, eigenvalues, bulk, k = spectrum.support, spectrum.eigenvalues, spectrum.bulk, spectrum.class_density.shape[1]
    cut = _memorisation_gap(spectrum, 1 / float(problem.psi_p))
    if cut is None:
        pair, none = np.full((2, 2), np.nan), np.full(k, np.nan)
        return BulkTimes(none, none, pair[0], pair[0], np.full((2, k), np.nan), pair, pair[0], False)
    kappa = float(problem.kappa)
    log_times = -np.log(kappa * eigenvalues)
    modes = np.nan_to_num(grid_weights(support, eigenvalues)[:, None] * spectrum.class_density)
    shares, typical = [], []
    for chosen in (bulk >= cut, bulk < cut):
        by_class = modes[chosen].sum(0)
        shares.append(by_class / by_class.sum())
        with np.errstate(invalid="ignore"):  # a class of weight 0 in the loss has no modes, and no time
            typical.append(np.exp(log_times[chosen] @ modes[chosen] / by_class))
    edges = np.array([[support[cut, 0], support[-1, 1]], [support[0, 0], support[cut - 1, 1]]])
    with np.errstate(divide="ignore"):
        slowest, fastest = 1 / (kappa * edges[:, 0]), 1 / (kappa * edges[:, 1])
    gap = np.array([support[cut - 1, 1], support[cut, 0]])
    return BulkTimes(typical[0], typical[1], fastest, slowest, np.stack(shares), edges, gap, True)


def _memorisation_gap(spectrum: Spectrum, share: float) -> int | None:
    """Index of the lowest bulk above the gap that leaves the given share of all modes above it; None without such a gap."""
    modes = grid_weights(spectrum.support, spectrum.eigenvalues) * spectrum.density
    masses = np.array([np.nansum(modes[spectrum.bulk == b]) for b in range(len(spectrum.support))])
    if len(masses) < 2:
        return None
    above = np.cumsum(masses[::-1])[::-1]  # mass in a bulk and all those above it
    wanted = min(1.0, share)
    cut = int(np.argmin(abs(above[1:] - wanted))) + 1
    return cut if abs(above[cut] - wanted) <= MASS_TOLERANCE * wanted else None
