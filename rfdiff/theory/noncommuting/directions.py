"""Directions of W where covariances do not commute: traces of d×d blocks (docs/theory/spectrum.md, eq-blocks).

Everything the directions contribute derives from the K×K blocks of G = (I + MH)^{-1} M, M = diag(M_c), M_c = a_c S_c + b_c Δ,
S_c = e^{-2t} Σ_c: with scalars alone as coefficients,

    Y = H - HGH,    B = I - GH,    Bᵀ = I - HG,    S_a Y_ab = ((GH)_ab - b_a Δ Y_ab)/a_a,    S_a (Bᵀ)_ab = (G_ab - b_a Δ (Bᵀ)_ab)/a_a.

So the response to (a', b', H') needs, for two spectral points, only the K⁴ numbers Γ = (1/d) tr[G_ab(z1) G_cd(z2)], and these are for all
pairs at once matrix products of flattened blocks. One class is eliminated in its own eigenbasis, where W = M_1 (I + H_11 M_1)^{-1} is
diagonal: the others leave (K-1)d × (K-1)d equations, one d×d matrix for two classes,

    Q = (M^{-1} + H_ij - H_i1 W H_1j)^{-1},    G_ij = Q_ij,    G_1j = -Σ_i W H_1i Q_ij,    G_11 = W + Σ_ij W H_1i Q_ij H_j1 W.

Centred classes have one neuron type, H = h ααᵀ, and need one d×d matrix for any K, X = (1/h + Σ_c α_c² M_c)^{-1}: there the base are the
products S_c X.

Shapes: Z points, K classes, r core directions, F = 2K + N responses (signal and noise of each class, N entries of H).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Complex

from rfdiff.theory.noncommuting.working_basis import Matrices


class Scalars(NamedTuple):
    """Numbers of Z points: signal and noise weights a, b (Z, K), and the entries h (Z, N) of H."""

    a: Complex[np.ndarray, "Z K"]
    b: Complex[np.ndarray, "Z K"]
    h: Complex[np.ndarray, "Z N"]

    def at(self, index: "slice | np.ndarray") -> "Scalars":
        """The points of an index."""
        return Scalars(self.a[index], self.b[index], self.h[index])

    def along(self, axis: int) -> "Scalars":
        """With one more axis, for the points of another side."""
        return Scalars(*(np.expand_dims(x, axis) for x in self))

    def with_conjugates(self) -> "Scalars":
        """The points and their complex conjugates, (2Z, …)."""
        return Scalars(*(np.concatenate([x, x.conj()]) for x in self))


class Side(NamedTuple):
    """One side of a response, at Z points: their numbers, and (1/d) tr E_i (Z, base)."""

    scalars: Scalars
    traces: Complex[np.ndarray, "Z base"]

    def at(self, index: "slice | np.ndarray") -> "Side":
        """The points of an index."""
        return Side(self.scalars.at(index), self.traces[index])


class Directions(Protocol):
    """What the closed system needs of the directions; `blocks.ManyTypes`, `blocks.OneType` and `coupled_tail.CoupledTail` provide it.

    Base matrices E_i are kept as the arrays of a node; `left` and `right` are rows of E_i and of E_iᵀ, flattened, over the core, and
    `edge` the entries over the tail, so that (1/d) tr[E_i(z1) E_j(z2)] is the product of left and right, plus that of the edges,
    plus what `across` says of elements outside core and tail.
    """

    @property
    def matrices(self) -> Matrices:
        """The covariances in their working basis."""

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Pairs (i, j) whose products determine all others."""

    def node_bytes(self) -> int:
        """Memory of a node."""

    def work_bytes(self) -> int:
        """Memory of the work on one node, and of what all nodes share."""

    def features(self, linear: np.ndarray) -> np.ndarray:
        """(J, N) products of linear coefficients that multiply the entries of Ψ in 1/r."""

    def entries(self, H: np.ndarray) -> np.ndarray:
        """(Z, N) unknown entries of H (Z, K, K)."""

    def matrix(self, h: np.ndarray) -> np.ndarray:
        """(Z, K, K) matrix H of its entries."""

    def node(self, a: np.ndarray, b: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, ...]:
        """Arrays of one point."""

    def traces(self, node: tuple[np.ndarray, ...]) -> np.ndarray:
        """(1/d) tr E_i."""

    def left(self, node: tuple[np.ndarray, ...], rows: slice) -> np.ndarray:
        """(base, rows r) elements of E_i."""

    def right(self, node: tuple[np.ndarray, ...], rows: slice) -> np.ndarray:
        """(base, rows r) elements of E_iᵀ."""

    def edge(self, node: tuple[np.ndarray, ...]) -> np.ndarray:
        """(base, d - r) tail entries of E_i."""

    def across(self, node: tuple[np.ndarray, ...], others: list[tuple[np.ndarray, ...]]) -> "np.ndarray | float":
        """(Z, base, base) that elements outside core and tail add to (1/d) tr[E_i(z1) E_j(z2)]; 0 where they are left out."""

    def fill(self, products: np.ndarray) -> np.ndarray:
        """(…, base, base) from the products (…, pairs) of `pairs`."""

    def averages(self, points: Scalars, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Z, F) values of (1/d) tr[S_c Y_cc], (1/d) tr Y_cc, Ψ; and (1/d) tr Y_ab (Z, K, K)."""

    def response(self, first: Side, second: Side, products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses (Z1, Z2, F, F) of those values, and (Z1, Z2, K, K, F) of (1/d) tr Y_ab, to (a', b', H')."""


