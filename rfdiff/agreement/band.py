"""How far correlated noise strays: a threshold for the largest of many standardised deviations, at a chance of a false alarm.

The deviations of a class along training hardly differ from one training time to the next, so that a bound for independent ones
(Bonferroni's) asks for far too much. Along a curve T_1, …, T_N of Student's t with ν degrees of freedom, |T| exceeds c somewhere only if
it does so at the first time or crosses c on a later step. The noise of neighbours with correlation ρ turns by the angle arccos ρ, and the
great circle between them crosses c upwards with the chance of Worsley's t field (1994, Adv. Appl. Prob. 26, 13), so that

    P(max |T| > c) ≤ 2 P(t_ν > c) + 2 Σ_i min( arccos(ρ_i)/(2π) (1 + c²/ν)^{-(ν-1)/2}, P(t_ν > c) ).

The second term of the minimum is Bonferroni's: the threshold is never above his at the same ν. Several curves add up.

The level is measured on real networks (benchmarks/verdict.py) and on synthetic noise (tests/agreement/test_band.py).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

FALSE_ALARM = 0.01  # chance that a true theory is rejected, over all times, classes and curves together


class Path(NamedTuple):
    """Noise of one curve as the bound sees it (N training times).

    Args:
        freedom: degrees of freedom ν of its standard errors.
        angles: (N-1,) arccos of the correlation of each training time with the next.
    """

    freedom: float
    angles: Float[np.ndarray, " N-1"]


def covariance_of_means(left: Float[np.ndarray, "S ..."], right: Float[np.ndarray, "S ..."]) -> Float[np.ndarray, "..."]:
    """Covariance of the means over S seeds of two quantities, from their residuals (value of a seed - mean over the seeds)."""
    seeds = len(left)
    return np.sum(left * right, axis=0) / (seeds * (seeds - 1))


def path_of(parts: Sequence[Float[np.ndarray, "S N"]]) -> Path:
    """The path of a sum of independent means over seeds.

    ν is Welch's, (Σ v)²/Σ v²/(S-1), for the variances v of the parts in the ratio that they have on average along the curve: a ratio for
    each training time would be as noisy as the variances, and a large ν would go with a small standard error.

    Args:
        parts: residuals of each part, times the factor with which its mean enters the sum; at the same N ≥ 1 training times.
    """
    variances = np.stack([covariance_of_means(part, part) for part in parts])
    total = np.sum(variances, axis=0)
    known = np.all(variances > 0, axis=0)
    freedoms = np.array([len(part) - 1 for part in parts], float)
    freedom = float(freedoms.min())
    if known.any():
        shares = np.exp(np.mean(np.log(variances[:, known] / total[known]), axis=1))
        freedom = float(np.sum(shares) ** 2 / np.sum(shares**2 / freedoms))
    covariance = np.sum([covariance_of_means(part[:, :-1], part[:, 1:]) for part in parts], axis=0)
    norm = np.sqrt(total[:-1] * total[1:])
    correlation = np.divide(covariance, norm, out=np.zeros_like(norm), where=norm > 0)
    return Path(freedom, np.arccos(np.clip(correlation, -1, 1)))


def false_alarm_bound(threshold: float, paths: Sequence[Path]) -> float:
    """Upper bound on the chance that noise exceeds a threshold anywhere along any of the paths."""
    total = 0.0
    for freedom, angles in paths:
        alone = float(stdtr(freedom, -threshold))
        crossing = math.exp(-(freedom - 1) / 2 * math.log1p(threshold**2 / freedom)) / (2 * math.pi)
        total += 2 * (alone + float(np.sum(np.minimum(angles * crossing, alone))))
    return total


def simultaneous_threshold(paths: Sequence[Path], level: float = FALSE_ALARM) -> float:
    """Smallest c at which `false_alarm_bound` is no more than the level; 0 without paths.

    Args:
        paths: of the curves that are judged together.
        level: chance of a false alarm, in (0, 1).
    """
    if not paths:
        return 0.0
    entries, freedom = sum(len(path.angles) + 1 for path in paths), min(path.freedom for path in paths)
    bonferroni = -float(stdtrit(freedom, level / (2 * entries)))
    alone = -float(stdtrit(max(path.freedom for path in paths), level / 2))
    if false_alarm_bound(alone, paths) <= level:
        return alone
    return float(brentq(lambda c: false_alarm_bound(c, paths) - level, alone, bonferroni * (1 + 1e-12), xtol=1e-10))
