"""Neuron types: quadrature nodes for h ~ N(0, Q), what a neuron sees of the class centroids (`equations`, section 2)."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm, qmc

from rfdiff.activation import Activation
from rfdiff.problem import Problem

FAR = 6.0  # standard deviations of h beyond which neurons, 2 in 10^9 of them where h has one dimension, are left out
MAX_LEVEL = 7
MAX_TYPES = 40_000
LATTICE_RANK = 3
SOBOL_LEVELS = 4
SCRAMBLES = 4  # independent ones, whose spread is the error
SOBOL_RATE = 0.75  # measured: their error falls as this power of the number of points
SOBOL_REACH = 1e-3  # tolerance below which the largest number of points is taken at once
STUDENT = 3.2  # standard errors of 4 scrambles that hold 95 %


class TypeGrid(NamedTuple):
    """Quadrature nodes (J, rank) and weights (J,) of a standard normal vector; J = 1 and rank 0 for centred classes."""

    nodes: Any
    weights: Any


def lattice_grid(rank: int, step: float, radius: float, odd: bool = False) -> TypeGrid:
    """Trapezoid rule for N(0, I_rank): the lattice of the given step inside a ball, weights normalised.

    Spectrally accurate for functions analytic in a strip, where Gauss-Hermite rules of the same size are limited by the nearest pole.
    For an odd activation h and -h are the same neuron type, and half the lattice is enough.
    """
    half = math.ceil(radius / step)
    axis = step * (np.arange(-half, half) + 0.5)
    nodes = np.stack(np.meshgrid(*[axis] * rank, indexing="ij"), -1).reshape(-1, rank) if rank else np.zeros((1, 0))
    squared = (nodes**2).sum(1)
    keep = squared <= radius**2
    if odd and rank:
        keep &= nodes[:, 0] > 0
    nodes, squared = nodes[keep], squared[keep]
    weights = np.exp(-squared / 2)
    return TypeGrid(nodes, weights / weights.sum())


def sobol_grid(rank: int, log2_size: int, seed: int = 0) -> TypeGrid:
    """Scrambled Sobol points for N(0, I_rank), for Gram matrices of rank above 3; the last coordinates, where roots are longest, best."""
    points = qmc.Sobol(rank, rng=np.random.default_rng(seed)).random_base2(log2_size)[:, ::-1]
    return TypeGrid(norm.ppf(points), np.full(2**log2_size, 0.5**log2_size))


def gram_root(gram: np.ndarray) -> np.ndarray:
    """(K, rank) matrix with root rootᵀ = Q, without the null directions."""
    values, vectors = np.linalg.eigh(np.asarray(gram, np.float64))
    keep = values > 1e-12 * max(float(values[-1]), 1e-300)
    return vectors[:, keep] * np.sqrt(values[keep])


def levels(problem: Problem, first: int, radius: float) -> range:
    """Levels of refinement worth computing, from `first`: one for centred classes, else as many as stay below `MAX_TYPES` neuron types."""
    root = gram_root(problem.mixture.centroid_gram)
    rank = root.shape[1]
    if rank == 0:
        return range(first, first + 1)
    if rank > LATTICE_RANK:
        return range(min(first, SOBOL_LEVELS), SOBOL_LEVELS + 1)
    ball = math.pi ** (rank / 2) / math.gamma(rank / 2 + 1) * radius**rank / (2 if is_odd(problem.activation) else 1)
    last = max((level for level in range(first, MAX_LEVEL + 1) if ball / lattice_step(root, level) ** rank <= MAX_TYPES), default=first)
    return range(first, last + 1)


def refined_error(problem: Problem, change: float) -> float:
    """Error left after a refinement that changed a result by `change`: a lattice converges geometrically, Sobol points do not."""
    return min(change, 2 * change**1.4) if gram_root(problem.mixture.centroid_gram).shape[1] <= LATTICE_RANK else change


def lattice_step(root: np.ndarray, level: int) -> float:
    """Lattice step of a level: smaller by √2 for each, and for centroids longer than √d."""
    return 1.05 * 2 ** (-level / 2) / max(1.0, float(np.linalg.norm(root, 2)))


def type_grid(root: np.ndarray, level: int, radius: float, odd: bool, least: int = 64, scramble: int = 0) -> TypeGrid:
    """Neuron types at a level of refinement: a lattice up to rank 3, scrambled Sobol points above.

    A level divides the lattice step by √2, which about squares a small error every second level, or doubles the number of points. The
    size is filled up with types of weight 0 to `least` or a multiple of 16 above it, so that levels and neighbouring problems share
    compiled code. Different scrambles of Sobol points are independent; a lattice has but one.
    """
    rank = root.shape[1]
    if rank == 0:
        return lattice_grid(0, 1.0, 1.0)
    if rank > LATTICE_RANK:
        return sobol_grid(rank, 9 + level, scramble)
    grid = lattice_grid(rank, lattice_step(root, level), radius, odd)
    fill = max(least, 16 * math.ceil(grid.weights.size / 16)) - grid.weights.size
    return TypeGrid(np.pad(grid.nodes, ((0, fill), (0, 0))), np.pad(grid.weights, (0, fill)))


def is_odd(activation: Activation) -> bool:
    """Whether σ(-x) = -σ(x), to rounding, at a few points."""
    x = np.array([0.0, 0.3, 0.7, 1.9, 4.1])
    return not activation.kinks and bool(np.allclose(np.asarray(activation(x)), -np.asarray(activation(-x)), rtol=1e-13, atol=1e-15))
