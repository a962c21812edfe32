"""Figures of a U-Net's run: curves of each class against training steps, and samples beside the training images nearest to them."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rfdiff.errors import InputError
from rfdiff.labels import Color
from rfdiff.plots.curve_figures import mark_time
from rfdiff.plots.style import (
    LINE_STYLES,
    TIME_MARKERS,
    LabelledResult,
    NotebookFigure,
    chosen_panels,
    class_colors,
    class_handles,
    dataset_of,
    labels_of,
    legend_below,
    new_figure,
    plain_log_ticks,
    require_variables,
    time_handles,
)

PANELS = ("losses", "gap", "frechet", "memorised")
SETS = (("held_out", "held out", LINE_STYLES["test_loss"]), ("train", "train", LINE_STYLES["train_loss"]))
CELL = 0.9  # inches of an image in the table of samples


def image_run(
    result: LabelledResult,
    *,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Losses, generalisation gap, Fréchet distance and memorised fraction of each class against training steps.

    Args:
        result: an evaluated run of a U-Net, or the dataset of its file.
        class_names: K labels; those of the data set if None.
        panels: some of "losses", "gap", "frechet" and "memorised"; all that the run has if None.
        size: (width, height) in inches.

    Returns:
        A figure. Triangles mark τ_gen, diamonds τ_mem, on the held-out loss. Dotted lines are the Fréchet distance between halves of the
        real test images; bands are 95 % bootstrap intervals.

    Raises:
        InputError: a result of another kind, or a bad name, panel or size.
    """
    dataset = dataset_of(result)
    require_variables(dataset, ("mean_loss", "gap", "time"), "an evaluated run of a U-Net")
    labels = labels_of(dataset, class_names)
    shown = chosen_panels(panels, PANELS if "frechet" in dataset else PANELS[:2])
    rows, columns = -(-len(shown) // 2), min(len(shown), 2)
    figure = new_figure(4.8 * columns, 3.4 * rows + 0.5, size)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    draw = {"losses": _draw_losses, "gap": _draw_gap, "frechet": _draw_frechet, "memorised": _draw_memorised}
    for panel, name in zip(axes, shown, strict=False):
        for c, color in enumerate(class_colors(len(labels))):
            draw[name](panel, dataset.isel({"class": c}), color)
        _dress(panel, name, dataset)
    for panel in axes[len(shown) :]:
        panel.axis("off")
    handles = class_handles(labels)
    if "losses" in shown:
        handles += [Line2D([], [], color="0.3", linestyle=style, label=text) for _, text, style in SETS]
        handles += time_handles()
    if "frechet" in shown:
        handles.append(Line2D([], [], color="0.3", linestyle=":", label="two halves of the real images"))
    legend_below(figure, handles)
    return figure


def image_samples(
    result: LabelledResult, *, checkpoint: int = -1, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Samples of a checkpoint, one row per class, each above the training image nearest to it.

    Args:
        result: an evaluated run of a U-Net with samples, or the dataset of its file.
        checkpoint: index of the checkpoint among those evaluated; the last by default.
        class_names: K labels; those of the data set if None.
        size: (width, height) in inches.

    Raises:
        InputError: a result of another kind or without samples, a checkpoint that does not exist, or a bad name or size.
    """
    dataset = dataset_of(result)
    require_variables(dataset, ("grid",), "an evaluated run of a U-Net with samples")
    count = dataset.sizes["checkpoint"]
    if not -count <= checkpoint < count:
        raise InputError(f"checkpoint: {checkpoint}; allowed: {-count} to {count - 1}, an index into the evaluated checkpoints")
    at = dataset.isel(checkpoint=checkpoint)
    labels, grid = labels_of(dataset, class_names), at["grid"].values
    figure = new_figure(CELL * grid.shape[2] + 0.8, 2 * CELL * len(labels) + 0.6, size)
    panels = figure.subplots(len(labels), 1, squeeze=False)[:, 0]
    for panel, label, rows in zip(panels, labels, grid, strict=True):
        pixels = np.concatenate([np.concatenate(list(_framed(row)), axis=1) for row in rows])
        panel.imshow(255 - pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        side = pixels.shape[0] / 2
        panel.set(xticks=[], yticks=[side / 2, 1.5 * side], title=label)
        panel.set_yticklabels(["samples", "nearest"], rotation=90, va="center")
    figure.suptitle(f"step {int(at['checkpoint'])}", fontsize=9)
    return figure


def _dress(panel: Axes, name: str, dataset: xr.Dataset) -> None:
    """Scales and labels of a panel."""
    panel.set(xscale="log", xlabel="training step")
    panel.tick_params(labelbottom=True)
    if name == "losses":
        plain_log_ticks(panel.yaxis)
        panel.set(ylabel="loss per coordinate")
    elif name == "gap":
        panel.set(ylabel="held-out − train loss")
        panel.axhline(0, color="0.6", linewidth=0.8)
    elif name == "frechet":
        if bool((dataset["frechet"] > 0).any()):
            plain_log_ticks(panel.yaxis)
        panel.set(ylabel="Fréchet distance in classifier features")
        if not np.isfinite(dataset["frechet"]).any():
            panel.text(0.5, 0.5, "too few samples of a class", transform=panel.transAxes, ha="center")
    else:
        panel.set(ylim=(-0.03, 1.03), ylabel="memorised fraction of samples")


def _draw_losses(panel: Axes, at: xr.Dataset, color: Color) -> None:
    """Held-out and train loss of one class after the first step, with its times."""
    steps = at["step"].values
    for name, _, style in SETS:
        panel.plot(steps[1:], at["mean_loss"].sel(set=name).values[1:], style, color=color)
    for time, marker in TIME_MARKERS.items():
        mark_time(panel, float(at["time"].sel(reading=time)), steps[1:], at["mean_loss"].sel(set="held_out").values[1:], marker, color)


def _draw_gap(panel: Axes, at: xr.Dataset, color: Color) -> None:
    panel.plot(at["step"].values[1:], at["gap"].values[1:], "-", color=color)


def _draw_frechet(panel: Axes, at: xr.Dataset, color: Color) -> None:
    """Fréchet distance of one class, and that between halves of the real images."""
    _line(panel, at["checkpoint"].values, at["frechet"].values, color, "-")
    _line(panel, at["checkpoint"].values, at["floor"].values, color, ":")


def _draw_memorised(panel: Axes, at: xr.Dataset, color: Color) -> None:
    """Memorised fraction of one class with its interval."""
    _line(panel, at["checkpoint"].values, at["memorised"].values, color, "-")
    panel.fill_between(at["checkpoint"].values, at["low"].values, at["high"].values, color=color, alpha=0.2, linewidth=0)


def _line(panel: Axes, steps: np.ndarray, values: np.ndarray, color: Color, style: str) -> None:
    finite = np.isfinite(values)
    panel.plot(steps[finite], values[finite], style, color=color, marker="o" if style == "-" else "", markersize=3)


def _framed(images: np.ndarray) -> np.ndarray:
    """Images with one white pixel around each (grey levels are inverted for printing, so white is 0 here)."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1)))
