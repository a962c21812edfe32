"""The search for the best setting: unchanged, by weights, by samples, by all levers, and the trade-off front between the classes."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from rfdiff.design.goals import Goal, LearnedBefore, WeightedSum, WorstClass, checked_goal
from rfdiff.design.levers import Levers, Setting, moved, moved_rule
from rfdiff.design.proposals import SETTINGS, Proposal
from rfdiff.design.search import Forms, Point, Search
from rfdiff.design.sgd_search import SGDSearch
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.theory.minibatch import check_covered
from rfdiff.value_types import as_number

FRONT = 7  # settings on the trade-off front, with its two ends
FRONT_ROUNDS = 1  # steps for each of them, which begin at its neighbour
PENALTY = 30.0  # above the slope of any front worth following
TIED = 0.02  # relative difference of two score errors below which both classes count as the worst


def propose(
    problem: Problem,
    goal: Goal = WorstClass(),
    levers: Levers = Levers(),
    *,
    tau: float | None = None,
    rule: GradientFlow | MinibatchSGD = GradientFlow(),
    budget: float | None = None,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
) -> Proposal:
    """The best setting of a problem for a goal: by derivatives of the theory for gradient flow, without for minibatch SGD.

    With SGD step, batch and averaging may be levers too (momentum, weight decay and sampling stay as given). What they gain costs
    computation, so the price is bounded: the samples over d that a training visits, steps times batch. The step stays below half of that at
    which the whole gradient diverges, the batch above twice the smallest stable one (`theory.sgd_stability`). Loss weights, samples and ψ_p
    are searched jointly with the numbers of the rule (`sgd_search`).

    Args:
        problem: the problem as it is, K ≥ 2 classes.
        goal: `WorstClass`, `WeightedSum` or `LearnedBefore`.
        levers: what may change.
        tau: the stop time where it is no lever; inf for convergence.
        rule: gradient flow, with or without weight decay and averaging; or minibatch SGD, for centred classes and odd activations.
        budget: visited samples over d of SGD, at most; None for those of the unchanged setting up to its best stop time where step, batch
            or averaging may change, and for no bound elsewhere.
        tolerance: numerical error wanted of a loss.
        progress: called with (searches done, searches in all).

    Returns:
        `Proposal`.

    Raises:
        InputError: one class; a goal, levers, a rule or a budget that do not fit; a stop time that is missing, or given beside the lever;
            SGD that diverges as it is, with the numbers of `theory.sgd_stability`; what the theory refuses.
    """
    require_progress(progress)
    goal = checked_design(problem, goal, levers, tau=tau, rule=rule, budget=budget)
    if isinstance(rule, MinibatchSGD) and rule.sampling == "uniform":  # the weights are the fractions, and follow the samples
        problem = dataclasses.replace(problem, loss_weights=None)
    search = SGDSearch(problem, rule, tolerance, tau) if isinstance(rule, MinibatchSGD) else Search(problem, rule, tolerance, tau)
    done = 0

    def told(point: Point) -> Point:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(SETTINGS) + FRONT)
        return point

    none = dataclasses.replace(levers, loss_weights=False, psi_p=False, samples=(), step=False, batch=False, averaging=False)
    if budget is not None and isinstance(search, SGDSearch):
        search.spend(budget)
    unchanged = told(_searched(search, goal, none))
    if budget is None and levers.of_rule and isinstance(rule, MinibatchSGD) and isinstance(search, SGDSearch):
        budget = float(_visited(rule, unchanged))
        search.spend(budget)
    weighs = not (isinstance(rule, MinibatchSGD) and rule.sampling == "uniform")
    by_weights = dataclasses.replace(none, loss_weights=weighs)
    weights = told(_searched(search, goal, by_weights) if weighs else unchanged)
    grown = {c: _searched(search, goal, dataclasses.replace(none, samples=(c,))) for c in _worst(goal, unchanged)}
    worst = min(grown, key=lambda c: grown[c].goal)
    samples = told(grown[worst])
    found = {none: unchanged, by_weights: weights, dataclasses.replace(none, samples=(worst,)): samples}
    best = told(found[levers] if levers in found else _searched(search, goal, levers))
    within = [unchanged, *[weights] * levers.loss_weights, *[samples] * (worst in levers.samples)]
    best = min((best, *within), key=lambda point: point.goal)  # with more levers a search may end in a worse place
    front = _front(search, levers, unchanged, worst, told)
    return _collected(problem, rule, goal, levers, worst, [unchanged, weights, samples, best], front, budget)


def _worst(goal: Goal, unchanged: Point) -> list[int]:
    """Classes of which one is the worst: that of the largest score error, and those within `TIED` of it.

    At the stop time that makes the largest error small, two classes have the same, and it takes a search to tell whose samples help.
    """
    if isinstance(goal, LearnedBefore):
        return [goal.learned]
    return np.flatnonzero(unchanged.errors >= (1 - TIED) * unchanged.errors.max()).tolist()


def checked_design(
    problem: Problem,
    goal: Goal,
    levers: Levers,
    *,
    tau: float | None = None,
    rule: GradientFlow | MinibatchSGD = GradientFlow(),
    budget: float | None = None,
) -> Goal:
    """The goal, if everything that `propose` is given fits together; arguments as there. Nothing is computed.

    Raises:
        InputError: as `propose`.
    """
    if problem.num_classes < 2:
        raise InputError("problem: 1 class; allowed: at least 2, between which a design weighs")
    if np.any(np.asarray(problem.training_weights) == 0):
        zero = int(np.argmin(np.asarray(problem.training_weights)))
        raise InputError(f"loss_weights: 0 for class {zero}, which a design moves by factors; allowed: weights > 0")
    if levers.stop_time != (tau is None):
        what = "given although the stop time is a lever" if levers.stop_time else "missing, and the stop time is no lever"
        raise InputError(f"tau: {what}; allowed: one of the two")
    if tau is not None and not as_number(tau) > 0:
        raise InputError(f"tau: {tau!r}; allowed: a number > 0, or inf")
    if isinstance(goal, LearnedBefore) and not levers.stop_time:
        raise InputError("levers: no stop_time; allowed: with stop_time where a class is to be learned before another is memorised")
    _check_rule(problem, rule, levers, tau, budget)
    return checked_goal(goal, problem.num_classes)


def _check_rule(problem: Problem, rule: GradientFlow | MinibatchSGD, levers: Levers, tau: float | None, budget: float | None) -> None:
    """Refuse rules that are not searched, and levers, stop times and budgets that do not go with the rule."""
    if isinstance(rule, GradientFlow):
        if levers.of_rule:
            raise InputError(f"levers: {', '.join(levers.of_rule)}; allowed: with rule sgd")
        if budget is not None:
            raise InputError(f"budget: {budget!r}; allowed: with rule sgd, which visits samples")
        return
    if not isinstance(rule, MinibatchSGD):
        raise InputError(f"rule: {getattr(rule, 'name', rule)!r}; allowed: gradient-flow or sgd")
    check_covered(moved(problem, np.zeros(2 * problem.num_classes + 4)) if rule.sampling != "uniform" else problem, rule)
    if levers.loss_weights and rule.sampling == "uniform":
        raise InputError(
            "levers: loss_weights with uniform batches, which take samples as they come; allowed: with sampling balanced or weighted"
        )
    if tau is not None and np.isinf(tau) and (levers.of_rule or budget is not None):
        raise InputError("tau: inf, which visits any number of samples; allowed: a finite one where step, batch or averaging may change")
    if budget is None:
        return
    batch = float(rule.batch_per_dimension)
    least = batch if tau is None else batch * tau / float(rule.step_size)
    if not least <= as_number(budget) < np.inf:
        raise InputError(
            f"budget: {budget!r}; allowed: a finite number of samples over d, at least the {least:.6g} of the unchanged setting"
        )


def _visited(rule: MinibatchSGD, point: Point) -> float:
    """Samples over d that a point visits."""
    there = moved_rule(rule, point.x)
    return float(np.exp(point.log_tau)) / float(there.step_size) * float(there.batch_per_dimension)


def _searched(search: Search | SGDSearch, goal: Goal, levers: Levers) -> Point:
    """The best point that some levers reach."""
    room, k = levers.room(search.problem, search.rule), search.problem.num_classes
    if isinstance(goal, LearnedBefore):
        return search.learned_before(goal, room)
    rows = np.asarray(goal.weights)[None] if isinstance(goal, WeightedSum) else np.eye(k)
    forms = Forms(rows, np.zeros(len(rows)))
    if len(levers.samples) == 1 and not (levers.loss_weights or levers.psi_p or levers.of_rule):
        return search.along(forms, room[:, 1])
    return search.minimise(forms, room)


def _front(search: Search | SGDSearch, levers: Levers, unchanged: Point, worst: int, told: Callable[[Point], Point]) -> list[Point]:
    """Settings from the best for one class to the best for the mean of the others that leaves that class no worse than it is unchanged.

    Between the ends the mean of the others is made small while the error of the class may not exceed a level, which rises from end to end:
    each setting is allowed at the next level, where the search goes on from it. An exact penalty does this:
    mean + PENALTY max(0, error - level) is a maximum of two linear forms.
    """
    fractions = np.asarray(search.problem.mixture.weights) * (np.arange(search.problem.num_classes) != worst)
    own, others = np.eye(len(fractions))[worst], fractions / fractions.sum()
    room = levers.room(search.problem, search.rule)
    best = told(search.minimise(Forms(own[None], np.zeros(1)), room))
    rows, points = np.stack([others, others + PENALTY * own]), [best]
    for level in np.linspace(best.errors[worst], unchanged.errors[worst], FRONT)[1:]:
        points.append(told(search.minimise(Forms(rows, np.array([0.0, PENALTY * level])), room, points[-1].x, FRONT_ROUNDS)))
    return points


def _collected(
    problem: Problem,
    rule: GradientFlow | MinibatchSGD,
    goal: Goal,
    levers: Levers,
    worst: int,
    points: list[Point],
    front: list[Point],
    budget: float | None,
) -> Proposal:
    settings, ahead = ([Setting(moved(problem, point.x), float(np.exp(point.log_tau))) for point in some] for some in (points, front))
    return Proposal(
        goal=np.array([point.goal for point in points]),
        tau=np.array([setting.tau for setting in settings]),
        score_error=np.stack([point.errors for point in points]),
        loss_weights=np.stack([np.asarray(setting.problem.loss_weights) for setting in settings]),
        samples=np.stack([setting.samples for setting in settings]),
        psi_p=np.array([float(setting.problem.psi_p) for setting in settings]),
        front_score_error=np.stack([point.errors for point in front]),
        front_tau=np.array([setting.tau for setting in ahead]),
        front_loss_weights=np.stack([np.asarray(setting.problem.loss_weights) for setting in ahead]),
        front_samples=np.stack([setting.samples for setting in ahead]),
        front_psi_p=np.array([float(setting.problem.psi_p) for setting in ahead]),
        error_estimate=max(point.numerical for point in (*points, *front)),
        what=goal.text(),
        levers=levers.text(),
        worst=worst,
        factor=levers.factor,
        **({} if isinstance(rule, GradientFlow) else _numbers_of_sgd(rule, points, front)),
        budget=budget,
        sampling=None if isinstance(rule, GradientFlow) else rule.sampling,
    )


def _numbers_of_sgd(rule: MinibatchSGD, points: list[Point], front: list[Point]) -> dict[str, Float[np.ndarray, "..."]]:
    """Step, batch, average and price of the settings and of those on the front."""
    numbers = {}
    for prefix, some in (("", points), ("front_", front)):
        rules = [moved_rule(rule, point.x) for point in some]
        numbers[f"{prefix}step_size"] = np.array([float(each.step_size) for each in rules])
        numbers[f"{prefix}batch"] = np.array([float(each.batch_per_dimension) for each in rules])
        numbers[f"{prefix}averaging"] = np.array([float(each.averaging or 0.0) for each in rules])
        numbers[f"{prefix}visited"] = np.array([_visited(rule, point) for point in some])
    return numbers
