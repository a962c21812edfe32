"""Estimates of memory, work and time of each solver for a problem and a size, and which one runs.

`exact` is one eigendecomposition a network and gives the spectrum beside the curves. `krylov` forms U (p, p) and grows a basis of
f(U) V; `krylov-matrix-free` stores only the basis; `krylov-probes` starts it from a few random columns of V, with standard errors.
"""

import dataclasses
import functools
import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from rfdiff.labels import as_dataset
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.feature_shards import FEATURES
from rfdiff.simulation.features import Sizes, floating_type, sizes_at
from rfdiff.simulation.moment_assembly import PANEL_VALUES
from rfdiff.simulation.moment_operators import block_values
from rfdiff.simulation.pieces import piece
from rfdiff.simulation.replica_memory import Layout, decomposes, layout_for, replica_bytes
from rfdiff.simulation.seed_batches import MOST_SEEDS
from rfdiff.value_types import as_integer

if TYPE_CHECKING:
    import xarray as xr

SOLVERS = ("exact", "krylov", "krylov-matrix-free", "krylov-probes")
PROBES = 16
# Measured on two cores: eigh works at this fraction of the rate of large products, counting 9 p³ operations; elementwise work of Mehler's
# series and filters at this fraction of it.
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
        fits: whether the memory is there; for `exact` also whether the library of the device decomposes matrices of this size.
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

    @property
    def fitting(self) -> list[str]:
        """The solvers whose memory is there."""
        return [estimate.solver for estimate in self.estimates if estimate.fits]

    def to_xarray(self) -> "xr.Dataset":
        """The estimates on the axis solver; sizes, machine and choice as attributes (an empty text where no solver fits)."""
        variables = {
            "bytes": ("solver", [e.bytes for e in self.estimates], {"long_name": "peak memory", "units": "byte"}),
            "flops": ("solver", [e.flops for e in self.estimates], {"long_name": "operations of products and eigendecompositions"}),
            "seconds": ("solver", [e.seconds for e in self.estimates], {"long_name": "expected time of one network", "units": "s"}),
            "fits": ("solver", [e.fits for e in self.estimates], {"long_name": "whether memory and libraries suffice"}),
        }
        sizes = {name: getattr(self.sizes, name) for name in ("d", "p", "n")}
        attributes: dict[str, Any] = {**sizes, "dtype": self.dtype, "num_seeds": self.num_seeds, "rate": self.rate}
        known = {} if self.available is None else {"available_bytes": self.available}
        return as_dataset(variables, {"solver": [e.solver for e in self.estimates]}, attributes | known | {"taken": self.solver or ""})

    def __str__(self) -> str:
        """A table, one line per solver."""
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
    *,
    d: int,
    num_times: int = 80,
    num_seeds: int = 1,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
    data: Samples | None = None,
) -> SolverPlan:
    """Memory, work and time of every solver for networks of a problem in dimension d, and the one that `solver=None` takes.

    The exact flow is taken where it fits, since it gives the spectrum too and needs no tolerance; else the faster of the Krylov solvers
    that fit; random probes, whose losses have standard errors, only where nothing else does. Where a Krylov solver is expected to be
    much faster, ask for it by name. Rates are measured once a process by one product of large matrices.

    Args:
        problem: the problem.
        d: dimension.
        num_times: training times T ≥ 1.
        num_seeds: networks S ≥ 1.
        dtype: floating type; None for the device's own.
        mesh: of devices, or None for one. The devices of a row share the memory of a Krylov space, not that of the exact flow; those of a
            CPU have one memory for the networks of all rows.
        data: a data set in place of the mixture, or None.

    Raises:
        InputError: as `sizes_at`; an unknown dtype; numbers out of range; data that do not fit the problem.
    """
    name, sizes = floating_type(dtype), sizes_at(problem, d)
    num_times, num_seeds = as_integer("num_times", num_times, 1), as_integer("num_seeds", num_seeds, 1, MOST_SEEDS)
    held_out = () if data is None else held_out_counts(data, problem, sizes)
    layout = layout_for(problem, sizes, name, held_out)
    available, rate = available_bytes(), product_rate(name)
    estimates = []
    for solver in SOLVERS:
        cost = _exact_cost(layout, num_times) if solver == "exact" else _krylov_cost(solver, layout)
        if mesh is not None:
            cost = _shared(solver, cost, mesh)
        fits = (available is None or cost.bytes <= available) and (solver != "exact" or decomposes(sizes.p, name))
        estimates.append(Estimate(solver, cost.bytes, cost.flops, cost.work / rate, fits))
    fitting = [estimate for estimate in estimates if estimate.fits]
    without_probes = [estimate for estimate in fitting if estimate.solver != "krylov-probes"]
    best = estimates[0] if estimates[0].fits else min(without_probes or fitting, key=lambda e: e.seconds, default=None)
    return SolverPlan(sizes, name, num_seeds, available, rate, tuple(estimates), None if best is None else best.solver)


