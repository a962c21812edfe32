"""Do weights of the classes in the loss cost time? (target: weighted curves at most 1.05 times those without)

Case A: train and test losses and score errors of both classes at 200 training times to a tolerance of 1e-6, with weights 0.72 and 0.28 in
the loss at fractions 0.7 and 0.3, over those without, in turns. These weights take as many contour nodes and neuron types as none do;
`others`, 0.4 and 0.6, need a level more for the tolerance, as any problem may. `levels` says how many contours were evaluated.
Run: python benchmarks/weights.py [--smoke]. With --smoke few repeats are made and nothing is written.
"""

import argparse
import dataclasses
import functools
import json
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
    ratios = {name: seconds[name]["best_s"] / seconds["plain"]["best_s"] for name in ("weighted", "others")}
    levels = {name: contours(call) for name, call in calls.items()}
    return {"seconds": seconds, "levels": levels, "ratio": ratios["weighted"], "ratio_of_others": ratios["others"], "target": TARGET}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few repeats, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(repeats=1), indent=2))
    else:
        harness.write("weights", run(repeats=25))
