"""Threads of the explorer: one job after the other for what is asked, one in the background for what takes long and may be cancelled."""

import asyncio
import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from rfdiff.errors import InputError

T = TypeVar("T")
MOST_WAITING = 16  # jobs of a worker: more tabs than anybody looks at


class BusyError(InputError):
    """More is asked than gets done."""


class Cancelled(Exception):  # noqa: N818 - the end that was asked for is no error
    """Background work was cancelled."""


class Worker:
    """A thread that does one job after the other. It is a daemon: the end of the process waits for no computation."""

    def __init__(self, name: str) -> None:
        self._jobs: collections.deque[tuple[Callable[[], None], asyncio.Future[object] | None]] = collections.deque()
        self._changed = threading.Condition()
        self._in_hand = False
        threading.Thread(target=self._work, name=f"explorer {name}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._in_hand = False
                self._changed.wait_for(lambda: self._jobs)
                job, future = self._jobs.popleft()
                self._in_hand = True
            if future is None or not future.cancelled():
                job()

    def start(self, job: Callable[[], None], future: "asyncio.Future[object] | None" = None, first: bool = False) -> None:
        """Do a job that does not raise, after or before those that wait; one whose future is cancelled meanwhile is left out.

        Raises:
            BusyError: too many jobs wait.
        """
        with self._changed:
            wanted = [waiting for waiting in self._jobs if waiting[1] is None or not waiting[1].cancelled()]
            if len(wanted) >= MOST_WAITING:
                raise BusyError(f"requests: {MOST_WAITING} wait already; allowed: fewer pages at once")
            self._jobs = collections.deque([(job, future), *wanted] if first else [*wanted, (job, future)])
            self._changed.notify()

    def promote(self, job: Callable[[], None]) -> None:
        """Do a job that waits before all others."""
        with self._changed:
            self._jobs = collections.deque(sorted(self._jobs, key=lambda waiting: waiting[0] is not job))

    def busy(self) -> bool:
        """Whether a job is in hand or waits."""
        with self._changed:
            return self._in_hand or bool(self._jobs)

    async def run(self, function: Callable[[], T]) -> T:
        """The result of a function, computed by this thread.

        Raises:
            BusyError: too many jobs wait.
        """
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def job() -> None:
            try:
                outcome: tuple[T | None, Exception | None] = (function(), None)
            except Exception as err:  # noqa: BLE001 handed to whoever asked
                outcome = (None, err)
            try:
                loop.call_soon_threadsafe(settle, *outcome)
            except RuntimeError:  # the server has ended meanwhile
                return

        self.start(job, future)
        value: T = await future
        return value


class Background(Generic[T]):
    """One piece of long work at a time; starting another cancels the one before it, and begins once that has stopped.

    The work is a function of this object: it sets `latest` as it goes, and calls `check` where it may stop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._current = threading.local()
        self._thread: threading.Thread | None = None
        self.latest: T | None = None
        self.running = False
        self.error = ""

    @property
    def number(self) -> int:
        """Number of the work that runs or ran last; it changes when the work is cancelled."""
        return self._number

    def start(self, work: Callable[[], None]) -> int:
        """Begin a piece of work, and its number."""
        with self._lock:
            self._number += 1
            number = self._number
            self.latest, self.running, self.error = None, True, ""
            before = self._thread
            self._thread = threading.Thread(target=self._work, args=(work, number, before), name="explorer background", daemon=True)
            self._thread.start()
        return number

    def seen(self) -> tuple[int, bool, str, T | None]:
        """Number, whether it runs, error, and how far it is, of one and the same work."""
        with self._lock:
            return self._number, self.running, self.error, self.latest

    def _work(self, work: Callable[[], None], number: int, before: threading.Thread | None) -> None:
        self._current.number = number
        error = ""
        try:
            if before is not None:
                before.join()
            self.check()
            work()
        except Cancelled:
            pass
        except InputError as err:
            error = str(err)
        except MemoryError:
            error = "out of memory"
        except Exception as err:  # noqa: BLE001 told to whoever looks, who would wait for ever otherwise
            error = f"{type(err).__name__}: {err}"
        with self._lock:
            if number == self._number:
                self.running, self.error = False, error

    def cancel(self) -> None:
        """End the work as soon as it looks; what it has set so far stays."""
        with self._lock:
            self._number += 1
            self.running = False

    def check(self) -> None:
        """Called by the work where it may stop.

        Raises:
            Cancelled: it shall.
        """
        if self._current.number != self._number:
            raise Cancelled

    def tell(self, latest: T) -> None:
        """Called by the work: how far it is.

        Raises:
            Cancelled: it shall stop.
        """
        with self._lock:
            self.check()
            self.latest = latest