ROWS_ELEMENTS = 2**14  # of a block of rows of a core: its products then stay in the processor's cache


MANY_PAIRS = 256  # of base matrices: from here on one product of all rows is faster than one sum for each pair


def products_at_one_point(directions: Directions, node: tuple[np.ndarray, ...]) -> np.ndarray:
    """(base, base) of (1/d) tr[E_i E_j] at one point. Few pairs are sums limited by memory: a product's threads would only cost."""
    r, d = directions.matrices.core.shape[1], directions.matrices.dimension
    pairs, edge = directions.pairs, directions.edge(node)
    total = np.zeros(len(pairs), complex)
    firsts, seconds = (list(side) for side in zip(*pairs, strict=True))
    step = max(1, ROWS_ELEMENTS // max(r, 1))
    for rows in [*_slices(r, step), None]:
        left, right = (edge, edge) if rows is None else (directions.left(node, rows), directions.right(node, rows))
        if len(pairs) > MANY_PAIRS:
            total += (left @ right.T)[firsts, seconds]
        else:
            total += [np.einsum("x,x->", left[i], right[j]) for i, j in pairs]
    return np.asarray(directions.fill((total / d)[None]) + directions.across(node, [node]))[0]


def _slices(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def products(directions: Directions, nodes: list[tuple[np.ndarray, ...]], done: Callable[[int], None]) -> np.ndarray:
    """(Z, 2Z, base, base) of (1/d) tr[E_i(z1) E_j(z2)] for z2 at the points of the upper half-plane and at their conjugates.

    Real and imaginary parts are stacked, so that one real product serves both halves; tr[E_i(z1) E_j(z2)] = tr[E_j(z2) E_i(z1)] leaves
    half of the pairs. Rows of the core are taken a few at a time, and `done` is called with their number.
    """
    r, d = directions.matrices.core.shape[1], directions.matrices.dimension
    pairs, count = directions.pairs, len(nodes)
    total = {pair: np.zeros((2 * count, 2 * count)) for pair in pairs}
    once = [(i, j) for i, j in pairs if i <= j or (j, i) not in total]

    def add(left: list[np.ndarray], right: list[np.ndarray]) -> None:
        stacked = (np.stack(side, 1) for side in (left, right))
        one, two = (np.concatenate([x.real, x.imag], 1) for x in stacked)
        for i, j in once:
            total[i, j] += one[i] @ two[j].T

    for rows in _slices(r, max(1, ROWS_ELEMENTS // max(r, 1))):
        add([directions.left(node, rows) for node in nodes], [directions.right(node, rows) for node in nodes])
        done(rows.stop - rows.start)
    edges = [directions.edge(node) for node in nodes]
    add(edges, edges)
    for i, j in pairs:
        if (i, j) not in once:
            total[i, j] = total[j, i].T
    parts = np.stack([total[pair] for pair in pairs])
    rr, ri, ir, ii = parts[:, :count, :count], parts[:, :count, count:], parts[:, count:, :count], parts[:, count:, count:]
    both = np.concatenate([rr - ii + 1j * (ri + ir), rr + ii + 1j * (ir - ri)], 2) / d
    filled = directions.fill(np.moveaxis(both, 0, -1))
    for first, node in enumerate(nodes):
        later = nodes[first:]
        same = directions.across(node, later)
        if not isinstance(same, np.ndarray):
            break
        conjugate = np.conj(directions.across(tuple(x.conj() for x in node), later))
        filled[first, first:count] += same
        filled[first, count + first :] += conjugate
        filled[first + 1 :, first] += np.swapaxes(same[1:], -1, -2)
        filled[first + 1 :, count + first] += np.swapaxes(conjugate[1:], -1, -2).conj()
    return filled
