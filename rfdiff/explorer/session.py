"""What computes for the page: one thread each for previews, exact curves and spectra, one that compiles, and two pieces of long work."""

import collections
import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax

from rfdiff.activation import ACTIVATIONS
from rfdiff.explorer import answers
from rfdiff.explorer.answers import PREVIEW_ERROR, Axis, Json
from rfdiff.explorer.networks import Networks
from rfdiff.explorer.phase import Phase
from rfdiff.explorer.state import State
from rfdiff.explorer.workers import Background, BusyError, Worker
from rfdiff.rules import MinibatchSGD
from rfdiff.theory.live_curves import NODES
from rfdiff.theory.minibatch import check_covered
from rfdiff.theory.preparation import preparations
from rfdiff.theory.ready_programs import READ

T = TypeVar("T")
FIRST_AXIS = Axis(-1.0, 5.0)
FIRST_CURVES = 20.0  # seconds for which what else is compiled leaves the processor to the first curves
AT_REST, LOOK = 1.0, 0.05  # seconds without a question after which a page is at rest, and between two looks
ANSWERS = ("exact", "spectrum", "speciation")


class Session:
    """Everything that one server computes; all tabs share it.

    Args:
        state: what the page shows at first.
        warm: whether programs are compiled unasked: those of the first state at once, those of its neighbours while the page rests.
    """

    def __init__(self, state: State, warm: bool = True) -> None:
        self.state = state
        self.live, self.files, self._compiler, self._warmer = (Worker(name) for name in ("live", "files", "compiler", "warmer"))
        self._fast = {name: Worker(name) for name in ANSWERS}
        self._slow = {name: Worker(f"first {name}") for name in ANSWERS}
        self._lock = threading.Lock()
        self._ready: set[tuple[object, ...]] = set()
        self._asked: dict[tuple[object, ...], Callable[[], None]] = {}
        self._sizes: dict[tuple[object, ...], int] = {}
        self._shown = threading.Event()
        self._moved, self.warm = -AT_REST, not warm
        self._turns: collections.defaultdict[object, threading.Lock] = collections.defaultdict(threading.Lock)
        self.programs = _counted_programs()
        self.networks: Background[Networks] = Background()
        self.phase: Background[Phase] = Background()
        if warm:
            self._warm(state)

    def _warm(self, state: State) -> None:
        """What the first curves need, and once they are shown, one after the other and not while something moves, what may come next."""
        self.compile_for(state, FIRST_AXIS, 0)  # alone: what is traced beside it would delay the first curves
        jobs: list[Callable[[], object]] = [functools.partial(self._computed, name, state) for name in ANSWERS]
        warmed = functools.partial(self.compile_for, worker=self._warmer)
        jobs += [functools.partial(warmed, state, FIRST_AXIS, size) for size in range(1, len(NODES))]
        for neighbour in neighbours(state):
            jobs.append(functools.partial(warmed, neighbour, FIRST_AXIS, 0))
            jobs += [functools.partial(self._computed, name, neighbour) for name in ANSWERS[:2]]
        jobs += [functools.partial(warmed, other, FIRST_AXIS, 0) for other in siblings(state)]
        threading.Thread(target=self._in_turn, args=(jobs, state), name="explorer warm", daemon=True).start()

    def _in_turn(self, jobs: list[Callable[[], object]], state: State) -> None:
        """Jobs, each begun when the one before is done and nothing moves or is answered; maps and networks may be computed beside them."""
        self._shown.wait(FIRST_CURVES)
        workers = (self.live, self.files, self._compiler, self._warmer, *self._fast.values(), *self._slow.values())
        _quietly(lambda: jobs.extend(preparations(answers.problem_of(state))))
        for job in (*jobs, lambda: None):
            while self._moving() or any(worker.busy() for worker in workers):
                time.sleep(LOOK)
            _quietly(job)
        self.warm = True

    def _moving(self) -> bool:
        """Whether something on a page has moved, or was answered, just now."""
        return time.monotonic() - self._moved < AT_REST

    def compile_for(self, state: State, axis: Axis, size: int, first: bool = False, worker: Worker | None = None) -> bool:
        """Whether the programs of a state's preview are there; where not, they are compiled in the background, before others or after.

        Raises:
            BusyError: too many wait to be compiled.
        """
        shape = answers.shape(state, size)
        with self._lock:
            if shape in self._ready:
                return True
            waiting = self._asked.get(shape)
        if waiting is not None:
            if first:
                self._compiler.promote(waiting)
            return False

        def job() -> None:
            _quietly(answers.preview, state, axis, size)  # compiled even where the state itself is refused in the end
            with self._lock:
                self._ready.add(shape)

        with self._lock:
            if self._asked.setdefault(shape, job) is not job:  # another request was faster
                return False
        try:
            (worker or self._compiler).start(job, first=first)
        except BusyError:
            with self._lock:
                del self._asked[shape]
            raise
        return False

    def compiled(self) -> int:
        """Number of shapes whose previews are compiled."""
        with self._lock:
            return len(self._ready & self._asked.keys())

    async def preview(self, state: State, axis: Axis) -> Json:
        """Curves while a slider moves, or the news that their program is being compiled."""
        self._moved = time.monotonic()
        problem, rule = answers.problem_of(state), state.training_rule()  # refused before anything is compiled
        if isinstance(rule, MinibatchSGD):
            check_covered(problem, rule)
        if not self.compile_for(state, axis, 0, True):  # what is asked now comes before what may be asked
            return {"kind": "compiling", "what": compiled_for(state)}
        self._shown.set()
        if state.rule != "flow":
            return await self.live.run(functools.partial(answers.preview, state, axis, 0))
        shape = answers.shape(state, 0)
        size = self._sizes.get(shape, 0)  # what the state before needed, this one will too
        answer = await self.live.run(functools.partial(answers.preview, state, axis, size))
        while too_coarse(answer) and size + 1 < len(NODES) and self.compile_for(state, axis, size + 1, True):
            size += 1
            answer = await self.live.run(functools.partial(answers.preview, state, axis, size))
        self._sizes[shape] = size - 1 if size and smaller_does(answer, size) else size
        return answer

    async def answer(self, name: str, state: State) -> Json:
        """One of `ANSWERS` for a state, which compiles at the first state of a shape: others do not wait for that."""
        with self._lock:
            ready = (name, answers.shape(state, 0)) in self._ready
        worker = self._fast[name] if ready else self._slow[name]
        try:
            return await worker.run(functools.partial(self._computed, name, state))
        finally:
            self._moved = time.monotonic()

    def _computed(self, name: str, state: State) -> Json:
        key = (name, answers.shape(state, 0))
        with self._lock:
            turn = self._turns[key]
        with turn:  # what is being compiled is not compiled twice
            answer: Json = getattr(answers, name)(state)
        with self._lock:
            self._ready.add(key)
        return answer


