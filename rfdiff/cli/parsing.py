"""How a line of text becomes the options of a command, and what is said of a line that cannot be understood."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Annotated, Any, Union

import tyro

from rfdiff.cli.command import Command
from rfdiff.cli.registry import COMMANDS
from rfdiff.errors import InputError

DESCRIPTION = """\
Per-class learning curves of random-features score learning on Gaussian mixtures, simulated and in closed form.

Exit status: 0 done (and theory and simulation agree), 1 they disagree or a cell of a sweep is not done, 2 bad input or too little memory,
70 a bug in rfdiff, 130 interrupted.
rfdiff --version prints the version."""


class UsageError(InputError):
    """A command line that cannot be understood, told in one line."""


def parse(arguments: Sequence[str]) -> tuple[Command, Any]:
    """The command that a command line means, and its options; help goes to standard output and exits.

    Raises:
        UsageError: a line that cannot be understood.
        SystemExit: with status 0, after printing help.
    """
    union: Any = Union[tuple(Annotated[command.options, tyro.conf.subcommand(command.name)] for command in COMMANDS)]  # noqa: UP007
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):  # tyro draws boxes there; they are retold in one line
            options = tyro.cli(union, prog="rfdiff", description=DESCRIPTION, args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UsageError(_one_line(told.getvalue())) from None
    (command,) = [command for command in COMMANDS if command.options is type(options)]
    return command, options


def _one_line(box: str) -> str:
    """The message in the box that tyro draws, without frame, title and the hints under its rules.

    With a frame of line-drawing characters the title is part of it; where the terminal has none, the title is the first block.
    """
    blocks: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        content = line.strip().strip("│").strip()
        if re.fullmatch(r"[─-]{4,}", content):
            blocks.append([])
        elif not content.startswith(("╭", "╰")):
            blocks[-1].append(content)
    body = blocks[0] if "╭" in box or len(blocks) == 1 else blocks[1]
    first = body[: body.index("")] if "" in body[1:] and body[0] else body  # what follows a blank line explains how tyro parses
    message = " ".join(" ".join(first).split()).rstrip(".")
    return f"{message or 'cannot understand the command line'} (see rfdiff --help)"
