"""Threads of the explorer: order, numbers, and what becomes of errors; no job here computes anything."""

import threading

import pytest

from rfdiff.explorer import answers
from rfdiff.explorer.session import FIRST_AXIS, Session
from rfdiff.explorer.state import State
from rfdiff.explorer.workers import MOST_WAITING, Background, BusyError, Worker

PATIENCE = 60  # seconds for what takes none; no test passes by them


def held(worker: Worker) -> threading.Event:
    """Keep a worker busy until the event is set."""
    began, release = threading.Event(), threading.Event()

    def job() -> None:
        began.set()
        release.wait(PATIENCE)

    worker.start(job)
    assert began.wait(PATIENCE)
    return release


def test_a_job_may_come_before_those_that_wait() -> None:
    worker, order, done = Worker("test"), [], threading.Event()
    release = held(worker)
    worker.start(lambda: order.append("second"))
    worker.start(lambda: order.append("first"), first=True)
    worker.start(done.set)
    release.set()
    assert done.wait(PATIENCE) and order == ["first", "second"]


def test_new_work_waits_for_the_old_and_has_another_number() -> None:
    background: Background[str] = Background()
    began, release, order = threading.Event(), threading.Event(), []

    def old() -> None:
        began.set()
        release.wait(PATIENCE)
        order.append("old")
        background.tell("old")

    def new() -> None:
        order.append("new")
        background.tell("new")

    first = background.start(old)
    assert began.wait(PATIENCE) and background.number == first
    second = background.start(new)
    assert background.seen() == (second, True, "", None) and second != first
    release.set()
    assert background._thread is not None
    background._thread.join(PATIENCE)
    assert order == ["old", "new"] and background.seen() == (second, False, "", "new")
    background.cancel()
    assert background.number not in (first, second)


def test_work_that_was_replaced_while_it_waited_never_begins() -> None:
    background: Background[str] = Background()
    began, release, order = threading.Event(), threading.Event(), []

    def old() -> None:
        began.set()
        release.wait(PATIENCE)
        order.append("old")

    background.start(old)
    assert began.wait(PATIENCE)
    background.start(lambda: order.append("never"))
    background.start(lambda: order.append("last"))
    release.set()
    assert background._thread is not None
    background._thread.join(PATIENCE)
    assert order == ["old", "last"]


def test_work_that_fails_ends_with_its_message() -> None:
    background: Background[str] = Background()

    def work() -> None:
        raise ValueError("of an unforeseen kind")

    number = background.start(work)
    assert background._thread is not None
    background._thread.join(PATIENCE)
    assert background.seen() == (number, False, "ValueError: of an unforeseen kind", None)


def test_a_state_refused_by_a_busy_compiler_is_compiled_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """And an error of any kind leaves the compiler alive."""

    def fails(*_: object) -> None:
        raise ValueError("of an unforeseen kind")

    monkeypatch.setattr(answers, "preview", fails)
    one, state, done = Session(State(), warm=False), State(activation="erf"), threading.Event()
    release = held(one._compiler)
    for _ in range(MOST_WAITING):
        one._compiler.start(lambda: None)
    for _ in range(2):
        with pytest.raises(BusyError, match="wait already"):
            one.compile_for(state, FIRST_AXIS, 0)
    assert one.compiled() == 0
    with one._compiler._changed:
        one._compiler._jobs.clear()
    release.set()
    assert not one.compile_for(state, FIRST_AXIS, 0)
    one._compiler.start(done.set)
    assert done.wait(PATIENCE) and one.compiled() == 1 and one.compile_for(state, FIRST_AXIS, 0)


def test_a_shape_that_is_asked_for_overtakes_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(answers, "preview", lambda state, *_: order.append(state.activation))
    one, done = Session(State(), warm=False), threading.Event()
    release = held(one._compiler)
    for activation in ("erf", "sin", "softplus"):
        assert not one.compile_for(State(activation=activation), FIRST_AXIS, 0)
    assert not one.compile_for(State(activation="softplus"), FIRST_AXIS, 0, True)
    one._compiler.start(done.set)
    release.set()
    assert done.wait(PATIENCE) and order == ["softplus", "erf", "sin"]
