"""The fixed point for R(z) = (U - z)^{-1} and its linear response: one- and two-point functions (docs/theory/spectrum.md, eq-fixed-point).

Derivation in short. U is a sum of independent columns of a few kinds plus, for averaged noise, a deterministic matrix. Removing one
column at a time (cavity) gives every column the weight Ξ = w/(1 + δ), δ the trace of R against the column's covariance (times ω_c/π_c,
where the weight ω_c of its class in the loss is not its fraction π_c: docs/theory/practice.md, eq-effective-samples); integrating
out the d directions of W, which the neurons share, gives the K×K matrix H = ψ_p E_h[r α αᵀ] of the neurons' response and, per
eigenvalue group, Y = H (I + M H)^{-1} with M = diag(a e^{-2t}λ + b Δ). Here a_c and b_c are the summed weights of the class's columns
seen by signal and noise. The unknowns (δ, H) solve a closed system; all else follows.

Products R(z1) X R(z2) follow from the same fixed point for the doubled matrix [[U - z1, X], [0, U - z2]]: each scalar becomes a 2×2
upper-triangular matrix whose off-diagonal entry, the response, obeys a LINEAR system given the one-point solutions. At z1 = z2 its
matrix is the Jacobian of the one-point fixed point, so one function (`response`) drives Newton's method and the two-point function.

Shapes: Z spectral points (or Z1 × Z2 pairs), K classes, L groups, S column kinds, J neuron types, F = 2K + K(K+1)/2 features of a
type: (v_c², s_c², α_a α_b for a ≤ b).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfdiff.symmetric import multiplicity, pair_products, symmetric, upper
from rfdiff.theory import batched_systems, coupled
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Joint, Point, pairs_first, responses


def type_features(eq: Equivalent) -> jax.Array:
    """(J, F) features of the neuron types whose averages close the system."""
    return jnp.concatenate([eq.kept, eq.carried, pair_products(eq.linear)], 1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product; for few classes as one fused sum, which a million batched 2×2 products are not."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2) if a.shape[-1] <= 4 else a @ b


def _diagonal(matrix: jax.Array) -> jax.Array:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _columns(eq: Equivalent, Y_diagonal: jax.Array, averages: jax.Array, beside: coupled.Traces | None = None) -> jax.Array:
    """δ (…,S,K) from the diagonal of Y (…,L,K), the feature averages (…,F) and what coupled directions add.

    The same line serves values and responses.
    """
    k = Y_diagonal.shape[-1]
    signal = jnp.einsum("l,lk,...lk->...k", eq.group_weights, eq.eigenvalues, Y_diagonal) + eq.psi_p * averages[..., :k]
    noise = eq.noise_variance * jnp.einsum("l,...lk->...k", eq.group_weights, Y_diagonal) + eq.psi_p * averages[..., k : 2 * k]
    if beside is not None:
        signal, noise = signal + beside.signal, noise + eq.noise_variance * _diagonal(beside.Y)
    gains = eq.signal_gains[:, None] * signal[..., None, :] + eq.noise_gains[:, None] * noise[..., None, :]
    return gains * (eq.loss_weights / eq.fractions) / (eq.draws * eq.psi_n)


def expand(eq: Equivalent, features: jax.Array, z: jax.Array, delta: jax.Array, H: jax.Array) -> Point:
    """Everything that follows from the unknowns at Z points."""
    k = eq.linear.shape[1]
    q = 1 / (1 + delta)
    xi = eq.kind_weights[:, None] * eq.loss_weights * q
    a = jnp.einsum("s,zsk->zk", eq.signal_gains, xi)
    b = jnp.einsum("s,zsk->zk", eq.noise_gains, xi) + eq.deterministic * eq.loss_weights
    M = a[:, None, :] * eq.eigenvalues + b[:, None, :] * eq.noise_variance
    B = batched_systems.inverse(jnp.eye(k) + M[..., :, None] * H[:, None])
    G, Y = B * M[..., None, :], _product(H[:, None], B)
    T = blocks = None
    if eq.coupled is not None:
        blocks = coupled.blocks(eq, a, b, H)
        T = coupled.trace(eq, blocks)
    r = 1 / (_average(_of_features(eq, a, b, G, T), features.T) - z[:, None])
    return Point(delta, H, q, a, b, M, B, G, Y, r, T, blocks)


def _of_features(eq: Equivalent, a: jax.Array, b: jax.Array, G: jax.Array, T: jax.Array | None) -> jax.Array:
    """(Z, F) by which r = 1/(coefficients · features - z), for neurons of any type."""
    Psi = jnp.einsum("l,zlab->zab", eq.group_weights, G)
    if T is not None:
        Psi = Psi + T
    return jnp.concatenate([a, b, upper(Psi) * multiplicity(a.shape[-1])], 1)


def of_features(eq: Equivalent, point: Point) -> jax.Array:
    """(Z, F) by which r = 1/(coefficients · features - z) at a point's z, for neurons of any type."""
    return _of_features(eq, point.a, point.b, point.G, point.T)


