"""Processes that are killed: no cell is lost, none is there twice, no file is taken for whole that is not."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from rfdiff.files import result_file
from rfdiff.sweep import collect, on_dask, run_sweep, serially
from tests.sweep.instant import SMALL, instant, sweep

ROOT = Path(__file__).resolve().parents[2]
CELLS, FEW = 78, 18
dask = pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed: the extra cluster")


def started(out: Path, *options: str, **variables: str) -> subprocess.Popen[str]:
    """A process that runs the sweep of `instant`, its modules loaded."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "tests.sweep.instant", str(out), *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def done(out: Path) -> list[Path]:
    return sorted((out / "cells").glob("[!.]*"))


def assert_whole(out: Path) -> None:
    for path in done(out):
        assert result_file.load(path).metadata["cell"] == path.stem


def unkilled(out: Path, **changes: Any) -> tuple[list[str], xr.Dataset]:
    """File names and numbers of the sweep in one process that nobody killed."""
    run_sweep(sweep(**changes), out, execute=serially(instant))
    return [path.name for path in done(out)], collect(out)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], xr.Dataset]:
    return unkilled(tmp_path_factory.mktemp("few"), **SMALL)


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], xr.Dataset]:
    return unkilled(tmp_path_factory.mktemp("serial"))


def assert_equal(out: Path, serial: tuple[list[str], xr.Dataset]) -> None:
    """Every cell exactly once, with the numbers of the serial run; nothing else in the folder."""
    assert [path.name for path in done(out)] == serial[0] and len(serial[0]) in (FEW, CELLS)
    assert list((out / "failures").iterdir()) == [] and not list(out.rglob("*.partial"))
    assert collect(out).drop_attrs().identical(serial[1].drop_attrs())


def kill_serially(out: Path, kills: int, seed: int, step: int) -> int:
    """Kill the process of a sweep so often, each time after up to `step` further cells, wherever it is then; the cells it left."""
    rng = random.Random(seed)
    for _ in range(kills):
        process = started(out, "--small", "--seconds", "0.01")
        target = min(len(done(out)) + rng.randrange(step), FEW - 1) if (out / "cells").exists() else 0
        while len(done(out)) < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.06))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert_whole(out)
    return len(done(out))


@pytest.mark.slow
def test_a_process_killed_again_and_again_loses_nothing(tmp_path: Path, few: tuple[list[str], xr.Dataset]) -> None:
    left = kill_serially(tmp_path, kills=3, seed=0, step=8)
    assert 0 < left < FEW
    last = started(tmp_path, "--small")
    told = last.communicate()[1]
    assert last.returncode == 0 and f"sweep: {FEW} cells, {left} of them done" in told
    assert_equal(tmp_path, few)


@pytest.mark.thorough
def test_an_interrupted_process_says_what_is_kept(tmp_path: Path) -> None:
    process = started(tmp_path, "--seconds", "0.05")
    while not done(tmp_path):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    told = process.communicate()[1]
    assert process.returncode == 130
    assert told.splitlines()[-1] == f"{len(done(tmp_path))} of {CELLS} cells are kept, the same command resumes from them"


@dask
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--scheduler, --workers: both or neither given"),
        ({"address": "tcp://127.0.0.1:1", "workers": 2}, "--scheduler, --workers: both or neither given"),
        ({"workers": 0}, "--workers: 0; allowed: at least 1"),
    ],
)
def test_refused_clusters(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_dask(**options)


def test_a_cluster_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--workers: needs the package distributed, which is not installed; .* 'rfdiff\[cluster\]'"):
        on_dask(workers=2)


@pytest.mark.thorough
@dask
def test_a_local_cluster_gives_what_one_process_gives(tmp_path: Path, few: tuple[list[str], xr.Dataset]) -> None:
    process = started(tmp_path, "--small", "--workers", "2")
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert_equal(tmp_path, few)


def kill_workers(process: subprocess.Popen[str], pids: Path, kills: int, seed: int) -> int:
    """Kill a worker of a running sweep, at a moment of its own, again and again; how often that was."""
    rng, killed, count = random.Random(seed), set[int](), 0
    while process.poll() is None:
        alive = sorted({int(path.name) for path in pids.iterdir()} - killed)
        if alive and count < kills:
            victim = rng.choice(alive)
            time.sleep(rng.uniform(0, 0.3))
            killed.add(victim)
            try:
                os.kill(victim, signal.SIGKILL)
                count += 1
            except ProcessLookupError:  # the sweep is at its end
                pass
        time.sleep(0.02)
    return count


@dask
@pytest.mark.slow
def test_workers_killed_again_and_again_lose_nothing(tmp_path: Path, serial: tuple[list[str], xr.Dataset]) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    process = started(tmp_path / "out", "--workers", "2", "--seconds", "0.3", "--pids", str(pids))
    count = kill_workers(process, pids, kills=6, seed=0)
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert count == 6
    assert_equal(tmp_path / "out", serial)


@dask
@pytest.mark.slow
def test_a_cell_that_kills_every_worker_is_a_recorded_failure(tmp_path: Path) -> None:
    process = started(tmp_path, "--workers", "2", "--poison", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    told = process.communicate()[1]
    assert process.returncode == 1, told
    dataset = collect(tmp_path)
    assert dataset.attrs["failed"] == 2 and dataset.attrs["done"] == CELLS - 2  # at the two variance ratios
    failed = dataset.diagnosis.sel(psi_n=3.0, solver="exact", d=12, seed=0)
    for text in failed.values:
        assert text.startswith("KilledWorker: every worker that computed this cell died, until the scheduler gave it up 3 times")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers as dask-jobqueue starts them: the command-line programs of distributed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    file = tmp_path / "scheduler.json"

    def program(name: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{name}", "--scheduler-file", str(file), *options]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    processes = [program("scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard")]
    processes += [program("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60") for _ in range(2)]
    while not file.exists():
        time.sleep(0.05)
    yield json.loads(file.read_text())["address"], processes
    for process in processes:
        process.kill()
        process.wait()


@dask
@pytest.mark.slow
def test_a_cluster_by_its_address(
    tmp_path: Path, serial: tuple[list[str], xr.Dataset], scheduler: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    """One of its workers is killed and the sweep ends with the other; then its scheduler, and the sweep says so and keeps what it has."""
    address, processes = scheduler
    process = started(tmp_path / "out", "--scheduler", address, "--seconds", "0.02")
    while len(done(tmp_path / "out")) < 10:
        time.sleep(0.01)
    processes[1].kill()
    told = process.communicate()[1]
    assert process.returncode == 0, told
    assert_equal(tmp_path / "out", serial)
    process = started(tmp_path / "again", "--scheduler", address, "--seconds", "0.02")
    while len(done(tmp_path / "again")) < 10:
        time.sleep(0.01)
    processes[0].kill()
    told = process.communicate()[1]
    assert process.returncode != 0 and "the Dask scheduler is gone" in told
    assert_whole(tmp_path / "again")
    refused = started(tmp_path / "again", "--scheduler", address)
    told = refused.communicate()[1]
    assert f"--scheduler: {address} does not answer" in told
