"""Many replicas by Krylov spaces: the networks of the exact flow, without an eigendecomposition of U."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress
from rfdiff.rules import GradientFlow, Rule, Taus, check_stability
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.features import first_layer, floating_type, sizes_at
from rfdiff.simulation.krylov import KrylovCurves, krylov_losses
from rfdiff.simulation.krylov_curves import Averages
from rfdiff.simulation.mesh import on_mesh, rows_of, single_rows, with_matrix
from rfdiff.simulation.moment_operators import Draws, Moment, NoiseAverage, Population
from rfdiff.simulation.replica import Keys, Source, check_truncation, draw_replica, realised_optimum, training_samples
from rfdiff.simulation.replica_memory import Layout, layout_for
from rfdiff.simulation.seed_batches import SeedBatch, check_seeds
from rfdiff.value_types import as_number, is_concrete

PROBE_STREAM = 5  # replicas use the streams 0 to 3 of their key
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
MOST_STEPS = 200
FEW_FEATURES = 1024

T = TypeVar("T")

_truncation = jax.jit(lambda moment: moment.truncation())
_untrained_loss = jax.jit(lambda moment: moment.untrained_loss())


def krylov_seeds(
    problem: Problem,
    taus: Taus,
    *,
    d: int,
    key: Key[Array, ""],
    seeds: Sequence[int],
    rule: Rule = GradientFlow(),
    dtype: DTypeLike | None = None,
    tolerance: float | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    mesh: Mesh | None = None,
    matrix_free: bool = False,
    probes: int | None = None,
) -> SeedBatch:
    """Curves of chosen replicas by Krylov spaces.

    Args:
        problem, taus, d, key, seeds, rule, dtype, progress, data: as in `run_seeds`.
        tolerance: change of the losses by a step at which the space is large enough; None for 1e-8 (1e-4 in float32).
        mesh: of the devices of this process. Its rows work at the same time, each on one network.
        matrix_free: never hold U (p, p), but apply it from the first layer and the data.
        probes: number s of random columns of V that start the space, or None for all of V.

    Raises:
        InputError: as `run_seeds`; a tolerance out of range; a space that reaches its largest size before its tolerance.
    """
    replicas = check_seeds(seeds)
    schedule, clock = rule.schedule(taus, problem.kappa)
    name, sizes = floating_type(dtype), sizes_at(problem, d)
    if probes is not None and not 2 <= probes <= d:
        raise InputError(f"probes: {probes!r}; allowed: 2 to {d}, the columns of V, or None for all of them")
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    layout = layout_for(problem, sizes, name, held_out)
    limit = TOLERANCE[name] if tolerance is None else as_number(tolerance)
    if not 0 < limit < 1:
        raise InputError(f"krylov_tolerance: {tolerance!r}; allowed: 0 < krylov_tolerance < 1, or None")

    def one(r: int, row: Mesh | None) -> tuple[KrylovCurves, float, np.ndarray]:
        replica_key = jax.random.fold_in(key, np.uint32(r))
        source, keys = draw_replica(problem, data, layout, replica_key)
        with jax.enable_x64(name == "float64"):
            averages, truncation = replica_averages(problem, source, keys, layout, matrix_free, row)
            signs = None
            if probes is not None:
                signs = jax.random.rademacher(jax.random.fold_in(replica_key, PROBE_STREAM), (d, probes), jnp.float32)
            check_truncation(np.asarray(truncation), layout)
            curves = krylov_losses(
                averages, np.asarray(sizes.shares), rule=rule, clock=clock, kappa=float(problem.kappa), d=sizes.d,
                rank=sizes.rank, tolerance=limit, max_steps=MOST_STEPS, probes=signs,
            )  # fmt: skip
        check_stability(rule, problem.kappa, float(curves.ritz_values[-1]))
        _check_convergence(curves, limit)
        return curves, truncation, np.asarray(averages.untrained_loss, np.float64)

    results = _each(one, replicas, [None] if mesh is None else single_rows(mesh), progress)
    curves, truncations, untrained = zip(*results, strict=True)
    batch = _batch(problem, curves, np.asarray(replicas), schedule, np.array(truncations), layout, probes is not None)
    return dataclasses.replace(batch, untrained_loss=np.stack(untrained))


def _check_convergence(curves: KrylovCurves, tolerance: float) -> None:
    """Refuse curves of a space that reached its largest size before its tolerance."""
    if not curves.converged:
        raise InputError(
            f"krylov_tolerance: {tolerance:.1e} is not reached by {curves.steps} steps, which leave the losses uncertain by "
            f"{curves.error_estimate:.1e}; allowed: a larger tolerance, or solver='exact'"
        )


def _each(one: Callable[[int, Mesh | None], T], replicas: Sequence[int], rows: Sequence[Mesh | None], progress: Progress | None) -> list[T]:
    """`one(replica number, row)` of every replica, in their order, on the rows of a mesh at the same time, one thread each."""

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(replicas))

    if len(rows) == 1:
        results = []
        for r in replicas:
            results.append(one(r, rows[0]))
            report(len(results))
        return results
    idle: SimpleQueue[Mesh | None] = SimpleQueue()
    for row in rows:
        idle.put(row)

    def on_idle_row(r: int) -> T:
        row = idle.get()
        try:
            return one(r, row)
        finally:
            idle.put(row)

    with ThreadPoolExecutor(len(rows)) as pool:
        futures = [pool.submit(on_idle_row, r) for r in replicas]
        try:
            for done, future in enumerate(as_completed(futures)):
                future.result()
                report(done + 1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _batch(
    problem: Problem,
    curves: Sequence[KrylovCurves],
    seeds: np.ndarray,
    schedule: np.ndarray,
    truncations: np.ndarray,
    layout: Layout,
    probed: bool,
) -> SeedBatch:
    train, test, train_stderr, test_stderr = (
        np.stack([getattr(one, name) for one in curves]) for name in ("train_loss", "test_loss", "train_stderr", "test_stderr")
    )
    optimal, delta = realised_optimum(problem, layout.sizes), noise_variance_of(problem.t)
    return SeedBatch(
        seeds=seeds,
        taus=schedule,
        train_loss=train,
        test_loss=test,
        score_error=(test - optimal) / delta,
        eigenvalues=None,
        class_weights=None,
        truncation=truncations,
        optimal_loss=optimal,
        weights=np.asarray(problem.mixture.weights),
        kappa=float(problem.kappa),
        error_estimate=np.array([one.error_estimate for one in curves]),
        probe_stderr=np.stack([train_stderr, test_stderr, test_stderr / delta]) if probed else None,
        dimension=layout.sizes.d,
        dtype=layout.dtype,
    )


def replica_averages(
    problem: Problem, source: Source, keys: Keys, layout: Layout, matrix_free: bool, mesh: Mesh | None = None
) -> tuple[Averages, float]:
    """Operators of one replica, and the relative bound on the truncation error of its exact averages; by rows on a mesh of one row.

    Without `matrix_free` U is formed once; the class averages, which are applied to the finished space only, never are.
    """
    sizes, activation, dtype = layout.sizes, problem.activation, jnp.dtype(layout.dtype)
    t = jnp.asarray(problem.t, dtype) if is_concrete(problem.t) else problem.t
    x = training_samples(source, keys, layout)
    W, rows = rows_of(first_layer(keys[0], sizes, dtype), mesh)
    whole: Moment
    train: list[Moment]
    if sizes.draws is None:
        share = np.full(sizes.n, 1 / sizes.n) if sizes.sample_weights is None else sizes.sample_weights / sizes.n
        average = NoiseAverage(W, x, share, t, activation, layout.train_rule, layout.train_order, rows)
        whole, train = average, [*_class_averages(average, x, sizes.counts)]
    else:
        stops = np.cumsum(sizes.counts).tolist()
        whole = Draws(W, x, t, keys[2], activation, sizes.draws, 0, sizes.n, rows, sizes.sample_weights)
        train = [
            Draws(W, x, t, keys[2], activation, sizes.draws, stop - count, stop, rows)
            for count, stop in zip(sizes.counts, stops, strict=True)
        ]
    test: list[Moment]
    if isinstance(source, GaussianMixture):
        classes = [_single(source, c) for c in range(source.num_classes)]
        test = [Population(W, one, t, activation, layout.test_rule, layout.test_order, rows) for one in classes]
    else:
        tested = jnp.asarray(source.test, dtype)
        form = NoiseAverage(W, tested, np.empty(0), t, activation, layout.test_rule, layout.test_order, rows)
        test = [*_class_averages(form, tested, layout.held_out)]
    whole, *each = (on_mesh(moment, mesh) for moment in (whole, *train, *test))
    untrained: Float[np.ndarray, " K"] | Float[Array, " K"] = np.ones(len(train))
    if sizes.draws is not None:
        untrained = jnp.stack([_untrained_loss(moment) for moment in each[: len(train)]])
    # one at a time: on a CPU, programs that communicate but do not depend on each other may each hold threads the other waits for
    truncation = max(float(_truncation(moment)) for moment in each)
    mixture = whole if matrix_free else with_matrix(whole, rows, mesh)
    return Averages(mixture, tuple(each[: len(train)]), tuple(each[len(train) :]), untrained), truncation


def _class_averages(form: NoiseAverage, x: Float[Array, "n d"], counts: tuple[int, ...]) -> tuple[NoiseAverage, ...]:
    """The average over each class of samples in class order. Those of small networks are padded to one shape, so that one program serves
    all classes; for large ones that costs more than it saves.
    """
    stops, most = np.cumsum(counts), max(counts)
    averages = []
    for count, stop in zip(counts, stops.tolist(), strict=True):
        size = most if form.W.shape[0] <= FEW_FEATURES else count
        share = np.where(np.arange(size) < count, 1 / count, 0.0)
        averages.append(dataclasses.replace(form, x=jnp.pad(x[stop - count : stop], ((0, size - count), (0, 0))), share=share))
    return tuple(averages)


def _single(mixture: GaussianMixture, c: int) -> GaussianMixture:
    """One class of a mixture."""
    only = slice(c, c + 1)
    factors = None if mixture.factors is None else mixture.factors[only]
    return GaussianMixture(mixture.weights[only], mixture.means[only], mixture.variances[only], factors)
