"""Clones: a trajectory made from noise is copied at time t, and both go on apart; do they end in one class? (`equations`, section 8)

After Biroli, Bonnaire, de Bortoli and Mézard 2024 (arXiv:2402.18491), but class by class: of those that end in class c, the part whose
twin does too is E[P(c|x_t)²]/E[P(c|x_t)] = R_c(t), the return probability of a U-turn.
"""

import jax
import numpy as np

from rfdiff.backward.decisions import Denoiser, check_count, proportion_error
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.backward.uturns import ReturnFractions
from rfdiff.errors import InputError
from rfdiff.value_types import as_number


def clones(
    denoiser: Denoiser, t_start: float, key: jax.Array, num: int = 10_000, branches: int = 12, label: str | None = None
) -> tuple[ReturnFractions, np.ndarray, np.ndarray]:
    """Part of the pairs of clones that end in one class, and class by class, for copies made at several times of the same trajectories.

    Args:
        denoiser: mixture, score, scheme; its steps go from `t_start` to its last time.
        t_start: time of the first state, pure noise: large against every speciation time.
        key: JAX random key.
        num: number of trajectories.
        branches: number of branching times, uniform in log-SNR; t_start is the first. Must divide the steps of the denoiser.
        label: name of the work for a progress report, or None.

    Returns:
        class-wise fractions at the branching times, then the fraction (T,) of all pairs and its standard errors.

    Raises:
        InputError: naming t_start, num or branches; or as `samplers.backward`.

    Reference: equations, section 8; tests/backward/test_decisions.py.
    """
    num, branches = check_count("num", num), check_count("branches", branches, 1)
    if not denoiser.t_end < as_number(t_start) < 300:
        raise InputError(f"t_start: {t_start!r}; allowed: {denoiser.t_end:g} < t_start < 300")
    if denoiser.num_steps % branches:
        raise InputError(f"branches: {branches}; allowed: a divisor of the {denoiser.num_steps} steps")
    grid, pace = log_snr_grid(t_start, denoiser.t_end, denoiser.num_steps), denoiser.num_steps // branches
    first, path, copies, ends = jax.random.split(key, 4)
    state = denoiser.draw(first, np.zeros(num, int), np.inf)
    ends_of_clones = []
    for i in range(branches):
        clone = state
        for j in range(i, branches):  # segments of one length: one program
            told = label and f"{label}, t = {grid[i * pace]:.3g} ({i + 1} of {branches})"
            noise = jax.random.fold_in(jax.random.fold_in(copies, i), j)
            clone, _ = denoiser.run(clone, grid[j * pace : (j + 1) * pace + 1], noise, told if j == i else None)
        ends_of_clones.append(denoiser.classes(clone, jax.random.fold_in(ends, i)))
        state, _ = denoiser.run(state, grid[i * pace : (i + 1) * pace + 1], jax.random.fold_in(path, i))
    original = denoiser.classes(state, jax.random.fold_in(ends, branches))
    found = np.stack([np.broadcast_to(original, (branches, num)), ends_of_clones], axis=1)
    same = np.mean(found[:, 0] == found[:, 1], axis=1)
    return _by_class(grid[:-1:pace], found, denoiser.num_classes), same, proportion_error(same, num)


def _by_class(times: np.ndarray, found: np.ndarray, num_classes: int) -> ReturnFractions:
    """Of the clones in class c, the part whose twin is in c too; NaN where no clone is. Errors by the delta method of a ratio."""
    members = found[:, :, :, None] == np.arange(num_classes)  # (T, 2, N, K)
    both, either = np.prod(members, axis=1), np.mean(members, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = both.mean(axis=1) / either.mean(axis=1)
        deviation = both - ratio[:, None, :] * either
        stderr = np.sqrt(np.mean(deviation**2, axis=1) / found.shape[2]) / either.mean(axis=1)
    least = proportion_error(ratio, found.shape[2] * either.mean(axis=1))  # where all agree, the ratio does not vary in the sample
    return ReturnFractions(times, ratio, np.where(stderr > 0, stderr, least))
