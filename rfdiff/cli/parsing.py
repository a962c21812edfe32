"""How a line of text becomes the options of a command, and what is said of a line that cannot be understood."""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rfdiff.cli.command import Command
from rfdiff.cli.registry import NAMES, all_commands, command_of
from rfdiff.cli.rule_options import OPTION_NAMES, OTHER_NAMES, RuleOptions, option_of
from rfdiff.errors import InputError

DESCRIPTION = """\
Learning curves of each class for a random-features diffusion model trained on a Gaussian mixture: closed form and simulation.

Exit status: 0 done (and theory and measurement agree), 1 they disagree, 2 bad input or too little memory, 3 something
could not be computed (NaN, or failed cells of a sweep), 70 a bug in rfdiff, 130 interrupted.
rfdiff --version prints the version."""
MOST_CHARACTERS = 4096  # of one word: beyond the longest path, and below the digits that Python refuses to read
HELP = ("-h", "--help")
PYTHON_REASONS = {  # how Python begins to refuse a word, and what it could have been
    "could not convert string to float: ": "a number",
    "invalid literal for int() with base 10: ": "an integer",
}


class UsageError(InputError):
    """A command line that cannot be understood; the message is one line."""


def parse(arguments: Sequence[str]) -> tuple[Command, Any]:
    """The command that a command line means, and its options; help goes to standard output and exits.

    Raises:
        UsageError: a line that cannot be understood.
        SystemExit: with status 0, after printing help.
    """
    first = arguments[0] if arguments else None
    if first is None or (first not in NAMES and first not in HELP and not first.startswith("--tyro-")):
        raise UsageError(f"{_unknown('command', first, list(NAMES))} (see rfdiff --help)")
    if first not in NAMES:
        _tyro(_union({command.name: command.options for command in all_commands()}), "rfdiff", arguments, DESCRIPTION)
    command, rest = command_of(str(first)), list(arguments[1:])
    kinds, prog = command.options, f"rfdiff {command.name}"
    if command.actions and not (rest and rest[0] in HELP):
        if not rest or rest[0] not in command.actions:
            raise UsageError(f"{_unknown('action', rest[0] if rest else None, list(command.actions))} (see {prog} --help)")
        kinds, prog, rest = command.actions[rest[0]], f"{prog} {rest[0]}", rest[1:]
    _check_words(rest, kinds, prog)
    options = _tyro(kinds, prog, rest, None)
    return command, _with_home_folders(options)


def _tyro(kinds: Any, prog: str, arguments: Sequence[str], description: str | None) -> Any:
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):  # tyro draws boxes there; `_one_line` reads the message out of them
            return tyro.cli(kinds, prog=prog, description=description, args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UsageError(f"{_one_line(told.getvalue())} (see {prog} --help)") from None


def _union(kinds: Mapping[str, type]) -> Any:
    return typing.Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items())]  # noqa: UP007


def _unknown(what: str, word: str | None, allowed: list[str]) -> str:
    """The message about an unknown command: the one that was probably meant, and all there are."""
    if word is None:
        return f"{what} missing; allowed: {', '.join(allowed)}"
    near = difflib.get_close_matches(word, allowed, 1)
    return f"{word}: no such {what}{f', did you mean {near[0]}?' if near else ''}; allowed: {', '.join(allowed)}"


def _check_words(words: Sequence[str], kinds: type, prog: str) -> None:
    """Refuse options that the command does not have, and words that no option can hold.

    Raises:
        UsageError: naming the option.
    """
    names = {f"--{name.replace('_', '-')}" for name in _fields(kinds)} | {"--help"}
    if issubclass(kinds, RuleOptions):
        names.update(OTHER_NAMES)
    option = prog
    for word in words:
        if word.startswith("--") and len(word) > 2:
            option = word.split("=")[0]
            if option.replace("_", "-") not in names:
                raise UsageError(f"{option}: not an option of {prog}{_instead(option, sorted(names))} (see {prog} --help)")
        if "\0" in word:
            raise UsageError(f"{option}: holds a null character; allowed: text without one")
        if len(word) > MOST_CHARACTERS:
            raise UsageError(f"{option}: {len(word)} characters; allowed: at most {MOST_CHARACTERS}")


def _instead(option: str, names: list[str]) -> str:
    """What to say of an unknown option: the one that was probably meant, or the commands that have it."""
    near = difflib.get_close_matches(option, names, 1) if len(option) > 3 else []
    if near:
        return f"; did you mean {near[0]}?"
    holders = [command.name for command in all_commands() if option[2:].replace("-", "_") in _fields(command.options)]
    return f"; it belongs to {', '.join(holders)}" if holders else ""


def _fields(kinds: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kinds)]


def naming_option(message: str, options: Any, other_names: Mapping[str, str]) -> str:
    """A refusal that begins with the name of a number, with the option that gave the number in its place: taus becomes --taus.

    A number of a file is not mistaken for one: such a refusal begins with the path of the file, and one of a path shows the path.
    """
    name, colon, fault = message.partition(":")
    if name not in _fields(type(options)):
        name = {**OPTION_NAMES, **other_names}.get(name, name)
    if not colon or name not in _fields(type(options)):
        return message
    value = getattr(options, name)
    if isinstance(value, Path) and not fault.startswith(f" {value}"):
        return message
    return f"{option_of(name)}{colon}{fault}"


def _with_home_folders(options: Any) -> Any:
    """The options with ~ expanded in every path.

    Raises:
        UsageError: there is no such home folder.
    """
    changes: dict[str, Any] = {}
    for name in _fields(type(options)):
        value = getattr(options, name)
        if isinstance(value, Path):
            try:
                changes[name] = value.expanduser()
            except RuntimeError as err:
                raise UsageError(f"{name}: {value}: {err}") from None
    return dataclasses.replace(options, **changes)


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
    if message.startswith("Missing from ") and (absent := message.split(": ", 1)[1].split("(required)")):
        names = [" ".join(text.split()[: 2 if text.split()[0].startswith("-") else 1]) for text in absent if text.strip()]
        return f"missing: {', '.join(names)}"
    return _unparsed(message) or "cannot understand the command line"


def _unparsed(message: str) -> str:
    """tyro's message about a word of the wrong type, in the form of every other one: option, word, what is allowed."""
    if not (match := re.fullmatch(r"Error parsing (\S+): (.*)", message)):
        return message
    option, reason = match.groups()
    for python, allowed in PYTHON_REASONS.items():
        if reason.startswith(python):
            return f"{option}: {reason.removeprefix(python)}; allowed: {allowed}"
    if words := re.fullmatch(r"Could not parse arguments (\[.*\]) into tuple type .*", reason):
        return f"{option}: {words[1]}; allowed: values of the kinds that help names"
    return f"{option}: {reason}"
