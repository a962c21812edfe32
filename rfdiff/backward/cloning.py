"""Clones: a trajectory is copied at time t, and the two continue with independent noise: one class in the end? (docs/theory/speciation.md)

After Biroli, Bonnaire, de Bortoli and Mézard 2024 (arXiv:2402.18491), but class by class: of those that end in class c, the part whose
twin does too is E[P(c|x_t)²]/E[P(c|x_t)] = R_c(t), the return probability of a U-turn.
"""

from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float, Int

from rfdiff.backward.process import BackwardProcess, check_count, proportion_error
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled
from rfdiff.progress import Progress, require_progress, within
from rfdiff.value_types import as_number, value_type


@value_type
class CloneFractions(Labelled):
    """Measured probabilities that clones end in one class, for copies made at T times.

    Args:
        times: (T,) decreasing diffusion times at which the clones parted.
        fraction: (T, K) of the clones that end in class c, the part whose twin does too; NaN where no clone does.
        stderr: (T, K) standard errors.
        same: (T,) part of all pairs that end in one class.
        same_stderr: (T,) standard errors.
    """

    times: Float[np.ndarray, " T"]
    fraction: Float[np.ndarray, "T K"]
    stderr: Float[np.ndarray, "T K"]
    same: Float[np.ndarray, " T"]
    same_stderr: Float[np.ndarray, " T"]

    LABELS: ClassVar = {
        "times": Label(("time",), "diffusion time at which clones part", variable="time"),
        "fraction": Label(("time", "class"), "part of the clones in the class whose twin is in it"),
        "stderr": Label(("time", "class"), "standard error of fraction"),
        "same": Label(("time",), "part of the pairs in one class"),
        "same_stderr": Label(("time",), "standard error of same"),
    }


def clones(
    process: BackwardProcess,
    t_start: float,
    *,
    key: jax.Array,
    num_trajectories: int = 10_000,
    num_times: int = 12,
    progress: Progress | None = None,
) -> CloneFractions:
    """Part of the pairs of clones that end in one class, and class by class, for copies made at several times of the same trajectories.

    Args:
        process: mixture, score, scheme; its steps go from `t_start` to its last time.
        t_start: time of the first state, pure noise: large against every speciation time.
        key: JAX random key.
        num_trajectories: number of trajectories.
        num_times: number of branching times, uniform in log-SNR; t_start is the first. Must divide the steps of the process.
        progress: called with (trajectories of a segment between two branching times done, in all), or None.

    Raises:
        InputError: naming t_start, num_trajectories or num_times; or as `integrate`.

    Reference: docs/theory/speciation.md; tests/backward/test_trajectories.py.
    """
    require_progress(progress)
    num_trajectories, num_times = check_count("num_trajectories", num_trajectories), check_count("num_times", num_times, 1)
    if not process.t_end < as_number(t_start) < 300:
        raise InputError(f"t_start: {t_start!r}; allowed: {process.t_end:g} < t_start < 300")
    if process.num_steps % num_times:
        raise InputError(f"num_times: {num_times}; allowed: a divisor of the {process.num_steps} steps")
    grid, pace = log_snr_grid(t_start, process.t_end, process.num_steps), process.num_steps // num_times
    first, path, copies, ends = jax.random.split(key, 4)
    state = process.draw(first, np.zeros(num_trajectories, int), np.inf)
    segments, done = num_times * (num_times + 3) // 2, 0

    def segment(x: Float[np.ndarray, "N r"], j: int, key: jax.Array) -> Float[np.ndarray, "N r"]:
        """From the branching time j to the next; all segments are of one length, and so one program."""
        nonlocal done
        x, _ = process.run(
            x, grid[j * pace : (j + 1) * pace + 1], key, progress=within(progress, done * num_trajectories, segments * num_trajectories)
        )
        done += 1
        return x

    ends_of_clones = []
    for i in range(num_times):
        clone = state
        for j in range(i, num_times):
            clone = segment(clone, j, jax.random.fold_in(jax.random.fold_in(copies, i), j))
        ends_of_clones.append(process.classes(clone, jax.random.fold_in(ends, i)))
        state = segment(state, i, jax.random.fold_in(path, i))
    original = process.classes(state, jax.random.fold_in(ends, num_times))
    pairs = np.stack([np.broadcast_to(original, (num_times, num_trajectories)), ends_of_clones], axis=1)
    same = np.mean(pairs[:, 0] == pairs[:, 1], axis=1)
    fraction, stderr = _by_class(pairs, process.num_classes)
    return CloneFractions(grid[:-1:pace], fraction, stderr, same, proportion_error(same, num_trajectories))


def _by_class(pairs: Int[np.ndarray, "T 2 N"], num_classes: int) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "T K"]]:
    """Of the clones in class c, the part whose twin is in c too; NaN where no clone is. Errors by the delta method of a ratio."""
    members = pairs[:, :, :, None] == np.arange(num_classes)  # (T, 2, N, K)
    both, either = np.prod(members, axis=1), np.mean(members, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = both.mean(axis=1) / either.mean(axis=1)
        deviation = both - ratio[:, None, :] * either
        stderr = np.sqrt(np.mean(deviation**2, axis=1) / pairs.shape[2]) / either.mean(axis=1)
    least = proportion_error(ratio, pairs.shape[2] * either.mean(axis=1))  # where all agree, the ratio does not vary in the sample
    return ratio, np.where(stderr > 0, stderr, least)
