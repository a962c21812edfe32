"""Traces that the learning curves integrate: (1/d) tr[Vᵀ R V_c] and (1/d) tr[Vᵀ R U_c R V] (`equations`, section 5).

Where the equations divide by the weight ω_c of a class in the loss, w_τ/ω_c and b_c/ω_c, the quotients are formed without it: a class of
weight 0 has a train loss too, that of samples which the network has not seen.
"""

import jax
import jax.numpy as jnp

from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.resolvent import Point


def one_trace(eq: Equivalent, p: Point) -> tuple[jax.Array, jax.Array]:
    """t1 = (1/d) tr[Vᵀ R V_c] for the train and the test V_c, each (Z, K)."""
    Y = jnp.einsum("l,zlab->zab", eq.group_weights, p.Y)
    test = eq.noise_variance * jnp.einsum("za,zac->zc", p.b, Y)
    kinds = eq.kind_weights * eq.noise_gains
    own = jnp.einsum("s,zsk->zk", kinds, p.delta * p.q)
    return own + test * (jnp.einsum("s,zsk->zk", kinds, p.q) + eq.deterministic), test


def overlaps(eq: Equivalent) -> tuple[jax.Array, jax.Array]:
    """(1/d) tr[Vᵀ V_c] for the train and the test V_c (2, K), and the same of absolute values, against which an error of it is small.

    It is Δ ψ_p Σ_a ω_a E_h[α_a α_c]; in a training set each column also meets its own noise.
    """
    free = resolvent.unpack(resolvent.free_start(eq, -jnp.ones(1)), eq.kind_weights.shape[0], eq.linear.shape[1])
    own = eq.noise_gains * eq.kind_weights @ jnp.real(free[0][0])
    weighted = eq.noise_variance * eq.psi_p * eq.type_weights[:, None] * eq.linear
    test = eq.loss_weights @ (eq.linear.T @ weighted)
    scale = eq.loss_weights @ (abs(eq.linear).T @ abs(weighted))
    return jnp.stack([own + test, test]), jnp.stack([own + scale, scale])


def ridge_losses(eq: Equivalent, p: Point) -> jax.Array:
    """Train and test losses (2, Z, K) of ridge regression with penalties ρ, from the solution p at z = -ρ: no contour is needed."""
    first = jnp.stack(one_trace(eq, p))
    second = jnp.stack(two_trace_of_pairs(eq, p, p, resolvent.feature_averages(eq, p.r**2)))
    return jnp.real(1 - 2 * first + jnp.swapaxes(second, 1, 2))


def two_trace_of_pairs(eq: Equivalent, p1: Point, p2: Point, C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """t2 = (1/d) tr[Vᵀ R(z1) U_c R(z2) V] for the train and the test U_c, each (K, …), at pairs given by broadcasting p1 and p2.

    C (…, F, F) are their `feature_averages`.
    """
    k = eq.linear.shape[1]
    kinds = eq.kind_weights.shape[0]
    A = resolvent.linear_map(eq, p1, p2, C)
    batch = C.shape[:-2]
    # sources: class c of the training set excites its columns (ω_c θ' = 1), class c of the population its signal and noise weights
    units = jnp.eye(k, dtype=C.dtype)
    theta = jnp.concatenate([units, jnp.zeros((k, k))])
    signal = jnp.concatenate([jnp.zeros((k, k)), units])
    noise = jnp.concatenate([units * eq.deterministic, units])

    def source(theta: jax.Array, signal: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        xi = eq.kind_weights[:, None] * theta * p1.q * p2.q
        a, b = (jnp.einsum("s,...sk->...k", gains, xi) for gains in (eq.signal_gains, eq.noise_gains))
        return a + signal, b + noise

    a_source, b_source = jax.vmap(source)(theta, signal, noise)
    still = jnp.zeros((*batch, k, k), C.dtype)
    right = jax.vmap(lambda a, b: resolvent.pack(*resolvent.response(eq, p1, p2, C, a, b, still)[:2]))(a_source, b_source)
    solution = batched_systems.solve(jnp.eye(A.shape[-1]) - A, jnp.moveaxis(right, 0, -1))

    def trace(u: jax.Array, theta: jax.Array, a_source: jax.Array, b_source: jax.Array) -> jax.Array:
        delta, H = resolvent.unpack(u, kinds, k)
        a, b = resolvent.weights_response(eq, p1.q, p2.q, delta)
        Y = jnp.einsum("l,...lab->...ab", eq.group_weights, resolvent.response(eq, p1, p2, C, a + a_source, b + b_source, H)[2])
        return -sandwich(eq, p1, p2, delta, theta, Y)

    traces = jax.vmap(trace)(jnp.moveaxis(solution, -1, 0), theta, a_source, b_source)
    return traces[:k], traces[k:]


def sandwich(eq: Equivalent, p1: Point, p2: Point, delta: jax.Array, theta: jax.Array, Y: jax.Array) -> jax.Array:
    """D' + O' of `equations`, section 5: the same column twice, and two different columns joined through W; `theta` is ω_c θ'."""
    kinds = eq.kind_weights[:, None] * eq.noise_gains[:, None] * p1.q * p2.q
    delta = eq.loss_weights * delta
    same = jnp.einsum("...sk->...", kinds * (delta - p1.delta * theta * p2.delta))
    left = -jnp.einsum("...sk->...k", kinds * (delta + p1.delta * theta))
    right = -jnp.einsum("...sk->...k", kinds * (delta + theta * p2.delta))
    Y1, Y2 = (jnp.einsum("l,...lab->...ab", eq.group_weights, p.Y) for p in (p1, p2))
    joined = (
        jnp.einsum("...a,...ab,...b->...", left, Y2, p2.b)
        + jnp.einsum("...a,...ab,...b->...", p1.b, Y, p2.b)
        + jnp.einsum("...a,...ab,...b->...", p1.b, Y1, right)
    )
    return same + eq.noise_variance * joined
