"""Progress of long work on standard error: a bar with its time left on a terminal, a few plain lines in a log file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

LINES = 4
Progress = Callable[[int, int], object]  # called with (done, total) on the host, while work is going on


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
        stream: where to report; standard error if None. A terminal gets a bar, anything else at most `LINES` + 1 lines.
    """
    out: TextIO = sys.stderr if stream is None else stream
    if out.isatty():
        with tqdm(total=total, initial=done, desc=label, unit=unit, file=out, dynamic_ncols=True) as bar:
            yield bar.update
        return
    start, state = time.monotonic(), {"done": done, "said": done * LINES // max(total, 1)}
    resumed = f", {done} of them done before" if done else ""
    print(f"{label}: {total} {unit}s{resumed}", file=out, flush=True)

    def advance(n: int) -> None:
        state["done"] += n
        share = state["done"] * LINES // max(total, 1)
        if share > state["said"]:
            state["said"] = share
            elapsed = time.monotonic() - start
            left = elapsed / max(state["done"] - done, 1) * (total - state["done"])
            print(f"{label}: {state['done']}/{total} {unit}s, {elapsed:.1f} s, about {left:.0f} s left", file=out, flush=True)

    yield advance


@contextlib.contextmanager
def reporting(label: str, unit: str = "seed", stream: TextIO | None = None) -> Iterator[Progress]:
    """Report work whose size is told with the first (done, total); what is done by then counts as that of an earlier run.

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
    """Progress of a part of some work, told as that of the whole.

    Args:
        outer: what is told of the whole, or None.
        before: units of the whole that are done when the part begins.
        total: units of the whole.
    """
    return None if outer is None else lambda done, _: outer(before + done, total)
