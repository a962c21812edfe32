"""Traces that the learning curves integrate: (1/d) tr[Vᵀ R V_c] and (1/d) tr[Vᵀ R U_c R V] (docs/theory/curves.md, eq-traces).

Where the equations divide by the weight ω_c of a class in the loss, w_τ/ω_c and b_c/ω_c, the quotients are formed without it: a class of
weight 0 has a train loss too, that of samples which the network has not seen.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.resolvent import Joint, Point


def one_trace(eq: Equivalent, p: Point) -> tuple[jax.Array, jax.Array]:
    """t1 = (1/d) tr[Vᵀ R V_c] for the train and the test V_c, each (Z, K)."""
    Y = resolvent.mean_of_Y(eq, p)
    test = eq.noise_variance * jnp.einsum("za,zac->zc", p.b, Y)
    kinds = eq.kind_weights * eq.noise_gains
    own_noise = jnp.einsum("s,zsk->zk", kinds, p.delta * p.q)
    return own_noise + test * (jnp.einsum("s,zsk->zk", kinds, p.q) + eq.deterministic), test


def overlaps(eq: Equivalent) -> tuple[jax.Array, jax.Array]:
    """(1/d) tr[Vᵀ V_c] for the train and the test V_c (2, K), and the same of absolute values, against which an error of it is small.

    It is Δ ψ_p Σ_a ω_a E_h[α_a α_c]; in a training set each column also meets its own noise.
    """
    free = resolvent.unpack(resolvent.free_start(eq, -jnp.ones(1)), eq.kind_weights.shape[0], eq.linear.shape[1])
    own_noise = eq.noise_gains * eq.kind_weights @ jnp.real(free[0][0])
    weighted = eq.noise_variance * eq.psi_p * eq.type_weights[:, None] * eq.linear
    test = eq.loss_weights @ (eq.linear.T @ weighted)
    scale = eq.loss_weights @ (abs(eq.linear).T @ abs(weighted))
    return jnp.stack([own_noise + test, test]), jnp.stack([own_noise + scale, scale])


def ridge_losses(eq: Equivalent, p: Point) -> jax.Array:
    """Train and test losses (2, Z, K) of ridge regression with penalties ρ, from the solution p at z = -ρ: no contour is needed."""
    first = jnp.stack(one_trace(eq, p))
    second = jnp.stack(two_trace_of_pairs(eq, p, p, resolvent.joint_at(eq, p)))
    return jnp.real(1 - 2 * first + jnp.swapaxes(second, 1, 2))


class PairResponses(NamedTuple):
    """Responses at pairs of points to X = 2K sources: U_c of each class of the training set, then of the population.

    theta (X, K): ω_c θ', excitation of the columns. delta (X, …, S, K), Y (X, …, K, K): δ', Y'. averages (X, …, F): E_h[r' features].
    """

    theta: jax.Array
    delta: jax.Array
    Y: jax.Array
    averages: jax.Array


def pair_responses(eq: Equivalent, p1: Point, p2: Point, joint: Joint) -> PairResponses:
    """Responses at pairs given by broadcasting p1 and p2."""
    k = eq.linear.shape[1]
    kinds = eq.kind_weights.shape[0]
    A, dtype = resolvent.linear_map(eq, p1, p2, joint), joint.types.dtype
    batch = joint.types.shape[:-2]
    # sources: class c of the training set excites its columns (ω_c θ' = 1), class c of the population its signal and noise weights
    units = jnp.eye(k, dtype=dtype)
    theta = jnp.concatenate([units, jnp.zeros((k, k))])
    signal = jnp.concatenate([jnp.zeros((k, k)), units])
    noise = jnp.concatenate([units * eq.deterministic, units])

    def source(theta: jax.Array, signal: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        xi = eq.kind_weights[:, None] * theta * p1.q * p2.q
        a, b = (jnp.einsum("s,...sk->...k", gains, xi) for gains in (eq.signal_gains, eq.noise_gains))
        return a + signal, b + noise

    a_source, b_source = jax.vmap(source)(theta, signal, noise)
    still = jnp.zeros((*batch, k, k), dtype)
    right = jax.vmap(lambda a, b: resolvent.pack(*resolvent.response(eq, p1, p2, joint, a, b, still)[:2]))(a_source, b_source)
    solution = batched_systems.solve(jnp.eye(A.shape[-1]) - A, jnp.moveaxis(right, 0, -1))

    def respond(u: jax.Array, a_source: jax.Array, b_source: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        delta, H = resolvent.unpack(u, kinds, k)
        a, b = resolvent.weights_response(eq, p1.q, p2.q, delta)
        return delta, *resolvent.response(eq, p1, p2, joint, a + a_source, b + b_source, H)[2:]

    return PairResponses(theta, *jax.vmap(respond)(jnp.moveaxis(solution, -1, 0), a_source, b_source))


def two_trace_of_pairs(eq: Equivalent, p1: Point, p2: Point, joint: Joint) -> tuple[jax.Array, jax.Array]:
    """t2 = (1/d) tr[Vᵀ R(z1) U_c R(z2) V] for the train and the test U_c, each (K, …), at pairs given by broadcasting p1 and p2."""
    traces, k = vector_traces(eq, p1, p2, pair_responses(eq, p1, p2, joint)), eq.linear.shape[1]
    return traces[:k], traces[k:]


def vector_traces(eq: Equivalent, p1: Point, p2: Point, responses: PairResponses) -> jax.Array:
    """t2 (X, …) of every source."""
    return -jax.vmap(lambda theta, delta, Y: sandwich(eq, p1, p2, delta, theta, Y))(responses.theta, responses.delta, responses.Y)


def moment_traces(eq: Equivalent, p1: Point, p2: Point, responses: PairResponses) -> jax.Array:
    """(1/p) tr[U_a R(z1) X R(z2)] (X, …, K), U_a of each training class, for every source X (docs/theory/practice.md, eq-noise-trace).

    Entries of a class a of weight ω_a = 0 in the loss, of which no sample is drawn, are finite and mean nothing.
    """
    k = eq.linear.shape[1]
    weights = jnp.where(eq.loss_weights > 0, eq.loss_weights, 1)
    theta = responses.theta.reshape(-1, *(1,) * (responses.delta.ndim - 2), k) / weights
    columns = eq.kind_weights[:, None] * p1.q * p2.q * (responses.delta - p1.delta * theta * p2.delta)
    columns = columns * (eq.fractions / weights)
    sampled = eq.draws * eq.psi_n / eq.psi_p * columns.sum(-2)
    trace = jnp.diagonal(responses.Y, axis1=-2, axis2=-1)
    averaged = eq.noise_variance / eq.psi_p * trace + responses.averages[..., k : 2 * k]
    return -(sampled + eq.deterministic * averaged)


def sandwich(eq: Equivalent, p1: Point, p2: Point, delta: jax.Array, theta: jax.Array, Y: jax.Array) -> jax.Array:
    """D' + O' of docs/theory/curves.md, eq-traces: the same column twice, and two different columns joined through W; `theta` is ω_c θ'."""
    kinds = eq.kind_weights[:, None] * eq.noise_gains[:, None] * p1.q * p2.q
    delta = eq.loss_weights * delta
    same = jnp.einsum("...sk->...", kinds * (delta - p1.delta * theta * p2.delta))
    left = -jnp.einsum("...sk->...k", kinds * (delta + p1.delta * theta))
    right = -jnp.einsum("...sk->...k", kinds * (delta + theta * p2.delta))
    Y1, Y2 = (resolvent.mean_of_Y(eq, p) for p in (p1, p2))
    joined = (
        jnp.einsum("...a,...ab,...b->...", left, Y2, p2.b)
        + jnp.einsum("...a,...ab,...b->...", p1.b, Y, p2.b)
        + jnp.einsum("...a,...ab,...b->...", p1.b, Y1, right)
    )
    return same + eq.noise_variance * joined
