"""Figure of a calibration: losses of a real training against its steps, over the theory's curves in the same units."""

from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D

from rfdiff.plots.style import (
    LINE_STYLES,
    MARKERS,
    TIME_MARKERS,
    TIME_SYMBOLS,
    LabelledResult,
    NotebookFigure,
    class_colors,
    class_labels,
    dataset_of,
    legend_below,
    new_figure,
    require_variables,
)

NEEDED = ("steps_per_tau", "train_curve", "held_out_curve", "member", "steps")
CURVES = {"train": "train_loss", "held_out": "test_loss"}
COLUMNS = 3


def calibration(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Losses of a training against its steps, one panel a class: points as recorded, lines the theory's with the class's offset and scale.

    Args:
        result: the dataset of a calibration.nc.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Returns:
        A figure; triangles and diamonds mark τ_gen and τ_mem on the held-out curve, open where the training has not come there.

    Raises:
        InputError: not a calibration, or a bad name or size.
    """
    data = dataset_of(result)
    require_variables(data, NEEDED, "a calibration")
    there = np.unique(data["member"].values)
    labels, colors = class_labels(data.sizes["class"], class_names), class_colors(data.sizes["class"])
    columns = min(COLUMNS, there.size)
    lines = -(-there.size // columns)
    figure = new_figure(3.9 * columns + 0.6, 3.2 * lines + 0.7, size)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    steps = data["curve_step"].values
    for panel, c in zip(panels, there, strict=False):
        rows = data["member"].values == c
        for name, curve in CURVES.items():
            theory = data[f"{name}_curve"].values[:, c]
            panel.plot(steps, theory, LINE_STYLES[curve], color=colors[c], linewidth=1.4)
            panel.plot(
                data["step"].values[rows], data[name].values[rows], MARKERS[curve], color=colors[c], markersize=4, markerfacecolor="none"
            )  # fmt: skip
        for time, marker in TIME_MARKERS.items():
            at = list(data["quantity"].values).index(time)
            step, reached = float(data["steps"].values[at, c]), bool(data["reached"].values[at, c])
            if np.isfinite(step) and steps[0] <= step <= steps[-1]:
                height = float(np.interp(np.log(step), np.log(steps), data["held_out_curve"].values[:, c]))
                panel.plot(step, height, marker, color=colors[c] if reached else "white", markeredgecolor="black", markersize=8)
        panel.set(xscale="log", title=labels[c])
    for panel in panels[there.size :]:
        panel.set_visible(False)
    for panel in panels[: there.size][-columns:]:
        panel.set_xlabel("training step")
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in panels[::columns]:
        panel.set_ylabel("loss")
    words = {name: name.replace("_", "-") for name in CURVES}
    handles = [
        Line2D([], [], color="0.4", linestyle="", marker=MARKERS[curve], markerfacecolor="none", label=words[name])
        for name, curve in CURVES.items()
    ]
    handles += [Line2D([], [], color="0.4", linestyle=LINE_STYLES[curve], label=f"theory, {words[name]}") for name, curve in CURVES.items()]
    handles += [
        Line2D([], [], linestyle="", marker=marker, markeredgecolor="black", color="0.6", label=f"${TIME_SYMBOLS[time]}$")
        for time, marker in TIME_MARKERS.items()
    ]
    legend_below(figure, handles, columns=6)
    return figure
