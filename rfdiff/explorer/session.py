"""What computes for the page: one thread each for previews, exact curves and spectra, one that compiles, and two pieces of long work."""

import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from rfdiff.explorer import answers
from rfdiff.explorer.answers import PREVIEW_ERROR, Axis, Json
from rfdiff.explorer.networks import Networks
from rfdiff.explorer.phase import Phase
from rfdiff.explorer.state import State
from rfdiff.explorer.workers import Background, BusyError, Worker
from rfdiff.rules import MinibatchSGD
from rfdiff.theory.live_curves import NODES
from rfdiff.theory.minibatch import check_covered

T = TypeVar("T")
FIRST_AXIS = Axis(-1.0, 5.0)
ANSWERS = ("exact", "spectrum", "speciation")


class Session:
    """Everything that one server computes; all tabs share it.

    Args:
        state: what the page shows at first.
        warm: whether the programs of the first state, and of its neighbours with other centroids, are compiled at once.
    """

    def __init__(self, state: State, warm: bool = True) -> None:
        self.state = state
        self.live, self.files, self._compiler = (Worker(name) for name in ("live", "files", "compiler"))
        self._fast = {name: Worker(name) for name in ANSWERS}
        self._slow = {name: Worker(f"first {name}") for name in ANSWERS}
        self._lock = threading.Lock()
        self._ready: set[tuple[object, ...]] = set()
        self._asked: dict[tuple[object, ...], Callable[[], None]] = {}
        self._sizes: dict[tuple[object, ...], int] = {}
        self.networks: Background[Networks] = Background()
        self.phase: Background[Phase] = Background()
        if warm:
            self._warm(state)

    def _warm(self, state: State) -> None:
        self.compile_for(state, FIRST_AXIS, 0)  # alone: what is traced beside it would delay the first curves
        self._compiler.start(functools.partial(self._warm_answers, state))
        for size in range(1, len(NODES)):
            self.compile_for(state, FIRST_AXIS, size)
        for neighbour in neighbours(state):
            self.compile_for(neighbour, FIRST_AXIS, 0)

    def _warm_answers(self, state: State) -> None:
        for name in ANSWERS:
            self._slow[name].start(functools.partial(_quietly, self._computed, name, state))

    def compile_for(self, state: State, axis: Axis, size: int, first: bool = False) -> bool:
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
            self._compiler.start(job, first=first)
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
        problem, rule = answers.problem_of(state), state.training_rule()  # refused before anything is compiled
        if isinstance(rule, MinibatchSGD):
            check_covered(problem, rule)
        if not self.compile_for(state, axis, 0, True):  # what is asked now comes before what may be asked
            return {"kind": "compiling", "what": compiled_for(state)}
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
        return await worker.run(functools.partial(self._computed, name, state))

    def _computed(self, name: str, state: State) -> Json:
        answer: Json = getattr(answers, name)(state)
        with self._lock:
            self._ready.add((name, answers.shape(state, 0)))
        return answer


def too_coarse(answer: Json) -> bool:
    """Whether the contour of a preview had too few nodes."""
    error = answer["error"]
    return not isinstance(error, float) or error > PREVIEW_ERROR


def smaller_does(answer: Json, size: int) -> bool:
    """Whether the next smaller contour will do: its error falls as e^{-c N}, with a factor before it of about 5."""
    error = answer["error"]
    return isinstance(error, float) and 10 * max(error, 0.0) ** (NODES[size - 1] / NODES[size]) < PREVIEW_ERROR


def neighbours(state: State) -> list[State]:
    """States of the same classes whose centroids span another number of dimensions: what the next slider may lead to."""
    k = state.num_classes
    if k == 1:
        return [_with(state, norm=(0.0,)), _with(state, norm=(1.0,))]
    line = tuple(180.0 * (c % 2) for c in range(k))
    plane = tuple(90.0 * c for c in range(k))
    return [_with(state, norm=(0.0,) * k), _with(state, norm=(1.0,) * k, angle=line), _with(state, norm=(1.0,) * k, angle=plane)]


def _with(state: State, **numbers: tuple[float, ...]) -> State:
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    return State(**{**fields, **numbers})


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
