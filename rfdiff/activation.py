"""Activations σ of the random features, by name or as a user's own function.

Only σ itself is ever needed: every coefficient of the theory and of the exact noise average is a Gaussian moment of σ, taken with
Stein's lemma where a derivative would stand. A function with a kink needs a rule split there, so the kinks are declared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


@dataclass(frozen=True)
class Activation:
    """A scalar activation σ.

    Args:
        name: its name in tables, files and error messages.
        function: σ, elementwise on JAX arrays, dtype preserved. It must grow slower than a Gaussian decays.
        kinks: points where σ is continuous but not smooth ((0.0,) for relu). Averages are split there.
    """

    name: str
    function: Callable[[jax.Array], jax.Array]
    kinks: tuple[float, ...] = ()

    def __call__(self, x: ArrayLike) -> jax.Array:
        return self.function(jnp.asarray(x))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation("tanh", jnp.tanh),
    "erf": Activation("erf", jax.scipy.special.erf),
    "relu": Activation("relu", lambda x: jnp.maximum(x, 0), kinks=(0.0,)),
    "softplus": Activation("softplus", jax.nn.softplus),
    "gelu": Activation("gelu", lambda x: jax.nn.gelu(x, approximate=False)),
    "sin": Activation("sin", jnp.sin),
}


def as_activation(spec: str | Activation | Callable[[jax.Array], jax.Array]) -> Activation:
    """The activation meant by a name, an `Activation`, or a smooth scalar function.

    Raises:
        ValueError: unknown name; or a function that does not map finite numbers to finite numbers elementwise.
    """
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str):
        if spec not in ACTIVATIONS:
            raise ValueError(f"activation: unknown name {spec!r}; allowed: {', '.join(ACTIVATIONS)}, or a smooth function")
        return ACTIVATIONS[spec]
    if not callable(spec):
        raise ValueError(f"activation: got {spec!r}; allowed: one of {', '.join(ACTIVATIONS)}, an Activation, or a smooth function")
    probe = np.linspace(-6.0, 6.0, 7, dtype=np.float32)
    try:
        values = np.asarray(spec(jnp.asarray(probe)))
    except Exception as err:
        raise ValueError(f"activation: {spec!r} fails on a JAX array of shape (7,): {err}") from err
    if values.shape != probe.shape or not np.all(np.isfinite(values)):
        raise ValueError(f"activation: {spec!r} must map a JAX array elementwise to finite numbers; on [-6, 6] it gave {values!r}")
    return Activation(getattr(spec, "__name__", "custom"), spec)
