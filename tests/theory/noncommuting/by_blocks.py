"""Learning curves by brute force, from docs/theory alone: nothing of the package, no structure used, every iteration a plain one.

The fixed point of section 4 is written once, for scalars that are 2×2 upper-triangular matrices as section 5 says: diagonal entries belong
to z1 and z2, and what multiplies the source X comes out in the corner. M, H and (I + MH)^{-1} are full 2Kd×2Kd matrices, of which
averages over the directions are block traces. Neuron types and coefficients are trapezoid sums.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Network(NamedTuple):
    """Numbers of docs/theory/equivalent.md (K classes, J neuron types, S column types (class, weight, gain)).

    Weights are those of the classes in the loss, ω_c; counts are ω_c/π_c, by which section 9.1 multiplies every δ_c.
    """

    weights: Array
    counts: Array
    signal: Array  # (K, d, d) e^{-2t} Σ_c
    delta: float
    psi_p: float
    psi_n: float
    draws: float
    shares: Array  # (J,)
    alpha: Array  # (J, K), as are v² and s²
    kept: Array
    carried: Array
    columns: list[tuple[int, float, float]]


def gauss(size: int = 81, reach: float = 10.0) -> tuple[Array, Array]:
    """Trapezoid rule for N(0, 1)."""
    g = np.linspace(-reach, reach, size)
    weights = np.exp(-(g**2) / 2)
    return g, weights / weights.sum()


ALMOST_0 = 1e-10  # stands for a weight of 0, at which 1/ω_c has no value; what it changes is of this size


def network(
    fractions: Array,
    covariances: Array,
    means: Array,
    t: float,
    psi_p: float,
    psi_n: float,
    draws: float,
    loss: Array | None = None,
) -> Network:
    """tanh, with centroids on a line or none; weights of the classes in the loss, None for their fractions."""
    weights = fractions if loss is None else np.maximum(loss, ALMOST_0)
    k, d, _ = covariances.shape
    delta, a = 1 - math.exp(-2 * t), math.exp(-t)
    values, vectors = np.linalg.eigh(means @ means.T / d)
    assert k == 1 or values[-2] < 1e-12
    g, wg = gauss(161)
    types, shares = gauss(81, 8.0) if values[-1] > 0 else (np.zeros(1), np.ones(1))
    h = types[:, None] * vectors[:, -1] * math.sqrt(max(values[-1], 0))
    alpha, kept, carried = (np.zeros_like(h) for _ in range(3))
    for c in range(k):
        variance = a**2 * np.trace(covariances[c]) / d
        total = math.sqrt(variance + delta)
        x = a * h[:, c, None] + total * g
        mean, square = np.tanh(x) @ wg, np.tanh(x) ** 2 @ wg
        alpha[:, c] = (1 - np.tanh(x) ** 2) @ wg
        both = a * h[:, c, None, None] + math.sqrt(variance) * g[:, None] + math.sqrt(delta) * g
        P = (np.tanh(both) @ wg) ** 2 @ wg
        kept[:, c] = P - mean**2 - alpha[:, c] ** 2 * variance
        carried[:, c] = square - P - alpha[:, c] ** 2 * delta
    columns = [(c, w / draws, draws) for c, w in enumerate(weights)] + [(c, w * (1 - 1 / draws), 0.0) for c, w in enumerate(weights)]
    if math.isinf(draws):
        columns = [(c, w, 1.0) for c, w in enumerate(weights)]
    return Network(weights, weights / fractions, a**2 * covariances, delta, psi_p, psi_n, draws, shares, alpha, kept, carried, columns)


class Source(NamedTuple):
    """Corners that X = U_c puts in: θ' of the columns, additions to M' and T' as multiples of those of each class."""

    theta: Array  # (K,)
    signal: Array
    noise: Array


def sources(net: Network) -> Iterator[Source]:
    """Train of each class, then test of each class."""
    zero, averaged = np.zeros(len(net.weights)), math.isinf(net.draws)
    for unit in np.eye(len(zero)):
        yield Source(unit / (unit @ net.weights), zero, unit * averaged)
    for unit in np.eye(len(zero)):
        yield Source(zero, unit, unit)


