"""The commands of the command line, in the order in which help lists them; each is imported when it is asked for.

All of them together load figures, files, networks and images, which costs seconds that a command should not wait for.
"""

import importlib

from rfdiff.cli.command import Command

NAMES = (
    "init",
    "fit",
    "diagnose",
    "predict",
    "simulate",
    "compare",
    "plan",
    "phase-map",
    "times",
    "design",
    "calibrate",
    "speciate",
    "generate",
    "sweep",
    "collect",
    "plot",
    "explore",
    "images",
)


def command_of(name: str) -> Command:
    """The command of one of `NAMES`, from the file that bears its name."""
    command: Command = importlib.import_module(f"rfdiff.cli.{name.replace('-', '_')}").COMMAND
    return command


def all_commands() -> tuple[Command, ...]:
    """Every command."""
    return tuple(command_of(name) for name in NAMES)
