"""Figures of a U-Net's run: class curves against training steps, and samples beside the training images nearest to them."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfdiff.plots.curve_figures import class_colors


def plot_image_run(dataset: xr.Dataset) -> Figure:
    """Losses, gap, quality and memorised fraction of each class against training steps.

    Args:
        dataset: of `rfdiff.images.readout.read_out`.

    Returns:
        A figure of four panels (two where nothing was sampled). Triangles mark τ_gen, diamonds τ_mem, on the held-out loss; dotted lines
        are the Fréchet distance between halves of the real test images; bands are 95 % bootstrap intervals.
    """
    sampled = "frechet" in dataset
    figure = Figure(figsize=(9.6, 7.2 if sampled else 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2 if sampled else 1, 2, sharex=True).ravel()
    names, steps = [str(name) for name in dataset["class"].values], dataset["step"].values
    colors = class_colors(len(names))
    for k, color in enumerate(colors):
        at = dataset.isel({"class": k})
        train, test = (at["mean_loss"].sel(set=name).values for name in ("train", "held_out"))
        panels[0].plot(steps[1:], test[1:], "-", color=color)
        panels[0].plot(steps[1:], train[1:], "--", color=color)
        for reading, marker in (("tau_gen", "^"), ("tau_mem", "D")):
            place = float(at["time"].sel(reading=reading))
            if np.isfinite(place) and place > 0:
                panels[0].plot(place, np.interp(place, steps, test), marker, color=color, markersize=7, markeredgecolor="black")
        panels[1].plot(steps[1:], at["gap"].values[1:], "-", color=color)
        if sampled:
            _draw_samples(panels[2:], at, color)
    panels[0].set(yscale="log", ylabel="loss per coordinate")
    panels[1].set(ylabel="held-out − train loss")
    panels[1].axhline(0, color="0.6", linewidth=0.8)
    if sampled:
        panels[2].set(yscale="log" if bool((dataset["frechet"] > 0).any()) else "linear", ylabel="Fréchet distance in classifier features")
        if not np.isfinite(dataset["frechet"]).any():
            panels[2].text(0.5, 0.5, "too few samples of a class", transform=panels[2].transAxes, ha="center")
        panels[3].set(ylim=(-0.03, 1.03), ylabel="memorised fraction of samples")
    for panel in panels:
        panel.set(xscale="log", xlabel="training step")
    handles: list[Any] = [Line2D([], [], color=color, label=name) for name, color in zip(names, colors, strict=True)]
    styles: Any = (("-", "held out"), ("--", "train"))
    handles += [Line2D([], [], color="0.3", linestyle=style, label=text) for style, text in styles]
    marks = (("^", r"$\tau_{gen}$"), ("D", r"$\tau_{mem}$"))
    handles += [Line2D([], [], color="0.3", linestyle="", marker=marker, label=text) for marker, text in marks]
    if sampled:
        handles.append(Line2D([], [], color="0.3", linestyle=":", label="two halves of the real images"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def plot_image_samples(dataset: xr.Dataset, checkpoint: int = -1) -> Figure:
    """Samples of a checkpoint, a row a class, each above the training image nearest to it.

    Args:
        dataset: of `rfdiff.images.readout.read_out`, with samples.
        checkpoint: which of its checkpoints.
    """
    at = dataset.isel(checkpoint=checkpoint)
    names, grid = [str(name) for name in at["class"].values], at["grid"].values
    figure = Figure(figsize=(0.9 * grid.shape[2] + 0.8, 1.9 * len(names) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    for panel, name, rows in zip(panels, names, grid, strict=True):
        pixels = np.concatenate([np.concatenate(list(_framed(row)), axis=1) for row in rows])
        panel.imshow(255 - pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        side = pixels.shape[0] / 2
        panel.set(xticks=[], yticks=[side / 2, 1.5 * side], title=name)
        panel.set_yticklabels(["samples", "nearest"], rotation=90, va="center")
    figure.suptitle(f"step {int(at['checkpoint'])}", fontsize=9)
    return figure


def _framed(images: np.ndarray) -> np.ndarray:
    """Images with one white pixel around each (white prints black on the inverted grey scale of the figure, so it is 0 here)."""
    return np.pad(images, ((0, 0), (1, 1), (1, 1)))


def _draw_samples(panels: Any, at: xr.Dataset, color: Any) -> None:
    """Fréchet distance with its floor, and memorised fraction with its interval, of one class."""
    steps = at["checkpoint"].values
    quality, copies = (panels[0], panels[1])
    _line(quality, steps, at["frechet"].values, color, "-")
    _line(quality, steps, at["floor"].values, color, ":")
    _line(copies, steps, at["memorised"].values, color, "-")
    copies.fill_between(steps, at["low"].values, at["high"].values, color=color, alpha=0.2, linewidth=0)


def _line(panel: Axes, steps: np.ndarray, values: np.ndarray, color: Any, style: str) -> None:
    good = np.isfinite(values)
    panel.plot(steps[good], values[good], style, color=color, marker="o" if style == "-" else "", markersize=3)
