"""What a command prints: results on standard output, which may be closed early, and notes on standard error."""

import os
import sys
import time
from collections.abc import Sequence

from rfdiff.cli.tables import Form, Table, render

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

_failed: list[OSError] = []  # of standard output in this command, the first alone


def say(text: str) -> None:
    """Print on standard output, whatever characters it can show.

    A reader that is gone (`| head -1`) is no reason to stop: what follows is not printed, and files are written. A full disk is none
    either; `output_failure` tells it at the end.
    """
    if _failed:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").replace("…", "...").encode(encoding, "replace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as err:
        _failed.append(err)
        _discard_output()


def output_failure() -> OSError | None:
    """Why standard output could not be written since the last call; None if it could, or if its reader is gone."""
    failed = _failed[:]
    _failed.clear()
    return None if not failed or isinstance(failed[0], BrokenPipeError) else failed[0]


def note(text: str) -> None:
    """Print on standard error what a command is doing."""
    print(text, file=sys.stderr, flush=True)


def report(tables: Sequence[Table], form: Form, notes: Sequence[str] = (), before: Sequence[str] = ()) -> None:
    """Print the tables of a command, and sentences about them.

    Args:
        tables: what to print.
        form: "text" for aligned columns, "csv" for the first table, "json" for all of them.
        notes, before: sentences after and before the tables; on standard error where the form is not text, so that a program can read the
            tables.
    """
    tell = say if form == "text" else note
    for line in before:
        tell(line)
    if tables:
        say(render(tables, form))
    for line in notes:
        tell(line)


def say_cost(start: float, form: Form = "text") -> None:
    """Print wall time since `start` and peak memory; on standard error where standard output is for programs."""
    (say if form == "text" else note)(cost_line(time.monotonic() - start))


def cost_line(seconds: float) -> str:
    """Wall time, and where the system tells it the peak resident memory of this process."""
    if resource is None:
        return f"{seconds:.1f} s wall time"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    return f"{seconds:.1f} s wall time, {peak:.2f} GiB peak memory"


def _discard_output() -> None:
    """Let what is left in the buffer of standard output go nowhere: Python would try to write it at exit, and complain."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
