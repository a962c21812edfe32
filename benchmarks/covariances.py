"""Are learning curves of classes whose covariances do not commute affordable at the size of images? (targets: 8 s warm, 6 GiB)

d = 784, two classes with centroids: power-law spectra k^{-3/2} over a floor, as images have, in two bases turned against each other, so
that no direction can be left to the tail at the tolerance asked for: curves come from cores of fewer directions, extrapolated to all.
Curves of both classes at 60 training times, with the noise averaged and with three draws. Each runs in a process of its own, so that its
peak memory is its own: once with compilation ("curves"), and once more ("warm").
Run: python benchmarks/covariances.py [--smoke]. With --smoke d = 40 and nothing is written.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from typing import Any
from unittest import mock

import harness
import numpy as np
from scipy.linalg import expm

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.theory.noncommuting import dense

TARGETS = {"warm_s": 8.0, "peak_gib": 6.0}
TOLERANCE = 1e-4
with_core = dense.with_core
TAUS = np.geomspace(0.1, 1e5, 60)


def image_like(d: int) -> MixtureLaw:
    """Two classes with decaying spectra in unlike bases, and centroids."""
    rng = np.random.default_rng(0)
    decay = np.arange(1, d + 1.0) ** -1.5
    decay = 0.5 * d * decay / decay.sum() + 0.01
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    turn = rng.standard_normal((d, d)) / np.sqrt(d)
    other = basis @ expm(0.5 * (turn - turn.T))
    covariances = np.stack([basis * decay @ basis.T, other * (0.6 * decay) @ other.T])
    return MixtureLaw.from_covariances([0.6, 0.4], covariances, 0.5 * rng.standard_normal((2, d)))


def once(d: int, draws: float) -> dict[str, Any]:
    """Seconds and peak memory of one set of curves in this process."""
    problem = Problem(image_like(d), "tanh", t=0.1, psi_p=4, psi_n=3, noise_draws=draws)  # type: ignore[arg-type]
    seconds, cores = list[float](), list[int]()
    with mock.patch.object(
        dense, "with_core", lambda near, start, core: (cores.append(core.core.shape[1]), with_core(near, start, core))[1]
    ):
        for _ in range(2):
            cores.clear()
            start = time.perf_counter()
            curves = theory.learning_curves(problem, TAUS, tolerance=TOLERANCE)
            seconds.append(time.perf_counter() - start)
    return {
        "d": d,
        "noise_draws": "inf" if math.isinf(draws) else draws,
        "seconds": seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "error_estimate": curves.error_estimate,
        "directions_of_the_cores": cores,
        "test_loss_at_the_end": curves.test_loss[-1].tolist(),
    }


def run(d: int, repeats: int) -> dict[str, Any]:
    """Both numbers of draws, each run in a fresh process; compilation is in the seconds."""
    cases, seconds = {}, {}
    for draws in ("inf", "3"):
        command = [sys.executable, __file__, "--once", str(d), draws]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]) for _ in range(repeats)
        ]
        name = f"curves_draws_{draws}"
        for kind, times in zip((name, f"{name}_warm"), zip(*(found.pop("seconds") for found in runs), strict=True), strict=True):
            seconds[kind] = {"best_s": min(times), "median_s": float(np.median(times)), "worst_s": max(times), "repeats": repeats}
        cases[name] = max(runs, key=lambda found: found["peak_gib"])
    return {"seconds": seconds, "targets": TARGETS, "tolerance": TOLERANCE, "cases": cases}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small and fast, nothing written")
    parser.add_argument("--once", nargs=2, metavar=("D", "DRAWS"), help="one case in this process, printed as one line")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(int(arguments.once[0]), float(arguments.once[1]))))
    elif arguments.smoke:
        print(json.dumps(run(d=40, repeats=1), indent=2))
    else:
        harness.write("covariances", run(d=784, repeats=1))
