"""Actual training of the readout by an optax optimiser: whole gradient or batches, noise averaged, stored or fresh (docs/theory/model.md).

The network, its samples and its stored noise draws are those that `run_seeds` gives the same seed, and the gradients are those of
`loss_gradient`, in the unit of τ: `optax.sgd(η)` is Euler's scheme for the exact flow, A_{k+1} = A_k - η G(A_k) at τ = kη, with the flow
as its limit η → 0 and the filters of `rules.GradientDescent` and `rules.HeavyBall` as its exact result. For other optimisers (Adam,
schedules) τ = step_size · k is a label.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import scipy.linalg
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, PyTree

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientDescent, check_stability
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.descent.checkpoint import Checkpoint, identity, load_state, save_state
from rfdiff.simulation.descent.gradient import Training
from rfdiff.simulation.descent.loop import Recipe, State, StopWhen, advance, start
from rfdiff.simulation.descent.optimizer_probe import Probed, probe
from rfdiff.simulation.descent.setup import check_memory, prepared_replica, recipe_for, schedule
from rfdiff.simulation.features import Sizes, floating_type, sizes_at
from rfdiff.simulation.replica import check_truncation, draw_replica, realised_optimum
from rfdiff.simulation.replica_memory import Layout, layout_for
from rfdiff.simulation.seed_batches import SeedBatch, check_seeds, summarize
from rfdiff.value_types import as_number, static, value_type

if TYPE_CHECKING:
    import xarray as xr

BATCH_STREAM = 4  # replicas use the streams 0 to 3 of their key


@value_type
class Descent:
    """One training run (T measurements, K classes).

    Args:
        batch: its measured losses, as a batch of one seed; `taus` are step_size times the logged steps.
        steps: (T,) step numbers of the measurements.
        readout: (d, p) A at the last of them.
        stopped: why it ended: "all N steps done", or what the early stop saw.
    """

    batch: SeedBatch
    steps: Int[np.ndarray, " T"]
    readout: Float[np.ndarray, "d p"]
    stopped: str = static()

    @property
    def curves(self) -> LearningCurves:
        """Learning curves of this run."""
        return summarize([self.batch])

    def to_xarray(self) -> "xr.Dataset":
        """The learning curves, with the step number of each training time, the trained readout, and why the run ended."""
        readout = (("coordinate", "neuron"), np.asarray(self.readout), {"long_name": "trained readout A at the last training time"})
        steps = ("tau", np.asarray(self.steps), {"long_name": "step number"})
        return self.curves.to_xarray().assign(step=steps, readout=readout).assign_attrs(stopped=self.stopped)


class _Run(NamedTuple):
    """A validated request, with its replica."""

    training: Training
    recipe: Recipe
    optimizer: optax.GradientTransformation
    step_size: float
    truncation: float


def descend(
    problem: Problem,
    *,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    step_size: float,
    d: int,
    key: Key[Array, ""],
    seed: int = 0,
    noise: str | None = None,
    batch_size: int | None = None,
    sampling: str = "weighted",
    log_steps: Sequence[int] | np.ndarray | None = None,
    stop: StopWhen | None = None,
    dtype: DTypeLike | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
) -> Descent:
    """Train the readout of one replica from A = 0 and measure the losses of its classes on the way.

    Args:
        problem, d, key, dtype, data: as in `learning_curves`.
        optimizer: of the readout (d, p); its gradients are d² ∇L. The same object again does not compile again.
        num_steps: steps K ≥ 1, less than 2^31.
        step_size: τ of a step, η for `optax.sgd(η)`.
        seed: replica number r in [0, 2^32); the replica of `run_seeds` of that number.
        noise: "average" (exact, m = ∞), "fixed" (the problem's m stored draws) or "fresh" (a new draw of every sample at every step,
            which trains on the m = ∞ loss); None is "average" at m = ∞ and "fixed" else. Train losses are those of the whole training set.
        batch_size: pairs (sample, draw) a step; None for all of them.
        sampling: how batches meet the problem's `loss_weights` ω_c. "weighted": pairs as they come, without replacement until an epoch is
            over, their losses multiplied by ω_c n/n_c. "balanced": with replacement, a class with probability ω_c and then one of its
            pairs; without loss weights, each pair alike.
        log_steps: increasing steps in [0, K] at which to measure, K being added; None is about 60, log-spaced.
        stop: early stop on the test loss.
        checkpoint: keeps the state between chunks; the same call resumes from the last one, to the same bits.
        progress: called on the host with (steps done, steps in all) after each chunk.

    Raises:
        InputError: malformed arguments; a step size that diverges (before training for plain gradient descent); what does not fit in
            memory; a damaged checkpoint or one of another run.
        OSError: the checkpoint's folder cannot be written to.
    """
    name, sizes, number = floating_type(dtype), sizes_at(problem, d), check_seeds([seed])[0]
    tau = _checked_arguments(step_size, checkpoint, progress)
    logged = schedule(num_steps, log_steps)
    recipe = recipe_for(
        problem, sizes, noise=noise, batch_size=batch_size, stop=stop, num_steps=int(logged[-1]), sampling=sampling
    )  # fmt: skip
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    check_memory(sizes, name, len(logged), recipe, held_out)
    layout = layout_for(problem, sizes, name, held_out)
    with jax.enable_x64(name == "float64"):
        probed = probe(optimizer, (sizes.d, sizes.p), jnp.dtype(name))
        _check_step(tau, probed)
        training, truncation = _replica(problem, data, layout, jax.random.fold_in(key, np.uint32(number)), logged, recipe)
        if probed.plain_step is not None:
            check_stability(GradientDescent(tau), problem.kappa, _largest_eigenvalue(training))
        run, state = _Run(training, recipe, optimizer, tau, truncation), start(training, recipe, optimizer)
        if checkpoint is None:
            state = _trained(run, state, None, 0.0, progress)
        else:
            folder = checkpoint.folder / f"seed-{number}"
            of_run = identity(_dependencies(problem, layout, key, number, data, run, (probed.fingerprint, checkpoint.label)))
            state = load_state(folder, state, of_run) or state
            state = _trained(run, state, functools.partial(save_state, folder, identity=of_run), checkpoint.seconds, progress)
        return _result(problem, sizes, name, number, run, state)


def pool(runs: Sequence[Descent]) -> LearningCurves:
    """Mean and standard error over runs of different seeds; where some stopped early, up to the last measurement that all have made.

    Raises:
        InputError: no run, runs of different problems or step numbers, or a seed that occurs twice.
    """
    if len(runs) == 0:
        raise InputError("runs: none given; allowed: at least one Descent")
    shared = min(len(run.steps) for run in runs)
    cut = [
        dataclasses.replace(
            run.batch,
            taus=run.batch.taus[:shared],
            train_loss=run.batch.train_loss[:, :shared],
            test_loss=run.batch.test_loss[:, :shared],
            score_error=run.batch.score_error[:, :shared],
        )
        for run in runs
    ]
    return summarize(cut)


def _checked_arguments(step_size: float, checkpoint: Checkpoint | None, progress: Progress | None) -> float:
    """τ of a step as a number; a step size out of range, a checkpoint or progress report of another type are refused."""
    tau = as_number(step_size)
    if not 0 < tau < np.inf:
        raise InputError(f"step_size: {step_size!r}; allowed: a finite number > 0")
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise InputError(f"checkpoint: {checkpoint!r}; allowed: a Checkpoint, or None")
    require_progress(progress)
    return tau


def _check_step(step_size: float, probed: Probed) -> None:
    """Refuse times that do not go with the steps, where plain gradient descent shows them."""
    if probed.plain_step is not None and not np.isclose(probed.plain_step, step_size, rtol=1e-5):
        raise InputError(
            f"step_size: {step_size:.6g} beside gradient descent of step {probed.plain_step:.6g}; allowed: the optimizer's own"
        )


def _replica(
    problem: Problem, data: Samples | None, layout: Layout, key: Key[Array, ""], logged: Int[np.ndarray, " T"], recipe: Recipe
) -> tuple[Training, float]:
    """The training of the replica of a key, with checked averages, and the bound on their error."""
    source, keys = draw_replica(problem, data, layout, key)
    sampled, batch_key = recipe.batch is not None or recipe.noise == "fresh", jax.random.fold_in(key, BATCH_STREAM)
    training, truncation = prepared_replica(problem, source, keys, batch_key, logged.astype(np.int32), layout, sampled)
    check_truncation(np.asarray(truncation), layout)
    return training, float(truncation)


def _dependencies(
    problem: Problem, layout: Layout, key: Key[Array, ""], seed: int, data: Samples | None, run: _Run, optimizer: tuple[str, str]
) -> Mapping[str, PyTree]:
    """What a state depends on, by name."""
    return {
        "problem": (problem, problem.noise_draws), "activation": problem.activation, "dimension": layout.sizes.d, "key": key, "seed": seed,
        "data": (data, layout.held_out), "dtype": layout.dtype, "optimizer": optimizer, "step_size": run.step_size,
        "log_steps": run.training.log_steps, "noise": run.recipe.noise, "batch_size": run.recipe.batch, "stop": repr(run.recipe.stop),
        "chunk": run.recipe.chunk, "sampling": run.recipe.balanced,
    }  # fmt: skip


def _trained(run: _Run, state: State, keep: Callable[[State], None] | None, seconds: float, progress: Progress | None) -> State:
    """The state at the end. After Ctrl-C the chunk just finished is kept; after a kill the next call starts from the last one on disk."""
    total, saved = int(run.training.log_steps[-1]), time.monotonic()
    try:
        while int(state.step) < total and not bool(state.early):
            state = advance(state, run.training, recipe=run.recipe, optimizer=run.optimizer)
            if not bool(state.finite):
                raise InputError(_divergence(run, int(state.step)))
            over = int(state.step) == total or bool(state.early)
            if keep is not None and (over or time.monotonic() - saved >= seconds):
                keep(state)
                saved = time.monotonic()
            if progress is not None:
                progress(int(state.step), total)
    except KeyboardInterrupt:
        # between donating a state to a chunk and receiving the next one there is nothing to keep: its buffers are gone
        if keep is not None and not any(leaf.is_deleted() for leaf in jax.tree.leaves(state)) and bool(state.finite):
            keep(state)
        raise
    return state


def _divergence(run: _Run, step: int) -> str:
    limit = 2 / (float(run.training.kappa) * _largest_eigenvalue(run.training))
    return (
        f"step_size: {run.step_size:.6g} diverges: the training is not finite from step {step} on (tau = {step * run.step_size:.6g}); "
        f"allowed: a smaller one (plain gradient descent on the whole training set is stable below {limit:.6g})"
    )


def _largest_eigenvalue(training: Training) -> float:
    U = np.asarray(training.U, np.float64)
    return float(scipy.linalg.eigh(U, eigvals_only=True, subset_by_index=[len(U) - 1, len(U) - 1])[0])


def _result(problem: Problem, sizes: Sizes, dtype: str, seed: int, run: _Run, state: State) -> Descent:
    rows = int(state.row)
    steps = np.asarray(run.training.log_steps, np.int64)[:rows]
    train, test = (np.asarray(values, np.float64)[None, :rows] for values in (state.train_loss, state.test_loss))
    optimal, stop = realised_optimum(problem, sizes), run.recipe.stop
    stopped = f"all {steps[-1]} steps done"
    if stop is not None and bool(state.early):
        what = "total test loss" if stop.class_index is None else f"test loss of class {stop.class_index}"
        stopped = (
            f"early stop at step {steps[-1]} of {int(run.training.log_steps[-1])}: the {what} has not fallen below its best, "
            f"{float(state.best):.6g}, by {float(stop.improvement):g} of it in {stop.patience} measurements"
        )
    batch = SeedBatch(
        seeds=np.array([seed]),
        taus=run.step_size * steps,
        train_loss=train,
        test_loss=test,
        score_error=(test - optimal) / noise_variance_of(problem.t),
        eigenvalues=None,
        class_weights=None,
        truncation=np.array([run.truncation]),
        optimal_loss=optimal,
        weights=np.asarray(problem.mixture.weights),
        kappa=float(problem.kappa),
        untrained_loss=np.asarray(run.training.train.untrained_loss, np.float64)[None],
        dimension=sizes.d,
        dtype=dtype,
    )
    return Descent(batch, steps, np.asarray(state.A), stopped)
