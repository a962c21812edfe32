"""What the closed forms need beside the problem, settled once on the host: contour, neuron types, quadrature rules, starts.

A `Plan` holds no number that a prediction depends on, only where it is evaluated. With it the theory is a pure function of the problem
that can be compiled, mapped and differentiated with respect to weights, eigenvalues, the centroid Gram matrix, t, ψ_p and ψ_n.

The Gram matrix needs care. Its root R (R Rᵀ = Q) is moved by `dR = (I - P/2) dQ R⁺ᵀ`, P the projector on the range of Q, which is
smooth where eigenvectors are not (equal eigenvalues). Directions outside the range have no width to move: there the average over
neuron types changes by `dE[f] = ½ Σ dQ_ab E[∂_a ∂_b f]`, and the second derivatives are taken by neuron types of weight 0 on a
difference stencil, whose weights have a derivative although they vanish.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.diffusion import noise_variance
from rfdiff.errors import InputError
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem
from rfdiff.theory import batched_systems
from rfdiff.theory.equivalent import Equivalent, build, column_kinds, gauss_rules
from rfdiff.theory.neuron_types import TypeGrid, gram_root, is_odd, type_grid
from rfdiff.value_types import value_type

STENCIL_STEP = 0.12  # times a direction's unit of h: sixth order, an error of about step^6/560 times an eighth derivative
STENCIL = np.array([1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90])


@value_type
class Plan:
    """Where the theory of a problem is evaluated (Z points, J neuron types, rank of the Gram matrix, n directions outside its range).

    Args:
        nodes, weights: (Z,) points of the upper half-plane, and the contour's weights (0 for points that are no contour).
        start: (Z, U) where Newton's method for the fixed point begins.
        types: `TypeGrid` of a standard normal vector of the rank of Q.
        null_basis: (K, n) directions outside the range of Q.
        offsets, moments: (s, n) nodes of the difference stencil there, and (s, n, n) their weights' derivatives in Q; s = 1 without.
        rules: quadrature rules of the activation's averages.
        latest: largest finite τ for which the contour is laid.
        error_estimate: numerical error of the losses that it was made for.
    """

    nodes: Any
    weights: Any
    start: Any
    types: Any
    null_basis: Any
    offsets: Any
    moments: Any
    rules: Any
    latest: Any
    error_estimate: Any


def type_parts(problem: Problem, level: int, radius: float, least: int, gram_derivatives: bool) -> dict[str, Any]:
    """The fields of a `Plan` that describe the neuron types of a problem at a level of refinement."""
    gram = np.asarray(problem.mixture.centroid_gram, np.float64)
    root = gram_root(gram)
    null = np.linalg.eigh(gram)[1][:, : len(gram) - root.shape[1]]
    if not gram_derivatives:
        null = null[:, :0]
    offsets, moments = _stencil(null.shape[1])
    types = type_grid(root, level, radius, is_odd(problem.activation), least)
    return {"types": types, "null_basis": null, "offsets": offsets, "moments": moments, "rules": gauss_rules(problem)}


def _stencil(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (s, n) and moments (s, n, n): to first order in q, E f = Σ_s (δ_{s0} + Σ_ab q_ab moments_sab) f(offset_s) over N(0, q).

    Second derivatives along e_a and along (e_a + e_b)/√2 give all of ½ Σ q_ab ∂_a ∂_b.
    """
    offsets, moments = [np.zeros(n)], [np.zeros((n, n))]
    shifts = STENCIL_STEP * np.array([-3, -2, -1, 1, 2, 3])
    factors = np.delete(STENCIL, 3) / STENCIL_STEP**2
    for a in range(n):
        for b in range(a, n):
            direction, share = np.zeros(n), np.zeros((n, n))
            if a == b:
                direction[a] = 1
                share[a, a] = 0.5
                share[a, :] -= 0.25 * (np.arange(n) != a)
                share[:, a] -= 0.25 * (np.arange(n) != a)
            else:
                direction[[a, b]] = np.sqrt(0.5)
                share[a, b] = share[b, a] = 0.5
            for shift, factor in zip(shifts, factors, strict=True):
                offsets.append(shift * direction)
                moments.append(factor * share)
            moments[0] = moments[0] + STENCIL[3] / STENCIL_STEP**2 * share
    return np.stack(offsets), np.stack(moments)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def traced_root(gram: jax.Array, rank: int) -> jax.Array:
    """(K, rank) root R of a Gram matrix of known rank, R Rᵀ = Q, with derivatives that know no eigenvalue gaps."""
    values, vectors = jnp.linalg.eigh(gram)
    used = slice(gram.shape[-1] - rank, None)
    return vectors[:, used] * jnp.sqrt(values[used])


@traced_root.defjvp
def _traced_root_jvp(rank: int, primals: Any, tangents: Any) -> Any:
    root = traced_root(primals[0], rank)
    if not rank:
        return root, root
    inverse = batched_systems.solve(root.T @ root, root.T)
    moved = tangents[0] @ inverse.T
    return root, moved - root @ (inverse @ moved) / 2


def equivalent_on(problem: Problem, plan: Plan) -> Equivalent:
    """The Gaussian equivalent of a problem on a plan's neuron types; traceable and differentiable in every number of the problem.

    Raises:
        InputError: the numbers of the problem are traced in single precision, or its covariances do not commute.
    """
    require_commuting(problem)
    for leaf in jax.tree.leaves(problem):
        if isinstance(leaf, jax.core.Tracer) and leaf.dtype != jnp.float64:
            raise InputError(
                f"problem: traced in {leaf.dtype}; allowed: float64, so trace or differentiate inside `with jax.enable_x64(True)`"
            )
    gram = jnp.asarray(problem.mixture.centroid_gram, jnp.float64)
    null = jnp.asarray(plan.null_basis)
    root = jnp.concatenate([traced_root(gram, plan.types.nodes.shape[1]), null], 1)
    width = null.T @ gram @ null
    shares = jnp.asarray(plan.moments).reshape(len(plan.offsets), -1) @ width.ravel()
    shares = shares.at[0].add(1)
    size, copies = plan.types.nodes.shape[0], len(plan.offsets)
    nodes = jnp.concatenate([jnp.repeat(plan.types.nodes, copies, 0), jnp.tile(plan.offsets, (size, 1))], 1)
    weights = jnp.outer(jnp.asarray(plan.types.weights), shares).ravel()
    return build(
        problem.activation, problem.mixture, problem.t, problem.psi_p, problem.psi_n,
        column_kinds(problem.noise_draws), root, TypeGrid(nodes, weights), plan.rules,
    )  # fmt: skip


def require_commuting(problem: Problem) -> None:
    """Refuse class covariances that do not commute: their curves are computed matrix by matrix, outside the compiled functions.

    Raises:
        InputError: they do not.
    """
    if not problem.mixture.commuting:
        raise InputError(
            "mixture: its class covariances do not commute; allowed here: jointly diagonal ones (theory.learning_curves takes both; "
            "derivatives and maps need commuting ones)"
        )


def optimal_and_rate(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """L_c^* (K,) and κ = 2Δ/ψ_p, traceable."""
    law = problem.mixture
    optimal = optimal_loss(jnp.asarray(law.eigenvalue_weights), jnp.asarray(law.eigenvalues), jnp.asarray(problem.t))
    return jnp.asarray(optimal), 2 * noise_variance(jnp.asarray(problem.t, jnp.float64)) / problem.psi_p
