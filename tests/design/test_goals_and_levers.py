"""Goals as numbers, levers as room to move, and the neighbours of a problem that they reach."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.design import LearnedBefore, Levers, Setting, WeightedSum, WorstClass, goal_of, levers_of
from rfdiff.design.goals import checked_goal
from rfdiff.design.levers import LONGEST, WIDEST, moved, moved_rule
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import set_parameter
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD

PROBLEM = Problem(MixtureLaw.isotropic([0.2, 0.8], [1.5, 0.4]), "tanh", 0.1, 8.0, 4.0)
WEIGHTED = Problem(PROBLEM.mixture, "tanh", 0.1, 8.0, 4.0, loss_weights=[0.5, 0.5])


def test_goals_are_numbers_of_the_errors() -> None:
    errors = np.array([[1.0, 3.0], [2.0, 2.5]])
    np.testing.assert_array_equal(WorstClass().value(errors), [3.0, 2.5])
    np.testing.assert_allclose(WeightedSum((2.0, 1.0)).value(errors), [5.0, 6.5])
    assert isinstance(goal_of("worst-class", 2), WorstClass)
    assert goal_of("weighted-sum", 4) == WeightedSum((0.25,) * 4)
    assert goal_of("learned-before", 3, pair=(2, 0), descent=0.8) == LearnedBefore(2, 0, 0.8)
    assert "class 2 at 0.8 of its descent before class 0" in LearnedBefore(2, 0, 0.8).text()
    assert "2, 1" in WeightedSum((2.0, 1.0)).text()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: goal_of("best", 2), "goal: 'best'; allowed: worst-class, weighted-sum, learned-before"),
        (lambda: goal_of("weighted-sum", 2, weights=[1.0]), "weights: 1 given; allowed: 2"),
        (lambda: WeightedSum((0.0, 0.0)), "not all 0"),
        (lambda: WeightedSum((-1.0, 2.0)), "allowed: finite numbers >= 0"),
        (lambda: LearnedBefore(1, 1), "classes: 1 twice"),
        (lambda: LearnedBefore(0, 1, 1.0), "descent: 1.0; allowed: 0 < descent < 1"),
        (lambda: checked_goal(LearnedBefore(0, 2), 2), "classes: 0 and 2; allowed: two different ones of 0 to 1"),
        (lambda: levers_of((), 2), "levers: none given"),
        (
            lambda: levers_of(("loss_weights", "samples_2"), 2),
            "levers: samples_2; allowed: loss_weights, stop_time, psi_p, step, batch, averaging, samples_0, samples_1",
        ),
        (lambda: levers_of(("psi_p",), 2, 1.0), "factor: 1.0; allowed: 1 < factor <= 1000"),
    ],
)
def test_refusals(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()


def test_levers_have_room_where_they_may_move() -> None:
    room = levers_of(("loss_weights", "samples_0"), 2, 3.0).room(PROBLEM)
    np.testing.assert_allclose(room, np.array([[-WIDEST, WIDEST], [0, 0], [0, math.log(3)], *[[0, 0]] * 5]))
    room = Levers(False, True, True, (), 2.0).room(PROBLEM)
    np.testing.assert_allclose(room, np.array([*[[0, 0]] * 4, [-math.log(2), math.log(2)], *[[0, 0]] * 3]))
    assert levers_of(("psi_p", "stop_time"), 2).text() == "stop_time, psi_p"
    untrained = Problem(PROBLEM.mixture, "tanh", 0.1, 8.0, 4.0, loss_weights=[0.0, 1.0])
    np.testing.assert_array_equal(Levers().room(untrained), 0)  # no factor moves a weight of 0


@pytest.mark.parametrize("problem", [PROBLEM, WEIGHTED])
def test_a_neighbour_has_the_numbers_that_its_coordinates_say(problem: Problem) -> None:
    x = np.array([math.log(3), 0.0, math.log(2), 0.0, math.log(0.5), 0.0, 0.0, 0.0])
    there = moved(problem, x)
    by_name = set_parameter(set_parameter(problem, "samples_0", 1.6), "psi_p", 4.0)
    np.testing.assert_allclose(there.mixture.weights, by_name.mixture.weights)
    np.testing.assert_allclose(np.asarray([there.psi_n, there.psi_p]), np.asarray([by_name.psi_n, by_name.psi_p]))
    ratio = np.divide(*np.asarray(by_name.training_weights))
    np.testing.assert_allclose(np.divide(*np.asarray(there.loss_weights)), 3 * ratio)
    np.testing.assert_allclose(Setting(there, 1.0).samples, [1.6, 3.2])
    with jax.enable_x64(True):
        traced = jax.jit(lambda x: moved(problem, x).loss_weights)(x)
    np.testing.assert_allclose(np.asarray(traced), np.asarray(there.loss_weights))


def test_the_origin_is_the_problem_itself() -> None:
    there = moved(PROBLEM, np.zeros(8))
    np.testing.assert_allclose(np.asarray(there.loss_weights), PROBLEM.mixture.weights)
    assert (there.psi_n, there.psi_p) == (4.0, 8.0)


def test_levers_of_sgd_move_its_numbers() -> None:
    rule = MinibatchSGD(0.5, 2.0, momentum=0.3, averaging=0.9)
    levers = levers_of(("step", "averaging", "batch"), 2, 4.0)
    room = levers.room(PROBLEM, rule)
    np.testing.assert_allclose(room[-3:], np.log([[0.01, 100], [0.25, 4], [0.1, LONGEST / 10]]))
    np.testing.assert_array_equal(levers.room(PROBLEM), 0)  # gradient flow has none of these
    assert levers.of_rule == ("step", "batch", "averaging") and levers.text() == "step, batch, averaging"
    assert moved_rule(rule, np.zeros(8)).equals(rule)
    there = moved_rule(rule, np.array([*[0.0] * 5, *np.log([2, 0.5, 5])]))
    assert there.equals(MinibatchSGD(1.0, 1.0, momentum=0.3, averaging=there.averaging)) and there.averaging == pytest.approx(0.98)
    assert moved_rule(rule, room[:, 0]).averaging is None