def mean_of_Y(eq: Equivalent, point: Point) -> jax.Array:
    """(1/d) tr Y_ab (…,K,K) over all directions."""
    Y = jnp.einsum("l,...lab->...ab", eq.group_weights, point.Y)
    return Y if point.T is None else Y + coupled.traces(eq, point.side).Y


def image(eq: Equivalent, features: jax.Array, point: Point) -> jax.Array:
    """Unknowns (Z, N) that the resolvent entries of a point give back, packed; at the solution they are its own."""
    k = eq.linear.shape[1]
    averages = _average(point.r, eq.type_weights[:, None] * features)
    beside = None if point.T is None else coupled.traces(eq, point.side)
    return pack(_columns(eq, _diagonal(point.Y), averages, beside), symmetric(eq.psi_p * averages[:, 2 * k :], k))


def pack(delta: jax.Array, H: jax.Array) -> jax.Array:
    """Unknowns as one vector (…, S K + K(K+1)/2)."""
    return jnp.concatenate([delta.reshape(*delta.shape[:-2], -1), upper(H)], -1)


def unpack(vector: jax.Array, kinds: int, k: int) -> tuple[jax.Array, jax.Array]:
    """Inverse of `pack`."""
    delta = vector[..., : kinds * k].reshape(*vector.shape[:-1], kinds, k)
    return delta, symmetric(vector[..., kinds * k :], k)


def jacobian(eq: Equivalent, features: jax.Array, point: Point) -> jax.Array:
    """Jacobian (Z,N,N) of the one-point fixed point: the response system at z1 = z2."""
    return pairs_first(responses(eq, point, point, joint_at(eq, point)).system(eq), 2)


def joint_at(eq: Equivalent, point: Point) -> Joint:
    """What points have in common with themselves."""
    directions = None if point.blocks is None else coupled.products(eq, point.blocks, point.blocks)
    return Joint(feature_averages(eq, point.r**2), directions)


def _average(values: jax.Array, weighted: jax.Array) -> jax.Array:
    """Complex times real matrix, as two real products (XLA would make the real one complex)."""
    return jax.lax.complex(jnp.real(values) @ weighted, jnp.imag(values) @ weighted)


class Solution(NamedTuple):
    """Point at Z spectral points with its relative residual (Z,) and number of iterations."""

    point: Point
    residual: jax.Array
    iterations: jax.Array


class _State(NamedTuple):
    """Best iterate so far with its image, its Newton step and its residual; the trial to evaluate next and how it was made."""

    base: jax.Array
    image: jax.Array
    newton: jax.Array
    residual: jax.Array
    trial: jax.Array
    stage: jax.Array
    iteration: jax.Array


FULL, QUARTER, DAMPED = 0, 1, 2
RESIDUAL = 1e-9  # of the fixed point, relative, above which a point is not solved


