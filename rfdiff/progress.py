"""Progress of long work on standard error: a bar with its time left on a terminal, a few plain lines in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

LINES = 4
WITHOUT_RATE = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"


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

    The time left is estimated from the units after the first call of `advance`: what is done before it includes compilation, which is not
    repeated, so that until the second call no estimate is given.

    Args:
        label: what is being done.
        total: number of units in all.
        done: units that an earlier, interrupted run has done already; left out of the estimate of the time left.
        unit: name of a unit, singular.
        stream: where to report; standard error if None. A terminal gets a bar, anything else at most `LINES` + 1 lines.
    """
    out: TextIO = sys.stderr if stream is None else stream
    report = _Bar(label, total, done, unit, out) if out.isatty() else _Lines(label, total, done, unit, out)
    with contextlib.closing(report):
        yield report.advance


class _Bar:
    """A bar on a terminal; the bar of the first call, which has no rate, is replaced by one whose rate starts after it."""

    def __init__(self, label: str, total: int, done: int, unit: str, out: TextIO) -> None:
        self.options = {"total": total, "desc": label, "unit": unit, "file": out, "dynamic_ncols": True}
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


class _Lines:
    """A few plain lines in a log file."""

    def __init__(self, label: str, total: int, done: int, unit: str, out: TextIO) -> None:
        self.label, self.total, self.done, self.unit, self.out = label, total, done, unit, out
        self.share, self.start = done * LINES // max(total, 1), time.monotonic()
        self.after_first: tuple[int, float] | None = None  # units done and the time, after the first call
        resumed = f", {done} of them done before" if done else ""
        print(f"{label}: {total} {unit}s{resumed}", file=out, flush=True)

    def advance(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        share = self.done * LINES // max(self.total, 1)
        if share > self.share:
            self.share = share
            counted = f"{self.label}: {self.done}/{self.total} {self.unit}s, {now - self.start:.1f} s"
            print(counted + self._time_left(now), file=self.out, flush=True)
        if self.after_first is None:
            self.after_first = (self.done, now)

    def _time_left(self, now: float) -> str:
        if self.done >= self.total or self.after_first is None:
            return ""
        done, time_then = self.after_first
        return f", about {(now - time_then) / (self.done - done) * (self.total - self.done):.0f} s left"

    def close(self) -> None:
        """Nothing to close."""
