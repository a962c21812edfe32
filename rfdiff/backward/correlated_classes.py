"""Return probabilities of classes whose covariances do not commute (docs/theory/speciation.md).

Coordinates y are those in which the mean covariance Σ̄ is diagonal, divided by the standard deviations of x_t and turned so that the first
ones say most of the class: class c is N(m_c, I + E_c). A number q of coordinates is drawn as it is. The other directions say little each,
together they are as good as K classes of covariance I with centroids φ_c in K - 1 dimensions,

    φ_a·φ_b = [½ tr E_a E_b + m_a·m_b]  of all coordinates  -  that of the first q,

which has the divergences of the classes to second order in E, and log-odds that are Gaussian with mean -½ of their variance, as those of
many weak observations are. q is doubled until the return probabilities stay. Their last change, scaled to what is left, is the error of
this. With the pair posteriors σ(ℓ_a), whose means are known (`rfdiff.backward.overlap`), as control variates, few points are enough.
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
        size, log2_points = means.shape[1], LOG2_FIRST
        value, told, error = np.full(len(means), np.nan), np.inf, np.full(len(means), np.inf)
        for head in [*takewhile(lambda head: head < size, (HEAD * 2**i for i in range(32))), size]:
            drawn = _Head(self.weights, means[:, :head], excess[:, :head, :head], whole, self.seed)
            mean = over_replicates(drawn.returned(log2_points))
            while (more := enough(log2_points, mean, STAYS * tolerance)) > log2_points:
                log2_points = more
                mean = over_replicates(drawn.returned(log2_points))
            # what is left falls at least in proportion to the information that is left
            left = np.full(len(means), drawn.left / told if np.isfinite(told) else np.inf)
            approximation = left * abs(mean.value - value) if head < size else np.zeros(len(means))
            value, told, error = mean.value, drawn.left, ERRORS * mean.stderr + np.nan_to_num(approximation, nan=np.inf)
            if error.max() <= tolerance:
                break
        return value, error

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
        seed: of the scrambles.
    """

    def __init__(self, weights: np.ndarray, means: np.ndarray, excess: np.ndarray, whole: np.ndarray, seed: int) -> None:
        self.weights, self.means, self.seed = weights, means, seed
        self.covariances = excess + np.eye(means.shape[1])
        self.factors = np.linalg.cholesky(self.covariances)
        self.inverses = np.stack([scipy.linalg.lapack.dtrtri(factor, lower=1)[0] for factor in self.factors])
        centred = np.eye(len(weights)) - weights[None, :]
        values, vectors = np.linalg.eigh(centred @ (whole - _gram(means, excess)) @ centred.T)
        self.rest = (vectors * np.sqrt(np.maximum(values, 0)))[:, :0:-1]
        self.left = float(weights @ np.sum(self.rest**2, axis=1))
        self.known = self._pair_posteriors()

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

    def _pair_posteriors(self) -> Float[np.ndarray, "K C"]:
        """E[σ(s - ℓ_a)] given class c, for every other class a and shift s: what a alone takes, if its weight is e^s times as large."""
        count = len(self.means)
        known = np.zeros((count, count, SHIFTS.size))
        for c in range(count):
            for a in range(c):
                excess, axes = scipy.linalg.eigh(self.covariances[c] - self.covariances[a], self.covariances[a])
                squares = (axes.T @ (self.means[c] - self.means[a])) ** 2
                aside = np.sum((self.rest[c] - self.rest[a]) ** 2)
                pair = Contrast(np.append(excess, 0.0), np.ones(excess.size + 1), np.append(squares, aside))
                values = overlap(pair, self.weights[c], self.weights[a] * np.exp(SHIFTS)).value
                known[c, a] = values / self.weights[c]
                known[a, c] = values[::-1] * np.exp(SHIFTS) / self.weights[a]  # B is of degree 1 in the weights, and the shifts are even
        return np.stack([known[c, np.arange(count) != c].ravel() for c in range(count)])


def _gram(means: Float[np.ndarray, "K q"], excess: Float[np.ndarray, "K q q"]) -> Float[np.ndarray, "K K"]:
    """½ tr E_a E_b + m_a·m_b."""
    flat = excess.reshape(len(means), -1)
    return flat @ flat.T / 2 + means @ means.T
