"""The basis in which covariances that do not commute are handled: a core of coupled directions, and a tail of diagonal ones.

In the eigenbasis of Σ_c π_c Σ_c the last directions couple weakly to the others where the spectra decay (images). Beyond a core of r
directions each one is a tail entry with K eigenvalues of its own. The elements outside core and tail are left out, which costs an amount of
second order in them (`neglected`), or count to second order (`tail_coupling`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from rfdiff.theory.noncommuting.tail_coupling import TailCoupling, tail_coupling


class Matrices(NamedTuple):
    """e^{-2t} Σ_c in a working basis: core (K, r, r) with class 0 diagonal, tail (K, d - r) diagonal, estimate of what is left out."""

    core: Float[np.ndarray, "K r r"]
    tail: Float[np.ndarray, "K d-r"]
    neglected: float

    @property
    def dimension(self) -> int:
        """Number d of directions."""
        return self.core.shape[1] + self.tail.shape[1]


class _Turned(NamedTuple):
    """Σ_c in the eigenbasis of Σ_c π_c Σ_c, and what that was asked for."""

    covariances: np.ndarray
    weights: np.ndarray
    matrices: Float[np.ndarray, "K d d"]


_last: list[_Turned] = []  # the one made last: the surrogate, its span and the cores of one problem at any t share it


def _turned(covariances: Float[np.ndarray, "K d d"], weights: Float[np.ndarray, " K"]) -> Float[np.ndarray, "K d d"]:
    """Σ_c in the eigenbasis of Σ_c π_c Σ_c, falling eigenvalues first."""
    for made in _last:
        if made.covariances is covariances and np.array_equal(made.weights, weights):
            return made.matrices
    _last.clear()  # before another one takes its memory
    _, basis = np.linalg.eigh(-np.einsum("k,kab->ab", weights, covariances))
    matrices = np.stack([basis.T @ (one @ basis) for one in covariances])
    _last[:] = [_Turned(covariances, weights, matrices)]
    return matrices


class WorkingBasis(NamedTuple):
    """Σ_c (K, d, d) in the eigenbasis of Σ_c π_c Σ_c, the signal e^{-2t}, and the coupling left out by a core of its first 0, …, d
    directions.

    The coupling is `(1/d) Σ_c Σ_ij S_ij²/((S_ii + Δ)(S_jj + Δ))`, S_c = e^{-2t} Σ_c, over the off-diagonal elements left out: the size of
    the second-order change of (1/d) log det(I + MH), from which all traces derive.
    """

    turned: Float[np.ndarray, "K d d"]
    signal: float
    left_out: Float[np.ndarray, " d+1"]

    def enough(self, tolerance: float) -> int:
        """The fewest directions of a core that leaves out at most `tolerance`; all of them for 0."""
        if not (tolerance > 0 and self.left_out.min() <= tolerance):
            return len(self.left_out) - 1
        return int(np.argmax(self.left_out <= tolerance * (1 - 1e-9)))

    def matrices(self, r: int) -> Matrices:
        """The core of the first r directions, and the tail of the others."""
        diagonal = self.signal * np.einsum("kaa->ka", self.turned)
        neglected = float(self.left_out[r]) if r < diagonal.shape[1] else 0.0
        return Matrices(best_core(self.signal * self.turned[:, :r, :r]), diagonal[:, r:], neglected)

    def with_outside(self, r: int) -> tuple[Matrices, TailCoupling]:
        """The same for 0 < r < d, and what the elements outside core and tail do to second order, in one basis of the core."""
        core = self.signal * self.turned[:, :r, :r]
        basis = core_basis(core)
        return self.matrices(r)._replace(core=diagonal_first(core, basis)), tail_coupling(self.turned, self.signal, basis)


def basis_of(
    covariances: Float[np.ndarray, "K d d"], weights: Float[np.ndarray, " K"], signal: float, noise_variance: float
) -> WorkingBasis:
    """The matrices e^{-2t} Σ_c in the basis in which cores and tails are taken.

    Args:
        covariances: (K, d, d) Σ_c.
        weights: (K,) π_c.
        signal: e^{-2t}.
        noise_variance: Δ.
    """
    turned = _turned(covariances, weights)
    inside = _inside(turned, signal, noise_variance)
    return WorkingBasis(turned, signal, np.maximum(inside[-1] - np.concatenate([[0.0], inside]), 0))


def working_basis(
    covariances: Float[np.ndarray, "K d d"], weights: Float[np.ndarray, " K"], signal: float, noise_variance: float, tolerance: float
) -> Matrices:
    """Core and tail of the matrices e^{-2t} Σ_c (`basis_of`) such that the coupling left out is below `tolerance`; 0 keeps every
    direction in the core.
    """
    basis = basis_of(covariances, weights, signal, noise_variance)
    return basis.matrices(basis.enough(tolerance))


def rotated(
    covariances: Float[np.ndarray, "K d d"], signal: float, noise_variance: float
) -> tuple[Float[np.ndarray, "K d d"], Float[np.ndarray, "K d"], Callable[[int], float]]:
    """Σ_c in the eigenbasis of Σ_c Σ_c, their diagonals, and the coupling that the first r directions leave out as a function of r.

    The coupling is that of `working_basis`. Classes count alike: fractions vary from one problem to the next, and the coupling of a rare
    class is small in no basis that ignores it.
    """
    d = covariances.shape[1]
    _, basis = np.linalg.eigh(-covariances.sum(0))
    matrices = basis.T @ covariances @ basis
    diagonal = np.einsum("kaa->ka", matrices).copy()
    inside = _inside(matrices, signal, noise_variance)

    def left_out(r: int) -> float:
        return max(float(inside[-1] - inside[r - 1]), 0.0) if 0 < r < d else 0.0 if r else float(inside[-1])

    return matrices, diagonal, left_out


def _inside(matrices: np.ndarray, signal: float, noise_variance: float) -> np.ndarray:
    """Coupling (d,) inside the first 1, 2, … directions."""
    d = matrices.shape[1]
    scale = signal / (signal * np.einsum("kaa->ka", matrices) + noise_variance)
    coupling = np.zeros((d, d))
    for matrix, one in zip(matrices, scale, strict=True):
        coupling += (matrix * np.sqrt(one)[:, None] * np.sqrt(one)) ** 2
    coupling[np.arange(d), np.arange(d)] = 0
    return np.asarray(np.cumsum(np.cumsum(coupling, 0), 1).diagonal()) / d


def best_core(core: Float[np.ndarray, "K r r"]) -> Float[np.ndarray, "K r r"]:
    """A core in the eigenbasis of its class 0."""
    return diagonal_first(core, core_basis(core))


def diagonal_first(core: Float[np.ndarray, "K r r"], basis: Float[np.ndarray, "r r"]) -> Float[np.ndarray, "K r r"]:
    """A core in an eigenbasis of its class 0, whose rounding off the diagonal is removed."""
    core = basis.T @ core @ basis
    core[0] = np.diag(np.diagonal(core[0]))
    return core


def core_basis(core: Float[np.ndarray, "K r r"]) -> Float[np.ndarray, "r r"]:
    """The eigenbasis of class 0, in columns."""
    return np.asarray(np.linalg.eigh(core[0])[1])


def grouped(diagonal: Float[np.ndarray, "K N"], d: int, groups: int) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, " L"]]:
    """Variances (L, K) and shares (L,) of N of d directions in neighbouring groups; one of share 0 where there is none.

    The number of groups is the same for all laws of more directions.
    """
    n = diagonal.shape[1]
    if n == 0:
        return np.ones((1, len(diagonal))), np.zeros(1)
    order = np.argsort(-np.log(np.maximum(diagonal, 1e-12)).sum(0))
    parts = np.array_split(order, min(groups, n))
    return np.stack([diagonal[:, part].mean(1) for part in parts]), np.array([part.size / d for part in parts])


def aligned_eigenvalues(
    covariances: Float[np.ndarray, "K d d"], weights: Float[np.ndarray, " K"], groups: int = 24
) -> tuple[Float[np.ndarray, "L K"], Float[np.ndarray, " L"]]:
    """Eigenvalues (L, K) and weights (L,) of the nearest commuting law: diagonals in the eigenbasis of Σ_c π_c Σ_c, in few groups.

    The class variances are kept. It starts Newton's method, brackets the support and measures how fine the neuron types must be.
    """
    d = covariances.shape[1]
    diagonal = np.einsum("kaa->ak", _turned(covariances, weights))
    if d <= groups:
        return np.maximum(diagonal, 0), np.full(d, 1 / d)
    single = groups // 3
    starts = np.unique(np.concatenate([np.arange(single), np.geomspace(single, d, groups - single + 1).astype(int)[:-1]]))
    counts = np.diff(np.append(starts, d))
    return np.maximum(np.add.reduceat(diagonal, starts, axis=0) / counts[:, None], 0), counts / d
