"""The two forms of `directions.Directions`: any neuron types (blocks of G), and centred classes of one neuron type (products S_c X)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rfdiff.symmetric import pair_products, symmetric, upper, upper_indices
from rfdiff.theory.noncommuting.directions import Directions, Scalars, Side
from rfdiff.theory.noncommuting.working_basis import Matrices

Node = tuple[np.ndarray, ...]


def directions_for(matrices: Matrices, linear: np.ndarray, noise_variance: float) -> Directions:
    """The cheaper form: one d×d matrix a point where there is one neuron type (centred classes) or two classes.

    Args:
        matrices: the covariances in their working basis.
        linear: (J, K) linear coefficients α_c of the neuron types.
        noise_variance: Δ.
    """
    if len(linear) == 1 and np.any(linear):
        return OneType(matrices, noise_variance, linear[0])
    return ManyTypes(matrices, noise_variance)


def _fold(x: np.ndarray, axis: int) -> np.ndarray:
    """Entries a ≤ b of the axes (axis, axis + 1), negative numbers: x_aa, and x_ab + x_ba."""
    k, after = x.shape[axis], x.shape[axis:][2:]
    flat = x.reshape(*x.shape[:axis], k * k, *after)  # taken along one axis: many times faster than by two indices
    rows, cols = upper_indices(k)
    folded, beside = flat.take(rows * k + cols, axis + 1), np.flatnonzero(rows != cols)
    folded[(..., beside, *(slice(None) for _ in after))] += flat.take((cols * k + rows)[beside], axis + 1)
    return folded


@dataclass(frozen=True)
class ManyTypes:
    """Base matrices: the K² blocks of G; a node keeps W, the y_i = -W H_1i, Q and the blocks of the tail."""

    matrices: Matrices
    noise_variance: float

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return len(self.matrices.core)

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """One of each pair (G_ab, G_cd) and (G_ba, G_dc), which have the same product."""
        return tuple(dict.fromkeys(min((i, j), self._mirror(i, j)) for i in range(self.num_classes**2) for j in range(self.num_classes**2)))

    def _mirror(self, i: int, j: int) -> tuple[int, int]:
        k = self.num_classes
        return (i % k) * k + i // k, (j % k) * k + j // k

    @cached_property
    def _pair_of(self) -> np.ndarray:
        """(K², K²) index in `pairs`."""
        number, n = {pair: index for index, pair in enumerate(self.pairs)}, self.num_classes**2
        return np.array([[number[min((i, j), self._mirror(i, j))] for j in range(n)] for i in range(n)])

    def fill(self, products: np.ndarray) -> np.ndarray:
        """All products from those of `pairs`."""
        return products[..., self._pair_of]

    def node_bytes(self) -> int:
        """Memory of Q and the tail."""
        k, r = self.num_classes, self.matrices.core.shape[1]
        return 16 * (((k - 1) * r) ** 2 + k * r + k * k * self.matrices.tail.shape[1])

    def work_bytes(self) -> int:
        """Memory of LAPACK's copies."""
        return 6 * self.node_bytes()

    def features(self, linear: np.ndarray) -> np.ndarray:
        """α_a α_b for a ≤ b."""
        return pair_products(linear)

    def entries(self, H: np.ndarray) -> np.ndarray:
        """H_ab for a ≤ b."""
        return upper(H)

    def matrix(self, h: np.ndarray) -> np.ndarray:
        """H of its upper entries."""
        return symmetric(h, self.num_classes)

    def node(self, a: np.ndarray, b: np.ndarray, h: np.ndarray) -> Node:
        """W (r,), y (K - 1, r), Q (K - 1, K - 1, r, r), tail blocks of G (K², d - r)."""
        (k, r), H, b = self.matrices.core.shape[:2], self.matrix(h), b * self.noise_variance
        m = a[0] * np.diagonal(self.matrices.core[0]) + b[0]
        W = m / (1 + H[0, 0] * m)
        system, right = np.zeros((2, k - 1, r, k - 1, r), complex)
        for i in range(1, k):
            M = a[i] * self.matrices.core[i]
            M[np.arange(r), np.arange(r)] += b[i]
            right[i - 1, :, i - 1] = M
            for j in range(1, k):
                system[i - 1, :, j - 1] = M * (H[i, j] - H[i, 0] * H[0, j] * W)
            system[i - 1, np.arange(r), i - 1, np.arange(r)] += 1
        size = (k - 1) * r
        Q = np.linalg.solve(system.reshape(size, size), right.reshape(size, size)).reshape(k - 1, r, k - 1, r).transpose(0, 2, 1, 3)
        tail = a[:, None] * self.matrices.tail + b[:, None]
        G = np.linalg.inv(np.eye(k) + tail.T[:, :, None] * H) * tail.T[:, None, :]
        return W, -H[0, 1:, None] * W, Q, G.reshape(-1, k * k).T

    def left(self, node: Node, rows: slice) -> np.ndarray:
        """Rows of the blocks of G."""
        W, y, Q, _ = node
        k, r, diagonal = self.num_classes, W.size, W[rows]
        G = np.zeros((k, k, diagonal.size, r), complex)
        G[1:, 1:] = Q[:, :, rows]
        G[0, 1:] = (y[:, None, rows, None] * G[1:, 1:]).sum(0)
        G[1:, 0] = (G[1:, 1:] * y[None, :, None, :]).sum(1)
        G[0, 0] = (G[0, 1:] * y[:, None, :]).sum(0)
        G[0, 0, np.arange(diagonal.size), np.arange(r)[rows]] += diagonal
        return G.reshape(k * k, -1)

    def right(self, node: Node, rows: slice) -> np.ndarray:
        """Rows of the transposed blocks: G is symmetric as a whole."""
        k = self.num_classes
        return self.left(node, rows)[np.arange(k * k).reshape(k, k).T.ravel()]

    def edge(self, node: Node) -> np.ndarray:
        """Blocks of the tail directions."""
        return node[3]

    def traces(self, node: Node) -> np.ndarray:
        """(1/d) tr G_ab."""
        W, y, Q, tail = node
        k = self.num_classes
        G = np.zeros((k, k, W.size), complex)
        G[1:, 1:] = np.einsum("ijaa->ija", Q)
        G[0, 1:] = (y[:, None] * G[1:, 1:]).sum(0)
        G[1:, 0] = (G[1:, 1:] * y[None]).sum(1)
        G[0, 0] = W + (G[0, 1:] * y).sum(0)
        return (G.sum(-1).ravel() + tail.sum(1)) / self.matrices.dimension

    def across(self, node: Node, others: Sequence[Node]) -> "np.ndarray | float":
        """0: elements outside core and tail are left out."""
        return 0.0

    def averages(self, points: Scalars, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of the traces at Z points."""
        k = self.num_classes
        G = traces.reshape(-1, k, k)
        own = _Own.of(points, self.matrix(points.h), G, self.noise_variance)
        of_classes = [np.einsum("zcc->zc", x) for x in (own.SY, own.Y)]
        return np.concatenate([*of_classes, _fold(G, -2)], 1), own.Y

    def response(self, first: Side, second: Side, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses from the products Γ of the blocks of G: all families are I, G, GH, HG and HGH, so H is multiplied to Γ instead."""
        k, delta = self.num_classes, self.noise_variance
        H1, H2 = self.matrix(first.scalars.h)[:, None], self.matrix(second.scalars.h)[None]
        G1, G2 = first.traces.reshape(-1, 1, k, k), second.traces.reshape(1, -1, k, k)
        one = _Own.of(first.scalars.along(1), H1, G1, delta)
        a1, b1, a2, b2 = (x[..., None, None] for x in (one.a, one.b, second.scalars.a[None], delta * second.scalars.b[None]))
        a1e, b1e, a2e, b2e = (np.swapaxes(x, -3, -2) for x in (a1, b1, a2, b2))
        gamma = products.reshape(*products.shape[:2], k, k, k, k)
        unit, H2G2, G2H2 = np.eye(k), H2 @ G2, G2 @ H2

        # E_ae(z1) by the row e of H(z2) G_eb(z2), for E = Y, SY, B and BS
        left = H2[:, :, None, None] @ gamma
        of_G, of_GH = np.einsum("zyaeeb->zyaeb", left), np.einsum("zyageb,zge->zyaeb", left, H1[:, 0], optimize=True)
        P_Y = H1[..., None] * H2G2[..., None, :, :] - _times_first(H1, of_GH)
        P_SY = (of_GH - b1 * P_Y) / a1
        P_B = unit[:, :, None] * H2G2[..., None, :, :] - of_GH
        P_BS = (of_G - b1e * P_B) / a1e
        # E_ae(z1) by G_eb(z2) alone, for E = Y and SY
        bare = np.einsum("zyageb,zge->zyaeb", gamma, H1[:, 0], optimize=True)
        D_Y = H1[..., None] * G2[..., None, :, :] - _times_first(H1, bare)
        D_SY = (bare - b1 * D_Y) / a1

        def by_Y(own: np.ndarray, P: np.ndarray) -> np.ndarray:
            return np.asarray(own[..., None] * H2[..., None, :, :] - P @ H2[:, :, None])

        def by_SY(own: np.ndarray, P: np.ndarray, D: np.ndarray) -> np.ndarray:
            return np.asarray((D @ H2[:, :, None] - b2e * by_Y(own, P)) / a2e)

        def by_L(own: np.ndarray, P: np.ndarray) -> np.ndarray:
            return np.asarray(own[..., None] * unit - P)

        # E_af(z1) by B_gb(z2), for E = L and SL
        right = (gamma.reshape(*gamma.shape[:2], k**3, k) @ H2).reshape(gamma.shape)
        by_B = one.L[..., None, None] * unit - unit[:, :, None, None] * G2H2[..., None, None, :, :] + _times_first(H1, right)
        of_class = np.einsum("zycfgc->zycfg", by_B)
        plain = one.G[..., None] * unit[:, None, :] - np.einsum("zycfgc->zycfg", right)
        signal_B = (plain - b1 * of_class) / a1

        column = "zycec->zyce"
        signal = [-np.einsum(column, by_SY(one.SY, P_SY, D_SY)), -delta * np.einsum(column, by_Y(one.SY, P_SY)), _fold(signal_B, -2)]
        noise = [-np.einsum(column, by_SY(one.Y, P_Y, D_Y)), -delta * np.einsum(column, by_Y(one.Y, P_Y)), _fold(of_class, -2)]
        pairs = [by_L(one.BS, P_BS), delta * by_L(one.B, P_B), -by_SY(one.Y, P_Y, D_Y), -delta * by_Y(one.Y, P_Y)]
        to_signal, to_noise, total_signal, total_noise = (np.swapaxes(x, -1, -2) for x in pairs)
        psi, of_H = (np.swapaxes(_fold(x, -3), -1, -2) for x in (-gamma, by_B))
        rows = [np.concatenate(parts, -1) for parts in (signal, noise)]
        of_psi = _fold(np.concatenate([to_signal, to_noise, psi], -1), -3)
        return np.concatenate([*rows, of_psi], -2), np.concatenate([total_signal, total_noise, of_H], -1)


def _times_first(H: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Σ_f H_af x_f… over the first axis after those of the two points."""
    return np.asarray(H @ x.reshape(*x.shape[:3], -1)).reshape(x.shape)


class _Own(NamedTuple):
    """Traces over the directions of one point's families, (…, K, K) each, with a and bΔ (…, K)."""

    a: np.ndarray
    b: np.ndarray
    G: np.ndarray
    Y: np.ndarray
    SY: np.ndarray
    B: np.ndarray
    BS: np.ndarray
    L: np.ndarray

    @classmethod
    def of(cls, points: Scalars, H: np.ndarray, G: np.ndarray, noise_variance: float) -> "_Own":
        """From H and the traces of G."""
        a, b, unit, GH = points.a, noise_variance * points.b, np.eye(H.shape[-1]), G @ H
        Y, B = H - H @ GH, unit - GH
        SY, BS = (GH - b[..., None] * Y) / a[..., None], (G - B * b[..., None, :]) / a[..., None, :]
        return cls(a, b, G, Y, SY, B, BS, unit - H @ G)


@dataclass(frozen=True)
class OneType:
    """Base matrices: X and S_c X, for H = h ααᵀ; a node keeps X and its tail."""

    matrices: Matrices
    noise_variance: float
    alpha: np.ndarray

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs i ≤ j: tr[S_i X1 S_j X2] is symmetric in i and j."""
        size = len(self.alpha) + 1
        return tuple((i, j) for i in range(size) for j in range(i, size))

    def fill(self, products: np.ndarray) -> np.ndarray:
        """All products from those of `pairs`."""
        return symmetric(products, len(self.alpha) + 1)

    def node_bytes(self) -> int:
        """Memory of X and its tail."""
        return 16 * (self.matrices.core.shape[1] ** 2 + self.matrices.tail.shape[1])

    def work_bytes(self) -> int:
        """Memory of LAPACK's copies."""
        return 6 * self.node_bytes()

    def features(self, linear: np.ndarray) -> np.ndarray:
        """1: the entry of Ψ is αᵀ Ψ α."""
        return np.ones((len(linear), 1))

    def entries(self, H: np.ndarray) -> np.ndarray:
        """h of H = h ααᵀ."""
        return np.einsum("zab,a,b->z", H, self.alpha, self.alpha)[:, None] / np.sum(self.alpha**2) ** 2

    def matrix(self, h: np.ndarray) -> np.ndarray:
        """h ααᵀ."""
        return h[..., None] * np.outer(self.alpha, self.alpha)

    def node(self, a: np.ndarray, b: np.ndarray, h: np.ndarray) -> Node:
        """X (r, r) and its tail (d - r,)."""
        square = self.alpha**2
        shift = self.noise_variance * (square @ b) + 1 / h[0]
        system = np.einsum("k,kab->ab", square * a, self.matrices.core)
        system[np.arange(len(system)), np.arange(len(system))] += shift
        return np.linalg.inv(system), 1 / ((square * a) @ self.matrices.tail + shift)

    def left(self, node: Node, rows: slice) -> np.ndarray:
        """Rows of X and S_c X."""
        X, S = node[0], self.matrices.core
        base = [X[rows], np.diagonal(S[0])[rows, None] * X[rows], *(_product(s[rows], X) for s in S[1:])]
        return np.stack(base).reshape(len(base), -1)

    def right(self, node: Node, rows: slice) -> np.ndarray:
        """Rows of X and X S_c."""
        X, S = node[0][rows], self.matrices.core
        base = [X, X * np.diagonal(S[0]), *(_product(X, s) for s in S[1:])]
        return np.stack(base).reshape(len(base), -1)

    def edge(self, node: Node) -> np.ndarray:
        """X and S_c X of the tail directions."""
        return np.concatenate([node[1][None], self.matrices.tail * node[1]])

    def traces(self, node: Node) -> np.ndarray:
        """(1/d) tr X and (1/d) tr S_c X."""
        of_core = [np.trace(node[0]), *np.einsum("kab,ab->k", self.matrices.core, node[0])]
        return (np.array(of_core) + self.edge(node).sum(1)) / self.matrices.dimension

    def across(self, node: Node, others: Sequence[Node]) -> "np.ndarray | float":
        """0: elements outside core and tail are left out."""
        return 0.0

    def averages(self, points: Scalars, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of the traces at Z points."""
        square = self.alpha**2
        psi = (1 - traces[:, :1] / points.h) / points.h
        values = [square * traces[:, 1:], square * traces[:, :1], psi]
        return np.concatenate(values, 1), traces[:, 0, None, None] * np.outer(self.alpha, self.alpha)

    def response(self, first: Side, second: Side, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses from the products of X and S_c X."""
        square, delta = self.alpha**2, self.noise_variance
        h1, h2 = first.scalars.h[:, None, :], second.scalars.h[None]
        inverse = 1 / (h1 * h2)
        P, plain, mixed = products[..., 1:, 1:], products[..., :1, :1], products[..., 1:, :1]
        both = np.outer(square, square)
        signal = [-both * P, -delta * both * mixed, square[:, None] * mixed * inverse[..., None]]
        noise = [-both * np.swapaxes(mixed, -1, -2), -delta * both * plain, square[:, None] * plain * inverse[..., None]]
        rest = 1 - first.traces[:, None, :1] / h1 - second.traces[None, :, :1] / h2 + inverse * plain[..., 0]
        to_a = square * mixed[..., 0] * inverse
        to_b = delta * square * plain[..., 0] * inverse
        psi = np.concatenate([to_a, to_b, -inverse * rest], -1)
        rows = [np.concatenate(parts, -1) for parts in (signal, noise)]
        total = np.concatenate([-square * mixed[..., 0], -delta * square * plain[..., 0], inverse * plain[..., 0]], -1)
        return np.concatenate([*rows, psi[..., None, :]], -2), total[..., None, None, :] * np.outer(self.alpha, self.alpha)[:, :, None]


def _product(real: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Product of a real and a complex matrix, in either order, as two real ones."""
    if np.iscomplexobj(other):
        return np.asarray(real @ other.real + 1j * (real @ other.imag))
    return np.asarray(real.real @ other + 1j * (real.imag @ other))
