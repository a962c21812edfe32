"""Cells that cost nothing, and a process that runs a sweep of them, for tests and benchmarks of faults.

python -m tests.sweep.instant OUT [--workers N | --scheduler ADDRESS] [--seconds S] [--pids DIR] [--poison] [--small]
"""

import argparse
import dataclasses
import functools
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.sweep import Sweep, Task, on_dask, run_sweep, serially, sweep_from_dict
from tests import synthetic
from tests.synthetic import given

POISON = 3.0  # the value of psi_n at which a poisoned sweep kills its worker
TAUS = [0.5, 3.0, 20.0, 100.0, 1000.0]


def document(**changes: Any) -> dict[str, Any]:
    """A specification of 2 × 3 problems, theory and two solvers at two dimensions, 3 seeds: 78 cells."""
    mixture = {"weights": [0.6, 0.4], "variances": [1.4, 0.5]}
    axes = {"variance_ratio": {"from": 1.0, "to": 4.0, "num": 2, "scale": "log"}, "psi_n": [2.0, 3.0, 4.0]}
    base = {"problem": {"activation": "tanh", "t": 0.3, "psi_p": 2.0, "psi_n": 2.0, "mixture": mixture}, "axes": axes}
    found = {**base, "solvers": ["theory", "exact", "krylov"], "d": [12, 24], "seeds": 3, "taus": TAUS, **changes}
    return {name: value for name, value in found.items() if value is not None}


def sweep(**changes: Any) -> Sweep:
    return sweep_from_dict(document(**changes))


SMALL: dict[str, Any] = {"solvers": ["theory", "exact"], "d": [12], "seeds": 2}  # 18 cells


def instant(task: Task) -> LearningCurves:
    """Made-up curves that every bit of a task changes."""
    digest = hashlib.sha256(repr(task).encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, np.uint32))
    grid, shift = np.asarray(task.taus), 1 + 0.01 * rng.standard_normal()
    if task.d is None:
        curves = synthetic.theory(2, grid)
        moved: dict[str, Any] = {name: shift * np.asarray(getattr(curves, name)) for name in CURVE_NAMES}
        return dataclasses.replace(curves, **moved)
    curves = synthetic.simulation(2, max(2, len(task.seeds)), task.d, grid)
    seeds = {name: shift * values[: len(task.seeds)] for name, values in given(curves.per_seed).items()}
    means = {name: values.mean(0) for name, values in seeds.items()}
    errors = {f"{name}_stderr": np.full_like(values, np.nan) for name, values in means.items()}
    return dataclasses.replace(curves, **means, **errors, per_seed=seeds, spectrum=None)


def faulty(task: Task, seconds: float = 0.0, pids: str | None = None, poison: bool = False) -> LearningCurves:
    """`instant` after a while; it tells which process it runs in, and may kill that process."""
    if pids is not None:
        Path(pids, str(os.getpid())).touch()
    if poison and f"psi_n = {POISON}" in task.problem and task.solver == "exact" and task.d == 12 and task.seeds == (0,):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(seconds)
    return instant(task)


def main() -> int:
    """Run the sweep of this module; prints "ready" when its modules are loaded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--scheduler")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--pids")
    parser.add_argument("--poison", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    print("ready", flush=True)
    function = functools.partial(faulty, seconds=options.seconds, pids=options.pids, poison=options.poison)
    cluster = options.workers is not None or options.scheduler is not None
    execute = on_dask(options.scheduler, options.workers, function) if cluster else serially(function)
    try:
        states = run_sweep(sweep(**(SMALL if options.small else {})), options.out, execute=execute)
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        return 130
    return int("failed" in states.values())


if __name__ == "__main__":
    sys.exit(main())
