"""What theory and simulation ask of a training rule, and the checks that rules share."""

from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.value_types import Scalar, as_number, as_real_array, vectorize_text

RuleName = Literal["gradient-flow", "gradient-descent", "heavy-ball", "nesterov", "sgd", "ridge"]
Taus: TypeAlias = ArrayLike | None
Clock: TypeAlias = Any  # a pytree of arrays that only the rule that made it can read


class Rule(Protocol):
    """A training rule. To add one: a value type with these members, and its line in `RULES`."""

    name: ClassVar[RuleName]
    arguments: ClassVar[tuple[str, ...]]  # numbers that must be given
    options: ClassVar[dict[str, float | str | None]]  # numbers that may be given, with what they are otherwise

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """Validated training times (T,) float64, and the clock that `filter` takes."""
        ...

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """f (T, *eigenvalues.shape), in the dtype of the eigenvalues."""
        ...

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """Growth factor of a mode's error per unit of the clock; the rule converges on a mode where it is below 1."""
        ...

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """Eigenvalue of U above which the rule diverges; inf where it never does."""
        ...

    def equals(self, other: object) -> bool:
        """Whether `other` is the same rule with the same numbers (`Value`)."""
        ...

    @property
    def decay(self) -> float:
        """What the rule adds to every eigenvalue of U, at convergence at least: its weight decay, or its smallest penalty."""
        ...

    @property
    def memory(self) -> float:
        """Time constant of its average over the weights, in units of τ; 0 without."""
        ...


def require_rule(value: object) -> None:
    """Refuse what is no training rule, such as the name of one.

    Raises:
        InputError: showing it.
    """
    if not hasattr(value, "schedule") or isinstance(value, type):
        raise InputError(f"rule: got {value!r}; allowed: a training rule with its numbers, such as GradientFlow() or HeavyBall(0.1, 0.9)")


def log_spaced(last: int, per_decade: float) -> list[int]:
    """Distinct steps 1 … last of a training, `per_decade` in a decade, the last one included; those below it do not depend on it."""
    count = int(np.floor(per_decade * np.log10(last) + 1e-9)) + 1
    steps = np.unique(np.rint(10.0 ** (np.arange(count) / per_decade)).astype(np.int64))
    return sorted({*steps[steps <= last].tolist(), last})


def check_stability(rule: Rule, kappa: Scalar, largest_eigenvalue: float) -> None:
    """Refuse a step size at which the largest mode diverges.

    Raises:
        InputError: naming the step size and the largest one allowed.
    """
    limit = rule.largest_stable_eigenvalue(kappa)
    if largest_eigenvalue >= limit:
        step = float(rule.step_size)  # type: ignore[attr-defined]
        raise InputError(
            f"step_size: {step:.6g} diverges, because the largest eigenvalue of U is {largest_eigenvalue:.6g}; "
            f"allowed: below {step * (limit + rule.decay) / (largest_eigenvalue + rule.decay):.6g}"
        )


def check_taus(taus: ArrayLike | None) -> Float[np.ndarray, " T"]:
    """Training times as a float64 array.

    Raises:
        InputError: empty, not one-dimensional, NaN, negative, or not strictly increasing.
    """
    array = np.atleast_1d(as_real_array("taus", taus))
    if array.ndim != 1 or array.size == 0 or np.any(np.isnan(array)) or np.any(array < 0):
        raise InputError(f"taus: {taus!r}; allowed: a non-empty list of training times >= 0 (inf is convergence)")
    if np.any(array[1:] <= array[:-1]):
        raise InputError(f"taus: {vectorize_text(array)} does not increase strictly; allowed: increasing training times")
    return array


def positive(name: str, value: object) -> float:
    """A finite number > 0.

    Raises:
        InputError: anything else.
    """
    number = as_number(value)
    if not 0 < number < np.inf:
        raise InputError(f"{name}: {value!r}; allowed: a finite number > 0")
    return number


def not_negative(name: str, value: object) -> float:
    """A finite number ≥ 0.

    Raises:
        InputError: anything else.
    """
    number = as_number(value)
    if not 0 <= number < np.inf:
        raise InputError(f"{name}: {value!r}; allowed: a finite number >= 0")
    return number


def below_one(name: str, value: object, otherwise: str = "") -> float:
    """A number in [0, 1).

    Raises:
        InputError: anything else.
    """
    number = as_number(value)
    if not 0 <= number < 1:
        raise InputError(f"{name}: {value!r}; allowed: 0 <= {name} < 1{otherwise}")
    return number
