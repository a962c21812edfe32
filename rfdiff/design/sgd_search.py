"""The best neighbour of a problem trained by minibatch SGD: loss weights and samples beside step, batch, average and stop time.

The losses of SGD have no filter, so no derivative of a plan serves here. What is expensive are the traces of a problem; step, batch and
average only enter the Volterra equation on them, which takes milliseconds. So a table over step, batch and average comes first, on the
traces of the point where the search begins, and a model of the goal without derivatives (COBYQA) goes on from its best entries, in the same
form as `search`: one more variable that no linear form of the errors may exceed.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from rfdiff.design.goals import LearnedBefore
from rfdiff.design.levers import OF_RULE, moved_rule
from rfdiff.design.search import ALONG, Forms, Point
from rfdiff.design.sgd_family import Curves, Families
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD

TABLE = (5, 4, 5)  # entries of the table along step, batch and memory
BEGINNINGS = 2  # entries from which a search goes on
FEW_STEPS = 200  # up to which a whole number of them is a coarse choice of time
NEVER = 20.0  # stands for the logarithm of a time that does not exist


class Reach(NamedTuple):
    """How far a search without derivatives looks: first and last radius of its region, and evaluations for each free coordinate."""

    first: float
    last: float
    evaluations: int


WIDE, NEXT, POLISH = Reach(0.4, 5e-3, 14), Reach(0.2, 5e-3, 9), Reach(0.05, 2e-3, 7)  # in all of the room, from a neighbour, at the end


class Entry(NamedTuple):
    """A setting of the table: coordinates x, and the curves at many numbers of steps."""

    x: Float[np.ndarray, " X"]
    curves: Curves


class SGDSearch:
    """Searches around one problem; the counterpart of `search.Search`.

    Args:
        problem: the unchanged problem.
        rule: SGD as it is.
        tolerance: numerical error wanted of a loss.
        tau: the stop time where it is no lever; None where it is.

    Raises:
        InputError: a problem or a step that the theory does not cover; SGD diverges, with the numbers of `theory.sgd_stability`.
    """

    def __init__(self, problem: Problem, rule: MinibatchSGD, tolerance: float, tau: float | None) -> None:
        self.problem, self.rule, self.origin = problem, rule, np.zeros(2 * problem.num_classes + 4)
        self.families = Families(problem, rule, tolerance, tau)
        self._tables: dict[bytes, list[Entry]] = {}

    def spend(self, budget: float) -> None:
        """Bound the samples over d that a training may visit, steps times batch."""
        self.families.budget = budget

    def minimise(
        self, forms: Forms, room: Float[np.ndarray, "X 2"], start: Float[np.ndarray, " X"] | None = None, rounds: int = 0
    ) -> Point:
        """The point of least max_r (A E - b)_r.

        Args:
            forms: what is to be small.
            room: (2K+4, 2) bounds of the coordinates.
            start: a point beside those of the table; with it, the search goes on from the best point alone.
            rounds: of no use here.

        Raises:
            InputError: what the theory refuses.
        """
        families = self.families
        begins = [self.origin] if start is None else [self.origin, start]
        entries = [*self._table(room), *(Entry(x, families.overview(x, room)) for x in begins)]
        entries.sort(key=lambda entry: entry.curves.best(forms)[1])
        few, reach = (BEGINNINGS, WIDE) if start is None else (1, NEXT)
        found = [self._refined(entry, forms, room, reach) for entry in entries[:few]]
        return self._polished(min(found, key=lambda point: point.goal), forms, room)

    def along(self, forms: Forms, end: Float[np.ndarray, " X"]) -> Point:
        """The best of a few places between the unchanged problem and an end: for a lever that helps all the way.

        Raises:
            InputError: what the theory refuses.
        """
        still = np.zeros((self.origin.size, 2))
        places = [Entry(share * end, self.families.overview(share * end, still)) for share in np.linspace(0, 1, ALONG)]
        best = min(places, key=lambda entry: entry.curves.best(forms)[1])
        return self._refined(best, forms, still, WIDE)

    def learned_before(self, goal: LearnedBefore, room: Float[np.ndarray, "X 2"]) -> Point:
        """The point of the least ratio of the two times of the goal; its stop time is that at which the first class is learned.

        Raises:
            InputError: a class without a descent or without memorisation; what the theory refuses.
        """
        families, free = self.families, np.flatnonzero(room[:, 1] > room[:, 0])

        def times(x: Float[np.ndarray, " X"]) -> tuple[float, float]:
            """Logarithms of the ratio, and of the steps over those that the budget pays for; both large where the times do not exist."""
            curves = families.complete(x, room)
            learned, memorised = curves.times(goal)
            if not np.isfinite(learned / memorised):
                return NEVER, NEVER
            spent = learned / families.affordable(curves.rule)  # the last step is a whole one
            return float(np.log(learned / memorised)), float(np.log(max(spent, np.exp(-NEVER))))

        best = self.origin
        if times(best)[0] == NEVER:
            what = f"class {goal.learned} has no descent, or class {goal.memorised} is never memorised"
            raise InputError(f"goal: {what}; allowed: classes that have these times (rfdiff times shows them)")
        if free.size:
            places = [self.origin, *self._places(room)]
            seen = {x.tobytes(): times(x) for x in places}
            begin = min(places, key=lambda x: seen[x.tobytes()][0] if seen[x.tobytes()][1] <= 1e-9 else np.inf)
            best = self._model(begin, free, room[free], lambda x: tuple(np.array(times(x))[:, None]), 1.0, WIDE)[0]
        return families.point_of_times(best, room, goal)

    def _places(self, room: Float[np.ndarray, "X 2"]) -> list[Float[np.ndarray, " X"]]:
        """Coordinates of the table: log-spaced step, batch and memory that the problem and the budget admit."""
        axes = [np.linspace(low, high, size) if high > low else np.zeros(1) for (low, high), size in zip(room[-3:], TABLE, strict=True)]
        problem = np.zeros(self.origin.size - len(OF_RULE))
        return [np.append(problem, numbers) for numbers in itertools.product(*axes)]

    def _table(self, room: Float[np.ndarray, "X 2"]) -> list[Entry]:
        """Curves of the unchanged problem at a table of settings of the rule, none where these may not move."""
        key = room[-3:].tobytes()
        if key not in self._tables:
            room = self.families.within_reach(room)
            places = self._places(room) if np.any(room[-3:, 1] > room[-3:, 0]) else []
            self._tables[key] = [Entry(x, self.families.overview(x, room)) for x in places]
        return self._tables[key]

    def _refined(self, entry: Entry, forms: Forms, room: Float[np.ndarray, "X 2"], reach: Reach) -> Point:
        """The best point that a search from an entry of the table comes to; the number of steps moves like the other coordinates."""
        families, free = self.families, np.flatnonzero(room[:, 1] > room[:, 0])
        steps, goal, _ = entry.curves.best(forms)
        visited = _visits(entry.curves.rule, steps)
        if free.size == 0 or not np.isfinite(goal):
            return families.point(entry.x, room, forms, visited)

        def rows(x: Float[np.ndarray, " X"], visited: float) -> tuple[np.ndarray, np.ndarray]:
            return forms.A @ families.errors(x, room, visited) - forms.b, np.zeros(0)

        if families.tau is not None:
            x, _ = self._model(entry.x, free, room[free], lambda x: rows(x, visited), goal, reach)
            return families.point(x, room, forms, visited)
        bounds = np.concatenate([room[free], [families.visits(room)]])
        whole = np.append(entry.x, visited)
        x, _ = self._model(whole, np.append(free, self.origin.size), bounds, lambda x: rows(x[:-1], float(x[-1])), goal, reach)
        return families.point(x[:-1], room, forms, float(x[-1]))

    def _polished(self, point: Point, forms: Forms, room: Float[np.ndarray, "X 2"]) -> Point:
        """A point after a search with its number of steps held: few steps are far apart, and the other coordinates follow the whole one."""
        families, free = self.families, np.flatnonzero(room[:, 1] > room[:, 0])
        steps = float(np.rint(np.exp(point.log_tau) / float(moved_rule(self.rule, point.x).step_size)))
        if families.tau is not None or free.size == 0 or steps > FEW_STEPS:
            return point

        def visited(x: Float[np.ndarray, " X"]) -> float:
            return _visits(families.admitted(x, room), steps)

        def rows(x: Float[np.ndarray, " X"]) -> tuple[np.ndarray, np.ndarray]:
            return forms.A @ families.errors(x, room, visited(x)) - forms.b, np.zeros(0)

        x, _ = self._model(point.x, free, room[free], rows, point.goal, POLISH)
        return min(point, families.point(x, room, forms, visited(x)), key=lambda each: each.goal)

    def _model(
        self,
        start: Float[np.ndarray, " V"],
        free: np.ndarray,
        bounds: Float[np.ndarray, "F 2"],
        evaluate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        scale: float,
        reach: Reach,
    ) -> tuple[Float[np.ndarray, " V"], float]:
        """The coordinates of the least maximum of rows, of all that a search without derivatives looks at, and that maximum.

        Args:
            start: all coordinates at the beginning.
            free: indices of those that move.
            bounds: theirs.
            evaluate: rows of which the largest is to be small, and further ones that must not be above 0.
            scale: what the rows are measured in, if it is positive.
            reach: how far it looks, and how often.
        """
        seen: dict[bytes, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        scale = scale if scale > 0 else 1.0

        def constraint(z: Float[np.ndarray, " F"]) -> Float[np.ndarray, " R"]:
            if (key := z[:-1].tobytes()) not in seen:
                x = start.copy()
                x[free] = np.clip(z[:-1], bounds[:, 0], bounds[:, 1])
                seen[key] = (x, *evaluate(x))
            _, rows, limits = seen[key]
            return np.concatenate([rows / scale - z[-1], limits])

        begin = np.append(np.clip(start[free], bounds[:, 0], bounds[:, 1]), 0.0)
        begin[-1] = float(np.max(constraint(begin)))
        limited: Any = {"type": "ineq", "fun": lambda z: -constraint(z)}
        minimize(
            lambda z: z[-1], begin, method="COBYQA", bounds=[*map(tuple, bounds), (None, None)], constraints=limited,
            options={"maxfev": reach.evaluations * free.size, "initial_tr_radius": reach.first, "final_tr_radius": reach.last},
        )  # fmt: skip
        allowed = [(x, float(np.max(rows))) for x, rows, limits in seen.values() if np.all(limits <= 1e-9)]
        return min(allowed, key=lambda item: item[1])


def _visits(rule: MinibatchSGD, steps: float) -> float:
    """Logarithm of the samples over d that so many steps visit."""
    return float(np.log(steps * float(rule.batch_per_dimension)))
