"""The theory as pure functions of the problem: `plan_…` once on the host, then compiled, mapped, differentiated at will.

    with jax.enable_x64(True):
        plan = plan_curves(problem, taus)
        loss = lambda problem: curve_kernel(problem, plan).losses(taus)[1][5, 0]      # test loss of class 0 at taus[5]
        jax.grad(loss)(problem).mixture.eigenvalues

Derivatives with respect to the class fractions treat them as free numbers: project on Σ dπ_c = 0 (`sensitivity` does).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory import dynamics, real_axis, resolvent
from rfdiff.theory.contour import SIZES, Contour, Span, lay
from rfdiff.theory.contour_forms import CurveKernel, solve_kernel
from rfdiff.theory.implicit import expand, unknowns
from rfdiff.theory.neuron_types import gram_root, levels, refined_error
from rfdiff.theory.plans import Plan, equivalent_on, optimal_and_rate, type_parts


def plan_curves(
    problem: Problem, taus: Any = None, rule: Rule = GradientFlow(), tolerance: float = 1e-6, gram_derivatives: bool = True
) -> Plan:
    """Contour and neuron types on which the losses of a problem, and of its near neighbours, are accurate to a tolerance.

    Args:
        problem: the problem, K classes.
        taus: (T,) training times the curves will be asked at; None for all, up to and including τ = ∞.
        rule: training rule.
        tolerance: largest absolute error wanted in any loss.
        gram_derivatives: whether derivatives in directions outside the range of the Gram matrix are wanted: 6 more neuron types for each
            pair of such directions and each type.

    Returns:
        `Plan`, for `curve_kernel`; valid for problems whose Gram matrix has the same range, at training times up to `latest`.

    Raises:
        InputError: malformed taus or tolerance; only τ = ∞ where it diverges (p = n m).

    Reference: `equations`, section 5; tests/theory/test_differentiable.py.
    """
    if not (isinstance(tolerance, float | int) and 1e-9 <= tolerance <= 0.1):
        raise InputError(f"tolerance: {tolerance!r}; allowed: 1e-9 <= tolerance <= 0.1")
    kappa = float(problem.kappa)
    wanted = np.array([0.0, np.inf]) if taus is None else rule.schedule(taus, kappa)[0]
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    with jax.enable_x64(True):
        radius, tail = dynamics.types_radius(problem, tolerance)
        span = dynamics.spectrum_span(problem, rule, kappa, radius)
        if span[0] == 0 and np.isinf(wanted).any():
            raise InputError("taus: inf, where the test loss diverges (p = n m); allowed: finite training times")
        shown = dynamics.time_grid(problem, num=40) if taus is None and isinstance(rule, GradientFlow) else wanted
        before, error = None, np.inf
        plan: Any = None
        for level in levels(problem, 1, radius):
            parts = type_parts(problem, level, radius, dynamics.LEAST if rank else 1, gram_derivatives)
            plan, losses, error = _refine_contour(problem, parts, span, rule, kappa, shown, tolerance / 4)
            error += dynamics.TAIL_EFFECT * tail
            error += refined_error(problem, float(np.max(abs(losses - before)))) if before is not None else np.inf if rank else 0.0
            if error <= tolerance:
                break
            before = losses
    return jax.tree.map(np.asarray, dataclasses.replace(plan, error_estimate=error))


def _refine_contour(
    problem: Problem, parts: dict[str, Any], span: Span, rule: Rule, kappa: float, taus: np.ndarray, tolerance: float
) -> tuple[Plan, np.ndarray, float]:
    """A plan on a contour with so many nodes that the losses at `taus` are accurate to `tolerance`; with them and their error."""
    size = None
    while True:
        contour, size, _ = lay(span, rule, kappa, taus, tolerance, size)
        finite = taus[np.isfinite(taus)]
        latest = float(finite.max()) if contour.nodes.real.min() < 0 and finite.size else np.inf
        plan = Plan(contour.nodes, contour.weights, None, **parts, latest=latest, error_estimate=np.inf)
        plan = _with_start(problem, plan)
        kernel = _compiled_kernel(problem, plan)
        losses, error = np.stack(kernel.losses(taus, rule)), float(kernel.error(taus, rule))
        failed = float(kernel.residual) > resolvent.RESIDUAL or not np.isfinite(error)
        if error <= tolerance or size == len(SIZES) - 1:
            return plan, losses, np.inf if failed else error
        size += 1


def _with_start(problem: Problem, plan: Plan) -> Plan:
    """The plan with the fixed point's solution of its own problem as the start, found along rays from far out where it is hard to reach."""
    eq = equivalent_on(problem, plan)
    point = resolvent.solve_anywhere(eq, plan.nodes).point
    return dataclasses.replace(plan, start=resolvent.pack(point.delta, point.H))


