"""Class-wise times of one problem, closed form and simulated, as cells of an experiment: what experiments 1 to 4 measure.

A problem is written as plain data (`isotropic`, `subspaces`), so that a cell can be kept and found again. Readings are the rows of
`rfdiff.report.readings`: `ROWS`; the errors are standard errors over seeds.
"""

from typing import Any

import jax
import numpy as np

from rfdiff import LearningCurves, MixtureLaw, Problem, simulation, theory
from rfdiff.report import TIME_NAMES, readings

ROWS = (*TIME_NAMES, "best_test_loss")
GEN, STOP, MEM, OPT = range(4)
LABELS = {"tau_gen": r"$\tau_{\rm gen}$", "tau_stop": r"$\tau_{\rm stop}$", "tau_mem": r"$\tau_{\rm mem}$", "tau_opt": r"$\tau_{\rm opt}$"}
SETTING = {"activation": "tanh", "t": 0.1, "psi_p": 8.0, "psi_n": 4.0}
POINTS = 60  # finite training times; theory and simulation are read on the same grid


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
    return Problem(MixtureLaw(**cell["law"]), cell["activation"], t=cell["t"], psi_p=cell["psi_p"], psi_n=cell["psi_n"])


def closed_form(cell: dict[str, Any]) -> LearningCurves:
    """Curves of the closed form on `POINTS` training times."""
    problem = problem_of(cell)
    return theory.learning_curves(problem, theory.time_grid(problem, POINTS))


def networks(cell: dict[str, Any]) -> LearningCurves:
    """Curves of real networks on the same training times; the cell holds `d` and `seeds`."""
    problem = problem_of(cell)
    return simulation.learning_curves(problem, theory.time_grid(problem, POINTS), cell["d"], jax.random.key(0), cell["seeds"])


def predicted(cell: dict[str, Any]) -> dict[str, Any]:
    """Readings (5, K) of the closed form; τ_opt at the cell's q (0.5)."""
    return {"value": readings(closed_form(cell), cell.get("q", 0.5))[0]}


def simulated(cell: dict[str, Any]) -> dict[str, Any]:
    """Readings (5, K) of the networks, with their standard errors over seeds."""
    value, error = readings(networks(cell), cell.get("q", 0.5))
    return {"value": value, "error": error}


def log_ratio(values: np.ndarray, one: int = 0, other: int = 1) -> np.ndarray:
    """log(τ_one/τ_other): ±inf where one of them is never reached, NaN where neither is or one does not exist."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(values[..., one]) - np.log(values[..., other])


def log_ratio_error(values: np.ndarray, errors: np.ndarray, one: int = 0, other: int = 1) -> np.ndarray:
    """Standard error of `log_ratio`, the classes taken as independent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.hypot(errors[..., one] / values[..., one], errors[..., other] / values[..., other])
