"""Curves of networks by the solver asked for or picked, and the refusal of networks too large for memory (`solver_costs` estimates)."""

import functools
import importlib
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.problem import Problem, require_problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, MinibatchSGD, Rule, Taus, require_rule
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.distributed import agreed, over_processes
from rfdiff.simulation.exact_ensemble import exact_seeds
from rfdiff.simulation.features import floating_type, sizes_at
from rfdiff.simulation.krylov_ensemble import krylov_seeds
from rfdiff.simulation.mesh import check_mesh
from rfdiff.simulation.replica_memory import chunk_size, require_decomposition
from rfdiff.simulation.seed_batches import MOST_SEEDS, SeedBatch, check_seeds, summarize
from rfdiff.simulation.solver_costs import CALIBRATION, PROBES, SOLVERS, SolverPlan, holds_matrix, plan
from rfdiff.value_types import as_integer


def run_seeds(
    problem: Problem,
    taus: Taus,
    *,
    d: int,
    key: Key[Array, ""],
    seeds: Sequence[int],
    rule: Rule = GradientFlow(),
    dtype: DTypeLike | None = None,
    solver: str | None = None,
    krylov_tolerance: float | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
) -> SeedBatch:
    """Curves of chosen replicas, for callers that checkpoint between batches; `summarize` puts batches together.

    Args:
        seeds: distinct replica numbers in [0, 2^32).
        problem, taus, d, key, rule, dtype, solver, krylov_tolerance, mesh, progress, data: as in `learning_curves`.

    Raises:
        InputError: as `learning_curves`; or seeds that repeat or are not such integers.
    """
    require_problem(problem)
    require_rule(rule)
    replicas = check_seeds(seeds)
    require_progress(progress)
    if mesh is not None:
        check_mesh(mesh)
    schedule, _ = rule.schedule(taus, problem.kappa)
    if isinstance(rule, MinibatchSGD):
        if solver not in (None, "exact") or mesh is not None:
            what = f"solver: {solver!r}" if mesh is None else "mesh: given"
            raise InputError(f"{what} with rule sgd, whose steps are taken one by one on one device; allowed: None")
        steps: SeedBatch = _trainer().sgd_seeds(
            problem, taus, d=d, key=key, seeds=replicas, rule=rule, dtype=dtype, progress=progress, data=data
        )
        return steps
    chosen = fitting_solver(
        problem, d=d, num_times=len(schedule), num_seeds=len(replicas), dtype=dtype, solver=solver, mesh=mesh, data=data
    )
    if chosen == "exact":
        run = functools.partial(exact_seeds, problem, taus)
    else:
        probes = min(d, PROBES) if chosen == "krylov-probes" else None
        free = chosen == "krylov-matrix-free" or (probes is not None and not holds_matrix(sizes_at(problem, d).p, floating_type(dtype)))
        run = functools.partial(krylov_seeds, problem, taus, tolerance=krylov_tolerance, matrix_free=free, probes=probes)
    run = functools.partial(run, d=d, key=key, rule=rule, dtype=dtype, progress=progress, data=data)
    return over_processes(lambda share, local: run(seeds=share, mesh=local), replicas, mesh)


def check_sgd(problem: Problem, taus: Taus, *, d: int, rule: MinibatchSGD, dtype: DTypeLike | None = None) -> None:
    """Refuse networks that `run_seeds` would not train by SGD, before anything is computed or any folder made.

    Raises:
        InputError: no batch at this dimension; more steps than can be taken one by one; a network, or its stored draws, too large for
            memory; weights of the classes in the loss that uniform batches do not have.
    """
    _trainer().sgd_recipe(problem, taus, d=d, rule=rule, dtype=dtype)


def _trainer() -> Any:
    """Training step by step; it brings optax, which is slow to import."""
    return importlib.import_module("rfdiff.simulation.descent.minibatch")


