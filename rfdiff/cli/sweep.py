"""The command sweep: many problems into a folder that can be continued."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated

import tyro

from rfdiff.cli.command import AGREE, NOT_COMPUTED, Command
from rfdiff.cli.options import Address, Directory, Flag, Integer
from rfdiff.cli.terminal import say, say_cost
from rfdiff.sweep import DONE, FAILED, on_dask, read_spec, run_sweep


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Run a grid of problems, dimensions, seeds and solvers; one result file per cell (point of the grid). The same command resumes it."""

    spec: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SPEC.toml")]
    """What to vary, in TOML; experiments/sweep.toml of the source is a commented example."""
    out: Directory
    """Folder of the results; created if it does not exist, continued if it holds this sweep or a part of it."""
    scheduler: Address = None
    """Address of a Dask scheduler, for example one started by dask-jobqueue, whose cluster computes the cells (needs the extra cluster)."""
    workers: Integer = None
    """Compute in this many processes of this machine (needs the extra cluster); a cell that runs out of memory ends its process only."""
    retry: Flag = False
    """Try the failed cells again."""


def run(options: SweepOptions) -> int:
    """Run the cells of a sweep that are not in its folder yet.

    Returns:
        Exit status 0, or 3 if a cell has failed, in this run or before.

    Raises:
        InputError: bad input, another sweep in the folder, another process at work in it.
        OSError: the folder cannot be written to, or the cluster is gone.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    sweep = read_spec(options.spec)
    execute = None
    if options.scheduler is not None or options.workers is not None:
        execute = on_dask(address=options.scheduler, workers=options.workers)
    states = list(run_sweep(sweep, options.out, retry=options.retry, execute=execute).values())
    failed = states.count(FAILED)
    remedy = f"; --retry tries them again, {options.out / 'failures'} has their diagnoses" if failed else ""
    say(f"{len(states)} cells: {states.count(DONE)} done, {failed} failed{remedy}")
    say_cost(start)
    return NOT_COMPUTED if failed else AGREE


COMMAND = Command("sweep", SweepOptions, run)
