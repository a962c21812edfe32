"""Do weights of the classes in the loss cost time? (target: weighted curves at most 1.05 times those without)

Case A: train and test losses and score errors of both classes at 200 training times to a tolerance of 1e-6, with weights 0.72 and 0.28 in
the loss at fractions 0.7 and 0.3, over those without, in turns. These weights take as many contours and neuron types as none do. With
`others`, 0.4 and 0.6, the averages over neurons converge more slowly: two levels of neuron types leave an error of 1.6e-6, so the second
and the third are taken, where without weights the first and the second do. `levels` says how many contours were evaluated. Wall time is
measured, and processor time, which other processes disturb less; ratios are those of medians, since the speed of a virtual machine's
cores changes from one second to the next.
Run: python benchmarks/weights.py [--smoke]. With --smoke few repeats are made and nothing is written.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import harness
import numpy as np
from theory import TAUS, case_a

from rfdiff import theory
from rfdiff.theory import contour_ladder

TARGET = 1.05
WEIGHTED = dataclasses.replace(case_a(), loss_weights=np.array([0.72, 0.28]))
OTHERS = dataclasses.replace(case_a(), loss_weights=np.array([0.4, 0.6]))


def contours(call: Callable[[], Any]) -> int:
    """Number of contours that a call evaluates."""
    with mock.patch.object(contour_ladder, "lay", wraps=contour_ladder.lay) as laid:
        call()
    return laid.call_count


def run(repeats: int) -> dict[str, Any]:
    """All times, their ratios, and the contours behind them."""
    problems = {"plain": case_a(), "weighted": WEIGHTED, "others": OTHERS}
    calls = {name: functools.partial(theory.learning_curves, problem, TAUS) for name, problem in problems.items()}
    seconds = harness.measure_together(calls, repeats)
    processor = processor_seconds(calls, repeats)
    levels = {name: contours(call) for name, call in calls.items()}
    result: dict[str, Any] = {"seconds": seconds, "processor_seconds": processor, "levels": levels, "target": TARGET}
    for key, times, of in (("ratio", seconds, "median_s"), ("best_ratio", seconds, "best_s"), ("processor_ratio", processor, "median_s")):
        result[key], result[f"{key}_of_others"] = (times[name][of] / times["plain"][of] for name in ("weighted", "others"))
    return result


def processor_seconds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Best and median processor time of each call, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    return {name: {"best_s": min(times), "median_s": statistics.median(times)} for name, times in taken.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few repeats, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(repeats=1), indent=2))
    else:
        harness.write("weights", run(repeats=60))
