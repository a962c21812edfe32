"""Figures of the backward process: the probability to return to a class, and trajectories that separate into classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rfdiff.plots.style import (
    LabelledResult,
    NotebookFigure,
    class_colors,
    class_handles,
    dataset_of,
    labels_of,
    legend_below,
    new_figure,
    require_variables,
)

LINEAR = 4.0  # noise has variance 1: beyond this a coordinate is signal, and is drawn on a logarithmic scale
TICKS = (1, 2, 4, 10, 20, 40, 100, 200, 400, 1000)
GREY: dict[str, Any] = {"color": "0.4"}


def return_probability(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Probability R_c(t) that a sample of class c, noised to t and denoised, is of class c again: closed form, U-turns and clones.

    Args:
        result: a speciation result, or the dataset of its file: `return_probability` (time, class) and `speciation_time` (class); where it
            was measured also `uturn`, `clone` with their errors; `well_time` where it is known.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Returns:
        A figure; time runs from noise (left) to data (right), as the backward process does.

    Raises:
        InputError: a result of another kind, or a bad name or size.
    """
    dataset = dataset_of(result)
    require_variables(dataset, ("return_probability", "speciation_time"), "a result of speciation")
    labels, times = labels_of(dataset, class_names), dataset["time"].values
    figure = new_figure(7.2, 4.8, size)
    panel = figure.subplots()
    for c, color in enumerate(class_colors(len(labels))):
        curve = dataset["return_probability"].values[:, c]
        panel.plot(times, curve, color=color, linewidth=1.6)
        for name, face, marker in (("uturn", color, "o"), ("clone", "white", "s")):
            if name in dataset:
                at = dataset[f"{name}_time" if name == "clone" else "turn_time"].values
                covered = (at >= times.min()) & (at <= times.max())
                share, error = (dataset[variable].values[covered, c] for variable in (name, f"{name}_stderr"))
                style: dict[str, Any] = {"color": color, "markerfacecolor": face, "markersize": 5, "linewidth": 1}
                panel.errorbar(at[covered], share, error, fmt=marker, **style)
        t = float(dataset["speciation_time"].values[c])
        if np.isfinite(t):
            panel.plot([t], [np.interp(t, times, curve)], "*", color=color, markersize=14, markeredgecolor="black", zorder=5)
        if "well_time" in dataset and np.isfinite(dataset["well_time"].values[c]):
            panel.axvline(float(dataset["well_time"].values[c]), color=color, linestyle=":", linewidth=1.2)
    panel.set(xlabel=r"time $t$ of the turn", ylabel=r"return probability $R_c(t)$", ylim=(-0.03, 1.03))
    margin = 0.02 * np.ptp(times)
    panel.set_xlim(times.max() + margin, times.min() - margin)
    legend_below(figure, [*class_handles(labels, linewidth=1.6), *_mark_handles(dataset)], columns=4)
    return figure


def trajectories(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Trajectories of the backward process, from noise (left) to data (right), in the colour of the class in which they end.

    Args:
        result: a speciation result with trajectories, or the dataset of its file: `path` (trajectory, path_time, axis), `path_class` and
            `speciation_time`. There is one panel an axis; beyond ±4 its scale is logarithmic.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Raises:
        InputError: a result of another kind or without trajectories, or a bad name or size.
    """
    dataset = dataset_of(result)
    require_variables(dataset, ("path", "path_class", "speciation_time"), "a result of speciation with trajectories")
    labels, ends = labels_of(dataset, class_names), dataset["path_class"].values.astype(int)
    paths = dataset["path"].transpose("trajectory", "path_time", "axis").values
    times, count = dataset["path_time"].values, dataset.sizes["axis"]
    speciated = dataset["speciation_time"].values
    colors = class_colors(len(labels))
    figure = new_figure(7.2, 1.4 + 3.0 * count, size)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for a, panel in enumerate(panels):
        for path, end in zip(paths[:, :, a], ends, strict=True):
            panel.plot(times, path, color=colors[end], linewidth=0.7, alpha=0.7)
        for t, color in zip(speciated, colors, strict=True):
            if np.isfinite(t):
                panel.axvline(float(t), color=color, linestyle="--", linewidth=1.2)
        _signal_scale(panel, float(np.abs(paths[:, :, a]).max(initial=0)))
        panel.set_ylabel(str(dataset["path"].attrs.get("long_name", "coordinate")) + (f" {a + 1}" if count > 1 else ""))
    panels[-1].set_xlabel(r"diffusion time $t$, from noise to data")
    panels[-1].set_xlim(times.max(), 0)
    handles = class_handles([f"{label} ({np.sum(ends == c)})" for c, label in enumerate(labels)])
    if np.any(np.isfinite(speciated)):
        handles.append(Line2D([], [], linestyle="--", label="speciation time", **GREY))
    legend_below(figure, handles, columns=4)
    return figure


def _signal_scale(panel: Axes, largest: float) -> None:
    """Linear within the noise, logarithmic beyond."""
    if largest > LINEAR:
        panel.set_yscale("symlog", linthresh=LINEAR)
        ticks = [tick for tick in TICKS if 2 <= tick <= largest]
        panel.set_yticks([*[-tick for tick in reversed(ticks)], 0, *ticks], minor=False)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()


def _mark_handles(dataset: xr.Dataset) -> list[Line2D]:
    handles = []
    if "uturn" in dataset:
        handles.append(Line2D([], [], marker="o", linestyle="none", label="U-turns", **GREY))
    if "clone" in dataset:
        handles.append(Line2D([], [], marker="s", markerfacecolor="white", linestyle="none", label="clones", **GREY))
    if np.any(np.isfinite(dataset["speciation_time"].values)):
        handles.append(Line2D([], [], marker="*", markersize=12, linestyle="none", label=r"$R_c = (1 + \pi_c)/2$", **GREY))
    if "well_time" in dataset and np.any(np.isfinite(dataset["well_time"].values)):
        handles.append(Line2D([], [], linestyle=":", label="the well of the class appears", **GREY))
    return handles
