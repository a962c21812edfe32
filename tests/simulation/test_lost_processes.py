"""A process that dies or is stopped ends all the others, with a message, instead of leaving them to wait for ever."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rfdiff import simulation
from rfdiff.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SILENCE = 6  # seconds
PATIENCE = 240  # seconds until a process that goes on waiting counts as one that never ends

SCRIPT = f"""
import sys, time
import numpy as np
from rfdiff import simulation
number, count = int(sys.argv[2]), int(sys.argv[3])
simulation.initialize(coordinator=sys.argv[1], num_processes=count, process_id=number, startup_timeout=120, silence_timeout={SILENCE})
from jax.experimental import multihost_utils
while True:
    multihost_utils.process_allgather(np.int32(number))
    print("together", flush=True)
    time.sleep(0.2)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_the_others_end_with_a_message(count: int, blow: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, "-c", SCRIPT, address]
    processes = [
        subprocess.Popen([*words, str(i), str(count)], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True) for i in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and "together\n" in iter(process.stdout.readline, "")
        processes[-1].send_signal(blow)
        for process in processes[:-1]:
            told = process.communicate(timeout=PATIENCE)[1]
            assert process.returncode != 0 and "heartbeat" in told.lower(), told
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("waits", "message"),
    [
        ({"startup_timeout": 0}, "startup_timeout: 0; allowed: an integer >= 1"),
        ({"silence_timeout": 1.5}, r"silence_timeout: 1\.5; allowed: an integer >= 1"),
    ],
)
def test_refused_waits(waits: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulation.initialize(coordinator="host:1", num_processes=2, process_id=0, **waits)
