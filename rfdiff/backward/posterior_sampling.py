"""Return probabilities of three or more classes: randomised quasi-Monte-Carlo over x_t, with a measured error (docs/theory/speciation.md).

R_c = E[P(c | x_t)] given class c is averaged over scrambled Sobol points, in `REPLICATES` independent scrambles, whose spread is the
standard error. `rfdiff.backward.correlated_classes` does the same for coordinates that are correlated.
"""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float
from scipy.special import gammaincinv, ndtri
from scipy.stats import qmc

from rfdiff.backward.realisation import Realisation

REPLICATES = 8
LOG2_FIRST, LOG2_MOST = 9, 15  # of the points of a replicate
ERRORS = 3.0  # standard errors in an error


class Mean(NamedTuple):
    """Mean (K,) and standard error (K,)."""

    value: Float[np.ndarray, " K"]
    stderr: Float[np.ndarray, " K"]


class Sampler(Protocol):
    """Return probabilities at one time after another."""

    def at(self, t: float, tolerance: float) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """R_c (K,) at time t and its error (K,), at most `tolerance` where the work for it is not too much."""


class IndependentSampler:
    """Independent coordinates and radii; the points are the same at all times, so that R_c is a smooth function of t.

    Args:
        classes: K classes of independent coordinates.
        seed: of the scrambles.
    """

    def __init__(self, classes: Realisation, seed: int = 0) -> None:
        self.classes, self.seed = classes, seed
        # at late times the log-odds are linear in the span of the centroids, to which the first Sobol coordinates go
        self.axes = np.linalg.qr(classes.means.T, mode="complete")[0]
        self.log2_points = LOG2_FIRST
        self.points: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def at(self, t: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """As `Sampler.at`."""
        while True:
            mean = over_replicates(np.stack([self._returned(t, *points) for points in self._points(self.log2_points)]))
            self.log2_points, before = enough(self.log2_points, mean, tolerance), self.log2_points
            if self.log2_points == before:
                return mean.value, ERRORS * mean.stderr

    def _points(self, log2_points: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Standard normals (N, q) and χ² (N, L) of each replicate."""
        if log2_points not in self.points:
            size, counts = self.axes.shape[0], self.classes.counts
            self.points.clear()
            self.points[log2_points] = [
                (ndtri(uniform[:, :size]) @ self.axes.T, 2 * gammaincinv(counts / 2, uniform[:, size:]))
                for uniform in (sobol(size + counts.size, log2_points, self.seed, r) for r in range(REPLICATES))
            ]
        return self.points[log2_points]

    def _returned(self, t: float, normals: np.ndarray, chi_squares: np.ndarray) -> np.ndarray:
        """Mean (K,) of P(c | x_t) over samples of each class c."""
        weights, means, covariances, counts, variances = self.classes
        signal, noise = np.exp(-2 * t), -np.expm1(-2 * t)
        gamma, across = signal * covariances + noise, signal * variances + noise
        returned = np.empty(weights.size)
        for c in range(weights.size):
            excess = signal * (covariances - covariances[c]) / gamma[c]
            precision = 1 / (1 + excess)  # of every class in units of that of class c
            shift = np.exp(-t) * (means - means[c]) / np.sqrt(gamma[c])
            constant = np.sum(shift**2 * precision + np.log1p(excess), axis=1)
            square = normals**2 @ (precision - 1).T - 2 * normals @ (shift * precision).T + constant
            excess = signal * (variances - variances[:, [c]]) / across[:, [c]]
            square += chi_squares @ (-excess / (1 + excess)) + counts @ np.log1p(excess)
            returned[c] = np.mean(posterior_of(c, np.log(weights) - square / 2))
        return returned


def posterior_of(c: int, logits: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """P(c | x) from logarithms up to a constant."""
    return 1 / np.exp(np.minimum(logits - logits[:, [c]], 700)).sum(axis=1)


def over_replicates(values: Float[np.ndarray, "R K"]) -> Mean:
    """Mean of independent estimates and its standard error."""
    return Mean(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def enough(log2_points: int, mean: Mean, tolerance: float) -> int:
    """Logarithm of the number of points to go on to, the same where they are enough or the most: errors fall a little faster than N^-½."""
    missing = ERRORS * mean.stderr.max() / tolerance
    return min(LOG2_MOST, log2_points + int(np.ceil(1.5 * np.log2(missing)))) if missing > 1 else log2_points


def sobol(dimension: int, log2_points: int, seed: int, replicate: int) -> Float[np.ndarray, "N q"]:
    """Scrambled Sobol points (2^m, q) inside the unit cube; another scramble for each replicate."""
    uniform = qmc.Sobol(dimension, rng=np.random.default_rng([seed, replicate])).random_base2(log2_points)
    return np.clip(uniform, 1e-15, 1 - 1e-15)
