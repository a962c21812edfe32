"""How fine neuron types must be for losses to a tolerance, read on a coarse contour (docs/theory/curves.md)."""

from collections.abc import Callable

import numpy as np

from rfdiff.problem import Problem
from rfdiff.theory.contour import Span
from rfdiff.theory.contour_ladder import Question
from rfdiff.theory.contour_losses import coarser, in_halves
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.neuron_types import LevelErrors, levels


def size_of(losses: np.ndarray) -> float:
    """The largest loss, if above 1: what errors of losses scale with."""
    return float(np.max(abs(losses), initial=1.0, where=np.isfinite(losses)))


def largest_change(losses: np.ndarray, before: np.ndarray) -> float:
    """The largest difference of two sets of losses."""
    return float(np.max(abs(losses - before)))


def level_of_types(
    problem: Problem, made: Callable[[int], Equivalent], question: Question, span: Span, radius: float, wanted: float, beyond: float
) -> tuple[int, float]:
    """The first level of neuron types with an error as small as wanted, or the last one, and its error.

    Levels differ by little, and a contour of half the nodes tells that well: the one that the tolerance asks for is for the last level
    alone.

    Args:
        problem: whose neuron types lie on a lattice (`by_lattice`), or are one.
        made: the equivalent at a level.
        question: what is asked of the losses.
        span: what contours go around.
        radius: standard deviations of h that are kept.
        wanted: error of the types and of what lies beyond the radius together.
        beyond: error of a loss of 1 from neurons beyond the radius; no level makes that smaller.
    """
    errors, everything = LevelErrors(problem, radius, change_by_a_level), levels(problem, 1, radius)
    if len(everything) == 1:
        return everything[0], float(errors.of(np.zeros(0)))
    laid = coarser(question, span)
    for level in everything:
        values = in_halves(made(level), question, laid)
        types, tail = float(errors.of(np.stack(values))), beyond * size_of(values.losses)
        if types <= max(wanted - tail, tail):  # finer types would not change what the tail adds
            break
    return level, types


def change_by_a_level(values: np.ndarray, before: np.ndarray) -> float:
    """The largest difference of losses of two levels on one contour, and the error of its nodes.

    Half the nodes change losses by e^{-cN/2} and their difference by as small a part of it; all nodes miss the square of the first, so
    of the difference the product (docs/theory/curves.md).
    """
    (losses, half), (losses_before, half_before) = values, before
    of_difference = largest_change(half, half_before)
    change = largest_change(losses, losses_before) + of_difference * min(1.0, 10 * float(np.max(abs(half))))
    return change if np.isfinite(change) else np.inf
