"""Homogenised SGD: the limit of small steps, its own equation by quadrature, and what it refuses."""

import dataclasses
import math

import numpy as np
import pytest

from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.theory import homogenised_sgd, learning_curves
from tests.theory.curve_cases import one_class, two_classes, with_
from tests.tolerances import loglog_slope, rejects

pytestmark = pytest.mark.usefixtures("full_optimisation")
TAUS = np.array([2.0, 10.0, 100.0])
WEIGHTED = two_classes(loss_weights=[0.35, 0.65])
CASES: dict[str, tuple[Problem, MinibatchSGD]] = {
    "plain": (two_classes(), MinibatchSGD(1.0, 1.0)),
    "balanced": (WEIGHTED, MinibatchSGD(1.0, 1.0, weight_decay=0.02, sampling="balanced")),
    "momentum": (two_classes(), MinibatchSGD(1.0, 2.0, momentum=0.5)),
    "averaged": (WEIGHTED, MinibatchSGD(1.0, 1.0, averaging=0.9, sampling="weighted")),
}


def smaller(rule: MinibatchSGD, factor: float) -> MinibatchSGD:
    """The rule with a step that much smaller, at the same ratio of step to batch and memory of the average."""
    step, batch = (factor * float(number) for number in (rule.step_size, rule.batch_per_dimension))
    gamma = None if rule.averaging is None else 1 - factor * (1 - float(rule.averaging))
    return dataclasses.replace(rule, step_size=step, batch_per_dimension=batch, averaging=gamma)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name if name == "plain" else pytest.param(name, marks=pytest.mark.thorough) for name in CASES])
def test_sgd_differs_from_it_in_proportion_to_the_step(name: str) -> None:
    problem, rule = CASES[name]
    limit = homogenised_sgd(problem, TAUS, rule=rule)
    factors, gaps = [0.2, 0.1, 0.05, 0.025], []
    for factor in factors:
        curves = learning_curves(problem, TAUS, rule=smaller(rule, factor))
        gaps.append(max(np.max(abs(getattr(curves, key) - getattr(limit, key))) for key in ("train_loss", "test_loss")))
    assert abs(loglog_slope(factors, gaps) - 1) < 0.06, gaps
    flow = learning_curves(problem, TAUS, rule=GradientFlow(rule.weight_decay))
    assert np.max(abs(limit.test_loss - flow.test_loss)) > 10 * gaps[-1]
    other = homogenised_sgd(problem, TAUS, rule=dataclasses.replace(rule, batch_per_dimension=1.1 * float(rule.batch_per_dimension)))
    rejects(lambda: np.testing.assert_allclose(other.test_loss, limit.test_loss, atol=gaps[-1]))


@pytest.mark.thorough
def test_momentum_stands_for_a_longer_step() -> None:
    problem, taus = two_classes(), np.array([0.5, 5.0, 50.0, math.inf])
    one = homogenised_sgd(problem, taus, rule=MinibatchSGD(1.0, 2.0, momentum=0.5, averaging=0.98))
    other = homogenised_sgd(problem, 2 * taus, rule=MinibatchSGD(2.0, 2.0, averaging=0.98))
    np.testing.assert_array_equal(one.taus, taus)
    np.testing.assert_allclose(one.test_loss, other.test_loss, atol=2e-6)


@pytest.mark.thorough
def test_limits_in_time() -> None:
    """At the start nothing has happened; late losses are those at τ = ∞; without noise it is the flow."""
    problem, rule = one_class(), MinibatchSGD(1.0, 1.0)
    curves = homogenised_sgd(problem, [0.0, 1e-6, 1e3, 1e9, math.inf], rule=rule)
    assert curves.error_estimate < 1e-6
    np.testing.assert_allclose(curves.train_loss[:2], 1, atol=1e-5)
    np.testing.assert_allclose(curves.test_loss[-2], curves.test_loss[-1], atol=2e-6)
    calm = homogenised_sgd(problem, TAUS, rule=MinibatchSGD(1e-9, 1.0))
    np.testing.assert_allclose(calm.test_loss, learning_curves(problem, TAUS).test_loss, atol=2e-6)


def test_a_ratio_at_which_the_noise_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^step_size / batch_per_dimension: 100 diverges in the limit.*; allowed: below ") as caught:
        homogenised_sgd(two_classes(), TAUS, rule=MinibatchSGD(100.0, 1.0))
    largest = float(str(caught.value).split("below ")[1])
    assert np.all(np.isfinite(homogenised_sgd(two_classes(), TAUS, rule=MinibatchSGD(0.99 * largest, 1.0)).test_loss))
    with pytest.raises(ValueError, match="^rule: .*; allowed: a MinibatchSGD"):
        homogenised_sgd(two_classes(), TAUS, rule=GradientFlow())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^activation: relu is not odd"):
        homogenised_sgd(with_(two_classes(), activation="relu"), TAUS, rule=MinibatchSGD(1.0, 1.0))
