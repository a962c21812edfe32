"""Timing that says what it measured: warm-up apart, best of several with the spread, and the machine without its name.

A benchmark file answers one question, prints one JSON document and writes it to benchmarks/results/.
"""

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


def measure(function: Callable[[], Any], repeats: int = 5, limit: float = float("inf")) -> dict[str, Any]:
    """Seconds of a call, until its arrays are ready: the first one (with compilation), then the best of `repeats` warm ones, of which
    none is begun after `limit` seconds.

    Returns:
        first, best, median and worst in seconds, and the number of repeats.
    """
    first, times = _seconds(function), [_seconds(function)]
    while len(times) < repeats and first + sum(times) < limit:
        times.append(_seconds(function))
    return summary(first, times)


def summary(first: float, times: list[float]) -> dict[str, Any]:
    """First, best, median and worst of seconds, and their number."""
    return {"first_s": first, "best_s": min(times), "median_s": float(np.median(times)), "worst_s": max(times), "repeats": len(times)}


def measure_together(functions: dict[str, Callable[[], Any]], repeats: int = 5) -> dict[str, dict[str, Any]]:
    """`measure` for several functions in turns, so that a busy machine slows all of them alike: what a ratio should be taken from."""
    first = {name: _seconds(function) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(_seconds(function))
    return {name: summary(first[name], t) for name, t in times.items()}


def environment() -> dict[str, Any]:
    """Processor, cores, memory and versions; no host name, no path, no user."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 if "SC_PHYS_PAGES" in os.sysconf_names else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": memory if memory is None else round(memory, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "versions": {name: _version(name) for name in ("rfdiff", "jax", "jaxlib", "numpy", "scipy")},
    }


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a result with its environment and date as folder/name.json, and print it."""
    document = {"benchmark": name, "date": datetime.date.today().isoformat(), "environment": environment(), **result}
    text = json.dumps(document, indent=2) + "\n"
    print(text, end="")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    return path


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
