"""Where a command's words and files go: standard output, and a folder that is checked before anything is computed."""

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from rfdiff.cli.options import Redrawing
from rfdiff.errors import InputError
from rfdiff.problem import Problem


def say(text: str) -> None:
    """Print on standard output, whatever characters it can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    print(text)


def note(text: str) -> None:
    """Print on standard error what a command is doing."""
    print(text, file=sys.stderr, flush=True)


def say_files(out: Path, data: str, figures: Sequence[str]) -> None:
    """Say which files of a command the folder holds now."""
    say(f"in {out}: {', '.join([*[data] * (out / data).exists(), *figures])}")


def say_cost(seconds: float) -> None:
    """Print the wall time and the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    say(f"{seconds:.1f} s wall time, {peak:.2f} GiB peak memory")


def prepare_folder(out: Path, files: Sequence[str], overwrite: bool) -> None:
    """Make the folder of the results, and refuse one that holds some already or cannot be written to.

    Raises:
        InputError: it holds results, or it is no folder that can be written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    standing = [name for name in files if (out / name).exists()]
    if standing and not overwrite:
        raise InputError(f"--out: {out} already holds {', '.join(standing)}; choose another folder or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe.{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise InputError(f"--out: cannot write to {out} ({err.strerror or err})") from err


def redraw_folder(options: Redrawing, figures: Sequence[str]) -> Path:
    """The folder in which the figures of a file are drawn again: that of the file, or another, made if need be.

    Raises:
        InputError: another folder than that of the file holds such figures.
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
