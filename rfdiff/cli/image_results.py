"""The table and the figures of an evaluated run of rfdiff images, and the table of its losses; needs no optional extra."""

from pathlib import Path

import xarray as xr

from rfdiff import plots
from rfdiff.cli import tables
from rfdiff.cli.options import Redrawing
from rfdiff.cli.terminal import redraw_folder, say, say_files
from rfdiff.files.dataset_file import load_dataset
from rfdiff.images.readout import CONTENT, CURVES, FILE, READINGS, SAMPLES, class_times, steps_of

GOOD = 0.9  # below this accuracy the table says that the classifier is weak

__all__ = ["CONTENT", "loss_table", "redraw", "show", "table"]


def table(dataset: xr.Dataset) -> list[str]:
    """Times of each class, and what its last checkpoint generates."""
    heads = ["class", "images", *READINGS, "held-out loss", "gap"]
    sampled = "frechet" in dataset
    rows = [heads + ["samples", "memorised (95 %)", "Frechet (floor)"] * sampled]
    for k, name in enumerate(dataset["class"].values):
        at = dataset.isel({"class": k})
        last = at.isel(step=-1)
        line = [str(name), str(int(at["count"])), *(tables.number(float(value)) for value in at["time"].values)]
        line += [f"{float(last['mean_loss'].sel(set='held_out')):.4f}", f"{float(last['gap']):.4f}"]
        if sampled:
            end = at.isel(checkpoint=-1)
            line.append(f"{float(end['fraction']):.1%}")
            line.append(f"{float(end['memorised']):.1%} ({float(end['low']):.1%} to {float(end['high']):.1%})")
            line.append(f"{float(end['frechet']):.3g} ({float(end['floor']):.3g})")
        rows.append(line)
    lines = tables.columns(rows)
    if sampled:
        accuracy = float(dataset.attrs["accuracy"])
        low = f", below {GOOD:.0%}: more --classifier-epochs or pixels would make classes and distances surer" * (accuracy < GOOD)
        lines.append(f"accuracy of the classifier on the test images: {accuracy:.2%}{low}; last checkpoint: step {steps_of(dataset)[-1]}")
    return lines


def loss_table(losses: xr.Dataset) -> str:
    """Losses of each class after the last step, and its times so far."""
    found, last = class_times(losses)[0], losses["mean_loss"].isel(step=-1)
    rows = [["class", "images", "train loss", "held-out loss", *READINGS[:3]]]
    for k, name in enumerate(losses["class"].values):
        values = [f"{float(last.sel(set=one).values[k]):.4f}" for one in ("train", "held_out")]
        rows.append([str(name), str(int(losses["count"].values[k])), *values, *(tables.number(float(value)) for value in found[:, k])])
    return "\n".join([*tables.columns(rows), f"after step {int(losses['step'].values[-1])}"])


def show(dataset: xr.Dataset, out: Path) -> None:
    """Print the table of an evaluated run, draw its figures, and say where they are."""
    say("\n".join(table(dataset)))
    figures = {CURVES: plots.image_run(dataset)}
    if "grid" in dataset:
        figures[SAMPLES] = plots.image_samples(dataset)
    for name, figure in figures.items():
        plots.save_figure(figure, out / name)
    say_files(out, FILE, list(figures))


def redraw(options: Redrawing) -> int:
    """Print the table of an evaluation.nc and draw its figures again.

    Args:
        options: of `rfdiff plot`.

    Returns:
        Exit status 0.

    Raises:
        InputError: a damaged file, or figures that stand in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    show(dataset, redraw_folder(options, (CURVES, SAMPLES)))
    return 0
