"""A sweep on a Dask cluster: any scheduler's address (dask-jobqueue's too), or worker processes on this machine. Extra: rfdiff[cluster].

Workers compute and send curves; this process alone writes, so workers need no common file system. A worker that dies takes its cells
with it, and the scheduler gives them to others; a cell whose workers keep dying is a failed cell with that diagnosis.
"""

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import logging
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rfdiff.errors import InputError
from rfdiff.sweep.cells import Cell, compute
from rfdiff.sweep.outcome import Compute, Outcome, attempt
from rfdiff.sweep.running import Execute, Outcomes
from rfdiff.sweep.workers import supervised

if TYPE_CHECKING:
    import distributed

RESUBMISSIONS = 2  # of a cell that the scheduler gave up; it does so when `distributed.scheduler.allowed-failures` (3) is exceeded
WINDOW = 1000  # cells submitted at once, and four a thread where there are more: curves wait in the workers until they are written
CONNECT_SECONDS, START_SECONDS = 20, 120


def on_dask(address: str | None = None, workers: int | None = None, function: Compute = compute) -> Execute:
    """Cells on a Dask cluster.

    Args:
        address: of a scheduler that runs, for example tcp://10.0.0.1:8786; None for a cluster of processes on this machine.
        workers: number of those processes, one thread each.
        function: gives the curves of a task; importable by the workers.

    Raises:
        InputError: the package distributed is missing; both or neither of address and workers; fewer than one worker.
    """
    if (address is None) == (workers is None):
        raise InputError("--scheduler, --workers: both or neither given; allowed: one of them")
    if workers is not None and workers < 1:
        raise InputError(f"--workers: {workers}; allowed: at least 1")
    if importlib.util.find_spec("distributed") is None:
        option = "--scheduler" if workers is None else "--workers"
        raise InputError(f"{option}: needs the package distributed, which is not installed; allowed: after pip install 'rfdiff[cluster]'")

    def execute(cells: Sequence[Cell], expected: Mapping[str, str]) -> Outcomes:
        if cells:
            with contextlib.ExitStack() as stack:
                client = _connected(address, workers, stack)
                yield from _computed(client, cells, expected, function)

    return execute


def _connected(address: str | None, workers: int | None, stack: contextlib.ExitStack) -> "distributed.Client":
    """A client of the cluster, closed with the stack."""
    import distributed

    stack.enter_context(distributed.utils.silence_logging_cmgr(logging.CRITICAL))  # what matters is told by the sweep itself
    if address is None:
        # without its own workers: those are supervised here, since a nanny gives up a worker that dies while it starts
        cluster = stack.enter_context(
            distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None, silence_logs=logging.CRITICAL)
        )
        client = stack.enter_context(distributed.Client(cluster))
        stack.enter_context(supervised(cluster.scheduler_address, workers or 1))
        try:
            client.wait_for_workers(1, timeout=START_SECONDS)
        except TimeoutError as err:
            raise InputError(f"--workers: no worker process has started in {START_SECONDS} s; what they say stands above") from err
        return client
    try:
        client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
    except (OSError, ValueError, TypeError) as err:
        raise InputError(f"--scheduler: {address} does not answer ({err}); allowed: the address of a Dask scheduler that runs") from err
    if not client.nthreads():
        print(f"sweep: {address} has no worker yet; waiting for one", file=sys.stderr, flush=True)
    return client


def _computed(client: "distributed.Client", cells: Sequence[Cell], expected: Mapping[str, str], function: Compute) -> Outcomes:
    """Outcomes in the order in which they come; at most a window of cells is submitted at a time."""
    import distributed

    waiting, flying = deque(cells), {}
    attempts = dict.fromkeys((cell.name for cell in cells), 0)
    stream = distributed.as_completed()

    def submit(cell: Cell) -> None:
        key = f"cell-{cell.name}-{attempts[cell.name]}"  # a new key, or the scheduler would answer with what it knows of the old one
        attempts[cell.name] += 1
        future = client.submit(attempt, function, cell.task, dict(expected), key=key, pure=False)
        flying[key] = (cell, future)
        stream.add(future)

    def fill() -> None:
        most = max(WINDOW, 4 * sum(client.nthreads().values()))
        while waiting and len(flying) < most:
            submit(waiting.popleft())

    fill()
    try:
        while flying:
            cell, future = flying.pop(str(next(stream).key))
            if future.status == "lost":  # its worker died before the curves were fetched; the scheduler computes them again
                flying[str(future.key)] = (cell, future)
                stream.add(future)
                continue
            outcome = _outcome(future)
            future.release()
            if outcome is None and attempts[cell.name] <= RESUBMISSIONS:
                submit(cell)
                continue
            yield cell, outcome or _given_up(attempts[cell.name])
            if waiting and len(flying) < WINDOW // 2:
                fill()
    except (OSError, asyncio.CancelledError, concurrent.futures.CancelledError) as err:  # the last two: futures that nobody will answer
        flying.clear()  # nobody is there to cancel them
        raise ConnectionError("the Dask scheduler is gone; finished cells are kept, the same command resumes from them") from err
    finally:
        if flying:
            client.cancel([future for _, future in flying.values()])


def _outcome(future: "distributed.Future") -> Outcome | None:
    """Outcome of a future that is done; None if the workers that had it died.

    Raises:
        CancelledError: the scheduler is gone.
    """
    import distributed

    if future.status == "cancelled":
        raise concurrent.futures.CancelledError
    error = future.exception()
    if isinstance(error, distributed.KilledWorker):
        return None
    if error is not None:  # `attempt` lets no error of a cell through: this one arose on its way to a worker or back
        return Outcome(None, {"type": type(error).__name__, "message": " ".join(str(error).split()), "where": "distributed"}, 0.0, {})
    return future.result()


def _given_up(times: int) -> Outcome:
    message = f"every worker that computed this cell died, until the scheduler gave it up {times} times; the likely cause is memory"
    return Outcome(None, {"type": "KilledWorker", "message": message, "where": "distributed"}, 0.0, {})
