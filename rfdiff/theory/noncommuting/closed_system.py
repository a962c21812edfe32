"""The closed system of few unknowns where the directions are given by matrices (docs/theory/curves.md, eq-two-point; host, complex128).

The unknowns are those of `resolvent`: δ of each column type and the entries of H. All that the neuron types contribute to a response is
C = E_h[r_1 r_2 f fᵀ] with their features f, all that the directions contribute is D, the response of their traces to (a', b', H').
With v = (a', b', H') the two are put together as

    δ', H' = gains · E v,    E = (D, 0) - ψ_p C (a', b', Ψ'),    v = weights(δ', H') + source,

a linear system for every pair of points; at z1 = z2 its matrix is the Jacobian of the one-point system, for Newton's method.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rfdiff.symmetric import pair_products, symmetric
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.noncommuting.directions import Directions, Scalars, Side, products_at_one_point
from rfdiff.theory.responses import Point

Array = np.ndarray
Done = Callable[[int], None]
NEWTON_STEPS = 60
NEWTON_TOLERANCE = 1e-12
NEIGHBOURS, REACH = 8, 20  # solutions that foretell one between them, and how many points away the last may be
ROUNDING = 1e-12  # of an imaginary part, relative to the largest: the δ of a class without variance is 0 up to this


class PointSolutions(NamedTuple):
    """One-point solutions at Z points: what `resolvent` calls a point (Y as averages over the directions), and what pairs need."""

    point: Point  # of numpy arrays
    scalars: Scalars
    nodes: list[tuple[Array, ...]]
    traces: Array
    residual: Array


class System(NamedTuple):
    """A problem with the directions given by matrices, as numpy arrays; features (J, F), gains (S K + N, F).

    feature_pairs (J, F (F + 1)/2): products of two features, times the weight of the neuron type.
    """

    eq: Equivalent
    directions: Directions
    features: Array
    gains: Array
    feature_pairs: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Kinds S and classes K."""
        return len(self.eq.kind_weights), len(self.eq.loss_weights)


def system_for(eq: Equivalent, directions: Directions) -> System:
    """The closed system; of the eigenvalues of `eq` their means are left, one group, so that averages can stand in their place."""
    arrays = {name: np.asarray(value) for name, value in vars(eq).items() if value is not None}
    k, kinds = arrays["linear"].shape[1], len(arrays["kind_weights"])
    arrays["eigenvalues"], arrays["group_weights"] = (arrays["group_weights"] @ arrays["eigenvalues"])[None], np.ones(1)
    eq = replace(eq, **arrays)  # type: ignore[arg-type]  # arrays of numpy here
    quadratic = directions.features(arrays["linear"])
    gains = np.zeros((kinds * k + quadratic.shape[1], 2 * k + quadratic.shape[1]))
    for s in range(kinds):
        of_kind = slice(s * k, (s + 1) * k)
        gains[of_kind, :k] = eq.signal_gains[s] * np.diag(eq.loss_weights / eq.fractions) / (eq.draws * eq.psi_n)
        gains[of_kind, k : 2 * k] = eq.noise_gains[s] * np.diag(eq.loss_weights / eq.fractions) / (eq.draws * eq.psi_n)
    gains[kinds * k :, 2 * k :] = np.eye(quadratic.shape[1])
    features = np.concatenate([eq.kept, eq.carried, quadratic], 1)
    return System(eq, directions, features, gains, np.asarray(eq.type_weights)[:, None] * pair_products(features))


def _weights(system: System, delta: Array) -> tuple[Array, Array, Array]:
    """q (…,S,K) and the weights a, b (…,K) of δ (…,S,K)."""
    eq, q = system.eq, 1 / (1 + delta)
    xi = eq.kind_weights[:, None] * eq.loss_weights * q
    a, b = (np.einsum("s,...sk->...k", gains, xi) for gains in (eq.signal_gains, eq.noise_gains))
    return q, a, b + eq.deterministic * eq.loss_weights


def _weights_map(system: System, q1: Array, q2: Array, weighted: bool = True) -> Array:
    """(…, F, S K + N) matrix of (a', b', H') in the unknowns; unweighted: in ω_c δ' in the place of δ'."""
    eq, (kinds, k) = system.eq, system.shape
    xi = -eq.kind_weights[:, None] * q1 * q2
    xi = xi * eq.loss_weights if weighted else xi
    matrix = np.zeros((*xi.shape[:-2], *system.gains.T.shape), complex)
    diagonal = np.arange(k)
    for s in range(kinds):
        matrix[..., diagonal, s * k + diagonal] = eq.signal_gains[s] * xi[..., s, :]
        matrix[..., k + diagonal, s * k + diagonal] = eq.noise_gains[s] * xi[..., s, :]
    matrix[..., 2 * k :, kinds * k :] = np.eye(matrix.shape[-2] - 2 * k)
    return matrix