def too_coarse(answer: Json) -> bool:
    """Whether the contour of a preview had too few nodes."""
    error = answer["error"]
    return not isinstance(error, float) or error > PREVIEW_ERROR


def smaller_does(answer: Json, size: int) -> bool:
    """Whether the next smaller contour will do: its error falls as e^{-c N}, with a factor before it of about 5."""
    error = answer["contour_error"]
    return isinstance(error, float) and 10 * max(error, 0.0) ** (NODES[size - 1] / NODES[size]) < PREVIEW_ERROR


def neighbours(state: State) -> list[State]:
    """States of the same classes whose centroids span another number of dimensions: what the next slider may lead to."""
    k = state.num_classes
    if k == 1:
        return [dataclasses.replace(state, norm=(0.0,)), dataclasses.replace(state, norm=(1.0,))]
    line = tuple(180.0 * (c % 2) for c in range(k))
    plane = tuple(90.0 * c for c in range(k))
    return [
        dataclasses.replace(state, norm=(0.0,) * k),
        dataclasses.replace(state, norm=(1.0,) * k, angle=line),
        dataclasses.replace(state, norm=(1.0,) * k, angle=plane),
    ]


def siblings(state: State) -> list[State]:
    """States beside one that a choice or another slider leads to: another activation, noise average, averaging or overlap."""
    others = [dataclasses.replace(state, activation=name) for name in ACTIVATIONS if name != state.activation]
    if state.rule == "flow":
        others.append(dataclasses.replace(state, averaging=0.0 if state.averaging else 1.0))
    others.append(dataclasses.replace(state, noise_draws=2.0 if state.noise_draws in (1.0, math.inf) else math.inf))
    if state.num_classes > 1:
        others.append(dataclasses.replace(state, overlap=0.5 if state.overlap == 1 else 1.0))
    return others


def compiled_for(state: State) -> str:
    """What a program is compiled for, in words."""
    draws = "" if state.noise_draws == float("inf") else f", m = {state.noise_draws:g}"
    rule = ", SGD" if state.rule == "sgd" else ""
    return f"{state.num_classes} class{'es' if state.num_classes > 1 else ''}, {state.activation}{draws}{rule}"


def _quietly(function: Callable[..., T], *arguments: object) -> None:
    """Call a function for what it compiles; an error is told to whoever asks for the same again, and the thread goes on."""
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001 of any kind, for the same reason
        return


@functools.cache
def _counted_programs() -> list[float]:
    """Seconds that each program of this process took to compile or to read, in order; those of JAX too."""
    seconds: list[float] = []

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event in (READ, "/jax/core/compile/backend_compile_duration"):
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
    return seconds