def doubled(one: Array, two: Array | None = None, corner: Array | None = None) -> Array:
    """2×2 matrices [[one, corner], [0, two]] in the last two axes."""
    out = np.zeros((*np.shape(one), 2, 2), complex)
    out[..., 0, 0], out[..., 1, 1] = one, one if two is None else two
    out[..., 0, 1] = 0 if corner is None else corner
    return out


def inverse(x: Array) -> Array:
    """Inverse of 2×2 upper-triangular matrices."""
    one, two = 1 / x[..., 0, 0], 1 / x[..., 1, 1]
    return doubled(one, two, -one * two * x[..., 0, 1])


def joined(blocks: Array) -> Array:
    """(2Kd, 2Kd) matrices of blocks (K, K, d, d, 2, 2)."""
    *batch, k, _, d, _, _, _ = blocks.shape
    n = len(batch)
    return np.moveaxis(blocks, (n, n + 2, n + 4), (n, n + 1, n + 2)).reshape(*batch, 2 * k * d, 2 * k * d)


def split(matrix: Array, k: int, d: int) -> Array:
    """Blocks (K, K, d, d, 2, 2) of (2Kd, 2Kd) matrices."""
    *batch, _, _ = matrix.shape
    n = len(batch)
    return np.moveaxis(matrix.reshape(*batch, k, d, 2, k, d, 2), (n, n + 1, n + 2), (n, n + 2, n + 4))


class Solution(NamedTuple):
    """Values of all pairs: (δ (S), q (S), average of Y (K, K)), 2×2 each."""

    delta: Array
    q: Array
    Y: Array


def solve(net: Network, z1: Array, z2: Array, source: Source, tolerance: float = 1e-11) -> Solution:
    """The fixed point for pairs (N,), by u ← (u + F(u))/2 from the free resolvent."""
    k, d, _ = net.signal.shape
    eye, averaged = np.eye(d), math.isinf(net.draws)
    z = doubled(z1, z2)
    draws = 1.0 if averaged else net.draws
    one, theta = np.eye(2), doubled(np.zeros(k), corner=source.theta)
    corner = np.array([[0, 1], [0, 0]])
    delta = np.zeros((len(z1), len(net.columns), 2, 2), complex)
    r = np.broadcast_to(inverse(-z)[:, None], (len(z1), len(net.shares), 2, 2))
    outer = net.alpha[:, :, None] * net.alpha[:, None]
    H = net.psi_p * np.einsum("j,jab,njxy->nabxy", net.shares, outer, r, optimize=True)
    while True:
        # w (θ^{-1} + δ)^{-1}, with (1 + θ')^{-1} = 1 - θ'
        q = inverse(one - np.stack([theta[c] for c, _, _ in net.columns]) + delta)
        M = np.zeros((len(z1), k, k, d, d, 2, 2), complex)
        T = np.zeros((len(z1), len(net.shares), 2, 2), complex)
        for s, (c, w, gain) in enumerate(net.columns):
            noise = 0.0 if averaged else 1.0
            M[:, c, c] += w * (gain * net.signal[c] + noise * net.delta * eye)[..., None, None] * q[:, s, None, None]
            T += w * (gain * net.kept[:, c] + noise * net.carried[:, c])[:, None, None] * q[:, s, None]
        for c in range(k):
            fixed = averaged * net.weights[c] * one
            M[:, c, c] += net.delta * eye[..., None, None] * (fixed + source.noise[c] * corner)
            M[:, c, c] += net.signal[c][..., None, None] * source.signal[c] * corner
            T += net.carried[:, c, None, None] * (fixed + source.noise[c] * corner) + net.kept[:, c, None, None] * source.signal[c] * corner
        flat = joined(M)
        wide = joined(H[:, :, :, None, None] * eye[..., None, None])
        B = np.linalg.inv(np.eye(2 * k * d) + flat @ wide)
        Psi = np.einsum("nabiixy->nabxy", split(B @ flat, k, d)) / d
        Y = split(wide @ B, k, d)
        r = inverse(T - z[:, None] + np.einsum("jab,nabxy->njxy", outer, Psi, optimize=True))
        new_H = net.psi_p * np.einsum("j,jab,njxy->nabxy", net.shares, outer, r, optimize=True)
        new_delta = np.zeros_like(delta)
        for s, (c, _, gain) in enumerate(net.columns):
            noise = 0.0 if averaged else 1.0
            seen = np.einsum("ij,njixy->nxy", gain * net.signal[c] + noise * net.delta * eye, Y[:, c, c]) / d
            seen = seen + net.psi_p * np.einsum("j,njxy->nxy", net.shares * (gain * net.kept[:, c] + noise * net.carried[:, c]), r)
            new_delta[:, s] = seen * net.counts[c] / (draws * net.psi_n)
        change = max(np.max(abs(new - old)) / np.max(abs(new)) for new, old in ((new_delta, delta), (new_H, H)))
        if change < tolerance:
            return Solution(delta, q, np.einsum("nabiixy->nabxy", Y) / d)
        delta, H = (delta + new_delta) / 2, (H + new_H) / 2


