"""Programs that the next problems may need, made before they are asked for: those of more neuron types than a problem has itself.

The number of neuron types follows the numbers of a problem in rungs, and every rung has programs of its own, which take seconds to
compile. Someone who moves those numbers, as the explorer does, has them made meanwhile.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.theory import pair_traces, solutions
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.training_times import LEAST, coarse_level, types_radius

RUNGS = (384, 512)  # of neuron types, after `LEAST`; those beyond are rare


def preparations(problem: Problem, *, tolerance: float = 1e-6) -> Iterator[Callable[[], None]]:
    """Calls that each make the programs of one rung above the problem's own; none where there is one neuron type.

    Args:
        problem: the problem, whose covariances commute.
        tolerance: that of the curves that are to come.
    """
    radius, _ = types_radius(problem, tolerance)
    if radius > 0:
        yield from (partial(_prepare, problem, radius, size) for size in (LEAST, *RUNGS))


def _prepare(problem: Problem, radius: float, size: int) -> None:
    """Solve the fixed point at one point left of 0, and take its traces, with as many neuron types."""
    with double_on_host():
        eq = widened(equivalent(dense.surrogate(problem), coarse_level(problem), radius, LEAST), size)
        place = np.array([-1.0])
        pair_traces.ridge_losses(eq, -place, solutions.anywhere(eq, place).u)


def widened(eq: Equivalent, size: int) -> Equivalent:
    """The equivalent with so many neuron types, of which those that are added have no weight; unchanged where it has as many."""
    more = max(size - eq.type_weights.size, 0)
    linear, kept, carried = (jnp.pad(values, ((0, more), (0, 0)), mode="edge") for values in (eq.linear, eq.kept, eq.carried))
    return replace(eq, type_weights=jnp.pad(eq.type_weights, (0, more)), linear=linear, kept=kept, carried=carried)
