"""Training times: which of them a contour reaches, which have a limit, and a grid that spans training."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, PyTree
from scipy.special import chdtrc, chdtri

from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, HeavyBall, Ridge, Rule, check_stability, require_rule
from rfdiff.theory.contour import Span
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.neuron_types import FAR, FEW, by_lattice, gram_root
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.support import FEW_CLASSES, FLOOR, atoms, extent, extents, support
from rfdiff.value_types import as_integer

LEAST = 256  # neuron types: enough for the first two levels of two classes, which then share one program
TAIL_SHARE = 1 / 2000  # of the tolerance: share of the neurons beyond the radius
TAIL_EFFECT = 5.0  # a loss feels up to so many times that share, times the loss where that is above 1, as near interpolation


def types_radius(problem: Problem, tolerance: float) -> tuple[float, float]:
    """Standard deviations of h that the neuron types cover, and the share of the neurons beyond, for a tolerance; 0 without centroids."""
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    tail = tolerance * TAIL_SHARE if rank else 0.0
    return (math.sqrt(float(chdtri(rank, tail))), tail) if rank else (0.0, 0.0)


def covered_by_far(problem: Problem, radius: float, tolerance: float) -> bool:
    """Whether a contour around the neurons to `FAR` standard deviations, whose extents are kept, will do for those to a larger radius.

    So few are beyond that losses miss less than an eighth of the tolerance without them, and what they miss is measured.
    """
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    return bool(radius >= FAR and TAIL_EFFECT * float(chdtrc(rank, FAR**2)) <= tolerance / 8)


def limit_diverges(problem: Problem, *, rule: Rule = GradientFlow()) -> bool:
    """Whether test losses grow without bound as τ → ∞: at p = n m, where the spectrum of U reaches down to 0, without weight decay.

    n counts the samples of classes whose weight in the loss is not 0.

    Raises:
        InputError: no training rule.
    """
    require_rule(rule)
    if rule.decay > 0:
        return False
    columns = problem.columns_per_dimension
    return math.isfinite(columns) and (1 - math.sqrt(float(problem.psi_p) / columns)) ** 2 < FLOOR


class Times(NamedTuple):
    """Training times asked for, and those at which the losses are computed: a contour left of 0 reaches finite times only.

    At p = n m losses beyond its reach are unknown. Elsewhere the spectrum near 0 carries little, and the losses at the end of the reach
    stand for all that follow; what they change over the last decade is the error.
    """

    asked: np.ndarray
    position: np.ndarray  # of each training time in `asked`
    beyond: np.ndarray  # which lie outside the reach
    diverges: bool

    @classmethod
    def within_reach(cls, taus: np.ndarray, span: Span, rule: Rule, kappa: float, diverges: bool, tolerance: float) -> "Times":
        """The times to compute for training times `taus`.

        Raises:
            InputError: none of them is within reach where the limit diverges.
        """
        if isinstance(rule, Ridge):
            return cls(taus, np.arange(taus.size), np.zeros(taus.size, bool), diverges)
        reach = np.inf if span.low > 0 or rule.decay > FLOOR * span.high else 1 / (kappa * FLOOR * span.high)
        effective = np.where(_settled(taus, rule, kappa, span, tolerance), np.inf, taus)
        beyond = (effective > reach) | (diverges & np.isinf(effective))
        if diverges and beyond.all():
            raise InputError("taus: only inf, where the test loss diverges (p = n m); allowed: finite training times")
        last = [] if not beyond.any() else [effective[~beyond][-1]] if diverges else [reach / 10, reach]
        asked = np.unique(np.concatenate([effective[~beyond], last]))
        return cls(asked, np.searchsorted(asked, np.where(beyond, asked[-1], effective)), beyond, diverges)

    def clock(self, rule: Rule, clock: PyTree, kappa: float) -> PyTree:
        """The rule's clock at these times, given that of all training times."""
        return clock if isinstance(rule, Ridge) else rule.schedule(self.asked, kappa)[1]

    def read(self, losses: np.ndarray, error: float, tolerance: float) -> tuple[np.ndarray, float]:
        """Losses (2, T, K) at the training times, with NaN where they are unknown, and their error."""
        values = losses[:, self.position]
        if not self.beyond.any():
            return values, error
        change = np.inf if self.diverges else float(np.max(abs(losses[:, -1] - losses[:, -2])))
        if change > max(error, tolerance):
            return np.where(self.beyond[:, None], np.nan, values), error
        return values, error + change


def _settled(taus: np.ndarray, rule: Rule, kappa: float, span: Span, tolerance: float) -> np.ndarray:
    """Training times (T,) at which every mode of a discrete rule has converged: its filter is 1/(λ + ρ), not smooth off the axis."""
    if not isinstance(rule, HeavyBall) or span.low <= 0:
        return np.zeros(taus.size, bool)
    slowest = float(np.max(rule.growth(np.geomspace(span.low, span.high, 256), kappa)))
    steps = np.clip(taus / rule.step_size, 1, 1e300)
    return (slowest < 1) & (np.log(steps) + steps * math.log(min(slowest, 1.0)) < math.log(1e-3 * tolerance))


def coarse_level(problem: Problem) -> int:
    """Level of neuron types that tells a spectrum's ends."""
    return 1 if problem.num_classes <= FEW_CLASSES else 0


@lru_cache(maxsize=2)
def problem_extents(problem: Problem) -> tuple[tuple[float, float], tuple[float, float]]:
    """`support.extents` of a problem's neurons to `FAR` standard deviations (inside `double_on_host`).

    Kept, since a grid of training times, times that cover every mode and a contour all begin with them; a problem never changes.
    """
    near = dense.surrogate(problem)
    # around matrices a contour is widened anyway, so that fewer of the points of a Sobol set will do
    level = FEW if near is not problem and not by_lattice(near, FAR) else coarse_level(problem)
    return extents(equivalent(near, level, FAR, LEAST))


def spectrum_span(eq: Equivalent, rule: Rule, kappa: float, ends: tuple[float, float] | None = None) -> Span:
    """What a contour must go around; for a discrete rule, after checking that its step is stable.

    Args:
        eq: the Gaussian equivalent.
        rule: training rule, with rate kappa.
        kappa: κ.
        ends: its `support.extent` where that is known.

    Raises:
        InputError: a step size at which the rule diverges, or an activation that is constant on the data.
    """
    low, high = extent(eq) if ends is None else ends
    if np.isfinite(rule.largest_stable_eigenvalue(kappa)):
        bulks = support(eq, atoms(eq))[0]
        high = float(bulks[-1, 1]) if len(bulks) else high
        check_stability(rule, kappa, high)
    return Span(low, high)


def time_grid(problem: Problem, *, num_times: int = 80) -> Float[np.ndarray, " T"]:
    """Training times (num_times + 1,), log-spaced from before the first mode learns to after the last one has, then inf.

    From 0.05/(κ λ_max) to 30/(κ λ_min), at most 9 decades; inf is left out where the limit diverges (p = n m).

    Args:
        problem: the problem.
        num_times: number of finite times.

    Raises:
        InputError: num_times below 3.
    """
    require_concrete(problem, "theory.time_grid")
    num_times = as_integer("num_times", num_times, 3)
    with double_on_host():
        low, high = problem_extents(problem)[1]
    kappa = float(problem.kappa)
    grid = np.geomspace(0.05 / (kappa * high), 30 / (kappa * max(low, 6e-7 * high)), num_times)
    return grid if limit_diverges(problem) else np.append(grid, np.inf)
