"""Return probabilities of classes whose covariances do not commute (docs/theory/speciation.md).

Coordinates y are those in which the mean covariance Σ̄ is diagonal, divided by the standard deviations of x_t and turned so that the first
ones say most of the class: class c is N(m_c, I + E_c). A number q of coordinates is drawn as it is. The other directions say little each.
Together they are as good as K classes of covariance I with centroids φ_c in K - 1 dimensions, whose log-odds are Gaussian with mean -½ of
their variance, as those of many weak observations are. Their distances are what is missing from the Bhattacharyya distances of the classes,

    ‖φ_c - φ_a‖²/8 = -log ∫ √(p_c p_a) dx  of all coordinates  -  that of the first q.

To second order in E this is ½ tr E_a E_b + m_a·m_b in the place of φ_a·φ_b. Twice what the pair posteriors change between the two is the
error of this: q is doubled until it is small. The pair posteriors σ(ℓ_a), whose means are known
(`rfdiff.backward.overlap`), are control variates too, with which few points are enough.
"""

from itertools import takewhile

import numpy as np
import scipy.linalg
from jaxtyping import Float
from scipy.special import expit, ndtri

from rfdiff.backward.overlap import Contrast, overlap
from rfdiff.backward.posterior_sampling import ERRORS, LOG2_FIRST, REPLICATES, enough, over_replicates, posterior_of, sobol
from rfdiff.backward.realisation import Realisation

HEAD = 16  # coordinates that are drawn at least
TURNED = 256  # coordinates among which those that say most are sought
SAFETY, BY_CHANCE = 2.0, 1e-5  # of the difference of two substitutes in an error, and what is added where they agree by chance
ROUNDING = 1e-9
SHIFTS = np.array([-1.5, 0.0, 1.5])  # of the log-odds in control variates
STAYS = 0.5  # of the tolerance, for the error of the points


