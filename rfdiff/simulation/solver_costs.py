"""Estimates of memory, work and time of each solver for a problem and a size, and which one is taken.

`exact` is one eigendecomposition a network and gives the spectrum beside the curves. `krylov` forms U (p, p) and grows a basis of
f(U) V; `krylov-matrix-free` holds the basis alone; `krylov-probes` starts it from a few random columns of V, with standard errors.
"""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.feature_shards import FEATURES
from rfdiff.simulation.features import Sizes, floating_type, sizes_at
from rfdiff.simulation.moment_assembly import PANEL_VALUES
from rfdiff.simulation.moment_operators import block_values
from rfdiff.simulation.pieces import piece
from rfdiff.simulation.replica_memory import layout_for, replica_bytes

SOLVERS = ("exact", "krylov", "krylov-matrix-free", "krylov-probes")
PROBES = 16
# Measured on two cores: eigh works at this part of the rate of large products, counting 9 p³ operations; elementwise work of Mehler's
# series and filters at this part of it.
EIGH_SHARE, ELEMENTWISE_SHARE = 0.85, 0.05
STEPS = 18  # blocks until every training time is resolved to 1e-8, seen at ψ_p from 8 to 64; at most p/d, where the space is the whole
CALIBRATION = 1024
ACCELERATOR_CALIBRATION = 8192  # a product of 1024 rows is mostly its launch there


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one network costs by one solver.

    Args:
        solver: its name.
        bytes: peak memory.
        flops: floating-point operations of matrix products and eigendecompositions.
        seconds: expected time on this device, without compilation.
        fits: whether the memory is there.
    """

    solver: str
    bytes: float
    flops: float
    seconds: float
    fits: bool


@dataclasses.dataclass(frozen=True)
class SolverPlan:
    """Estimates of every solver for a problem at a dimension, and which one is taken; printing it gives a table.

    Args:
        sizes: integers of the network.
        dtype: floating type.
        num_seeds: networks.
        available: bytes of memory of the device, None where unknown.
        rate: measured rate of matrix products, operations a second.
        estimates: one network by each solver.
        solver: the one that is taken; None if none fits.
    """

    sizes: Sizes
    dtype: str
    num_seeds: int
    available: int | None
    rate: float
    estimates: tuple[Estimate, ...]
    solver: str | None

    def __str__(self) -> str:
        """A table, one line a solver."""
        memory = "unknown" if self.available is None else f"{self.available / 2**30:.3g} GiB"
        lines = [
            f"p = {self.sizes.p}, n = {self.sizes.n}, d = {self.sizes.d}, {self.dtype}, {self.num_seeds} networks; memory {memory}, "
            f"matrix products at {self.rate / 1e9:.3g} GFLOP/s",
            f"{'solver':20}{'GiB':>10}{'TFLOP each':>14}{'s each':>10}{'s in all':>12}",
        ]
        for e in self.estimates:
            mark = " <- taken" if e.solver == self.solver else "" if e.fits else " does not fit"
            lines.append(
                f"{e.solver:20}{e.bytes / 2**30:10.3g}{e.flops / 1e12:14.3g}{e.seconds:10.3g}{e.seconds * self.num_seeds:12.3g}{mark}"
            )
        return "\n".join(lines)


def plan(
    problem: Problem,
    d: int,
    num_times: int = 80,
    num_seeds: int = 1,
    dtype: Any = None,
    data: Samples | None = None,
    mesh: Mesh | None = None,
) -> SolverPlan:
    """Memory, work and time of every solver for networks of a problem in dimension d, and the one that `solver=None` takes.

    The exact flow is taken where it fits, since it gives the spectrum too and needs no tolerance; else the faster of the Krylov solvers
    that fit; random probes, whose losses have standard errors, only where nothing else does. Where a Krylov solver is expected to be
    much faster, ask for it by name. Rates are measured once a process by one product of large matrices.

    Args:
        problem: the problem.
        d: dimension.
        num_times: training times.
        num_seeds: networks.
        dtype: floating type; None for the device's own.
        data: a data set in place of the mixture, or None.
        mesh: of devices, or None for one. The devices of a row share the memory of a Krylov space, not that of the exact flow; those of a
            CPU have one memory for the networks of all rows.

    Raises:
        InputError: as `sizes_at`; an unknown dtype; data that do not fit the problem.
    """
    name, sizes = floating_type(dtype), sizes_at(problem, d)
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    layout = layout_for(problem, sizes, name, held_out)
    available, rate = available_bytes(), product_rate(name)
    costs = {solver: _cost(solver, sizes, name, num_times, layout.train_order, layout.test_order, held_out, rate) for solver in SOLVERS}
    if mesh is not None:
        costs = {solver: _shared(solver, cost, mesh) for solver, cost in costs.items()}
    estimates = tuple(
        Estimate(solver, size, flops, seconds, available is None or size <= available) for solver, (size, flops, seconds) in costs.items()
    )
    fitting = [e for e in estimates if e.fits]
    whole = [e for e in fitting if e.solver != "krylov-probes"]
    best = estimates[0] if estimates[0].fits else min(whole or fitting, key=lambda e: e.seconds, default=None)
    return SolverPlan(sizes, name, num_seeds, available, rate, estimates, None if best is None else best.solver)


def _shared(solver: str, cost: tuple[float, float, float], mesh: Mesh) -> tuple[float, float, float]:
    """Bytes of a device's memory, operations in all and seconds of one network whose features are spread over a row of a mesh.

    The devices of a CPU share one memory, in which each row of this process has a network (exact flow: each device), and one processor.
    """
    (size, flops, seconds), parts = cost, mesh.shape[FEATURES]
    if mesh.devices.flat[0].platform == "cpu":
        rows = sum(row[0].process_index == jax.process_index() for row in mesh.devices)
        return size * rows * (parts if solver == "exact" else 1), flops, seconds
    return cost if solver == "exact" else (size / parts, flops, seconds / parts)


def _cost(
    solver: str, sizes: Sizes, dtype: str, num_times: int, train_order: int, test_order: int, held_out: tuple[int, ...], rate: float
) -> tuple[float, float, float]:
    """Bytes, operations and seconds of one network."""
    p, n, d, k, item = sizes.p, sizes.n, sizes.d, len(sizes.counts), np.dtype(dtype).itemsize
    # half of what is symmetric is formed, and applied in quadratic forms
    assembly = p * p * n * (train_order + 1.0 if sizes.draws is None else 2.0 * sizes.draws)
    tested = p * p * (d + sum(held_out) * (train_order + 1.0))
    elementwise = p * p / 2 * (2.0 * train_order * (sizes.draws is None) + 2.0 * k * (test_order if not held_out else train_order))
    if solver == "exact":
        rotations = 2.0 * p**3 * (2 * k - 1) * 1.5
        flops = assembly + k * tested + 9.0 * p**3 + rotations
        seconds = (assembly + k * tested + rotations + 9.0 * p**3 / EIGH_SHARE + elementwise / ELEMENTWISE_SHARE) / rate
        return replica_bytes(sizes, dtype, num_times, train_order, held_out), flops, seconds
    width = min(d, PROBES) if solver == "krylov-probes" else d
    steps = min(math.ceil(p / width), STEPS * (1 if width == d else 4))
    basis = min(p, steps * width)
    applied = 2.0 * p * p * width * steps
    growth = 12.0 * p * width**2 * steps**2 / 2
    forms = (p * p * basis + 2.0 * p * basis**2) * (2 * k - 1) + k * tested + assembly
    small = 9.0 * basis**3 / EIGH_SHARE * 3
    free = solver == "krylov-matrix-free" or (solver == "krylov-probes" and not holds_matrix(p, dtype))
    assembled = assembly * (steps if free else 1)
    passes = (steps if free else 1) + 1
    flops = assembled + applied + growth + forms
    seconds = (flops + small + elementwise * passes / ELEMENTWISE_SHARE) / rate
    held = (
        (2 * k + 4) * p * d
        + (4 * basis + 3 * width) * p
        + 2 * min(block_values(), p * n * (train_order + 1))
        + (train_order + 4) * PANEL_VALUES
    )
    size = item * (held + (0 if free else 3 * p * p)) + 8 * (2 * k + 4) * basis**2
    return size, flops, seconds


def holds_matrix(p: int, dtype: str) -> bool:
    """Whether U and what it takes to form it fit beside the rest."""
    return np.dtype(dtype).itemsize * p * p * 3 <= (available_bytes() or math.inf) / 2


@functools.cache
def product_rate(dtype: str) -> float:
    """Operations a second of a product of two large matrices on this device, measured."""
    with jax.enable_x64(dtype == "float64"):
        side = piece(CALIBRATION, ACCELERATOR_CALIBRATION)
        a = jnp.ones((side, side), dtype) / side
        multiply = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
        multiply(a).block_until_ready()
        best = math.inf
        for _ in range(3):
            start = time.perf_counter()
            multiply(a).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best
