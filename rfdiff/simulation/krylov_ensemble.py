"""Replicas of the exact flow's ensemble by Krylov spaces: the same networks, without an eigendecomposition of U."""

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfdiff.errors import InputError
from rfdiff.mixture import GaussianMixture
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import Rule, check_stability
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import Split, held_out_counts
from rfdiff.simulation.features import clean_samples, first_layer, floating_type, sizes_at
from rfdiff.simulation.krylov import Averages, KrylovCurves, krylov_losses
from rfdiff.simulation.mesh import on_mesh, rows_of, single_rows, with_matrix
from rfdiff.simulation.moment_operators import Draws, NoiseAverage, Population
from rfdiff.simulation.replica import Keys, check_truncation, realised_optimum, replica_mixture, replica_split
from rfdiff.simulation.replica_memory import Layout, layout_for
from rfdiff.simulation.seed_batches import Progress, SeedBatch, check_seeds
from rfdiff.value_types import as_number, is_concrete

PROBE_STREAM = 5  # replicas use the streams 0 to 3 of their key
TOLERANCE = {"float64": 1e-8, "float32": 1e-4}
MOST_STEPS = 200
FEW_FEATURES = 1024

_truncation = jax.jit(lambda moment: moment.truncation())
_leading = jax.jit(lambda moment: moment.leading())


def krylov_seeds(
    problem: Problem,
    taus: Any,
    d: int,
    key: jax.Array,
    seeds: Any,
    rule: Rule,
    dtype: Any = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    matrix_free: bool = False,
    probes: int | None = None,
    tolerance: float | None = None,
    mesh: Mesh | None = None,
) -> SeedBatch:
    """Curves of chosen replicas; the arguments beside these are those of `run_seeds`.

    Args:
        problem, taus, d, key, seeds, rule, dtype, progress, data: as in `run_seeds`.
        matrix_free: never hold U (p, p), but apply it from the first layer and the data.
        probes: number s of random columns of V that start the space, or None for all of V.
        tolerance: change of the losses by a step at which the space is large enough; None for 1e-8 (1e-4 in float32).
        mesh: of the devices of this process. Its rows work at the same time, each on a network of its own.

    Raises:
        InputError: as `run_seeds`; a tolerance out of range; a space that reaches its largest size before its tolerance.
    """
    numbers = check_seeds(seeds)
    schedule, clock = rule.schedule(taus, problem.kappa)
    name, sizes = floating_type(dtype), sizes_at(problem, d)
    if probes is not None and not 2 <= probes <= d:
        raise InputError(f"probes: {probes!r}; allowed: 2 to {d}, the columns of V, or None for all of them")
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    layout = layout_for(problem, sizes, name, held_out)
    limit = TOLERANCE[name] if tolerance is None else as_number(tolerance)
    if not 0 < limit < 1:
        raise InputError(f"tolerance: {tolerance!r}; allowed: 0 < tolerance < 1, or None")
    shares = np.asarray(sizes.counts) / sizes.n

    def one(r: int, row: Mesh | None) -> tuple[KrylovCurves, float]:
        own = jax.random.fold_in(key, np.uint32(r))
        source, keys = replica_mixture(problem, d, own) if data is None else replica_split(data, layout, own)
        with jax.enable_x64(name == "float64"):
            averages, truncation = replica_averages(problem, source, keys, layout, matrix_free, row)
            signs = None
            if probes is not None:
                signs = jax.random.rademacher(jax.random.fold_in(own, PROBE_STREAM), (d, probes), jnp.float32)
            check_truncation(np.asarray(truncation), layout)
            result = krylov_losses(averages, shares, rule, clock, float(problem.kappa), d, sizes.rank, limit, MOST_STEPS, signs)
        check_stability(rule, problem.kappa, float(result.ritz_values[-1]))
        if not result.converged:
            raise InputError(
                f"tolerance: {limit:.1e} is not reached by {result.steps} steps, which leave the losses uncertain by "
                f"{result.error_estimate:.1e}; allowed: a larger tolerance, or solver='exact'"
            )
        return result, truncation

    results = _each(one, numbers, [None] if mesh is None else single_rows(mesh), progress)
    found, truncations = [result for result, _ in results], np.array([truncation for _, truncation in results])
    return _batch(problem, found, np.asarray(numbers), schedule, truncations, layout, probes is not None)


