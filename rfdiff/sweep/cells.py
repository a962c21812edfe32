"""Cells of a sweep: one problem by one solver at one dimension for some seeds; what its result depends on, its hash, its computation."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping

import jax
import numpy as np

from rfdiff import simulation, theory
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.files.provenance import computing_versions
from rfdiff.problem import Problem
from rfdiff.rules import Ridge, rule_numbers, rule_of
from rfdiff.sweep.specification import THEORY, Sweep

LAYOUT = 1  # raised when the same cell gives other numbers, or its file another layout
THEORY_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything that the result of a cell depends on beside versions, as plain data that any process can be sent; None where it does not.

    Args:
        problem: the problem as TOML.
        solver: what computes it.
        d: dimension.
        seeds: replicas.
        taus: training times, or None for `points` chosen by the theory (or none with ridge).
        points: number of chosen times.
        rule: name of the training rule.
        rule_numbers: its numbers by name.
        dtype: floating type.
        tolerance: numerical error of the theory or of Krylov spaces, as the solver is.
        random_seed: number from which the networks are drawn.
    """

    problem: str
    solver: str
    d: int | None
    seeds: tuple[int, ...]
    taus: tuple[float, ...] | None
    points: int | None
    rule: str
    rule_numbers: tuple[tuple[str, float | list[float]], ...]
    dtype: str | None
    tolerance: float | None
    random_seed: int | None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell at its place in the sweep.

    Args:
        name: the hash of what its result depends on; its file is NAME.nc.
        index: number of its problem.
        task: what to compute.
    """

    name: str
    index: int
    task: Task

    @property
    def text(self) -> str:
        """Its place in a few words, beside the point on the axes."""
        seeds = self.task.seeds
        networks = f", d = {self.task.d}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
        return f"{self.task.solver}{networks}"


def versions() -> dict[str, str]:
    """Versions that a cell's numbers depend on, as this process has them."""
    return {"layout": str(LAYOUT), **computing_versions()}


def cells_of(sweep: Sweep, of: Mapping[str, str]) -> list[Cell]:
    """All cells of a sweep, closed forms first.

    Args:
        sweep: the sweep.
        of: versions that the hashes are made with, `versions()` or those of a manifest.
    """
    groups = [tuple(range(s, min(s + sweep.seeds_per_cell, sweep.seeds))) for s in range(0, sweep.seeds, sweep.seeds_per_cell)]
    texts = [problem.to_toml() for problem in sweep.problems]
    closed = Task(
        problem="",
        solver=THEORY,
        d=None,
        seeds=(),
        taus=sweep.taus,
        points=sweep.points if sweep.taus is None and sweep.rule_name != Ridge.name else None,
        rule=sweep.rule_name,
        rule_numbers=tuple(rule_numbers(sweep.rule).items()),
        dtype=None,
        tolerance=THEORY_TOLERANCE if sweep.tolerance is None else sweep.tolerance,
        random_seed=None,
    )
    tasks: list[tuple[int, Task]] = []
    if THEORY in sweep.solvers:
        tasks += [(i, dataclasses.replace(closed, problem=text)) for i, text in enumerate(texts)]
    for solver in sweep.networks:
        tolerance = None if solver == "exact" else sweep.krylov_tolerance
        drawn = dataclasses.replace(closed, solver=solver, dtype=sweep.dtype, tolerance=tolerance, random_seed=sweep.random_seed)
        for d in sweep.dimensions:
            for i, text in enumerate(texts):
                tasks += [(i, dataclasses.replace(drawn, problem=text, d=d, seeds=group)) for group in groups]
    return [Cell(cell_name(task, of), i, task) for i, task in tasks]


def cell_name(task: Task, of: Mapping[str, str]) -> str:
    """Hash of a task and of versions, over their sorted canonical form: 32 hexadecimal digits of SHA-256."""
    text = json.dumps({"task": dataclasses.asdict(task), "versions": dict(of)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def problem_of(task: Task) -> Problem:
    """The problem of a task."""
    return Problem.from_text(task.problem)


def compute(task: Task) -> LearningCurves:
    """The curves of a cell.

    Replica r of a random seed is the same network in every cell of its dimension, whatever the solver; networks of different dimensions
    are drawn independently (from fold_in(key(random_seed), d)).

    Raises:
        InputError: what theory or simulation refuse; or curves that are not finite.
    """
    problem = problem_of(task)
    rule = rule_of(task.rule, **dict(task.rule_numbers))
    taus = task.taus if task.points is None else theory.time_grid(problem, num_times=task.points)
    if task.d is None or task.random_seed is None:
        curves = theory.learning_curves(problem, taus, rule=rule, tolerance=task.tolerance or THEORY_TOLERANCE)
    else:
        key = jax.random.fold_in(jax.random.key(task.random_seed), task.d)
        batch = simulation.run_seeds(
            problem,
            taus,
            d=task.d,
            key=key,
            seeds=task.seeds,
            rule=rule,
            dtype=task.dtype,
            solver=task.solver,
            krylov_tolerance=task.tolerance,
        )
        curves = simulation.summarize([batch])
    check_finite(curves, problem)
    return curves


def check_finite(curves: LearningCurves, problem: Problem) -> None:
    """Refuse curves that are not numbers (except at τ = ∞ where p = n m, where the limit diverges).

    Raises:
        InputError: naming the first training time at which a loss is not finite.
    """
    taus = np.asarray(curves.taus)
    diverges = np.isinf(taus) & (float(problem.psi_p) == problem.columns_per_dimension)
    lost = ~diverges & ~np.isfinite(np.stack([curves.train_loss, curves.test_loss])).all(axis=(0, 2))
    if lost.any():
        estimate = float(curves.error_estimate)
        reason = "" if math.isnan(estimate) else f" (error estimate {estimate:g})"
        raise InputError(f"losses: not finite from tau = {taus[lost][0]:g} on, at {lost.sum()} of {taus.size} training times{reason}")
