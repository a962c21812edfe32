"""Options that several commands share: their types, their groups, and the checks that refuse a value before anything is computed."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.simulation.features import LARGEST_DIMENSION

MOST_POINTS = 100_000
LARGEST_KEY = 2**32 - 1


def hint(text: str = "") -> Any:
    """What help says after the explanation of an option, in place of its default."""
    return tyro.conf.arg(help_behavior_hint=text)


def _optional(convert: Callable[[str], Any], metavar: str, choices: tuple[str, ...] | None = None) -> Any:
    """One value that may be left out; unlike tyro's own optional types it does not take the word None."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: convert(words[0]),
        is_instance=lambda value: value is None or isinstance(value, str | int | float | Path),
        str_from_instance=lambda value: [] if value is None else [str(value)],
        choices=choices,
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a number") from None


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a whole number") from None


def optional_number() -> Any:
    """What annotates a number that may be left out."""
    return _optional(_number, "FLOAT")


def _counted(convert: Callable[[str], Any], count: int, metavar: str) -> Any:
    """So many values, which may be left out together."""
    return PrimitiveConstructorSpec(
        nargs=count,
        metavar=metavar,
        instance_from_str=lambda words: tuple(convert(word) for word in words),
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [str(item) for item in value or ()],
    )


def choice(words: tuple[str, ...]) -> tuple[Any, Any]:
    """What annotates one of some words that may be left out."""
    return _optional(str, "{" + ",".join(words) + "}", words), hint()


def _listed(convert: Callable[[str], Any], metavar: str, commas: bool = True) -> Any:
    """Any number of values, separated by spaces, or by commas too."""
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=metavar,
        instance_from_str=lambda words: tuple(
            convert(item) for word in words for item in ([part for part in word.split(",") if part] if commas else [word])
        ),
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [str(item) for item in value or ()],
    )


Flag = Annotated[bool, hint()]
Numbers = Annotated[tuple[float, ...] | None, _listed(_number, "FLOAT ..."), hint()]
Integers = Annotated[tuple[int, ...] | None, _listed(_whole, "INT ..."), hint()]
Number = Annotated[float | None, optional_number(), hint()]
Integer = Annotated[int | None, _optional(_whole, "INT"), hint()]
Size = Annotated[tuple[float, float] | None, _counted(_number, 2, "WIDTH HEIGHT"), hint()]
Names = Annotated[tuple[str, ...] | None, _listed(str, "NAME ...", commas=False), hint()]
Name = Annotated[str | None, _optional(str, "NAME"), hint()]
Address = Annotated[str | None, _optional(str, "ADDRESS"), hint()]
FloatingType = Annotated[
    Literal["float32", "float64"] | None, *choice(("float32", "float64")), hint("(default: float64 on a CPU, float32 on an accelerator)")
]
Quantity = Literal["all", "tau_gen", "tau_stop", "tau_mem", "tau_opt"]
ClassPair = Annotated[tuple[int, int] | None, _counted(_whole, 2, "CLASS CLASS"), hint("(default: 0 1)")]
NearOptimal = Annotated[
    float,
    tyro.conf.arg(
        help="Fraction q in tau_opt(q): the first time at which the test loss has covered this part of the way down to the loss of the "
        "exact score."
    ),
]
ProblemFile = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PROBLEM.toml")]
OptionalProblemFile = Annotated[tyro.conf.Positional[Path | None], _optional(Path, "[PROBLEM.toml]"), hint()]
OptionalDirectory = Annotated[Path | None, _optional(Path, "DIR"), hint()]
OptionalFile = Annotated[Path | None, _optional(Path, "FILE"), hint()]
Directory = Annotated[Path, tyro.conf.arg(metavar="DIR")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Printing:
    """How tables are printed."""

    table: Literal["text", "csv", "json"] = "text"
    """How to print tables: text, csv (the main table) or json (all tables). With csv and json, everything else goes to standard error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(Printing):
    """How figures are drawn, and tables printed."""

    format: Literal["png", "pdf", "svg"] = "png"
    """File format of the figures."""
    size: Size = None
    """Width and height of every figure in inches."""
    class_names: Names = None
    """Names of the classes in figures and tables: one for each class, in the order of the classes."""
    panels: Flag = False
    """Write every panel of a figure to a file of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output(Drawing):
    """Where results go."""

    out: Directory = Path("rfdiff-out")
    """Folder of the results; created if it does not exist."""
    overwrite: Flag = False
    """Replace the results of an earlier run in this folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Redrawing(Drawing):
    """Options of `rfdiff plot`: which file is drawn again, and how."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .nc file that another command wrote, or that of one cell (point of the grid) of a sweep."""
    out: Annotated[Path | None, _optional(Path, "DIR"), hint("(default: the folder of FILE, whose figures are replaced)")] = None
    """Folder of the figures."""
    q: Annotated[float | None, _optional(_number, "FLOAT"), hint("(default: 0.5)")] = None
    """For a result.nc: the fraction q in tau_opt(q), as in rfdiff predict."""
    quantity: Quantity = "all"
    """For a phase_map.nc: which time to draw."""
    pair: ClassPair = None
    """For a phase_map.nc: which two classes to compare."""
    overwrite: Flag = False
    """Replace figures in the folder given by --out."""


def check(options: object, **limits: tuple[bool, str]) -> None:
    """Refuse values out of range before anything is computed.

    Args:
        options: the options of a command.
        limits: by the name of an option, whether its value is allowed, and what is.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    for name, (good, allowed) in limits.items():
        if not good:
            raise InputError(f"--{name.replace('_', '-')}: {getattr(options, name)!r}; allowed: {allowed}")


def in_options(message: str, words: Mapping[str, str]) -> str:
    """A refusal by the library in the words of the command line.

    Args:
        message: of the refusal.
        words: how the command line calls what the library names, tried in this order.
    """
    for library, option in words.items():
        message = message.replace(library, option)
    return message


def fraction(value: float, name: str = "q") -> tuple[bool, str]:
    """The limit of a fraction of a way."""
    return 0 < value < 1, f"0 < {name} < 1"


def between(value: float, least: float, most: float) -> tuple[bool, str]:
    """The limit of a number that must lie in a closed interval."""
    return least <= value <= most, f"{least} to {most}"


def dimension(d: int, least: int = 1) -> tuple[bool, str]:
    """The limit of a dimension of data."""
    return least <= d <= LARGEST_DIMENSION, f"an integer >= {least} and <= {LARGEST_DIMENSION}"


def read_problem(path: Path) -> Problem:
    """The problem in a file.

    Raises:
        InputError: no such file, unreadable, or not a valid problem; the message names the file.
    """
    try:
        return Problem.from_toml(path)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})") from err