class CorrelatedSampler:
    """Classes of correlated coordinates.

    Args:
        classes: K ≥ 2 classes with covariance matrices.
        seed: of the scrambles.
    """

    def __init__(self, classes: Realisation, seed: int = 0) -> None:
        self.weights, self.seed = classes.weights, seed
        self.variances, axes = np.linalg.eigh(np.tensordot(classes.weights, classes.covariances, 1))
        self.means = classes.means @ axes
        self.differences = axes.T @ classes.covariances @ axes
        self.differences[:, np.arange(len(axes)), np.arange(len(axes))] -= self.variances

    def at(self, t: float, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        """As `posterior_sampling.Sampler.at`."""
        means, excess, whole = self._turned(t)
        size, apart, rough = means.shape[1], _bhattacharyya(means, excess), None
        for head in [*takewhile(lambda head: head < size, (HEAD * 2**i for i in range(32))), size]:
            drawn = _Head(self.weights, means[:, :head], excess[:, :head, :head], whole, apart, self.seed)
            rough = over_replicates(drawn.returned(LOG2_FIRST)).value if rough is None else rough
            error = drawn.error(rough)
            if error.max() <= (1 - STAYS) * tolerance:
                break
        log2_points = LOG2_FIRST
        mean = over_replicates(drawn.returned(log2_points))
        while (more := enough(log2_points, mean, max(tolerance - error.max(), STAYS * tolerance))) > log2_points:
            log2_points = more
            mean = over_replicates(drawn.returned(log2_points))
        return mean.value, ERRORS * mean.stderr + error

    def _turned(self, t: float) -> tuple[Float[np.ndarray, "K d"], Float[np.ndarray, "K d d"], Float[np.ndarray, "K K"]]:
        """m_c and E_c in coordinates that are sorted, the first of them turned, and ½ tr E_a E_b + m_a·m_b of all."""
        signal, noise = np.exp(-2 * t), -np.expm1(-2 * t)
        scale = 1 / np.sqrt(signal * self.variances + noise)
        squares = np.tensordot(self.weights, self.differences**2, 1) @ scale**2 * scale**2
        means = np.exp(-t) * self.means * scale
        order = np.argsort(-(signal**2 * squares / 2 + self.weights @ means**2))
        scale, means = scale[order], means[:, order]
        excess = signal * self.differences[:, order[:, None], order] * scale[:, None] * scale[None, :]
        first = slice(0, TURNED)
        information = np.einsum("k,ka,kb->ab", self.weights, means[:, first], means[:, first])
        for weight, matrix in zip(self.weights, excess[:, first, first], strict=True):
            information += weight / 2 * (matrix @ matrix)
        axes = np.linalg.eigh(information)[1][:, ::-1]
        whole = _gram(means, excess)
        means[:, first] = means[:, first] @ axes
        excess[:, first] = axes.T @ excess[:, first]
        excess[:, :, first] = excess[:, :, first] @ axes
        return means, excess, whole


class _Head:
    """The first q coordinates of K classes, and the others through K - 1 numbers that say as much.

    Args:
        weights: (K,) class fractions.
        means: (K, q) m_c.
        excess: (K, q, q) E_c.
        whole: (K, K) ½ tr E_a E_b + m_a·m_b of all coordinates.
        apart: (K, K) Bhattacharyya distances of the classes in all coordinates.
        seed: of the scrambles.
    """

    def __init__(self, weights: np.ndarray, means: np.ndarray, excess: np.ndarray, whole: np.ndarray, apart: np.ndarray, seed: int) -> None:
        self.weights, self.means, self.seed = weights, means, seed
        self.covariances = excess + np.eye(means.shape[1])
        self.factors = np.linalg.cholesky(self.covariances)
        self.inverses = np.stack([scipy.linalg.lapack.dtrtri(factor, lower=1)[0] for factor in self.factors])
        self.rest = _centroids(8 * (apart - _bhattacharyya(means, excess)), weights)
        second_order = whole - _gram(means, excess)
        norms = np.diagonal(second_order)
        self.left = float(weights @ np.sum(self.rest**2, axis=1))
        self.known, self.changes = self._pair_posteriors(norms[:, None] + norms - 2 * second_order)

    def error(self, rough: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        """Error (K,) of what stands for the other directions.

        Classes share what one class loses: it changes less than by all that each would take alone, in proportion to what it loses.

        Args:
            rough: (K,) the return probabilities, to a few per cent.
        """
        if self.left < ROUNDING:
            return np.zeros(len(self.weights))
        alone = self.known.reshape(len(self.weights), -1, SHIFTS.size)[:, :, SHIFTS.size // 2].sum(axis=1)
        shared = np.minimum((1 - rough) / np.maximum(alone, ROUNDING), 1)
        return SAFETY * shared * self.changes.sum(axis=1) / self.weights + BY_CHANCE

    def returned(self, log2_points: int) -> Float[np.ndarray, "R K"]:
        """Estimates (R, K) of R_c, one of each replicate."""
        points = [ndtri(sobol(self.rest.shape[1] + self.means.shape[1], log2_points, self.seed, r)) for r in range(REPLICATES)]
        return np.stack([self._of_class(c, points) for c in range(len(self.means))], axis=1)

    def _of_class(self, c: int, points: list[np.ndarray]) -> Float[np.ndarray, " R"]:
        """R_c from each replicate, less what the pair posteriors are off by in it."""
        others = np.arange(len(self.means)) != c
        means, controls, moments = [], [], np.zeros((self.known.shape[1] + 1,) * 2)
        for normals in points:
            logits = self._logits(c, normals)
            returned = posterior_of(c, logits)
            lost = expit((logits[:, others] - logits[:, [c]])[:, :, None] + SHIFTS).reshape(len(returned), -1) - self.known[c]
            means.append(returned.mean())
            controls.append(lost.mean(axis=0))
            both = np.column_stack([lost, returned])
            moments += np.cov(both, rowvar=False)
        weights = np.linalg.lstsq(moments[:-1, :-1], moments[:-1, -1], rcond=1e-10)[0]
        return np.array(means) - np.array(controls) @ weights

    def _logits(self, c: int, normals: np.ndarray) -> Float[np.ndarray, "N K"]:
        """log π_a p_a(x) up to a constant, at samples of class c."""
        (count, size), split = self.means.shape, self.rest.shape[1]
        apart = self.rest - self.rest[c]
        maps = (self.inverses @ self.factors[c]).reshape(count * size, size)  # to the coordinates in which class a is N(0, I)
        shifts = np.einsum("kab,kb->ka", self.inverses, self.means[c] - self.means)
        # in single precision, whose rounding of about 1e-5 of a logarithm averages out
        standard = (normals[:, split:].astype(np.float32) @ maps.T.astype(np.float32)).reshape(-1, count, size) + shifts.astype(np.float32)
        constants = np.log(self.weights) + np.sum(np.log(np.einsum("kaa->ka", self.inverses)), axis=1) - np.sum(apart**2, axis=1) / 2
        return normals[:, :split] @ apart.T + constants - np.einsum("nka,nka->nk", standard, standard) / 2

    def _pair_posteriors(self, other_squares: Float[np.ndarray, "K K"]) -> tuple[Float[np.ndarray, "K C"], Float[np.ndarray, "K K"]]:
        """What each class loses to every other alone, and the change of the pairs' B where their squared distances are others.

        E[σ(s - ℓ_a)] given class c, for every a ≠ c and shift s, is what a alone takes if its weight is e^s times as large.
        """
        count = len(self.means)
        known, changes = np.zeros((count, count, SHIFTS.size)), np.zeros((count, count))
        for c in range(count):
            for a in range(c):
                excess, axes = scipy.linalg.eigh(self.covariances[c] - self.covariances[a], self.covariances[a])
                squares = (axes.T @ (self.means[c] - self.means[a])) ** 2
                asides = np.sum((self.rest[c] - self.rest[a]) ** 2), max(other_squares[c, a], 0.0)
                pairs = [Contrast(np.append(excess, 0.0), np.ones(excess.size + 1), np.append(squares, aside)) for aside in asides]
                values = overlap(pairs[0], self.weights[c], self.weights[a] * np.exp(SHIFTS)).value
                known[c, a] = values / self.weights[c]
                known[a, c] = values[::-1] * np.exp(SHIFTS) / self.weights[a]  # B is of degree 1 in the weights, and the shifts are even
                changed = overlap(pairs[1], self.weights[c], self.weights[a]).value
                changes[c, a] = changes[a, c] = abs(changed - values[SHIFTS.size // 2])
        return np.stack([known[c, np.arange(count) != c].ravel() for c in range(count)]), changes


def _bhattacharyya(means: Float[np.ndarray, "K q"], excess: Float[np.ndarray, "K q q"]) -> Float[np.ndarray, "K K"]:
    """Bhattacharyya distances -log ∫ √(p_c p_a) dx of classes N(m_c, I + E_c)."""
    count, size = means.shape
    covariances, distances = excess + np.eye(size), np.zeros((count, count))
    half = [np.sum(np.log(np.diagonal(np.linalg.cholesky(covariance)))) for covariance in covariances]  # of log-determinants
    for c in range(count):
        for a in range(c):
            factor = np.linalg.cholesky((covariances[c] + covariances[a]) / 2)
            shift = scipy.linalg.solve_triangular(factor, means[c] - means[a], lower=True)
            distance = np.sum(np.log(np.diagonal(factor))) - (half[c] + half[a]) / 2 + np.sum(shift**2) / 8
            distances[c, a] = distances[a, c] = distance
    return distances


def _centroids(squares: Float[np.ndarray, "K K"], weights: Float[np.ndarray, " K"]) -> Float[np.ndarray, "K r"]:
    """(K, K - 1) points of the given squared distances, as nearly as there are any."""
    centred = np.eye(len(weights)) - weights[None, :]
    values, vectors = np.linalg.eigh(-centred @ squares @ centred.T / 2)
    return (vectors * np.sqrt(np.maximum(values, 0)))[:, :0:-1]


def _gram(means: Float[np.ndarray, "K q"], excess: Float[np.ndarray, "K q q"]) -> Float[np.ndarray, "K K"]:
    """½ tr E_a E_b + m_a·m_b."""
    flat = excess.reshape(len(means), -1)
    return flat @ flat.T / 2 + means @ means.T
