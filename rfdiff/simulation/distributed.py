"""Several processes, each with devices of its own: how they find each other, and one ensemble whose seeds are shared among them.

Every process runs the same program. `initialize` comes first, then `device_mesh()` has the devices of all processes, and `run_seeds` and
`learning_curves` with that mesh give every process the same result: each computes the seeds of its own rows of the mesh, and JAX's
`process_allgather` brings them together. Without a mesh each process works for itself. Who writes files is `is_writer`.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.typing import ArrayLike

from rfdiff.errors import InputError, OtherProcessError
from rfdiff.simulation.mesh import local_rows
from rfdiff.simulation.seed_batches import SeedBatch
from rfdiff.value_types import as_integer

SEED_AXIS = {
    "seeds": 0, "train_loss": 0, "test_loss": 0, "score_error": 0, "eigenvalues": 0, "class_weights": 0, "truncation": 0,
    "error_estimate": 0, "probe_stderr": 1, "untrained_loss": 0,
}  # fmt: skip

T = TypeVar("T")


def initialize(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    startup_timeout: int = 300,
    silence_timeout: int = 100,
) -> None:
    """Join the processes of one run (`jax.distributed`), before anything is computed in this one.

    From then on a process that dies, or is silent for longer than `silence_timeout` because it is stopped or its machine is gone, ends all
    others: JAX says on standard error which one it was, and aborts them.

    Args:
        coordinator: "HOST:PORT" at which process 0 listens. None with the other two under SLURM, Open MPI, Kubernetes, or on a TPU pod,
            where JAX finds all three out.
        num_processes: how many there are.
        process_id: which of them this is, from 0.
        startup_timeout: seconds to wait until all have joined; large clusters may take longer than the default.
        silence_timeout: seconds without a sign of life, after which a process counts as dead.

    Raises:
        InputError: only some of the first three, or numbers out of range; none where there is no scheduler; a port that is taken; JAX has
            computed already in this process, or has joined others.
    """
    waits = {
        "initialization_timeout": as_integer("startup_timeout", startup_timeout, 1),
        "heartbeat_timeout_seconds": as_integer("silence_timeout", silence_timeout, 1),
    }
    given = (coordinator, num_processes, process_id)
    if any(value is None for value in given):
        if any(value is not None for value in given):
            raise InputError(
                f"coordinator, num_processes, process_id: {', '.join(map(repr, given))}; allowed: all three, or none under a scheduler"
            )
        try:
            _join(waits)
        except InputError:
            raise
        except ValueError as err:
            raise InputError(
                "coordinator, num_processes, process_id: none, without a scheduler that JAX knows; allowed: all three"
            ) from err
        return
    host, _, port = str(coordinator).rpartition(":")
    if not isinstance(coordinator, str) or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"coordinator: {coordinator!r}; allowed: 'HOST:PORT'")
    count = as_integer("num_processes", num_processes, 1)
    _join(waits, coordinator, count, as_integer("process_id", process_id, 0, count - 1))


def _join(waits: dict[str, int], *arguments: str | int) -> None:
    """`jax.distributed.initialize`, with one clear refusal where it comes too late."""
    if jax.distributed.is_initialized():
        raise InputError("initialize: this process has joined the others already; allowed: one call")
    try:
        jax.distributed.initialize(*arguments, **waits)  # type: ignore[arg-type]  # coordinator, number, which
    except RuntimeError as err:
        if "must be called before" in str(err):
            raise InputError("initialize: JAX has computed already in this process; allowed: before the first computation") from err
        if "start RPC server" in str(err):
            raise InputError(f"coordinator: {arguments[0]!r}, a port that is taken on this machine; allowed: a free one") from err
        raise
    _everyones(np.int32(0))  # at once: processes that first exchange numbers more than 30 s apart do not find each other on a CPU


def is_writer() -> bool:
    """Whether this process is the one that writes files: process 0, the only one where there is one."""
    return jax.process_index() == 0


def agreed(values: ArrayLike) -> np.ndarray:
    """The numbers of process 0, where several may have come to different ones (a measured time, say), in an array of the same shape."""
    return _everyones(values)[0]


def _everyones(values: ArrayLike) -> np.ndarray:
    """The arrays of all processes, which have one shape, along a first axis.

    Raises:
        OtherProcessError: the connection to another is lost.
    """
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    try:
        with jax.enable_x64(True):
            gathered = np.asarray(multihost_utils.process_allgather(np.asarray(values)))
    except (ValueError, jax.errors.JaxRuntimeError) as err:
        if "Gloo" not in str(err):
            raise
        raise OtherProcessError(f"the connection to another process is lost ({str(err).splitlines()[0]})", lost=True) from err
    return gathered.reshape(jax.process_count(), *np.shape(values))


def together(work: Callable[[], T]) -> T:
    """What some work gives in this process, once every process has done its own; where it fails in one, none goes on.

    Raises:
        OtherProcessError: it failed in another process alone.
    """
    if jax.process_count() == 1:
        return work()
    outcome: T | Exception
    try:
        outcome = work()
    except Exception as err:  # noqa: BLE001  the others wait for this process, and must learn of it before it ends
        outcome = err
    failed = np.flatnonzero(_everyones(np.int32(isinstance(outcome, Exception))))
    if isinstance(outcome, Exception):
        raise outcome
    if len(failed):
        raise OtherProcessError(f"process {failed[0]} of {jax.process_count()} failed; its own message says why")
    return outcome


def over_processes(run: Callable[[Sequence[int], Mesh | None], SeedBatch], seeds: Sequence[int], mesh: Mesh | None) -> SeedBatch:
    """The batch of all seeds, each from the process whose row of the mesh it falls to; the same in every process.

    Args:
        run: batch of some seeds, on the mesh of this process.
        seeds: replica numbers.
        mesh: of all processes, or None for this one alone.

    Raises:
        InputError: a process without a row of the mesh.
        OtherProcessError: another process failed; its own message says why.
    """
    if mesh is None or jax.process_count() == 1:
        return run(seeds, mesh)
    owners = [row[0].process_index for row in mesh.devices]
    absent = sorted(set(range(jax.process_count())) - set(owners))
    if absent:
        raise InputError(f"mesh: no device of process {absent[0]}; allowed: at least one row of each process, as device_mesh() gives")
    shared = {q: [r for i, r in enumerate(seeds) if owners[i % len(owners)] == q] for q in sorted(set(owners))}
    # with fewer seeds than rows, a process that has none runs one of the others', whose copy is dropped
    share = together(lambda: run(shared[jax.process_index()] or seeds[:1], local_rows(mesh)))
    return _gathered(share, [len(numbers) for numbers in shared.values()])


def one_by_one(batch: SeedBatch) -> list[SeedBatch]:
    """A batch of one seed for each seed of a batch."""
    arrays = batch.to_arrays()
    rows = [{name: np.take(arrays[name], [i], axis) for name, axis in SEED_AXIS.items() if name in arrays} for i in range(len(batch.seeds))]
    return [SeedBatch.from_arrays({**arrays, **row}) for row in rows]


def _gathered(batch: SeedBatch, counts: Sequence[int]) -> SeedBatch:
    """The batches of all processes as one; each is padded to the longest, since gathered arrays have one shape."""
    most = max(counts)
    gathered: dict[str, np.ndarray] = {}
    for name, axis in SEED_AXIS.items():
        value = getattr(batch, name)
        if value is not None:
            rows = np.moveaxis(np.asarray(value), axis, 0)
            padded = np.concatenate([rows, np.repeat(rows[-1:], most, axis=0)])[:most]
            real = np.concatenate([share[:count] for share, count in zip(_everyones(padded), counts, strict=True)])
            gathered[name] = np.moveaxis(real, 0, axis)
    order = np.argsort(gathered["seeds"])
    arrays = {name: np.take(value, order, axis=SEED_AXIS[name]) for name, value in gathered.items()}
    return SeedBatch.from_arrays({**batch.to_arrays(), **arrays})
