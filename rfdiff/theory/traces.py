"""Traces that the learning curves integrate: (1/d) tr[Vᵀ R V_c] and (1/d) tr[Vᵀ R U_c R V] (docs/theory/curves.md, eq-traces).

Where the equations divide by the weight ω_c of a class in the loss, w_τ/ω_c and b_c/ω_c, the quotients are formed without it: a class of
weight 0 has a train loss too, that of samples which the network has not seen.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Joint, Point, column_inputs, contract, pairs_first, responses


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
    k, kinds = eq.linear.shape[1], eq.kind_weights.shape[0]
    known = responses(eq, p1, p2, joint)
    dtype, batch = known.unknowns.dtype, known.unknowns.ndim - 2
    # sources: class c of the training set excites its columns (ω_c θ' = 1), class c of the population its signal and noise weights
    units, none = jnp.eye(k, dtype=dtype), jnp.zeros((k, k))
    theta, signal, noise = (jnp.concatenate(halves) for halves in ((units, none), (none, units), (units * eq.deterministic, units)))
    direct = jnp.concatenate([signal, noise], 1).T.reshape(2 * k, 2 * k, *(1,) * batch)  # inputs a' and b' of each source
    excited = (eq.kind_weights[:, None, None] * theta.T).reshape(kinds, k, 2 * k, *(1,) * batch) * known.excitation[:, :, None]
    source = direct + column_inputs(eq, excited).sum(1).reshape(2 * k, 2 * k, *excited.shape[3:])
    right = contract(known.unknowns[:, : 2 * k], source)
    A = pairs_first(known.system(eq), 2)
    solution = batched_systems.solve(jnp.eye(A.shape[-1]) - A, pairs_first(right, 2))
    solution = jnp.moveaxis(solution, (-2, -1), (0, 1))  # (N, X, …)
    delta, H = solution[: kinds * k].reshape(kinds, k, *solution.shape[1:]), solution[kinds * k :]
    weights = (-eq.kind_weights[:, None] * eq.loss_weights).reshape(kinds, k, 1, *(1,) * batch)
    followed = column_inputs(eq, weights * known.excitation[:, :, None] * delta).sum(1).reshape(source.shape)
    inputs = jnp.concatenate([source + followed, H])
    Y = contract(known.Y.reshape(k * k, *known.Y.shape[2:]), inputs)
    Y = jnp.moveaxis(Y.reshape(k, k, *Y.shape[1:]), (0, 1), (-2, -1))
    averages = jnp.moveaxis(contract(known.averages, inputs), 0, -1)
    return PairResponses(theta, jnp.moveaxis(delta, (0, 1), (-2, -1)), Y, averages)


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
    same = (kinds * (delta - p1.delta * theta * p2.delta)).sum((-2, -1))
    left = -(kinds * (delta + p1.delta * theta)).sum(-2)
    right = -(kinds * (delta + theta * p2.delta)).sum(-2)
    Y1, Y2 = (resolvent.mean_of_Y(eq, p) for p in (p1, p2))
    # sums of products written out: they fuse to one pass, as a million small matrix products do not
    after, before = (Y2 * p2.b[..., None, :]).sum(-1), (p1.b[..., :, None] * Y1).sum(-2)
    joined = (left * after + before * right + p1.b * (Y * p2.b[..., None, :]).sum(-1)).sum(-1)
    return same + eq.noise_variance * joined
