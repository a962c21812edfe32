"""Does the verdict of a comparison hold its level, and what does it notice? (targets: 1 % ± 0.5 % false alarms; at 10 seeds 5.5 allowed)

Real networks against their own limit: a pool of many networks at d and at d/2 gives the limit that two sizes extrapolate to, disjoint
groups of the pool's seeds are compared with it as `assess` compares networks with theory, and every disagreement is a false alarm. "band"
counts deviations beyond the threshold in standard errors; "verdict" what `assess` says, which also allows for terms of second order in 1/d
that this limit does not have. The groups are drawn again and again from the pool, so that counts are a little more certain than their
binomial errors say for few comparisons, and no better than the pool is for very many.

Power: the smallest error of the theory that `rfdiff compare experiments/problem.toml` notices, beside that with Bonferroni's threshold.
Run: python benchmarks/verdict.py [--smoke]. With --smoke pools of 60 networks, nothing written.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import harness
import jax
import numpy as np
from scipy.stats import t as student

from rfdiff import LearningCurves, Problem, assess, simulation, theory
from rfdiff.agreement import FALSE_ALARM

TARGETS = {"false_alarm": [0.005, 0.015], "threshold_at_10_seeds": 5.5, "gain": 1.3}
DEMO = Problem.from_toml(Path(__file__).parents[1] / "experiments" / "problem.toml")
POOLS = {  # problem, dimension, networks in the pool at each of the two sizes
    "noise averaged exactly, d = 16": (DEMO, 16, 2000),
    "two noise draws, d = 16": (dataclasses.replace(DEMO, noise_draws=2), 16, 2000),
    "noise averaged exactly, d = 64": (DEMO, 64, 900),
}
SEEDS = (6, 10, 30)
NAMES = ("train_loss", "test_loss", "score_error")


def group_of(pool: LearningCurves, members: np.ndarray) -> LearningCurves:
    """Curves of some seeds of a pool, as if they had been simulated alone."""
    assert pool.per_seed is not None and pool.untrained_loss is not None
    seeds = {name: pool.per_seed[name][members] for name in NAMES}
    means = {name: values.mean(axis=0) for name, values in seeds.items()}
    errors = {f"{name}_stderr": values.std(axis=0, ddof=1) / np.sqrt(len(members)) for name, values in seeds.items()}
    untrained = pool.untrained_loss[members]
    return dataclasses.replace(pool, **means, **errors, per_seed=seeds, untrained_loss=untrained, spectrum=None)


def limit_of(large: LearningCurves, small: LearningCurves) -> LearningCurves:
    """What two sizes extrapolate to, in the place of a prediction: their finite-size term of first order taken away."""
    assert large.dimension is not None and small.dimension is not None
    k = small.dimension / (large.dimension - small.dimension)
    limits = {name: (1 + k) * getattr(large, name) - k * getattr(small, name) for name in NAMES}
    if large.untrained_loss is not None and small.untrained_loss is not None:  # known to be 1 on average: less noise in the limit
        excess = (1 + k) * (large.untrained_loss.mean(axis=0) - 1) - k * (small.untrained_loss.mean(axis=0) - 1)
        limits["train_loss"] = limits["train_loss"] / (1 + excess)
    return dataclasses.replace(
        large, **limits, per_seed=None, spectrum=None, untrained_loss=None, source="theory", dimension=None, error_estimate=0.0
    )


def levels(problem: Problem, d: int, networks: int, comparisons: int) -> dict[str, Any]:
    """Shares of false alarms and thresholds, for each number of seeds."""
    taus = theory.time_grid(problem, num_times=80)
    large, small = (simulation.learning_curves(problem, taus, d=size, key=jax.random.key(size), num_seeds=networks) for size in (d, d // 2))
    limit, draws, found = limit_of(large, small), np.random.default_rng(0), {}
    for seeds in SEEDS:
        band, verdict, thresholds = [], [], []
        while len(band) < comparisons:
            orders = [draws.permutation(networks) for _ in range(2)]
            for start in range(0, networks - seeds + 1, seeds):
                chosen = slice(start, start + seeds)
                result = assess(limit, group_of(large, orders[0][chosen]), group_of(small, orders[1][chosen]))
                rest = {name: abs(result.deviation[name] - result.allowance[name]) / result.stderr[name] for name in result.deviation}
                band.append(max(float(np.nanmax(values)) for values in rest.values()) > result.threshold)
                verdict.append(result.verdict == "disagree")
                thresholds.append(result.threshold)
        error = np.sqrt(FALSE_ALARM * (1 - FALSE_ALARM) / len(band))
        low, high = np.percentile(thresholds, [5, 95])
        found[f"{seeds} seeds"] = {
            "comparisons": len(band), "false_alarms_band": float(np.mean(band)), "false_alarms_verdict": float(np.mean(verdict)),
            "binomial_error": float(error), "threshold": float(np.mean(thresholds)), "threshold_5_to_95_percent": [float(low), float(high)],
        }  # fmt: skip
    return {"d": d, "networks": networks, "entries": int(np.isfinite(limit.test_loss).sum() * 2), **found}


def power(d: int, seeds: int) -> dict[str, Any]:
    """Smallest error noticed on the demo, now and with Bonferroni's threshold at the same standard errors; and the seconds of a verdict."""
    taus = theory.time_grid(DEMO, num_times=80)
    keys = jax.random.split(jax.random.key(0))  # as `rfdiff compare`
    sides = [simulation.learning_curves(DEMO, taus, d=size, key=key, num_seeds=seeds) for size, key in zip((d, d // 2), keys, strict=True)]
    result = assess(theory.learning_curves(DEMO, taus), *sides)
    entries = sum(int(np.isfinite(values).sum()) for values in result.standardised.values())
    before = float(student.isf(FALSE_ALARM / (2 * entries), seeds - 1))
    with_bonferroni = dataclasses.replace(result, threshold=before).resolution
    now, then = (max(float(np.max(values)) for values in each.values()) for each in (result.resolution, with_bonferroni))
    seconds = {"assess": harness.measure(lambda: assess(result.theory, result.simulation, result.smaller).threshold)}
    figures = {
        "d": d, "seeds": seeds, "verdict": result.verdict, "threshold": result.threshold, "noticed": now,
        "bonferroni_threshold": before, "bonferroni_noticed": then, "gain": then / now,
    }  # fmt: skip
    return {"power": figures, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small pools, nothing written")
    if parser.parse_args().smoke:
        pools = {"smoke": levels(DEMO, 16, networks=60, comparisons=10)}
        print(json.dumps({"targets": TARGETS, "pools": pools, **power(32, 4)}, indent=2))
    else:
        pools = {name: levels(*case, comparisons=1500) for name, case in POOLS.items()}
        harness.write("verdict", {"targets": TARGETS, "pools": pools, **power(100, 10)})
