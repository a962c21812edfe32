"""U-turns: noise samples of a class to time t, denoise them afresh, see whether they come back to their class.

Theory: docs/theory/speciation.md, eq-return.
"""

from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.backward.process import BackwardProcess, check_count, proportion_error
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled
from rfdiff.progress import Progress, require_progress, within
from rfdiff.value_types import as_real_array, value_type

RESOLVED = 4.0  # standard errors from which on a bias is taken for one


class Crossing(NamedTuple):
    """When measured fractions fall below a level.

    Args:
        time: that time.
        error: its error.
    """

    time: float
    error: float


@value_type
class ReturnFractions(Labelled):
    """Measured probabilities to end in a class, at T times.

    Args:
        times: (T,) diffusion times at which trajectories turned or parted.
        fraction: (T, K) part of the trajectories of class c that end in class c.
        stderr: (T, K) standard errors.
        posterior: (T, K) mean of P(c | x_t) over the same states x_t of class c, which is what exact score and steps must give.
        bias_stderr: (T, K) standard errors of fraction - posterior, smaller than those of the fraction since both share their states.
    """

    times: Float[np.ndarray, " T"]
    fraction: Float[np.ndarray, "T K"]
    stderr: Float[np.ndarray, "T K"]
    posterior: Float[np.ndarray, "T K"]
    bias_stderr: Float[np.ndarray, "T K"]

    LABELS: ClassVar = {
        "times": Label(("time",), "diffusion time at which trajectories turn", variable="time"),
        "fraction": Label(("time", "class"), "part of the trajectories of the class that end in it"),
        "stderr": Label(("time", "class"), "standard error of fraction"),
        "posterior": Label(("time", "class"), "mean posterior of the class at the turn"),
        "bias_stderr": Label(("time", "class"), "standard error of fraction - posterior"),
    }

    @property
    def systematic(self) -> Float[np.ndarray, "T K"]:
        """|fraction - posterior| above `RESOLVED` of its standard errors, else 0: the error of too long steps or a wrong score."""
        bias = np.abs(self.fraction - self.posterior)
        return np.where(bias > RESOLVED * self.bias_stderr, bias, 0.0)

    @property
    def error(self) -> Float[np.ndarray, "T K"]:
        """Statistical and systematic error together."""
        return np.hypot(self.stderr, self.systematic)


def crossing(times: Float[np.ndarray, " T"], fraction: Float[np.ndarray, " T"], error: Float[np.ndarray, " T"], level: float) -> Crossing:
    """Time at which measured fractions fall below a level, by linear interpolation, and its error; NaN where they do not.

    Args:
        times: (T,) increasing times.
        fraction: (T,) fractions of one class.
        error: (T,) their errors.
        level: the fraction, (1 + π_c)/2 for the speciation time.
    """
    falls = np.flatnonzero((fraction[:-1] >= level) & (fraction[1:] < level))
    if not falls.size:
        return Crossing(np.nan, np.nan)
    i = falls[-1]
    slope = (fraction[i + 1] - fraction[i]) / (times[i + 1] - times[i])
    part = (level - fraction[i]) / (fraction[i + 1] - fraction[i])
    spread = np.hypot((1 - part) * error[i], part * error[i + 1]) / abs(slope)
    return Crossing(float(times[i] + part * (times[i + 1] - times[i])), float(spread))


def uturn(
    process: BackwardProcess, times: ArrayLike, *, key: jax.Array, num_trajectories: int = 10_000, progress: Progress | None = None
) -> ReturnFractions:
    """Part of the samples of each class that return to it, after noising to t and denoising with fresh noise.

    Args:
        process: mixture, score, scheme.
        times: (T,) times, each above the last time of the process.
        key: JAX random key; other times and numbers change no trajectory.
        num_trajectories: trajectories for each class and time.
        progress: called with (trajectories done, in all), or None.

    Raises:
        InputError: naming times or num_trajectories; or as `integrate`.

    Reference: docs/theory/speciation.md, eq-return; tests/backward/test_trajectories.py.
    """
    require_progress(progress)
    turns, num_trajectories = check_times(times, process.t_end), check_count("num_trajectories", num_trajectories)
    labels = np.repeat(np.arange(process.num_classes), num_trajectories)
    fractions, posteriors, spreads = [], [], []
    for i, t in enumerate(turns):
        draw, noise, end = jax.random.split(jax.random.fold_in(key, i), 3)
        x = process.draw(draw, labels, t)
        of_start = np.take_along_axis(process.posterior(x, t), labels[:, None], 1)[:, 0]
        posteriors.append(of_start.reshape(-1, num_trajectories).mean(axis=1, dtype=np.float64))
        variance = of_start * (1 - of_start)  # of the end, given the start
        spreads.append(variance.reshape(-1, num_trajectories).mean(axis=1, dtype=np.float64))
        grid = log_snr_grid(t, process.t_end, process.num_steps)
        x, _ = process.run(x, grid, noise, progress=within(progress, i * len(labels), len(turns) * len(labels)))
        fractions.append(np.mean((process.classes(x, end) == labels).reshape(-1, num_trajectories), axis=1))
    fraction = np.array(fractions)
    least = 0.5 / num_trajectories  # half a trajectory, where the start decides the end
    bias_stderr = np.sqrt(np.maximum(np.array(spreads), least) / num_trajectories)
    return ReturnFractions(turns, fraction, proportion_error(fraction, num_trajectories), np.array(posteriors), bias_stderr)


def committor(
    process: BackwardProcess, x: Float[np.ndarray, "M r"], t: float, *, key: jax.Array, copies: int = 200
) -> tuple[Float[np.ndarray, "M K"], Float[np.ndarray, "M K"]]:
    """Probability that the backward process from a state at t ends in each class, from independent copies of it.

    With the exact score it is the posterior P(c | x_t = x): along a backward path it is a martingale that ends at 0 or 1.

    Args:
        process: mixture, score, scheme.
        x: (M, ·) states at t (`BackwardProcess.draw`, or of a path).
        t: their time, above the last time of the process.
        key: JAX random key.
        copies: copies of each state.

    Returns:
        (M, K) fractions and their standard errors.

    Raises:
        InputError: naming times or copies; or as `integrate`.

    Reference: tests/backward/test_trajectories.py.
    """
    (time,), copies = check_times([t], process.t_end), check_count("copies", copies)
    noise, end = jax.random.split(key)
    many = np.repeat(np.asarray(x), copies, axis=0)
    last, _ = process.run(many, log_snr_grid(time, process.t_end, process.num_steps), noise)
    classes = process.classes(last, end).reshape(-1, copies)
    share = np.mean(classes[:, :, None] == np.arange(process.num_classes), axis=1)
    return share, proportion_error(share, copies)


def check_times(times: ArrayLike, t_end: float) -> Float[np.ndarray, " T"]:
    """Times at which trajectories turn or part.

    Raises:
        InputError: none, or one not above t_end.
    """
    turns = np.atleast_1d(as_real_array("times", times))
    if turns.ndim != 1 or turns.size == 0 or not np.all(np.isfinite(turns) & (turns > t_end)):
        raise InputError(f"times: {times!r}; allowed: at least one finite time, each above t_end = {t_end:g}")
    return turns
