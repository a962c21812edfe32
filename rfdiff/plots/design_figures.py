"""Figure of a design: what one class gains and the others lose along the trade-off front."""

from collections.abc import Sequence

import numpy as np
from matplotlib.lines import Line2D

from rfdiff.plots.style import (
    LabelledResult,
    NotebookFigure,
    class_colors,
    class_labels,
    dataset_of,
    legend_below,
    new_figure,
    require_variables,
)

NEEDED = ("score_error", "front_score_error", "tau")
SETTING_MARKERS = {"unchanged": "o", "weights": "s", "samples": "^", "best": "*"}
SETTING_NAMES = {"unchanged": "unchanged", "weights": "best loss weights", "samples": "more samples", "best": "best of all levers"}


def trade_off(
    result: LabelledResult, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Score errors of the other classes against that of the class that is learned worst, on the front and at the settings of a design.

    Args:
        result: a `design.Proposal`, or the dataset of its file.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Returns:
        A figure; nothing below or left of a line can be reached by the levers of the design. Networks have bars of ± 1 standard error.

    Raises:
        InputError: not a design, or a bad name or size.
    """
    data = dataset_of(result)
    require_variables(data, NEEDED, "a design")
    worst, errors, front = int(data.attrs["worst"]), data["score_error"].values, data["front_score_error"].values
    labels, colors = class_labels(errors.shape[1], class_names), class_colors(errors.shape[1])
    figure = new_figure(5.6, 4.4, size)
    panel = figure.subplots()
    order = np.argsort(front[:, worst])
    for c in (c for c in range(errors.shape[1]) if c != worst):
        panel.plot(front[order, worst], front[order, c], ".-", color=colors[c], linewidth=1.4)
        for i, name in enumerate(data["setting"].values.tolist()):
            # an open ring shows where the setting began, also below another marker
            width, face = (13, "none") if name == "unchanged" else (9, colors[c])
            panel.plot(
                errors[i, worst], errors[i, c], SETTING_MARKERS[name], markersize=width, markerfacecolor=face, markeredgecolor="black"
            )
        if "simulated" in data:
            runs = data["simulated"].values
            mean, stderr = runs.mean(axis=1), runs.std(axis=1, ddof=1) / np.sqrt(runs.shape[1])
            panel.errorbar(
                mean[:, worst], mean[:, c], stderr[:, c], stderr[:, worst], fmt="x", color=colors[c], capsize=2, linewidth=1
            )  # fmt: skip
    panel.set_xlabel(f"score error of {labels[worst]}")
    others = [c for c in range(errors.shape[1]) if c != worst]
    alone = len(others) == 1
    panel.set_ylabel(f"score error of {labels[others[0]]}" if alone else "score error of the other classes")
    handles = [Line2D([], [], color=colors[c], marker=".", label="front" if alone else f"front, {labels[c]}") for c in others]
    handles += [
        Line2D(
            [], [], color="0.5", marker=marker, linestyle="", label=SETTING_NAMES[name],
            markerfacecolor="none" if name == "unchanged" else "0.5",
        )
        for name, marker in SETTING_MARKERS.items()
    ]  # fmt: skip
    if "simulated" in data:
        handles.append(Line2D([], [], color="0.5", marker="x", linestyle="", label=f"networks, d = {data.attrs['dimension']}"))
    legend_below(figure, handles, columns=2)
    return figure
