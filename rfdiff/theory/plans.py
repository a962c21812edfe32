"""The theory as pure functions of the problem: a plan made once on the host, then compiled, mapped, differentiated at will.

    plan = plan_curves(problem, taus)
    with jax.enable_x64(True):
        losses = jax.jit(lambda problem: curve_kernel(problem, plan).losses(taus))(problem)  # losses.train, losses.test

A plan holds no number that a prediction depends on, only where it is evaluated: contour, neuron types, quadrature rules, starts of
Newton's method. `curve_kernel` and `transform_at` are then smooth functions of the weights, eigenvalues, centroid Gram matrix, t, ψ_p
and ψ_n of the plan's own problem and of near ones. `theory.gradient` makes plan and derivative in one call.

Derivatives with respect to the class fractions treat them as free numbers: project on Σ dπ_c = 0 (`sensitivity` does).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy.typing import ArrayLike

from rfdiff.diffusion import noise_variance
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, Ridge, Rule, require_filter
from rfdiff.theory import real_axis, resolvent, solutions, training_times
from rfdiff.theory.contour import SIZES, Contour, Laid
from rfdiff.theory.contour_forms import CurveKernel, losses_and_error, solve_kernel
from rfdiff.theory.contour_ladder import OnContour, Question, probe_penalties, refine_contour
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.implicit import expand, unknowns
from rfdiff.theory.input_checks import POINTS_INSTEAD, checked_tolerance, require_concrete
from rfdiff.theory.neuron_types import FAR, LevelErrors, gram_root, levels
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.noncommuting.coupled_law import apart, coupled_law
from rfdiff.theory.plan_averages import PlanAverages, averages_error, averages_for, equivalent_on, require_made_for
from rfdiff.theory.traces import ridge_losses
from rfdiff.theory.type_levels import largest_change, size_of
from rfdiff.value_types import is_concrete, value_type

POINTS_COUPLING = 1e-6  # of covariances that do not commute, that may be left out where that is affordable
OUTSIDE = 1e-2  # error from what lies outside the contour above which a problem is no neighbour of the plan's


@value_type
class Plan:
    """Where the theory of a problem is evaluated, and what it was made for (Z points, U unknowns of the fixed point).

    Args:
        averages: `PlanAverages` over neurons and their inputs.
        nodes, weights: (Z,) points of the upper half-plane, and the contour's weights (0 for points that are no contour).
        penalties: (P,) penalties ρ at which ridge losses by this contour are compared with their values at z = -ρ, which need none.
        start: (Z + P, U) where Newton's method for the fixed point begins, at the nodes and at -ρ.
        latest: largest finite τ for which the contour is laid.
        error_estimate: numerical error of the losses of the problem it was made for.
    """

    averages: PlanAverages
    nodes: Complex[np.ndarray, " Z"]
    weights: Complex[np.ndarray, " Z"]
    penalties: Float[np.ndarray, " P"]
    start: Complex[np.ndarray, "Z+P U"]
    latest: float
    error_estimate: float


def plan_curves(
    problem: Problem,
    taus: ArrayLike | None = None,
    *,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    gram_derivatives: bool = True,
    like: Plan | None = None,
) -> Plan:
    """Contour and neuron types on which the losses of a problem, and of its near neighbours, are accurate to a tolerance.

    Args:
        problem: the problem, K classes.
        taus: (T,) training times the curves will be asked at; None for all, up to and including τ = ∞.
        rule: training rule.
        tolerance: largest absolute error wanted in any loss.
        gram_derivatives: whether derivatives in directions outside the range of the Gram matrix are wanted: 6 more neuron types for each
            pair of such directions and each type.
        like: a plan of a problem nearby, with whose number of contour nodes to begin: plans of one shape share their compiled programs.

    Returns:
        `Plan`, for `curve_kernel`; valid for problems with the same activation, number of noise draws and rank of the Gram matrix, whose
        spectrum stays inside the contour, at training times up to `latest`. Of covariances that do not commute it keeps the matrices in
        the r directions of largest variance, (K - 1) r ≤ 128; what the others would couple is in its error, and may exceed the tolerance.

    Raises:
        InputError: malformed taus or tolerance; τ = ∞ where the losses diverge (p = n m); a traced problem.

    Reference: docs/theory/curves.md, eq-contour; tests/theory/test_plans.py.
    """
    require_concrete(problem, "theory.plan_curves")
    require_filter(rule)
    tolerance = checked_tolerance(tolerance)
    kappa = float(problem.kappa)
    wanted = np.array([0.0, np.inf]) if taus is None else rule.schedule(taus, kappa)[0]
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    near, coupled = dense.surrogate(problem), coupled_law(problem, tolerance / 4)
    problem = apart(problem)
    with double_on_host():
        radius, tail = training_times.types_radius(problem, tolerance)
        coarse = equivalent(near, training_times.coarse_level(near), radius, training_times.LEAST)
        span = training_times.spectrum_span(coarse, rule, kappa)
        if coupled is not None:
            span = dense.widened(span, rule, kappa)
        if span.low == 0 and np.isinf(wanted).any() and not rule.decay:
            raise InputError("taus: inf, where the test loss diverges (p = n m); allowed: finite training times")
        shown = training_times.time_grid(near, num_times=40) if taus is None and isinstance(rule, GradientFlow) else wanted
        question = Question(rule, kappa, shown, None if isinstance(rule, Ridge) else shown, tolerance / 4, 2.0 if coupled else np.inf)
        errors = LevelErrors(problem, radius, largest_change)
        size = None if like is None else SIZES.index(2 * len(like.nodes))
        for level in levels(problem, 1, radius):
            averages = averages_for(problem, level, radius, training_times.LEAST if rank else 1, gram_derivatives, coupled)
            refined = refine_contour(equivalent_on(problem, averages), question, span, partial(_planned, problem, averages), size)
            values, span = refined.values, refined.span
            types = float(errors.of(values.losses)) + training_times.TAIL_EFFECT * tail * size_of(values.losses)
            averages, error = dataclasses.replace(averages, error=types), values.total_error + types
            plan = dataclasses.replace(values.plan, averages=averages, error_estimate=error)
            if error <= tolerance:
                break
    if coupled is not None:
        plan = dataclasses.replace(plan, error_estimate=plan.error_estimate + coupled.neglected)
    return jax.tree.map(np.asarray, plan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Planned(OnContour):
    """Losses on one contour by the plan whose contour it is."""

    plan: Plan


def _planned(problem: Problem, averages: PlanAverages, question: Question, laid: Laid) -> _Planned:
    """A plan on a contour, and the losses of its own problem by it."""
    rule, kappa, taus = question.rule, question.kappa, question.taus
    nodes, weights = (np.asarray(array) for array in laid.contour)
    penalties = probe_penalties(equivalent_on(problem, averages), laid)
    finite = taus[np.isfinite(taus)]
    latest = np.inf  # of plain flow; with decay the contour is laid for more than it can
    if nodes.real.min() < 0:
        latest = 1 / (2 * kappa * laid.shift) if rule.decay else float(finite.max()) if finite.size else np.inf
    start = _start(problem, averages, np.concatenate([nodes, -penalties]))
    # arrays as in the plan that is handed out: numbers of another type would be another program
    plan = jax.tree.map(np.asarray, Plan(averages, nodes, weights, penalties, start, latest, np.inf))
    kernel = _compiled_kernel(problem, plan)
    losses, error = losses_and_error(kernel, rule.schedule(question.clock, 1.0)[1], rule)
    return _Planned(
        losses=np.asarray(losses),
        error=float(error),
        missing=float(kernel.missing),
        residual=float(kernel.residual),
        plan=plan,
    )


def _start(problem: Problem, averages: PlanAverages, points: Complex[np.ndarray, " Z"]) -> Complex[np.ndarray, "Z U"]:
    """The fixed point's solution of the plan's own problem, reached along rays from far out where it is hard to reach."""
    return solutions.anywhere(equivalent_on(problem, averages), points).u


def plan_points(problem: Problem, z: ArrayLike, *, gram_derivatives: bool = True, level: int = 3) -> Plan:
    """Neuron types and starts for the Stieltjes transform of a problem at given points, for `transform_at`.

    Args:
        problem: the problem.
        z: (Z,) points of the open upper half-plane; real points > 0 mean λ + i0, where Im g/π is the density.
        gram_derivatives: as in `plan_curves`.
        level: refinement of the neuron types.

    Raises:
        InputError: points that are 0, not finite, or below the axis; a traced problem.
    """
    require_concrete(problem, "theory.plan_points", POINTS_INSTEAD)
    points = np.atleast_1d(np.asarray(z, np.complex128))
    if points.ndim != 1 or not np.all(np.isfinite(points)) or np.any(points.imag < 0) or np.any((points.imag == 0) & (points.real <= 0)):
        raise InputError(f"z: {z!r}; allowed: finite points with Im z > 0, or λ > 0")
    coupled, problem = coupled_law(problem, POINTS_COUPLING), apart(problem)
    with double_on_host():
        rank = gram_root(problem.mixture.centroid_gram).shape[1]
        averages = averages_for(problem, level, FAR, training_times.LEAST if rank else 1, gram_derivatives, coupled)
        on_axis = points.imag == 0
        nodes = np.where(on_axis, points.real * (1 + 1j * real_axis.APPROACH[-1]), points)
        eq = equivalent_on(problem, averages)
        start = solutions.free(eq, np.where(on_axis, 2j * abs(points), points)).u.copy()
        if on_axis.any():
            start[on_axis] = real_axis.approach(eq, points[on_axis].real).u
        return jax.tree.map(np.asarray, Plan(averages, nodes, np.zeros_like(nodes), np.zeros(0), start, np.inf, np.nan))


def optimal_and_rate(problem: Problem) -> tuple[Float[Array, " K"], Float[Array, ""]]:
    """L_c^* (K,) and κ = 2Δ/ψ_p, traceable."""
    law = problem.mixture
    optimal = optimal_loss(jnp.asarray(law.eigenvalue_weights), jnp.asarray(law.eigenvalues), jnp.asarray(problem.t))
    return jnp.asarray(optimal), 2 * noise_variance(jnp.asarray(problem.t, jnp.float64)) / problem.psi_p


def curve_kernel(problem: Problem, plan: Plan) -> CurveKernel:
    """Everything about the learning curves of a problem but the training time, as a differentiable function of the problem.

    Traceable: jit, vmap, and derivatives of any order in the weights, eigenvalues, centroid Gram matrix, t, ψ_p and ψ_n. Float64, so
    inside `jax.enable_x64(True)`.

    Args:
        problem: the problem, K classes; the plan's own or a neighbour. How far a neighbour may be, `CurveKernel.error` tells.
        plan: from `plan_curves`.

    Returns:
        `CurveKernel`, of which losses at any training time are cheap.

    Raises:
        InputError: the problem is traced in single precision; it has another activation, number of noise draws or classes, or rank of the
            Gram matrix than the plan; or, where its numbers are known, its spectrum leaves the plan's contour.

    Reference: docs/theory/spectrum.md, eq-fixed-point and docs/theory/curves.md, eq-contour; tests/theory/test_plans.py.
    """
    if not is_concrete(problem, plan):
        return _kernel(problem, plan)
    require_made_for(problem, plan.averages)
    with double_on_host():
        kernel = _compiled_kernel(apart(problem), plan)
    if not (float(kernel.missing) <= OUTSIDE and float(kernel.residual) <= resolvent.RESIDUAL):
        raise InputError(
            f"problem: its spectrum leaves the contour of the plan (losses are off by {float(kernel.missing):.2g}, residual of the fixed "
            f"point {float(kernel.residual):.1g}); allowed: problems near the plan's, or "
            "a new plan, made for this problem"
        )
    return kernel


def _kernel(problem: Problem, plan: Plan) -> CurveKernel:
    """The kernel of a problem on a plan, with the error of its averages; infinite where the fixed point failed."""
    optimal, kappa = optimal_and_rate(problem)
    eq = equivalent_on(problem, plan.averages)
    start = jnp.asarray(plan.start)[: plan.nodes.shape[0]]
    kernel = solve_kernel(eq, Contour(jnp.asarray(plan.nodes), jnp.asarray(plan.weights)), start, optimal, kappa, plan.latest)
    missing = jnp.maximum(kernel.missing, _ridge_gap(eq, kernel, plan))
    error = jnp.where(kernel.residual <= resolvent.RESIDUAL, averages_error(problem, plan.averages), jnp.inf)
    return dataclasses.replace(kernel, missing=missing, averages_error=error)


def _ridge_gap(eq: Equivalent, kernel: CurveKernel, plan: Plan) -> Float[Array, ""]:
    """How far ridge losses by the contour are from their values without one: what a part of the spectrum outside makes wrong."""
    eq, kernel = jax.lax.stop_gradient((eq, kernel))
    penalties = jnp.asarray(plan.penalties)
    z = jax.lax.complex(-penalties, jnp.zeros_like(penalties))
    u, residual = unknowns(eq, z, jnp.asarray(plan.start)[plan.nodes.shape[0] :])
    exact = ridge_losses(eq, expand(eq, z, u))
    gap = jnp.max(abs(kernel.evaluate(1 / (kernel.nodes + penalties[:, None]))[0] - exact))
    return jnp.where(jnp.max(residual) <= resolvent.RESIDUAL, gap, jnp.inf)


_compiled_kernel = jax.jit(_kernel)


def transform_at(problem: Problem, plan: Plan) -> tuple[Complex[Array, " Z"], Complex[Array, "Z K"]]:
    """Stieltjes transform g(z) (Z,) and class-resolved κ_c(z) (Z, K) at a plan's points, as differentiable functions of the problem.

    At λ + i0 the density is Im g/π and the class-resolved density Im κ_c/(π λ). Float64: under a transformation inside
    `jax.enable_x64(True)`.

    Args:
        problem: the problem; the plan's own or a neighbour.
        plan: from `plan_points`.

    Raises:
        InputError: as `equivalent_on`.

    Reference: docs/theory/spectrum.md, eq-density; tests/theory/test_plans.py.
    """
    if is_concrete(problem, plan):
        with double_on_host():
            return _transform(problem, plan)
    return _transform(problem, plan)


def _transform(problem: Problem, plan: Plan) -> tuple[Complex[Array, " Z"], Complex[Array, "Z K"]]:
    """What `transform_at` returns, in the precision that is set."""
    eq = equivalent_on(problem, plan.averages)
    nodes = jnp.asarray(plan.nodes)
    return resolvent.stieltjes_of(eq, expand(eq, nodes, unknowns(eq, nodes, plan.start)[0]))
