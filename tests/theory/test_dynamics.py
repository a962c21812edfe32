"""Learning curves: reference tables, published ridge errors, the checks of docs/theory, and the error the code promises."""

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np
import pytest

from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Ridge
from rfdiff.theory import dynamics, learning_curves
from rfdiff.theory.equivalent import equivalent
from tests.theory.curve_cases import TAUS, one_class, two_classes, with_
from tests.tolerances import loglog_slope, rejects

TABLE_TIMES = np.array([0.1, 1, 10, 100, 1000, 10000])
ON_TABLE = np.array([int(np.argmin(abs(TAUS - tau))) for tau in TABLE_TIMES])
TABLE_A = np.array(
    [
        [0.996663, 0.996663, 0.996179, 0.996179],
        [0.970710, 0.970795, 0.965043, 0.965054],
        [0.871220, 0.892899, 0.813311, 0.816293],
        [0.777043, 1.039212, 0.670259, 0.720988],
        [0.696604, 1.465010, 0.604309, 0.798645],
        [0.694952, 1.564132, 0.601459, 0.824253],
    ]
)
TABLE_B = np.array(
    [
        [0.976599, 0.985122, 0.976592, 0.984174],
        [0.832068, 0.897616, 0.828339, 0.886971],
        [0.563385, 0.817213, 0.546569, 0.767285],
        [0.426595, 0.987748, 0.419792, 0.899586],
        [0.406588, 1.173031, 0.402727, 1.050223],
        [0.406580, 1.175140, 0.402732, 1.051960],
    ]
)


def doubled_noise(problem: Problem) -> Problem:
    """The problem at the diffusion time where Δ is twice as large."""
    return with_(problem, t=-0.5 * math.log(1 - 2 * -math.expm1(-2 * problem.t)))


def on_table(curves: LearningCurves, table: np.ndarray) -> None:
    for c in range(2):
        for name, column in (("train_loss", 2 * c), ("test_loss", 2 * c + 1)):
            assert np.max(abs(getattr(curves, name)[ON_TABLE, c] - table[:, column])) < 1e-5


def permuted(curves: LearningCurves) -> LearningCurves:
    return jax.tree.map(lambda leaf: leaf[..., ::-1] if np.shape(leaf)[-1:] == (2,) else leaf, curves)


def untrained(curves: LearningCurves) -> LearningCurves:
    return jax.tree.map(np.ones_like, curves)


def exchanged(curves: LearningCurves) -> LearningCurves:
    """Train and test losses in each other's place."""
    taus, train, test, *rest = jax.tree.leaves(curves, is_leaf=lambda leaf: leaf is None)
    return LearningCurves(taus, test, train, *rest)


@pytest.fixture(scope="module")
def curves_a(case_a: Problem) -> LearningCurves:
    return learning_curves(case_a, TAUS)


@pytest.fixture(scope="module")
def curves_b(case_b: Problem) -> LearningCurves:
    return learning_curves(case_b, TAUS)


def test_reference_table_of_case_a(curves_a: LearningCurves) -> None:
    on_table(curves_a, TABLE_A)
    assert curves_a.error_estimate <= 1e-6
    for wrong in (permuted, untrained, exchanged):
        rejects(functools.partial(on_table, wrong(curves_a), TABLE_A))


@pytest.mark.thorough
def test_reference_table_of_case_b(curves_b: LearningCurves) -> None:
    on_table(curves_b, TABLE_B)
    assert curves_b.error_estimate <= 1e-6
    for wrong in (permuted, untrained, exchanged):
        rejects(functools.partial(on_table, wrong(curves_b), TABLE_B))


