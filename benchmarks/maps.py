"""Are maps of times, many classes with centroids, and derivatives of times affordable? (targets: maps in 12 and 60 s of processor, ten
classes to 1e-4 in 6 s)

Map: τ_gen, τ_stop, τ_mem and τ_opt of two classes over 64 × 64 variance ratios and class fractions, centred and with centroids (case A);
cold in a process that has compiled nothing, then warm at other numbers, which must not compile anything; seconds of the clock and of the
processor. Ten classes: isotropic, with centroids of full rank, both
losses at 60 training times. Sensitivity: every d log τ_c / d log θ of two classes with centroids (case A).
Run: python benchmarks/maps.py [--smoke]. With --smoke the map has 3 × 3 cells, the classes are 4, and nothing is written.
"""

import argparse
import json
import time
from typing import Any

import harness
import numpy as np

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.theory import map_program

TARGETS = {"map_warm_processor_s": 12.0, "map_centroids_warm_processor_s": 60.0, "many_classes_warm_s": 6.0}
TAUS = np.geomspace(0.1, 1e5, 60)


def many_classes(k: int) -> Problem:
    """Isotropic classes of unlike variances, with centroids in general position and as many directions as classes."""
    arms = np.random.default_rng(0).standard_normal((k, k + 2)) / 3
    law = MixtureLaw.isotropic(np.full(k, 1 / k), np.linspace(0.5, 1.5, k), arms @ arms.T)
    return Problem(law, "tanh", t=0.1, psi_p=4, psi_n=3)


def case_a() -> Problem:
    """Two classes with centroids."""
    return Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]]), "tanh", t=0.1, psi_p=4, psi_n=3)


def map_of(problem: Problem, cells: int, shift: float, reports: list[int]) -> theory.PhaseMap:
    """Times over variance ratios from 1/10 to 10 and class fractions from 5 to 95 %, slightly shifted."""
    axes = {"variance_ratio": np.geomspace(0.1, 10, cells) * (1 + shift), "weight_0": np.linspace(0.05, 0.95, cells) + shift}
    return theory.phase_map(problem, axes, progress=lambda done, total: reports.append(done))


def measure_map(problem: Problem, cells: int, repeats: int) -> dict[str, Any]:
    """A map at slightly different numbers every time: only what is compiled may be kept."""
    found: list[theory.PhaseMap] = []
    compiled: list[int] = []
    reports: list[int] = []
    processor: list[float] = []
    shifts = iter(1e-3 * np.arange(repeats + 1))

    def one_map() -> None:
        before = time.process_time()
        found.append(map_of(problem, cells, float(next(shifts)), reports))
        processor.append(time.process_time() - before)
        compiled.append(map_program.forms._cache_size())

    seconds, warm = harness.measure(one_map, repeats), processor[1:]
    return {
        "seconds": seconds,
        "processor_s": {"first_s": processor[0], "best_s": min(warm), "median_s": float(np.median(warm)), "worst_s": max(warm)},
        "cells": cells**2,
        "failed": max(int((~each.converged).sum()) for each in found),
        "worst_error_of_the_others": max(float(each.error_estimate[each.converged].max()) for each in found),
        "programs_compiled_when_warm": compiled[-1] - compiled[0],
        "progress_reports": len(reports) // len(found),
    }


def run(cells: int, k: int, tolerance: float, repeats: int) -> dict[str, Any]:
    """Times of the three questions, first and warm, with the errors that came with them."""
    centred = Problem(MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0]), "tanh", t=0.1, psi_p=8, psi_n=4)
    map_, centroids = measure_map(centred, cells, repeats), measure_map(case_a(), cells, repeats)
    seconds = {
        "map": map_.pop("seconds"),
        "map_centroids": centroids.pop("seconds"),
        "many_classes": harness.measure(lambda: theory.learning_curves(many_classes(k), TAUS, tolerance=tolerance), repeats),
        "sensitivity": harness.measure(lambda: theory.sensitivity(case_a()), repeats),
    }
    return {
        "seconds": seconds,
        "targets_s": TARGETS,
        "map": map_,
        "map_centroids": centroids,
        "many_classes": {
            "classes": k,
            "tolerance": tolerance,
            "error_estimate": theory.learning_curves(many_classes(k), TAUS, tolerance=tolerance).error_estimate,
        },
        "sensitivity_error_estimate": theory.sensitivity(case_a()).error_estimate,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few cells and classes, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(cells=3, k=4, tolerance=3e-2, repeats=1), indent=2))
    else:
        harness.write("maps", run(cells=64, k=10, tolerance=1e-4, repeats=3))
