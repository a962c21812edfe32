"""Sums of squares of the covariances' elements outside a core, which are what these do to second order (`coupled_tail`)."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

RATIO = 1.5  # of the last to the first direction of a group: finer groups move a loss by less than the third order does


class TailCoupling(NamedTuple):
    """Squares of the elements S_c outside a core of r directions; L groups of the n = d - r others, S = r + L sites.

    Args:
        group: of each tail direction.
        counts: directions of each group.
        diagonal: mean of S_c,jj in each group.
        onto: Σ_{j in g} S_a,ij S_b,i'j for core directions i and i'.
        squares: (1/d) Σ_ij S_a,ij S_b,ij, i ≠ j, over the directions of two sites: core directions, then groups; 0 within the core.
    """

    group: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " L"]
    diagonal: Float[np.ndarray, "K L"]
    onto: Float[np.ndarray, "L K K r r"]
    squares: Float[np.ndarray, "K K S S"]


def tail_coupling(matrices: Float[np.ndarray, "K d d"], signal: float, of_core: Float[np.ndarray, "r r"]) -> TailCoupling:
    """The coupling of the tail of e^{-2t} Σ_c.

    Args:
        matrices: Σ_c, core directions first.
        signal: e^{-2t}.
        of_core: basis of the core, in columns.
    """
    (k, d), r = matrices.shape[:2], len(of_core)
    bounds = _bounds(r, d)
    counts, groups = np.diff(bounds), [slice(*pair) for pair in pairwise(bounds)]
    beside = signal * (of_core.T @ matrices[:, :r, r:])
    onto = np.empty((len(groups), k, k, r, r))
    squares = np.zeros((k, k, r + len(groups), r + len(groups)))
    for g, one in enumerate(groups):
        part = beside[:, :, one.start - r : one.stop - r].reshape(k * r, -1)
        onto[g] = (part @ part.T).reshape(k, r, k, r).transpose(0, 2, 1, 3)
        squares[:, :, :r, r + g] = np.einsum("abii->abi", onto[g])
        for h, other in enumerate(groups[: g + 1]):
            block = matrices[:, one, other]
            if g == h:
                block = block * (1 - np.eye(counts[g]))
            flat = signal * block.reshape(k, -1)
            squares[:, :, r + g, r + h] = squares[:, :, r + h, r + g] = flat @ flat.T
    squares[:, :, r:, :r] = np.swapaxes(squares[:, :, :r, r:], -1, -2)
    diagonal = np.add.reduceat(np.einsum("kaa->ka", matrices)[:, r:], bounds[:-1] - r, axis=1) * signal / counts
    return TailCoupling(np.repeat(np.arange(len(groups)), counts), counts, diagonal, onto, squares / d)


def _bounds(r: int, d: int) -> Int[np.ndarray, " L+1"]:
    """Directions r < … < d between which groups lie, of a constant ratio."""
    count = max(math.ceil(math.log(d / r) / math.log(RATIO)), 1)
    return np.unique(np.rint(r * (d / r) ** (np.arange(count + 1) / count)).astype(int))
