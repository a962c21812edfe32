"""Replicas by the exact flow: chunks of one compiled shape, one eigendecomposition each (docs/theory/simulation.md, eq-exact-flow)."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress
from rfdiff.rules import Clock, GradientFlow, Rule, Taus, check_stability
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.feature_shards import ALL, FEATURES, SEEDS, Rows
from rfdiff.simulation.features import floating_type, sizes_at
from rfdiff.simulation.gradient_flow import FlowResult, flow_losses
from rfdiff.simulation.replica import Keys, Source, check_truncation, draw_replica, realised_optimum, replica_moments
from rfdiff.simulation.replica_memory import Layout, chunk_size, layout_for
from rfdiff.simulation.seed_batches import SeedBatch, check_seeds

Outcome = tuple[FlowResult, Float[Array, "..."]]  # curves, and the bound on the truncation error of the averages


def exact_seeds(
    problem: Problem,
    taus: Taus,
    *,
    d: int,
    key: Key[Array, ""],
    seeds: Sequence[int],
    rule: Rule = GradientFlow(),
    dtype: DTypeLike | None = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    mesh: Mesh | None = None,
) -> SeedBatch:
    """Curves of chosen replicas by the exact flow; arguments as in `run_seeds`, the mesh that of this process.

    Raises:
        InputError: as `learning_curves`; or seeds that repeat or are not such integers.
    """
    replicas = check_seeds(seeds)
    schedule, clock = rule.schedule(taus, problem.kappa)
    name = floating_type(dtype)
    sizes = sizes_at(problem, d)
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    lanes = 1 if mesh is None else mesh.shape[SEEDS]
    chunk = lanes * chunk_size(sizes, name, len(schedule), math.ceil(len(replicas) / lanes), held_out)
    layout = layout_for(problem, sizes, name, held_out)
    results, truncations = [], []
    for start in range(0, len(replicas), chunk):
        group = replicas[start : start + chunk]
        result, truncation = _run_chunk(problem, data, layout, key, group, chunk, rule, clock, mesh)
        check_truncation(truncation, layout)
        check_stability(rule, problem.kappa, float(result.eigenvalues.max()))
        results.append(result)
        truncations.append(truncation)
        if progress is not None:
            progress(start + len(group), len(replicas))
    flow = jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)
    optimal = realised_optimum(problem, sizes)
    return SeedBatch(
        seeds=np.asarray(replicas),
        taus=schedule,
        train_loss=flow.train_loss,
        test_loss=flow.test_loss,
        score_error=(flow.test_loss - optimal) / noise_variance_of(problem.t),
        eigenvalues=flow.eigenvalues,
        class_weights=flow.class_weights,
        truncation=np.concatenate(truncations),
        optimal_loss=optimal,
        weights=np.asarray(problem.mixture.weights),
        kappa=float(problem.kappa),
        error_estimate=np.zeros(len(replicas)),
        untrained_loss=flow.untrained_loss,
        dimension=sizes.d,
        dtype=name,
    )


def _flow(problem: Problem, source: Source, keys: Keys, rule: Rule, clock: Clock, layout: Layout, rows: Rows = ALL) -> Outcome:
    """One replica."""
    train, test = replica_moments(problem, source, keys, layout, rows)
    result = flow_losses(train, test, layout.sizes, rule, clock, problem.kappa)
    return result, jnp.maximum(train.truncation, test.truncation)


def _flows(problem: Problem, sources: Source, keys: Keys, rule: Rule, clock: Clock, layout: Layout) -> Outcome:
    """Several replicas, stacked along a leading axis."""
    return jax.vmap(functools.partial(_flow, layout=layout), in_axes=(None, 0, 0, None, None))(problem, sources, keys, rule, clock)


def _spread_flows(problem: Problem, sources: Source, keys: Keys, rule: Rule, clock: Clock, layout: Layout, mesh: Mesh) -> Outcome:
    """Equally many replicas on each row of a mesh; the devices of a row share the assembly of one."""
    rows = Rows(layout.sizes.p, mesh.shape[FEATURES])
    on_cpu = mesh.devices.flat[0].platform == "cpu"  # where batches of LAPACK calls on several devices would wait for each other

    def lane(problem: Problem, sources: Source, keys: Keys, rule: Rule, clock: Clock) -> Outcome:
        def one(replica: tuple[Source, Keys]) -> Outcome:
            return _flow(problem, *replica, rule, clock, layout, rows)

        return jax.lax.map(one, (sources, keys)) if on_cpu else jax.vmap(one)((sources, keys))

    by_seed, same = PartitionSpec(SEEDS), PartitionSpec()
    specs = (same, by_seed, by_seed, same, same)
    mapped = jax.shard_map(lane, mesh=mesh, in_specs=specs, out_specs=by_seed, check_vma=False)
    return mapped(problem, sources, keys, rule, clock)


_compiled_one = jax.jit(_flow, static_argnames=("layout", "rows"))
_compiled_many = jax.jit(_flows, static_argnames="layout")
_compiled_spread = jax.jit(_spread_flows, static_argnames=("layout", "mesh"))


def _run_chunk(
    problem: Problem,
    data: Samples | None,
    layout: Layout,
    key: Key[Array, ""],
    group: list[int],
    chunk: int,
    rule: Rule,
    clock: Clock,
    mesh: Mesh | None,
) -> tuple[FlowResult, Float[np.ndarray, " S"]]:
    """Results (float64, leading axis the group's seeds). A short last group is padded, so that only one shape is compiled."""
    padded = group + group[:1] * (chunk - len(group))
    replicas = [draw_replica(problem, data, layout, jax.random.fold_in(key, np.uint32(r))) for r in padded]
    with jax.enable_x64(layout.dtype == "float64"):
        if chunk == 1 and mesh is None:
            outcome = _compiled_one(problem, *replicas[0], rule, clock, layout=layout)
            outcome = jax.tree.map(lambda leaf: leaf[None], outcome)
        else:
            sources, keys = jax.tree.map(
                lambda *leaves: np.stack(leaves) if isinstance(leaves[0], np.ndarray) else jnp.stack(leaves), *replicas
            )
            arguments = (problem, sources, keys, rule, clock)
            outcome = _compiled_many(*arguments, layout=layout) if mesh is None else _compiled_spread(*arguments, layout=layout, mesh=mesh)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[: len(group)], outcome)
