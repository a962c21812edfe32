"""Curves of networks by the solver asked for or picked, and the refusal of what does not fit in memory (`planning` has the estimates)."""

import numbers
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, Rule
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.distributed import agreed, over_processes
from rfdiff.simulation.features import floating_type, sizes_at
from rfdiff.simulation.krylov_ensemble import krylov_seeds
from rfdiff.simulation.mesh import check_mesh
from rfdiff.simulation.replica import exact_seeds
from rfdiff.simulation.replica_memory import chunk_size
from rfdiff.simulation.seed_batches import Progress, SeedBatch, check_seeds, summarize
from rfdiff.simulation.solver_costs import CALIBRATION, PROBES, SOLVERS, holds_matrix, plan


def run_seeds(
    problem: Problem,
    taus: Any,
    d: int,
    key: jax.Array,
    seeds: Sequence[int],
    rule: Rule | None = None,
    dtype: Any = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    mesh: Mesh | None = None,
) -> SeedBatch:
    """Curves of chosen replicas, for callers that checkpoint between batches; `summarize` puts batches together.

    Args:
        seeds: distinct replica numbers in [0, 2^32).
        problem, taus, d, key, rule, dtype, progress, data, solver, tolerance, mesh: as in `learning_curves`.

    Raises:
        InputError: as `learning_curves`; or seeds that repeat or are not such integers.
    """
    numbers_ = check_seeds(seeds)
    if progress is not None and not callable(progress):
        raise InputError(f"progress: {progress!r}; allowed: a function of (done, total), or None")
    if mesh is not None:
        check_mesh(mesh)
    rule = GradientFlow() if rule is None else rule
    schedule, _ = rule.schedule(taus, problem.kappa)
    chosen = fitting_solver(problem, d, len(schedule), len(numbers_), dtype, data, solver, mesh)
    if chosen == "exact":
        return over_processes(lambda own, part: exact_seeds(problem, taus, d, key, own, rule, dtype, progress, data, part), numbers_, mesh)
    probes = min(d, PROBES) if chosen == "krylov-probes" else None
    free = chosen == "krylov-matrix-free" or (probes is not None and not holds_matrix(sizes_at(problem, d).p, floating_type(dtype)))
    settings = (rule, dtype, progress, data, free, probes, tolerance)
    return over_processes(lambda own, part: krylov_seeds(problem, taus, d, key, own, *settings, part), numbers_, mesh)


def fitting_solver(
    problem: Problem,
    d: int,
    num_times: int,
    num_seeds: int,
    dtype: Any = None,
    data: Samples | None = None,
    solver: str | None = None,
    mesh: Mesh | None = None,
) -> str:
    """The solver asked for, if it fits in memory; for None the plan's choice. Small networks are not worth a measurement of the device.

    Args:
        problem, d, num_times, num_seeds, dtype, data, mesh: as in `plan`; with a mesh every process gets the same answer.
        solver: as in `learning_curves`.

    Raises:
        InputError: as `plan`; an unknown solver; one that does not fit, with its estimate and what would fit.
    """
    if solver is not None and solver not in SOLVERS:
        raise InputError(f"solver: {solver!r}; allowed: {', '.join(SOLVERS)}, or None for the plan's choice")
    sizes = sizes_at(problem, d)
    if sizes.p <= CALIBRATION and solver in (None, "exact"):
        chunk_size(sizes, floating_type(dtype), num_times, 1, () if data is None else held_out_counts(data, problem, sizes))
        return "exact"
    found = plan(problem, d, num_times, num_seeds, dtype, data, mesh)
    chosen = solver or found.solver
    if mesh is not None and solver is None:
        chosen = SOLVERS[agreed(SOLVERS.index(chosen or "exact"))]
    fitting = [e.solver for e in found.estimates if e.fits]
    if chosen in fitting:
        return chosen
    least = next(e for e in found.estimates if e.solver == (solver or "krylov-probes"))
    available = (found.available or 0) / 2**30
    rest = f"{', '.join(fitting)}, or " if fitting else ""
    raise InputError(
        f"d: {d} makes p = {found.sizes.p} features and needs about {least.bytes / 2**30:.3g} GiB in {found.dtype}, "
        f"of {available:.3g} GiB of memory, by solver {least.solver}; allowed: {rest}a smaller d, psi_p or psi_n, or float32"
    )


def learning_curves(
    problem: Problem,
    taus: Any,
    d: int,
    key: jax.Array,
    num_seeds: int,
    rule: Rule | None = None,
    dtype: Any = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    solver: str | None = None,
    tolerance: float | None = None,
    mesh: Mesh | None = None,
) -> LearningCurves:
    """Per-class learning curves of real networks in dimension d: mean and standard error over independent replicas.

    Each replica draws centroid directions, W, samples (and noise, for finite m) of its own. Nothing is assumed Gaussian: features are
    σ(W x/√d), and the noise average (m = ∞) and the test loss are exact up to the `truncation` that `run_seeds` bounds.

    With `data`, each replica draws n_c training samples of class c from the data set in place of the mixture, without replacement,
    and its test loss is that on other samples of the class, averaged over their noise exactly. The problem's mixture then gives the
    class fractions, and the loss of *its* exact score as `optimal_loss`: the score of real data is not known, so that
    `score_error` is the excess over the best loss on the mixture, and negative where the network does better than that. Replicas share
    the data set, and the standard errors leave out that another data set would give other samples.

    Args:
        problem: mixture, activation, t, ψ_p, ψ_n, m.
        taus: (T,) increasing training times ≥ 0, in the unit set by κ = 2Δ/ψ_p; inf is convergence. None with `Ridge`.
        d: dimension.
        key: JAX random key; replica r uses fold_in(key, r), so more seeds never change the old ones.
        num_seeds: replicas S ≥ 1; with one the standard errors are NaN.
        rule: training rule; None is GradientFlow().
        dtype: float64 or float32; None is float64 on a CPU, float32 on an accelerator. The same seed is the same network in both.
            Losses in float32 stay within 1e-4 of float64 but for late times (κτλ > 1 of the smallest λ) with λ_min below about
            5e-5 λ_max: p near n m, or t of 0.01 and less.
        progress: called on the host with (replicas done, replicas in all) after each chunk.
        data: labelled samples of dimension d, classes in the order of the mixture's; None for draws of the mixture.
        solver: "exact", "krylov", "krylov-matrix-free" or "krylov-probes"; None for the choice of `plan`.
        tolerance: numerical error of the losses at which a Krylov space is large enough; None for 1e-8 (1e-4 in float32).
        mesh: from `device_mesh`; None for one device. Numbers do not depend on it, to rounding. With a mesh of several processes
            every one calls this with the same arguments and gets the same result; each tells `progress` of its own seeds.

    Returns:
        `LearningCurves` with `per_seed`, source "simulation" and, from the exact flow alone, `spectrum`; `error_estimate` is that of a
        Krylov space, NaN from the exact flow.

    Raises:
        InputError: malformed arguments; d too small; a network that does not fit in memory; a step size that diverges; data of another
            dimension or other classes than the problem's, or with too few samples of a class.
    """
    if not isinstance(num_seeds, numbers.Integral) or isinstance(num_seeds, bool) or num_seeds < 1:
        raise InputError(f"num_seeds: {num_seeds!r}; allowed: an integer >= 1")
    return summarize([run_seeds(problem, taus, d, key, range(int(num_seeds)), rule, dtype, progress, data, solver, tolerance, mesh)])
