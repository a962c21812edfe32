"""Are U-turns at d = 16,384 with 10,000 trajectories a matter of minutes on a CPU, all coordinates simulated?

Two isotropic classes, the minority of weight 1e-3 and narrower, exact score, one time near the speciation time, 5,000 trajectories of each
class in 96 steps of weak order 2: all d coordinates, and the exact reduction to the span of the centroids. Both are held against R_c in
closed form. Seconds of the processor stand beside the clock, which a busy machine stretches; compilation is included.
Run: python benchmarks/uturns.py [--smoke]. With --smoke d = 256, few trajectories, and nothing is written.
"""

import argparse
import json
import resource
import time
from typing import Any

import harness
import jax
import numpy as np

from rfdiff import GaussianMixture, MixtureLaw, backward

STEPS, ALLOWANCE = 96, 3e-3


def run(d: int, each: int, t: float) -> dict[str, Any]:
    """Reduced, then full; the peak of memory is that of the full one."""
    law = MixtureLaw.isotropic([0.999, 0.001], [1.0, 0.6], np.array([[1, -1], [-1, 1]]) / 16)
    mixture = GaussianMixture.from_law(law, d, jax.random.key(0))
    expected = backward.return_probability(law, t, d=d)
    cases, seconds = {}, {}
    for name in ("reduced", "full"):
        process = backward.BackwardProcess(mixture, full=name == "full", num_steps=STEPS)
        start, cpu = time.perf_counter(), time.process_time()
        found = backward.uturn(process, [t], key=jax.random.key(1), num_trajectories=each)
        took = time.perf_counter() - start
        seconds[name] = {**dict.fromkeys(("first_s", "best_s", "median_s", "worst_s"), took), "repeats": 1}
        cases[name] = {
            "processor_seconds": time.process_time() - cpu,
            "fraction": found.fraction[0].tolist(),
            "stderr": found.stderr[0].tolist(),
            "within_four_errors": bool(np.all(np.abs(found.fraction[0] - expected) < 4 * found.stderr[0] + ALLOWANCE)),
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shape = {"d": d, "trajectories": 2 * each, "steps": STEPS, "t": t}
    return {**shape, "closed_form": expected.tolist(), "peak_gib": peak, "seconds": seconds, "cases": cases}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small and fast, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(d=256, each=200, t=1.2), indent=2))
    else:
        harness.write("uturns", run(d=16_384, each=5000, t=2.8))
