"""Problems near one another under minibatch SGD: which steps and batches each may have, and its losses there.

Steps stay below half of that at which the whole gradient diverges, and the spectral radius of the noise below a half, so that batches are
at least twice as large as the smallest stable one (`theory.sgd_stability`). Step times number of steps is the training time, batch times
number of steps what is visited: the price, of which there is a budget.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator

from rfdiff.design.goals import LearnedBefore
from rfdiff.design.levers import moved, moved_rule
from rfdiff.design.search import Forms, Point
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD
from rfdiff.theory import sgd_stability, time_grid
from rfdiff.theory.minibatch_settings import PART, SGDSettings

TIMES = 40  # numbers of steps of an overview
COMPLETE = 160  # of the curves from which times are read
BEYOND = 4.0  # factor by which they go on after the slowest mode
FINE, AROUND = 41, 1.25  # numbers of steps around the best one, at the end, and the factor to either side that they cover
RADII = 12  # steps at which the spectral radius is computed; between them it is interpolated
NEARBY = 0.5  # distance in every coordinate within which the spectrum of a problem is followed
KEPT = 64  # families whose traces stay in memory, beside the careful ones
ROUNDING = 1e-9  # of a number of steps
DIVERGED = 1e6  # stands for the score error where SGD diverges


class Curves(NamedTuple):
    """Losses of a setting: its rule, T numbers of steps, train and test losses and score errors (T, K)."""

    rule: MinibatchSGD
    steps: Float[np.ndarray, " T"]
    train: Float[np.ndarray, "T K"]
    test: Float[np.ndarray, "T K"]
    errors: Float[np.ndarray, "T K"]

    def best(self, forms: Forms) -> tuple[float, float, Float[np.ndarray, " K"]]:
        """The number of steps at which a number is smallest, that number, and the score errors there."""
        goals = forms.value(self.errors)
        i = int(np.nanargmin(goals)) if np.any(np.isfinite(goals)) else 0
        return float(self.steps[i]), float(goals[i]), self.errors[i]

    def times(self, goal: LearnedBefore) -> tuple[float, float]:
        """Steps after which a class is learned and another is memorised; NaN where there are none. The curves must end in the limit."""
        descent = 1 - self.test[:, goal.learned]
        gap = (self.test - self.train)[:, goal.memorised]
        learned = _crossing(self.steps, descent, goal.descent * float(np.max(descent)))
        return learned, _crossing(self.steps, gap, float(gap[-1]) / 2)


def _crossing(steps: Float[np.ndarray, " T"], values: Float[np.ndarray, " T"], level: float) -> float:
    """The first number of steps at which values reach a level > 0, interpolated in its logarithm; NaN if they never do."""
    reached = np.flatnonzero((values >= level) & np.isfinite(steps))
    if not level > 0 or reached.size == 0:
        return np.nan
    if (i := int(reached[0])) == 0:
        return float(steps[0])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(steps[i - 1] * (steps[i] / steps[i - 1]) ** share)


def lagrange(nodes: Float[np.ndarray, " N"], at: float) -> Float[np.ndarray, " N"]:
    """Weights of values at nodes in the polynomial through all of them, at a place."""
    differences = nodes[:, None] - nodes + np.eye(len(nodes))
    return np.prod(np.where(np.eye(len(nodes), dtype=bool), 1, (at - nodes) / differences), axis=1)


class Family:
    """A problem under SGD, with the steps and batches that a setting may have."""

    def __init__(self, problem: Problem, rule: MinibatchSGD, tolerance: float, near: "Family | None" = None) -> None:
        self.problem, self.rule = problem, rule
        self.settings: SGDSettings = SGDSettings(problem, rule, tolerance, None if near is None else near.settings)
        steps = self.settings.edge * np.geomspace(1e-4, PART, RADII)
        self._smallest = np.log([self.smallest_batch(step) for step in steps])
        self._log_step = PchipInterpolator(self._smallest, np.log(steps))

    def smallest_batch(self, step: float) -> float:
        """The smallest batch that a step may have."""
        return self.settings.radius(dataclasses.replace(self.rule, step_size=step, batch_per_dimension=1.0)) / PART

    def largest_step(self, batch: float) -> float:
        """The largest step that a batch may have; for small ones it is proportional to the batch."""
        log_batch = np.log(batch)
        inside = np.clip(log_batch, self._smallest[0], self._smallest[-1])
        return float(np.exp(self._log_step(inside) + min(log_batch - self._smallest[0], 0.0)))


class Families:
    """All problems that a search comes to; arguments as of `SGDSearch`.

    Raises:
        InputError: as `SGDSearch`.
    """

    def __init__(self, problem: Problem, rule: MinibatchSGD, tolerance: float, tau: float | None) -> None:
        self.problem, self.rule, self.tolerance, self.tau, self.budget = problem, rule, tolerance, tau, np.inf
        stable = sgd_stability(problem, rule=rule)
        if not stable.converges:
            step, batch = float(rule.step_size), float(rule.batch_per_dimension)
            raise InputError(
                f"step_size: {step:.6g} diverges by the noise of batches of {batch:.6g} d, whose spectral radius is {stable.radius:.6g}; "
                f"allowed: below {stable.largest_step:.6g}, or batch_per_dimension above {stable.smallest_batch:.6g}"
            )
        grid = time_grid(problem)
        self.horizon = float(grid[np.isfinite(grid)][-1])
        self._careful: dict[bytes, Family] = {}
        self._quick: dict[bytes, Family] = {}

    def family(self, x: Float[np.ndarray, " X"], careful: bool = False) -> Family:
        """The problem at a point; its spectrum is followed from a known point nearby, if it need not be `careful`."""
        key = x[:-3].tobytes()
        if key in self._careful:
            return self._careful[key]
        distances = {other: float(np.max(abs(np.frombuffer(other) - x[:-3]))) for other in self._careful}
        nearest = min(distances, key=distances.__getitem__, default=None)
        if careful or nearest is None or distances[nearest] > NEARBY:
            self._careful[key] = Family(moved(self.problem, x), self.rule, self.tolerance)
            return self._careful[key]
        if key not in self._quick:
            if len(self._quick) == KEPT:
                self._quick.pop(next(iter(self._quick)))
            self._quick[key] = Family(moved(self.problem, x), self.rule, self.tolerance, self._careful[nearest])
        return self._quick[key]

    def within_reach(self, room: Float[np.ndarray, "X 2"]) -> Float[np.ndarray, "X 2"]:
        """The room of the rule without steps above the largest one, and averages that remember more than the budget pays for."""
        room, family = room.copy(), self.family(np.zeros(len(room)))
        if room[-3, 1] > 0:
            room[-3, 1] = np.clip(np.log(family.settings.edge * PART / float(self.rule.step_size)), 0, room[-3, 1])
        if room[-1, 1] > room[-1, 0]:
            longest = np.log(max(self._most_steps(moved_rule(self.rule, np.append(np.zeros(len(room) - 2), room[-2:, 0]))), 1.0))
            room[-1, 1] = min(room[-1, 1], room[-1, 0] + longest)
        return room

    def visits(self, room: Float[np.ndarray, "X 2"]) -> tuple[float, float]:
        """Bounds of the logarithm of the visited samples over d: one batch, and the budget or what the slowest mode takes."""
        batch, step = float(self.rule.batch_per_dimension), float(self.rule.step_size)
        most = min(self.budget, self.horizon * batch / step * np.exp(room[-2, 1] - room[-3, 0]))
        least = batch * np.exp(room[-2, 0])
        return float(np.log(least)), float(np.log(max(most, 1.001 * least)))

    def admitted(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"]) -> MinibatchSGD:
        """The rule at a point, its step and batch moved to where they are stable and within the budget, if they may move."""
        rule, family = moved_rule(self.rule, x), self.family(x)
        step, batch = float(rule.step_size), float(rule.batch_per_dimension)
        step_moves, batch_moves = (room[i, 1] > room[i, 0] for i in (-3, -2))
        if step_moves:
            step = min(step, family.largest_step(batch))
        elif batch_moves:
            batch = max(batch, min(family.smallest_batch(step), float(self.rule.batch_per_dimension)))
        if self.tau is not None and batch * self.tau / step > self.budget:
            if batch_moves:
                batch = self.budget * step / self.tau
            elif step_moves:
                step = batch * self.tau / self.budget
        return dataclasses.replace(rule, step_size=step, batch_per_dimension=batch)

    def affordable(self, rule: MinibatchSGD) -> float:
        """Whole steps that the budget pays for, at least one."""
        return max(1.0, float(np.floor(self.budget / float(rule.batch_per_dimension) + ROUNDING)))

    def _most_steps(self, rule: MinibatchSGD) -> float:
        return min(self.affordable(rule), max(1.0, float(np.floor(self.horizon / float(rule.step_size)))))

    def overview(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"]) -> Curves:
        """Losses of a point over all of training, or at the stop time where it is given."""
        rule = self.admitted(x, room)
        if self.tau is not None:
            return self._curves(x, rule, self._steps_at(rule, 0.0))
        return self._curves(x, rule, np.unique(np.rint(np.geomspace(1, self._most_steps(rule), TIMES))))

    def complete(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"]) -> Curves:
        """Losses of a point from the first step to the limit."""
        rule = self.admitted(x, room)
        steps = np.unique(np.rint(np.geomspace(1, max(2.0, BEYOND * self.horizon / float(rule.step_size)), COMPLETE)))
        return self._curves(x, rule, np.append(steps, np.inf))

    def errors(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"], visited: float) -> Float[np.ndarray, " K"]:
        """Score errors at a point after the number of steps that visits so many samples (logarithm, over d).

        Between whole steps they are interpolated by a cubic, so that a search sees a smooth function.
        """
        rule = self.admitted(x, room)
        count = self._count(rule, visited)
        if not np.isfinite(count):
            return self._curves(x, rule, np.array([np.inf])).errors[0]
        steps = max(1.0, float(np.floor(count)) - 1) + np.arange(4)
        return lagrange(steps, count) @ self._curves(x, rule, steps).errors

    def point(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"], forms: Forms, visited: float) -> Point:
        """The point at the best number of steps around that which visits so many samples."""
        self.family(x, careful=True)
        rule = self.admitted(x, room)
        steps = self._steps_at(rule, visited)
        if self.tau is None:
            around = np.rint(steps[0] * np.geomspace(1 / AROUND, AROUND, FINE))
            steps = np.unique(np.clip(around, 1, self._most_steps(rule)))
        best, goal, _ = self._curves(x, rule, steps).best(forms)
        return self._judged(x, rule, best, goal, forms)

    def point_of_times(self, x: Float[np.ndarray, " X"], room: Float[np.ndarray, "X 2"], goal: LearnedBefore) -> Point:
        """The point at which a class is learned, with the ratio of that time to the one at which the other is memorised.

        The ratio is that of the crossings, which lie between steps. Training stops after the first whole step that has reached the goal:
        one step earlier the class is not learned yet.
        """
        self.family(x, careful=True)
        curves = self.complete(x, room)
        learned, memorised = curves.times(goal)
        steps = min(max(1.0, float(np.ceil(learned * (1 - ROUNDING)))), self.affordable(curves.rule))
        return self._judged(x, curves.rule, steps, learned / memorised)

    def _count(self, rule: MinibatchSGD, visited: float) -> float:
        """Number of steps, not whole, that visits so many samples, or to the stop time, within the budget."""
        step, batch = float(rule.step_size), float(rule.batch_per_dimension)
        count = min(np.exp(visited) / batch, self.horizon / step) if self.tau is None else self.tau / step
        return float(max(1.0, min(count, self.budget / batch)))

    def _steps_at(self, rule: MinibatchSGD, visited: float) -> Float[np.ndarray, " 1"]:
        """The nearest whole number of steps that the budget pays for."""
        return np.array([min(np.rint(self._count(rule, visited)), self.affordable(rule))])

    def _curves(self, x: Float[np.ndarray, " X"], rule: MinibatchSGD, steps: Float[np.ndarray, " T"]) -> Curves:
        settings = self.family(x).settings
        if settings.radius(rule) >= 1:
            lost = np.full((len(steps), self.problem.num_classes), DIVERGED)
            return Curves(rule, steps, lost, lost, lost)
        train, test = settings.losses(rule, steps)
        return Curves(rule, steps, train, test, settings.score_errors(test))

    def _judged(self, x: Float[np.ndarray, " X"], rule: MinibatchSGD, steps: float, goal: float, forms: Forms | None = None) -> Point:
        """A point with its numerical error; its coordinates are those of the rule that was admitted."""
        settings = self.family(x).settings
        (_, test), error = settings.judged(rule, np.array([steps]))
        errors = settings.score_errors(test)[0]
        there = x.copy()
        there[-3:-1] = np.log(
            [float(rule.step_size) / float(self.rule.step_size), float(rule.batch_per_dimension) / float(self.rule.batch_per_dimension)]
        )
        at_best = goal if forms is None else float(forms.value(errors))
        return Point(there, float(np.log(steps * float(rule.step_size))), errors, at_best, error)
