"""Training rules as spectral filters: A(τ)/√p = -(1/√Δ) Vᵀ f(U) for every rule that is linear in A (`equations`, section 1).

Gradient flow `dA/dτ = -d² ∇L` started from A = 0 gives f_τ(λ) = (1 - e^{-κτλ})/λ with κ = 2Δ/ψ_p, which fixes the unit of
training time. Discrete rules with step η advance τ by η a step, so their filters tend to the flow's as η → 0. Both sides of the
package read the filter from here: theory at complex λ on a contour, simulation at the eigenvalues of U.

A rule turns the user's grid into a `clock` on the host (`schedule`), then evaluates its filter inside jit (`filter`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.value_types import Scalar, Value, as_number, as_real_array, is_concrete, set_field, value_type, vectorize_text

STEP_BITS = 48
RuleName = Literal["gradient-flow", "gradient-descent", "heavy-ball", "ridge"]
Taus: TypeAlias = ArrayLike | None
Clock: TypeAlias = Any  # a pytree of arrays that only the rule that made it can read


class Rule(Protocol):
    """What theory and simulation ask of a training rule. To add one: a value type with these methods, and its line in `RULES`."""

    name: ClassVar[RuleName]
    arguments: ClassVar[tuple[str, ...]]

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


@value_type
class GradientFlow(Value):
    """Exact gradient flow, f_τ(λ) = (1 - e^{-κτλ})/λ, an entire function with f_τ(0) = κτ."""

    name: ClassVar[RuleName] = "gradient-flow"
    arguments: ClassVar[tuple[str, ...]] = ()

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """The training times themselves; inf is training to convergence.

        Raises:
            InputError: taus that are not an increasing list of numbers > 0 (or 0 for the first).
        """
        taus = check_taus(taus)
        return taus, taus

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """f_τ (T, *shape). At τ = ∞ it is 1/λ, and 0 on exact zero modes, where V has no component."""
        lam = eigenvalues[None]
        real = jnp.real(eigenvalues).dtype
        taus = jnp.asarray(clock, real).reshape((-1,) + (1,) * eigenvalues.ndim)
        kappa = jnp.asarray(kappa, real)
        final = jnp.isinf(taus)
        # far beyond any relaxation time the exponent must not overflow, nor its square in a complex division
        rate = jnp.minimum(kappa * jnp.where(final, 1, taus), jnp.finfo(real).max ** 0.8)
        exponent = rate * lam
        zero, slow = exponent == 0, abs(exponent) < 1
        nonzero = jnp.where(zero, 1, exponent)
        scale = jnp.where(slow, rate / jnp.where(slow, nonzero, 1), 1 / jnp.where(slow, 1, lam))
        flow = jnp.where(zero, rate, -jnp.expm1(-nonzero) * scale)
        inverse = jnp.where(lam == 0, 0, 1 / jnp.where(lam == 0, 1, lam))
        return jnp.where(final, inverse, flow)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """e^{-κ Re λ}: growth of a mode's error per unit of τ."""
        return np.exp(-float(kappa) * np.real(eigenvalues))

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """The flow converges on every positive eigenvalue."""
        return np.inf


@value_type
class HeavyBall(Value):
    """Gradient descent with momentum, A_{k+1} = A_k - η d² ∇L(A_k) + β (A_k - A_{k-1}), A_{-1} = A_0 = 0; τ = kη.

    In each mode `f_{k+1} = (1 + β - κηλ) f_k - β f_{k-1} + κη`, evaluated by repeated squaring of this affine map, written so that
    slow modes lose no digits: exact at λ = 0, and any number of steps up to 2^48 costs the same.

    Args:
        step_size: η > 0 in units of τ.
        momentum: β in [0, 1).

    Raises:
        InputError: a step size or momentum out of range.
    """

    name: ClassVar[RuleName] = "heavy-ball"
    arguments: ClassVar[tuple[str, ...]] = ("step_size", "momentum")

    step_size: Scalar
    momentum: Scalar = 0.0

    def __post_init__(self) -> None:
        if is_concrete(self.step_size, self.momentum):
            set_field(self, "step_size", _positive("step_size", self.step_size))
            momentum = as_number(self.momentum)
            if not 0 <= momentum < 1:
                raise InputError(f"momentum: {self.momentum!r}; allowed: 0 <= momentum < 1")
            set_field(self, "momentum", momentum)

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """Times moved to the nearest whole number of steps (at least one unless τ = 0), and the step counts in binary.

        Raises:
            InputError: malformed taus, or more than 2^48 steps (allowed beside that: inf, training to convergence).
        """
        taus = check_taus(taus)
        final = np.isinf(taus)
        steps = np.rint(np.where(final, 0, taus) / self.step_size)
        steps = np.where((taus > 0) & (steps == 0), 1, steps)
        if steps.max() >= 2.0**STEP_BITS:
            raise InputError(f"taus: {taus[~final].max():.6g} takes {steps.max():.3g} steps of {self.step_size:.3g}; allowed: < 2^48 steps")
        bits = (steps.astype(np.int64)[:, None] >> np.arange(STEP_BITS)) & 1
        return np.where(final, np.inf, steps * self.step_size), (bits.astype(bool), final)

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """f_k (T, *shape) after the clock's number of steps.

        With e = 1 - λf and the velocity v' = βv + κη e, f' = f + v', any number of steps acts as `e ← (1 - λA) e - λB v`,
        `v ← C e + D v`. Doubling that number maps (A, B, C, D) as below: A, which is f itself, is never the small
        difference of 1 and a power near 1.
        """
        bits, final = clock
        lam = eigenvalues[None]
        real = jnp.real(eigenvalues).dtype
        one = jnp.ones_like(lam)
        rate, beta = jnp.asarray(kappa * self.step_size, real) * one, jnp.asarray(self.momentum, real) * one
        taken = jnp.asarray(bits).T.reshape((STEP_BITS, len(final)) + (1,) * eigenvalues.ndim)
        zeros = jnp.zeros((len(final), *eigenvalues.shape), eigenvalues.dtype)

        def double(bit: Any, carry: Any) -> Any:
            (a, b, c, d), (f, v) = carry
            e, take = 1 - lam * f, taken[bit]
            state = (jnp.where(take, f + a * e + b * v, f), jnp.where(take, c * e + d * v, v))
            common = 1 - lam * a + d
            return (a * (2 - lam * a) + b * c, b * common, c * common, d * d - lam * b * c), state

        result = jax.lax.fori_loop(0, STEP_BITS, double, ((rate, beta, rate, beta), (zeros, zeros)))[1][0]
        inverse = jnp.where(eigenvalues == 0, 0, 1 / jnp.where(eigenvalues == 0, 1, eigenvalues))
        return jnp.where(jnp.asarray(final).reshape((-1,) + (1,) * eigenvalues.ndim), inverse, result)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """Largest root of ρ² - (1 + β - κηλ) ρ + β: growth of a mode's error per step."""
        trace = 1 + self.momentum - kappa * self.step_size * np.asarray(eigenvalues, complex)
        root = np.asarray(np.sqrt(trace**2 - 4 * self.momentum))
        return np.maximum(abs(trace + root), abs(trace - root)) / 2

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """2(1 + β)/(κη), where the largest mode starts to oscillate without decay."""
        return float(2 * (1 + self.momentum) / (kappa * self.step_size))