def _each(one: Callable[[int, Any], Any], numbers: Sequence[int], rows: Sequence[Any], progress: Progress | None) -> list[Any]:
    """`one(number, row)` of every number, in their order, on as many rows of a mesh as there are, one thread each."""

    def told(done: int) -> None:
        if progress is not None:
            progress(done, len(numbers))

    if len(rows) == 1:
        results = []
        for r in numbers:
            results.append(one(r, rows[0]))
            told(len(results))
        return results
    idle: SimpleQueue[Any] = SimpleQueue()
    for row in rows:
        idle.put(row)

    def on_idle_row(r: int) -> Any:
        row = idle.get()
        try:
            return one(r, row)
        finally:
            idle.put(row)

    with ThreadPoolExecutor(len(rows)) as pool:
        futures = [pool.submit(on_idle_row, r) for r in numbers]
        try:
            for done, future in enumerate(as_completed(futures)):
                future.result()
                told(done + 1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _batch(
    problem: Problem,
    found: list[KrylovCurves],
    seeds: np.ndarray,
    schedule: np.ndarray,
    truncations: np.ndarray,
    layout: Layout,
    probed: bool,
) -> SeedBatch:
    train, test, train_error, test_error = (
        np.stack([getattr(result, name) for result in found]) for name in ("train_loss", "test_loss", "train_error", "test_error")
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
        error_estimate=np.array([result.error_estimate for result in found]),
        probe_stderr=np.stack([train_error, test_error, test_error / delta]) if probed else None,
        dimension=layout.sizes.d,
        dtype=layout.dtype,
    )


def replica_averages(
    problem: Problem, source: GaussianMixture | Split, keys: Keys, layout: Layout, matrix_free: bool, mesh: Mesh | None = None
) -> tuple[Averages, float]:
    """Operators of one replica, and the relative bound on what their exact averages leave out; by rows on a mesh of one row.

    Without `matrix_free` U is formed once; the class averages, which are applied to the finished space only, never are.
    """
    sizes, activation, dtype = layout.sizes, problem.activation, jnp.dtype(layout.dtype)
    t = jnp.asarray(problem.t, dtype) if is_concrete(problem.t) else problem.t
    x = clean_samples(keys[1], source, sizes, dtype) if isinstance(source, GaussianMixture) else jnp.asarray(source.train, dtype)
    W, rows = rows_of(first_layer(keys[0], sizes, dtype), mesh)
    stops = np.cumsum(sizes.counts)
    ranges = list(zip((stops - sizes.counts).tolist(), stops.tolist(), strict=True))
    mixture: Any
    train: tuple[Any, ...]
    leading: Any = np.ones(len(ranges))
    if sizes.draws is None:
        mixture = NoiseAverage(W, x, np.full(sizes.n, 1 / sizes.n), t, activation, layout.train_rule, layout.train_order, rows)
        train = _class_averages(mixture, x, sizes.counts)
    else:
        mixture = Draws(W, x, t, keys[2], activation, sizes.draws, 0, sizes.n, rows)
        train = tuple(Draws(W, x, t, keys[2], activation, sizes.draws, a, b, rows) for a, b in ranges)
    test: tuple[Any, ...]
    if isinstance(source, GaussianMixture):
        single = [_single(source, c) for c in range(source.num_classes)]
        test = tuple(Population(W, own, t, activation, layout.test_rule, layout.test_order, rows) for own in single)
    else:
        tested = jnp.asarray(source.test, dtype)
        form = NoiseAverage(W, tested, None, t, activation, layout.test_rule, layout.test_order, rows)
        test = _class_averages(form, tested, layout.held_out)
    mixture, *each = (on_mesh(moment, mesh) for moment in (mixture, *train, *test))
    train, test = tuple(each[: len(train)]), tuple(each[len(train) :])
    if sizes.draws is not None:
        leading = jnp.stack([_leading(part) for part in train])
    # one at a time: on a CPU, programs that communicate but do not depend on each other may each hold threads the other waits for
    truncation = max(float(_truncation(part)) for part in each)
    return Averages(mixture if matrix_free else with_matrix(mixture, mesh), train, test, leading), truncation


def _class_averages(form: NoiseAverage, x: jax.Array, counts: tuple[int, ...]) -> tuple[NoiseAverage, ...]:
    """The average over each class of samples in class order. Those of small networks are filled up to one shape, so that one program serves
    all classes; for large ones that costs more than it saves.
    """
    stops, most = np.cumsum(counts), max(counts)
    parts = []
    for count, stop in zip(counts, stops.tolist(), strict=True):
        size = most if form.W.shape[0] <= FEW_FEATURES else count
        share = np.where(np.arange(size) < count, 1 / count, 0.0)
        parts.append(dataclasses.replace(form, x=jnp.pad(x[stop - count : stop], ((0, size - count), (0, 0))), share=share))
    return tuple(parts)


def _single(mixture: GaussianMixture, c: int) -> GaussianMixture:
    """One class of a mixture."""
    own = slice(c, c + 1)
    factors = None if mixture.factors is None else mixture.factors[own]
    return GaussianMixture(mixture.weights[own], mixture.means[own], mixture.variances[own], factors)
