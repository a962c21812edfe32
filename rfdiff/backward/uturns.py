"""U-turns: noise samples of a class to time t, denoise them afresh, see whether they come back to their class (`equations`, section 8)."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.backward.decisions import Denoiser, check_count, proportion_error
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.errors import InputError
from rfdiff.value_types import as_real_array


@dataclass(frozen=True)
class ReturnFractions:
    """Measured probabilities to end in a class, at T times.

    Args:
        times: (T,) diffusion times at which trajectories turned or parted.
        fraction: (T, K) part of the trajectories of class c that end in class c.
        stderr: (T, K) standard errors.
        bayes: (T, K) mean of P(c | x_t) over the same states x_t of class c, which is what the exact score must give; None where not known.
    """

    times: np.ndarray
    fraction: np.ndarray
    stderr: np.ndarray
    bayes: np.ndarray | None = None


def uturn(denoiser: Denoiser, times: ArrayLike, key: jax.Array, num: int = 10_000, label: str | None = None) -> ReturnFractions:
    """Part of the samples of each class that return to it, after noising to t and denoising with fresh noise.

    Args:
        denoiser: mixture, score, scheme.
        times: (T,) times, each above the last time of the denoiser.
        key: JAX random key; other times and numbers change no trajectory.
        num: trajectories for each class and time.
        label: name of the work for a progress report, or None.

    Raises:
        InputError: naming times or num; or as `samplers.backward`.
        KeyboardInterrupt: passes through.

    Reference: equations, section 8 (R_c); tests/backward/test_decisions.py.
    """
    turns, num = check_times(times, denoiser.t_end), check_count("num", num)
    labels = np.repeat(np.arange(denoiser.num_classes), num)
    fractions, expected = [], []
    for i, t in enumerate(turns):
        draw, noise, end = jax.random.split(jax.random.fold_in(key, i), 3)
        x = denoiser.draw(draw, labels, t)
        own = np.take_along_axis(denoiser.posterior(x, t), labels[:, None], 1)[:, 0]
        expected.append(own.reshape(-1, num).mean(axis=1, dtype=np.float64))
        grid = log_snr_grid(t, denoiser.t_end, denoiser.num_steps)
        x, _ = denoiser.run(x, grid, noise, label and label + f", t = {t:.3g} ({i + 1} of {len(turns)})" * (len(turns) > 1))
        fractions.append(np.mean((denoiser.classes(x, end) == labels).reshape(-1, num), axis=1))
    fraction = np.array(fractions)
    return ReturnFractions(turns, fraction, proportion_error(fraction, num), np.array(expected))


def committor(denoiser: Denoiser, x: Any, t: float, key: jax.Array, copies: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Probability that the backward process from a state at t ends in each class, from independent copies of it.

    With the exact score it is the posterior P(c | x_t = x): along a backward path it is a martingale that ends at 0 or 1.

    Args:
        denoiser: mixture, score, scheme.
        x: (M, ·) states at t (`Denoiser.draw`, or of a path).
        t: their time, above the last time of the denoiser.
        key: JAX random key.
        copies: copies of each state.

    Returns:
        (M, K) fractions and their standard errors.

    Raises:
        InputError: naming times or copies; or as `samplers.backward`.

    Reference: tests/backward/test_decisions.py.
    """
    (time,), copies = check_times([t], denoiser.t_end), check_count("copies", copies)
    noise, end = jax.random.split(key)
    many = np.repeat(np.asarray(x), copies, axis=0)
    last, _ = denoiser.run(many, log_snr_grid(time, denoiser.t_end, denoiser.num_steps), noise)
    classes = denoiser.classes(last, end).reshape(-1, copies)
    share = np.mean(classes[:, :, None] == np.arange(denoiser.num_classes), axis=1)
    return share, proportion_error(share, copies)


def check_times(times: ArrayLike, t_end: float) -> np.ndarray:
    """Times at which trajectories turn or part.

    Raises:
        InputError: none, or one not above t_end.
    """
    turns = np.atleast_1d(as_real_array("times", times))
    if turns.ndim != 1 or turns.size == 0 or not np.all(np.isfinite(turns) & (turns > t_end)):
        raise InputError(f"times: {times!r}; allowed: at least one finite time, each above t_end = {t_end:g}")
    return turns
