"""How the class-wise times respond to the numbers of a problem: d log τ_c / d log θ, exactly (docs/theory/times.md)."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.host import double_on_host
from rfdiff.parameters import get_parameter, parameter_names, set_parameter
from rfdiff.problem import Problem
from rfdiff.theory.input_checks import checked_fraction, require_concrete
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.noncommuting.coupled_law import apart
from rfdiff.theory.plans import Plan, curve_kernel, plan_curves
from rfdiff.theory_results import TimeSensitivity

INSTEAD = "makes its own plan, outside of jit, grad and vmap; allowed inside: theory.class_times of a theory.curve_kernel"


def sensitivity(problem: Problem, *, q: float = 0.5, tolerance: float = 1e-7) -> TimeSensitivity:
    """τ_gen, τ_stop, τ_mem, τ_opt(q) of every class, and d log τ_c / d log θ for every number θ of the problem.

    Among them d log τ_mem / d log σ_c². What a derivative keeps fixed is what `rfdiff.parameters` says of the name.

    Args:
        problem: the problem, K classes, with a limit τ → ∞ (not p = n m).
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).
        tolerance: largest numerical error wanted of the losses; smaller than for curves, since derivatives lose a digit.

    Returns:
        `TimeSensitivity`.

    Raises:
        InputError: malformed q or tolerance; p = n m, where the curves have no limit; a traced problem.

    Reference: docs/theory/times.md; tests/theory/test_learning_times.py.
    """
    require_concrete(problem, "theory.sensitivity", INSTEAD)
    q = checked_fraction(q)
    names = tuple(parameter_names(problem))
    plan, problem = plan_curves(problem, tolerance=tolerance), apart(problem)
    with double_on_host():
        logs = np.log([float(get_parameter(problem, name)) for name in names])
        gram = np.asarray(problem.mixture.centroid_gram)
        times, (by_log, by_gram) = jax.tree.map(np.asarray, _derivatives(problem, plan, logs, gram, names, q))
    known = jax.tree.map(lambda time: np.isfinite(time) & (time > 0), times)

    def where_known(slopes: ClassTimes, read: Callable[[np.ndarray], np.ndarray]) -> ClassTimes:
        values = jax.tree.map(read, slopes)
        return jax.tree.map(lambda good, value: np.where(np.reshape(good, (-1,) + (1,) * (value.ndim - 1)), value, np.nan), known, values)

    elasticities = {name: where_known(by_log, partial(np.take, indices=i, axis=1)) for i, name in enumerate(names)}
    by_gram = where_known(by_gram, lambda slope: (slope + np.swapaxes(slope, 1, 2)) / 2)
    return TimeSensitivity(times, elasticities, by_gram, float(plan.error_estimate))


@partial(jax.jit, static_argnames=("names", "q"))
def _derivatives(
    problem: Problem, plan: Plan, logs: Float[Array, " N"], gram: Float[Array, "K K"], names: tuple[str, ...], q: float
) -> tuple[ClassTimes, tuple[ClassTimes, ClassTimes]]:
    """The times, and the derivatives of their logarithms with respect to the parameters' logarithms and to the Gram matrix."""

    def log_times(logs: Float[Array, " N"], gram: Float[Array, "K K"]) -> tuple[ClassTimes, ClassTimes]:
        moved = problem
        for i, name in enumerate(names):
            # relative to the present value, so that several names that touch one field compose
            moved = set_parameter(moved, name, get_parameter(moved, name) * jnp.exp(logs[i] - jax.lax.stop_gradient(logs[i])))
        law = dataclasses.replace(moved.mixture, centroid_gram=moved.mixture.centroid_gram + gram - jax.lax.stop_gradient(gram))
        times = class_times(curve_kernel(moved.with_mixture(law), plan), q=q)
        return jax.tree.map(jnp.log, times), times

    slopes, times = jax.jacrev(log_times, argnums=(0, 1), has_aux=True)(logs, gram)
    return times, _transposed(slopes)


def _transposed(slopes: ClassTimes) -> tuple[ClassTimes, ClassTimes]:
    """A `ClassTimes` of pairs as a pair of `ClassTimes`."""
    first, second = ({name: getattr(slopes, name)[i] for name in TIME_NAMES} for i in range(2))
    return ClassTimes(**first, q=slopes.q), ClassTimes(**second, q=slopes.q)
