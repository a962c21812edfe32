"""Losses under SGD of many settings from one set of traces, against curves whose contour is laid for each setting."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from rfdiff.rules import MinibatchSGD
from rfdiff.theory import learning_curves, sgd_stability
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.minibatch_modes import product_in_one_thread
from rfdiff.theory.minibatch_settings import PART, SGDSettings
from rfdiff.theory.support import followed
from rfdiff.theory.training_times import LEAST
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


@pytest.mark.thorough
def test_the_spectrum_of_a_near_problem_is_followed(settings: SGDSettings) -> None:
    """Other class weights and fractions: edge and losses are those of settings made from nothing."""
    rule = dataclasses.replace(RULE, sampling="balanced")
    problem = dataclasses.replace(two_classes(), loss_weights=np.array([0.6, 0.4]))
    near, anew = SGDSettings(problem, rule, 1e-4, settings), SGDSettings(problem, rule, 1e-4)
    assert near.edge == pytest.approx(anew.edge, rel=1e-8)
    assert near.span.low < anew.span.low  # a margin, not a scan, which a search can do without
    assert near.judged(rule, STEPS)[1] <= 1e-5
    np.testing.assert_allclose(near.losses(rule, STEPS), anew.losses(rule, STEPS), atol=1e-5)
    rejects(lambda: np.testing.assert_allclose(near.losses(rule, STEPS), settings.losses(rule, STEPS), atol=1e-3))


@pytest.mark.thorough
def test_a_spectrum_that_moved_far_is_scanned_anew(settings: SGDSettings) -> None:
    with jax.enable_x64(True):
        eq = equivalent(two_classes(), 1, 0.0, LEAST)
        low, high = settings.span
        assert followed(eq, low, high) == pytest.approx((low * math.exp(-0.5), high), rel=1e-9)
        assert followed(eq, 3 * low, high) is None
        assert followed(eq, low, 2 * high) is None and followed(eq, low, high / 2) is None


def test_products_in_one_thread_are_products() -> None:
    draw = np.random.default_rng(0)
    for length, size, width in ((3, 50, 1), (10, 2080, 65), (300, 70, 64)):
        one, other = (draw.standard_normal(shape) + 1j * draw.standard_normal(shape) for shape in ((length, size), (2, size, width)))
        np.testing.assert_allclose(product_in_one_thread(one, other), one @ other, rtol=1e-11, atol=1e-11)
