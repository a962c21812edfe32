"""What a command is: a name, a dataclass whose fields are its options, and a function that does it."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of the command line.

    Args:
        name: the word after `rfdiff`.
        options: frozen dataclass; its docstring and those of its fields are the help text.
        run: takes an instance of it, does the work, and returns the exit status.
    """

    name: str
    options: type
    run: Callable[[Any], int]
