"""Are learning curves of classes whose covariances do not commute affordable at the size of images? (targets: 8 s and 120 s, 6 GiB)

Two classes, d = 784, with centroids: power-law spectra k^{-3/2} over a floor in two bases turned against each other, so that no direction
can be left to the tail at the tolerance of 1e-4: curves come from cores of fewer directions, extrapolated to all. With the noise averaged
and with three draws, once with compilation ("curves") and once more ("warm").

Ten classes, d = 3072: colour images of 32 × 32 pixels with power spectra 1/k^{5/2} in an orientation of the class's own, under an envelope
of its own. Once, with compilation; a law of 10 matrices is made first ("law"). Tolerance 5e-3.

Curves of all classes at 60 training times. Each case runs in a process of its own, so that its peak memory is its own.
Run: python benchmarks/covariances.py [--smoke]. With --smoke d = 40 and 48, two and five classes, and nothing is written.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import harness
import numpy as np
from scipy.linalg import expm

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.noncommuting.working_basis import Matrices

TARGETS = {"warm_s": 8.0, "ten_classes_s": 120.0, "peak_gib": 6.0}
TOLERANCE, OF_TEN = 1e-4, 5e-3
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


def images(side: int, num_classes: int) -> MixtureLaw:
    """Classes of colour images: stationary textures under an envelope, three colours that are alike, variances up to a factor of 2.8."""
    rng, axis = np.random.default_rng(0), (np.arange(side) + 0.5) / side - 0.5
    fx, fy = np.meshgrid(*2 * (np.fft.fftfreq(side) * side,), indexing="ij")
    apart = (np.arange(side)[:, None] - np.arange(side)) % side
    covariances, centroids = [], []
    for c in range(num_classes):
        angle = np.pi * c / num_classes
        along, across = np.cos(angle) * fx + np.sin(angle) * fy, np.cos(angle) * fy - np.sin(angle) * fx
        correlation = np.fft.ifft2((1 + 1.5 * along**2 + across**2 / 1.5) ** -1.25).real
        texture = correlation[apart[:, None, :, None], apart[None, :, None, :]].reshape(side**2, side**2)
        widths, middle = rng.uniform(0.15, 0.4, 2), rng.uniform(-0.1, 0.1, 2)
        envelope = np.outer(*(np.exp(-(((axis - m) / w) ** 2) / 2) for m, w in zip(middle, widths, strict=True))).ravel()
        colour = rng.uniform(0.5, 1, 3)
        whole = np.kron(0.85 * np.outer(colour, colour) + 0.1 * np.eye(3), envelope[:, None] * texture * envelope)
        covariances.append(whole * (0.3 * 1.12 ** (c - num_classes / 2) * len(whole) / np.trace(whole)))
        centroids.append(0.8 * np.kron(colour, envelope))
    return MixtureLaw.from_covariances(np.full(num_classes, 1 / num_classes), np.stack(covariances), np.stack(centroids))


def once(law: Callable[[], MixtureLaw], draws: float, tolerance: float, calls: int) -> dict[str, Any]:
    """Seconds of the law and of each call for curves, and peak memory, in this process."""
    start = time.perf_counter()
    made = law()
    law_s = time.perf_counter() - start
    problem = Problem(made, "tanh", t=0.1, psi_p=4, psi_n=3, noise_draws=draws)  # type: ignore[arg-type]
    seconds, cores = list[float](), list[int]()

    def counted(near: Equivalent, start: Equivalent, core: Matrices, *outside: Any) -> dense.Dense:
        cores.append(core.core.shape[1])
        return with_core(near, start, core, *outside)

    with mock.patch.object(dense, "with_core", counted):
        for _ in range(calls):
            cores.clear()
            start = time.perf_counter()
            curves = theory.learning_curves(problem, TAUS, tolerance=tolerance)
            seconds.append(time.perf_counter() - start)
    return {
        "d": made.dimension,
        "num_classes": made.num_classes,
        "noise_draws": "inf" if math.isinf(draws) else draws,
        "tolerance": tolerance,
        "law_s": law_s,
        "seconds": seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "error_estimate": curves.error_estimate,
        "directions_of_the_cores": cores,
        "test_loss_at_the_end": curves.test_loss[-1].tolist(),
    }


def case(name: str, small: bool) -> dict[str, Any]:
    """One case in this process."""
    if name == "ten_classes":
        return once(lambda: images(*((4, 5) if small else (32, 10))), math.inf, OF_TEN, calls=1)
    return once(lambda: image_like(40 if small else 784), float(name.rpartition("_")[2]), TOLERANCE, calls=2)


def run(small: bool) -> dict[str, Any]:
    """All cases, each in a fresh process; compilation is in the seconds of the first call."""
    cases, seconds = {}, {}
    for name in ("curves_draws_inf", "curves_draws_3", "ten_classes"):
        command = [sys.executable, __file__, "--once", name, *(["--smoke"] if small else [])]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for kind, time_s in zip((name, f"{name}_warm"), found.pop("seconds"), strict=False):
            seconds[kind] = {"best_s": time_s, "median_s": time_s, "worst_s": time_s, "repeats": 1}
        cases[name] = found
    return {"seconds": seconds, "targets": TARGETS, "cases": cases}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small and fast, nothing written")
    parser.add_argument("--once", metavar="CASE", help="one case in this process, printed as one line")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(case(arguments.once, arguments.smoke)))
    elif arguments.smoke:
        print(json.dumps(run(small=True), indent=2))
    else:
        harness.write("covariances", run(small=False))
