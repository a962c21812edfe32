"""The command collect: the folder of a sweep as one dataset with figures."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
import xarray as xr

from rfdiff import plots
from rfdiff.cli.command import Command
from rfdiff.cli.options import Flag, OptionalFile, Redrawing
from rfdiff.cli.terminal import note, prepare_folder, redraw_folder, say, say_files
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.sweep import CONTENT, DONE, FAILED, MISSING, Folder, collect

FILE = "sweep.nc"
MOST_FAILURES = 20

__all__ = ["COMMAND", "CONTENT", "FILE", "Collect", "redraw", "run", "table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect:
    """Collect the results of a sweep into one labelled dataset, with figures."""

    dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of rfdiff sweep."""
    skip_bad: Flag = False
    """Leave out files that are truncated, foreign or of another version; without this option they are an error."""
    out: OptionalFile = None
    """File of the dataset; DIR/sweep.nc if not given. The figures are written beside it."""
    overwrite: Flag = False
    """Replace the file and the figures of an earlier run."""


def run(options: Collect) -> int:
    """Collect the folder of a sweep into one file, print what is in it, draw its figures.

    Returns:
        Exit status 0, or 1 if a cell has failed, is missing or was skipped.

    Raises:
        InputError: no sweep there, bad files, or results that stand there.
        OSError: the file cannot be written.
    """
    axes = list(Folder(options.dir).read().sweep.axes)
    out = options.dir / FILE if options.out is None else options.out
    prepare_folder(out.parent, (out.name, *_figures(out, axes)), options.overwrite)
    dataset = collect(options.dir, options.skip_bad)
    save_dataset(dataset, out, command="collect")
    _show(dataset, out.parent, out)
    return 0 if dataset.attrs[DONE] == dataset.attrs["cells"] else 1


def redraw(options: Redrawing) -> int:
    """Print the table of a collected sweep and draw its figures again.

    Raises:
        InputError: a damaged file, or figures that stand in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    out = redraw_folder(options, _figures(options.file, str(dataset.attrs["axes"]).split(", ")))
    _show(dataset, out, options.file)
    return 0


def _figures(file: Path, axes: list[str]) -> list[str]:
    """Names of the figures: two for each axis."""
    return [f"{file.stem}_{kind}_{axis}.png" for axis in axes for kind in ("times", "curves")]


def _show(dataset: xr.Dataset, out: Path, file: Path) -> None:
    """Print the table of a collected sweep, draw its figures, and say where they are."""
    say("\n".join(table(dataset)))
    names = []
    if dataset.sizes["time"]:
        axes = str(dataset.attrs["axes"]).split(", ")
        draw = {"times": plots.sweep_times, "curves": plots.sweep_curves}
        names = _figures(file, axes)
        figures = [function(dataset, axis) for axis in axes for function in draw.values()]
        for name, figure in zip(names, figures, strict=True):
            plots.save_figure(figure, out / name)
    else:
        note("collect: no cell is done, no figure is drawn")
    say_files(out, file.name, names)


def table(dataset: xr.Dataset) -> list[str]:
    """Axes, cells by state, and the failures with their diagnoses."""
    axes = "  x  ".join(f"{name} ({dataset.sizes[name]} values)" for name in str(dataset.attrs["axes"]).split(", "))
    counts = ", ".join(f"{dataset.attrs[state]} {state}" for state in (DONE, FAILED, MISSING))
    skipped = f", {dataset.attrs['skipped']} bad files skipped" if dataset.attrs["skipped"] else ""
    lines = [f"sweep: {axes}", f"{dataset.attrs['cells']} cells: {counts}{skipped}"]
    rows = []
    for name in ("theory_diagnosis", "diagnosis"):
        told = dataset[name].stack(cell=dataset[name].dims) if name in dataset else []
        rows += [_failure(entry, name) for entry in told if str(entry.values)]
    more = [f"… and {len(rows) - MOST_FAILURES} more"] * (len(rows) > MOST_FAILURES)
    return lines + rows[:MOST_FAILURES] + more


def _failure(entry: xr.DataArray, name: str) -> str:
    place = ", ".join(f"{key} = {entry[key].item()}" for key in entry.coords if key != "cell" and entry[key].ndim == 0)
    return f"{'theory at ' * name.startswith('theory')}{place}: {entry.item()}"


COMMAND = Command("collect", Collect, run)
