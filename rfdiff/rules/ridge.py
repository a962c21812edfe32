"""Ridge regression: training to convergence with a penalty."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.rules.interface import Clock, RuleName, Taus
from rfdiff.value_types import Scalar, Value, as_real_array, is_concrete, set_field, value_type


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
    options: ClassVar[dict[str, float | str | None]] = {}

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

    @property
    def decay(self) -> float:
        """The smallest penalty."""
        return float(np.min(self.penalties))

    @property
    def memory(self) -> float:
        """0: there is nothing to average."""
        return 0.0

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
