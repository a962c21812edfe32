"""What a command is: a name, a dataclass whose fields are its options, and a function that does it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

AGREE, DISAGREE, BAD_INPUT, NOT_COMPUTED, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130  # exit statuses


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of the command line.

    Args:
        name: the word after `rfdiff`.
        options: frozen dataclass; its docstring and those of its fields are the help text.
        run: takes an instance of it, does the work, and returns the exit status.
        actions: of a command that has a second word, the options by that word; `options` then stands for all of them in help.
        option_names: options by the names of the numbers that they give, where the package calls a number otherwise.
    """

    name: str
    options: type
    run: Callable[[Any], int]
    actions: Mapping[str, type] = dataclasses.field(default_factory=dict)
    option_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