SIBLINGS: dict[str, Callable[[Problem], Problem]] = {
    "psi_p and psi_n swapped": lambda problem: with_(problem, psi_p=problem.psi_n, psi_n=problem.psi_p),
    "noise variance doubled": doubled_noise,
    "variances taken for standard deviations": lambda problem: with_(
        problem, mixture=MixtureLaw.isotropic(problem.mixture.weights, problem.mixture.variances**2, problem.mixture.centroid_gram)
    ),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_table_rejects_other_problems(case_a: Problem, name: str) -> None:
    rejects(lambda: on_table(learning_curves(SIBLINGS[name](case_a), TAUS, tolerance=1e-4), TABLE_A))


def test_table_rejects_a_theory_without_kept_variance(case_a: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamics, "equivalent", without_kept)
    rejects(lambda: on_table(learning_curves(case_a, TAUS, tolerance=1e-4), TABLE_A))


def without_kept(*args: Any) -> Any:
    eq = equivalent(*args)
    return type(eq)(**{**eq.__dict__, "kept": 1e-9 * eq.kept})


@pytest.mark.thorough
@pytest.mark.parametrize(("psi_p", "psi_n", "draws", "published"), [(2, 4, 1, 1.2387), (2, 3, 3, 1.0590)])
def test_published_ridge_errors(psi_p: float, psi_n: float, draws: int, published: float) -> None:
    """Test errors of one unit Gaussian, tanh, t = 0.1, penalty 0.01 (George et al. 2025)."""
    problem = Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, psi_p, psi_n, draws)

    def agrees(problem: Problem) -> None:
        curves = learning_curves(problem, rule=Ridge([0.01]), tolerance=1e-5)
        assert abs(curves.test_loss[0, 0] - published) < 1e-4

    agrees(problem)
    rejects(lambda: agrees(with_(problem, psi_p=psi_n, psi_n=psi_p)))
    rejects(lambda: agrees(with_(problem, psi_n=1.01 * psi_n)))


def assert_same(first: LearningCurves, second: LearningCurves, tolerance: float) -> None:
    for name in ("train_loss", "test_loss"):
        assert np.max(abs(np.asarray(getattr(first, name)) - np.asarray(getattr(second, name)))) < tolerance


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [pytest.param(math.inf, marks=pytest.mark.thorough), 1, pytest.param(3, marks=pytest.mark.slow)])
def test_identical_classes_are_one_class(draws: float) -> None:
    one = learning_curves(one_class(draws), TAUS)
    two = learning_curves(two_classes(draws, mixture=MixtureLaw.isotropic([0.65, 0.35], [1.2, 1.2])), TAUS)
    assert_same(two, one, 2e-6)
    np.testing.assert_allclose(two.test_loss[:, 0], two.test_loss[:, 1], atol=1e-9)
    different = learning_curves(two_classes(draws), TAUS)
    rejects(lambda: assert_same(different, one, 2e-6))


def test_identical_classes_at_one_centroid(case_a: Problem) -> None:
    """A centroid common to all classes leaves one class: the Gram matrix has rank one, and the types are a line."""
    law = MixtureLaw.isotropic([0.65, 0.35], [1.2, 1.2], np.full((2, 2), 0.7))
    curves = learning_curves(with_(case_a, mixture=law), TAUS, tolerance=1e-4)
    np.testing.assert_allclose(curves.train_loss[:, 0], curves.train_loss[:, 1], atol=1e-9)
    np.testing.assert_allclose(curves.test_loss[:, 0], curves.test_loss[:, 1], atol=1e-9)
    centred = learning_curves(one_class(t=0.1, psi_p=4.0, psi_n=3.0), TAUS)
    assert np.max(abs(curves.test_loss[:, :1] - centred.test_loss)) > 1e-2, "the centroid is not without effect"


def test_long_training_at_interpolation_is_resolved() -> None:
    """At p = n m the support touches 0; the train loss falls on, the test loss grows like a power of τ, and all of it is finite."""
    curves = learning_curves(one_class(1, psi_p=2.0, psi_n=2.0), [10.0, 1e3, 1e5, 1e7], tolerance=1e-4)
    assert curves.error_estimate <= 1e-4
    assert np.all(np.diff(curves.train_loss[:, 0]) < 0)
    assert np.all(np.diff(curves.test_loss[:, 0]) > 0)


@pytest.mark.thorough
def test_relabelling_permutes_the_curves() -> None:
    straight = learning_curves(two_classes(), TAUS)
    reversed_ = learning_curves(two_classes(mixture=MixtureLaw.isotropic([0.35, 0.65], [0.5, 1.4])), TAUS)
    assert_same(permuted(straight), reversed_, 1e-9)
    rejects(lambda: assert_same(straight, reversed_, 1e-3))


@pytest.mark.slow
def test_relabelling_three_anisotropic_classes_with_centroids() -> None:
    """Here a wrong index in the Gram matrix, the eigenvalues or the column kinds would show."""
    order = [2, 0, 1]
    weights, gram = np.array([0.5, 0.3, 0.2]), np.outer([0.6, -0.3, 0.9], [0.6, -0.3, 0.9])
    eigenvalues = np.array([[1.6, 0.2, 0.7], [0.4, 1.2, 0.9]])
    law = MixtureLaw(weights, eigenvalues, [0.5, 0.5], gram)
    moved = MixtureLaw(weights[order], eigenvalues[:, order], [0.5, 0.5], gram[np.ix_(order, order)])
    first, second = (learning_curves(Problem(m, "erf", 0.2, 2.0, 1.5, 2), TAUS, tolerance=1e-3) for m in (law, moved))
    for name in ("train_loss", "test_loss", "score_error"):
        chex.assert_trees_all_close(getattr(first, name)[:, order], getattr(second, name), atol=1e-8)
        rejects(lambda name=name: chex.assert_trees_all_close(getattr(first, name), getattr(second, name), atol=1e-3))  # type: ignore[misc]


