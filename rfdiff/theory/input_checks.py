"""Inputs that the closed forms refuse: tolerances, traced problems, covariances that do not commute."""

from typing import Any

from rfdiff.errors import InputError
from rfdiff.problem import Problem, require_problem
from rfdiff.value_types import as_number, is_concrete

LEAST_TOLERANCE, LARGEST_TOLERANCE = 1e-9, 0.1
ALLOWED_TOLERANCE = "1e-9 <= tolerance <= 0.1"
HOST_ONLY = (
    "chooses its contour from the numbers of the problem, outside of jit, grad and vmap; "
    "allowed inside: theory.gradient(problem, taus, functional) for derivatives, or theory.curve_kernel(problem, plan) with a plan "
    "made before by theory.plan_curves(problem, taus)"
)
POINTS_INSTEAD = (
    "chooses its neuron types from the numbers of the problem, outside of jit, grad and vmap; "
    "allowed inside: theory.transform_at(problem, plan) with a plan made before by theory.plan_points(problem, z)"
)


def tolerance_allowed(tolerance: Any) -> tuple[bool, str]:
    """Whether a tolerance is one of the closed forms', and the range in words."""
    inside = not isinstance(tolerance, bool) and LEAST_TOLERANCE <= as_number(tolerance) <= LARGEST_TOLERANCE
    return inside, ALLOWED_TOLERANCE


def checked_tolerance(tolerance: Any) -> float:
    """A tolerance of the closed forms as a number.

    Raises:
        InputError: not a number from 1e-9 to 0.1.
    """
    inside, allowed = tolerance_allowed(tolerance)
    if not inside:
        raise InputError(f"tolerance: {tolerance!r}; allowed: {allowed}")
    return as_number(tolerance)


def checked_fraction(q: Any) -> float:
    """The fraction q of the way to the exact score's loss as a number.

    Raises:
        InputError: not a number between 0 and 1.
    """
    if not 0 < as_number(q) < 1:
        raise InputError(f"q: {q!r}; allowed: 0 < q < 1")
    return as_number(q)


def require_concrete(problem: Problem, function: str, instead: str = HOST_ONLY) -> None:
    """Refuse a traced problem, and say what to use inside a transformation.

    Args:
        problem: the problem.
        function: name of what was called.
        instead: what it needs, and what to use.

    Raises:
        InputError: something else than a problem; a number of it is a tracer.
    """
    require_problem(problem)
    if not is_concrete(problem):
        raise InputError(f"problem: has traced numbers, but {function} {instead}")


def require_commuting(problem: Problem) -> None:
    """Refuse class covariances that do not commute where a plan was made for ones that do.

    Raises:
        InputError: they do not.
    """
    if not problem.mixture.commuting:
        raise InputError(
            "mixture: its class covariances do not commute, and the plan was made for ones that do; allowed: jointly diagonal ones, or "
            "a new plan, made for this problem"
        )
