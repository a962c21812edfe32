"""The best neighbour of a problem: derivatives of the theory in a sequential quadratic program, with a new plan every few steps.

Goals are maxima of linear forms of the score errors, max_r (A E(x, τ) - b)_r, made smooth by one more variable s that no form may exceed.
A plan of the theory (`theory.plan_curves`) serves problems near its own, so the program moves inside a box around the plan's problem; there
a new plan is made, all stop times are looked through, and the program goes on from the best, until a round gains next to nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize, minimize_scalar

from rfdiff.design.goals import LearnedBefore
from rfdiff.design.levers import moved
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow
from rfdiff.theory import CurveKernel, Plan, class_times, curve_kernel, plan_curves, time_grid
from rfdiff.theory.contour_forms import losses_and_error
from rfdiff.theory.noncommuting.coupled_law import apart

BOX = 1.4  # largest move in a coordinate between two plans
TIME_BOX = 1.5  # the same of log τ
GAIN = 1e-3  # of the goal, relative: a round that gains less is the last
ROUNDS = 8
STEPS = 8  # of the quadratic program in a round
PRECISION = 1e-7  # of the goal, relative, at which it ends: far along the logarithm of a weight slopes are small
TIMES = 60
ALONG = 5  # places on a line that are looked at without derivatives


class Forms(NamedTuple):
    """The number max_r (A E - b)_r of score errors E (K,).

    Args:
        A: (R, K) coefficients.
        b: (R,) what is taken away.
    """

    A: Float[np.ndarray, "R K"]
    b: Float[np.ndarray, " R"]

    def value(self, errors: Float[np.ndarray, "*T K"]) -> Float[np.ndarray, "*T"]:
        """The number, for errors with the classes on the last axis."""
        return np.max(errors @ self.A.T - self.b, axis=-1)


class Point(NamedTuple):
    """A place in the space of the levers and what happens there.

    Args:
        x: (2K+4,) coordinates.
        log_tau: logarithm of the stop time.
        errors: (K,) score errors.
        goal: the number that was made small.
        numerical: numerical error of a loss.
    """

    x: Float[np.ndarray, " X"]
    log_tau: float
    errors: Float[np.ndarray, " K"]
    goal: float
    numerical: float


class Search:
    """Searches around one problem.

    Args:
        problem: the unchanged problem.
        rule: gradient flow, with or without weight decay and averaging.
        tolerance: numerical error wanted of a loss.
        tau: the stop time where it is no lever; None where it is.
    """

    def __init__(self, problem: Problem, rule: GradientFlow, tolerance: float, tau: float | None) -> None:
        self.problem, self.rule, self.tolerance, self.tau = problem, rule, tolerance, tau
        self.origin = np.zeros(2 * problem.num_classes + 4)
        self._plans: dict[tuple[bytes, bool], tuple[Plan, CurveKernel]] = {}
        grid = time_grid(problem, num_times=TIMES)
        grid = grid[np.isfinite(grid)]
        self.taus = np.concatenate([grid, grid[-1] * np.geomspace(2, 16, 4)]) if tau is None else np.array([tau])

    def minimise(
        self, forms: Forms, room: Float[np.ndarray, "X 2"], start: Float[np.ndarray, " X"] | None = None, rounds: int = ROUNDS
    ) -> Point:
        """The point of least max_r (A E - b)_r.

        Args:
            forms: what is to be small.
            room: (2K+4, 2) bounds of the coordinates.
            start: where to begin; the unchanged problem if None.
            rounds: plans at most.

        Raises:
            InputError: what the theory refuses.
        """
        begin = self.origin if start is None else start
        return self._rounds(lambda x: self._scan(x, forms), lambda here, plan, box: self._step(here, plan, box, forms), room, begin, rounds)

    def along(self, forms: Forms, end: Float[np.ndarray, " X"]) -> Point:
        """The best of a few places between the unchanged problem and an end, without derivatives: for a lever that helps all the way.

        Args:
            forms: what is to be small.
            end: (2K+4,) coordinates.

        Raises:
            InputError: what the theory refuses.
        """
        return min((self._scan(share * end, forms)[0] for share in np.linspace(0, 1, ALONG)), key=lambda point: point.goal)

    def learned_before(self, goal: LearnedBefore, room: Float[np.ndarray, "X 2"]) -> Point:
        """The point of the least ratio of the two times of the goal; its stop time is that at which the first class is learned.

        Raises:
            InputError: a class without a descent or without memorisation; what the theory refuses.
        """
        return self._rounds(
            lambda x: self._times_at(x, goal), lambda here, plan, box: self._time_step(here, plan, box, goal), room, self.origin, ROUNDS
        )

    def _rounds(
        self,
        look: Callable[[np.ndarray], tuple[Point, Plan]],
        step: Callable[[Point, Plan, np.ndarray], np.ndarray],
        room: Float[np.ndarray, "X 2"],
        start: Float[np.ndarray, " X"],
        rounds: int,
    ) -> Point:
        """Steps inside boxes, each from the best point so far; a box in which the theory of its centre misled is halved."""
        best, plan = look(start)
        size = BOX
        if not np.any(room[:, 1] > room[:, 0]):
            return best
        for _ in range(rounds):
            box = np.clip(best.x[:, None] + [-size, size], room[:, :1], room[:, 1:])
            here, plan_here = look(step(best, plan, box))
            gain = best.goal - here.goal
            if gain > 0:
                best, plan = here, plan_here
            if abs(gain) <= GAIN * abs(best.goal) or size < BOX / 8:
                break
            if gain < 0:
                size /= 2
        return best

    def _plan(self, x: Float[np.ndarray, " X"], complete: bool = False) -> tuple[Plan, CurveKernel]:
        """A plan at a point, and its kernel; `complete`: up to τ = ∞, which times of memorisation need."""
        if (key := (x.tobytes(), complete)) not in self._plans:
            there = moved(self.problem, x)
            asked = None if complete or np.isinf(self.taus[-1]) else self.taus
            before = next((plan for (_, whole), (plan, _) in self._plans.items() if whole == complete), None)
            plan = plan_curves(there, asked, rule=self.rule, tolerance=self.tolerance, gram_derivatives=False, like=before)
            self._plans[key] = plan, curve_kernel(there, plan)
        return self._plans[key]

    def _scan(self, x: Float[np.ndarray, " X"], forms: Forms) -> tuple[Point, Plan]:
        """The best stop time at a point, over all of training."""
        plan, kernel = self._plan(x)

        def errors(taus: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T K"]:
            with double_on_host():
                test = np.asarray(losses_and_error(kernel, self.rule.schedule(taus, 1.0)[1], self.rule)[0])[1]
            return (test - np.asarray(kernel.optimal_loss)) / float(kernel.noise_variance)

        goals = forms.value(errors(self.taus))
        if not np.any(np.isfinite(goals)):
            raise InputError("problem: its theory has no finite losses at any stop time; allowed: another problem, or a larger tolerance")
        i = int(np.nanargmin(goals))
        log_tau = float(np.log(self.taus[i]))
        if self.tau is None:
            near = np.log(self.taus[[max(i - 1, 0), min(i + 1, len(self.taus) - 1)]])
            found = minimize_scalar(
                lambda s: float(forms.value(errors(np.exp([s])))[0]), bounds=tuple(near), method="bounded", options={"xatol": 1e-4}
            )
            log_tau = float(found.x) if found.fun < goals[i] else log_tau
        at = errors(np.exp(np.array([log_tau])))[0]
        return Point(x, log_tau, at, float(forms.value(at)), float(plan.error_estimate)), plan

    def _step(self, here: Point, plan: Plan, box: Float[np.ndarray, "X 2"], forms: Forms) -> Float[np.ndarray, " X"]:
        """Coordinates after a quadratic program on one plan; its variables are the free coordinates, log τ and s."""
        free = np.flatnonzero(box[:, 1] > box[:, 0])
        timed = self.tau is None
        known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

        def forms_at(z: Float[np.ndarray, " V"]) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, "R V"]]:
            if (key := z[:-1].tobytes()) not in known:
                x = here.x.copy()
                x[free] = z[: free.size]
                with double_on_host():
                    log_tau = np.float64(z[free.size] if timed else here.log_tau)
                    errors, by_x, by_time = map(np.asarray, _errors_and_slopes(apart(self.problem), plan, x, log_tau, self.rule))
                slopes = np.concatenate([by_x[:, free], by_time[:, None]], 1) if timed else by_x[:, free]
                known[key] = forms.A @ errors - forms.b, forms.A @ slopes
            value, slope = known[key]
            return z[-1] - value, np.concatenate([-slope, np.ones((len(value), 1))], 1)

        start = np.concatenate([here.x[free], [here.log_tau] * timed, [here.goal]])
        times = [(here.log_tau - TIME_BOX, here.log_tau + TIME_BOX)] * timed
        last = np.eye(start.size)[-1]
        constraint: Any = {"type": "ineq", "fun": lambda z: forms_at(z)[0], "jac": lambda z: forms_at(z)[1]}
        found = minimize(
            lambda z: z[-1], start, jac=lambda z: last, method="SLSQP", bounds=[*map(tuple, box[free]), *times, (None, None)],
            constraints=constraint, options={"maxiter": STEPS, "ftol": PRECISION * abs(here.goal)},
        )  # fmt: skip
        return _placed(here.x, free, found.x, box)

    def _times_at(self, x: Float[np.ndarray, " X"], goal: LearnedBefore) -> tuple[Point, Plan]:
        plan, kernel = self._plan(x, complete=True)
        with double_on_host():
            (ratio, learned), _ = _ratio_and_slopes(apart(self.problem), plan, x, goal.learned, goal.memorised, goal.descent)
            if not np.isfinite(ratio):
                what = f"class {goal.learned} has no descent, or class {goal.memorised} is never memorised"
                raise InputError(f"goal: {what}; allowed: classes that have these times (rfdiff times shows them)")
            test = np.asarray(kernel.losses(np.exp([float(learned)]), rule=self.rule).test)[0]
        errors = (test - np.asarray(kernel.optimal_loss)) / float(kernel.noise_variance)
        return Point(x, float(learned), errors, float(np.exp(ratio)), float(plan.error_estimate)), plan

    def _time_step(self, here: Point, plan: Plan, box: Float[np.ndarray, "X 2"], goal: LearnedBefore) -> Float[np.ndarray, " X"]:
        free = np.flatnonzero(box[:, 1] > box[:, 0])

        def ratio(z: Float[np.ndarray, " V"]) -> tuple[float, Float[np.ndarray, " V"]]:
            x = here.x.copy()
            x[free] = z
            with double_on_host():
                (value, _), slope = _ratio_and_slopes(apart(self.problem), plan, x, goal.learned, goal.memorised, goal.descent)
            return float(value), np.asarray(slope)[free]

        found = minimize(
            ratio, here.x[free], jac=True, method="SLSQP", bounds=list(map(tuple, box[free])), options={"maxiter": STEPS, "ftol": PRECISION}
        )
        return _placed(here.x, free, found.x, box)


def _placed(x: np.ndarray, free: np.ndarray, z: np.ndarray, box: np.ndarray) -> Float[np.ndarray, " X"]:
    """The coordinates with the free ones replaced, inside the box to the last digit."""
    there = x.copy()
    there[free] = np.clip(z[: free.size], box[free, 0], box[free, 1])
    return there


@jax.jit
def _errors_and_slopes(
    problem: Problem, plan: Plan, x: Float[Array, " X"], log_tau: Float[Array, ""], rule: GradientFlow
) -> tuple[Float[Array, " K"], Float[Array, "K X"], Float[Array, " K"]]:
    """Score errors at a stop time, and their derivatives by the coordinates and by log τ."""

    def errors(x: Float[Array, " X"], log_tau: Float[Array, ""]) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        kernel = curve_kernel(moved(problem, x), plan)
        test = kernel.evaluate(rule.filter(kernel.nodes, jnp.exp(log_tau)[None], kernel.kappa))[0][1][0]
        values = (test - kernel.optimal_loss) / kernel.noise_variance
        return values, values

    (by_x, by_time), values = jax.jacrev(errors, argnums=(0, 1), has_aux=True)(x, log_tau)
    return values, by_x, by_time


@jax.jit
def _ratio_and_slopes(
    problem: Problem, plan: Plan, x: Float[Array, " X"], learned: int, memorised: int, descent: float
) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], Float[Array, " X"]]:
    """Logarithms of the ratio of two times and of the first of them, and the derivatives of the first logarithm by the coordinates."""

    def log_ratio(x: Float[Array, " X"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        times = class_times(curve_kernel(moved(problem, x), plan), descent=descent)
        first = jnp.log(jnp.asarray(times.tau_gen)[learned])
        return first - jnp.log(jnp.asarray(times.tau_mem)[memorised]), first

    (ratio, first), slopes = jax.value_and_grad(log_ratio, has_aux=True)(x)
    return (ratio, first), slopes