class _Cost(NamedTuple):
    """Bytes of memory and operations of one network, and `work`: operations weighed by how slow they are beside large products."""

    bytes: float
    flops: float
    work: float


def _shared(solver: str, cost: _Cost, mesh: Mesh) -> _Cost:
    """Bytes of a device's memory, operations in all and work of one network whose features are spread over a row of a mesh.

    The devices of a CPU share one memory, in which each row of this process has a network (exact flow: each device), and one processor.
    """
    devices = mesh.shape[FEATURES]
    if mesh.devices.flat[0].platform == "cpu":
        rows = sum(row[0].process_index == jax.process_index() for row in mesh.devices)
        return cost._replace(bytes=cost.bytes * rows * (devices if solver == "exact" else 1))
    return cost if solver == "exact" else cost._replace(bytes=cost.bytes / devices, work=cost.work / devices)


def _moment_work(layout: Layout) -> tuple[float, float, float]:
    """Operations that form the training U once, those of all tested U_c, and the elementwise ones of the series of all of them."""
    sizes = layout.sizes
    p, k, averaged = sizes.p, len(sizes.counts), sizes.draws is None
    # half of what is symmetric is formed, and applied in quadratic forms
    training = p * p * sizes.n * (layout.train_order + 1.0 if sizes.draws is None else 2.0 * sizes.draws)
    tested = k * p * p * (sizes.d + sum(layout.held_out) * (layout.train_order + 1.0))
    test_order = layout.train_order if layout.held_out else layout.test_order
    return training, tested, p * p / 2 * (2.0 * layout.train_order * averaged + 2.0 * k * test_order)


def _exact_cost(layout: Layout, num_times: int) -> _Cost:
    """One network by the exact flow."""
    sizes, k = layout.sizes, len(layout.sizes.counts)
    training, tested, elementwise = _moment_work(layout)
    decomposition, rotations = 9.0 * sizes.p**3, 2.0 * sizes.p**3 * (2 * k - 1) * 1.5
    work = training + tested + rotations + decomposition / EIGH_SHARE + elementwise / ELEMENTWISE_SHARE
    size = replica_bytes(sizes, layout.dtype, num_times, layout.train_order, layout.held_out)
    return _Cost(size, training + tested + decomposition + rotations, work)


def _krylov_cost(solver: str, layout: Layout) -> _Cost:
    """One network by a Krylov space."""
    sizes, item = layout.sizes, np.dtype(layout.dtype).itemsize
    p, n, d, k = sizes.p, sizes.n, sizes.d, len(sizes.counts)
    training, tested, elementwise = _moment_work(layout)
    width = min(d, PROBES) if solver == "krylov-probes" else d
    steps = min(math.ceil(p / width), STEPS * (1 if width == d else 4))
    basis = min(p, steps * width)
    free = solver == "krylov-matrix-free" or (solver == "krylov-probes" and not holds_matrix(p, layout.dtype))
    passes = steps if free else 1
    applied = 2.0 * p * p * width * steps
    growth = 12.0 * p * width**2 * steps**2 / 2
    forms = (p * p * basis + 2.0 * p * basis**2) * (2 * k - 1) + tested + training
    flops = training * passes + applied + growth + forms
    decompositions = 9.0 * basis**3 / EIGH_SHARE * 3
    entries = (
        (2 * k + 4) * p * d
        + (4 * basis + 3 * width) * p
        + 2 * min(block_values(), p * n * (layout.train_order + 1))
        + (layout.train_order + 4) * PANEL_VALUES
    )
    size = item * (entries + (0 if free else 3 * p * p)) + 8 * (2 * k + 4) * basis**2
    return _Cost(size, flops, flops + decompositions + elementwise * (passes + 1) / ELEMENTWISE_SHARE)


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
