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
        assert "left" not in told[-1]


class Clock:
    """A time that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("tqdm.std.time", lambda: self.now)


def test_progress_on_a_terminal_is_a_bar() -> None:
    stream = Terminal()
    with progress.progress("work", 10, 4, stream=stream) as advance:
        assert "4/10" in stream.getvalue()
        advance(4)
        advance(2)
    assert "work" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_a_log_estimates_the_time_left_without_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first unit of 60 s, compilation included, then 1 s a unit: 50 done before, 25 in this run, 25 to go."""
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress("work", 100, 50, stream=stream) as advance:
        clock.now += 60.0
        advance(1)
        for _ in range(24):
            clock.now += 1.0
            advance(1)
    assert stream.getvalue().splitlines()[-1] == "work: 75/100 seeds, 84.0 s, about 25 s left"


def test_a_bar_estimates_the_time_left_without_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), Terminal()
    with progress.progress("work", 20, stream=stream) as advance:
        clock.now += 60.0
        advance(1)
        assert "s/seed" not in stream.getvalue()
        for _ in range(9):
            clock.now += 1.0
            advance(1)
        shown = stream.getvalue().split("\r")[-1]
        assert "10/20" in shown and "00:10" in shown and "1.00seed/s" in shown.replace("it/s", "seed/s"), shown


def test_a_log_gives_no_estimate_from_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress("work", 2, stream=stream) as advance:
        clock.now += 30.0
        advance(1)
    assert stream.getvalue().splitlines()[-1] == "work: 1/2 seeds, 30.0 s"


def test_progress_is_given_to_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter: Callable[[int], object]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress("work", 1, unit="time") as reporter:
        reporter(1)
    assert stream.getvalue().splitlines()[0] == "work: 1 times"
