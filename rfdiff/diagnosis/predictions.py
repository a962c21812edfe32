"""What theory says of the fitted law at one diffusion time: curves, times of each class, and the training times that are good for it."""

from typing import Any

import numpy as np
from jaxtyping import Float

from rfdiff.class_times import ClassTimes, times
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.problem import Problem
from rfdiff.theory import covering_curves

NUM_TIMES, QUIET = 60, 50.0  # times shown, and the factor beyond the first of all times before which nothing moves
GOOD = 0.9  # share of its best descent that the held-out loss of a class has made where training is good for it
CURVE_FIELDS = ("taus", *CURVE_NAMES, "optimal_loss", "weights", "kappa", "error_estimate")


def predicted(problem: Problem, tolerance: float) -> dict[str, np.ndarray]:
    """Arrays of the curves at times that cover every mode (`covering_...`), and at some of them, to be shown (`shown_...`).

    Raises:
        InputError: what `theory.learning_curves` refuses.
    """
    covering = covering_curves(problem, (), tolerance=tolerance)[1]
    found = {f"covering_{name}": np.asarray(getattr(covering, name)) for name in CURVE_FIELDS}
    finite = np.flatnonzero(np.isfinite(covering.taus) & (np.asarray(covering.taus) >= QUIET * covering.taus[0]))
    some = finite[np.linspace(0, finite.size - 1, NUM_TIMES).round().astype(int)]
    if np.isfinite(np.asarray(covering.test_loss)[-1]).all():  # at τ = ∞, where the losses have a limit
        some = np.append(some, len(covering.taus) - 1)
    along = ("taus", *CURVE_NAMES)
    return found | {
        f"shown_{name}": found[f"covering_{name}"][some] if name in along else found[f"covering_{name}"] for name in CURVE_FIELDS
    }


def curves_in(arrays: dict[str, np.ndarray], kind: str) -> LearningCurves:
    """The curves of one kind, "shown" or "covering", in the arrays of `predicted`."""
    fields: dict[str, Any] = {name: arrays[f"{kind}_{name}"] for name in CURVE_FIELDS}
    fields |= {name: float(fields[name]) for name in ("kappa", "error_estimate")}
    fields |= {f"{name}_stderr": np.zeros_like(fields[name]) for name in CURVE_NAMES}
    return LearningCurves(**fields)


def class_times_of(arrays: dict[str, np.ndarray]) -> ClassTimes:
    """The times of each class, read from the curves that cover every mode."""
    return times(curves_in(arrays, "covering"))


def good_windows(taus: Float[np.ndarray, " T"], test_loss: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "K 2"]:
    """First and last training time at which the held-out loss of each class has made `GOOD` of its best descent 1 - min L_c.

    Linear in log τ between the times of the grid; inf where it has not risen again at the end; NaN for a class without a descent or with
    losses that are unknown.
    """
    known = np.isfinite(test_loss).all(axis=1) & (taus > 0)
    taus, descent = taus[known], 1 - test_loss[known]
    windows = np.full((test_loss.shape[1], 2), np.nan)
    for c in range(windows.shape[0]):
        excess = descent[:, c] - GOOD * descent[:, c].max(initial=0)
        inside = np.flatnonzero(excess >= 0)
        if descent[:, c].max(initial=0) <= 0:
            continue
        windows[c, 0] = _crossing(taus, excess, inside[0] - 1) if inside[0] else taus[0]
        windows[c, 1] = _crossing(taus, excess, inside[-1]) if inside[-1] + 1 < taus.size else np.inf
    return windows


def _crossing(taus: np.ndarray, excess: np.ndarray, i: int) -> float:
    """Where an excess changes sign between two neighbours i, i + 1; the finite one where the other is at τ = ∞."""
    if np.isinf(taus[i + 1]):
        return float(taus[i])
    share = excess[i] / (excess[i] - excess[i + 1])
    return float(taus[i] * (taus[i + 1] / taus[i]) ** share)


def best_common_stop(taus: Float[np.ndarray, " T"], score_error: Float[np.ndarray, "T K"]) -> tuple[int, int]:
    """Index of the training time at which the largest score error of any class is smallest, and the class that has it there."""
    finite = np.isfinite(score_error).all(axis=1) & np.isfinite(taus)
    largest = np.where(finite, np.nan_to_num(score_error, nan=np.inf).max(axis=1), np.inf)
    best = int(np.argmin(largest))
    return best, int(np.argmax(score_error[best]))
