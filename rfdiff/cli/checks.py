"""What the options of a command mean: the training rule, the problem, and values that are refused before anything is computed."""

from collections.abc import Sequence
from pathlib import Path

from rfdiff.cli.parsing import Closed, Compare, Networks, Options, Plot
from rfdiff.cli.terminal import prepare_folder
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import RULES, Rule, rule_of
from rfdiff.simulation.features import LARGEST_DIMENSION


def training_rule(options: Options) -> Rule:
    """The rule that the options name.

    Raises:
        InputError: an option that the rule needs is missing, or one was given that it does not take.
    """
    takes = {name: rule.arguments for name, rule in RULES.items()}
    for name in ("taus", "penalties"):
        if getattr(options, name) == ():
            raise InputError(f"--{name}: given without a number; allowed: at least 3 numbers, or no --{name}")
    given = {"step_size": options.step_size, "momentum": options.momentum, "penalties": options.penalties}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is None and name in takes[options.rule]:
            raise InputError(f"{flag}: missing; --rule {options.rule} needs it")
        if value is not None and name not in takes[options.rule]:
            users = " and ".join(rule for rule, names in takes.items() if name in names)
            raise InputError(f"{flag}: not an option of --rule {options.rule}; it goes with {users}")
    if options.rule == "ridge" and options.taus:
        raise InputError("--taus: not an option of --rule ridge, whose penalties take the place of training times")
    return rule_of(options.rule, **{name: value for name, value in given.items() if value is not None})


def check_options(options: Options) -> None:
    """Refuse values out of range before anything is computed.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    limits: list[tuple[str, bool, str]] = [
        ("points", 3 <= options.points <= 100_000, "3 to 100000"),
        ("q", 0 < options.q < 1, "0 < q < 1"),
    ]
    if isinstance(options, Closed):
        limits.append(("tolerance", 0 < options.tolerance < 1, "0 < tolerance < 1"))
    if isinstance(options, Networks):
        both = isinstance(options, Compare)
        limits.append(
            (
                "d",
                (4 if both else 1) <= options.d <= LARGEST_DIMENSION,
                ("an integer >= 4, so that d // 2 is a size too," if both else "an integer >= 1") + f" and <= {LARGEST_DIMENSION}",
            )
        )
        least = 2 if both else 1
        limits.append(("seeds", least <= options.seeds < 2**32, f"at least {least}" + ", for a standard error" * both))
        limits.append(("seed", 0 <= options.seed < 2**32, "0 to 2^32 - 1"))
        if options.krylov_tolerance is not None:
            limits.append(("krylov_tolerance", 0 < options.krylov_tolerance < 1, "0 < tolerance < 1"))
    for name, good, allowed in limits:
        if not good:
            raise InputError(f"--{name.replace('_', '-')}: {getattr(options, name)!r}; allowed: {allowed}")
    if isinstance(options, Networks) and options.krylov_tolerance is not None and options.solver in ("auto", "exact"):
        raise InputError(f"--krylov-tolerance: goes with a Krylov solver, not with --solver {options.solver}")
    count = len(options.penalties or ()) if options.rule == "ridge" else len(options.taus or ()) or options.points
    if count < 3:
        raise InputError(f"--{'penalties' if options.rule == 'ridge' else 'taus'}: {count} given; allowed: at least 3, to read times from")


def redraw_folder(options: Plot, figures: Sequence[str]) -> Path:
    """The folder in which the figures of a file are drawn again: that of the file, or another, made if need be.

    Raises:
        InputError: figures that stand in another folder than the file's own.
    """
    out = options.file.parent if options.out is None else options.out
    prepare_folder(out, figures, options.overwrite or options.out is None)
    return out


def read_problem(path: Path) -> Problem:
    """The problem in a file.

    Raises:
        InputError: no such file, unreadable, or not a valid problem.
    """
    try:
        return Problem.from_toml(path)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})") from err
