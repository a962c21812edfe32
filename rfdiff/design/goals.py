"""What a design is to achieve, as a number to be made small: of the score errors of the classes, or of two of their times."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rfdiff.errors import InputError
from rfdiff.value_types import as_number

GOALS = ("worst-class", "weighted-sum", "learned-before")


@dataclasses.dataclass(frozen=True)
class WorstClass:
    """The largest score error of any class, max_c E_c(τ)."""

    def text(self) -> str:
        """The goal in words."""
        return "worst-class score error"

    def value(self, errors: Float[np.ndarray, "*T K"]) -> Float[np.ndarray, "*T"]:
        """The number to be made small, for score errors with the classes on the last axis."""
        return np.max(errors, axis=-1)


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A weighted sum Σ_c a_c E_c(τ) of the score errors.

    Args:
        weights: K numbers a_c ≥ 0, not all 0.

    Raises:
        InputError: other weights.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = tuple(as_number(weight) for weight in self.weights)
        if not numbers or not all(0 <= weight < np.inf for weight in numbers) or sum(numbers) == 0:
            raise InputError(f"weights: {self.weights!r}; allowed: finite numbers >= 0, one for each class, not all 0")
        object.__setattr__(self, "weights", numbers)

    def text(self) -> str:
        """The goal in words."""
        return f"score errors of the classes, summed with weights {', '.join(f'{weight:g}' for weight in self.weights)}"

    def value(self, errors: Float[np.ndarray, "*T K"]) -> Float[np.ndarray, "*T"]:
        """The number to be made small, for score errors with the classes on the last axis."""
        return errors @ np.asarray(self.weights)


@dataclasses.dataclass(frozen=True)
class LearnedBefore:
    """One class learned before another is memorised: the ratio of the time at which the test loss of the first has made a part of
    its own descent, to τ_mem of the second. The goal is reached below 1.

    Args:
        learned: class that is to be learned.
        memorised: class that is not to be memorised before.
        descent: the part of its own descent that counts as learned, in (0, 1).

    Raises:
        InputError: one class twice, or a part out of range.
    """

    learned: int
    memorised: int
    descent: float = 0.9

    def __post_init__(self) -> None:
        if self.learned == self.memorised:
            raise InputError(f"classes: {self.learned} twice; allowed: two different classes")
        if not 0 < as_number(self.descent) < 1:
            raise InputError(f"descent: {self.descent!r}; allowed: 0 < descent < 1")

    def text(self) -> str:
        """The goal in words."""
        order = f"class {self.learned} at {self.descent:g} of its descent before class {self.memorised} is memorised"
        return f"{order} (ratio of the times; reached below 1)"


Goal = WorstClass | WeightedSum | LearnedBefore


def goal_of(
    name: str, num_classes: int, *, weights: Sequence[float] | None = None, pair: tuple[int, int] = (0, 1), descent: float = 0.9
) -> Goal:
    """A goal by its name, checked against the number of classes.

    Args:
        name: one of `GOALS`.
        num_classes: K.
        weights: K weights of a weighted sum; None for equal ones.
        pair: class to be learned and class not to be memorised before, for "learned-before".
        descent: part of the descent, for "learned-before".

    Raises:
        InputError: another name, or numbers that do not fit.
    """
    if name not in GOALS:
        raise InputError(f"goal: {name!r}; allowed: {', '.join(GOALS)}")
    if name == "worst-class":
        return WorstClass()
    if name == "weighted-sum":
        return checked_goal(WeightedSum(tuple(np.full(num_classes, 1 / num_classes) if weights is None else weights)), num_classes)
    return checked_goal(LearnedBefore(*pair, descent=descent), num_classes)


def checked_goal(goal: Goal, num_classes: int) -> Goal:
    """The goal, if it fits a number of classes.

    Raises:
        InputError: another number of weights, or a class that is not there.
    """
    if isinstance(goal, WeightedSum) and len(goal.weights) != num_classes:
        raise InputError(f"weights: {len(goal.weights)} given; allowed: {num_classes}, one for each class")
    if isinstance(goal, LearnedBefore) and not all(0 <= c < num_classes for c in (goal.learned, goal.memorised)):
        raise InputError(f"classes: {goal.learned} and {goal.memorised}; allowed: two different ones of 0 to {num_classes - 1}")
    return goal
