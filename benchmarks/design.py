"""How long a design takes cold: `rfdiff design` of the example in fresh processes, compilation included, and warm in one process.

The example is experiments/problem.toml, the goal the largest score error of any class, the levers the loss weights and the stop time.
Cold: a fresh process from the start of the command to its end, figure and file included, without kept programs (target: 60 s). Warm:
`design.propose` of the same problem a second time, which compiles nothing. `first` counts the programs that the first call in this process
compiles. Processor time is given beside wall time, because other processes disturb it less.
Run: python benchmarks/design.py [--smoke]. With --smoke one warm repeat is made and nothing is written.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import jax

from rfdiff import Problem, design

COMPILED = "backend_compile"  # of JAX's events
TARGETS = {"cold_s": 60.0}
PROBLEM = Path(__file__).resolve().parents[1] / "experiments" / "problem.toml"


def cold() -> dict[str, float]:
    """Wall and processor seconds of one command in a fresh process, without a compilation cache."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | {"RFDIFF_CACHE": "off"}
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "rfdiff", "design", str(PROBLEM), "--out", f"{folder}/out"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - start, "processor_s": used}


def first(problem: Problem) -> tuple[design.Proposal, dict[str, float]]:
    """A proposal in this process, the programs that it compiles or reads from a cache, and processor seconds."""
    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, seconds, **_: compiled.append(seconds) if COMPILED in name else None)
    start = time.process_time()
    found = design.propose(problem)
    return found, {"programs": len(compiled), "compiling_s": sum(compiled), "processor_s": time.process_time() - start}


def run(repeats: int, cold_repeats: int) -> dict[str, Any]:
    """All timings, and what the design found."""
    problem = Problem.from_toml(PROBLEM)
    found, beginning = first(problem)
    warm = harness.measure(lambda: design.propose(problem), repeats)
    runs = [cold() for _ in range(cold_repeats)]
    seconds: dict[str, Any] = {"propose_warm": warm}
    for name, which in (("command_cold", "wall_s"), ("command_cold_processor", "processor_s")):
        times = sorted(each[which] for each in runs)
        if times:
            middle = times[len(times) // 2]
            seconds[name] = {"best_s": times[0], "median_s": middle, "worst_s": times[-1], "repeats": cold_repeats}
    return {
        "seconds": seconds,
        "first": beginning,
        "targets_s": TARGETS,
        "goal": found.goal.tolist(),
        "error_estimate": found.error_estimate,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one warm repeat, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(repeats=1, cold_repeats=0), indent=2))
    else:
        harness.write("design", run(repeats=3, cold_repeats=3))
