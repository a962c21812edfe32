"""Are curves by Krylov spaces faster than an eigendecomposition, and than the training in print? (targets: 5 times, 1,000 times)

The size in print: d = 100, p = 6400, n = 400, noise averaged exactly, of one Gaussian class as there, and of two classes of unlike variance
with centroids. Krylov spaces and the exact flow train the same networks at several p; the growth of the cost is the slope of log seconds
against log p. Plain gradient descent with fresh noise
every step is timed for 50 steps and multiplied up to 5,000,000: in PyTorch, where an interpreter that has it is named, and with optax.
Run: python benchmarks/krylov.py [--torch PYTHON] [--largest] [--smoke]. With --largest only two classes at p = 12,800, Krylov spaces three
times and the exact flow once with its compilation, written as krylov_largest. With --smoke the sizes are tiny and nothing is written.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from typing import Any

import harness
import jax
import numpy as np
import optax  # type: ignore[import-untyped]

from rfdiff import MixtureLaw, Problem, simulation
from rfdiff.simulation import SeedBatch

TARGETS = {"exact_over_krylov": 5.0, "steps_over_krylov": 1000.0}
SOLVERS = ("exact", "krylov")
TAUS = np.geomspace(0.1, 1e6, 80)
KEY = jax.random.key(0)
TOLERANCE = 1e-6  # of the losses
STEPS, IN_PRINT = 50, 5_000_000

TORCH = """
import json, sys, time, torch
p, n, d, steps = map(int, sys.argv[1:])
W, x, A = torch.randn(p, d), torch.randn(n, d), torch.zeros(d, p)
mean, std = 0.904837418, 0.425757  # of the noise at t = 0.1
def step(A):
    noise = torch.randn(n, d)
    features = torch.tanh((mean * x + std * noise) @ W.T / d**0.5)
    error = features @ A.T / p**0.5 + noise
    return A - 1e-3 * error.T @ features / (n * p**0.5)
for _ in range(5):
    A = step(A)
start = time.perf_counter()
for _ in range(steps):
    A = step(A)
