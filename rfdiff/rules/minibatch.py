"""Stochastic gradient descent on batches, with fresh noise or stored draws (docs/theory/practice.md, eq-volterra)."""

from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.rules.descent import HeavyBall
from rfdiff.rules.interface import Clock, Rule, RuleName, Taus, positive
from rfdiff.value_types import Scalar, Value, is_concrete, set_field, static, value_type

SAMPLINGS = ("uniform", "balanced", "weighted")
MOST_STEPS = 2**31 - 1  # that networks are trained, one by one
ROUNDED = 0.02  # relative change of a batch by rounding that a comparison with theory may have: so much of the noise it changes
NO_FILTER = "rule: sgd is no filter of U; allowed: in learning_curves, times and compare, or another rule"


@value_type
class MinibatchSGD(Value):
    """SGD: step k moves by η against the gradient over B = βd pairs (sample, noise), drawn independently; τ = kη.

    At m = ∞ every pair has fresh noise, at finite m it is one of the n m stored ones. The noise of the batches adds to the losses at
    leading order, so no filter of U gives them: theory solves a Volterra equation, simulation takes the steps.

    Args:
        step_size: η > 0 in units of τ.
        batch_per_dimension: β > 0, batch size over d.
        momentum, weight_decay, averaging: as in `HeavyBall`.
        sampling: what is in a batch. "uniform": pairs as they come, so that classes weigh as many samples as they have. "balanced": a class
            is drawn with its weight ω_c in the loss, then one of its pairs. "weighted": pairs as they come, and the loss of each is
            multiplied by ω_c/π_c, which has the same mean and more noise.

    Raises:
        InputError: a number out of range, or another sampling.
    """

    name: ClassVar[RuleName] = "sgd"
    arguments: ClassVar[tuple[str, ...]] = ("step_size", "batch_per_dimension")
    options: ClassVar[dict[str, float | str | None]] = {"momentum": 0.0, "weight_decay": 0.0, "averaging": None, "sampling": "uniform"}

    step_size: Scalar
    batch_per_dimension: Scalar
    momentum: Scalar = 0.0
    weight_decay: Scalar = 0.0
    averaging: Scalar | None = None
    sampling: str = static(default="uniform")

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise InputError(f"sampling: {self.sampling!r}; allowed: {', '.join(SAMPLINGS)}")
        if is_concrete(self.step_size, self.batch_per_dimension, self.momentum, self.weight_decay, self.averaging):
            set_field(self, "batch_per_dimension", positive("batch_per_dimension", self.batch_per_dimension))
            for name in ("step_size", "momentum", "weight_decay", "averaging"):
                set_field(self, name, getattr(self.descent, name))

    def check_loss_weights(self, loss_weights: ArrayLike | None, fractions: ArrayLike) -> None:
        """Refuse weights of the classes in the loss that do not go with the batches.

        Args:
            loss_weights: (K,) ω_c, or None where the problem has none of its own. Balanced and weighted batches need them: without, they
                would be uniform ones.
            fractions: (K,) π_c, what the weights of uniform batches are.

        Raises:
            InputError: naming sampling or weights.
        """
        if loss_weights is None:
            if self.sampling != "uniform":
                raise InputError(
                    f"sampling: {self.sampling!r} without loss_weights, which say how often a class is drawn or how much it weighs; "
                    "allowed: with loss_weights of the problem (equal ones for batches that are balanced), or uniform"
                )
            return
        if self.sampling == "uniform" and not np.allclose(loss_weights, fractions, rtol=1e-12, atol=0):
            given = ", ".join(f"{weight:.6g}" for weight in np.asarray(loss_weights))
            raise InputError(
                f"loss_weights: {given} with rule sgd and uniform batches, which take pairs as they come; allowed: None, or "
                "sampling balanced or weighted"
            )

    @property
    def descent(self) -> HeavyBall:
        """The same steps along the whole gradient."""
        return HeavyBall(self.step_size, self.momentum, weight_decay=self.weight_decay, averaging=self.averaging)

    @property
    def decay(self) -> float:
        """ρ."""
        return float(self.weight_decay)

    @property
    def memory(self) -> float:
        """η/(1 - γ), 0 without averaging."""
        return self.descent.memory

    def batch_size(self, d: int) -> int:
        """B = βd, rounded.

        Raises:
            InputError: no pair at all.
        """
        size = round(float(self.batch_per_dimension) * d)
        if size < 1:
            raise InputError(
                f"batch_per_dimension: {float(self.batch_per_dimension):g} makes no batch at d = {d}; allowed: at least {0.5 / d:.3g}"
            )
        return size

    def check_batch(self, d: int) -> None:
        """Refuse dimensions at which the batch, a whole number of pairs, is another than the theory's.

        Raises:
            InputError: β d is further than `ROUNDED` from a whole number, or makes no batch at all.
        """
        exact = float(self.batch_per_dimension) * d
        if abs(self.batch_size(d) - exact) > ROUNDED * exact:
            raise InputError(
                f"batch_per_dimension: {float(self.batch_per_dimension):g} makes batches of {self.batch_size(d)} pairs at d = {d}, where "
                f"theory has {exact:.4g}; allowed: within {ROUNDED:.0%} of each other, at another batch or dimension"
            )

    def schedule(self, taus: Taus, kappa: Scalar) -> tuple[Float[np.ndarray, " T"], Clock]:
        """As that of `HeavyBall`: whole numbers of steps.

        Raises:
            InputError: malformed taus, or more than 2^48 steps.
        """
        return self.descent.schedule(taus, kappa)

    def filter(self, eigenvalues: jax.Array, clock: Clock, kappa: Scalar) -> jax.Array:
        """There is none.

        Raises:
            InputError: always.
        """
        raise InputError(NO_FILTER)

    def growth(self, eigenvalues: ArrayLike, kappa: Scalar) -> np.ndarray:
        """That of the steps along the whole gradient; the noise of the batches may still diverge (`theory.sgd_stability`)."""
        return self.descent.growth(eigenvalues, kappa)

    def largest_stable_eigenvalue(self, kappa: Scalar) -> float:
        """That of the steps along the whole gradient."""
        return self.descent.largest_stable_eigenvalue(kappa)


def require_filter(rule: Rule) -> None:
    """Refuse a rule that is no filter of U.

    Raises:
        InputError: it is SGD on batches.
    """
    if isinstance(rule, MinibatchSGD):
        raise InputError(NO_FILTER)
