"""Frozen value types that are JAX pytrees, validate themselves when built by hand, pickle, and compare by value; numbers as they come in.

`jax.tree_util.register_dataclass` rebuilds through the constructor, which would run validation on tracers and on the placeholder
leaves JAX uses internally. `value_type` rebuilds without it, so `__post_init__` runs once, when a person builds the value.
"""

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.errors import InputError

T = TypeVar("T")
Scalar = float | jax.Array  # a number of a problem: a float, or a traced value inside jit and grad
DType = str | type[Any] | np.dtype[Any]  # a floating type by name, numpy type or dtype
SHOWN = 4  # entries up to which an array is written out by `repr`


class Value:
    """What every value type can do; `value_type` gives it to classes that do not inherit it."""

    def equals(self, other: object) -> bool:
        """Whether `other` is of the same type and holds the same values: arrays entry by entry, NaN equal to NaN."""
        return same_value(self, other)

    def __repr__(self) -> str:
        """One line: numbers as they are, arrays by shape and range."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={describe(value)}' for name, value in fields if value is not None)})"


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree structure (hashable, compared by equality), not a leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def value_type(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass with `equals` and a short `repr`, and register it as a pytree (`static` fields are structure)."""
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    if not issubclass(cls, Value):
        for name in ("equals", "__repr__"):
            if name not in vars(cls):
                setattr(cls, name, vars(Value)[name])
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


def same_value(one: object, other: object) -> bool:
    """Whether two values agree: types, structure and every number; arrays by shape and entries (not by dtype), NaN equal to NaN."""
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        if type(one) is not type(other):
            return False
        return all(same_value(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one) if f.compare)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, np.ndarray | np.generic | jax.Array | int | float | complex):
        if not isinstance(other, np.ndarray | np.generic | jax.Array | int | float | complex):
            return False
        a, b = np.asarray(one), np.asarray(other)
        return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc" and b.dtype.kind in "fc")
    return bool(one == other)


def describe(value: object) -> str:
    """A value in a few words, for `repr`: numbers to six digits, short arrays in full, longer ones by shape and range."""
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if isinstance(value, np.ndarray | jax.Array) and is_concrete(value) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        array = np.asarray(value)
        if array.size <= SHOWN:
            return np.array2string(array, separator=", ", formatter={"float_kind": lambda x: f"{x:.6g}"}).replace("\n", "")
        shape = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
        real = array.dtype.kind in "iuf" and not np.all(np.isnan(array))
        return f"<{shape} from {np.nanmin(array):.4g} to {np.nanmax(array):.4g}>" if real else f"<{shape}>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        listed = ", ".join(map(describe, value[:SHOWN])) + (", …" if len(value) > SHOWN else "")
        return f"({listed})" if isinstance(value, tuple) else f"[{listed}]"
    return repr(value)


def html_table(caption: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table for notebooks (`_repr_html_`): a caption, a header line, one row an entry."""

    def line(cells: Iterable[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def is_concrete(*values: Any) -> bool:
    """Whether every leaf is a number that can be inspected now (no tracer among them)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(values))


def set_field(value: object, name: str, item: object) -> None:
    """Assign a field of a frozen value; for `__post_init__` only."""
    object.__setattr__(value, name, item)


def as_number(value: object) -> float:
    """A real scalar as a Python float; NaN for anything else (text, booleans, lists, complex), which every range check refuses."""
    array = np.asarray(value) if isinstance(value, int | float | np.generic | np.ndarray | jax.Array) else np.asarray(None)
    real = array.ndim == 0 and (jnp.issubdtype(array.dtype, np.integer) or jnp.issubdtype(array.dtype, np.floating))
    return float(array) if real else math.nan


def as_integer(name: str, value: object, least: int, most: int | None = None, why: str = "") -> int:
    """A whole number as a Python int: Python's and numpy's integers, and arrays of one of them; no booleans, no floats.

    Args:
        name: the field, for the message.
        value: what was given.
        least: smallest value allowed.
        most: largest value allowed, None for no bound.
        why: what the bounds are for, appended to the message.

    Raises:
        InputError: not an integer, or out of range.
    """
    number = whole_number(value)
    if number is None or number < least or (most is not None and number > most):
        upper = "" if most is None else f" and <= {most}"
        raise InputError(f"{name}: {value!r}; allowed: an integer >= {least}{upper}{f', {why}' if why else ''}")
    return number


def whole_number(value: object) -> int | None:
    """A Python or numpy integer (or an array of one) as a Python int; None for anything else, booleans and floats included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0 and jnp.issubdtype(value.dtype, np.integer):
        return int(value)
    return None


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


def vectorize_text(items: Iterable[Any], render: Callable[[Any], str] = lambda x: f"{x:.6g}") -> str:
    """A short rendering of an array for an error message."""
    flat = [render(x) for x in items]
    return "[" + ", ".join(flat[:8]) + (", …" if len(flat) > 8 else "") + "]"
