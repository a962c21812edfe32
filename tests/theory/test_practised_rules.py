"""Curves under weight decay, averaged weights and Nesterov's momentum: ridge as the limit, and equal routes to the same filter."""

import math

import numpy as np
import pytest

from rfdiff.curves import LearningCurves
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Nesterov, Ridge
from rfdiff.theory import learning_curves, plan_curves, times
from tests.theory.curve_cases import TAUS, one_class, two_classes
from tests.tolerances import rejects


def same(first: LearningCurves, second: LearningCurves, atol: float, where: slice = slice(None)) -> None:
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(getattr(first, name)[where], getattr(second, name)[where], atol=atol, rtol=0)


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [math.inf, 1], ids=["averaged", "one draw"])
@pytest.mark.parametrize("rule", [GradientFlow(weight_decay=0.05), HeavyBall(0.2, 0.5, weight_decay=0.05)], ids=["flow", "heavy ball"])
def test_decay_ends_in_ridge(rule: GradientFlow | HeavyBall, draws: float) -> None:
    problem = two_classes(draws)
    curves, ridge = learning_curves(problem, TAUS, rule=rule), learning_curves(problem, rule=Ridge([0.05]))
    assert curves.error_estimate <= 1e-6 and np.all(np.isfinite(curves.test_loss))
    for row in (-1, -2):
        np.testing.assert_allclose(curves.test_loss[row], ridge.test_loss[0], atol=2e-6)
        np.testing.assert_allclose(curves.train_loss[row], ridge.train_loss[0], atol=2e-6)
    other = learning_curves(problem, rule=Ridge([0.051]))
    rejects(lambda: np.testing.assert_allclose(curves.test_loss[-1], other.test_loss[0], atol=2e-6))


def test_decay_gives_the_interpolation_threshold_a_limit() -> None:
    problem = one_class(1, psi_p=1.5, psi_n=1.5)
    curves, ridge = learning_curves(problem, TAUS, rule=GradientFlow(weight_decay=0.01)), learning_curves(problem, rule=Ridge([0.01]))
    np.testing.assert_allclose(curves.test_loss[-1], ridge.test_loss[0], atol=2e-6)
    assert curves.error_estimate <= 1e-6


@pytest.mark.slow  # compiles a plan
def test_a_plan_with_decay_says_how_long_plain_flow_may_use_it() -> None:
    problem = one_class(1, psi_p=1.5, psi_n=1.5)
    plan = plan_curves(problem, [1.0, math.inf], rule=GradientFlow(weight_decay=0.01))
    assert plan.error_estimate <= 1e-6
    assert plan.latest == pytest.approx(1 / (0.01 * problem.kappa), rel=1e-12)


def test_an_average_over_steps_is_that_of_the_flow() -> None:
    problem, middle = one_class(), slice(6, 20)
    plain = learning_curves(problem, TAUS)
    flow = learning_curves(problem, TAUS, rule=GradientFlow(averaging=20.0))
    steps = learning_curves(problem, TAUS, rule=GradientDescent(0.01, averaging=math.exp(-0.01 / 20)))
    same(flow, steps, 1e-3, middle)
    rejects(lambda: same(plain, steps, 1e-3, middle))
    short = learning_curves(problem, TAUS, rule=GradientFlow(averaging=1e-7))
    same(short, plain, 2e-6)
    np.testing.assert_allclose(flow.test_loss[-1], plain.test_loss[-1], atol=2e-6)
    assert np.all(flow.test_loss[middle] != plain.test_loss[middle])


def test_nesterov_at_small_steps_is_heavy_ball() -> None:
    problem = one_class()
    nesterov, heavy = (learning_curves(problem, TAUS, rule=kind(0.005, 0.75)) for kind in (Nesterov, HeavyBall))
    same(nesterov, heavy, 2e-3, slice(8, None))
    rejects(lambda: same(nesterov, learning_curves(problem, TAUS, rule=GradientDescent(0.005)), 2e-3, slice(8, None)))


def test_times_wait_for_a_long_average() -> None:
    """An average over T is late by T; all times are still found on the grid that is chosen for them."""
    problem = one_class()
    plain, late = times(problem), times(problem, rule=GradientFlow(averaging=1e6))
    assert np.all(late.tau_gen > 1e3 * plain.tau_gen) and np.all(np.isfinite(late.tau_mem))
    # all modes have converged: the weights are 1 - e^{-τ/T} of their limit, and the gap is quadratic in them where the noise is averaged
    np.testing.assert_allclose(late.tau_mem / 1e6, -math.log(1 - math.sqrt(0.5)), rtol=1e-3)
