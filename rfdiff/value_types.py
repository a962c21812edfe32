"""Frozen value types that are JAX pytrees and validate themselves only when built by hand.

`jax.tree_util.register_dataclass` rebuilds through the constructor, which would run validation on tracers and on the placeholder
leaves JAX uses internally. `value_type` rebuilds without it, so `__post_init__` runs once, when a person builds the value.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.errors import InputError

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree structure (hashable, compared by equality), not a leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def value_type(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and register it as a pytree (fields marked `static` are structure)."""
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = tuple(f.name for f in fields if not f.metadata.get("static", False))
    meta = tuple(f.name for f in fields if f.metadata.get("static", False))

    def flatten_with_keys(value: T) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in data]
        return children, tuple(getattr(value, name) for name in meta)

    def unflatten(structure: tuple[Any, ...], leaves: Iterable[Any]) -> T:
        value = object.__new__(cls)
        for name, item in zip(meta + data, (*structure, *leaves), strict=True):
            object.__setattr__(value, name, item)
        return value

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def is_concrete(*values: Any) -> bool:
    """Whether every leaf is a number that can be inspected now (no tracer among them)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(values))


def set_field(value: Any, name: str, item: Any) -> None:
    """Assign a field of a frozen value; for `__post_init__` only."""
    object.__setattr__(value, name, item)


def as_number(value: Any) -> float:
    """A real scalar as a Python float; NaN for anything else (text, booleans, lists, complex), which every range check refuses."""
    array = np.asarray(value) if isinstance(value, int | float | np.generic | np.ndarray | jax.Array) else np.asarray(None)
    real = array.ndim == 0 and (jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, np.floating))
    return float(array) if real else math.nan


def as_real_array(name: str, value: Any) -> np.ndarray:
    """An array of numbers as a float64 copy.

    Raises:
        InputError: naming the field, if the value is ragged, or holds text, booleans or complex numbers.
    """
    try:
        array = np.asarray(value)
        if not (jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, np.floating)):
            raise TypeError(f"entries of type {array.dtype}")
        return np.array(array, np.float64)
    except (TypeError, ValueError) as err:
        raise InputError(f"{name}: {value!r} is not an array of numbers; allowed: a rectangular array of finite numbers") from err


def vectorize_text(items: Any, render: Callable[[Any], str] = lambda x: f"{x:.6g}") -> str:
    """A short rendering of an array for an error message."""
    flat = [render(x) for x in items]
    return "[" + ", ".join(flat[:8]) + (", …" if len(flat) > 8 else "") + "]"
