"""Is the theory fast enough for a loop? (targets: curves and spectrum in 0.08 s, a fresh process in 5 s, with kept programs in 3 s)

Case A: two classes with centroids, tanh, averaged noise. Curves: train and test losses and score errors of both classes at 200 training
times to a tolerance of 1e-6. Spectrum: 1,000 points with the support found, and the same of case A without centroids. Cold: a fresh
process from the start of the import to the curves, compilation included. Kept: the same where another process has left its programs in a
folder, as the commands do. Second call: other numbers that take as many neuron types; it must not compile
anything.
Run: python benchmarks/theory.py [--smoke]. With --smoke few repeats are made and nothing is written.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import harness
import numpy as np

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.theory import contour_losses, equivalent, pair_traces, solutions

TARGETS = {"curves_warm_s": 0.08, "spectrum_warm_s": 0.08, "spectrum_centred_warm_s": 0.08, "curves_cold_s": 5.0, "curves_kept_s": 3.0}
TAUS = np.geomspace(0.1, 1e5, 200)
COLD = """
import time; start = time.perf_counter()
import numpy as np
from rfdiff import MixtureLaw, Problem, theory
imported = time.perf_counter() - start
law = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
theory.learning_curves(Problem(law, "tanh", t=0.1, psi_p=4, psi_n=3), np.geomspace(0.1, 1e5, 200))
print(imported, time.perf_counter() - start)
"""


def case_a(shift: float = 0.0) -> Problem:
    """Case A, or a neighbour of it with other numbers."""
    law = MixtureLaw.isotropic([0.7 - shift, 0.3 + shift], [1.5 + shift, 0.4], [[0.5 + shift, 0.1], [0.1, 1.0]])
    return Problem(law, "tanh", t=0.1 + shift / 10, psi_p=4 + shift, psi_n=3)


def centred() -> Problem:
    """Case A without centroids."""
    return Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4, psi_n=3)


def compiled() -> int:
    """Programs compiled so far by the jitted parts of the theory."""
    jitted = (contour_losses._filter, pair_traces._tile, pair_traces._tile_of_few, solutions._along, equivalent.build)
    return sum(function._cache_size() for function in jitted)


def cold(repeats: int, folder: str | None = None) -> dict[str, Any]:
    """Seconds of fresh processes: import alone, and up to the curves; with a folder, one process before them leaves its programs there."""
    kept = {} if folder is None else {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("JAX_")}, **kept}

    def once() -> list[str]:
        command = [sys.executable, "-c", COLD]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()

    if folder is not None:
        once()
    runs = [once() for _ in range(repeats)]
    imported, total = (sorted(float(run[i]) for run in runs) for i in (0, 1))
    return {"import_best_s": imported[0], "best_s": total[0], "median_s": float(np.median(total)), "worst_s": total[-1], "repeats": repeats}


def run(repeats: int, cold_repeats: int) -> dict[str, Any]:
    """All timings, and the errors that came with them."""
    curves = harness.measure(lambda: theory.learning_curves(case_a(), TAUS), repeats)
    spectrum = harness.measure(lambda: theory.spectrum(case_a()), repeats)
    spectrum_centred = harness.measure(lambda: theory.spectrum(centred()), repeats)
    before = compiled()
    theory.learning_curves(case_a(-0.01), TAUS)
    theory.spectrum(case_a(-0.01))
    with tempfile.TemporaryDirectory() as folder:
        processes = {"curves_cold": cold(cold_repeats), "curves_kept": cold(cold_repeats, folder)}
    return {
        "seconds": {"curves_warm": curves, "spectrum_warm": spectrum, "spectrum_centred_warm": spectrum_centred, **processes},
        "targets_s": TARGETS,
        "curves_error_estimate": theory.learning_curves(case_a(), TAUS).error_estimate,
        "spectrum_missing_mass": theory.spectrum(case_a()).missing_mass,
        "compiled_by_a_second_call": compiled() - before,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few repeats, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(repeats=1, cold_repeats=1), indent=2))
    else:
        harness.write("theory", run(repeats=15, cold_repeats=3))
