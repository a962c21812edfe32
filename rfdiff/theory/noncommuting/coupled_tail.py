"""Elements of the covariances outside a core, to second order (docs/theory/spectrum.md, eq-outside).

With M = D + O, D the core and the diagonal of the tail and O the elements beside them, G = (M^{-1} + H)^{-1}, P = (I + DH)^{-1} and
Y = HP at O = 0,

    G(D + O) = G + P O Pᵀ - P O Y O Pᵀ + …,

the second term between core and tail or within the tail, the third within both. O_c = a_c S_c enters by sums of S_a,ij S_b,ij over the
tail directions of a group, in which D, and so P and Y, hardly differ (`tail_coupling`). Products of the second term of two points take P
of a core direction from its own block: what is left out is of third order in O, and of second where core directions are coupled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex

from rfdiff.theory.noncommuting.blocks import ManyTypes, Node
from rfdiff.theory.noncommuting.tail_coupling import TailCoupling

BLOCK_ELEMENTS = 2**21  # of the arrays of several points at a time


@dataclass(frozen=True)
class CoupledTail(ManyTypes):
    """As `blocks.ManyTypes`, with the elements outside the core to second order.

    A node keeps the blocks of G in the core and in the tail, and P at the sites.
    """

    coupling: TailCoupling

    def node_bytes(self) -> int:
        """Memory of the blocks."""
        k, r = self.num_classes, self.matrices.core.shape[1]
        return 16 * k * k * (r * r + self.matrices.tail.shape[1] + self.coupling.squares.shape[-1])

    def work_bytes(self) -> int:
        """Memory of the blocks in work, and of the coupling."""
        return 12 * self.node_bytes() + sum(part.nbytes for part in self.coupling)

    def node(self, a: np.ndarray, b: np.ndarray, h: np.ndarray) -> Node:
        """G of the core (K, K, r, r) and of the tail (K², d - r), and P_ac √a_c at the sites (K of c, S, K of a)."""
        plain, coupling, H = super().node(a, b, h), self.coupling, self.matrix(h)
        k, r = self.num_classes, plain[0].size
        G = super().left(plain, slice(0, r)).reshape(k, k, r, r)
        D = a[:, None] * coupling.diagonal + self.noise_variance * b[:, None]
        P = np.linalg.inv(np.eye(k) + D.T[:, :, None] * H)
        Y, signals = H @ P, np.outer(a, a)
        P_core = -_by_class(G, H)
        P_core[np.arange(k), np.arange(k)] += np.eye(r)
        Y_core = np.moveaxis(_by_class(np.moveaxis(P_core, 0, 1), H), 1, 0)

        within = np.einsum("abgh,hab->gab", coupling.squares[:, :, r:, r:], Y) * self.matrices.dimension
        between = np.stack([np.sum(one * Y_core, (-2, -1)) for one in coupling.onto])
        on_tail = signals * (within + between) / coupling.counts[:, None, None]
        on_core = np.zeros_like(G)
        for one, of_group in zip(coupling.onto, Y, strict=True):
            on_core += one * (signals * of_group)[:, :, None, None]

        tail = plain[3] - (P @ on_tail @ np.swapaxes(P, 1, 2)).reshape(-1, k * k).T[:, coupling.group]
        half = on_core - _block_product(G, np.moveaxis(_by_class(np.moveaxis(on_core, 0, 1), H), 1, 0))
        core = G - half + _block_product(_by_class(half, H), G)
        rooted = np.concatenate([np.einsum("abii->iab", P_core), P]) * np.sqrt(a)
        return core, tail, np.ascontiguousarray(rooted.transpose(2, 0, 1))

    def left(self, node: Node, rows: slice) -> np.ndarray:
        """Rows of the blocks of G."""
        return np.asarray(node[0][:, :, rows].reshape(self.num_classes**2, -1))

    def edge(self, node: Node) -> np.ndarray:
        """Blocks of the tail directions."""
        return node[1]

    def traces(self, node: Node) -> np.ndarray:
        """(1/d) tr G_ab."""
        return np.asarray((np.einsum("abii->ab", node[0]).ravel() + node[1].sum(1)) / self.matrices.dimension)

    def across(self, node: Node, others: Sequence[Node]) -> Complex[np.ndarray, "Z K*K K*K"]:
        """(1/d) tr of P O Pᵀ of a node by that of each of the others."""
        k, P1 = self.num_classes, node[2]
        sites = P1.shape[1]
        step = max(1, BLOCK_ELEMENTS // (k**4 * sites))
        pieces = []
        for start in range(0, len(others), step):
            P2 = np.stack([other[2] for other in others[start : start + step]])
            pairs = (P1[:, None, :, :, None] * P2[:, None, :, :, None, :]).reshape(len(P2), k, k, sites, k * k)  # z c h s af
            summed = _real_by(self.coupling.squares, pairs).reshape(len(P2), -1, k * k)  # z chs be
            pieces.append(np.swapaxes(pairs.reshape(summed.shape), -1, -2) @ summed)
        whole = np.concatenate(pieces).reshape(-1, k, k, k, k)  # z a f b e
        return whole.transpose(0, 1, 3, 4, 2).reshape(-1, k * k, k * k)


def _by_class(blocks: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Σ_c x_ac H_cb of blocks x (K, K, r, r)."""
    return np.asarray(np.einsum("acij,cb->abij", blocks, H, optimize=True))


def _block_product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Σ_c x_ac y_cb of blocks (K, K, r, r) each."""
    k, r = one.shape[1:3]
    first, second = (np.swapaxes(x, 1, 2).reshape(k * r, k * r) for x in (one, other))
    return np.swapaxes((first @ second).reshape(k, r, k, r), 1, 2)


def _real_by(real: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Product of real matrices and complex ones, whose real and imaginary parts are columns."""
    return np.asarray((real @ other.view(float)).view(complex))
