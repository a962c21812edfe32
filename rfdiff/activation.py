"""Activations σ of the random features, by name or as a user's own function.

Only σ itself is ever needed: every coefficient of the theory and of the exact noise average is a Gaussian moment of σ, taken with
Stein's lemma where a derivative would stand. A function with a kink needs a rule split there, so the kinks are declared.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfdiff.errors import InputError


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

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Built-in activations pickle by name; a user's own pickles if its function does."""
        if ACTIVATIONS.get(self.name) is self:
            return as_activation, (self.name,)
        for module in LIBRARIES:  # jax.numpy.cos says of itself that it comes from a private module, where pickle does not find it
            if getattr(module, self.name, None) is self.function:
                return _of_library, (module.__name__, self.name, self.kinks)
        return Activation, (self.name, self.function, self.kinks)

    def __call__(self, x: ArrayLike) -> jax.Array:
        """σ(x), elementwise."""
        return self.function(jnp.asarray(x))


LIBRARIES = (jnp, jax.nn, jax.scipy.special)


def _of_library(module: str, name: str, kinks: tuple[float, ...]) -> Activation:
    return Activation(name, getattr(importlib.import_module(module), name), kinks)


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
        InputError: unknown name; or a function that JAX cannot trace, or that does not map finite numbers to finite numbers elementwise.
    """
    if isinstance(spec, str):
        if spec not in ACTIVATIONS:
            raise InputError(f"activation: unknown name {spec!r}; allowed: {', '.join(ACTIVATIONS)}, or a smooth function")
        return ACTIVATIONS[spec]
    if not callable(spec):
        raise InputError(f"activation: got {spec!r}; allowed: one of {', '.join(ACTIVATIONS)}, an Activation, or a smooth function")
    if spec is jax.nn.relu:  # declared with its kink
        return ACTIVATIONS["relu"]
    if (known := next((own for own in ACTIVATIONS.values() if own.function is spec), None)) is not None:
        return known
    activation = spec if isinstance(spec, Activation) else Activation(getattr(spec, "__name__", "custom"), spec)
    if activation not in ACTIVATIONS.values():
        _probe(activation)
    return activation


def _probe(activation: Activation) -> None:
    probe = np.linspace(-6.0, 6.0, 7, dtype=np.float32)
    what = f"activation: {activation.name!r}"
    try:
        traced = jax.eval_shape(activation, jax.ShapeDtypeStruct(probe.shape, probe.dtype))
        values, part = np.asarray(activation(probe)), np.asarray(activation(probe[:3]))
    except Exception as err:
        reason = (str(err).splitlines() or [""])[0]
        raise InputError(f"{what} fails on a JAX array of shape (7,): {reason}; allowed: a function made of jax.numpy operations") from err
    if traced.shape != probe.shape or traced.dtype != probe.dtype:
        raise InputError(
            f"{what} maps float32 (7,) to {traced.dtype} {traced.shape}; allowed: an elementwise function that keeps the dtype"
        )
    if not np.all(np.isfinite(values)):
        raise InputError(f"{what} gives {values.tolist()} on [-6, 6]; allowed: finite values")
    if not np.allclose(values[:3], part, rtol=1e-4, atol=1e-6):
        raise InputError(f"{what} gives other values for a part of an array than for the whole; allowed: an elementwise function")
