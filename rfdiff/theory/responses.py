"""Linear response of the fixed point at pairs of points, as one matrix of few numbers (docs/theory/spectrum.md, eq-fixed-point).

Products R(z1) X R(z2) obey a linear system given the solutions at both points, and at z1 = z2 its matrix is the Jacobian of the fixed
point. Whatever is asked of it derives from the response to F = 2K + K(K+1)/2 inputs: the weights a'_c and b'_c of each class, and the
upper entries of H'. It is formed once for each pair, and everything else is small products with it.

A pair takes a few hundred operations on matrices of K rows. Here the pairs are the last axis, so that each operation is one pass over all
of them in vector instructions; matrices of K columns as last axis are many times slower.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.symmetric import multiplicity, symmetric, upper_indices
from rfdiff.theory import coupled
from rfdiff.theory.equivalent import Equivalent

UNROLLED = 20  # terms up to which a sum of products is written out, which fuses to one pass


class Point(NamedTuple):
    """One-point solution at Z spectral points, and what follows from it.

    delta (Z,S,K), H (Z,K,K): the unknowns. q (Z,S,K): 1/(1+δ). a, b (Z,K): signal and noise weights. M (Z,L,K): diagonal.
    B (Z,L,K,K): (I + M H)^{-1}. G: B M. Y: H B. r (Z,J): resolvent entry of each neuron type.
    T (Z,K,K), blocks (Z,K,K,r,r): traces of G over coupled directions, and its blocks there; None without such directions.
    """

    delta: jax.Array
    H: jax.Array
    q: jax.Array
    a: jax.Array
    b: jax.Array
    M: jax.Array
    B: jax.Array
    G: jax.Array
    Y: jax.Array
    r: jax.Array
    T: jax.Array | None = None
    blocks: jax.Array | None = None

    @property
    def single(self) -> "Point":
        """Without the blocks, which are too large to be repeated for every pair."""
        return self._replace(blocks=None)

    @property
    def side(self) -> coupled.Side:
        """What coupled directions need of the point."""
        assert self.T is not None
        return coupled.Side(self.a, self.b, self.H, self.T)


class Joint(NamedTuple):
    """What pairs of points have in common for every source.

    types (…,F,F): E_h[r_1 r_2 features featuresᵀ], all that the neuron types contribute. directions (…,K,K,K,K): Γ, all that coupled
    directions contribute; None without them.
    """

    types: jax.Array
    directions: jax.Array | None = None


class Responses(NamedTuple):
    """Responses to F inputs at pairs (…), which are the last axes.

    unknowns (N,F,…): of δ (S K) and the upper entries of H. Y (K,K,F,…): (1/d) tr Y'. averages (F,F,…): E_h[r' features].
    excitation (S,K,…): q(z1) q(z2).
    """

    unknowns: jax.Array
    Y: jax.Array
    averages: jax.Array
    excitation: jax.Array

    def system(self, eq: Equivalent) -> jax.Array:
        """Matrix A (N,N,…) of the response system u' = A u' + source, the same for every source."""
        kinds, k = self.excitation.shape[:2]
        columns = column_inputs(eq, _wide(-eq.kind_weights[:, None] * eq.loss_weights, self.excitation) * self.excitation)
        signal, noise = self.unknowns[:, None, :k], self.unknowns[:, None, k : 2 * k]
        of_delta = signal * columns[0] + noise * columns[1]
        return jnp.concatenate([of_delta.reshape(-1, kinds * k, *of_delta.shape[3:]), self.unknowns[:, 2 * k :]], 1)


def column_inputs(eq: Equivalent, xi: jax.Array) -> jax.Array:
    """What changes ξ (S,K,…) of the columns' weights are as inputs: of a and of b, each (S,K,…) to be summed over the kinds."""
    return jnp.stack([_wide(eq.signal_gains, xi) * xi, _wide(eq.noise_gains, xi) * xi])


def pairs_last(leaf: jax.Array, batch: tuple[int, ...], inner: int) -> jax.Array:
    """An array (…, inner axes) of a point as (inner axes, …), broadcast to the pairs."""
    leaf = jnp.broadcast_to(leaf, (*batch, *leaf.shape[leaf.ndim - inner :]))
    return jnp.moveaxis(leaf, range(len(batch)), range(-len(batch), 0))


def pairs_first(values: jax.Array, inner: int) -> jax.Array:
    """An array (inner axes, …) of pairs as (…, inner axes)."""
    return jnp.moveaxis(values, range(inner), range(-inner, 0))


def contract(one: jax.Array, two: jax.Array) -> jax.Array:
    """Σ_f one (O,f,…) two (f,X,…) as (O,X,…): small matrices side by side."""
    terms = two.shape[0]
    if terms > UNROLLED:
        return jnp.einsum("of...,fx...->ox...", one, two)
    total = one[:, 0, None] * two[0]
    for f in range(1, terms):
        total = total + one[:, f, None] * two[f]
    return total


