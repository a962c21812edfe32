"""Cells of a map under any training rule, one after the other: what a compiled program of all of them has no filter for."""

from collections.abc import Mapping, MutableMapping

import jax
import numpy as np

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.class_times import times as times_of
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.progress import Progress
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.plans import curve_kernel, plan_curves
from rfdiff.theory.problem_times import covering_curves
from rfdiff.theory.training_times import limit_diverges, time_grid


def one_by_one(
    cells: list[Problem],
    rule: Rule,
    q: float,
    tolerance: float,
    progress: Progress | None,
    store: MutableMapping[str, Mapping[str, np.ndarray]],
) -> tuple[ClassTimes, np.ndarray, np.ndarray]:
    """Times (C, K), errors (C,) and convergence (C,) of all cells; cells of the store are not done again.

    A cell in which the rule is refused, such as one where its step diverges, has failed.

    Raises:
        InputError: the rule is refused in every cell; the reason of the first.
    """
    refusal: InputError | None = None
    for i, cell in enumerate(cells):
        name = f"cell-{i}"
        if name not in store:
            try:
                store[name] = {"cells": np.array([i]), **_times(cell, rule, q, tolerance)}
            except InputError as err:
                refusal = refusal or err
        if progress is not None:
            progress(i + 1, len(cells))
    unknown = {**dict.fromkeys(TIME_NAMES, np.full(cells[0].num_classes, np.nan)), "error": np.array(np.inf)}
    found = [store.get(f"cell-{i}", unknown) for i in range(len(cells))]
    if refusal is not None and all(cell is unknown for cell in found):
        raise refusal
    error = np.array([float(cell["error"]) for cell in found])
    converged = error <= tolerance
    values = (np.where(converged[:, None], np.stack([cell[name] for cell in found]), np.nan) for name in TIME_NAMES)
    return ClassTimes(*values, q=q), error, converged


def _times(cell: Problem, rule: Rule, q: float, tolerance: float) -> dict[str, np.ndarray]:
    if not cell.mixture.commuting and rule.equals(GradientFlow()):
        return _times_by_plan(cell, q, tolerance)
    curves = covering_curves(cell, (), rule=rule, tolerance=tolerance)[1]
    times = times_of(curves, q=q, loss_weights=np.asarray(cell.training_weights))
    return {**{name: np.asarray(getattr(times, name)) for name in TIME_NAMES}, "error": np.asarray(curves.error_estimate)}


_compiled_times = jax.jit(class_times, static_argnames="q")


def _times_by_plan(cell: Problem, q: float, tolerance: float) -> dict[str, np.ndarray]:
    taus = time_grid(cell) if limit_diverges(cell) else None
    plan = plan_curves(cell, taus, tolerance=tolerance, gram_derivatives=False)
    times = _compiled_times(curve_kernel(cell, plan), q=q)
    return {**{name: np.asarray(getattr(times, name)) for name in TIME_NAMES}, "error": np.asarray(plan.error_estimate)}
