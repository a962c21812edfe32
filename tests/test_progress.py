"""Progress of long work: a bar on a terminal, a few plain lines in a log."""

import io
import sys
from collections.abc import Callable

import pytest

from rfdiff import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "done", "lines"), [(100, 0, 5), (3, 0, 4), (100, 60, 3), (5, 5, 1)])
def test_progress_in_a_log_is_a_few_plain_lines(total: int, done: int, lines: int) -> None:
    stream = io.StringIO()
    with progress.progress("work", total, done, stream=stream) as advance:
        for _ in range(total - done):
            advance(1)
    told = stream.getvalue().splitlines()
    assert len(told) == lines
    assert told[0] == f"work: {total} seeds" + (f", {done} of them done before" if done else "")
    assert "\r" not in stream.getvalue()
    if done < total:
        assert told[-1].startswith(f"work: {total}/{total} seeds, ")
        assert told[-1].endswith("about 0 s left")


def test_progress_on_a_terminal_is_a_bar() -> None:
    stream = Terminal()
    with progress.progress("work", 10, 4, stream=stream) as advance:
        advance(6)
    assert "work" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_progress_estimates_the_time_left_from_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    stream = io.StringIO()
    with progress.progress("work", 100, 50, stream=stream) as advance:
        clock["now"] += 30.0
        advance(25)
    assert stream.getvalue().splitlines()[-1] == "work: 75/100 seeds, 30.0 s, about 30 s left"


def test_progress_is_given_to_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter: Callable[[int], object]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress("work", 1, unit="time") as reporter:
        reporter(1)
    assert stream.getvalue().splitlines()[0] == "work: 1 times"
