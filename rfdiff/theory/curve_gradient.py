"""The gradient of any functional of the learning curves in every number of the problem, in one call."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree
from numpy.typing import ArrayLike

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.noncommuting.coupled_law import apart
from rfdiff.theory.plans import Plan, curve_kernel, plan_curves

Functional = Callable[[LearningCurves], Float[Array, ""]]
INSTEAD = (
    "makes its own plan, outside of jit, grad and vmap; allowed inside: theory.curve_kernel(problem, plan) with a plan made before by "
    "theory.plan_curves(problem, taus)"
)


def gradient(
    problem: Problem,
    taus: ArrayLike,
    functional: Functional,
    *,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    gram_derivatives: bool = True,
) -> Problem:
    """Derivative of a number made of the learning curves in every number of the problem, by implicit differentiation of the fixed point.

        theory.gradient(problem, [1.0, 10.0], lambda curves: curves.test_loss[1, 0])  # of class 0's test loss at τ = 10

    Derivatives in the class fractions treat them as free numbers: a change that keeps Σ π_c = 1 is Σ_c dπ_c ∂/∂π_c with Σ dπ_c = 0. The
    Gram matrix Q moves with both entries of a pair free, so its derivative is symmetric and a change of Q_ab and Q_ba counts both.

    Args:
        problem: the problem, K classes.
        taus: (T,) increasing training times ≥ 0 of the curves; the last may be inf. None with `Ridge`, whose penalties take their place.
        functional: from `LearningCurves` of (T, K) arrays to a real number; made of `jax.numpy` operations.
        rule: training rule; its step size or penalties stay fixed.
        tolerance: largest numerical error wanted in a loss.
        gram_derivatives: whether to include changes of Q outside its range, which cost more neuron types; without them the derivative in
            Q is NaN where Q has not full rank.

    Returns:
        A `Problem` whose fields hold the derivatives (numpy arrays); NaN where the fixed point did not converge. Of covariances that do
        not commute it holds derivatives by the class variances alone, spread over each class's eigenvalues; they scale whole matrices.

    Raises:
        InputError: malformed taus, rule or tolerance; a functional that does not return one real number; τ = ∞ where the losses diverge
            (p = n m); a traced problem.

    Reference: docs/theory/spectrum.md, eq-fixed-point and docs/theory/curves.md, eq-contour; tests/theory/test_curve_gradient.py.
    """
    require_concrete(problem, "theory.gradient", INSTEAD)
    plan = plan_curves(problem, taus, rule=rule, tolerance=tolerance, gram_derivatives=gram_derivatives)
    problem = apart(problem)
    taus, clock = rule.schedule(taus, float(problem.kappa))
    with double_on_host():
        curves, pull_back = jax.vjp(lambda problem: _curves(problem, plan, taus, clock, rule), problem)
        value, back = jax.vjp(functional, curves)
        if not (isinstance(value, jax.Array) and value.shape == () and jnp.issubdtype(value.dtype, jnp.floating)):
            raise InputError(f"functional: returned {value!r:.200}; allowed: a function of the curves that returns one real number")
        (slopes,) = pull_back(back(jnp.ones_like(value))[0])
    if not np.isfinite(plan.error_estimate):
        slopes = jax.tree.map(lambda leaf: leaf * jnp.nan, slopes)
    slopes = jax.tree.map(np.array, slopes)
    if not gram_derivatives and plan.averages.rank < problem.num_classes:
        slopes.mixture.centroid_gram[:] = np.nan
    return slopes


@jax.jit
def _curves(problem: Problem, plan: Plan, taus: Float[Array, " T"], clock: PyTree, rule: Rule) -> LearningCurves:
    """The learning curves of a problem on a plan; compiled once for every functional of them."""
    kernel = curve_kernel(problem, plan)
    train, test = kernel.evaluate(rule.filter(kernel.nodes, clock, kernel.kappa))[0]
    score = (test - kernel.optimal_loss) / kernel.noise_variance
    zeros = jnp.zeros_like(test)
    fields: dict[str, Any] = {  # traced, where the curves that are handed out are numpy arrays
        "taus": taus, "train_loss": train, "test_loss": test, "score_error": score, "optimal_loss": kernel.optimal_loss,
        "weights": kernel.class_weights, "kappa": kernel.kappa, "error_estimate": plan.error_estimate,
        "train_loss_stderr": zeros, "test_loss_stderr": zeros, "score_error_stderr": zeros,
    }  # fmt: skip
    return LearningCurves(**fields)