seconds = (time.perf_counter() - start) / steps
print(json.dumps({"seconds_per_step": seconds, "version": torch.__version__, "threads": torch.get_num_threads()}))
"""


LAWS = {
    "one class": MixtureLaw.isotropic([1.0], [1.0]),
    "two classes": MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]]),
}


def problem(law: str, p: int, n: int, d: int) -> Problem:
    return Problem(LAWS[law], "tanh", t=0.1, psi_p=p / d, psi_n=n / d)  # type: ignore[arg-type]


def compared(law: str, p: int, n: int, d: int, repeats: int) -> dict[str, Any]:
    """Seconds of both solvers in turns, and how far apart their curves are."""
    question, found = problem(law, p, n, d), {}

    def solve(name: str) -> Any:
        found[name] = simulation.run_seeds(question, TAUS, d=d, key=KEY, seeds=[0], solver=name, krylov_tolerance=TOLERANCE)

    seconds = harness.measure_together({name: lambda name=name: solve(name) for name in SOLVERS}, repeats)
    one, other = found["exact"], found["krylov"]
    apart = max(float(np.max(abs(getattr(one, name) - getattr(other, name)))) for name in ("train_loss", "test_loss"))
    best = {name: seconds[name]["best_s"] for name in SOLVERS}
    return {
        "p": p,
        "seconds": seconds,
        "exact_over_krylov": best["exact"] / best["krylov"],
        "largest_difference": apart,
        "error_estimate": estimate(other),
    }


def largest(p: int, n: int, d: int) -> dict[str, Any]:
    """Krylov spaces three times and the exact flow once in between; its compilation is seconds of minutes, and counts."""
    question = problem("two classes", p, n, d)
    krylov, one, exact = timed(question, d, "krylov"), timed(question, d, "krylov"), timed(question, d, "exact")
    other = timed(question, d, "krylov")
    apart = max(float(np.max(abs(getattr(exact[1], name) - getattr(other[1], name)))) for name in ("train_loss", "test_loss"))
    warm = [one[0], other[0]]
    return {
        "shape": {"p": p, "n": n, "d": d, "times": len(TAUS), "dtype": "float64", "noise_draws": "inf", "tolerance": TOLERANCE},
        "law": "two classes",
        "seconds": {
            "krylov": harness.summary(krylov[0], warm),
            "exact": harness.summary(exact[0], [exact[0]]),
        },
        "exact_over_krylov": exact[0] / min(warm),
        "largest_difference": apart,
        "error_estimate": estimate(other[1]),
        "targets": TARGETS,
    }


def timed(question: Problem, d: int, solver: str) -> tuple[float, SeedBatch]:
    start = time.perf_counter()
    found = simulation.run_seeds(question, TAUS, d=d, key=KEY, seeds=[0], solver=solver, krylov_tolerance=TOLERANCE)  # type: ignore[arg-type]
    return time.perf_counter() - start, found


def estimate(batch: SeedBatch) -> float:
    return float(np.max(batch.error_estimate))  # type: ignore[arg-type]


def growth(cases: list[dict[str, Any]], solver: str) -> float:
    """Slope of log seconds (best) against log p."""
    points = np.log([[case["p"], case["seconds"][solver]["best_s"]] for case in cases])
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def optax_step(p: int, n: int, d: int) -> float:
    """Seconds of a plain gradient step, from the difference of two runs that share everything else."""
    question = problem("one class", p, n, d)

    def run(steps: int) -> None:
        simulation.descend(
            question,
            optimizer=optax.sgd(1e-3),
            num_steps=steps,
            d=d,
            key=KEY,
            noise="fresh",
            log_steps=[0, steps],
            step_size=1e-3,
            dtype="float32",
        )

    seconds = [harness.measure(lambda count=count: run(count), 2)["best_s"] for count in (STEPS, 3 * STEPS)]
    return (seconds[1] - seconds[0]) / (2 * STEPS)


def torch_step(interpreter: str, p: int, n: int, d: int) -> dict[str, Any]:
    """The same step in PyTorch, in float32, in a process of its own."""
    command = [interpreter, "-c", TORCH, *map(str, (p, n, d, STEPS))]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def run(sizes: list[int], n: int, d: int, repeats: int, interpreter: str | None) -> dict[str, Any]:
    cases = {law: [compared(law, p, n, d, repeats) for p in sizes] for law in LAWS}
    steps: dict[str, Any] = {"optax_float32_s": optax_step(sizes[-1], n, d)}
    if interpreter is not None:
        steps["pytorch"] = torch_step(interpreter, sizes[-1], n, d)
    reference = steps["pytorch"]["seconds_per_step"] if interpreter is not None else steps["optax_float32_s"]
    found = ("exact_over_krylov", "largest_difference", "error_estimate")
    return {
        "shape": {"n": n, "d": d, "times": len(TAUS), "dtype": "float64", "noise_draws": "inf", "tolerance": TOLERANCE},
        "seconds": {f"{law} {name} {case['p']}": case["seconds"][name] for law in LAWS for case in cases[law] for name in SOLVERS},
        "cases": {f"{law} {case['p']}": {name: case[name] for name in found} for law in LAWS for case in cases[law]},
        "growth_with_p": {f"{law} {name}": growth(cases[law], name) for law in LAWS for name in SOLVERS} if len(sizes) > 1 else {},
        "step": steps,
        "exact_over_krylov": {law: cases[law][-1]["exact_over_krylov"] for law in LAWS},
        "steps_over_krylov": {law: IN_PRINT * reference / cases[law][-1]["seconds"]["krylov"]["best_s"] for law in LAWS},
        "targets": TARGETS,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has PyTorch")
    parser.add_argument("--largest", action="store_true", help="only p = 12,800, written under its name")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    options = parser.parse_args()
    if options.smoke and options.largest:
        json.dump(largest(128, 32, 16), sys.stdout, indent=2)
    elif options.largest:
        harness.write("krylov_largest", largest(12800, 400, 100))
    elif options.smoke:
        found = run([64, 128], 32, 16, 1, options.torch)
        assert all(math.isfinite(ratio) for ratio in found["exact_over_krylov"].values())
        json.dump(found, sys.stdout, indent=2)
    else:
        harness.write("krylov", run([1600, 3200, 6400], 400, 100, 1, options.torch))
