"""Curves from few coupled directions, extrapolated to all: polynomials, the cores that are tried, curves against all directions."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.linalg import expm

from rfdiff import LearningCurves, theory
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.noncommuting import core_ladder, dense
from rfdiff.theory.noncommuting.working_basis import Matrices
from tests.tolerances import rejects

TAUS = np.geomspace(0.1, 1e4, 12)


def turned(d: int, decay: float, angle: float = 0.5) -> MixtureLaw:
    """Two classes whose variances fall like k^-decay, in bases turned against each other: no direction is left uncoupled."""
    rng = np.random.default_rng(2)
    variances = np.arange(1, d + 1.0) ** -decay
    variances = 0.5 * d * variances / variances.sum() + 0.01
    basis, turn = np.linalg.qr(rng.standard_normal((d, d)))[0], rng.standard_normal((d, d)) / np.sqrt(d)
    other = basis @ expm(angle * (turn - turn.T))
    covariances = np.stack([basis * variances @ basis.T, other * (0.6 * variances) @ other.T])
    return MixtureLaw.from_covariances([0.6, 0.4], covariances)


def problem(law: MixtureLaw) -> Problem:
    return Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


@pytest.mark.parametrize("order", [1, 2])
def test_weights_are_those_of_the_polynomial_through_the_points(order: int) -> None:
    left_out = [0.9, 0.4, 0.15, 0.02]
    for n in (2, 3, 4):
        x, powers = np.array(left_out[-n:]), [0, *range(order, order + n - 1)]
        values = sum((number + 1.0) * x**power for number, power in enumerate(powers))
        assert abs(core_ladder.weights_at_none(x.tolist(), order) @ values - 1) < 1e-12
        assert abs(core_ladder.weights_at_none((x + 0.1).tolist(), order) @ values - 1) > 1e-3, "of other points they are not"


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("num_cores", [3, 4])
def test_errors_cover_what_the_extrapolation_misses(num_cores: int, order: int) -> None:
    """Losses that bend with the coupling, as those of real laws do; one that jumps after the last core cannot be foretold."""
    left_out = list(0.1 * 0.5 ** np.arange(num_cores))
    bend = np.linspace(-2, 2, 5)[None, :, None]

    def loss(x: float) -> np.ndarray:
        return 1 + 0.2 * x**order * np.exp(bend * x) + 0.05 * x ** (order + 0.5) + np.zeros((2, 5, 2))

    found, error, weights = core_ladder.extrapolated(left_out, [loss(x) for x in left_out], order)
    assert (len(weights) == 3 or order == 2) and 0 < np.max(abs(found - loss(0.0))) < error
    assert error < (0.4, 2.0)[order - 1] * np.max(abs(loss(left_out[-1]) - loss(0.0))), "three terms begin with x"
    assert core_ladder.extrapolated(left_out, [loss(x) * np.nan for x in left_out], order)[1] == np.inf
    assert core_ladder.extrapolated([0.1] * num_cores, [loss(0.1)] * num_cores, order)[1] == np.inf, "cores that couple nothing more"


@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.95])
def test_two_terms_cover_a_rest_of_another_order(ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_ladder, "LEAST", np.inf)  # three terms would be exact
    left_out = list(0.5 * ratio ** np.arange(3))
    found, error, weights = core_ladder.extrapolated(left_out, [np.full((2, 1, 1), 1 + 0.01 * x) for x in left_out], 2)
    assert len(weights) == 2 and 0.3 * error < abs(found - 1).max() < error


def test_two_terms_where_the_coupling_falls_slowly() -> None:
    """A slope that differs by a third from one core to the next, as with images: three terms would make that many times larger."""
    left_out, slopes, losses = [0.58, 0.57, 0.55, 0.51], [2.4e-3, 1.6e-3, 2.4e-3], [np.full((2, 1, 1), 0.2)]
    for before, after, slope in zip(left_out, left_out[1:], slopes, strict=False):
        losses.append(losses[-1] - slope * (before**2 - after**2))
    for n in (3, 4):
        found, error, weights = core_ladder.extrapolated(left_out[:n], losses[:n], 2)
        rest = np.array([1.5e-3, 2.5e-3]) * left_out[n - 1] ** 2
        assert len(weights) == 2 and np.max(abs(losses[n - 1] - rest - found)) < error < 1.5e-3
        linear = [0.2 - 2e-3 * (left_out[0] - x) for x in left_out[:n]]  # a rest of order x, taken as one of x²
        assert (
            abs(core_ladder.extrapolated(left_out[:n], [np.full((2, 1, 1), y) for y in linear], 2)[0] - (0.2 - 2e-3 * left_out[0])).max()
            < 1e-9
        )
        with_three = np.tensordot(core_ladder.weights_at_none(left_out[n - 3 : n], 1), np.stack(losses[n - 3 : n]), 1)
        assert np.max(abs(with_three - found)) > 2e-3


@pytest.mark.thorough
def test_cores_grow_until_so_little_is_left_out_that_the_tolerance_does_not_see_it() -> None:
    basis = dense.basis_for(problem(turned(256, 1.5)))
    sizes = core_ladder.core_sizes(basis, 1e-5)
    left = basis.left_out[sizes]
    assert len(sizes) > 3 and sizes[0] == core_ladder.FEWEST and left[-1] <= 1e-5 < left[-2]
    assert np.all(np.diff(np.log(sizes[:-1])) > math.log(0.98 * core_ladder.GROWTH[0])) and np.all(left[1:] <= core_ladder.FALL * left[:-1])
    flat = dense.basis_for(problem(turned(256, 0.0)))  # one variance in all directions but for the turn: nothing is coupled
    assert len(core_ladder.core_sizes(flat, 1e-5)) == 1
    assert core_ladder.core_sizes(basis, 0.0)[-1] == 256


@pytest.mark.thorough
def test_stored_draws_meet_the_tolerance_on_the_first_contour(monkeypatch: pytest.MonkeyPatch) -> None:
    """What V is known to be holds for training samples that meet their own noise too, with class variances that are not 1."""
    contours: list[int] = []
    evaluate = core_ladder.evaluate

    def counted(*args: Any) -> Any:
        contours.append(len(args[3].contour.nodes))
        return evaluate(*args)

    monkeypatch.setattr(core_ladder, "evaluate", counted)
    question = Problem(turned(12, 1.5), "tanh", t=0.1, psi_p=4.0, psi_n=3.0, noise_draws=2)
    assert theory.learning_curves(question, TAUS, tolerance=1e-3).error_estimate <= 1e-3 and len(contours) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(("draws", "tolerance"), [(math.inf, 1e-3), pytest.param(2, 3e-3, marks=pytest.mark.slow)])
def test_curves_are_those_of_all_directions(draws: float, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the error that they state, which the last core by itself is not."""
    question = Problem(turned(96, 1.5), "tanh", t=0.1, psi_p=4.0, psi_n=3.0, noise_draws=draws)
    cores: list[int] = []
    with_core = dense.with_core

    def counted(near: Equivalent, start: Equivalent, core: Matrices, *outside: Any) -> dense.Dense:
        cores.append(core.core.shape[1])
        return with_core(near, start, core, *outside)

    monkeypatch.setattr(dense, "with_core", counted)
    whole = theory.learning_curves(question, TAUS, tolerance=tolerance)
    assert len(cores) == 1 and cores[0] > 90  # too few directions for a ladder
    cores.clear()
    monkeypatch.setattr(core_ladder, "FEWEST", 14)
    climbed = theory.learning_curves(question, TAUS, tolerance=tolerance)
    assert len(cores) >= 3 and cores[-1] < 60 and climbed.error_estimate <= tolerance

    def within(curves: LearningCurves, error: float) -> None:
        for name in ("train_loss", "test_loss"):
            assert np.max(abs(getattr(curves, name) - getattr(whole, name))) < error

    within(climbed, climbed.error_estimate + whole.error_estimate)
    monkeypatch.setattr(core_ladder, "weights_at_none", lambda left_out, order: np.eye(len(left_out))[-1])  # the last core by itself
    rejects(lambda: within(theory.learning_curves(question, TAUS, tolerance=tolerance), climbed.error_estimate))


