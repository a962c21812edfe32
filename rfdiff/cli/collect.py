"""The command collect: the folder of a sweep as one dataset with figures."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
import xarray as xr

from rfdiff import plots
from rfdiff.cli.command import AGREE, NOT_COMPUTED, Command
from rfdiff.cli.folder import Files, check_drawing, drawn, redraw_folder, results_folder, write_figures
from rfdiff.cli.options import Drawing, Flag, OptionalFile, Redrawing, hint
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import note, report
from rfdiff.files.contents import load_content
from rfdiff.files.dataset_file import save_dataset
from rfdiff.plots.style import NotebookFigure
from rfdiff.sweep import CONTENT, DONE, FAILED, MISSING, Folder, collect

FILE = "sweep.nc"
MOST_FAILURES = 20
MOST_ROWS = 40  # of the collected table on a terminal
TIMES_PANELS = ("tau_gen", "tau_mem", "best_test_loss")

__all__ = ["COMMAND", "CONTENT", "FILE", "Collect", "redraw", "run", "state_table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect(Drawing):
    """Collect the results of a sweep into one dataset, with a table and figures."""

    dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder that rfdiff sweep wrote."""
    skip_bad: Flag = False
    """Leave out files that are truncated, of another sweep or of another version; without this option they are an error."""
    out: Annotated[OptionalFile, hint("(default: sweep.nc in DIR)")] = None
    """File of the dataset; the figures are written beside it."""
    overwrite: Flag = False
    """Replace the file and the figures of an earlier run."""


def run(options: Collect) -> int:
    """Collect the folder of a sweep into one file, print what is in it, draw its figures.

    Returns:
        Exit status 0, or 3 if a cell has failed, is missing or was skipped.

    Raises:
        InputError: no sweep there, bad files, or results that stand there.
        OSError: the file cannot be written.
    """
    manifest = Folder(options.dir).read()
    out = options.dir / FILE if options.out is None else options.out
    files = _files(out, list(manifest.sweep.axes))
    with results_folder(out.parent, files, options.overwrite):
        dataset = collect(options.dir, skip_bad=options.skip_bad)
        check_drawing(options, dataset.sizes["class"])
        save_dataset(dataset, out, command="collect")
        _show(dataset, out.parent, files, options, replace=True)
    return AGREE if dataset.attrs[DONE] == dataset.attrs["cells"] else NOT_COMPUTED


def redraw(options: Redrawing) -> int:
    """Print the table of a collected sweep and draw its figures again.

    Raises:
        InputError: a damaged file, or existing figures in another folder than that of the file.
        OSError: the folder cannot be written to.
    """
    dataset = load_content(options.file, CONTENT)
    files = _files(options.file, str(dataset.attrs["axes"]).split(", "))
    check_drawing(options, dataset.sizes["class"])
    with redraw_folder(options, files) as out:
        _show(dataset, out, files, options, replace=False)
    return AGREE


def _files(file: Path, axes: list[str]) -> Files:
    """The file of a dataset and its figures: two for each axis."""
    figures: dict[str, tuple[str, ...]] = {}
    for axis in axes:
        figures |= {f"{file.stem}_times_{axis}": TIMES_PANELS, f"{file.stem}_curves_{axis}": ()}
    return Files(file.name, figures)


def _show(dataset: xr.Dataset, out: Path, files: Files, drawing: Drawing, replace: bool) -> None:
    """Draw the figures of a collected sweep, print its tables, and say where they are."""
    figures: dict[str, NotebookFigure] = {}
    for axis in str(dataset.attrs["axes"]).split(", ") if dataset.sizes["time"] else ():
        stem = files.data.rsplit(".", 1)[0]
        figures |= drawn(drawing, f"{stem}_times_{axis}", functools.partial(plots.sweep_times, dataset, axis), TIMES_PANELS)
        figures |= drawn(drawing, f"{stem}_curves_{axis}", functools.partial(plots.sweep_curves, dataset, axis))
    if not figures:
        note("collect: no cell is done, no figure is drawn")
    names = write_figures(out, files, figures, drawing, replace)
    failures, head, more = state_table(dataset)
    collected = times_table(dataset, drawing.class_names)
    if drawing.table == "text" and len(collected.rows) > MOST_ROWS:
        more = [f"… and {len(collected.rows) - MOST_ROWS} more rows; --table csv prints all of them", *more]
        collected = dataclasses.replace(collected, rows=collected.rows[:MOST_ROWS])
    tables = [table for table in (collected, failures) if table.rows or drawing.table != "text"]
    report(tables, drawing.table, [*more, f"in {out}: {', '.join(names)}"], head)