def _total_response(system: System, C: Array, D: Array) -> Array:
    """E (…, F, F): responses of the signal and noise traces of each class, and of H, to (a', b', H')."""
    k, psi_p = system.shape[1], system.eq.psi_p
    coefficients = np.zeros_like(D)
    coefficients[..., np.arange(2 * k), np.arange(2 * k)] = 1
    coefficients[..., 2 * k :, :] = D[..., 2 * k :, :]
    E = -psi_p * (C @ coefficients)
    E[..., :k, :] += D[..., :k, :]
    E[..., k : 2 * k, :] += system.eq.noise_variance * D[..., k : 2 * k, :]
    return np.asarray(E)


def _feature_products(system: System, r1: Array, r2: Array) -> Array:
    """C (Z1, Z2, F, F) = E_h[r_1 r_2 f fᵀ]."""
    products = r1[:, None] * r2
    entries = products.real @ system.feature_pairs + 1j * (products.imag @ system.feature_pairs)
    return symmetric(entries, system.features.shape[1])


class _Trial(NamedTuple):
    """A point with its image under the fixed point, its Newton step and residual; arrays of one point, leading axis 1."""

    u: Array
    image: Array
    residual: float
    physical: bool
    node: tuple[Array, ...]
    scalars: Scalars
    traces: Array
    averages: tuple[Array, Array]
    q: Array
    r: Array


def _evaluate(system: System, z: complex, u: Array) -> _Trial:
    eq, (kinds, k) = system.eq, system.shape
    delta, h = u[: kinds * k].reshape(1, kinds, k), u[None, kinds * k :]
    q, a, b = _weights(system, delta)
    scalars = Scalars(a, b, h)
    node = system.directions.node(a[0], b[0], h[0])
    traces = system.directions.traces(node)[None]
    values, Y = system.directions.averages(scalars, traces)
    r = 1 / (np.concatenate([a, b, values[:, 2 * k :]], 1) @ system.features.T - z)
    averages = eq.psi_p * (r * eq.type_weights) @ system.features
    averages[:, :k] += values[:, :k]
    averages[:, k : 2 * k] += eq.noise_variance * values[:, k : 2 * k]
    image = (averages @ system.gains.T)[0]
    parts = [slice(0, kinds * k), slice(kinds * k, None)]
    residual = max(np.max(abs(image[p] - u[p])) / (np.max(abs(u[p])) + 1e-300) for p in parts)
    live = r[:, eq.type_weights > 0]
    physical = bool(
        np.isfinite(residual) and (np.imag(z) <= 0 or (np.all(live.imag > 0) and np.all(delta.imag >= -ROUNDING * abs(delta).max())))
    )
    return _Trial(u, image, float(residual), physical, node, scalars, traces, (values, Y), q, r)


def _newton_step(system: System, trial: _Trial) -> Array:
    gamma = products_at_one_point(system.directions, trial.node)[None, None]
    side = Side(trial.scalars, trial.traces)
    D, _ = system.directions.response(side, side, gamma)
    E = _total_response(system, _feature_products(system, trial.r, trial.r), D)
    A = system.gains @ E[0, 0] @ _weights_map(system, trial.q, trial.q)[0]
    return np.asarray(np.linalg.solve(np.eye(len(A)) - A, trial.image - trial.u))


def _solve_one(system: System, z: complex, start: Array, tolerance: float) -> _Trial:
    """Newton's method from a close start; a step that does not help is cut, then replaced by u ← (u + F(u))/2."""
    best = _evaluate(system, z, start)
    evaluations = 1
    while best.residual > tolerance and evaluations < NEWTON_STEPS:
        step, before = _newton_step(system, best), best
        for share in (1.0, 0.25, 0.0):
            target = best.u + share * step if share else (best.u + best.image) / 2
            trial = _evaluate(system, z, target)
            evaluations += 1
            if (trial.physical and trial.residual < 0.7 * best.residual) or (not share and trial.residual < np.inf):
                best = trial
                break
        if best is before or (best.residual > 0.5 * before.residual and best.residual < 100 * tolerance):
            break  # rounding
    return best if best.physical else best._replace(residual=np.inf)


def _coarse_to_fine(count: int) -> list[int]:
    """0, …, count - 1 in an order in which most lie between earlier ones: every fourth, then every second, then the others."""
    return list(dict.fromkeys(index for step in (4, 2, 1) for index in range(0, count, step)))


def _foretold(index: int, found: dict[int, _Trial], start: Array) -> Array:
    """The start, moved by a polynomial in the point's number: what the solutions found nearest to it say of their own starts.

    Not moved where there are too few of them: a polynomial that is carried on beyond its points is worse than none.
    """
    near = sorted((other for other in found if np.isfinite(found[other].residual)), key=lambda other: abs(other - index))[:NEIGHBOURS]
    if len(near) < NEIGHBOURS or not min(near) < index < max(near) or abs(near[-1] - index) > REACH:
        return np.asarray(start[index])
    weights = [np.prod([(index - other) / (one - other) for other in near if other != one]) for one in near]
    moves = [weight * (found[one].u - start[one]) for weight, one in zip(weights, near, strict=True)]
    return np.asarray(start[index] + np.sum(moves, 0))