@pytest.mark.thorough
def test_much_data_removes_the_gap_at_rate_one_over_psi_n() -> None:
    sizes = np.array([400.0, 800.0, 1600.0])
    curves = [learning_curves(two_classes(psi_n=size), TAUS, tolerance=1e-8) for size in sizes]
    limit = learning_curves(two_classes(psi_n=1e9), TAUS, tolerance=1e-8)
    np.testing.assert_allclose(limit.train_loss, limit.test_loss, atol=1e-6)
    for name in ("train_loss", "test_loss"):
        for column in range(2):
            gaps = [np.max(abs(getattr(c, name) - getattr(limit, name))[:-2, column]) for c in curves]
            assert abs(loglog_slope(sizes, gaps) + 1) < 0.1


@pytest.mark.thorough
def test_finite_draws_tend_to_the_average_at_rate_one_over_m() -> None:
    draws = np.array([50, 100, 200])
    limit = learning_curves(one_class(), TAUS)
    early = TAUS <= 100
    for name in ("train_loss", "test_loss"):
        gaps = [np.max(abs(getattr(learning_curves(one_class(int(m)), TAUS), name) - getattr(limit, name))[early]) for m in draws]
        assert gaps[0] > 1e-4
        assert abs(loglog_slope(draws, gaps) + 1) < 0.1


def test_total_train_loss_never_rises(curves_a: LearningCurves, curves_b: LearningCurves) -> None:
    for curves in (curves_a, curves_b):
        assert np.all(np.diff(curves.total("train_loss")) < 1e-9)
        assert np.all(np.diff(curves.total("train_loss")[TAUS <= 1000]) < -1e-7)
        assert np.any(np.diff(curves.total("test_loss")) > 1e-2), "the test loss does: the check can fail"


def test_first_order_in_training_time(curves_a: LearningCurves, curves_b: LearningCurves, case_a: Problem, case_b: Problem) -> None:
    """L_c = 1 - 2κτ (1/d) tr VᵀV_c + O(τ²); the trace is Δψ_p Σ_a π_a E_h[α_a α_c], and own samples add to it in a train loss."""
    for problem, curves in ((case_a, curves_a), (case_b, curves_b)):
        with jax.enable_x64(True):
            eq = equivalent(problem, 4, 6.0)
        alpha, weights = np.asarray(eq.linear), np.asarray(eq.type_weights)
        delta, pi = -math.expm1(-2 * problem.t), problem.mixture.weights
        overlap = delta * problem.psi_p * pi @ ((alpha * weights[:, None]).T @ alpha)
        own = np.zeros(2)
        if math.isfinite(problem.noise_draws):
            # a sample's ξ with itself: E φ² less the mean, over n m columns of which class c holds π_c
            signal = math.exp(-2 * problem.t) * problem.mixture.variances
            square = weights @ (alpha**2 * (signal + delta) + np.asarray(eq.kept) + np.asarray(eq.carried))
            own = problem.psi_p / (problem.psi_n * problem.noise_draws) * square
        for tau in (0, 1):
            step = 2 * curves.kappa * TAUS[tau]
            # the contour is good to about 1e-7, second order in τ is left out
            np.testing.assert_allclose((1 - curves.test_loss[tau]) / step, overlap, rtol=0.01, atol=3e-7 / step)
            np.testing.assert_allclose((1 - curves.train_loss[tau]) / step, overlap + own, rtol=0.01, atol=3e-7 / step)
            rejects(functools.partial(np.testing.assert_allclose, (1 - curves.test_loss[tau]) / step, overlap / 2, rtol=0.1))


def test_convergence_is_the_limit_of_long_training(curves_a: LearningCurves, curves_b: LearningCurves) -> None:
    for curves in (curves_a, curves_b):
        assert TAUS[-2] * curves.kappa > 1e6
        for name in ("train_loss", "test_loss", "score_error"):
            values = getattr(curves, name)
            assert np.max(abs(values[-1] - values[-2])) < 1e-8
            assert np.max(abs(values[-1] - values[int(np.argmin(abs(TAUS - 300)))])) > 1e-5


