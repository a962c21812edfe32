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


def test_a_bar_estimates_the_time_left_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first unit took 60 s with its compilation, later ones 1 s: 10 units take 10 s."""
    clock, stream = {"now": 100.0}, Terminal()
    monkeypatch.setattr("tqdm.std.time", lambda: clock["now"])
    with progress.progress("work", 20, stream=stream) as advance:
        assert "0/20" in stream.getvalue()
        clock["now"] += 60.0
        advance(1)
        assert "s/seed" not in stream.getvalue()
        for _ in range(9):
            clock["now"] += 1.0
            advance(1)
        shown = stream.getvalue().split("\r")[-1]
        assert "10/20" in shown and "<00:10" in shown and "1.00seed/s" in shown


def test_progress_estimates_the_time_left_from_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    stream = io.StringIO()
    with progress.progress("work", 100, 50, stream=stream) as advance:
        for _ in range(2):
            clock["now"] += 15.0
            advance(13)
    assert stream.getvalue().splitlines()[-1] == "work: 76/100 seeds, 30.0 s, 1.15 s a seed, about 28 s left"


def test_progress_is_given_to_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter: Callable[[int], object]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress("work", 1, unit="time") as reporter:
        reporter(1)
    assert stream.getvalue().splitlines()[0] == "work: 1 times"


def test_compilation_counts_once_and_not_for_every_unit_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first unit took 41 s with its compilation, later ones 1 s: 66 units take 66 s."""
    clock = {"now": 0.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    stream = io.StringIO()
    with progress.progress("work", 100, stream=stream) as advance:
        for seconds, count in ((41.0, 1), (1.0, 1), (1.0, 1), (31.0, 31)):
            clock["now"] += seconds
            advance(count)
    lines = stream.getvalue().splitlines()
    assert lines[1] == "work: 1/100 seeds, 41.0 s with compilation"
    assert lines[-1] == "work: 34/100 seeds, 74.0 s, 1 seeds/s, about 66 s left"


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    stream = io.StringIO()
    with progress.progress("training", 20_000, unit="step", stream=stream) as advance:
        for _ in range(100):
            clock["now"] += 1.0
            advance(5)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4 and lines[1] == "training: 150/20000 steps, 30.0 s, 5 steps/s, about 3970 s left"


def test_work_that_tells_done_and_total_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with progress.reporting("work", "cell", stream) as told:
        for done in (6, 7, 9, 10):
            told(done, 10)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "work: 10 cells, 6 of them done before" and lines[-1].startswith("work: 10/10 cells, ")
    with progress.reporting("nothing", stream=stream):
        pass
    assert "nothing" not in stream.getvalue()


def test_a_part_is_told_as_part_of_the_whole() -> None:
    told: list[tuple[int, int]] = []
    inner = progress.within(lambda done, total: told.append((done, total)), 30, 100)
    assert inner is not None
    inner(5, 20)
    assert told == [(35, 100)] and progress.within(None, 30, 100) is None


@pytest.mark.parametrize(("unit", "expected"), [("seed", "seeds"), ("trajectory", "trajectories"), ("search", "searches")])
def test_units_have_their_plural(unit: str, expected: str) -> None:
    assert progress.plural(unit) == expected