def responses(eq: Equivalent, p1: Point, p2: Point, joint: Joint) -> Responses:
    """Responses at pairs of points given by broadcasting p1 and p2."""
    k = eq.linear.shape[1]
    batch = joint.types.shape[:-2]
    Psi, Y, signal = _over_groups(eq, p1, p2, batch)
    if joint.directions is not None:
        beside = _beside(eq, p1, p2, joint.directions)
        Psi, Y, signal = Psi + beside[0], Y + beside[1], signal + beside[2]
    rows, cols = upper_indices(k)
    quadratic = (Psi[rows, cols] + Psi[cols, rows]) / 2
    types = pairs_last(joint.types, batch, 2)
    alone = jnp.pad(types[:, : 2 * k], ((0, 0), (0, quadratic.shape[0]), *((0, 0),) * len(batch)))  # a', b' as they are
    averages = -(alone + contract(types[:, 2 * k :] * _wide(multiplicity(k), types[0, 2 * k :]), quadratic))
    noise = eq.noise_variance * Y[np.arange(k), np.arange(k)]
    signal, noise = signal + eq.psi_p * averages[:k], noise + eq.psi_p * averages[k : 2 * k]
    columns = _wide(eq.signal_gains, signal[None]) * signal + _wide(eq.noise_gains, noise[None]) * noise  # (S,K,F,…)
    columns = columns * _wide(eq.loss_weights / eq.fractions / (eq.draws * eq.psi_n), columns[0])
    unknowns = jnp.concatenate([columns.reshape(-1, *columns.shape[2:]), eq.psi_p * averages[2 * k :]])
    return Responses(unknowns, Y, averages, pairs_last(p1.q * p2.q, batch, 2))


def _over_groups(eq: Equivalent, p1: Point, p2: Point, batch: tuple[int, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Σ over eigenvalue groups of Ψ' and Y' (K,K,F,…), not yet symmetric, and of the signal's Y'_cc (K,F,…)."""
    k = eq.linear.shape[1]
    rows, cols = upper_indices(k)
    (B1, G1, Y1), (B2, G2, Y2) = ([pairs_last(leaf, batch, 3) for leaf in (p.B, p.G, p.Y)] for p in (p1, p2))
    own = B1[:, :, None] * B2[:, None]  # (L,a,b,c): B_1ac B_2bc, to M'_c
    own_Y = -Y1[:, :, None] * jnp.swapaxes(Y2, 1, 2)[:, None]
    left, right, left_Y, right_Y = G1, jnp.swapaxes(G2, 1, 2), jnp.swapaxes(B1, 1, 2), jnp.swapaxes(B2, 1, 2)
    through = -_to_entries(left, right, rows, cols)  # (L,a,b,m): G_1ac G_2db, to H'_cd
    through_Y = _to_entries(left_Y, right_Y, rows, cols)
    weights = eq.group_weights
    lam = weights[:, None] * eq.eigenvalues

    def total(of_class: jax.Array, of_entries: jax.Array) -> jax.Array:
        a = (_wide(lam[:, None, None], of_class) * of_class).sum(0)
        b = eq.noise_variance * (_wide(weights, of_class) * of_class).sum(0)
        return jnp.concatenate([a, b, (_wide(weights, of_entries) * of_entries).sum(0)], 2)

    same = np.arange(k)
    own_Y_diagonal, through_diagonal = own_Y[:, same, same], through_Y[:, same, same]  # (L,k,c)
    signal = jnp.concatenate(
        [
            (_wide(lam[:, :, None] * eq.eigenvalues[:, None], own_Y_diagonal) * own_Y_diagonal).sum(0),
            eq.noise_variance * (_wide(lam[:, :, None], own_Y_diagonal) * own_Y_diagonal).sum(0),
            (_wide(lam[:, :, None], through_diagonal) * through_diagonal).sum(0),
        ],
        1,
    )
    return total(own, through), total(own_Y, through_Y), signal


def _to_entries(left: jax.Array, right: jax.Array, rows: np.ndarray, cols: np.ndarray) -> jax.Array:
    """left_ac right_bd (L,K,K,M,…) for the upper entries c ≤ d, both orders where they differ."""
    one = left[:, :, None, rows] * right[:, None, :, cols]
    other = left[:, :, None, cols] * right[:, None, :, rows]
    return one + _wide(np.where(rows == cols, 0.0, 1.0), one[0, 0, 0]) * other


def _beside(eq: Equivalent, p1: Point, p2: Point, directions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What coupled directions add to Ψ' and Y' (K,K,F,…) and to the signal's Y'_cc (K,F,…)."""
    k = eq.linear.shape[1]
    units = jnp.eye(2 * k + multiplicity(k).size)

    def to_unit(unit: jax.Array) -> coupled.Traces:
        return coupled.response(eq, p1.side, p2.side, directions, unit[:k], unit[k : 2 * k], symmetric(unit[2 * k :], k))

    found = jax.vmap(to_unit)(units)
    Psi, Y = (jnp.moveaxis(leaf, (-2, -1, 0), (0, 1, 2)) for leaf in (found.Psi, found.Y))
    return Psi, Y, jnp.moveaxis(found.signal, (-1, 0), (0, 1))


def _wide(values: jax.Array | np.ndarray, like: jax.Array) -> jax.Array:
    """Numbers with as many axes more at the end as another array has."""
    values = jnp.asarray(values)
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))
