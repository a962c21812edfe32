"""Progress of a sweep: done, failed and left of each solver, and the time left; bars on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from tqdm import tqdm

from rfdiff.sweep.cells import Cell
from rfdiff.sweep.folder import DONE, FAILED, MISSING
from rfdiff.sweep.outcome import Outcome

LINES = 20  # at most, of a log file, beside one for each failure
MOST_FAILURES_TOLD = 20

Tell = Callable[[Cell, Outcome], None]


class _Counts:
    """Cells of each solver by state, and seconds spent on those that were done in this run."""

    def __init__(self, cells: Sequence[Cell], states: Mapping[str, str]) -> None:
        self.by_solver: dict[str, dict[str, int]] = {}
        for cell in cells:
            self.by_solver.setdefault(cell.task.solver, dict.fromkeys((DONE, FAILED, MISSING), 0))[states[cell.name]] += 1
        self.spent: dict[str, list[float]] = {solver: [] for solver in self.by_solver}
        self.start = time.monotonic()

    def add(self, cell: Cell, outcome: Outcome) -> None:
        counts = self.by_solver[cell.task.solver]
        counts[MISSING] -= 1
        counts[FAILED if outcome.curves is None else DONE] += 1
        self.spent[cell.task.solver].append(outcome.seconds)

    def total(self, state: str) -> int:
        return sum(counts[state] for counts in self.by_solver.values())

    def seconds_left(self) -> float:
        """Cells left times the mean cost of their solver (of all, for one without a cell yet), over the cells that run at once."""
        every = [seconds for spent in self.spent.values() for seconds in spent]
        if not every:
            return float("nan")
        mean = sum(every) / len(every)
        work = sum(n[MISSING] * (sum(s) / len(s) if (s := self.spent[solver]) else mean) for solver, n in self.by_solver.items())
        at_once = sum(every) / max(time.monotonic() - self.start, 1e-9)
        return work / max(at_once, 1e-9)

    def lines(self) -> str:
        """The table in one line."""
        return "; ".join(f"{solver} {n[DONE]} done {n[FAILED]} failed {n[MISSING]} left" for solver, n in self.by_solver.items())


@contextlib.contextmanager
def live_table(cells: Sequence[Cell], states: Mapping[str, str], stream: TextIO | None = None) -> Iterator[Tell]:
    """Report a sweep; the block calls `tell(cell, outcome)` for each cell that is done or has failed.

    Args:
        cells: all cells.
        states: their states before.
        stream: where to report; standard error if None. A terminal gets one bar a solver, anything else a few plain lines.
    """
    out: TextIO = sys.stderr if stream is None else stream
    counts = _Counts(cells, states)
    with contextlib.ExitStack() as stack:
        tell = _bars(counts, out, stack) if out.isatty() else _plain(counts, out)
        yield tell


def _bars(counts: _Counts, out: TextIO, stack: contextlib.ExitStack) -> Tell:
    bars: dict[str, tqdm] = {}
    for solver, n in counts.by_solver.items():
        options = {"total": sum(n.values()), "initial": n[DONE] + n[FAILED], "desc": solver, "unit": "cell", "dynamic_ncols": True}
        bars[solver] = stack.enter_context(tqdm(file=out, position=len(bars), postfix=_postfix(n), **options))

    def tell(cell: Cell, outcome: Outcome) -> None:
        counts.add(cell, outcome)
        solver = cell.task.solver
        bars[solver].set_postfix(_postfix(counts.by_solver[solver]), refresh=False)
        bars[solver].update(1)
        if outcome.curves is None and counts.total(FAILED) <= MOST_FAILURES_TOLD:
            bars[solver].write(_failure_line(cell, outcome), file=out)
        if counts.total(MISSING) and (left := counts.seconds_left()) == left:
            bars[solver].set_description(f"{solver}, about {left:.0f} s left in all", refresh=False)

    return tell


def _plain(counts: _Counts, out: TextIO) -> Tell:
    total, before = sum(sum(n.values()) for n in counts.by_solver.values()), counts.total(DONE) + counts.total(FAILED)
    said = before * LINES // max(total, 1)
    resumed = f", {before} of them done or failed before" if before else ""
    print(f"sweep: {total} cells{resumed}; {counts.lines()}", file=out, flush=True)

    def tell(cell: Cell, outcome: Outcome) -> None:
        nonlocal said
        counts.add(cell, outcome)
        if outcome.curves is None and counts.total(FAILED) <= MOST_FAILURES_TOLD:
            print(_failure_line(cell, outcome), file=out, flush=True)
        finished = total - counts.total(MISSING)
        share = finished * LINES // max(total, 1)
        if share > said:
            said = share
            elapsed = time.monotonic() - counts.start
            timing = f"{elapsed:.1f} s, about {counts.seconds_left():.0f} s left"
            print(f"sweep: {finished}/{total} cells, {timing}; {counts.lines()}", file=out, flush=True)

    return tell


def _postfix(n: Mapping[str, int]) -> dict[str, int]:
    return {"done": n[DONE], "failed": n[FAILED], "left": n[MISSING]}


def _failure_line(cell: Cell, outcome: Outcome) -> str:
    found = outcome.diagnosis or {}
    return f"sweep: cell {cell.name} ({cell.text}) failed: {found.get('type')}: {found.get('message')}"
