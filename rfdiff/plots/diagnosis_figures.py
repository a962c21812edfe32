"""Figures of a diagnosis: losses of each class, theory and networks, and its times against the diffusion time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rfdiff.plots.style import (
    LINE_STYLES,
    MARKERS,
    TIME_MARKERS,
    TIME_SYMBOLS,
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

NEEDED = ("time", "window", "test_loss", "tau")
CURVES = {"train_loss": "train", "test_loss": "held-out"}
MOST_POINTS = 20  # of the networks' curves
COLUMNS = 3
BEYOND = 5.0  # factor beyond the latest time to which an endless window is drawn


def diagnosis_losses(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None, columns: int = COLUMNS
) -> NotebookFigure:
    """Train and held-out loss of each class against training time at the main diffusion time: theory in lines, networks in points.

    Args:
        result: the dataset of a diagnosis.nc.
        class_names: K labels; those of the dataset if None.
        size: (width, height) in inches.
        columns: panels in a row, at most.

    Returns:
        A figure of one panel a class; the grey band is where the class has made most of its best descent.

    Raises:
        InputError: not a diagnosis, or a bad name or size.
    """
    data = dataset_of(result)
    require_variables(data, NEEDED, "a diagnosis")
    labels = labels_of(data, class_names)
    at, colors = data.isel(t=int(data.attrs["main"])), class_colors(len(labels))
    columns = min(columns, len(labels))
    lines = -(-len(labels) // columns)
    figure = new_figure(3.6 * columns + 0.4, 2.7 * lines + 0.7, size)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    taus = at["tau"].values
    finite = np.flatnonzero(np.isfinite(taus))
    some = finite[:: max(1, finite.size // MOST_POINTS)]
    for c, (panel, label) in enumerate(zip(panels, labels, strict=False)):
        first, last = at["window"].transpose("class", "edge").values[c]
        if np.isfinite(first):
            panel.axvspan(first, min(last, taus[finite[-1]]), color="0.92", zorder=0)
        for name in CURVES:
            panel.plot(taus[finite], at[name].values[finite, c], LINE_STYLES[name], color=colors[c], linewidth=1.4)
            if f"network_{name}" in at:
                runs = at[f"network_{name}"].transpose("step", "seed", "class").values[some, :, c]
                error = runs.std(axis=1, ddof=1) / np.sqrt(runs.shape[1])
                panel.errorbar(taus[some], runs.mean(axis=1), error, fmt=MARKERS[name], color=colors[c], markersize=3.5, elinewidth=0.8)
        panel.set(xscale="log", title=label)
    for panel in panels[len(labels) :]:
        panel.set_visible(False)
    for panel in panels[: len(labels)][-columns:]:
        panel.set_xlabel(r"training time $\tau$")
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in panels[::columns]:
        panel.set_ylabel("loss per coordinate")
    grey = "0.4"
    handles = [Line2D([], [], color=grey, linestyle=LINE_STYLES[name], label=f"theory, {word}") for name, word in CURVES.items()]
    if "network_test_loss" in at:
        handles += [
            Line2D([], [], color=grey, linestyle="", marker=MARKERS[name], label=f"networks, {word}") for name, word in CURVES.items()
        ]
    legend_below(figure, [*handles, Patch(color="0.92", label="good for the class")], columns=5)
    return figure


def diagnosis_times(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """τ_gen and τ_mem of each class against the diffusion time: theory in lines, networks in points with error bars.

    Args:
        result: the dataset of a diagnosis.nc.
        class_names: K labels; those of the dataset if None.
        size: (width, height) in inches.

    Returns:
        A figure; the grey band holds the training times that are good for every class.

    Raises:
        InputError: not a diagnosis, or a bad name or size.
    """
    data = dataset_of(result)
    require_variables(data, NEEDED, "a diagnosis")
    labels = labels_of(data, class_names)
    colors, t = class_colors(len(labels)), data["t"].values
    figure = new_figure(6.4, 4.2, size)
    panel = figure.subplots()
    windows = data["window"].transpose("t", "class", "edge").values
    drawn = data["time"].sel(quantity=list(TIME_MARKERS)).values
    end = BEYOND * np.max(drawn, initial=1.0, where=np.isfinite(drawn))
    first, last = windows[:, :, 0].max(axis=1), np.minimum(windows[:, :, 1].min(axis=1), end)
    panel.fill_between(t, first, last, where=first < last, color="0.9", zorder=0)
    for c, color in enumerate(colors):
        for name, marker in TIME_MARKERS.items():
            style = "-" if name == "tau_gen" else "--"
            values = data["time"].sel(quantity=name).transpose("t", "class").values[:, c]
            panel.plot(t, np.where(np.isfinite(values), values, np.nan), style, color=color, linewidth=1.4)
            if "network_time" in data:
                seen = data["network_time"].sel(quantity=name).transpose("t", "class").values[:, c]
                error = data["network_time_stderr"].sel(quantity=name).transpose("t", "class").values[:, c]
                there = np.isfinite(seen)
                panel.errorbar(
                    t[there], seen[there], np.nan_to_num(error[there]), fmt=marker, color=color, markersize=5, elinewidth=0.9
                )  # fmt: skip
    panel.set(xscale="log", yscale="log", xlabel="diffusion time $t$", ylabel=r"training time $\tau$")
    handles = [*class_handles(labels), Line2D([], [], color="0.4", label=f"theory, ${TIME_SYMBOLS['tau_gen']}$")]
    handles.append(Line2D([], [], color="0.4", linestyle="--", label=f"theory, ${TIME_SYMBOLS['tau_mem']}$"))
    if "network_time" in data:
        handles += [
            Line2D([], [], color="0.4", linestyle="", marker=marker, label=f"networks, ${TIME_SYMBOLS[name]}$")
            for name, marker in TIME_MARKERS.items()
        ]
    legend_below(figure, [*handles, Patch(color="0.9", label="good for every class")], columns=5)
    return figure
