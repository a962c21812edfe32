"""Worker processes of a Dask scheduler on this machine, replaced as soon as one dies, whatever killed it."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

PERIOD = 0.2  # seconds between two looks at the workers
PATIENCE = 5.0  # seconds that a worker is given to end


@contextlib.contextmanager
def supervised(address: str, number: int) -> Iterator[None]:
    """Keep so many worker processes connected to a scheduler while the block runs.

    They have one thread and no memory limit but the machine's, share this process's environment and standard error, and belong to no
    terminal, so that Ctrl-C reaches only this process. If this process is killed, they end when they lose the scheduler.

    Args:
        address: of the scheduler.
        number: worker processes.
    """
    options = ("--nthreads", "1", "--nworkers", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    environment = {"DASK_LOGGING__DISTRIBUTED": "critical", **os.environ}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    stop = threading.Event()
    workers = [start() for _ in range(number)]

    def watch() -> None:
        while not stop.wait(PERIOD):
            for i, worker in enumerate(workers):
                if worker.poll() is not None:
                    workers[i] = start()

    watcher = threading.Thread(target=watch, name="rfdiff-sweep-workers", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(PATIENCE)
            worker.kill()
            worker.wait()