def one_traces(net: Network, z: Array) -> Array:
    """t1 (2, K, N)."""
    k = len(net.weights)
    still = Source(*np.zeros((3, k)))
    found = solve(net, z, z, still)
    Y, q, delta = (x[..., 0, 0] for x in (found.Y, found.q, found.delta))
    if math.isinf(net.draws):
        both = net.delta * np.einsum("a,nac->cn", net.weights, Y)
        return np.stack([both, both])
    b, own = np.zeros((k, len(z)), complex), np.zeros((k, len(z)), complex)
    for s, (c, w, _) in enumerate(net.columns):
        b[c] += w * q[:, s]
        own[c] += w / net.weights[c] * delta[:, s] * q[:, s]
    test = net.delta * np.einsum("an,nac->cn", b, Y)
    return np.stack([own + test * b / net.weights[:, None], test])


def two_trace(net: Network, z1: Array, z2: Array, source: Source) -> Array:
    """t2 (N,) for one source."""
    found = solve(net, z1, z2, source)
    Y1, Y2, Yx = found.Y[..., 0, 0], found.Y[..., 1, 1], found.Y[..., 0, 1]
    if math.isinf(net.draws):
        return np.asarray(-net.delta * np.einsum("a,nab,b->n", net.weights, Yx, net.weights))
    b1, b2, left, right = (np.zeros((len(net.weights), len(z1)), complex) for _ in range(4))
    same = np.zeros(len(z1), complex)
    for s, (c, w, _) in enumerate(net.columns):
        q1, q2 = found.q[:, s, 0, 0], found.q[:, s, 1, 1]
        d1, d2, dx, theta = found.delta[:, s, 0, 0], found.delta[:, s, 1, 1], found.delta[:, s, 0, 1], source.theta[c]
        b1[c] += w * q1
        b2[c] += w * q2
        same += w * q1 * q2 * (dx - d1 * theta * d2)
        left[c] -= w * q1 * q2 * (dx + d1 * theta)
        right[c] -= w * q1 * q2 * (dx + theta * d2)
    other = np.einsum("an,nab,bn->n", left, Y2, b2) + np.einsum("an,nab,bn->n", b1, Yx, b2) + np.einsum("an,nab,bn->n", b1, Y1, right)
    return np.asarray(-(same + net.delta * other))


def losses(net: Network, taus: Array, nodes: Array, weights: Array) -> Array:
    """Train and test losses (2, T, K) under gradient flow; nodes are the upper half of a contour, weights dz/(2πi) there."""
    k, rate = len(net.weights), 2 * net.delta / net.psi_p
    z, dz = np.concatenate([nodes, nodes.conj()]), np.concatenate([weights, weights.conj()])
    f = -np.expm1(-rate * np.asarray(taus)[:, None] * z) / z * dz
    upper = f[:, : len(nodes)]  # the other half of each integral is the conjugate
    first = -2 * np.real(np.einsum("tn,scn->stc", upper, one_traces(net, nodes)))
    z1, z2 = (grid.ravel() for grid in np.meshgrid(nodes, z, indexing="ij"))
    traces = np.stack([two_trace(net, z1, z2, source) for source in sources(net)]).reshape(2, k, len(nodes), len(z))
    return np.asarray(1 - 2 * first + 2 * np.real(np.einsum("ti,scij,tj->stc", upper, traces, f)))
