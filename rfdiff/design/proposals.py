"""The setting that serves a goal best, what it costs the other classes, and whether weights of the loss help at all."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from rfdiff.design.goals import Goal, LearnedBefore, WeightedSum, WorstClass, checked_goal
from rfdiff.design.levers import Levers, Setting, moved
from rfdiff.design.search import Forms, Point, Search
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, labelled_dataset, static_attributes
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow
from rfdiff.value_types import as_number, static, value_type

if TYPE_CHECKING:
    import xarray as xr

HELPS = 0.1  # share of the goal that a lever must take off to count as help
FRONT = 7  # settings on the trade-off front, with its two ends
FRONT_ROUNDS = 1  # steps for each of them, which begin at its neighbour
PENALTY = 30.0  # above the slope of any front worth following
SETTINGS = ("unchanged", "weights", "samples", "best")


@value_type
class Proposal(Labelled):
    """A design: four settings and a trade-off front (F settings, K classes).

    The settings are: the problem as it is; the best loss weights; the most samples of the class with the largest score error; the best use
    of all levers. All stop at their best time, unless the stop time is no lever.

    Args:
        goal: (4,) the number that was to be small, at each setting.
        tau: (4,) stop times.
        score_error: (4, K) score errors there.
        loss_weights: (4, K) weights of the classes in the training loss.
        samples: (4, K) samples of each class over d.
        psi_p: (4,) features over d.
        front_score_error, front_tau, front_loss_weights, front_samples, front_psi_p: the same (F, ...) on the front between the class
            with the largest score error and the mean of the others; the best setting for the former first, its error unchanged last.
        error_estimate: largest numerical error of a loss.
        what: the goal in words.
        levers: the levers in words.
        worst: class with the largest score error at the unchanged setting (of "learned before": the class to be learned).
        factor: largest change of a number of samples or features.
    """

    goal: Float[np.ndarray, " 4"]
    tau: Float[np.ndarray, " 4"]
    score_error: Float[np.ndarray, "4 K"]
    loss_weights: Float[np.ndarray, "4 K"]
    samples: Float[np.ndarray, "4 K"]
    psi_p: Float[np.ndarray, " 4"]
    front_score_error: Float[np.ndarray, "F K"]
    front_tau: Float[np.ndarray, " F"]
    front_loss_weights: Float[np.ndarray, "F K"]
    front_samples: Float[np.ndarray, "F K"]
    front_psi_p: Float[np.ndarray, " F"]
    error_estimate: float
    what: str = static()
    levers: str = static()
    worst: int = static()
    factor: float = static()

    LABELS: ClassVar = {
        "goal": Label(("setting",), "the number that was to be small"),
        "tau": Label(("setting",), "stop time", "tau"),
        "score_error": Label(("setting", "class"), "squared distance to the exact score on the class, per coordinate"),
        "loss_weights": Label(("setting", "class"), "weight of the class in the training loss"),
        "samples": Label(("setting", "class"), "training samples of the class per dimension"),
        "psi_p": Label(("setting",), "features per dimension"),
        "front_score_error": Label(("front", "class"), "score error of the class on the trade-off front"),
        "front_tau": Label(("front",), "stop time on the front", "tau"),
        "front_loss_weights": Label(("front", "class"), "weight of the class in the training loss on the front"),
        "front_samples": Label(("front", "class"), "training samples of the class per dimension on the front"),
        "front_psi_p": Label(("front",), "features per dimension on the front"),
        "error_estimate": Label((), "largest numerical error of a loss"),
    }

    def setting(self, problem: Problem, name: str = "best") -> Setting:
        """One of the settings as a problem and a stop time.

        Args:
            problem: the unchanged problem.
            name: one of `SETTINGS`.

        Raises:
            InputError: another name.
        """
        if name not in SETTINGS:
            raise InputError(f"name: {name!r}; allowed: {', '.join(SETTINGS)}")
        i, k = SETTINGS.index(name), problem.num_classes
        x = np.zeros(2 * k + 1)
        x[k : 2 * k] = np.log(self.samples[i] / Setting(problem, np.inf).samples)
        x[-1] = np.log(self.psi_p[i] / float(problem.psi_p))
        there = moved(problem, x)
        return Setting(Problem(**{**vars(there), "loss_weights": self.loss_weights[i]}), float(self.tau[i]))

    def gain(self, name: str) -> float:
        """Share of the goal that a setting takes off the unchanged one."""
        return float(1 - self.goal[SETTINGS.index(name)] / self.goal[0])

    def advice(self) -> list[str]:
        """What to do, in sentences: what the best setting gains and costs, and whether weights or samples do it."""
        before, best = self.goal[0], self.goal[-1]
        lines = [f"{self.what}: {before:.4g} unchanged, {best:.4g} at best ({100 * self.gain('best'):.0f} % less)"]
        change = self.score_error[-1] - self.score_error[0]
        losers = [c for c, more in enumerate(change) if more > 1e-3 * self.score_error[0, c]]
        if losers:
            lines.append("it costs " + ", ".join(f"class {c} {change[c]:.3g} of score error" for c in losers))
        weights, samples = self.gain("weights"), self.gain("samples")
        more = f"{self.factor:g} times the samples of class {self.worst} {100 * samples:.0f} %"
        numbers = f"the best loss weights take off {100 * weights:.1f} %, {more}"
        if weights < HELPS and samples > max(HELPS, 2 * weights):
            lines.append(f"no loss weight helps, only samples do: {numbers}")
        elif weights < HELPS:
            lines.append(f"no loss weight helps, and more samples do not either: {numbers}")
        else:
            lines.append(numbers)
        return lines

    def to_xarray(self) -> "xr.Dataset":
        """The settings by name on the axis setting, and the front."""
        arrays = {name: getattr(self, name) for name in self.LABELS}
        data = labelled_dataset(arrays, self.LABELS, static_attributes(self))
        return data.assign_coords(setting=list(SETTINGS))

    def __repr__(self) -> str:
        """One line: the goal and what was gained."""
        return f"<Proposal: {self.advice()[0]}, by {self.levers}>"


def propose(
    problem: Problem,
    goal: Goal = WorstClass(),
    levers: Levers = Levers(),
    *,
    tau: float | None = None,
    rule: GradientFlow = GradientFlow(),
    tolerance: float = 1e-4,
    progress: Progress | None = None,
) -> Proposal:
    """The best setting of a problem for a goal, by derivatives of the theory.

    Args:
        problem: the problem as it is, K ≥ 2 classes, whose covariances commute.
        goal: `WorstClass`, `WeightedSum` or `LearnedBefore`.
        levers: what may change.
        tau: the stop time where it is no lever; inf for convergence.
        rule: gradient flow, with or without weight decay and averaging.
        tolerance: numerical error wanted of a loss.
        progress: called with (searches done, searches in all).

    Returns:
        `Proposal`.

    Raises:
        InputError: one class; a goal or levers that do not fit; a stop time that is missing, or given beside the lever; what the theory
            refuses.
    """
    require_progress(progress)
    goal = _checked(problem, goal, levers, tau)
    search, done = Search(problem, rule, tolerance, tau), 0

    def told(point: Point) -> Point:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(SETTINGS) + FRONT)
        return point

    none = dataclasses.replace(levers, loss_weights=False, psi_p=False, samples=())
    unchanged = told(_searched(search, goal, none))
    worst = goal.learned if isinstance(goal, LearnedBefore) else int(np.argmax(unchanged.errors))
    by_weights, by_samples = dataclasses.replace(none, loss_weights=True), dataclasses.replace(none, samples=(worst,))
    weights, samples = (told(_searched(search, goal, each)) for each in (by_weights, by_samples))
    found = {none: unchanged, by_weights: weights, by_samples: samples}
    best = told(found[levers] if levers in found else _searched(search, goal, levers))
    within = [unchanged, *[weights] * levers.loss_weights, *[samples] * (worst in levers.samples)]
    best = min((best, *within), key=lambda point: point.goal)  # with more levers a search may end in a worse place
    front = _front(search, levers, unchanged, worst, told)
    return _collected(problem, goal, levers, worst, [unchanged, weights, samples, best], front)


def _checked(problem: Problem, goal: Goal, levers: Levers, tau: float | None) -> Goal:
    """The goal, if it, the levers and the stop time fit the problem and each other; a refusal otherwise."""
    if problem.num_classes < 2:
        raise InputError("problem: 1 class; allowed: at least 2, between which a design weighs")
    if levers.stop_time != (tau is None):
        what = "given although the stop time is a lever" if levers.stop_time else "missing, and the stop time is no lever"
        raise InputError(f"tau: {what}; allowed: one of the two")
    if tau is not None and not as_number(tau) > 0:
        raise InputError(f"tau: {tau!r}; allowed: a number > 0, or inf")
    if isinstance(goal, LearnedBefore) and not levers.stop_time:
        raise InputError("levers: no stop_time; allowed: with stop_time where a class is to be learned before another is memorised")
    return checked_goal(goal, problem.num_classes)


def _searched(search: Search, goal: Goal, levers: Levers) -> Point:
    """The best point that some levers reach."""
    room, k = levers.room(search.problem), search.problem.num_classes
    if isinstance(goal, LearnedBefore):
        return search.learned_before(goal, room)
    rows = np.asarray(goal.weights)[None] if isinstance(goal, WeightedSum) else np.eye(k)
    forms = Forms(rows, np.zeros(len(rows)))
    if len(levers.samples) == 1 and not levers.loss_weights and not levers.psi_p:
        return search.along(forms, room[:, 1])
    return search.minimise(forms, room)


def _front(search: Search, levers: Levers, unchanged: Point, worst: int, told: Callable[[Point], Point]) -> list[Point]:
    """Settings from the best for one class to the best for the mean of the others that leaves that class no worse than it is unchanged.

    Between the ends the mean of the others is made small while the error of the class may not exceed a level, which falls from end to end.
    An exact penalty does this: mean + PENALTY max(0, error - level) is a maximum of two linear forms.
    """
    fractions = np.asarray(search.problem.mixture.weights) * (np.arange(search.problem.num_classes) != worst)
    own, others = np.eye(len(fractions))[worst], fractions / fractions.sum()
    room = levers.room(search.problem)
    best = told(search.minimise(Forms(own[None], np.zeros(1)), room))
    rows, points, begin = np.stack([others, others + PENALTY * own]), [], search.origin
    for level in np.linspace(unchanged.errors[worst], best.errors[worst], FRONT)[:-1]:
        points.append(told(search.minimise(Forms(rows, np.array([0.0, PENALTY * level])), room, begin, FRONT_ROUNDS)))
        begin = points[-1].x
    return [best, *points[::-1]]


def _collected(problem: Problem, goal: Goal, levers: Levers, worst: int, points: list[Point], front: list[Point]) -> Proposal:
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
    )
