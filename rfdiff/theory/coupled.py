"""Directions that class covariances couple: traces of r×r blocks beside averages over eigenvalues (docs/theory/spectrum.md, eq-blocks).

Where covariances do not commute, `Equivalent.coupled` holds them in r directions; the other directions have joint eigenvalues. All that
the r directions contribute derives from the blocks G_ab of G = (I + MH)^{-1} M, M = diag(a_c S_c + b_c Δ), S_c = e^{-2t} Σ_c. With
T_ab = (1/d) tr G_ab and the share r/d of the directions,

    Σ Y = (r/d) H - H T H,    (1/d) tr[S_c Y_cc] = ((TH)_cc - b_c Δ (ΣY)_cc)/a_c,    Ψ = T.

The response to a', b', H' needs of two points the K⁴ numbers Γ_{ae,cb} = (1/d) tr[G_ae(z1) G_cb(z2)] alone. With the diagonal matrices
α = a'/a_2, β = Δ (b' - a' b_2/a_2) and Γ[X]_ab = Σ_ec X_ec Γ_{ae,cb},

    Ψ' = α T_2 + (r/d) β - β H_2 T_2 - T_1 H_1 β + Γ[H_1 β H_2 - H_1 α - H'],
    Y' = (r/d) H' - H_1 T_1 H' - H' T_2 H_2 - H_1 Ψ' H_2,

and the trace of S_c Y'_cc follows from M Y = G H, as a product of two doubled matrices. Class 0 is eliminated where it is diagonal:
with W = M_0 (I + H_00 M_0)^{-1} the other classes leave (K - 1) r equations,

    Q = (I + M_i (H_ij - H_i0 W H_0j))^{-1} M_i,    G_ij = Q_ij,    G_0j = -Σ_i W H_0i Q_ij,    G_00 = W + Σ_ij W H_0i Q_ij H_j0 W.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfdiff.theory import batched_systems
from rfdiff.theory.equivalent import Coupled, Equivalent


class Traces(NamedTuple):
    """Sums over the coupled directions, divided by d, at Z points or pairs: Ψ and Y (…, K, K), and S_c Y_cc (…, K)."""

    Psi: jax.Array
    Y: jax.Array
    signal: jax.Array


def blocks(eq: Equivalent, a: jax.Array, b: jax.Array, H: jax.Array) -> jax.Array:
    """G (Z, K, K, r, r) at Z points with weights a, b (Z, K) and H (Z, K, K)."""
    S = _directions(eq).core
    k, r = S.shape[:2]
    m = a[:, :1] * jnp.diagonal(S[0]) + eq.noise_variance * b[:, :1]
    W = m / (1 + H[:, :1, 0] * m)  # (Z, r)
    M = a[:, 1:, None, None] * S[1:] + (eq.noise_variance * b[:, 1:])[..., None, None] * jnp.eye(r)
    between = H[:, 1:, 1:, None] - H[:, 1:, :1, None] * H[:, :1, 1:, None] * W[:, None, None, :]  # (Z, i, j, r)
    system = M[:, :, :, None, :] * between[:, :, None]
    size = (k - 1) * r
    system = system.reshape(-1, size, size) + jnp.eye(size)
    right = (jnp.eye(k - 1)[:, None, :, None] * M[:, :, :, None, :]).reshape(-1, size, size)
    Q = (batched_systems.large_inverse(system) @ right).reshape(-1, k - 1, r, k - 1, r).transpose(0, 1, 3, 2, 4)
    y = -H[:, 0, 1:, None] * W[:, None]  # (Z, i, r)
    top = (y[:, :, None, :, None] * Q).sum(1)  # G_0j
    left = (Q * y[:, None, :, None, :]).sum(2)  # G_i0
    corner = (top * y[:, :, None, :]).sum(1) + W[:, :, None] * jnp.eye(r)
    upper = jnp.concatenate([corner[:, None], top], 1)[:, None]
    return jnp.concatenate([upper, jnp.concatenate([left[:, :, None], Q], 2)], 1)


class Side(NamedTuple):
    """What is needed of a point beside products of blocks: a, b (…, K), H and T (…, K, K)."""

    a: jax.Array
    b: jax.Array
    H: jax.Array
    T: jax.Array


def traces(eq: Equivalent, point: Side) -> Traces:
    """Sums at points."""
    Y = share(eq) * point.H - point.H @ point.T @ point.H
    signal = (_diagonal(point.T @ point.H) - point.b * eq.noise_variance * _diagonal(Y)) / point.a
    return Traces(point.T, Y, signal)


def free(eq: Equivalent, H: jax.Array) -> Traces:
    """Sums of the free resolvent, where Y = H."""
    variance = trace(eq, _directions(eq).core)
    return Traces(jnp.zeros_like(H), share(eq) * H, variance * _diagonal(H))


def _directions(eq: Equivalent) -> Coupled:
    assert eq.coupled is not None
    return eq.coupled


def share(eq: Equivalent) -> jax.Array:
    """r/d."""
    return _directions(eq).weight * _directions(eq).core.shape[-1]


def trace(eq: Equivalent, G: jax.Array) -> jax.Array:
    """(1/d) tr of blocks (…, r, r)."""
    return _directions(eq).weight * jnp.trace(G, axis1=-2, axis2=-1)


def products(eq: Equivalent, one: jax.Array, two: jax.Array) -> jax.Array:
    """Γ (Z, K, K, K, K) of Z pairs of points."""
    z, k = one.shape[:2]
    left, right = one.reshape(z, k * k, -1), jnp.swapaxes(two, -1, -2).reshape(z, k * k, -1)
    return _directions(eq).weight * _product(left, jnp.swapaxes(right, 1, 2)).reshape(z, k, k, k, k)


def products_of_all(eq: Equivalent, one: jax.Array, two: jax.Array) -> jax.Array:
    """Γ (Z1, Z2, K, K, K, K) of every point with every other."""
    (z1, k), z2 = one.shape[:2], two.shape[0]
    left, right = one.reshape(z1 * k * k, -1), jnp.swapaxes(two, -1, -2).reshape(z2 * k * k, -1)
    gamma = _product(left, right.T).reshape(z1, k, k, z2, k, k)
    return _directions(eq).weight * jnp.moveaxis(gamma, 3, 1)


def response(eq: Equivalent, p1: Side, p2: Side, gamma: jax.Array, a: jax.Array, b: jax.Array, H: jax.Array) -> Traces:
    """Responses Ψ', Y' and S_c Y'_cc to a', b' (…, K) and H' (…, K, K) for pairs of points whose products are gamma (…, K, K, K, K)."""
    delta, rest = eq.noise_variance, share(eq)
    alpha = a / p2.a
    beta = delta * (b - alpha * p2.b)
    inner = (p1.H * beta[..., None, :]) @ p2.H
    X = inner - p1.H * alpha[..., None, :] - H
    first, second = p1.T @ p1.H, p2.T @ p2.H
    Psi = alpha[..., :, None] * p2.T + rest * beta[..., :, None] * jnp.eye(beta.shape[-1]) - beta[..., :, None] * (p2.H @ p2.T)
    Psi = Psi - first * beta[..., None, :] + jnp.einsum("...ec,...aecb->...ab", X, gamma)
    Y = rest * H - p1.H @ p1.T @ H - H @ second - p1.H @ Psi @ p2.H
    _, Y2, signal2 = traces(eq, p2)
    whole = _diagonal(Psi @ p2.H) + jnp.einsum("...ab,...ba->...a", p1.T, H)
    signal = (whole - a * signal2 - b * delta * _diagonal(Y2) - p1.b * delta * _diagonal(Y)) / p1.a
    return Traces(Psi, Y, signal)


def _diagonal(matrix: jax.Array) -> jax.Array:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _product(one: jax.Array, two: jax.Array) -> jax.Array:
    """Product of complex matrices as real ones, which XLA's CPU backend has a fast routine for."""
    rr, ii = jnp.real(one) @ jnp.real(two), jnp.imag(one) @ jnp.imag(two)
    ri, ir = jnp.real(one) @ jnp.imag(two), jnp.imag(one) @ jnp.real(two)
    return jax.lax.complex(rr - ii, ri + ir)
