"""Neuron types: quadrature nodes for h ~ N(0, Q), what a neuron sees of the class centroids (docs/theory/equivalent.md)."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from scipy.special import ndtri

from rfdiff.activation import Activation
from rfdiff.problem import Problem

FAR = 6.0  # standard deviations of h beyond which neurons, 2 in 10^9 of them where h has one dimension, are left out
MAX_LEVEL = 7
MAX_TYPES = 40_000
LATTICE_RANK = 3
FIRST_LOG2 = 9  # log2 of the number of Sobol points at level 0
SOBOL_LEVELS = 4
FEW = -2  # level of Sobol points below the others, a quarter of the points of the first: for rough questions
SCRAMBLES = 4  # independent ones, whose spread is the error
SOBOL_RATE = 0.75  # their error falls at least as this power of the number of points; measured: 0.75 to 1.1
STUDENT = 4.6  # standard errors of 4 scrambles that hold 98 %


class TypeGrid(NamedTuple):
    """Quadrature nodes (J, rank) and weights (J,) of a standard normal vector; J = 1 and rank 0 for centred classes."""

    nodes: Float[np.ndarray, "J rank"] | Float[jax.Array, "J rank"]
    weights: Float[np.ndarray, " J"] | Float[jax.Array, " J"]


def lattice_grid(steps: np.ndarray, radius: float, odd: bool = False) -> TypeGrid:
    """Trapezoid rule for N(0, I_rank): the lattice of the given steps (rank,) inside a ball, weights normalised.

    Spectrally accurate for functions analytic in a strip, where Gauss-Hermite rules of the same size are limited by the nearest pole.
    For an odd activation h and -h are the same neuron type, and half the lattice is enough.
    """
    rank = len(steps)
    halves = np.ceil(radius / steps).astype(int)
    axes = [step * (np.arange(-half, half) + 0.5) for step, half in zip(steps, halves, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, rank) if rank else np.zeros((1, 0))
    squared = (nodes**2).sum(1)
    keep = squared <= radius**2
    if odd and rank:
        keep &= nodes[:, 0] > 0
    nodes, squared = nodes[keep], squared[keep]
    weights = np.exp(-squared / 2)
    return TypeGrid(nodes, weights / weights.sum())


def sobol_grid(rank: int, log2_size: int, seed: int = 0) -> TypeGrid:
    """Scrambled Sobol points for N(0, I_rank), for Gram matrices of rank above 3; the last coordinates, where roots are longest, best."""
    from scipy.stats import qmc  # dear to import, and few problems need it

    points = qmc.Sobol(rank, rng=np.random.default_rng(seed)).random_base2(log2_size)[:, ::-1]
    return TypeGrid(ndtri(points), np.full(2**log2_size, 0.5**log2_size))


def gram_root(gram: np.ndarray) -> np.ndarray:
    """(K, rank) matrix with root rootᵀ = Q, without the null directions."""
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    keep = values > 1e-12 * max(float(values[-1]), 1e-300)
    return vectors[:, keep] * np.sqrt(values[keep])


def by_lattice(problem: Problem, radius: float) -> bool:
    """Whether neuron types are averaged on a lattice, which needs a rank of at most 3 and centroids not too long, or by Sobol points."""
    return _by_lattice(gram_root(problem.mixture.centroid_gram), radius, is_odd(problem.activation))


def _by_lattice(root: np.ndarray, radius: float, odd: bool) -> bool:
    """Whether the two coarsest levels, the fewest that tell an error, stay below `MAX_TYPES`."""
    return bool(root.shape[1] <= LATTICE_RANK and _lattice_size(root, 2, radius, odd) <= MAX_TYPES)


def _lattice_size(root: np.ndarray, level: int, radius: float, odd: bool) -> float:
    """About how many points a lattice has."""
    rank = root.shape[1]
    ball = math.pi ** (rank / 2) / math.gamma(rank / 2 + 1) * radius**rank / (2 if odd else 1)
    return ball / float(np.prod(lattice_steps(root, level)))


def levels(problem: Problem, first: int, radius: float) -> range:
    """Levels of refinement worth computing, from `first`: one for centred classes, else as many as stay below `MAX_TYPES` neuron types."""
    root, odd = gram_root(problem.mixture.centroid_gram), is_odd(problem.activation)
    if root.shape[1] == 0:
        return range(first, first + 1)
    if not _by_lattice(root, radius, odd):
        return range(min(first, SOBOL_LEVELS), SOBOL_LEVELS + 1)
    affordable = (level for level in range(first, MAX_LEVEL + 1) if _lattice_size(root, level, radius, odd) <= MAX_TYPES)
    return range(first, max(affordable, default=first) + 1)


def refined_error(lattice: bool, change: ArrayLike, before: ArrayLike = 0.0) -> Float[np.ndarray, "..."]:
    """Error left after a refinement that changed a result by `change`, and the one before that by `before` (0: there was none).

    A lattice converges geometrically, about squaring a small error every second level; Sobol points do not. It may begin more slowly, so
    that a single change tells less, and the ratio of two more. Two levels may also agree by accident, which the change before them would
    not.
    """
    change, before = np.asarray(change, np.float64), np.asarray(before, np.float64)
    if not lattice:
        return change
    shrinking = change * np.fmin(1.0, change / np.where(before > 0, before, 1))
    of_two = np.maximum(np.maximum(np.minimum(change, 2 * change**1.4), shrinking), np.minimum(before, 2 * before**2))
    return np.where(before == 0, np.minimum(change, 2 * change**1.25), of_two)


class LevelErrors:
    """Error of a result at one level of neuron types after the other, from what each level changed (`refined_error`).

    Args:
        problem: whose neuron types they are. Without centroids there is one type, and no error.
        radius: standard deviations of h that are kept.
        change: how far results at two levels are apart, the finer first: a number, or one for each element.
    """

    def __init__(self, problem: Problem, radius: float, change: Callable[[np.ndarray, np.ndarray], ArrayLike]) -> None:
        self._lattice, self._change = by_lattice(problem, radius), change
        self._of_one_level = np.inf if gram_root(problem.mixture.centroid_gram).shape[1] else 0.0
        self._values: np.ndarray | None = None
        self._last: ArrayLike = 0.0

    def of(self, values: np.ndarray) -> Float[np.ndarray, "..."]:
        """Error of the values at the next level; inf at the first, with nothing to compare with."""
        before, self._values = self._values, values
        if before is None:
            return np.asarray(self._of_one_level)
        earlier, self._last = self._last, self._change(values, before)
        return refined_error(self._lattice, self._last, earlier)


def lattice_steps(root: np.ndarray, level: int) -> np.ndarray:
    """Lattice steps (rank,) of a level along the columns of the root: smaller by √2 for each level, and for centroids longer than √d."""
    return 1.05 * 2 ** (-level / 2) / np.maximum(1.0, np.linalg.norm(root, axis=0))


def type_grid(root: np.ndarray, level: int, radius: float, odd: bool, least: int = 64, scramble: int = 0) -> TypeGrid:
    """Neuron types at a level of refinement: a lattice where that has few enough points (`by_lattice`), else scrambled Sobol points.

    A level divides the lattice steps by √2, which about squares a small error every second level, or doubles the number of points. The
    size is filled up with types of weight 0 to `least` or a number of a ladder above it, so that levels and neighbouring problems share
    compiled code. Different scrambles of Sobol points are independent; a lattice has but one.
    """
    rank = root.shape[1]
    if rank == 0:
        return lattice_grid(np.zeros(0), 1.0)
    if not _by_lattice(root, radius, odd):
        return sobol_grid(rank, FIRST_LOG2 + level, scramble)
    grid = lattice_grid(lattice_steps(root, level), radius, odd)
    fill = max(least, _rung(grid.weights.size)) - grid.weights.size
    return TypeGrid(np.pad(grid.nodes, ((0, fill), (0, 0))), np.pad(grid.weights, (0, fill)))


def _rung(size: int) -> int:
    """The next of 4, 8, 12, 16, 24, 32, 48, …, so at most a half above `size` (from 8 on)."""
    unit = 2 ** max((size - 1).bit_length() - 2, 2)
    return unit * -(-size // unit)


@lru_cache(maxsize=64)
def is_odd(activation: Activation) -> bool:
    """Whether σ(-x) = -σ(x), to rounding, at a few points."""
    x = np.array([0.0, 0.3, 0.7, 1.9, 4.1])
    return not activation.kinks and bool(np.allclose(np.asarray(activation(x)), -np.asarray(activation(-x)), rtol=1e-13, atol=1e-15))
