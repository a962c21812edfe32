"""Pooled sets of neuron types: their error holds, in a model of many sets and for losses along training."""

import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.host import double_on_host
from rfdiff.rules import GradientFlow
from rfdiff.theory import solutions
from rfdiff.theory.contour import Span
from rfdiff.theory.contour_ladder import Question
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.noncommuting import type_choice
from rfdiff.theory.noncommuting.type_choice import error_of_mean
from tests.tolerances import rejects


def test_the_error_of_the_mean_holds() -> None:
    """Four independent sets, whose losses at five penalties err alike in part."""
    draw = np.random.default_rng(0)
    sets = 1e-3 * (draw.standard_normal((2000, 4, 1)) + 0.5 * draw.standard_normal((2000, 4, 5)))
    apart, error = abs(sets.mean(1)).max(1), np.array([error_of_mean(losses) for losses in sets])
    assert np.mean(apart <= error) > 0.95
    assert np.mean(apart <= error / 4) < 0.75, "the criterion tells an error that is too small"


@pytest.mark.thorough
def test_losses_of_five_classes_are_within_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Gram matrix of rank 5 takes Sobol points: few of them against more of other scrambles."""
    draw = np.random.default_rng(1)
    roots = draw.standard_normal((5, 12, 12)) / np.sqrt(12)
    covariances, means = roots @ np.swapaxes(roots, 1, 2) + 0.05 * np.eye(12), 0.7 * draw.standard_normal((5, 12))
    problem = Problem(MixtureLaw.from_covariances(np.full(5, 0.2), covariances, means), "tanh", t=0.1, psi_p=3, psi_n=2)
    taus = np.geomspace(0.1, 1e4, 8)
    coarse = theory.learning_curves(problem, taus, tolerance=1e-2)
    monkeypatch.setattr(
        type_choice, "equivalent", lambda near, level, radius, scramble: equivalent(near, level, radius, scramble=scramble + 50)
    )
    fine = theory.learning_curves(problem, taus, tolerance=2e-4)
    assert fine.error_estimate < 0.7 * coarse.error_estimate

    def within(share: float) -> None:
        for name in ("train_loss", "test_loss"):
            apart = np.max(abs(getattr(coarse, name) - getattr(fine, name)))
            assert apart <= share * (coarse.error_estimate + fine.error_estimate)

    within(1.0)
    rejects(lambda: within(0.05))


@pytest.mark.thorough
def test_a_fixed_point_that_is_not_solved_is_no_error_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(eq: Equivalent, z: np.ndarray) -> solutions.Solved:
        return anywhere(eq, z)._replace(residual=np.full(len(z), 1e-3))

    law = MixtureLaw.isotropic(np.full(5, 0.2), np.ones(5), 0.5 * np.eye(5))
    question = Question(GradientFlow(), 0.3, np.array([1.0]), None, 1e-3)
    anywhere = solutions.anywhere
    with double_on_host():
        near, span = Problem(law, "tanh", t=0.1, psi_p=3, psi_n=2), Span(0.01, 10.0)
        assert np.isfinite(type_choice.chosen_types(near, question, span, 5.0, 0.1, 0.0).error)
        monkeypatch.setattr(solutions, "anywhere", stuck)
        assert np.isinf(type_choice.chosen_types(near, question, span, 5.0, 0.1, 0.0).error)
