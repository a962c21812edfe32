"""Descent in steps: plain, with momentum, with Nesterov's; weight decay, and an exponential moving average of the weights.

(docs/theory/model.md and docs/theory/practice.md.)
"""

import dataclasses
from typing import ClassVar, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.rules.interface import Clock, RuleName, Taus, below_one, check_taus, not_negative, positive
from rfdiff.value_types import Scalar, Value, is_concrete, set_field, value_type

STEP_BITS = 48


class Steps(NamedTuple):
    """What some steps do to a mode: f ← f + a e + b v, e ← (1 - λa) e - λb v, v ← c e + d v, with e = 1 - λf and the velocity v.

    The average m of f over the steps becomes (1 - s) m + s f + ā e + b̄ v; s, ā and b̄ are None without averaging. After steps from
    rest f is a itself, and m is ā.
    """

    a: jax.Array
    b: jax.Array
    c: jax.Array
    d: jax.Array
    s: jax.Array | None
    a_mean: jax.Array | None
    b_mean: jax.Array | None

    def twice(self, lam: jax.Array) -> "Steps":
        """As many steps again: a, which is f itself, is never the small difference of 1 and a power near 1, nor is s."""
        a, b, c, d, s, a_mean, b_mean = self
        common = 1 - lam * a + d
        twice = Steps(a * (2 - lam * a) + b * c, b * common, c * common, d * d - lam * b * c, None, None, None)
        if s is None or a_mean is None or b_mean is None:
            return twice
        return twice._replace(
            s=s * (2 - s),
            a_mean=a_mean * ((1 - s) + (1 - lam * a)) + s * a + b_mean * c,
            b_mean=b_mean * ((1 - s) + d) + s * b - lam * a_mean * b,
        )


Mode: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]  # f, v and the average of f


