"""Gradient flow, with weight decay and an exponential moving average of the weights (docs/theory/practice.md)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.rules.interface import Clock, RuleName, Taus, check_taus, not_negative, positive
from rfdiff.value_types import Scalar, Value, is_concrete, set_field, value_type

SERIES_X, SERIES_Y = 2.0, 1.0  # where the second divided difference of e^{-x} is summed as a series
TERMS = 26  # of it: the next one is below 2^26 27/28! = 6e-21


@value_type
class GradientFlow(Value):
    """Exact gradient flow, f_τ(λ) = (1 - e^{-κτλ})/λ, an entire function with f_τ(0) = κτ.

    Weight decay ρ adds -κρA to dA/dτ: f_τ(λ + ρ) in place of f_τ(λ), which is ridge regression with penalty ρ as τ → ∞. Averaging with
    time constant T replaces the weights by their exponential moving average, T dĀ/dτ = A - Ā from Ā = 0:

        f̄_τ(λ) = (1/λ) [1 - e^{-τ/T} - (e^{-κτλ} - e^{-τ/T})/(1 - κTλ)],      entire in λ too.

    Args:
        weight_decay: ρ ≥ 0, in units of the eigenvalues of U.
        averaging: T > 0 in units of τ; None for the weights themselves.

    Raises:
        InputError: a decay or a time constant out of range.
    """

    name: ClassVar[RuleName] = "gradient-flow"
    arguments: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[dict[str, float | str | None]] = {"weight_decay": 0.0, "averaging": None}

    weight_decay: Scalar = 0.0
    averaging: Scalar | None = None

    def __post_init__(self) -> None:
        if is_concrete(self.weight_decay, self.averaging):
            set_field(self, "weight_decay", not_negative("weight_decay", self.weight_decay))
            set_field(self, "averaging", None if self.averaging is None else positive("averaging", self.averaging))

    @property
    def decay(self) -> float:
        """ρ."""
        return float(self.weight_decay)

    @property
    def memory(self) -> float:
        """T, 0 without averaging."""
        return 0.0 if self.averaging is None else float(self.averaging)

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """The training times themselves; inf is training to convergence.

        Raises:
            InputError: taus that are not an increasing list of numbers > 0 (or 0 for the first).
        """
        taus = check_taus(taus)
        return taus, taus

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """f_τ (T, *shape). At τ = ∞ it is 1/(λ + ρ), and 0 on exact zero modes of U + ρ, where V has no component."""
        real = jnp.real(eigenvalues).dtype
        lam = eigenvalues[None] + jnp.asarray(self.weight_decay, real)
        taus = jnp.asarray(clock, real).reshape((-1,) + (1,) * eigenvalues.ndim)
        kappa = jnp.asarray(kappa, real)
        final = jnp.isinf(taus)
        finite = jnp.where(final, 1, taus)
        # far beyond any relaxation time the exponent must not overflow, nor its square in a complex division
        rate = jnp.minimum(kappa * finite, jnp.finfo(real).max ** (0.8 if self.averaging is None else 0.4))
        exponent = rate * lam
        zero, slow = exponent == 0, abs(exponent) < 1
        nonzero = jnp.where(zero, 1, exponent)
        scale = jnp.where(slow, rate / jnp.where(slow, nonzero, 1), 1 / jnp.where(slow, 1, lam))
        flow = jnp.where(zero, rate, -jnp.expm1(-nonzero) * scale)
        if self.averaging is not None:
            flow = _averaged(flow, rate, exponent, finite / jnp.asarray(self.averaging, real))
        inverse = jnp.where(lam == 0, 0, 1 / jnp.where(lam == 0, 1, lam))
        return jnp.where(final, inverse, flow)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """e^{-κ Re(λ + ρ)}: growth of a mode's error per unit of τ; with averaging no less than e^{-1/T}."""
        rate = float(kappa) * (np.real(eigenvalues) + self.decay)
        return np.exp(-rate if self.averaging is None else -np.minimum(rate, 1 / self.memory))

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """The flow converges on every positive eigenvalue."""
        return np.inf


def _mean_decay(x: jax.Array) -> jax.Array:
    """E(x) = (1 - e^{-x})/x for Re x ≥ 0, 1 at x = 0."""
    nonzero = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 1, -jnp.expm1(-nonzero) / nonzero)


def _averaged(flow: jax.Array, rate: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """f̄ = κτ (E(x) - D(x, y)) from f = κτ E(x), x = κτλ and y = τ/T, to rounding everywhere.

    E(x) = (1 - e^{-x})/x, and D(x, y) = (e^{-x} - e^{-y})/(y - x) is a divided difference. For y < 1 the difference would cancel: there
    f̄ = κτ y (E(x) - E(y))/(y - x), and near x = y the power series of this second divided difference of e^{-x}.
    """
    y = y * jnp.ones_like(jnp.real(x))
    low = jnp.where(jnp.real(x) < y, x, y)
    difference = rate * jnp.exp(-low) * _mean_decay(jnp.where(jnp.real(x) < y, y - x, x - y))
    apart = jnp.where(abs(x - y) < SERIES_X - SERIES_Y, 1, y - x)
    second = (flow - rate * _mean_decay(y)) * y / apart
    result = jnp.where(y < SERIES_Y, second, flow - difference)
    return jnp.where((abs(x) < SERIES_X) & (y < SERIES_Y), rate * y * _series(x, y), result)


def _series(x: jax.Array, y: jax.Array) -> jax.Array:
    """Σ_m (-1)^m h_m(x, y)/(m + 2)!, h_m = Σ_i x^i y^{m-i}: the second divided difference of e^{-u} at 0, x and y."""
    x = jnp.where(abs(x) < SERIES_X, x, 0)
    y = jnp.where(y < SERIES_Y, y, 0).astype(x.dtype)

    def add(m: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        total, h, power, weight = carry
        power = power * y
        h, weight = x * h + power, -weight / (m + 2)
        return total + weight * h, h, power, weight

    one = jnp.ones_like(x * y)
    half = jnp.full_like(jnp.real(one), 0.5)
    total: jax.Array = jax.lax.fori_loop(1, TERMS, add, (one / 2, one, one, half))[0]
    return total
