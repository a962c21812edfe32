"""Criteria of the agreement tests, in standard errors, each with the power to reject (they have tests of their own)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def assert_within(
    estimate: ArrayLike,
    stderr: ArrayLike,
    prediction: ArrayLike,
    allowance: ArrayLike = 0.0,
    k: float = 4.0,
    max_stderr: ArrayLike | None = None,
) -> None:
    """Assert |estimate - prediction| < k standard errors + allowance in every entry, with error bars small enough to mean something.

    Args:
        estimate: measured values, any shape.
        stderr: their standard errors, > 0, broadcastable to the estimate.
        prediction: predicted values, of the shape of the estimate.
        allowance: systematic deviation granted beside the statistical one (the O(1/d) term), >= 0.
        k: standard errors granted; 4 fails a true hypothesis about once in 16,000 entries.
        max_stderr: largest standard error at which the comparison still has power; None: a tenth of the largest |prediction|.
    """
    estimate, prediction = np.asarray(estimate, float), np.asarray(prediction, float)
    if estimate.shape != prediction.shape:
        raise AssertionError(f"estimate has shape {estimate.shape}, prediction {prediction.shape}: nothing may be broadcast between them")
    if estimate.size == 0:
        raise AssertionError("nothing to compare: the estimate is empty")
    stderr, allowance = np.broadcast_to(np.asarray(stderr, float), estimate.shape), np.asarray(allowance, float)
    for name, value in {"estimate": estimate, "prediction": prediction, "stderr": stderr, "allowance": allowance}.items():
        if not np.all(np.isfinite(value)):
            raise AssertionError(f"{name} has an entry that is not finite")
    if np.any(stderr <= 0):
        raise AssertionError("stderr has an entry <= 0: an error bar of zero decides nothing (use an exact comparison)")
    if np.any(allowance < 0):
        raise AssertionError("allowance has an entry < 0")
    ceiling = 0.1 * np.abs(prediction).max() if max_stderr is None else np.asarray(max_stderr, float)
    if np.any(stderr > ceiling):
        raise AssertionError(f"no power: a standard error of {stderr.max():.3g} is above its ceiling {np.max(ceiling):.3g}")
    deviation = np.abs(estimate - prediction)
    excess = deviation - (k * stderr + allowance)
    if np.any(excess >= 0):
        worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
        raise AssertionError(
            f"{int(np.sum(excess >= 0))} of {excess.size} entries deviate; worst at {tuple(int(i) for i in worst)}: estimate "
            f"{estimate[worst]:.6g}, prediction {prediction[worst]:.6g}, off by {deviation[worst]:.3g} = "
            f"{deviation[worst] / stderr[worst]:.1f} standard errors of {stderr[worst]:.3g} "
            f"(allowed: {k:g} standard errors + {np.broadcast_to(allowance, excess.shape)[worst]:.3g})"
        )


def rejects(criterion: Callable[[], Any]) -> None:
    """Assert that a criterion fails by assertion: the rejecting sibling of an agreement test.

    Any other exception passes through, so that a sibling broken by a typo does not count as a rejection.
    """
    try:
        criterion()
    except AssertionError:
        return
    raise AssertionError("the criterion accepts what it should reject: it has no power against this change")


def loglog_slope(x: ArrayLike, y: ArrayLike) -> float:
    """Least-squares slope of log |y| against log x: the order of convergence of an error y.

    Args:
        x: (N,) step sizes, dimensions or sample counts, > 0, at least two different ones.
        y: (N,) errors, none of them zero.
    """
    steps, errors = np.asarray(x, float), np.abs(np.asarray(y, float))
    if steps.ndim != 1 or steps.shape != errors.shape or np.unique(steps).size < 2:
        raise AssertionError(f"a slope needs two lists of one length with two different x; got shapes {steps.shape} and {errors.shape}")
    if not (np.all(np.isfinite(steps) & (steps > 0)) and np.all(np.isfinite(errors) & (errors > 0))):
        raise AssertionError("a slope needs finite x > 0 and finite y != 0")
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])
