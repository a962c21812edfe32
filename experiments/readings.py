"""Class-wise times of one problem, closed form and simulated, as cells of an experiment: what experiments 1 to 5 measure.

A problem is written as plain data (`isotropic`, `subspaces`), so that a cell can be kept and found again. Networks stand at d and at d/2,
which `experiments.limits` takes to the limit of the theory. Readings are taken from the mean curves, and again with each network left
out, for errors.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rfdiff import GradientFlow, LearningCurves, MixtureLaw, Problem, simulation, theory, times

CURVES = ("train_loss", "test_loss", "score_error")
TIMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")
ROWS = (*TIMES, "tau_gap", "best_test_loss")
GEN, STOP, MEM, OPT, GAP = range(5)
LABELS = {
    "tau_gen": r"$\tau_{\rm gen}$",
    "tau_stop": r"$\tau_{\rm stop}$",
    "tau_mem": r"$\tau_{\rm mem}$",
    "tau_opt": r"$\tau_{\rm opt}$",
    "tau_gap": r"$\tau_{\rm gap}$",
}
SETTING = {"activation": "tanh", "t": 0.1, "psi_p": 8.0, "psi_n": 4.0}
POINTS = 60  # finite training times; theory and simulation are read on the same grid
FLOW = GradientFlow()
SMALL = 2  # networks at d/2 for one at d: they are cheap


def isotropic(weights: list[float], variances: list[float], gram: list[list[float]] | None = None, **setting: Any) -> dict[str, Any]:
    """Isotropic classes, as plain data."""
    k = len(weights)
    zeros = [[0.0] * k for _ in range(k)]
    law = {"weights": weights, "eigenvalues": [variances], "eigenvalue_weights": [1.0], "centroid_gram": gram or zeros}
    return {**SETTING, **setting, "law": law}


def subspaces(weights: list[float], variances: list[float], **setting: Any) -> dict[str, Any]:
    """Centred classes that vary each in directions of their own: d/K directions of variance K σ_c² for class c and none for the others.

    The mean variance per direction is σ_c², as in the isotropic case; the whole data vary by K π_c σ_c² along class c's directions.
    """
    k = len(weights)
    eigenvalues = [[k * variances[c] if c == group else 0.0 for c in range(k)] for group in range(k)]
    law = {"weights": weights, "eigenvalues": eigenvalues, "eigenvalue_weights": [1 / k] * k, "centroid_gram": [[0.0] * k] * k}
    return {**SETTING, **setting, "law": law}


def problem_of(cell: dict[str, Any]) -> Problem:
    """The problem that plain data describe."""
    numbers = {name: cell[name] for name in ("t", "psi_p", "psi_n")}
    return Problem(MixtureLaw(**cell["law"]), cell["activation"], **numbers, loss_weights=cell.get("loss_weights"))


def closed_form(cell: dict[str, Any]) -> LearningCurves:
    """Curves of the closed form on `POINTS` training times."""
    problem = problem_of(cell)
    return theory.learning_curves(problem, theory.time_grid(problem, num_times=POINTS))


def two_sizes(cell: dict[str, Any], read: Callable[[LearningCurves], np.ndarray], taus: Any = None, rule: Any = FLOW) -> dict[str, Any]:
    """A reading of the mean curves of `seeds` networks at dimension `d` ("large"), and of `SMALL` times as many at d // 2 ("small").

    Beside each, `..._left_out` (S, ...): the reading of the mean curves without each of the networks in turn. Training times: `taus`, those
    of `closed_form` if None. Training rule: `rule`.
    """
    problem = problem_of(cell)
    taus = theory.time_grid(problem, num_times=POINTS) if taus is None else taus
    found = {}
    for side, d, seeds in (("large", cell["d"], cell["seeds"]), ("small", cell["d"] // 2, SMALL * cell["seeds"])):
        curves = simulation.learning_curves(problem, taus, d=d, key=jax.random.key(d), num_seeds=seeds, rule=rule)
        found[side] = read(curves)
        found[f"{side}_left_out"] = np.stack([read(mean_without(curves, s)) for s in range(seeds)])
    return found


def mean_without(curves: LearningCurves, left_out: int) -> LearningCurves:
    """Mean curves of an ensemble without one of its networks."""
    runs = curves.per_seed or {}
    keep = np.arange(len(runs["test_loss"])) != left_out
    return dataclasses.replace(curves, **{name: np.asarray(runs[name])[keep].mean(axis=0) for name in CURVES})


def readings(curves: LearningCurves, q: float = 0.5) -> np.ndarray:
    """(6, K) `ROWS`: the times of `rfdiff.times` with τ_opt(q), τ_gap, and the lowest test loss.

    τ_gap measures every class with one rule: the gap between its test and train loss reaches half of the smallest final gap of any class.
    """
    found = times(curves, q=q)
    rows = [np.asarray(getattr(found, name), np.float64) for name in TIMES]
    return np.stack([*rows, gap_times(curves), np.asarray(curves.test_loss, np.float64).min(axis=0)])


def times_with_errors(curves: LearningCurves) -> tuple[np.ndarray, np.ndarray]:
    """(4, K) `TIMES` of the mean curves, and their standard errors over networks; NaN where a network has no such time."""

    def read(one: LearningCurves) -> np.ndarray:
        found = times(one)
        return np.stack([np.asarray(getattr(found, name), np.float64) for name in TIMES])

    runs = curves.per_seed or {}
    each = [read(dataclasses.replace(curves, **{name: runs[name][s] for name in CURVES})) for s in range(len(runs.get("test_loss", ())))]
    if len(each) < 2:
        return read(curves), np.full((len(TIMES), curves.num_classes), np.nan)
    known = np.isfinite(each).all(axis=0)
    spread = np.std(np.where(known, each, 0.0), axis=0, ddof=1) / np.sqrt(len(each))
    return read(curves), np.where(known, spread, np.nan)


def gap_times(curves: LearningCurves) -> np.ndarray:
    """(K,) first τ at which the gap of the class is half of the smallest final gap of all classes; linear in log τ between grid points.

    NaN where the gap of a class does not open, or the level lies before the grid.
    """
    taus, gap = np.asarray(curves.taus), np.asarray(curves.test_loss) - np.asarray(curves.train_loss)
    level = gap[-1].min() / 2
    with np.errstate(divide="ignore"):
        logs = np.log(taus)
    if not level > max(0.0, float(gap[0].max())):
        return np.full(gap.shape[1], np.nan)
    places = [int(np.argmax(gap[:, c] >= level)) for c in range(gap.shape[1])]
    shares = [(level - gap[i - 1, c]) / (gap[i, c] - gap[i - 1, c]) for c, i in enumerate(places)]
    return np.array([np.exp(logs[i - 1] + share * (logs[i] - logs[i - 1])) for i, share in zip(places, shares, strict=True)])


def predicted(cell: dict[str, Any]) -> dict[str, Any]:
    """Readings (6, K) of the closed form; τ_opt at the cell's q (0.5)."""
    return {"value": readings(closed_form(cell), cell.get("q", 0.5))}


def simulated(cell: dict[str, Any]) -> dict[str, Any]:
    """Readings (6, K) of networks at two sizes; τ_opt at the cell's q (0.5)."""
    return two_sizes(cell, lambda curves: readings(curves, cell.get("q", 0.5)))


def log_ratio(values: np.ndarray, one: int = 0, other: int = -1) -> np.ndarray:
    """log(τ_one/τ_other): ±inf where one of them is never reached, NaN where neither is or one does not exist."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(values[..., one]) - np.log(values[..., other])
