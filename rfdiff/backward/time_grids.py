"""Grids of diffusion times for the backward process, uniform in the logarithm of the signal-to-noise ratio."""

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.diffusion import log_snr, time_at_log_snr
from rfdiff.errors import InputError
from rfdiff.value_types import as_number, as_real_array, vectorize_text

MOST_STEPS = 1_000_000


def log_snr_grid(t_start: float, t_end: float, num_steps: int) -> Float[np.ndarray, " T"]:
    """Decreasing times (num_steps + 1,) from `t_start` to `t_end`, uniform in λ.

    Steps are then proportional to t as t → 0, where the score stiffens as 1/Δ, and equal in t as t → ∞.

    Args:
        t_start: first time; from 5 on x_t is noise but for a signal of e^{-5} times its amplitude.
        t_end: last time, > 0: the score of a mixture with a class of variance 0 has no limit at 0.
        num_steps: number of steps.

    Raises:
        InputError: naming the argument, its value and the allowed range.
    """
    start, end = as_number(t_start), as_number(t_end)
    if not 0 < end < math.inf:
        raise InputError(f"t_end: {t_end!r}; allowed: a finite number > 0")
    if not end < start < 300:
        raise InputError(f"t_start: {t_start!r}; allowed: t_end = {end:g} < t_start < 300")
    steps = as_number(num_steps)
    if not (1 <= steps <= MOST_STEPS and steps == int(steps)):
        raise InputError(f"num_steps: {num_steps!r}; allowed: an integer from 1 to {MOST_STEPS}")
    times = time_at_log_snr(np.linspace(log_snr(start), log_snr(end), int(steps) + 1))
    times[[0, -1]] = start, end
    return check_grid(times)


def check_grid(times: ArrayLike) -> Float[np.ndarray, " T"]:
    """A grid of diffusion times of the backward process, in float64.

    Raises:
        InputError: not one-dimensional, fewer than two times, one that is not finite and > 0, or not strictly decreasing.
    """
    grid = as_real_array("times", times)
    if grid.ndim != 1 or grid.size < 2:
        raise InputError(f"times: shape {grid.shape}; allowed: (T,) with at least 2 times")
    if not np.all(np.isfinite(grid) & (grid > 0)):
        bad = int(np.flatnonzero(~(np.isfinite(grid) & (grid > 0)))[0])
        raise InputError(f"times: {grid[bad]:.6g} at {bad}; allowed: finite times > 0")
    if np.any(np.diff(grid) >= 0):
        bad = int(np.flatnonzero(np.diff(grid) >= 0)[0])
        shown = vectorize_text(grid[bad : bad + 2])
        raise InputError(f"times: {shown} at {bad}, {bad + 1}; allowed: strictly decreasing, the process runs backward")
    return grid
