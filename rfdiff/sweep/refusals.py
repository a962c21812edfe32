"""Checks of a sweep's keys and values: each refuses by name, with the value and what is allowed."""

from collections.abc import Callable, Sequence
from typing import Any

from rfdiff.errors import InputError


def named(where: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's value; a refusal is told with where it arose.

    Raises:
        InputError: as the function.
    """
    try:
        return function(*arguments)
    except ValueError as err:
        raise InputError(f"{where}: {err}") from err


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether a value is a whole number (no truth value) from `low` to `high`."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def counted(document: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    """The whole number under a key, from `low` to `high`.

    Raises:
        InputError: naming the key.
    """
    value = document.get(name, default)
    if not is_integer(value, low, high):
        raise InputError(f"{name}: {value!r}; allowed: an integer from {low} to {high}")
    return int(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """A word out of some.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name}: {value!r}; allowed: {', '.join(allowed)}")
    return value


def distinct(name: str, values: Any, good: Callable[[Any], bool], allowed: str) -> tuple[Any, ...]:
    """A list of good words or whole numbers, none of them twice.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(values, list) or not values or not all(isinstance(value, str | int) and good(value) for value in values):
        raise InputError(f"{name}: {values!r}; allowed: {allowed}")
    if len(set(values)) < len(values):
        raise InputError(f"{name}: {values!r} repeats itself; allowed: {allowed}, each once")
    return tuple(values)