def unlike(d: int) -> MixtureLaw:
    """Three classes with centroids, each with its variances in a basis of its own."""
    rng = np.random.default_rng(5)
    variances = np.arange(1, d + 1.0) ** -1.5
    variances = 0.5 * d * variances / variances.sum() + 0.01
    turns = [expm(0.4 * (x - x.T)) for x in rng.standard_normal((3, d, d)) / np.sqrt(d)]
    covariances = np.stack([turn * (scale * variances) @ turn.T for turn, scale in zip(turns, (1.0, 0.7, 1.2), strict=True)])
    return MixtureLaw.from_covariances([0.5, 0.3, 0.2], covariances, 0.4 * rng.standard_normal((3, d)))


def test_nearly_commuting_classes_need_no_core() -> None:
    """Five classes that differ in their eigenvectors by 1e-6: no direction is coupled."""
    rng = np.random.default_rng(1)
    variances, turn = np.geomspace(2, 0.1, 8), rng.standard_normal((8, 8))
    bases = [expm(1e-6 * c * (turn - turn.T)) for c in range(5)]
    law = MixtureLaw.from_covariances(np.full(5, 0.2), np.stack([b * variances @ b.T for b in bases]), np.eye(5, 8))
    assert not law.commuting
    near = dense.basis_for(problem(law))
    assert core_ladder.core_sizes(near, 1e-4, 4) == [0]


@pytest.mark.thorough
@pytest.mark.parametrize("many", [core_ladder.MANY, 3])
def test_three_classes_say_what_their_cores_reach(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the largest core is not large enough for the tolerance, losses are extrapolated all the same, with an error that holds."""
    question = problem(unlike(48))
    whole = theory.learning_curves(question, TAUS, tolerance=1e-3)
    monkeypatch.setattr(core_ladder, "FEWEST", 8)
    monkeypatch.setattr(core_ladder, "FEWEST_OF_MANY", 4)
    monkeypatch.setattr(core_ladder, "MANY", many)

    def off(curves: LearningCurves) -> float:
        return max(float(np.max(abs(getattr(curves, name) - getattr(whole, name)))) for name in ("train_loss", "test_loss"))

    for most, enough in ((48, False), (72, True)):
        monkeypatch.setattr(core_ladder, "MOST_EQUATIONS", most)
        curves = theory.learning_curves(question, TAUS, tolerance=1e-3)
        assert (curves.error_estimate <= 1e-3) is enough and off(curves) < curves.error_estimate < 10e-3
    monkeypatch.setattr(core_ladder, "weights_at_none", lambda left_out, order: np.eye(len(left_out))[-1])  # the last core by itself
    assert off(theory.learning_curves(question, TAUS, tolerance=1e-3)) > 1e-3