def plan_points(problem: Problem, z: ArrayLike, gram_derivatives: bool = True, level: int = 3) -> Plan:
    """Neuron types and starts for the Stieltjes transform of a problem at given points, for `transform_at`.

    Args:
        problem: the problem.
        z: (Z,) points of the open upper half-plane; real points > 0 mean λ + i0, where Im g/π is the density.
        gram_derivatives: as in `plan_curves`.
        level: refinement of the neuron types.

    Raises:
        InputError: points that are 0, not finite, or below the axis.
    """
    points = np.atleast_1d(np.asarray(z, np.complex128))
    if points.ndim != 1 or not np.all(np.isfinite(points)) or np.any(points.imag < 0) or np.any((points.imag == 0) & (points.real <= 0)):
        raise InputError(f"z: {z!r}; allowed: finite points with Im z > 0, or λ > 0")
    with jax.enable_x64(True):
        rank = gram_root(problem.mixture.centroid_gram).shape[1]
        parts = type_parts(problem, level, 6.0, 64 if rank else 1, gram_derivatives)
        on_axis = points.imag == 0
        nodes = np.where(on_axis, points.real * (1 + 1j * real_axis.APPROACH[-1]), points)
        plan = Plan(nodes, np.zeros_like(nodes), None, **parts, latest=np.inf, error_estimate=np.nan)
        eq = equivalent_on(problem, plan)
        free = resolvent.solve_jit(eq, np.where(on_axis, 2j * abs(points), points)).point
        start = np.array(resolvent.pack(free.delta, free.H))
        if on_axis.any():
            start[on_axis] = real_axis.approach(eq, points[on_axis].real).u
        return dataclasses.replace(plan, start=start)


def curve_kernel(problem: Problem, plan: Plan) -> CurveKernel:
    """Everything about the learning curves of a problem but the training time, as a differentiable function of the problem.

    Traceable: jit, vmap, and derivatives of any order in the weights, eigenvalues, centroid Gram matrix, t, ψ_p and ψ_n.

    Args:
        problem: the problem, K classes; the plan's own or a neighbour.
        plan: from `plan_curves`.

    Returns:
        `CurveKernel`, of which losses at any training time are cheap.

    Raises:
        InputError: the problem is traced in single precision.

    Reference: `equations`, sections 4 and 5; tests/theory/test_differentiable.py.
    """
    optimal, kappa = optimal_and_rate(problem)
    eq = equivalent_on(problem, plan)
    return solve_kernel(eq, Contour(plan.nodes, plan.weights), plan.start, optimal, kappa, plan.latest)


_compiled_kernel = jax.jit(curve_kernel)


def transform_at(problem: Problem, plan: Plan) -> tuple[jax.Array, jax.Array]:
    """Stieltjes transform g(z) (Z,) and class-resolved κ_c(z) (Z, K) at a plan's points, as differentiable functions of the problem.

    At λ + i0 the density is Im g/π and the class-resolved density Im κ_c/(π λ).

    Args:
        problem: the problem; the plan's own or a neighbour.
        plan: from `plan_points`.

    Raises:
        InputError: the problem is traced in single precision.

    Reference: `equations`, section 4; tests/theory/test_differentiable.py.
    """
    eq = equivalent_on(problem, plan)
    nodes = jnp.asarray(plan.nodes)
    return resolvent.stieltjes_of(eq, expand(eq, nodes, unknowns(eq, nodes, plan.start)[0]))
