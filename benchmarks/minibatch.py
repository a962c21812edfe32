"""Is the closed form of SGD worth having beside actual steps? (targets: curves in 5 s, 1,000 times faster than the steps)

Case A without centroids: two classes, tanh, averaged noise. Curves: train and test losses of both classes at 200 training times up to 10^6
steps of size 0.5 with batches of d pairs, to a tolerance of 1e-6. Steps: some thousand actual ones at d = 100 are timed after a warm-up
and extrapolated to 10^6, without the losses measured on the way, which the closed form has at all 200 times. Stability: the largest step,
the smallest batch and the excess loss.
Run: python benchmarks/minibatch.py [--smoke]. With --smoke few repeats are made and nothing is written.
"""

import argparse
import json
import time
from typing import Any

import harness
import jax
import numpy as np

from rfdiff import MinibatchSGD, MixtureLaw, Problem, simulation, theory

TARGETS = {"curves_warm_s": 5.0, "steps_over_curves": 1e3}
RULE, STEPS, D = MinibatchSGD(0.5, 1.0), 10**6, 100
TAUS = 0.5 * np.unique(np.rint(np.geomspace(1, STEPS, 231)))


def problem() -> Problem:
    """Case A without its centroids."""
    return Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4, psi_n=3)


def seconds_a_step(steps: int, repeats: int) -> dict[str, Any]:
    """Seconds of one step of a network: a longer training less a shorter one, so that drawing and measuring the network cancel."""

    def train(last: int) -> float:
        start = time.perf_counter()
        taus = [0.5 * last]
        simulation.learning_curves(problem(), taus, d=D, key=jax.random.key(0), num_seeds=1, rule=RULE, dtype="float32")
        return time.perf_counter() - start

    train(1)
    found = [(train(steps + 1) - train(1)) / steps for _ in range(repeats)]
    spread = {"best_s": min(found), "median_s": float(np.median(found)), "worst_s": max(found)}
    return {**spread, "steps": steps, "repeats": repeats, "d": D, "dtype": "float32"}


def run(repeats: int, steps: int) -> dict[str, Any]:
    """All timings, and the error that came with the curves."""
    assert len(TAUS) == 200 and TAUS[-1] == 0.5 * STEPS
    curves = harness.measure(lambda: theory.learning_curves(problem(), TAUS, rule=RULE), repeats)
    stability = harness.measure(lambda: theory.sgd_stability(problem(), rule=RULE).radius, repeats)
    step = seconds_a_step(steps, repeats)
    return {
        "seconds": {"curves_warm": curves, "stability_warm": stability, "step": step},
        "targets": TARGETS,
        "curves_error_estimate": theory.learning_curves(problem(), TAUS, rule=RULE).error_estimate,
        "extrapolated_steps_s": step["best_s"] * STEPS,
        "steps_over_curves": step["best_s"] * STEPS / curves["best_s"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few repeats, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(repeats=1, steps=50), indent=2))
    else:
        harness.write("minibatch", run(repeats=5, steps=3000))
