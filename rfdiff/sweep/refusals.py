"""Checks of a sweep's keys and values: each refuses by name, with the value and what is allowed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from rfdiff.errors import InputError
from rfdiff.value_types import whole_number

P = ParamSpec("P")
T = TypeVar("T")


def named(where: str, function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The function's value; a refusal is told with where it arose.

    Raises:
        InputError: as the function.
    """
    try:
        return function(*arguments, **options)
    except InputError as err:
        raise InputError(f"{where}: {err}") from err


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether a value is a whole number (no truth value) from `low` to `high`."""
    number = whole_number(value)
    return number is not None and low <= number <= high


def counted(document: Mapping[str, object], name: str, default: int, low: int, high: int) -> int:
    """The whole number under a key, from `low` to `high`.

    Raises:
        InputError: naming the key.
    """
    value = document.get(name, default)
    number = whole_number(value)
    if number is None or not low <= number <= high:
        raise InputError(f"{name}: {value!r}; allowed: an integer from {low} to {high}")
    return number


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """A word out of some.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name}: {value!r}; allowed: {', '.join(allowed)}")
    return value


def distinct(name: str, values: object, good: Callable[[str | int], bool], allowed: str) -> tuple[Any, ...]:
    """A list of good words or whole numbers, none of them twice.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(values, list) or not values or not all(isinstance(value, str | int) and good(value) for value in values):
        raise InputError(f"{name}: {values!r}; allowed: {allowed}")
    if len(set(values)) < len(values):
        raise InputError(f"{name}: {values!r} repeats itself; allowed: {allowed}, each once")
    return tuple(values)
