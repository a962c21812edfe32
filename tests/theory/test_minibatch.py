"""The closed form of minibatch SGD: traces against the spectrum, two ways to the Volterra equation, limits, stability, refusals."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, HeavyBall, MinibatchSGD
from rfdiff.theory import learning_curves, plan_curves, sgd_stability, solutions
from rfdiff.theory.contour import lay
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.minibatch import ALL_TIMES, draw_weights, excess
from rfdiff.theory.minibatch_modes import modes_of
from rfdiff.theory.minibatch_noise import Volterra
from rfdiff.theory.minibatch_traces import noise_traces
from rfdiff.theory.training_times import LEAST, spectrum_span
from tests.theory.curve_cases import one_class, two_classes, with_
from tests.tolerances import loglog_slope, rejects

pytestmark = pytest.mark.usefixtures("full_optimisation")  # one evaluation computes for longer than it compiles
RULE = MinibatchSGD(0.5, 0.5)
BALANCED, WEIGHTED = (MinibatchSGD(0.5, 0.5, sampling=sampling) for sampling in ("balanced", "weighted"))
TAUS = np.array([0.5, 1.0, 5.0, 20.0, 100.0, 1e3, 1e5, math.inf])


def equation(rule: MinibatchSGD, problem: Problem | None = None) -> tuple[Volterra, Any, Any]:
    """The Volterra equation of a problem, with its contour and the solutions there."""
    problem = two_classes() if problem is None else problem
    with jax.enable_x64(True):
        eq, kappa = equivalent(problem, 1, 0.0, LEAST), float(problem.kappa)
        contour = lay(spectrum_span(equivalent(problem, 1, 0.0, LEAST), rule, kappa), rule.descent, kappa, ALL_TIMES, 1e-7).contour
        solved = solutions.anywhere(eq, np.asarray(contour.nodes))
        traces = noise_traces(eq, contour, solved.u)
        return Volterra(traces, rule, kappa, float(problem.psi_p), draw_weights(problem, rule)), contour, solved


@pytest.mark.thorough
@pytest.mark.parametrize("weights", [[0.65, 0.35], [0.2, 0.8]], ids=["as they come", "balanced"])
@pytest.mark.parametrize("draws", [pytest.param(math.inf, marks=pytest.mark.thorough), 2], ids=["averaged", "two draws"])
def test_moment_traces_are_moments_of_the_class_resolved_spectrum(draws: float, weights: Any) -> None:
    """Σ_a ω_a (ω_c/p) tr[U_c U_a] = (ω_c/p) tr[U_c U], which κ_c gives; and every entry is symmetric in the two classes."""
    noise, contour, solved = equation(BALANCED, two_classes(draws, loss_weights=weights))
    weights = noise.draw_weights
    first = np.real(noise.traces.moments[0].sum((-2, -1)))
    nodes, dz = np.asarray(contour.nodes), np.asarray(contour.weights)
    expected = -2 * np.real((dz * nodes) @ solved.kappa)
    np.testing.assert_allclose(weights * (first @ weights), expected, rtol=1e-7)
    np.testing.assert_allclose(first, first.T, rtol=1e-7)
    rejects(lambda: np.testing.assert_allclose(weights * (first @ weights[::-1]), expected, rtol=1e-2))


CASES = [
    MinibatchSGD(0.5, 0.5),
    MinibatchSGD(0.3, 2.0, momentum=0.6, averaging=0.9),
    MinibatchSGD(0.5, 0.5, weight_decay=0.03, averaging=0.99),
]


@pytest.mark.parametrize("rule", CASES, ids=["plain", "momentum", "practised"])
def test_modes_are_their_recursions(rule: MinibatchSGD) -> None:
    x = 0.3 * float(rule.step_size) * (np.array([0.02, 0.5 + 0.1j, 3.0]) + float(rule.weight_decay))
    modes, beta, gamma = modes_of(rule, 0.3, np.array([0.02, 0.5 + 0.1j, 3.0])), float(rule.momentum), float(rule.averaging or 0.0)
    before, h, f, mean = 0 * x, np.ones_like(x), 0 * x, 0 * x
    for j in range(30):
        mean = gamma * mean + (1 - gamma) * h
        np.testing.assert_allclose((modes.impulse * modes.roots**j).sum(0), h, atol=1e-13)
        np.testing.assert_allclose((modes.averaged * modes.averaged_roots**j).sum(0), mean, atol=1e-13)
        np.testing.assert_allclose((modes.error * modes.roots**j).sum(0), 1 - x * f, atol=1e-13)
        before, h, f = h, (1 + beta - x) * h - beta * before, f + h


@pytest.mark.thorough
@pytest.mark.parametrize(
    "rule", [CASES[0], pytest.param(CASES[1], marks=pytest.mark.thorough), CASES[2]], ids=["plain", "momentum", "practised"]
)
def test_hyperbolas_give_what_single_steps_give(rule: MinibatchSGD) -> None:
    far, _, _ = equation(rule)
    near = dataclasses.replace(far)
    near.__dict__["first_window"] = 3000  # every step is taken
    steps = np.array([far.first_window + 1, far.first_window + 40, 1000, 2900])
    one, other = far.excess(steps), near.excess(steps)
    assert far.first_window < 999 and np.min(abs(one)) > 1e-4
    np.testing.assert_allclose(np.real(one), np.real(other), rtol=1e-9)
    assert np.max(abs(np.imag(one))) < 1e-9
    late, limit = far.excess(np.array([1e9])), far.limit()
    np.testing.assert_allclose(np.real(late[:, 0]), limit.excess, rtol=1e-9)
    other_batch = dataclasses.replace(near, rule=dataclasses.replace(rule, batch_per_dimension=1.01 * float(rule.batch_per_dimension)))
    rejects(lambda: np.testing.assert_allclose(np.real(one), np.real(other_batch.excess(steps)), rtol=1e-3))


@pytest.mark.thorough
def test_modes_that_oscillate_for_long_are_waited_for() -> None:
    """Momentum 0.99: after 9000 steps the noise has its limit, which needs no steps; a contour on which modes die out later hides it."""
    problem = Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.2, psi_p=2.2, psi_n=1.6)
    rule = MinibatchSGD(0.02, 2.0, momentum=0.99)
    steps = np.array([9000, 1e6, np.inf])
    curves = learning_curves(problem, steps * 0.02, rule=rule)
    assert curves.error_estimate < 1e-6
    for losses in (curves.train_loss, curves.test_loss):
        np.testing.assert_allclose(losses[1], losses[2], atol=1e-6)
        assert np.max(abs(losses[0] - losses[2])) < 1e-4
    rejects(lambda: np.testing.assert_allclose(curves.test_loss[1], learning_curves(problem, [1e6]).test_loss[0], atol=1e-3))


@pytest.mark.thorough
def test_curves_keep_their_tolerance() -> None:
    problem = two_classes()
    rough, fine = (learning_curves(problem, TAUS, rule=RULE, tolerance=tolerance) for tolerance in (1e-4, 1e-8))
    assert rough.error_estimate <= 1e-4 and fine.error_estimate <= 1e-8
    for name in ("train_loss", "test_loss"):
        assert np.max(abs(getattr(rough, name) - getattr(fine, name))) <= 1e-4


@pytest.mark.thorough
def test_the_noise_knows_the_error_of_its_contour() -> None:
    problem, kappa, steps, found = two_classes(), float(two_classes().kappa), np.append(np.rint(np.geomspace(1, 1e6, 30)), math.inf), []
    with jax.enable_x64(True):
        eq = equivalent(problem, 1, 0.0, LEAST)
        span = spectrum_span(equivalent(problem, 1, 0.0, LEAST), RULE, kappa)
        for size in (0, 2, 5):
            contour = lay(span, RULE.descent, kappa, ALL_TIMES, 1e-7, size).contour
            solved = solutions.anywhere(eq, np.asarray(contour.nodes))
            found.append(excess(problem, eq, rule=RULE, contour=contour, u=solved.u, steps=steps))
    coarse, middle, exact = found
    assert exact.error < 1e-11 < middle.error < 1e-8 < coarse.error < 1e-2
    for rough in (coarse, middle):
        assert 1e-3 * rough.error < np.max(abs(rough.losses - exact.losses)) <= rough.error


@pytest.mark.thorough
def test_large_batches_are_the_whole_gradient() -> None:
    problem = two_classes()
    calm = learning_curves(problem, TAUS, rule=GradientDescent(0.5))
    batches, gaps = np.array([1e2, 1e3, 1e4]), []
    for batch in batches:
        gaps.append(np.max(abs(learning_curves(problem, TAUS, rule=MinibatchSGD(0.5, batch)).test_loss - calm.test_loss)))
    assert abs(loglog_slope(batches, gaps) + 1) < 0.02


@pytest.mark.thorough
def test_identical_classes_are_one_class() -> None:
    one = one_class()
    two = with_(one, mixture=MixtureLaw.isotropic([0.3, 0.7], [1.2, 1.2]))
    single, double = (learning_curves(problem, TAUS, rule=RULE) for problem in (one, two))
    for c in range(2):
        np.testing.assert_allclose(double.train_loss[:, c], single.train_loss[:, 0], atol=3e-6)
        np.testing.assert_allclose(double.test_loss[:, c], single.test_loss[:, 0], atol=3e-6)


@pytest.mark.thorough
def test_samplings_agree_where_they_are_the_same() -> None:
    """With the class fractions for weights all three are uniform batches; with other weights those that are weighted are noisier."""
    fractions = two_classes(loss_weights=np.asarray(two_classes().mixture.weights))
    curves = [learning_curves(fractions, TAUS, rule=rule) for rule in (RULE, BALANCED, WEIGHTED)]
    for other in curves[1:]:
        np.testing.assert_array_equal(other.test_loss, curves[0].test_loss)
    problem = two_classes(loss_weights=[0.35, 0.65])
    calm, drawn, multiplied = (learning_curves(problem, TAUS, rule=rule) for rule in (GradientDescent(0.5), BALANCED, WEIGHTED))
    assert np.all(multiplied.train_loss[1:] > drawn.train_loss[1:]) and np.all(drawn.train_loss[1:] > calm.train_loss[1:])
    assert sgd_stability(problem, rule=WEIGHTED).radius > sgd_stability(problem, rule=BALANCED).radius


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [math.inf, pytest.param(2, marks=pytest.mark.thorough)], ids=["averaged", "two draws"])
def test_a_class_that_is_not_drawn_makes_no_noise(draws: float) -> None:
    """A class of weight 0 changes nothing for the other, and its losses, train and test alike, are those of data that were not seen."""
    two = learning_curves(two_classes(draws, loss_weights=[1.0, 0.0]), TAUS, rule=BALANCED)
    alone = with_(one_class(draws), mixture=MixtureLaw.isotropic([1.0], [1.4]), psi_n=0.65 * 1.6)
    one = learning_curves(alone, TAUS, rule=RULE)
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(getattr(two, name)[:, 0], getattr(one, name)[:, 0], atol=3e-6)
    np.testing.assert_allclose(two.train_loss[:, 1], two.test_loss[:, 1], atol=3e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", [BALANCED, WEIGHTED], ids=["balanced", "weighted"])
def test_samples_without_weight_only_fill_batches_that_take_pairs_as_they_come(rule: MinibatchSGD) -> None:
    """One sample in five has no weight. Balanced batches never hold it; of a weighted batch four fifths count."""
    three = two_classes(mixture=MixtureLaw.isotropic([0.3, 0.5, 0.2], [1.4, 0.5, 1.0]), loss_weights=[0.6, 0.4, 0.0])
    two = with_(three, mixture=MixtureLaw.isotropic([0.375, 0.625], [1.4, 0.5]), loss_weights=[0.6, 0.4], psi_n=0.8 * three.psi_n)
    share = 0.8 if rule is WEIGHTED else 1.0
    smaller = dataclasses.replace(rule, batch_per_dimension=share * float(rule.batch_per_dimension))
    many, few = learning_curves(three, TAUS, rule=rule), learning_curves(two, TAUS, rule=smaller)
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(getattr(many, name)[:, :2], getattr(few, name), atol=3e-6)


@pytest.mark.thorough
def test_stability_bounds_step_and_batch() -> None:
    problem = two_classes()
    found = sgd_stability(problem, rule=RULE)
    assert found.converges and found.smallest_batch == pytest.approx(0.5 * found.radius, rel=1e-12)
    for factor in (0.999, 1.001):
        by_step = sgd_stability(problem, rule=MinibatchSGD(found.largest_step * factor, 0.5))
        by_batch = equation(MinibatchSGD(0.5, found.smallest_batch / factor))[0].limit()
        assert by_step.converges == (by_batch.radius < 1) == (factor < 1)
        assert (by_step.reason is None) == by_step.converges == np.isfinite(by_step.test_excess).all()
        text = f"its losses have no limit; it converges at a step size below {by_step.largest_step:.6g} or a batch above"
        assert by_step.converges or (text in str(by_step.reason) and text in repr(by_step))
        assert by_step.largest_step == pytest.approx(found.largest_step, rel=1e-6)
    limit, calm = learning_curves(problem, TAUS, rule=RULE), learning_curves(problem, TAUS, rule=GradientDescent(0.5))
    np.testing.assert_allclose(limit.train_loss[-1] - calm.train_loss[-1], found.train_excess, atol=3e-6)
    np.testing.assert_allclose(limit.test_loss[-1] - calm.test_loss[-1], found.test_excess, atol=3e-6)
    with pytest.raises(ValueError, match=r"^step_size: .* diverges by the noise of batches of 0.5 d.*; allowed: below ") as caught:
        learning_curves(problem, [10.0, 1e3], rule=MinibatchSGD(1.05 * found.largest_step, 0.5))
    assert float(str(caught.value).split("below ")[1].split(",")[0]) == pytest.approx(found.largest_step, rel=1e-4)


@pytest.mark.thorough
def test_the_largest_step_is_known_close_to_that_of_the_whole_gradient() -> None:
    """Beyond the contour the spectral radius is continued: to where a contour laid that far has 1."""
    found = sgd_stability(two_classes(), rule=MinibatchSGD(0.5, 0.53))
    beyond = equation(MinibatchSGD(found.largest_step, 0.53))[0]
    assert beyond.radius == pytest.approx(1, rel=1e-6)
    edge = sgd_stability(two_classes(), rule=MinibatchSGD(0.5, 3.0)).largest_step  # whose noise never diverges
    assert 0.9 * edge < found.largest_step < edge


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (with_(two_classes(), mixture=MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], np.eye(2))), "^centroid_gram: not 0 with rule sgd"),
        (with_(two_classes(), activation="relu"), "^activation: relu is not odd"),
        (with_(two_classes(), loss_weights=[0.9, 0.1]), "^loss_weights: 0.9, 0.1 with rule sgd and uniform batches"),
        (one_class(1, psi_p=1.5, psi_n=1.5), "^psi_p: 1.5 = psi_n m with rule sgd"),
    ],
)
def test_what_is_not_covered_is_refused(problem: Problem, message: str) -> None:
    for ask in (lambda: learning_curves(problem, TAUS, rule=RULE), lambda: sgd_stability(problem, rule=RULE)):
        with pytest.raises(ValueError, match=message):
            ask()


def test_sgd_is_no_filter() -> None:
    for ask in (lambda: plan_curves(two_classes(), TAUS, rule=RULE), lambda: RULE.filter(np.ones(1), None, 1.0)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="^rule: sgd is no filter of U"):
            ask()


def test_numbers_of_sgd_are_checked() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"batch_per_dimension": 0.0}, "^batch_per_dimension: 0.0; allowed: a finite number > 0"),
        ({"step_size": -1}, "^step_size: -1"),
        ({"momentum": 1.0}, "^momentum: 1.0"),
        ({"averaging": 1.0}, "^averaging: 1.0"),
        ({"sampling": "even"}, "^sampling: 'even'; allowed: uniform, balanced, weighted"),
    ]
    for changes, message in refused:
        with pytest.raises(ValueError, match=message):
            MinibatchSGD(**{"step_size": 0.5, "batch_per_dimension": 0.5, **changes})
    assert RULE.batch_size(100) == 50
    with pytest.raises(ValueError, match="makes no batch at d = 10; allowed: at least 0.05"):
        MinibatchSGD(0.5, 0.01).batch_size(10)
    assert MinibatchSGD(0.5, 1, 0.3, 0.1, 0.9).descent.equals(HeavyBall(0.5, 0.3, weight_decay=0.1, averaging=0.9))
