"""The command plot: the figures of a file that another command wrote, drawn again."""

import dataclasses
from collections.abc import Callable

from rfdiff.cli import calibrate, collect, curve_results, design, diagnose, generate, image_results, map_results, phase_map, speciate, times
from rfdiff.cli.command import Command
from rfdiff.cli.options import Redrawing
from rfdiff.errors import InputError
from rfdiff.files import dataset_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot(Redrawing):
    """Print the tables and draw the figures of a file that another command wrote, computing nothing anew."""


REDRAW: dict[str, Callable[[Redrawing], int]] = {
    map_results.CONTENT: phase_map.redraw,
    **{module.CONTENT: module.redraw for module in (times, design, diagnose, calibrate, speciate, generate, collect, image_results)},
}


def run(options: Plot) -> int:
    """Draw the figures of a file again.

    Returns:
        The exit status of the command that wrote it.

    Raises:
        InputError: a file without anything to draw; an option that does not go with it; figures in another folder than that of the file.
        OSError: the folder cannot be written to.
    """
    content = dataset_file.content_of(options.file)
    if options.q is not None and content in REDRAW:
        raise InputError(f"--q: {options.q!r}; the times in {options.file} are of another q; run its command again with this one")
    if content != map_results.CONTENT and (options.pair is not None or options.quantity != "all"):
        raise InputError(f"--{'quantity' if options.pair is None else 'pair'}: applies only to a file of rfdiff phase-map")
    return REDRAW.get(content or "", curve_results.redraw)(options)


COMMAND = Command("plot", Plot, run)
