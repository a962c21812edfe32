"""Options of a command that several processes share, how a process joins the others, and what only the one that writes files does."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from jax.sharding import Mesh

from rfdiff import simulation
from rfdiff.cli.options import Address, Integer, check, hint
from rfdiff.cli.platforms import check_platform
from rfdiff.cli.tables import Form
from rfdiff.cli.terminal import note, say_cost
from rfdiff.errors import InputError
from rfdiff.rules import MinibatchSGD, Rule
from rfdiff.simulation.distributed import agreed, together

AUTO = "auto"
WAITS = ("startup_timeout", "silence_timeout")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Options of a command that several processes share."""

    coordinator: Address = None
    """HOST:PORT of process 0, where several processes share the networks and process 0 writes; auto under SLURM and the like."""
    num_processes: Integer = None
    """How many processes there are."""
    process_id: Integer = None
    """Which of them this is, from 0."""
    startup_timeout: Annotated[Integer, hint("(default: 300)")] = None
    """Seconds to wait until all processes have joined."""
    silence_timeout: Annotated[Integer, hint("(default: 100)")] = None
    """Seconds without a sign of life of one process, after which all others end."""


def check_processes(options: Processes, rule: Rule) -> None:
    """Refuse processes that cannot be, before any of them waits for another.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    given = [name for name in ("num_processes", "process_id", *WAITS) if getattr(options, name) is not None]
    if options.coordinator is None:
        if given:
            raise InputError(f"--coordinator: missing, with {_option(given[0])} given; allowed: HOST:PORT of process 0, or {AUTO}")
        return
    if isinstance(rule, MinibatchSGD):
        raise InputError("--coordinator: given with --rule sgd, whose steps are taken one by one in one process; allowed: another rule")
    for name in ("num_processes", "process_id"):
        if options.coordinator == AUTO and name in given:
            raise InputError(f"{_option(name)}: given with --coordinator {AUTO}, which finds it; allowed: one of the two")
        if options.coordinator != AUTO and name not in given:
            raise InputError(f"{_option(name)}: missing; allowed: an integer, beside --coordinator HOST:PORT, or --coordinator {AUTO}")
    check(options, **{name: (getattr(options, name) >= 1, "an integer >= 1") for name in WAITS if name in given})


def join(options: Processes) -> Mesh | None:
    """Join the other processes that the options name, and the devices of all; None where this process is alone.

    Raises:
        InputError: a malformed address or number, no scheduler that JAX knows, a port that is taken, or platforms that are not there.
    """
    if options.coordinator is None:
        return None
    values: dict[str, Any] = {name: getattr(options, name) for name in WAITS if getattr(options, name) is not None}
    if options.coordinator != AUTO:
        values |= {name: getattr(options, name) for name in ("coordinator", "num_processes", "process_id")}
    note(f"waiting for the other processes, at most {values.get('startup_timeout', 300)} s")
    with _output_to_error():
        simulation.initialize(**values)
    check_platform()
    return simulation.device_mesh()


@contextlib.contextmanager
def _output_to_error() -> Iterator[None]:
    """Let standard output go to standard error, where what the library that connects the processes says is in the way of no table."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def held_by_writer(context: contextlib.AbstractContextManager[object]) -> Iterator[None]:
    """Hold something (a folder, say) in the process that writes files; the others go on once it holds it.

    Raises:
        OtherProcessError: it could not be had.
    """
    with contextlib.ExitStack() as held:
        by_writer(lambda: held.enter_context(context))
        yield


def by_writer(work: Callable[[], T]) -> T | None:
    """What the process that writes files gets by some work; None in the others, which wait for it.

    Raises:
        OtherProcessError: the work failed there.
    """
    return together(lambda: work() if simulation.is_writer() else None)


def ended(status: int | None, start: float, form: Form) -> int:
    """The exit status of the process that writes files, for all of them, after that one has said what the command cost.

    Args:
        status: of the command; None in the others.
        start: time at which it began.
        form: how tables are printed.
    """
    if status is not None:
        say_cost(start, form)
    return int(agreed(0 if status is None else status))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