def solve(system: System, z: Array, start: Array, done: Done | None = None, tolerance: float = NEWTON_TOLERANCE) -> PointSolutions:
    """One-point solutions at Z points of the upper half-plane.

    Args:
        system: the closed system.
        z: (Z,) points.
        start: (Z, S K + N) unknowns to start from.
        done: called after each finished point.
        tolerance: relative residual asked for.
    """
    found: dict[int, _Trial] = {}
    for index in _coarse_to_fine(len(z)):
        trial = _solve_one(system, complex(z[index]), _foretold(index, found, start), tolerance)
        if not np.isfinite(trial.residual):
            trial = _solve_one(system, complex(z[index]), start[index], tolerance)
        found[index] = trial
        if done is not None:
            done(1)
    trials = [found[index] for index in range(len(z))]
    (kinds, k), count = system.shape, len(trials)
    u = np.stack([trial.u for trial in trials])
    Y = np.concatenate([trial.averages[1] for trial in trials])
    scalars = Scalars(*(np.concatenate(parts) for parts in zip(*(trial.scalars for trial in trials), strict=True)))
    q, r = (np.concatenate([getattr(trial, name) for trial in trials]) for name in ("q", "r"))
    none = np.zeros((count, 1, k))  # what a point has for joint eigenvalues alone
    fields: dict[str, Any] = {  # arrays of numpy in the place of JAX's
        "delta": u[:, : kinds * k].reshape(count, kinds, k), "H": system.directions.matrix(scalars.h), "q": q, "a": scalars.a,
        "b": scalars.b, "M": none, "B": none, "G": none, "Y": Y[:, None], "r": r,
    }  # fmt: skip
    return PointSolutions(
        point=Point(**fields),
        scalars=scalars,
        nodes=[trial.node for trial in trials],
        traces=np.concatenate([trial.traces for trial in trials]),
        residual=np.array([trial.residual for trial in trials]),
    )


def start_from(system: System, delta: ArrayLike, H: ArrayLike) -> Array:
    """(Z, S K + N) unknowns from δ (Z, S, K) and H (Z, K, K) of a similar problem."""
    entries = system.directions.entries(np.asarray(H))
    return np.concatenate([np.asarray(delta).reshape(len(entries), -1), entries], 1)


class Responses(NamedTuple):
    """δ' (R, Z, X, S, K) and the average of Y' (R, Z, X, K, K) for each of X sources."""

    delta: Array
    Y: Array


def sides(system: System, solved: PointSolutions) -> Side:
    """What responses need of all points and their conjugates (2Z)."""
    traces = np.concatenate([solved.traces, solved.traces.conj()])
    return Side(solved.scalars.with_conjugates(), traces)


def responses(
    system: System,
    solved: PointSolutions,
    both: Side,
    rows: slice,
    cols: Array,
    gamma: Array,
    theta: Array,
    signal: Array,
    noise: Array,
) -> Responses:
    """Two-point responses for z1 in `rows` (R) and z2 in `cols` (C) of all points and their conjugates (2Z).

    Args:
        system: the closed system.
        solved: its one-point solutions.
        both: their `sides`.
        rows: which z1.
        cols: which z2.
        gamma: (R, C, base, base) products of the directions for these pairs.
        theta: (X, K) excitation ω_c θ' of the columns of each class, for X sources.
        signal, noise: (X, K) additions to a' and b'.
    """
    (kinds, k), q, r = system.shape, np.asarray(solved.point.q), np.asarray(solved.point.r)
    q1, q2 = q[rows, None], np.concatenate([q, q.conj()])[None, cols]
    D, total = system.directions.response(both.at(rows), both.at(cols), gamma)
    E = _total_response(system, _feature_products(system, r[rows], np.concatenate([r, r.conj()])[cols]), D)
    weights = _weights_map(system, q1, q2)
    # a source on the columns acts like -δ' of the columns does
    unit = np.zeros((system.gains.shape[0], len(theta)))
    unit[: kinds * k] = -np.tile(theta.T, (kinds, 1))
    source = _weights_map(system, q1, q2, weighted=False) @ unit
    source[..., :k, :] += signal.T
    source[..., k : 2 * k, :] += noise.T
    A = system.gains @ E
    u = np.linalg.solve(np.eye(len(system.gains)) - A @ weights, A @ source)
    Y = np.einsum("zyabf,zyfx->zyxab", total, weights @ u + source, optimize=True)
    delta = np.moveaxis(u[..., : kinds * k, :], -1, -2)
    return Responses(delta.reshape(*delta.shape[:-1], kinds, k), Y)