@value_type
class HeavyBall(Value):
    """Gradient descent with momentum, A_{k+1} = A_k - η d² ∇L(A_k) + β (A_k - A_{k-1}), A_{-1} = A_0 = 0; τ = kη.

    In each mode `f_{k+1} = (1 + β - κη(λ + ρ)) f_k - β f_{k-1} + κη`, evaluated by repeated squaring of this affine map, written so that
    slow modes lose no digits: exact at λ = 0, and any number of steps up to 2^48 costs the same. Averaging gives
    `f̄_{k+1} = γ f̄_k + (1 - γ) f_{k+1}` from f̄_0 = 0, the exponential moving average of the weights without bias correction.

    Args:
        step_size: η > 0 in units of τ.
        momentum: β in [0, 1).
        weight_decay: ρ ≥ 0, in units of the eigenvalues of U: κρA is added to the gradient.
        averaging: decay γ in [0, 1) of the average a step; None for the weights themselves.

    Raises:
        InputError: a number out of range.
    """

    name: ClassVar[RuleName] = "heavy-ball"
    arguments: ClassVar[tuple[str, ...]] = ("step_size", "momentum")
    options: ClassVar[dict[str, float | str | None]] = {"weight_decay": 0.0, "averaging": None}

    step_size: Scalar
    momentum: Scalar = 0.0
    weight_decay: Scalar = dataclasses.field(default=0.0, kw_only=True)
    averaging: Scalar | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if is_concrete(self.step_size, self.momentum, self.weight_decay, self.averaging):
            set_field(self, "step_size", positive("step_size", self.step_size))
            set_field(self, "momentum", below_one("momentum", self.momentum))
            set_field(self, "weight_decay", not_negative("weight_decay", self.weight_decay))
            set_field(self, "averaging", None if self.averaging is None else below_one("averaging", self.averaging, ", or None") or None)

    @property
    def decay(self) -> float:
        """ρ."""
        return float(self.weight_decay)

    @property
    def memory(self) -> float:
        """η/(1 - γ), 0 without averaging."""
        return 0.0 if self.averaging is None else float(self.step_size) / (1 - float(self.averaging))

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
        """f_k (T, *shape) after the clock's number of steps, by repeated squaring of what one step does (`Steps`)."""
        bits, final = clock
        real = jnp.real(eigenvalues).dtype
        lam = eigenvalues[None] + jnp.asarray(self.weight_decay, real)
        taken = jnp.asarray(bits).T.reshape((STEP_BITS, len(final)) + (1,) * eigenvalues.ndim)
        zeros = jnp.zeros((len(final), *eigenvalues.shape), eigenvalues.dtype)

        def double(bit: jax.Array, carry: tuple[Steps, Mode]) -> tuple[Steps, Mode]:
            steps, (f, v, mean) = carry
            e, take = 1 - lam * f, taken[bit]
            if steps.s is not None and steps.a_mean is not None and steps.b_mean is not None:
                mean = jnp.where(take, (1 - steps.s) * mean + steps.s * f + steps.a_mean * e + steps.b_mean * v, mean)
            moved = jnp.where(take, f + steps.a * e + steps.b * v, f), jnp.where(take, steps.c * e + steps.d * v, v)
            return steps.twice(lam), (*moved, mean)

        one_step = self._one_step(jnp.asarray(kappa * self.step_size, real), jnp.ones_like(lam), real)
        f, _, mean = jax.lax.fori_loop(0, STEP_BITS, double, (one_step, (zeros, zeros, zeros)))[1]
        inverse = jnp.where(lam == 0, 0, 1 / jnp.where(lam == 0, 1, lam))
        result = f if self.averaging is None else mean
        return jnp.where(jnp.asarray(final).reshape((-1,) + (1,) * eigenvalues.ndim), inverse, result)

    def _one_step(self, rate: jax.Array, one: jax.Array, real: jnp.dtype) -> Steps:
        """v ← β v + κη e, f ← f + v."""
        beta = jnp.asarray(self.momentum, real) * one
        return self._with_average(rate * one, beta, rate * one, beta, real)

    def _with_average(self, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array, real: jnp.dtype) -> Steps:
        """One step, of which the average sees a share 1 - γ."""
        if self.averaging is None:
            return Steps(a, b, c, d, None, None, None)
        share = 1 - jnp.asarray(self.averaging, real)
        return Steps(a, b, c, d, share * jnp.ones_like(a), share * a, share * b)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """Largest root of ρ² - (1 + β - κηλ) ρ + β, or γ if that is larger: growth of a mode's error per step."""
        trace, determinant = self._characteristic(float(kappa) * float(self.step_size) * (np.asarray(eigenvalues, complex) + self.decay))
        root = np.asarray(np.sqrt(trace**2 - 4 * determinant))
        largest = np.maximum(abs(trace + root), abs(trace - root)) / 2
        return largest if self.averaging is None else np.maximum(largest, float(self.averaging))

    def _characteristic(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Trace and determinant of one step's map of (e, v), x = κη(λ + ρ)."""
        return 1 + float(self.momentum) - x, np.full(x.shape, float(self.momentum))

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """2(1 + β)/(κη) - ρ, where the largest mode starts to oscillate without decay."""
        return float(2 * (1 + self.momentum) / (kappa * self.step_size)) - self.decay


@value_type
class GradientDescent(HeavyBall):
    """Plain gradient descent, f(λ) = (1 - (1 - κηλ)^k)/λ after k steps of size η (units of τ), τ = kη.

    Args:
        step_size: η > 0 in units of τ.
        weight_decay, averaging: as in `HeavyBall`.

    Raises:
        InputError: a number out of range.
    """

    name: ClassVar[RuleName] = "gradient-descent"
    arguments: ClassVar[tuple[str, ...]] = ("step_size",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_concrete(self.momentum) and self.momentum != 0:
            raise InputError(f"momentum: {self.momentum!r}; allowed: 0 for GradientDescent (use HeavyBall)")


@value_type
class Nesterov(HeavyBall):
    """Nesterov's momentum: v ← β v + κη e as in `HeavyBall`, then f ← f + β v + κη e; τ = kη. It is `optax.sgd(η, β, nesterov=True)`.

    Args:
        step_size: η > 0 in units of τ.
        momentum: β in [0, 1).
        weight_decay, averaging: as in `HeavyBall`.

    Raises:
        InputError: a number out of range.
    """

    name: ClassVar[RuleName] = "nesterov"

    def _one_step(self, rate: jax.Array, one: jax.Array, real: jnp.dtype) -> Steps:
        """v ← β v + κη e, f ← f + κη e + β (β v + κη e)."""
        beta = jnp.asarray(self.momentum, real) * one
        return self._with_average((1 + beta) * rate, beta * beta, rate * one, beta, real)

    def _characteristic(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Trace and determinant of one step's map of (e, v), x = κη(λ + ρ)."""
        return (1 + float(self.momentum)) * (1 - x), float(self.momentum) * (1 - x)

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """2(1 + β)/((1 + 2β)κη) - ρ, where the largest mode starts to oscillate without decay."""
        return float(2 * (1 + self.momentum) / ((1 + 2 * self.momentum) * kappa * self.step_size)) - self.decay