@value_type
class GradientDescent(HeavyBall):
    """Plain gradient descent, f(λ) = (1 - (1 - κηλ)^k)/λ after k steps of size η (units of τ), τ = kη.

    Args:
        step_size: η > 0 in units of τ.

    Raises:
        InputError: a step size out of range.
    """

    name: ClassVar[RuleName] = "gradient-descent"
    arguments: ClassVar[tuple[str, ...]] = ("step_size",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_concrete(self.momentum) and self.momentum != 0:
            raise InputError(f"momentum: {self.momentum!r}; allowed: 0 for GradientDescent (use HeavyBall)")


@value_type
class Ridge(Value):
    """Ridge regression at convergence, f(λ) = 1/(λ + ρ): the T axis of the curves is the list of penalties.

    Penalty ρ adds ρ ‖A‖²/p · (Δ/d) to the loss, i.e. ρ to every eigenvalue of U.

    Args:
        penalties: (T,) penalties ρ > 0, decreasing or increasing; the curves keep this order.

    Raises:
        InputError: penalties that are not numbers > 0.
    """

    name: ClassVar[RuleName] = "ridge"
    arguments: ClassVar[tuple[str, ...]] = ("penalties",)

    penalties: Float[np.ndarray, " T"]

    if TYPE_CHECKING:  # what the constructor accepts is wider than what the field holds

        def __init__(self, penalties: ArrayLike | Sequence[float]) -> None: ...

    def __post_init__(self) -> None:
        if not is_concrete(self.penalties):
            return
        penalties = np.atleast_1d(as_real_array("penalties", self.penalties))
        if penalties.ndim != 1 or penalties.size == 0 or not np.all(np.isfinite(penalties) & (penalties > 0)):
            raise InputError(f"penalties: {self.penalties!r}; allowed: a list of finite numbers > 0")
        set_field(self, "penalties", penalties)

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """Equivalent training times 1/(κρ), at which gradient flow has learned the modes above ρ; the clock is the penalties.

        Raises:
            InputError: taus given beside the penalties.
        """
        if taus is not None:
            raise InputError("taus: got a grid; allowed: None with Ridge, whose T axis is its penalties")
        return 1 / (float(kappa) * self.penalties), self.penalties

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """f_ρ (T, *shape)."""
        penalties = jnp.asarray(clock, jnp.real(eigenvalues).dtype).reshape((-1,) + (1,) * eigenvalues.ndim)
        return 1 / (eigenvalues[None] + penalties)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """0 where λ + ρ stays away from 0 for every penalty (right of -min ρ), else ∞: the filter has poles there."""
        return np.where(np.real(eigenvalues) > -0.5 * self.penalties.min(), 0.0, np.inf)

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """Ridge is solved at convergence and never diverges."""
        return np.inf


RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (GradientFlow, GradientDescent, HeavyBall, Ridge)}


def rule_of(name: str, **numbers: Any) -> Rule:
    """A training rule by its name.

    Args:
        name: one of `RULES`.
        numbers: its `arguments`, each by name.

    Raises:
        InputError: another name; a number that the rule needs is missing, or is not one of its own; a number out of range.
    """
    if name not in RULES:
        raise InputError(f"rule: {name!r}; allowed: {', '.join(RULES)}")
    wanted = RULES[name].arguments
    for number in (*numbers, *wanted):
        if (number in numbers) != (number in wanted):
            raise InputError(
                f"{number}: {'missing' if number in wanted else 'given'}; allowed: rule {name} takes {', '.join(wanted) or 'no numbers'}"
            )
    return RULES[name](**numbers)


def rule_numbers(rule: Rule) -> dict[str, Any]:
    """The numbers of a rule by name, as plain floats and lists: `rule_of(rule.name, **rule_numbers(rule))` is the same rule."""
    return {name: np.asarray(getattr(rule, name)).tolist() for name in rule.arguments}


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
            f"allowed: below {step * limit / largest_eigenvalue:.6g}"
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


def _positive(name: str, value: object) -> float:
    number = as_number(value)
    if not 0 < number < np.inf:
        raise InputError(f"{name}: {value!r}; allowed: a finite number > 0")
    return number