@pytest.mark.thorough
def test_small_penalties_tend_to_convergence() -> None:
    problem = two_classes()
    penalties = np.array([8e-4, 4e-4, 2e-4])
    ridge = learning_curves(problem, rule=Ridge(penalties), tolerance=1e-8)
    flow = learning_curves(problem, TAUS, tolerance=1e-8)
    for c in range(2):
        gaps = ridge.test_loss[:, c] - flow.test_loss[-1, c]
        assert np.all(abs(gaps) > 1e-5)
        assert abs(loglog_slope(penalties, gaps) - 1) < 0.05
    gaps = ridge.total("train_loss") - flow.total("train_loss")[-1]
    assert np.all(gaps > 0), "its minimum"
    assert abs(loglog_slope(penalties, gaps) - 2) < 0.2


def test_score_error_is_affine_in_the_test_loss(curves_a: LearningCurves) -> None:
    signal = math.exp(-0.2) * np.array([1.5, 0.4])
    delta = -math.expm1(-0.2)
    np.testing.assert_allclose(curves_a.score_error, (curves_a.test_loss - signal / (signal + delta)) / delta, rtol=1e-10)
    assert np.all(curves_a.score_error > 0)


def test_gradient_descent_tends_to_the_flow_at_first_order() -> None:
    problem = one_class()
    flow = learning_curves(problem, TAUS)
    steps, gaps = np.array([0.2, 0.1, 0.05]), []
    for step in steps:
        curves = learning_curves(problem, TAUS, rule=GradientDescent(step))
        both = np.flatnonzero(np.isclose(curves.taus, TAUS, rtol=1e-12) & (TAUS >= 1) & (TAUS <= 1000))
        assert both.size >= 4
        gaps.append(np.max(abs(curves.test_loss - flow.test_loss)[both]))
        np.testing.assert_allclose(curves.test_loss[-1], flow.test_loss[-1], atol=1e-6)
    assert gaps[0] > 1e-3
    assert abs(loglog_slope(steps, gaps) - 1) < 0.1


def test_momentum_speeds_training_up_by_its_memory() -> None:
    """Small steps with momentum β follow the flow at time τ/(1 - β)."""
    problem, beta = one_class(), 0.75
    middle = (TAUS >= 1) & (TAUS <= 1000)
    flow = learning_curves(problem, TAUS / (1 - beta))
    ball = learning_curves(problem, TAUS, rule=HeavyBall(0.002, beta))
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(getattr(ball, name)[middle], getattr(flow, name)[middle], atol=2e-3)
    plain = learning_curves(problem, TAUS)
    rejects(lambda: np.testing.assert_allclose(ball.test_loss[middle], plain.test_loss[middle], atol=2e-3))


def test_a_step_too_large_is_refused() -> None:
    problem = one_class()
    allowed = []
    for rule in (GradientDescent(1e3), HeavyBall(1e3, 0.5)):
        with pytest.raises(
            ValueError, match=r"step_size: 1000 diverges, because the largest eigenvalue of U is .*; allowed: below"
        ) as caught:
            learning_curves(problem, [1.0, 2.0], rule=rule)
        allowed.append(float(str(caught.value).split("below ")[1]))
    assert abs(allowed[1] / allowed[0] - 1.5) < 1e-5, "momentum β stretches it by 1 + β"
    assert 0.2 < allowed[0] < 100, "which the steps of the tests above respect"


def test_at_the_interpolation_threshold_only_convergence_is_lost() -> None:
    """p = n m: the spectrum reaches 0, the limit τ → ∞ diverges, every finite time is there."""
    curves = learning_curves(one_class(1, psi_p=1.5, psi_n=1.5), np.delete(TAUS, -2))
    assert np.all(np.isnan(curves.test_loss[-1]))
    assert np.all(np.isnan(curves.train_loss[-1]))
    assert np.all(np.isfinite(curves.test_loss[:-1]))
    assert np.all(np.diff(curves.total("train_loss")[:-1]) < 1e-9)
    assert curves.error_estimate <= 1e-6


def test_beyond_it_training_interpolates() -> None:
    """p > n m: the atom at 0 carries no part of V, and the train loss goes to 0."""
    curves = learning_curves(one_class(1, psi_p=2.5, psi_n=1.0), TAUS)
    assert np.all(abs(curves.train_loss[-2:]) < 2e-6)
    assert np.all(curves.train_loss[:-8] > 1e-4)
    assert np.all(np.isfinite(curves.test_loss))


def test_flow_is_the_default_rule() -> None:
    problem = one_class()
    assert_same(learning_curves(problem, TAUS), learning_curves(problem, TAUS, rule=GradientFlow()), 1e-15)
