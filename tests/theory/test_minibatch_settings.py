"""Losses under SGD of many settings from one set of traces, against curves whose contour is laid for each setting."""

import dataclasses
import math

import numpy as np
import pytest

from rfdiff.rules import MinibatchSGD
from rfdiff.theory import learning_curves, sgd_stability
from rfdiff.theory.minibatch_settings import PART, SGDSettings
from tests.theory.curve_cases import two_classes
from tests.tolerances import rejects

pytestmark = pytest.mark.usefixtures("full_optimisation")
RULE = MinibatchSGD(0.5, 0.5)
STEPS = np.array([1.0, 7.0, 60.0, 900.0, math.inf])


@pytest.fixture(scope="module")
def settings() -> SGDSettings:
    return SGDSettings(two_classes(), RULE, 1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", [RULE, MinibatchSGD(0.2, 1.5, averaging=0.98)], ids=["its own", "another"])
def test_one_set_of_traces_serves_every_setting(settings: SGDSettings, rule: MinibatchSGD) -> None:
    curves = learning_curves(two_classes(), STEPS * float(rule.step_size), rule=rule)
    (train, test), error = settings.judged(rule, STEPS)
    assert error <= 1e-4
    np.testing.assert_allclose(train, curves.train_loss, atol=1e-4)
    np.testing.assert_allclose(test, curves.test_loss, atol=1e-4)
    np.testing.assert_allclose(settings.score_errors(test), curves.score_error, atol=1e-3)
    np.testing.assert_allclose(settings.losses(rule, STEPS)[1], test, atol=1e-12)
    noisier = dataclasses.replace(rule, batch_per_dimension=0.9 * float(rule.batch_per_dimension))
    rejects(lambda: np.testing.assert_allclose(settings.losses(noisier, STEPS)[1], curves.test_loss, atol=1e-4))


@pytest.mark.thorough
def test_it_knows_what_is_stable(settings: SGDSettings) -> None:
    found = sgd_stability(two_classes(), rule=RULE)
    assert settings.radius(RULE) == pytest.approx(found.radius, rel=1e-4)
    edge = sgd_stability(two_classes(), rule=MinibatchSGD(0.5, 50.0)).largest_step  # whose noise never diverges
    assert settings.edge == pytest.approx(edge, rel=1e-6)
    assert settings.largest_step == pytest.approx(PART * edge)
    double = dataclasses.replace(RULE, batch_per_dimension=1.0)
    assert settings.radius(double) == pytest.approx(settings.radius(RULE) / 2, rel=1e-9)
