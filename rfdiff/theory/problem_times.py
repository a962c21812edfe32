"""Class-wise times of a problem from its closed form, independent of the training times chosen for display (docs/theory/times.md).

The curves are evaluated on a grid that covers every mode, from before the first one moves to after the last one has relaxed, and at τ = ∞.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.class_times import ClassTimes
from rfdiff.class_times import times as times_of
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.progress import Progress
from rfdiff.rules import GradientFlow, HeavyBall, MinibatchSGD, Ridge, Rule, require_rule
from rfdiff.theory.dynamics import learning_curves
from rfdiff.theory.input_checks import checked_fraction, require_concrete
from rfdiff.theory.training_times import limit_diverges, problem_extents, time_grid

NUM_TIMES = 640  # about 30 in a factor e over nine decades: crossings are good to 1e-5, minima to 1e-4
FIRST, LAST = 1e-3, 40.0  # in relaxation times of the fastest and of the slowest mode
FIRST_STEPS = 256  # of a discrete rule, each looked at: with momentum the curves oscillate there
HARD = 6e-7  # of the highest eigenvalue: where the support touches 0, the grid ends as if it began here, after nine decades
INSTEAD = "chooses its training times outside of jit, grad and vmap; allowed inside: theory.class_times of a theory.curve_kernel"


def times(
    problem: Problem, *, rule: Rule = GradientFlow(), q: float = 0.5, tolerance: float = 1e-6, progress: Progress | None = None
) -> ClassTimes:
    """τ_gen, τ_stop, τ_mem and τ_opt(q) of every class in closed form, read from curves at all training times, τ = ∞ included.

    Args:
        problem: the problem, K classes.
        rule: training rule that trains in time: gradient flow, descent, momentum.
        q: fraction of the way to the exact score's loss that counts as learned in τ_opt, in (0, 1).
        tolerance: largest numerical error wanted in a loss.
        progress: as in `learning_curves`.

    Returns:
        `ClassTimes` of arrays (K,), with the reason where a time does not exist: τ_mem where p = n m, since the gap between test and train
        loss diverges.

    Raises:
        InputError: malformed q, tolerance or progress; `Ridge`, which has no time; what `learning_curves` refuses.

    Reference: docs/theory/times.md; tests/theory/test_problem_times.py.
    """
    q = checked_fraction(q)
    covering = covering_curves(problem, (), rule=rule, tolerance=tolerance, progress=progress)[1]
    return times_of(covering, q=q, loss_weights=np.asarray(problem.training_weights))


def covering_curves(
    problem: Problem,
    taus: ArrayLike | None = None,
    *,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    progress: Progress | None = None,
) -> tuple[LearningCurves, LearningCurves]:
    """Learning curves at the training times that are to be shown, and at times that cover every mode, at the cost of one evaluation.

    `rfdiff.times` of the second are the times of the closed form, whatever is shown.

    Args:
        problem: the problem, K classes.
        taus: (T,) training times to show; None for `time_grid`.
        rule: training rule that trains in time: gradient flow, descent, momentum.
        tolerance, progress: as in `learning_curves`.

    Returns:
        Both sets of curves; the times of the second end in inf, where the curves are NaN if they have no limit (p = n m).

    Raises:
        InputError: malformed taus; `Ridge`, which has no time; what `learning_curves` refuses.
    """
    require_concrete(problem, "theory.times", INSTEAD)
    require_rule(rule)
    if isinstance(rule, Ridge):
        raise InputError("rule: Ridge has penalties and no training time; allowed: gradient flow, descent, momentum or SGD")
    kappa = float(problem.kappa)
    chosen = time_grid(problem) if taus is None else np.asarray(taus)
    shown = rule.schedule(chosen, kappa)[0] if chosen.size else np.zeros(0)
    covering = rule.schedule(_covering_times(problem, rule), kappa)[0]
    union, where = np.unique(np.concatenate([shown, covering]), return_inverse=True)
    curves = learning_curves(problem, union, rule=rule, tolerance=tolerance, progress=progress)
    return _at(curves, where[: shown.size]), _at(curves, np.unique(where[shown.size :]))


def _covering_times(problem: Problem, rule: Rule) -> Float[np.ndarray, " T"]:
    """Training times that cover every mode, and τ = ∞."""
    with double_on_host():
        low, high = problem_extents(problem)[0]
    kappa = float(problem.kappa)
    end = LAST / (kappa * (HARD * high if low == 0 or limit_diverges(problem) else low)) + LAST * rule.memory
    if isinstance(rule, HeavyBall | MinibatchSGD):
        momentum, first = float(rule.momentum), float(rule.step_size) * np.arange(1, FIRST_STEPS + 1)
        # slow modes are faster by 1/(1 - momentum); fast ones oscillate, and decay by the momentum alone
        end = max(end * (1 - momentum), LAST * first[0] / (1 - momentum), 2 * first[-1], LAST * rule.memory)
        finite = np.concatenate([first, np.geomspace(first[-1], end, NUM_TIMES)[1:]])
    else:
        finite = np.geomspace(FIRST / (kappa * high), end, NUM_TIMES)
    return np.append(finite, np.inf)


def _at(curves: LearningCurves, index: np.ndarray) -> LearningCurves:
    """The curves at some of their times."""
    names = ("taus", *CURVE_NAMES, *(f"{name}_stderr" for name in CURVE_NAMES))
    return dataclasses.replace(curves, **{name: np.asarray(getattr(curves, name))[index] for name in names})
