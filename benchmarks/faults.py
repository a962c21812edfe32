"""Do sweeps survive kills? Kill -9 of the one process and of Dask workers during a run, again and again; then count the cells.

A sweep of cells that cost next to nothing (made-up curves of known numbers) is killed at random moments, finished, and compared with one
that nobody killed: cells that are lost, that are there twice, that differ, and files that could not be read after a kill.
Run: python benchmarks/faults.py [--smoke]. With --smoke few cells and kills, and nothing is written.
"""

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rfdiff.files import result_file  # noqa: E402
from rfdiff.sweep import collect, run_sweep, serially  # noqa: E402
from tests.sweep.instant import SMALL, instant, sweep  # noqa: E402


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """A process that runs the sweep, its modules loaded."""
    command = [sys.executable, "-m", "tests.sweep.instant", str(out), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def cells(out: Path) -> list[Path]:
    return sorted((out / "cells").glob("[!.]*")) if (out / "cells").exists() else []


def unreadable(paths: list[Path]) -> int:
    """Files at the place of a result that are not whole, or of another cell."""
    bad = 0
    for path in paths:
        try:
            bad += result_file.load(path).metadata["cell"] != path.stem
        except ValueError:
            bad += 1
    return bad


def killed_serially(out: Path, kills: int, size: tuple[str, ...], total: int) -> dict[str, int]:
    """The one process of a sweep, killed after about every `total/kills` cells at any moment of their computation or writing."""
    rng, torn, leftovers, checked = random.Random(0), 0, 0, set[Path]()
    for k in range(kills):
        process = start(out, *size, "--seconds", "0.01")
        while len(cells(out)) < total * k // (kills + 1) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.08))
        process.kill()
        process.wait()
        new = [path for path in cells(out) if path not in checked]
        torn += unreadable(new)
        checked |= set(new)
        leftovers += len(list(out.rglob("*.partial")))
    last = start(out, *size)
    return {"kills": kills, "files_torn": torn, "leftovers_found": leftovers, "exit_status": last.wait()}


def killed_workers(out: Path, pids: Path, kills: int, size: tuple[str, ...], seconds: float) -> dict[str, int]:
    """Two Dask workers, one of which is killed at a moment of its own, again and again while the sweep runs."""
    pids.mkdir()
    rng, dead, count = random.Random(0), set[int](), 0
    process = start(out, *size, "--workers", "2", "--seconds", str(seconds), "--pids", str(pids))
    while process.poll() is None:
        alive = sorted({int(path.name) for path in pids.iterdir()} - dead)
        if alive and count < kills:
            victim = rng.choice(alive)
            time.sleep(rng.uniform(0, seconds))
            dead.add(victim)
            try:
                os.kill(victim, signal.SIGKILL)
                count += 1
            except ProcessLookupError:
                pass
        time.sleep(0.01)
    return {"kills": count, "files_torn": unreadable(cells(out)), "exit_status": process.returncode}


def counted(out: Path, reference: Path) -> dict[str, int]:
    """Cells lost, duplicated and differing, against the sweep that nobody killed."""
    expected, found = {path.name for path in cells(reference)}, [path.name for path in cells(out)]
    there = [str(result_file.load(path).metadata["cell"]) for path in cells(out)]
    same = collect(out).drop_attrs().identical(collect(reference).drop_attrs())
    failures = len(list((out / "failures").iterdir()))
    lost, twice = len(expected - set(found)), len(there) - len(set(there)) + len(set(found) - expected)
    return {"cells": len(expected), "lost": lost, "duplicated": twice, "failed": failures, "equal_to_the_serial_run": int(same)}


def run(kills: int, worker_kills: int, small: bool) -> dict[str, Any]:
    """Counts of both kinds of kill (of the one process alone without the extra cluster), and the seconds that each took."""
    size = ("--small",) if small else ()
    with tempfile.TemporaryDirectory() as folder:
        reference, one, many = (Path(folder, name) for name in ("reference", "serial", "dask"))
        run_sweep(sweep(**(SMALL if small else {})), reference, execute=serially(instant))
        started = time.perf_counter()
        serial = killed_serially(one, kills, size, len(cells(reference)))
        walls = {"serial": time.perf_counter() - started}
        counts = {"serial": {**serial, **counted(one, reference)}}
        if importlib.util.find_spec("distributed") is not None:
            started = time.perf_counter()
            dask = killed_workers(many, Path(folder, "pids"), worker_kills, size, 0.3)
            walls["dask"] = time.perf_counter() - started
            counts["dask"] = {**dask, **counted(many, reference)}
    seconds = {name: {"best_s": wall, "median_s": wall, "worst_s": wall, "repeats": 1} for name, wall in walls.items()}
    return {"seconds": seconds, **counts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few cells and kills, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(kills=2, worker_kills=1, small=True), indent=2))
    else:
        harness.write("faults", run(kills=30, worker_kills=12, small=False))