def fitting_solver(
    problem: Problem,
    *,
    d: int,
    num_times: int = 80,
    num_seeds: int = 1,
    dtype: DTypeLike | None = None,
    solver: str | None = None,
    mesh: Mesh | None = None,
    data: Samples | None = None,
) -> str:
    """The solver asked for, if it fits in memory; for None the plan's choice. Small networks are not worth a measurement of the device.

    Args:
        problem, d, num_times, num_seeds, dtype, mesh, data: as in `plan`; with a mesh every process gets the same answer.
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
    costs = plan(problem, d=d, num_times=num_times, num_seeds=num_seeds, dtype=dtype, mesh=mesh, data=data)
    chosen = solver or costs.solver
    if mesh is not None and solver is None:
        chosen = SOLVERS[int(agreed(SOLVERS.index(chosen or "exact")))]
    if chosen in costs.fitting:
        return chosen
    if chosen == "exact":
        require_decomposition(sizes, costs.dtype)
    raise InputError(_too_large(costs, solver or "krylov-probes"))


def _too_large(costs: SolverPlan, solver: str) -> str:
    """Refusal of networks that do not fit by a solver: what it needs, and what would fit."""
    need = next(estimate for estimate in costs.estimates if estimate.solver == solver)
    others = f"{', '.join(costs.fitting)}, or " if costs.fitting else ""
    return (
        f"d: {costs.sizes.d} makes p = {costs.sizes.p} features and needs about {need.bytes / 2**30:.3g} GiB in {costs.dtype}, "
        f"of {(costs.available or 0) / 2**30:.3g} GiB of memory, by solver {solver}; "
        f"allowed: {others}a smaller d, psi_p or psi_n, or float32"
    )


def learning_curves(
    problem: Problem,
    taus: Taus = None,
    *,
    d: int,
    key: Key[Array, ""],
    num_seeds: int,
    rule: Rule = GradientFlow(),
    dtype: DTypeLike | None = None,
    solver: str | None = None,
    krylov_tolerance: float | None = None,
    mesh: Mesh | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
) -> LearningCurves:
    """Per-class learning curves of real networks in dimension d: mean and standard error over independent replicas.

    Each replica draws its own centroid directions, W, samples (and noise, for finite m). Nothing is assumed Gaussian: features are
    σ(W x/√d), and the noise average (m = ∞) and the test loss are exact up to the `truncation` that `run_seeds` bounds.

    With `data`, each replica draws n_c training samples of class c from the data set in place of the mixture, without replacement,
    and its test loss is that on other samples of the class, averaged over their noise exactly. The problem's mixture then gives the
    class fractions, and the loss of *its* exact score as `optimal_loss`: the score of real data is not known, so that
    `score_error` is the excess over the best loss on the mixture, and negative where the network does better than that. Replicas share
    the data set, so the standard errors do not include the variation between data sets.

    Args:
        problem: mixture, activation, t, ψ_p, ψ_n, m.
        taus: (T,) increasing training times ≥ 0, in the unit set by κ = 2Δ/ψ_p; inf is convergence. None with `Ridge`.
        d: dimension.
        key: JAX random key; replica r uses fold_in(key, r), so more seeds never change the old ones.
        num_seeds: replicas S ≥ 1; with one the standard errors are NaN.
        rule: training rule.
        dtype: float64 or float32; None is float64 on a CPU, float32 on an accelerator. The same seed is the same network in both.
            Losses in float32 stay within 1e-4 of float64 but for late times (κτλ > 1 of the smallest λ) with λ_min below about
            5e-5 λ_max: p near n m, or t of 0.01 and less.
        solver: "exact", "krylov", "krylov-matrix-free" or "krylov-probes"; None for the choice of `plan`.
        krylov_tolerance: numerical error of the losses at which a Krylov space is large enough; None for 1e-8 (1e-4 in float32).
        mesh: from `device_mesh`; None for one device. Numbers do not depend on it, to rounding. With a mesh of several processes
            every one calls this with the same arguments and gets the same result; each reports `progress` of its own seeds.
        progress: called on the host with (replicas done, replicas in all) after each chunk; or None.
        data: labelled samples of dimension d, classes in the order of the mixture's; None for draws of the mixture.

    Returns:
        `LearningCurves` with `per_seed`, source "simulation" and, from the exact flow only, `spectrum`; `error_estimate` as in
        `summarize`.

    Raises:
        InputError: malformed arguments; d too small; a network that does not fit in memory; a step size that diverges; data of another
            dimension or other classes than the problem's, or with too few samples of a class.
    """
    seeds = range(as_integer("num_seeds", num_seeds, 1, MOST_SEEDS))
    batch = run_seeds(
        problem, taus, d=d, key=key, seeds=seeds, rule=rule, dtype=dtype, solver=solver, krylov_tolerance=krylov_tolerance,
        mesh=mesh,
        progress=progress, data=data,
    )  # fmt: skip
    return summarize([batch])
