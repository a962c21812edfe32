"""The two forms of `directions.Directions`: any neuron types (blocks of G), and centred classes of one neuron type (products S_c X)."""

from dataclasses import dataclass
from functools import cached_property

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
    k = x.shape[axis]
    x = np.moveaxis(x, (axis, axis + 1), (-2, -1))
    rows, cols = upper_indices(k)
    folded = np.where(rows == cols, x[..., rows, cols], x[..., rows, cols] + x[..., cols, rows])
    return np.moveaxis(folded, -1, axis + 1)


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

    def _families(self, points: Scalars) -> dict[str, np.ndarray]:
        """Coefficients (Z, K, K, 1 + K²) of Y, S Y, Bᵀ, S Bᵀ, B, B S and G over the identity and the blocks of G."""
        k, H = self.num_classes, self.matrix(points.h)
        unit = np.eye(k)
        plain = np.zeros((k, k, 1 + k * k))
        plain[..., 1:] = np.eye(k * k).reshape(k, k, k * k)
        G = np.broadcast_to(plain, (len(H), *plain.shape)).astype(complex)
        GH, HG = np.einsum("zafi,zfb->zabi", G, H), np.einsum("zaf,zfbi->zabi", H, G)
        Y, B, L = -np.einsum("zaf,zfbi->zabi", H, GH), -GH, -HG
        Y[..., 0] += H
        B[..., 0] += unit
        L[..., 0] += unit
        a, b = points.a[:, :, None, None], self.noise_variance * points.b[:, :, None, None]
        across = (0, 2, 1, 3)  # by the second class instead of the first
        BS = (G - b.transpose(across) * B) / a.transpose(across)
        return {"G": G, "Y": Y, "B": B, "L": L, "SY": (GH - b * Y) / a, "SL": (G - b * L) / a, "BS": BS}

    def averages(self, points: Scalars, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of the traces at Z points."""
        base = np.concatenate([np.ones((len(traces), 1)), traces], 1)
        family = self._families(points)
        G, Y, SY = (np.einsum("zabi,zi->zab", family[name], base) for name in ("G", "Y", "SY"))
        of_classes = [np.einsum("zcc->zc", x) for x in (SY, Y)]
        return np.concatenate([*of_classes, _fold(G, -2)], 1), Y

    def side(self, points: Scalars, traces: np.ndarray) -> Side:
        """Points and their families of coefficients."""
        return Side(points, traces, self._families(points))

    def response(self, first: Side, second: Side, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses from the products of the blocks of G."""
        k, delta = self.num_classes, self.noise_variance
        gamma = np.ones((*products.shape[:2], 1 + k * k, 1 + k * k), complex)
        gamma[..., 1:, 1:] = products
        gamma[..., 1:, 0], gamma[..., 0, 1:] = first.traces[:, None], second.traces[None]
        one, two = first.families, second.families

        def half(name: str) -> np.ndarray:
            return np.asarray(np.einsum("zabi,zyij->zyabj", one[name], gamma, optimize=True))

        Y, SY, L, SL, B, BS, G = (half(name) for name in ("Y", "SY", "L", "SL", "B", "BS", "G"))
        # which classes stay free: of the column and of its response; of a pair and its response; and with the pairs of H'
        column, pair, column_by_pair, pair_by_pair = "zyceh,yech->zyce", "zyaeh,yebh->zyabe", "zycfh,ygch->zycfg", "zyafh,ygbh->zyabfg"

        def trace(form: str, left: np.ndarray, right: str) -> np.ndarray:
            return np.asarray(np.einsum(form, left, two[right], optimize=True))

        signal = [-trace(column, SY, "SY"), -delta * trace(column, SY, "Y"), _fold(trace(column_by_pair, SL, "B"), -2)]
        noise = [-trace(column, Y, "SY"), -delta * trace(column, Y, "Y"), _fold(trace(column_by_pair, L, "B"), -2)]
        psi = [trace(pair, BS, "L"), delta * trace(pair, B, "L"), -_fold(trace(pair_by_pair, G, "G"), -2)]
        total = [-trace(pair, Y, "SY"), -delta * trace(pair, Y, "Y"), _fold(trace(pair_by_pair, L, "B"), -2)]
        rows = [np.concatenate(parts, -1) for parts in (signal, noise)]
        return np.concatenate([*rows, _fold(np.concatenate(psi, -1), -3)], -2), np.concatenate(total, -1)


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

    def averages(self, points: Scalars, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of the traces at Z points."""
        square = self.alpha**2
        psi = (1 - traces[:, :1] / points.h) / points.h
        values = [square * traces[:, 1:], square * traces[:, :1], psi]
        return np.concatenate(values, 1), traces[:, 0, None, None] * np.outer(self.alpha, self.alpha)

    def side(self, points: Scalars, traces: np.ndarray) -> Side:
        """Points as they are."""
        return Side(points, traces, {})

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
