"""Pooled sets of neuron types: their error holds, in a model of many sets and for losses along training."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.host import double_on_host
from rfdiff.rules import GradientFlow
from rfdiff.theory import solutions, type_choice
from rfdiff.theory.contour import Span
from rfdiff.theory.contour_ladder import Question
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.type_choice import error_of_mean
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
    made = type_choice._set
    monkeypatch.setattr(type_choice, "_set", lambda near, level, radius, scramble, c: made(near, level, radius, scramble + 50, c))
    fine = theory.learning_curves(problem, taus, tolerance=2e-4)
    assert fine.error_estimate < 0.7 * coarse.error_estimate

    def within(share: float) -> None:
        for name in ("train_loss", "test_loss"):
            apart = np.max(abs(getattr(coarse, name) - getattr(fine, name)))
            assert apart <= share * (coarse.error_estimate + fine.error_estimate)

    within(1.0)
    rejects(lambda: within(0.05))


LAW = MixtureLaw.isotropic(np.full(5, 0.2), np.ones(5), 0.5 * np.eye(5))
NEAR, SPAN = Problem(LAW, "tanh", t=0.1, psi_p=3, psi_n=2), Span(0.01, 10.0)
QUESTION = Question(GradientFlow(), 0.3, np.array([1.0]), None, 1e-3)


@pytest.mark.parametrize(
    ("scatter", "tolerance", "levels"),
    [(1e-4, 1e-2, [-2]), (2.5e-3, 1.1e-3, [-2, 2]), (2e-4, 5e-4, [0]), (1e-5, 1e-5, [2]), (1.0, 1e-3, [-2, 3]), (np.nan, 1e-2, [-2])],
)
def test_points_are_added_until_the_error_of_their_mean_will_do(
    scatter: float, tolerance: float, levels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made-up losses that scatter: the error is the 98 % bound by Student's t, and grows no more points than it takes."""
    asked: list[tuple[int, int]] = []

    def made_up(near: Problem, level: int, radius: float, scramble: int, controls: object) -> tuple[int, int]:
        asked.append((level, scramble))
        return level, scramble

    def losses(eq: tuple[int, int], few: object, penalties: np.ndarray, start: object) -> tuple[np.ndarray, np.ndarray]:
        return np.full((2, 10, 5), scatter * 2.0 ** -(eq[0] + 2) * eq[1]), np.zeros(10)

    nothing = solutions.Solved(*(np.zeros(10) for _ in solutions.Solved._fields))
    monkeypatch.setattr(type_choice, "equivalent", lambda near, level, radius: None)
    monkeypatch.setattr(solutions, "anywhere", lambda eq, z: nothing)
    monkeypatch.setattr(type_choice, "_controls", lambda few, solved, penalties: None)
    for name, replacement in (("_set", made_up), ("_ridge_regression", losses), ("_pooled", lambda sets: sets)):
        monkeypatch.setattr(type_choice, name, replacement)
    chosen = type_choice.chosen_types(NEAR, QUESTION, SPAN, 5.0, tolerance, 0.0)
    assert list(dict.fromkeys(level for level, _ in asked)) == levels
    assert asked[-4:] == [(levels[-1], scramble) for scramble in range(4)]
    if np.isfinite(scatter):
        samples = scatter * 2.0 ** -(levels[-1] + 2) * np.arange(4)
        np.testing.assert_allclose(chosen.error, stats.t.ppf(0.99, 3) * stats.sem(samples), rtol=0.02)
    else:
        assert not np.isfinite(chosen.error)


def test_many_classes_take_fewer_points() -> None:
    """The products of their features have to be kept for each."""
    assert [type_choice._affordable(k) for k in (5, 10, 20, 40)] == [6, 3, 0, -2]


@pytest.mark.thorough
def test_a_fixed_point_that_is_not_solved_is_no_error_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(eq: Equivalent, few: Equivalent, penalties: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return regression(eq, few, penalties, start)[0], np.full(len(penalties), 1e-3)

    regression = type_choice._ridge_regression
    with double_on_host():
        assert np.isfinite(type_choice.chosen_types(NEAR, QUESTION, SPAN, 5.0, 0.1, 0.0).error)
        monkeypatch.setattr(type_choice, "_ridge_regression", stuck)
        assert np.isinf(type_choice.chosen_types(NEAR, QUESTION, SPAN, 5.0, 0.1, 0.0).error)


@pytest.mark.thorough
def test_matched_weights_leave_a_tenth_of_the_error() -> None:
    """Losses of ridge regression of independent sets scatter less by far than those of the same points with equal weights."""
    penalties = np.geomspace(3e-3, 10, 10)
    with double_on_host():
        few = equivalent(NEAR, 0, 6.0)
        start = solutions.anywhere(few, -penalties)
        controls = type_choice._controls(few, start, penalties)
        sets = [type_choice._set(NEAR, 0, 6.0, scramble, controls) for scramble in range(6)]
        plain = [replace(eq, type_weights=jnp.full(512, 1 / 512)) for eq in sets]
        scatter = [
            np.max(np.std([type_choice._ridge_regression(eq, few, penalties, start.u)[0] for eq in group], axis=0))
            for group in (sets, plain)
        ]
    assert scatter[0] < 0.1 * scatter[1]
