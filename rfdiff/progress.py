"""Progress of long work on standard error: a bar with its time left on a terminal, a few plain lines in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from rfdiff.errors import InputError

LINES = 4
WITHOUT_RATE = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
PERIOD = 30.0  # seconds after which a log gets a line even if no quarter of the work was done meanwhile
Progress = Callable[[int, int], object]  # called with (done, total) on the host, while work is going on


def require_progress(progress: object) -> None:
    """Refuse what cannot be called, before work begins.

    Raises:
        InputError: neither a function nor None.
    """
    if progress is not None and not callable(progress):
        raise InputError(f"progress: {progress!r}; allowed: a function of (done, total), or None")


class _Silent:
    """A stream that shows nothing."""

    def isatty(self) -> bool:
        return False

    def write(self, _: str) -> int:
        return 0

    def flush(self) -> None:
        pass


SILENT: Any = _Silent()


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0, unit: str = "seed", stream: TextIO | None = None) -> Iterator[Callable[[int], object]]:
    """Report work of `total` units; the block calls `advance(n)` as units get done.

    Args:
        label: what is being done.
        total: number of units in all.
        done: units that an earlier, interrupted run has done already; left out of the estimate of the time left.
        unit: name of a unit, singular.
        stream: where to report; standard error if None. A terminal gets a bar, anything else a line at the start, for
            each quarter of the work, and every `PERIOD` seconds.
    """
    out: TextIO = sys.stderr if stream is None else stream
    if out.isatty():
        with contextlib.closing(_Bar(label, total, done, unit, out)) as bar:
            yield bar.advance
        return
    resumed = f", {done} of them done before" if done else ""
    print(f"{label}: {total} {plural(unit)}{resumed}", file=out, flush=True)
    pace, quarter, last = _Pace(done, total), done * LINES // max(total, 1), time.monotonic()

    def advance(n: int) -> None:
        nonlocal quarter, last
        pace.add(n)
        reached, now = pace.done * LINES // max(total, 1), time.monotonic()
        if reached > quarter or now - last >= PERIOD:
            quarter, last = reached, now
            print(f"{label}: {pace.done}/{total} {plural(unit)}, {pace.text(unit)}", file=out, flush=True)

    yield advance


class _Bar:
    """A bar on a terminal. That of the first report, which holds compilation, shows no rate; the next one's rate starts after it."""

    def __init__(self, label: str, total: int, done: int, unit: str, out: TextIO) -> None:
        self.options: dict[str, Any] = {"total": total, "desc": label, "unit": unit, "file": out, "dynamic_ncols": True}
        self.done, self.first = done, True
        self.bar = tqdm(initial=done, bar_format=WITHOUT_RATE, leave=False, **self.options)

    def advance(self, n: int) -> None:
        if not self.first:
            self.bar.update(n)
            return
        self.bar.close()
        self.first = False
        self.bar = tqdm(initial=self.done + n, **self.options)

    def close(self) -> None:
        self.bar.close()


class _Pace:
    """How fast units get done. The first report holds compilation: the pace is that of later ones, unless it is the only one."""

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        self.start = self.since = time.monotonic()
        self.from_done, self.reports, self.first_end = done, 0, self.start

    def add(self, n: int) -> None:
        """Count units that got done."""
        if self.reports == 1:
            self.since, self.from_done = self.first_end, self.done
        self.done, self.reports, self.first_end = self.done + n, self.reports + 1, time.monotonic()

    def text(self, unit: str) -> str:
        """Time spent, rate and time left."""
        now = time.monotonic()
        if self.reports == 1 and self.done < self.total:
            return f"{now - self.start:.1f} s with compilation"
        each = (now - self.since) / max(self.done - self.from_done, 1)
        rate = f"{each:.3g} s a {unit}" if each > 1 else f"{1 / max(each, 1e-9):.3g} {plural(unit)}/s"
        return f"{now - self.start:.1f} s, {rate}, about {each * (self.total - self.done):.0f} s left"


def plural(unit: str) -> str:
    """The plural of the name of a unit: seeds, trajectories, searches."""
    if unit.endswith("y"):
        return f"{unit[:-1]}ies"
    return f"{unit}{'es' if unit.endswith(('ch', 'sh', 's', 'x')) else 's'}"


@contextlib.contextmanager
def reporting(label: str, unit: str = "seed", stream: TextIO | None = None) -> Iterator[Progress]:
    """Report work. The first call (done, total) gives its size; units done by then count as those of an earlier run.

    Args:
        label: what is being done.
        unit: name of a unit, singular.
        stream: where to report; standard error if None.
    """
    with contextlib.ExitStack() as stack:
        advance: Callable[[int], object] | None = None
        reported = 0

        def told(done: int, total: int) -> None:
            nonlocal advance, reported
            if advance is None:
                advance = stack.enter_context(progress(label, total, done, unit, stream))
            else:
                advance(done - reported)
            reported = done

        yield told


def within(outer: Progress | None, before: int, total: int) -> Progress | None:
    """Progress of a part of some work, reported as progress of the whole.

    Args:
        outer: progress of the whole, or None.
        before: units of the whole that are done when the part begins.
        total: units of the whole.
    """
    return None if outer is None else lambda done, _: outer(before + done, total)