def times_table(dataset: xr.Dataset, class_names: Sequence[str] | None = None) -> Table:
    """Times and lowest test loss of every class in every cell: one line for each class of the theory, each solver and each dimension."""
    axes = str(dataset.attrs["axes"]).split(", ")
    labels = [str(c) for c in range(dataset.sizes["class"])] if class_names is None else list(class_names)
    quantities = [f"tau_opt({dataset.attrs['q']:g})" if name == "tau_opt" else str(name) for name in dataset["quantity"].values]
    rows: list[list[Cell]] = []
    for place in np.ndindex(*(dataset.sizes[axis] for axis in axes)):
        at = dataset.isel(dict(zip(axes, place, strict=True)))
        point = [Cell(at[axis].item(), f"{at[axis].item():.6g}") for axis in axes]
        for source, values, errors, state in _sources(at):
            for c, label in enumerate(labels):
                numbers = (measured(value, error) for value, error in zip(values[:, c], errors[:, c], strict=True))
                rows.append([*point, words(source), words(label), *numbers, words(state)])
    return Table("times", [*axes, "source", "class", *quantities, "state"], rows, grouped=len(axes) + 1)


def _sources(at: xr.Dataset) -> Iterator[tuple[str, np.ndarray, np.ndarray, str]]:
    """Theory and each series of networks at one place of the axes: name, quantities (Q, K), their errors, and states of the seeds."""
    if "theory_class_time" in at:
        values = at["theory_class_time"].values
        yield "theory", values, np.full(values.shape, np.nan), str(at["theory_status"].item())
    if "class_time" in at:
        for solver in at["solver"].values:
            for d in at["d"].values:
                one = at.sel(solver=solver, d=d)
                states = [str(state) for state in one["status"].values]
                told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
                yield f"{solver}, d = {d}", one["class_time"].values, one["class_time_stderr"].values, told


def state_table(dataset: xr.Dataset) -> tuple[Table, list[str], list[str]]:
    """The failures with their diagnoses; before them the axes and the cells by state; after them what is left out."""
    axes = "  x  ".join(f"{name} ({dataset.sizes[name]} values)" for name in str(dataset.attrs["axes"]).split(", "))
    counts = ", ".join(f"{dataset.attrs[state]} {state}" for state in (DONE, FAILED, MISSING))
    skipped = f", {dataset.attrs['skipped']} bad files skipped" if dataset.attrs["skipped"] else ""
    rows: list[list[Cell]] = []
    for name in ("theory_diagnosis", "diagnosis"):
        told = dataset[name].stack(cell=dataset[name].dims) if name in dataset else []
        rows += [_failure(entry, name) for entry in told if str(entry.values)]
    more = [f"… and {len(rows) - MOST_FAILURES} more"] * (len(rows) > MOST_FAILURES)
    table = Table("failed cells", ["cell", "diagnosis"], rows[:MOST_FAILURES])
    return table, [f"sweep: {axes}", f"{dataset.attrs['cells']} cells: {counts}{skipped}"], more


def _failure(entry: xr.DataArray, name: str) -> list[Cell]:
    cell = ", ".join(f"{key} = {entry[key].item()}" for key in entry.coords if key != "cell" and entry[key].ndim == 0)
    return [words(f"{'theory at ' * name.startswith('theory')}{cell}"), words(entry.item())]


COMMAND = Command("collect", Collect, run)
