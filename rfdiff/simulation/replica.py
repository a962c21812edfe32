"""Replicas of an ensemble of real networks by the exact flow: seeds in chunks, compiled once (`equations`, section 6)."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from rfdiff.errors import InputError
from rfdiff.mixture import GaussianMixture, largest_remainder, optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import GradientFlow, Rule, check_stability
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import Split, draw_split, held_out_counts
from rfdiff.simulation.feature_shards import ALL, FEATURES, SEEDS, Rows
from rfdiff.simulation.features import Sizes, clean_samples, first_layer, floating_type, sizes_at
from rfdiff.simulation.gradient_flow import FlowResult, flow_losses
from rfdiff.simulation.moments import Moments, drawn_moments, noise_averaged_moments, population_moments, together
from rfdiff.simulation.replica_memory import Layout, chunk_size, layout_for
from rfdiff.simulation.seed_batches import Progress, SeedBatch, check_seeds

TRUNCATION_LIMIT = 1e-3

Keys = tuple[jax.Array, jax.Array, jax.Array]  # of the first layer, the samples and the noise


def exact_seeds(
    problem: Problem,
    taus: Any,
    d: int,
    key: jax.Array,
    seeds: Sequence[int],
    rule: Rule | None = None,
    dtype: Any = None,
    progress: Progress | None = None,
    data: Samples | None = None,
    mesh: Mesh | None = None,
) -> SeedBatch:
    """Curves of chosen replicas by the exact flow, one eigendecomposition each; arguments as in `run_seeds`, the mesh of this process.

    Raises:
        InputError: as `learning_curves`; or seeds that repeat or are not such integers.
    """
    numbers_ = check_seeds(seeds)
    rule = GradientFlow() if rule is None else rule
    schedule, clock = rule.schedule(taus, problem.kappa)
    name = floating_type(dtype)
    sizes = sizes_at(problem, d)
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    lanes = 1 if mesh is None else mesh.shape[SEEDS]
    chunk = lanes * chunk_size(sizes, name, len(schedule), math.ceil(len(numbers_) / lanes), held_out)
    layout = layout_for(problem, sizes, name, held_out)
    parts, truncations, done = [], [], 0
    for start in range(0, len(numbers_), chunk):
        group = numbers_[start : start + chunk]
        result, truncation = _run_chunk(problem, data, layout, key, group, chunk, rule, clock, mesh)
        check_truncation(truncation, layout)
        check_stability(rule, problem.kappa, float(result.eigenvalues.max()))
        parts.append(result)
        truncations.append(truncation)
        done += len(group)
        if progress is not None:
            progress(done, len(numbers_))
    flow = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    optimal = realised_optimum(problem, sizes)
    return SeedBatch(
        seeds=np.asarray(numbers_),
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
        error_estimate=np.full(len(numbers_), np.nan),
        dimension=sizes.d,
        dtype=name,
    )


def replica_moments(
    problem: Problem, source: GaussianMixture | Split, keys: Keys, layout: Layout, rows: Rows = ALL
) -> tuple[Moments, Moments]:
    """Training moments and those of the population, or of the held-out samples, of one replica. Traceable.

    Inside a `shard_map` over features, `rows` says how: each device then assembles its own rows, and gets the whole.
    """
    sizes, activation, dtype = layout.sizes, problem.activation, jnp.dtype(layout.dtype)
    W = rows.own(first_layer(keys[0], sizes, dtype))
    x = clean_samples(keys[1], source, sizes, dtype) if isinstance(source, GaussianMixture) else jnp.asarray(source.train, dtype)
    if sizes.draws is None:
        train = noise_averaged_moments(W, x, problem.t, sizes, activation, layout.train_rule, layout.train_order, rows)
    else:
        train = drawn_moments(W, x, problem.t, sizes, activation, keys[2], rows)
    if isinstance(source, GaussianMixture):
        test = population_moments(W, source, problem.t, activation, layout.test_rule, layout.test_order, rows)
    else:
        tested, held = jnp.asarray(source.test, dtype), dataclasses.replace(sizes, counts=layout.held_out)
        test = noise_averaged_moments(W, tested, problem.t, held, activation, layout.test_rule, layout.test_order, rows)
    return together(train, rows), together(test, rows)


def replica_mixture(problem: Problem, d: int, key: jax.Array) -> tuple[GaussianMixture, Keys]:
    """Mixture at dimension d of one replica (on the host), and the keys of its first layer, samples and noise."""
    mixture_key, *others = (jax.random.fold_in(key, part) for part in range(4))
    return GaussianMixture.from_law(problem.mixture, d, mixture_key), (others[0], others[1], others[2])


def replica_split(data: Samples, layout: Layout, key: jax.Array) -> tuple[Split, Keys]:
    """Training and held-out samples of one replica (on the host), and its keys, as those of `replica_mixture`: the same first layer."""
    W_key, samples_key, noise_key = (jax.random.fold_in(key, part) for part in range(1, 4))
    return draw_split(data, layout.sizes, layout.held_out, samples_key), (W_key, samples_key, noise_key)


def _replica(
    problem: Problem, source: Any, keys: Any, rule: Rule, clock: Any, layout: Layout, rows: Rows = ALL
) -> tuple[FlowResult, jax.Array]:
    train, test = replica_moments(problem, source, keys, layout, rows)
    result = flow_losses(train, test, layout.sizes, rule, clock, problem.kappa)
    return result, jnp.maximum(train.truncation, test.truncation)


def _replicas(problem: Problem, sources: Any, keys: Any, rule: Rule, clock: Any, layout: Layout) -> tuple[FlowResult, jax.Array]:
    run = functools.partial(_replica, layout=layout)
    return jax.vmap(run, in_axes=(None, 0, 0, None, None))(problem, sources, keys, rule, clock)


def _spread_replicas(
    problem: Problem, sources: Any, keys: Any, rule: Rule, clock: Any, layout: Layout, mesh: Mesh
) -> tuple[FlowResult, jax.Array]:
    """As many replicas on each row of a mesh; the devices of a row share the assembly of one."""
    rows = Rows(layout.sizes.p, mesh.shape[FEATURES])
    on_cpu = mesh.devices.flat[0].platform == "cpu"  # where batches of LAPACK calls on several devices would wait for each other

    def lane(problem: Problem, sources: Any, keys: Any, rule: Rule, clock: Any) -> tuple[FlowResult, jax.Array]:
        def one(replica: tuple[Any, Any]) -> tuple[FlowResult, jax.Array]:
            return _replica(problem, *replica, rule, clock, layout, rows)

        return jax.lax.map(one, (sources, keys)) if on_cpu else jax.vmap(one)((sources, keys))

    own, same = PartitionSpec(SEEDS), PartitionSpec()
    mapped = jax.shard_map(lane, mesh=mesh, in_specs=(same, own, own, same, same), out_specs=own, check_vma=False)
    return mapped(problem, sources, keys, rule, clock)


_compiled_one = jax.jit(_replica, static_argnames=("layout", "rows"))
_compiled_many = jax.jit(_replicas, static_argnames="layout")
_compiled_spread = jax.jit(_spread_replicas, static_argnames=("layout", "mesh"))


def _run_chunk(
    problem: Problem,
    data: Samples | None,
    layout: Layout,
    key: jax.Array,
    group: list[int],
    chunk: int,
    rule: Rule,
    clock: Any,
    mesh: Mesh | None,
) -> tuple[FlowResult, np.ndarray]:
    """Results (float64, leading axis the group's seeds). A short last group is padded, so that only one shape is compiled."""
    padded = group + group[:1] * (chunk - len(group))
    own = [jax.random.fold_in(key, np.uint32(r)) for r in padded]
    replicas: list[tuple[Any, Keys]] = [
        replica_mixture(problem, layout.sizes.d, k) if data is None else replica_split(data, layout, k) for k in own
    ]
    with jax.enable_x64(layout.dtype == "float64"):
        if chunk == 1 and mesh is None:
            result = _compiled_one(problem, *replicas[0], rule, clock, layout=layout)
            result = jax.tree.map(lambda leaf: leaf[None], result)
        else:
            sources, keys = jax.tree.map(
                lambda *leaves: np.stack(leaves) if isinstance(leaves[0], np.ndarray) else jnp.stack(leaves), *replicas
            )
            arguments = (problem, sources, keys, rule, clock)
            result = _compiled_many(*arguments, layout=layout) if mesh is None else _compiled_spread(*arguments, layout=layout, mesh=mesh)
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[: len(group)], result)


def realised_optimum(problem: Problem, sizes: Sizes) -> np.ndarray:
    """(K,) loss of the exact score of the problem's mixture, with the shares of directions that dimension d can realise."""
    counts = largest_remainder(problem.mixture.eigenvalue_weights, sizes.d)
    return np.asarray(optimal_loss(counts / sizes.d, problem.mixture.eigenvalues, problem.t))


def check_truncation(truncation: np.ndarray, layout: Layout) -> None:
    """Refuse exact averages whose series is cut too early.

    Raises:
        InputError: a relative error that may exceed `TRUNCATION_LIMIT`.
    """
    worst = float(np.max(truncation))
    if not worst <= TRUNCATION_LIMIT:
        raise InputError(
            f"d: {layout.sizes.d} leaves the exact averages uncertain by {worst:.2g} (the correlations of the features are of order "
            f"1/sqrt(d), to powers {layout.train_order} and {layout.test_order}); allowed: an error below {TRUNCATION_LIMIT:g}, a larger d"
        )