def solve(eq: Equivalent, z: jax.Array, initial: jax.Array | None = None, tolerance: ArrayLike = 1e-13, limit: ArrayLike = 400) -> Solution:
    """Solve the one-point fixed point at Z points of the open upper half-plane or left of 0 (or, from a close start, at λ > 0).

    A Newton step is kept when it lowers the residual and stays physical (Im r > 0 for every neuron type where Im z > 0, r > 0 where
    z < 0); else a quarter of it is tried, and then u ← (u + F(u))/2, which converges to the physical solution from anywhere in the upper
    half-plane. Points that have converged are left alone; `residual` says which have not.
    """
    features = type_features(eq)
    kinds, k = eq.kind_weights.shape[0], eq.linear.shape[1]
    upper, on_axis = jnp.imag(z) > 0, (jnp.imag(z) == 0) & (jnp.real(z) >= 0)

    def side(values: jax.Array) -> jax.Array:
        """What is positive in the physical solution: the imaginary part above the axis, the real one left of 0."""
        return jnp.where(upper.reshape(-1, *(1,) * (values.ndim - 1)), jnp.imag(values), jnp.real(values))

    def evaluate(u: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        point = expand(eq, features, z, *unpack(u, kinds, k))
        mapped = image(eq, features, point)
        A = jacobian(eq, features, point)
        newton = u + batched_systems.solve(jnp.eye(A.shape[-1]) - A, (mapped - u)[..., None])[..., 0]
        physical = jnp.all(side(point.r) > 0, 1) & jnp.all(side(point.delta) >= 0, (1, 2)) | on_axis
        return mapped, newton, relative(mapped - u, u, kinds * k), physical

    def step(state: _State) -> _State:
        image, newton, residual, physical = evaluate(state.trial)
        better = physical & (residual < 0.7 * state.residual)
        accept = (better | (state.stage == DAMPED)) & (state.residual >= tolerance)
        pick = accept[:, None]
        base, image = jnp.where(pick, state.trial, state.base), jnp.where(pick, image, state.image)
        newton = jnp.where(pick & jnp.isfinite(newton), newton - state.trial, jnp.where(pick, 0, state.newton))
        residual = jnp.where(accept, jnp.where(physical, residual, jnp.inf), state.residual)
        stage = jnp.where(accept, FULL, jnp.minimum(state.stage + 1, DAMPED))
        trial = base + newton * jnp.where(stage == FULL, 1.0, 0.25)[:, None]
        trial = jnp.where((stage == DAMPED)[:, None], (base + image) / 2, trial)
        return _State(base, image, newton, residual, trial, stage, state.iteration + 1)

    start = free_start(eq, z) if initial is None else initial
    unknown = jnp.full(z.shape, jnp.inf)
    first = _State(start, start, 0 * start, unknown, start, jnp.full(z.shape, DAMPED), jnp.zeros((), int))
    final = jax.lax.while_loop(lambda s: (s.iteration < limit) & jnp.any(s.residual >= tolerance), step, first)
    return Solution(expand(eq, features, z, *unpack(final.base, kinds, k)), final.residual, final.iteration)


def free_start(eq: Equivalent, z: jax.Array) -> jax.Array:
    """Unknowns of the free resolvent r = -1/z, exact as |z| → ∞."""
    k = eq.linear.shape[1]
    averages = (-1 / z)[:, None] * (eq.type_weights @ type_features(eq))
    H = symmetric(eq.psi_p * averages[:, 2 * k :], k)
    diagonal = jnp.broadcast_to(_diagonal(H)[:, None], (len(z), eq.group_weights.shape[0], k))
    return pack(_columns(eq, diagonal, averages, None if eq.coupled is None else coupled.free(eq, H)), H)


def relative(difference: jax.Array, value: jax.Array, split: int) -> jax.Array:
    """Largest change relative to the size of its block (δ or H)."""
    blocks = [
        jnp.max(abs(d), -1) / (jnp.max(abs(v), -1) + 1e-300)
        for d, v in ((difference[:, :split], value[:, :split]), (difference[:, split:], value[:, split:]))
    ]
    return jnp.maximum(*blocks)


def stieltjes_of(eq: Equivalent, point: Point) -> tuple[jax.Array, jax.Array]:
    """g(z) = (1/p) tr R (Z,) and the class-resolved κ_c(z) = (ω_c/p) tr[U_c R] (Z,K), with Σ_c κ_c = 1 + z g."""
    g = point.r @ eq.type_weights
    ratio = eq.draws * eq.psi_n / eq.psi_p
    sampled = ratio * jnp.einsum("s,zsk->zk", eq.kind_weights, point.delta * point.q) * eq.fractions
    trace = _diagonal(mean_of_Y(eq, point))
    averaged = eq.noise_variance / eq.psi_p * trace + (point.r * eq.type_weights) @ eq.carried
    return g, sampled + eq.deterministic * eq.loss_weights * averaged


def feature_averages(eq: Equivalent, products: jax.Array) -> jax.Array:
    """E_h[values features featuresᵀ] (Z, F, F) for values (Z, J) of the neuron types, such as r_1 r_2 of Z pairs."""
    features = type_features(eq)
    return symmetric(_average(products, eq.type_weights[:, None] * pair_products(features)), features.shape[1])
