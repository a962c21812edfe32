"""The table and the figures of an evaluated run of rfdiff images, and the table of its losses; needs no optional extra."""

import functools
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from rfdiff import plots
from rfdiff.class_times import ClassTimes
from rfdiff.cli.folder import Files, drawn, redraw_dataset, write_figures
from rfdiff.cli.options import Drawing, Redrawing
from rfdiff.cli.tables import Cell, Table, integer, measured, shown, words
from rfdiff.cli.terminal import report
from rfdiff.images.readout import CONTENT, FILE, READINGS, class_times, steps_of, times_of

GOOD = 0.9  # below this accuracy the table says that the classifier is weak
PANELS = ("losses", "gap", "frechet", "memorised")
FILES = Files(FILE, {"curves": PANELS, "samples": ()})

__all__ = ["CONTENT", "loss_table", "redraw", "run_table", "show"]


def run_table(dataset: xr.Dataset, class_names: Sequence[str] | None = None) -> tuple[Table, list[str]]:
    """Times of each class, and what its last checkpoint generates; and how well the classifier judges it."""
    headings = ["class", "images", *READINGS, "held-out loss", "gap"]
    sampled = "frechet" in dataset
    if sampled:
        headings += ["samples", "memorised", "95 % from", "to", "Frechet", "Frechet floor"]
    rows: list[list[Cell]] = []
    read = times_of(dataset)
    for k, name in enumerate(dataset["class"].values if class_names is None else class_names):
        at = dataset.isel({"class": k})
        last = at.isel(step=-1)
        row = [words(name), integer(int(at["count"])), *_time_cells(read, k), measured(float(at["time"].sel(reading="tau_copy")))]
        row += [shown(float(last["mean_loss"].sel(set="held_out")), ".4f"), shown(float(last["gap"]), ".4f")]
        if sampled:
            end = at.isel(checkpoint=-1)
            row += [shown(100 * float(end[key]), ".1f", " %") for key in ("fraction", "memorised", "low", "high")]
            row += [shown(float(end[key]), ".3g") for key in ("frechet", "floor")]
        rows.append(row)
    notes = []
    if sampled:
        accuracy = float(dataset.attrs["accuracy"])
        low = f", below {GOOD:.0%}: more --classifier-epochs or pixels would make classes and distances surer" * (accuracy < GOOD)
        notes.append(f"accuracy of the classifier on the test images: {accuracy:.2%}{low}; last checkpoint: step {steps_of(dataset)[-1]}")
    return Table("classes", headings, rows), notes


def loss_table(losses: xr.Dataset) -> tuple[Table, list[str]]:
    """Losses of each class after the last step, and its times so far."""
    read, last = class_times(losses).mean, losses["mean_loss"].isel(step=-1)
    rows: list[list[Cell]] = []
    for k, name in enumerate(losses["class"].values):
        values = [shown(float(last.sel(set=one).values[k]), ".4f") for one in ("train", "held_out")]
        rows.append([words(name), integer(int(losses["count"].values[k])), *values, *_time_cells(read, k)])
    table = Table("classes", ["class", "images", "train loss", "held-out loss", *READINGS[:3]], rows)
    return table, [f"after step {int(losses['step'].values[-1])}"]


def _time_cells(read: ClassTimes, k: int) -> list[Cell]:
    """The times of a class in steps, or their bounds where the run does not resolve them."""
    return [measured(float(getattr(read, name)[k]), text=read.text(name, k)) for name in READINGS[:3]]


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> None:
    """Draw the figures of an evaluated run, print its table, and say where they are."""
    panels = PANELS if "frechet" in dataset else PANELS[:2]
    figures = drawn(drawing, "curves", functools.partial(plots.image_run, dataset), panels)
    if "grid" in dataset:
        figures |= drawn(drawing, "samples", functools.partial(plots.image_samples, dataset))
    names = write_figures(out, FILES, figures, drawing, replace)
    table, notes = run_table(dataset, drawing.class_names)
    report([table], drawing.table, [*notes, f"in {out}: {', '.join(names)}"])


def redraw(options: Redrawing) -> int:
    """Print the table of an evaluation.nc and draw its figures again, as `redraw_dataset`."""
    return redraw_dataset(options, CONTENT, FILES, show)
