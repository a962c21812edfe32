"""How the class-wise times respond to the numbers of a problem: d log τ_c / d log θ, exactly (`equations`, section 7)."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.errors import InputError
from rfdiff.parameters import get_parameter, parameter_names, set_parameter
from rfdiff.problem import Problem
from rfdiff.theory.differentiable import curve_kernel, plan_curves
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.plans import Plan
from rfdiff.theory_results import TimeSensitivity
from rfdiff.value_types import as_number


def sensitivity(problem: Problem, q: float = 0.5, tolerance: float = 1e-7) -> TimeSensitivity:
    """τ_gen, τ_stop, τ_mem, τ_opt(q) of every class, and d log τ_c / d log θ for every number θ of the problem.

    Among them d log τ_mem / d log σ_c². What a derivative keeps fixed is what `rfdiff.parameters` says of the name.

    Args:
        problem: the problem, K classes, with a limit τ → ∞ (not p = n m).
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).
        tolerance: largest numerical error wanted of the losses.

    Returns:
        `TimeSensitivity`.

    Raises:
        InputError: malformed q or tolerance; p = n m, where the curves have no limit.

    Reference: `equations`, section 7; tests/theory/test_learning_times.py.
    """
    if not 0 < as_number(q) < 1:
        raise InputError(f"q: {q!r}; allowed: 0 < q < 1")
    names = tuple(parameter_names(problem))
    plan = plan_curves(problem, tolerance=tolerance)
    with jax.enable_x64(True):
        logs = np.log([float(get_parameter(problem, name)) for name in names])
        gram = np.asarray(problem.mixture.centroid_gram)
        times, (by_log, by_gram) = jax.tree.map(np.asarray, _derivatives(problem, plan, logs, gram, names, q))
    known = jax.tree.map(lambda time: np.isfinite(time) & (time > 0), times)

    def where_known(slopes: ClassTimes, read: Any) -> ClassTimes:
        values = jax.tree.map(read, slopes)
        return jax.tree.map(lambda good, value: np.where(np.reshape(good, (-1,) + (1,) * (value.ndim - 1)), value, np.nan), known, values)

    elasticities = {name: where_known(by_log, lambda slope, i=i: slope[:, i]) for i, name in enumerate(names)}
    by_gram = where_known(by_gram, lambda slope: (slope + np.swapaxes(slope, 1, 2)) / 2)
    return TimeSensitivity(times, elasticities, by_gram, float(plan.error_estimate))


@partial(jax.jit, static_argnames=("names", "q"))
def _derivatives(problem: Problem, plan: Plan, logs: Any, gram: Any, names: tuple[str, ...], q: float) -> Any:
    """The times, and the derivatives of their logarithms with respect to the parameters' logarithms and to the Gram matrix."""

    def log_times(logs: jax.Array, gram: jax.Array) -> Any:
        moved = problem
        for i, name in enumerate(names):
            # relative to the present value, so that several names that touch one field compose
            moved = set_parameter(moved, name, get_parameter(moved, name) * jnp.exp(logs[i] - jax.lax.stop_gradient(logs[i])))
        law = dataclasses.replace(moved.mixture, centroid_gram=moved.mixture.centroid_gram + gram - jax.lax.stop_gradient(gram))
        moved = dataclasses.replace(moved, mixture=law)
        found = class_times(curve_kernel(moved, plan), q)
        return jax.tree.map(jnp.log, found), found

    slopes, times = jax.jacrev(log_times, argnums=(0, 1), has_aux=True)(logs, gram)
    return times, _transposed(slopes)


def _transposed(slopes: ClassTimes) -> tuple[Any, Any]:
    """A `ClassTimes` of pairs as a pair of `ClassTimes`."""
    first, second = ({name: getattr(slopes, name)[i] for name in TIME_NAMES} for i in range(2))
    return ClassTimes(**first, q=slopes.q), ClassTimes(**second, q=slopes.q)
