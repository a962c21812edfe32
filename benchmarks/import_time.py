"""What does `import rfdiff` cost beside the libraries that it cannot do without?

Target: `import rfdiff` costs at most 0.3 s more than `import jax, numpy, scipy.stats`. The front door imports each name when it is used,
so the time with every name of the vocabulary and of both sides used is measured too. Files, figures and optimisers load xarray,
matplotlib and optax when they are first asked for, and are left out.

Processor time of fresh processes in turns, the least of each: other work on the machine adds to it, and never takes away.
"""

import argparse
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.harness import write

ALLOWED_S = 0.3
LATE = ("load", "save", "Result", "plots", "generation")  # what stands on files or figures
SCRIPTS = {
    "libraries": "import jax, numpy, scipy.stats",
    "rfdiff": "import rfdiff",
    "libraries and rfdiff": "import jax, numpy, scipy.stats, rfdiff",
    "every name but files and figures": f"import rfdiff\nfor name in rfdiff.__all__:\n    name in {LATE} or getattr(rfdiff, name)",
}
HEAVY = ("xarray", "optax", "matplotlib", "h5py", "tyro", "distributed", "flax")


def processor_seconds(script: str) -> tuple[float, list[str]]:
    """Processor time of a fresh process that runs a script, and the heavy libraries that it has loaded."""
    tail = (
        "\nimport resource, sys\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
        f"print(used.ru_utime + used.ru_stime, *(name for name in {HEAVY} if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script + tail], capture_output=True, text=True, check=True).stdout.split()
    return float(found[0]), sorted(found[1:])


def main() -> int:
    """Measure, print and write benchmarks/results/import_time.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for script in SCRIPTS.values():
        processor_seconds(script)  # the first one reads from the disk
    runs: dict[str, list[tuple[float, list[str]]]] = {name: [] for name in SCRIPTS}
    for _ in range(repeats):
        for name, script in SCRIPTS.items():
            runs[name].append(processor_seconds(script))
    result: dict[str, Any] = {}
    for name, measured in runs.items():
        seconds = [second for second, _ in measured]
        result[name] = {"best_s": min(seconds), "median_s": float(np.median(seconds)), "worst_s": max(seconds), "heavy": measured[0][1]}
    extra = {name: result[name]["best_s"] - result["libraries"]["best_s"] for name in list(SCRIPTS)[1:]}
    write("import_time", {"repeats": repeats, "allowed_s": ALLOWED_S, "seconds": result, "beside_the_libraries_s": extra})
    return 0 if extra["libraries and rfdiff"] <= ALLOWED_S else 1


if __name__ == "__main__":
    sys.exit(main())
