"""Running a sweep: the cells that are left, one after the other or on a cluster, each written the moment it is there."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from rfdiff.sweep.cells import Cell, compute, versions
from rfdiff.sweep.folder import DONE, FAILED, MISSING, Folder, coordinates
from rfdiff.sweep.outcome import Compute, Outcome, attempt
from rfdiff.sweep.reporting import live_table
from rfdiff.sweep.specification import Sweep

Outcomes = Generator[tuple[Cell, Outcome], None, None]
Execute = Callable[[Sequence[Cell], Mapping[str, str]], Outcomes]


def serially(function: Compute = compute) -> Execute:
    """Cells one after the other in this process.

    Args:
        function: gives the curves of a task.
    """

    def execute(cells: Sequence[Cell], expected: Mapping[str, str]) -> Outcomes:
        for cell in cells:
            yield cell, attempt(function, cell.task, expected)

    return execute


def run_sweep(
    sweep: Sweep, out: str | Path, retry: bool = False, execute: Execute | None = None, stream: TextIO | None = None
) -> dict[str, str]:
    """Compute the cells of a sweep that are not in its folder yet.

    A result is written by this process alone, under the hash of what it depends on: a cell that a cluster computes twice, since a worker
    died, is one file. An interrupt or a kill loses at most the cells in flight.

    Args:
        sweep: the sweep.
        out: its folder; one that holds a part of this sweep is continued.
        retry: attempt the failed cells again.
        execute: where cells are computed; None for this process (`serially`), or `cluster.on_dask`.
        stream: where progress is told; standard error if None.

    Returns:
        The state of each cell by its name: done, failed or missing.

    Raises:
        InputError: another sweep stands in the folder, another process works in it, or it cannot be written to.
        OSError: the folder can no longer be written to; or the cluster is gone.
        KeyboardInterrupt: with a sentence on what is kept; SIGTERM counts as such an interrupt.

    Reference: tests/sweep/test_running.py, tests/sweep/test_faults.py.
    """
    folder, of = Folder(Path(out)), versions()
    execute = serially() if execute is None else execute
    with folder.locked():
        cells = folder.begin(sweep, of)
        states = folder.states(cells)
        left = [cell for cell in cells if states[cell.name] == MISSING or (retry and states[cell.name] == FAILED)]
        before = {cell.name: states[cell.name] for cell in cells} | {cell.name: MISSING for cell in left}
        try:
            with _terminable(), live_table(cells, before, stream) as tell, contextlib.closing(execute(left, of)) as outcomes:
                for cell, outcome in outcomes:
                    if outcome.curves is not None:
                        folder.keep(cell, outcome.curves, {**outcome.metadata, "seconds": round(outcome.seconds, 3)})
                    else:
                        folder.record_failure(cell, coordinates(sweep, cell), outcome.diagnosis or {})
                    tell(cell, outcome)
        except KeyboardInterrupt as stop:
            count = sum(state == DONE for state in folder.states(cells).values())  # what is on disk: the signal may fall anywhere
            raise KeyboardInterrupt(f"{count} of {len(cells)} cells are kept, the same command resumes from them") from stop
        return folder.states(cells)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, stops as Ctrl-C does; signals can be caught in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
