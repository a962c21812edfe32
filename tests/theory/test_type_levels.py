"""Levels of neuron types are told apart on few nodes, and losses are computed on all of them once."""

from typing import Any

import numpy as np
import pytest

from rfdiff import theory
from rfdiff.problem import Problem
from rfdiff.theory import contour_losses, dynamics, type_levels
from rfdiff.theory.contour_ladder import OnContour
from rfdiff.theory.pair_traces import Traces
from tests.theory.curve_cases import TAUS, with_
from tests.tolerances import rejects


def test_a_change_by_a_level_counts_what_the_nodes_miss_of_it() -> None:
    """Losses that differ by 1e-5, on nodes of which half miss a part in 100."""
    losses = np.linspace(0.1, 1, 12).reshape(2, 3, 2)
    before, values = np.stack([losses, 1e-2 * losses]), np.stack([losses + 1e-5, 1e-2 * losses + 1e-7])
    assert type_levels.change_by_a_level(values, before) == pytest.approx(1e-5 + 1e-7 * 10 * 1e-2, rel=1e-6)
    assert type_levels.change_by_a_level(values, np.full_like(before, np.nan)) == np.inf


@pytest.mark.thorough
@pytest.mark.parametrize("weights", [None, [0.4, 0.6]])
def test_all_nodes_are_for_the_last_level(case_a: Problem, monkeypatch: pytest.MonkeyPatch, weights: list[float] | None) -> None:
    problem = case_a if weights is None else with_(case_a, loss_weights=weights)
    original, counted = contour_losses.pair_traces.traces, list[int]()

    def traces(eq: Any, z: np.ndarray, u: np.ndarray) -> Traces:
        counted.append(z.size)
        return original(eq, z, u)

    monkeypatch.setattr(contour_losses.pair_traces, "traces", traces)

    def once() -> None:
        counted.clear()
        curves = theory.learning_curves(problem, TAUS, tolerance=1e-6)
        assert counted.count(max(counted)) == 1 and counted[0] == max(counted) // 2
        exact = theory.learning_curves(problem, TAUS, tolerance=1e-9)
        change = max(float(np.max(abs(getattr(curves, name) - getattr(exact, name)))) for name in ("train_loss", "test_loss"))
        assert change <= curves.error_estimate + exact.error_estimate and curves.error_estimate <= 1e-6

    once()
    monkeypatch.setattr(contour_losses, "COARSER", 0)
    rejects(once)


@pytest.mark.parametrize(("error", "residual"), [(1e-3, 0.0), (0.0, 1.0), (7e-7, 0.0)])
def test_a_contour_that_does_not_get_there_is_given_up(
    case_a: Problem, monkeypatch: pytest.MonkeyPatch, error: float, residual: float
) -> None:
    """What its nodes leave is told, as inf where the fixed point is not solved, after levels are chosen twice at most."""
    chosen, taus = list[float](), np.array([1.0, 10.0])

    def level(*arguments: Any) -> tuple[int, float]:
        chosen.append(arguments[5])
        return 1, 9e-7

    def evaluate(eq: Any, question: Any, laid: Any) -> OnContour:
        return OnContour(losses=np.full((2, question.taus.size, 2), 0.5), error=error, missing=0.0, residual=residual)

    monkeypatch.setattr(dynamics, "level_of_types", level)
    monkeypatch.setattr(contour_losses, "evaluate", evaluate)
    curves = theory.learning_curves(case_a, taus, tolerance=1e-6)
    assert len(chosen) <= 2
    assert curves.error_estimate >= error + 9e-7 if not residual else curves.error_estimate == np.inf
    assert np.all(np.isnan(curves.test_loss)) == bool(residual)
