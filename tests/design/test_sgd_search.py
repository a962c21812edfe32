"""What a design finds for minibatch SGD, against a grid of settings; what it refuses."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import design, theory
from rfdiff.design import LearnedBefore, Levers, Proposal, WorstClass, propose
from rfdiff.design.best_settings import PENALTY
from rfdiff.design.levers import moved_rule
from rfdiff.design.search import Forms
from rfdiff.design.sgd_family import Families
from rfdiff.design.sgd_search import SGDSearch
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import HeavyBall, MinibatchSGD
from tests.theory.curve_cases import two_classes
from tests.tolerances import rejects

pytestmark = pytest.mark.usefixtures("full_optimisation")
PROBLEM, RULE = two_classes(), MinibatchSGD(0.5, 0.5)
OF_RULE = Levers(loss_weights=False, step=True, batch=True, averaging=True, factor=3.0)
WORST = Forms(np.eye(2), np.zeros(2))


@functools.cache
def search() -> SGDSearch:
    """A search with the budget of the unchanged setting."""
    made = SGDSearch(PROBLEM, RULE, 1e-4, None)
    unchanged = made.minimise(WORST, Levers(loss_weights=False).room(PROBLEM, RULE))
    made.spend(float(np.exp(unchanged.log_tau)))
    return made


def least_on_a_grid(families: Families, levers: Levers, sizes: tuple[int, int, int], forms: Forms = WORST) -> float:
    """The least goal of a dense grid over step, batch, memory and number of steps that keep to the rules, without any search."""
    room, origin, least = levers.room(PROBLEM, RULE), np.zeros(8), np.inf
    settings = families.family(origin).settings
    axes = [np.linspace(low, high, size) if high > low else np.zeros(1) for (low, high), size in zip(room[-3:], sizes, strict=True)]
    for numbers in itertools.product(*axes):
        rule = moved_rule(RULE, np.append(origin[:5], numbers))
        if float(rule.step_size) > settings.edge / 2 or settings.radius(rule) > 0.5:
            continue
        last = families.budget / float(rule.batch_per_dimension)
        steps = np.unique(np.floor(np.geomspace(1, last, 60) + 1e-9))
        least = min(least, float(np.min(forms.value(settings.score_errors(settings.losses(rule, steps)[1])))))
    return least


@pytest.mark.thorough
@pytest.mark.parametrize("names", [("step",), ("averaging",)])
def test_one_number_of_the_rule_is_as_good_as_on_a_grid(names: tuple[str, ...]) -> None:
    levers = dataclasses.replace(OF_RULE, step="step" in names, batch="batch" in names, averaging="averaging" in names)
    found = search().minimise(WORST, levers.room(PROBLEM, RULE))
    grid = least_on_a_grid(search().families, levers, (40, 1, 40))
    assert grid * (1 - 0.01) < found.goal < grid * (1 + 1e-3)
    rule = moved_rule(RULE, found.x)
    visited = np.exp(found.log_tau) / float(rule.step_size) * float(rule.batch_per_dimension)
    assert visited <= search().families.budget * (1 + 1e-9)
    curves = theory.learning_curves(PROBLEM, [np.exp(found.log_tau)], rule=rule)
    np.testing.assert_allclose(curves.score_error[0], found.errors, atol=1e-3)


@pytest.mark.slow
def test_all_numbers_of_the_rule_are_as_good_as_on_a_grid() -> None:
    found = search().minimise(WORST, OF_RULE.room(PROBLEM, RULE))
    grid = least_on_a_grid(search().families, OF_RULE, (13, 7, 17))
    assert found.goal < grid * (1 + 1e-3)
    assert found.goal > 0.98 * grid  # and the grid comes close to it
    alone = [search().minimise(WORST, dataclasses.replace(OF_RULE, step=False, batch=False).room(PROBLEM, RULE)).goal]
    assert found.goal < min(alone)
    level = found.errors[0] * 1.05  # a point of the front: the other class, while this one may not exceed a level
    forms = Forms(np.array([[0.0, 1.0], [PENALTY, 1.0]]), np.array([0.0, PENALTY * level]))
    ahead = search().minimise(forms, OF_RULE.room(PROBLEM, RULE), found.x)
    assert ahead.goal < least_on_a_grid(search().families, OF_RULE, (13, 7, 17), forms) * (1 + 3e-3)


@pytest.mark.slow
def test_a_class_is_learned_before_another_is_memorised_as_on_a_grid() -> None:
    goal, room = LearnedBefore(0, 1, 0.9), dataclasses.replace(OF_RULE, batch=False).room(PROBLEM, RULE)
    made = SGDSearch(PROBLEM, RULE, 1e-4, None)
    unchanged, found = made.learned_before(goal, np.zeros((8, 2))), made.learned_before(goal, room)
    curves = theory.learning_curves(PROBLEM, 0.5 * np.unique(np.rint(np.geomspace(1, 3e4, 300))), rule=RULE)
    descent = 1 - curves.test_loss[:, 0]
    assert np.exp(unchanged.log_tau) == pytest.approx(curves.taus[np.argmax(descent >= 0.9 * descent.max())], rel=0.05)
    ratios = []
    for numbers in itertools.product(np.linspace(room[-3, 0], room[-3, 1], 9), np.linspace(room[-1, 0], room[-1, 1], 12)):
        x = np.append(np.zeros(5), [numbers[0], 0, numbers[1]])
        if float(moved_rule(RULE, x).step_size) <= made.families.family(x).largest_step(0.5):
            ratios.append(np.divide(*made.families.complete(x, room).times(goal)))
    assert found.goal <= np.nanmin(ratios) * 1.005 and found.goal <= unchanged.goal


@pytest.mark.slow
def test_loss_weights_of_balanced_batches_are_as_good_as_on_a_grid() -> None:
    """Every weight is another problem, whose spectrum the search follows; the grid makes each from nothing."""
    problem = dataclasses.replace(PROBLEM, loss_weights=np.array([0.5, 0.5]))
    made = SGDSearch(problem, dataclasses.replace(RULE, sampling="balanced"), 1e-4, None)
    room = Levers().room(problem, made.rule)
    found, unchanged = made.minimise(WORST, room), made.minimise(WORST, 0 * room)
    logarithms = np.linspace(-4, 4, 33)
    places = np.outer(logarithms, np.flatnonzero(room[:, 1])[0] == np.arange(8))
    goals = []
    for x in places:
        settings, rule = made.families.family(x, careful=True).settings, made.families.admitted(x, room)
        goals.append(np.min(WORST.value(settings.score_errors(settings.losses(rule, np.arange(1.0, 400))[1]))))
    assert min(goals) * 0.99 < found.goal < min(goals) * (1 + 1e-3)
    assert found.goal < 0.99 * unchanged.goal
    assert found.x[places[0] != 0][0] == pytest.approx(logarithms[int(np.argmin(goals))], abs=0.5)


@functools.cache
def proposed() -> Proposal:
    return propose(PROBLEM, WorstClass(), dataclasses.replace(OF_RULE, batch=False), rule=RULE)


@pytest.mark.slow
def test_a_proposal_states_its_price_and_networks_confirm_it(tmp_path: Any) -> None:
    found = proposed()
    assert found.visited is not None and found.budget is not None
    assert found.budget == pytest.approx(found.visited[0]) and np.all(found.visited <= found.budget * (1 + 1e-9))
    assert found.goal[-1] < 0.95 * found.goal[0] and found.goal[1] == found.goal[0]
    # flat from where the best of the other class alone leaves this one no worse than it is
    assert np.all(np.diff(found.front_score_error[:, found.worst]) >= -5e-3)
    text = "\n".join(found.advice())
    for words in ("step ", "batch ", "averaging", "it visits", "no lever of uniform batches"):
        assert words in text
    again = design.Proposal.from_xarray(found.to_xarray())
    assert again.equals(found)
    setting = found.setting(PROBLEM, "best", RULE)
    curves = theory.learning_curves(setting.problem, [setting.tau], rule=setting.rule)
    np.testing.assert_allclose(curves.score_error[0], found.score_error[-1], atol=1e-3)
    trial = design.verify(found, PROBLEM, d=60, key=jax.random.key(1), num_seeds=6, rule=RULE)
    assert trial.difference[found.worst] + 4 * trial.difference_stderr[found.worst] < 0
    assert np.all(abs(trial.means - trial.predicted) < 4 * trial.stderr + 0.1 * trial.predicted)
    rejects(lambda: np.testing.assert_array_less(abs(trial.means[::-1] - trial.predicted), 4 * trial.stderr + 0.05 * trial.predicted))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": HeavyBall(0.5, 0.5)}, "rule: 'heavy-ball'; allowed: gradient-flow or sgd"),
        ({"levers": OF_RULE}, "levers: step, batch, averaging; allowed: with rule sgd"),
        ({"budget": 3.0}, "budget: 3.0; allowed: with rule sgd"),
        ({"rule": RULE, "levers": Levers()}, "levers: loss_weights with uniform batches.*; allowed: with sampling balanced or weighted"),
        ({"rule": RULE, "levers": OF_RULE, "budget": 0.4}, "budget: 0.4; allowed: a finite number .* at least the 0.5 of the unchanged"),
        ({"rule": RULE, "levers": dataclasses.replace(OF_RULE, stop_time=False), "tau": np.inf}, "tau: inf, which visits any number"),
        (
            {"rule": RULE, "levers": dataclasses.replace(OF_RULE, stop_time=False), "tau": 10.0, "budget": 9.0},
            "budget: 9.0; allowed: .* at least the 10 of",
        ),
    ],
)
def test_refused_before_anything_is_computed(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        propose(PROBLEM, WorstClass(), **options)


def test_a_class_that_is_not_trained_is_refused() -> None:
    """No factor moves a weight of 0, and its samples do nothing: every answer about it would be empty."""
    silent = dataclasses.replace(PROBLEM, loss_weights=np.array([1.0, 0.0]))
    with pytest.raises(InputError, match=r"^loss_weights: 0 for class 1, which a design moves by factors; allowed: weights > 0"):
        propose(silent, WorstClass())


def test_weights_that_may_be_given_or_not() -> None:
    """Uniform batches take weights that are the fractions; balanced ones begin at the fractions where none are given."""
    given = dataclasses.replace(PROBLEM, loss_weights=np.asarray(PROBLEM.mixture.weights))
    for problem, rule in ((given, RULE), (PROBLEM, dataclasses.replace(RULE, sampling="balanced"))):
        design.checked_design(problem, WorstClass(), OF_RULE, rule=rule)


@pytest.mark.thorough
def test_sgd_that_diverges_is_refused_with_its_bounds() -> None:
    problem: Problem = PROBLEM
    stable = theory.sgd_stability(problem, rule=MinibatchSGD(0.5, 0.01))
    assert not stable.converges
    with pytest.raises(InputError, match="^step_size: 0.5 diverges by the noise of batches of 0.01 d.*; allowed: below ") as caught:
        propose(problem, WorstClass(), OF_RULE, rule=MinibatchSGD(0.5, 0.01))
    assert f"batch_per_dimension above {stable.smallest_batch:.6g}" in str(caught.value)
    with pytest.raises(InputError, match="^step_size: 100 diverges, because the largest eigenvalue"):
        propose(problem, WorstClass(), OF_RULE, rule=MinibatchSGD(100.0, 0.5))
