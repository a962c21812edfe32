"""How a plan takes its averages: neuron types, quadrature rules, and what they were made for.

They serve the problem they were made for and problems near it; another activation, number of noise draws or rank of the Gram matrix is
refused, and what a change of scale costs is estimated (`averages_error`).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.theory.equivalent import Equivalent, build, column_kinds
from rfdiff.theory.gram_derivatives import stencil, traced_root
from rfdiff.theory.input_checks import require_commuting
from rfdiff.theory.neuron_coefficients import GaussRules, gauss_rules
from rfdiff.theory.neuron_types import TypeGrid, gram_root, is_odd, type_grid
from rfdiff.theory.noncommuting.coupled_law import CoupledLaw, apart
from rfdiff.value_types import is_concrete, static, value_type

RULE_ERROR = 1e-13  # of the Gauss rules at the scales they are made for


@value_type
class PlanAverages:
    """How averages over neurons and over the fluctuations of their inputs are taken (J neuron types, n directions outside the range of Q).

    Args:
        activation: the activation they are made for.
        noise_draws: number m of noise draws of the problem.
        types: `TypeGrid` of a standard normal vector of the rank of Q.
        null_basis: (K, n) directions outside the range of Q.
        offsets, moments: (s, n) nodes of the difference stencil there, and (s, n, n) their weights' derivatives in Q; s = 1 without.
        rules: quadrature rules of the activation's averages.
        scales: (4,) the lengths that they resolve: `scales_of` the plan's own problem.
        error: numerical error of the losses that the neuron types leave at those scales.
        coupled: the directions of covariances that do not commute; None where they do.
    """

    activation: Activation = static()
    noise_draws: float = static()
    types: TypeGrid
    null_basis: Float[np.ndarray, "K n"]
    offsets: Float[np.ndarray, "s n"]
    moments: Float[np.ndarray, "s n n"]
    rules: GaussRules
    scales: Float[np.ndarray, " 4"]
    error: float
    coupled: CoupledLaw | None = None

    @property
    def rank(self) -> int:
        """Rank of the Gram matrix."""
        return int(self.types.nodes.shape[1])


def averages_for(
    problem: Problem, level: int, radius: float, least: int, gram_derivatives: bool, coupled: CoupledLaw | None = None
) -> PlanAverages:
    """The averages of a problem at a level of refinement of its neuron types, with the error of one level alone: unknown."""
    gram = np.asarray(problem.mixture.centroid_gram, np.float64)
    root = gram_root(gram)
    null = np.linalg.eigh(gram)[1][:, : len(gram) - root.shape[1]]
    if not gram_derivatives:
        null = null[:, :0]
    offsets, moments = stencil(null.shape[1])
    return PlanAverages(
        activation=problem.activation,
        noise_draws=problem.noise_draws,
        types=type_grid(root, level, radius, is_odd(problem.activation), least),
        null_basis=null,
        offsets=offsets,
        moments=moments,
        rules=gauss_rules(problem),
        scales=np.asarray(scales_of(problem)),
        error=math.nan if root.shape[1] else 0.0,
        coupled=coupled,
    )


def scales_of(problem: Problem) -> Float[Array, " 4"]:
    """Lengths that averages must resolve: e^{-t} √tr Q, and the largest std of the input, of its signal and of signal over noise."""
    law, delta = problem.mixture, noise_variance(jnp.asarray(problem.t, jnp.float64))
    largest = (1 - delta) * jnp.max(jnp.asarray(law.eigenvalue_weights) @ jnp.asarray(law.eigenvalues))
    centroid = (1 - delta) * jnp.trace(jnp.asarray(law.centroid_gram))
    return jnp.sqrt(jnp.maximum(jnp.stack([centroid, largest + delta, largest, largest / delta]), 0))


def equivalent_on(problem: Problem, averages: PlanAverages) -> Equivalent:
    """The Gaussian equivalent of a problem on a plan's neuron types; traceable and differentiable in every number of the problem.

    Raises:
        InputError: the numbers of the problem are traced in single precision; its activation, number of noise draws or classes, or rank of
            the Gram matrix is not that of the plan; or its covariances do not commute, and the plan's did.
    """
    if averages.coupled is None:
        require_commuting(problem)
    problem = apart(problem)
    for leaf in jax.tree.leaves(problem):
        if isinstance(leaf, jax.core.Tracer) and leaf.dtype != jnp.float64:
            raise InputError(
                f"problem: traced in {leaf.dtype}; allowed: float64, so trace or differentiate inside `with jax.enable_x64(True)`"
            )
    require_made_for(problem, averages)
    gram = jnp.asarray(problem.mixture.centroid_gram, jnp.float64)
    null = jnp.asarray(averages.null_basis)
    root = jnp.concatenate([traced_root(gram, averages.rank), null], 1)
    width = null.T @ gram @ null
    shares = jnp.asarray(averages.moments).reshape(len(averages.offsets), -1) @ width.ravel()
    shares = shares.at[0].add(1)
    size, copies = averages.types.nodes.shape[0], len(averages.offsets)
    nodes = jnp.concatenate([jnp.repeat(averages.types.nodes, copies, 0), jnp.tile(averages.offsets, (size, 1))], 1)
    weights = jnp.outer(jnp.asarray(averages.types.weights), shares).ravel()
    return build(
        problem.activation, problem.mixture, problem.training_weights, problem.t, problem.psi_p, problem.psi_n,
        column_kinds(problem.noise_draws), root, TypeGrid(nodes, weights), averages.rules, coupled=averages.coupled,
    )  # fmt: skip


def require_made_for(problem: Problem, averages: PlanAverages) -> None:
    """Refuse a problem that the plan does not fit. A traced problem cannot be checked fully; the kernel's error covers the rest.

    Raises:
        InputError: another activation, number of noise draws, of classes, or another rank of the Gram matrix.
    """
    again = "a new plan, made for this problem"
    if problem.activation != averages.activation:
        raise InputError(
            f"problem: activation {problem.activation.name!r} on a plan made for {averages.activation.name!r}; "
            f"allowed: the plan's, or {again}"
        )
    if problem.noise_draws != averages.noise_draws:
        raise InputError(
            f"problem: noise_draws {problem.noise_draws:g} on a plan made for {averages.noise_draws:g}; allowed: the plan's, or {again}"
        )
    if problem.num_classes != len(averages.null_basis):
        raise InputError(
            f"problem: {problem.num_classes} classes on a plan made for {len(averages.null_basis)}; allowed: the plan's, or {again}"
        )
    gram = problem.mixture.centroid_gram
    if is_concrete(gram) and (rank := gram_root(gram).shape[1]) != averages.rank:
        raise InputError(
            f"problem: a centroid Gram matrix of rank {rank} on a plan made for rank {averages.rank}; allowed: the plan's, or {again}"
        )


def averages_error(problem: Problem, averages: PlanAverages) -> Float[Array, ""]:
    """Numerical error of the losses of a near problem that neuron types, Gauss rules and couplings left out leave, traceable.

    Both converge geometrically in the ratio of what is to be resolved to the step, so an error ε at the plan's own scales is ε^{1/s} at
    scales s times as long; centroids that leave the range of the plan's Gram matrix add their squared lengths there.
    """
    own, near = jnp.asarray(averages.scales), scales_of(problem)
    stretch = jnp.maximum(jnp.where(own > 0, near / jnp.where(own > 0, own, 1), 1), 1)
    types = jnp.where(averages.error > 0, jnp.asarray(averages.error) ** (1 / stretch[0]), 0)
    gram = jnp.asarray(problem.mixture.centroid_gram, jnp.float64)
    root = traced_root(gram, averages.rank)
    width = jnp.maximum(jnp.trace(gram) - jnp.sum(root**2), 0)  # first order of it is in the stencil, where there is one
    whole = averages.rank + averages.null_basis.shape[1] == len(averages.null_basis)
    left_out = 0.0 if averages.coupled is None else averages.coupled.neglected
    return jax.lax.stop_gradient(types + RULE_ERROR ** (1 / jnp.max(stretch[1:])) + (width**2 if whole else width) + left_out)
