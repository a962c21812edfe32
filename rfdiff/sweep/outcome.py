"""What became of a cell: its curves, or the diagnosis of its failure. Made in the process that computed it, sent to the one that writes."""

import dataclasses
import time
import traceback
from collections.abc import Callable, Mapping

from rfdiff.curves import LearningCurves
from rfdiff.files.provenance import Entry, provenance
from rfdiff.sweep.cells import Task, versions

Compute = Callable[[Task], LearningCurves]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of an attempt at a cell.

    Args:
        curves: its curves; None if it failed.
        diagnosis: type, message and place of the exception if it failed, else None.
        seconds: wall time.
        metadata: versions and device of the process that computed it.
    """

    curves: LearningCurves | None
    diagnosis: dict[str, str] | None
    seconds: float
    metadata: dict[str, Entry]


def attempt(compute: Compute, task: Task, expected: Mapping[str, str]) -> Outcome:
    """Compute a cell; whatever goes wrong in it is its diagnosis, so that a sweep goes on.

    Args:
        compute: gives the curves of a task; `cells.compute`.
        task: the cell's task.
        expected: versions of the sweep. A process of other versions computes nothing: its numbers would not be those of the cell.
    """
    start = time.monotonic()
    curves, diagnosis, metadata = None, None, {}
    try:
        here = versions()
        if here != dict(expected):
            differing = ", ".join(
                f"{name} {version}, not {expected.get(name)}" for name, version in here.items() if version != expected[name]
            )
            return Outcome(None, _refused(differing), 0.0, {})
        curves, metadata = compute(task), provenance()
    except Exception as err:  # noqa: BLE001 - out of memory, a bug or a bad cell alike must not end the sweep; all are recorded
        diagnosis = describe(err)
    return Outcome(curves, diagnosis, time.monotonic() - start, metadata)


def _refused(differing: str) -> dict[str, str]:
    message = f"worker: has {differing}; allowed: the versions of the sweep"
    return {"type": "InputError", "message": message, "where": f"{__name__} in attempt"}


def describe(err: BaseException) -> dict[str, str]:
    """Type, message and place of an exception: the innermost line of this package that it came through; no paths."""
    frames = [(frame.f_globals.get("__name__", "?"), line, frame.f_code.co_name) for frame, line in traceback.walk_tb(err.__traceback__)]
    own = [frame for frame in frames if frame[0].startswith("rfdiff.")] or frames
    where = "{}:{} in {}".format(*own[-1]) if own else ""
    return {"type": type(err).__name__, "message": " ".join(str(err).split()), "where": where}
