"""Figures of a collected sweep: class-wise times along an axis, learning curves at values of it; theory in lines, networks in points."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from rfdiff.errors import InputError
from rfdiff.plots.style import (
    LINE_STYLES,
    MARKERS,
    TIME_SYMBOLS,
    LabelledResult,
    NotebookFigure,
    chosen_panels,
    class_colors,
    class_handles,
    dataset_of,
    labels_of,
    legend_below,
    new_figure,
    parameter_label,
    plain_log_ticks,
    require_variables,
)

ROWS = {"tau_gen": f"${TIME_SYMBOLS['tau_gen']}$", "tau_mem": f"${TIME_SYMBOLS['tau_mem']}$", "best_test_loss": "lowest test loss"}
MOST_COLUMNS, MOST_PANELS = 3, 6
POINTS = ("o", "s", "D", "^", "v", "P", "X", "*")  # one for each solver and dimension
FEW_TICKS = 6
MOST_MARKS = 30  # of a curve


def sweep_times(
    result: LabelledResult,
    axis: str,
    *,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """τ_gen, τ_mem and the lowest test loss of each class along one axis of a sweep.

    Args:
        result: a collected sweep (`rfdiff.sweep.collect`), or the dataset of its file.
        axis: name of the axis.
        class_names: K labels; "class 0", … if None.
        panels: some of "tau_gen", "tau_mem" and "best_test_loss"; all if None.
        size: (width, height) in inches.

    Returns:
        A figure with a row for each quantity. Its columns are values of the first other axis, at most three; all further axes are at
        their middle value. Error bars are ± one standard error over the networks.

    Raises:
        InputError: a result of another kind, no such axis, or a bad name, panel or size.
    """
    dataset, others = _swept(result, axis)
    labels, rows = labels_of(dataset, class_names), chosen_panels(panels, list(ROWS))
    columns = _spread(dataset.sizes[others[0]], MOST_COLUMNS) if others else [0]
    figure, axes = _panels(len(rows), len(columns), size)
    for j, column in enumerate(columns):
        section = _section(dataset, others, column)
        for i, quantity in enumerate(rows):
            panel = axes[i][j]
            _draw_times(panel, section, axis, quantity)
            if j == 0:
                panel.set_ylabel(ROWS[quantity])
            if quantity != "best_test_loss" and any(np.any(np.asarray(line.get_ydata()) > 0) for line in panel.lines):
                plain_log_ticks(panel.yaxis)
            _dress(panel, dataset[axis], show_label=i == len(rows) - 1)
        axes[0][j].set_title(_title(section, others), fontsize=9)
    legend_below(figure, [*class_handles(labels, linewidth=2), *_source_handles(dataset)], columns=4)
    return figure


def sweep_curves(
    result: LabelledResult, axis: str, *, class_names: Sequence[str] | None = None, size: tuple[float, float] | None = None
) -> NotebookFigure:
    """Train and test loss of each class against training time, at up to six values of one axis of a sweep.

    Args:
        result: a collected sweep (`rfdiff.sweep.collect`), or the dataset of its file. Of its networks those of the first solver in the
            largest dimension are shown.
        axis: name of the axis; the others are at their middle value.
        class_names: K labels; "class 0", … if None.
        size: (width, height) in inches.

    Raises:
        InputError: a result of another kind, no such axis, or a bad name or size.
    """
    dataset, others = _swept(result, axis)
    labels, section = labels_of(dataset, class_names), _section(dataset, others, None)
    indices = _spread(dataset.sizes[axis], MOST_PANELS)
    columns = min(len(indices), MOST_COLUMNS)
    figure, axes = _panels(-(-len(indices) // columns), columns, size)
    for n, panel in enumerate(axes.flat):
        if n >= len(indices):
            panel.set_visible(False)
            continue
        _draw_losses(panel, section.isel({axis: indices[n]}))
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(_value_text(dataset[axis], indices[n]), fontsize=9)
        if n % columns == 0:
            panel.set_ylabel("loss per coordinate")
        if n + columns >= len(indices):
            panel.set_xlabel(r"training time $\tau$")
    if others:
        figure.suptitle(_title(section, others), fontsize=9)
    legend_below(figure, [*class_handles(labels, linewidth=2), *_loss_handles(dataset)], columns=4)
    return figure


def _swept(result: LabelledResult, axis: str) -> tuple[xr.Dataset, list[str]]:
    """The dataset of a sweep, and its axes other than the one that is drawn along."""
    dataset = dataset_of(result)
    require_variables(dataset, ("axes",), "a collected sweep")
    names = str(dataset.attrs["axes"]).split(", ")
    if axis not in names:
        raise InputError(f"axis: {axis!r}; allowed: {', '.join(names)}")
    return dataset, [name for name in names if name != axis]


def _section(dataset: xr.Dataset, others: Sequence[str], column: int | None) -> xr.Dataset:
    """The dataset at one index of the first other axis (None: its middle) and at the middle of all further ones."""
    indices = {name: dataset.sizes[name] // 2 for name in others}
    if others and column is not None:
        indices[others[0]] = column
    return dataset.isel(indices)


def _spread(count: int, most: int) -> list[int]:
    """At most so many indices, evenly over an axis, with both ends."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})


def _panels(rows: int, columns: int, size: tuple[float, float] | None) -> tuple[NotebookFigure, np.ndarray]:
    figure = new_figure(max(3.0 * columns, 5.0) + 0.8, 2.2 * rows + 0.9, size)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def _draw_times(panel: Axes, section: xr.Dataset, axis: str, quantity: str) -> None:
    """One quantity along the axis: theory and networks of every solver and dimension."""
    order = np.argsort(section[axis].values)
    x = section[axis].values[order].astype(float)
    for c, color in enumerate(class_colors(section.sizes["class"])):
        pick = {"quantity": quantity, "class": section["class"].values[c]}
        if "theory_class_time" in section:
            y = _finite(section["theory_class_time"].sel(pick).values[order])
            panel.plot(x, y, color=color, linewidth=1.6, marker="." if len(x) == 1 else None)
        for marker, (solver, d) in zip(POINTS, _series(section), strict=False):
            networks = section.sel(pick).sel(solver=solver, d=d)
            values, errors = (networks[name].values[order] for name in ("class_time", "class_time_stderr"))
            style: dict[str, Any] = {"color": color, "markersize": 4.5, "markerfacecolor": "white", "elinewidth": 0.9}
            panel.errorbar(x, _finite(values), yerr=np.nan_to_num(errors), fmt=marker, **style)


def _draw_losses(panel: Axes, section: xr.Dataset) -> None:
    """Test and train loss of each class at one value of the axis."""
    tau = section["tau"].values
    inner = np.isfinite(tau) & (tau > 0)
    shown = np.flatnonzero(inner)[:: max(1, inner.sum() // MOST_MARKS)]
    largest = {"solver": 0, "d": int(np.argmax(section["d"].values))} if "d" in section.coords else {}
    for c, color in enumerate(class_colors(section.sizes["class"])):
        for name, face in (("test_loss", color), ("train_loss", "white")):
            if f"theory_{name}" in section:
                line = section[f"theory_{name}"].values[inner, c]
                panel.plot(tau[inner], line, LINE_STYLES[name], color=color, linewidth=1.4, zorder=3)
            if name in section:
                mean, error = (section[variable].isel({**largest, "time": shown}).values[:, c] for variable in (name, f"{name}_stderr"))
                style: dict[str, Any] = {"color": color, "markersize": 3.2, "markerfacecolor": face, "elinewidth": 0.8, "alpha": 0.85}
                panel.errorbar(tau[shown], mean, yerr=np.nan_to_num(error), fmt=MARKERS[name], **style)


def _dress(panel: Axes, axis: xr.DataArray, show_label: bool) -> None:
    """Scale and ticks of an axis of the sweep: its values where they are few."""
    values = axis.values.astype(float)
    if axis.attrs.get("spacing") == "log" and np.all(values > 0):
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    if values.size <= FEW_TICKS:
        panel.set_xticks(values, [f"{value:.4g}" for value in values])
        panel.set_xticks([], minor=True)
    elif panel.get_xscale() == "log":
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        panel.xaxis.set_major_locator(MaxNLocator(FEW_TICKS))
    if show_label:
        panel.set_xlabel(parameter_label(str(axis.name)))


def _title(section: xr.Dataset, others: Sequence[str]) -> str:
    return ", ".join(_value_text(section[name], None) for name in others)


def _value_text(axis: xr.DataArray, index: int | None) -> str:
    value = float(axis.values if index is None else axis.values[index])
    return f"{parameter_label(str(axis.name))} = {value:.4g}"


def _finite(values: np.ndarray) -> np.ndarray:
    """Times that are never reached, or do not exist, leave a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _series(dataset: xr.Dataset) -> list[tuple[str, int]]:
    """Solver and dimension of each series of networks."""
    if "class_time" not in dataset:
        return []
    return [(str(solver), int(d)) for solver in dataset["solver"].values for d in dataset["d"].values]


def _source_handles(dataset: xr.Dataset) -> list[Line2D]:
    """Legend entries of theory and of the networks of each solver and dimension."""
    handles = [Line2D([], [], color="0.3", label="theory")] if "theory_class_time" in dataset else []
    points: dict[str, Any] = {"color": "0.3", "linestyle": "", "markerfacecolor": "white"}
    for marker, (solver, d) in zip(POINTS, _series(dataset), strict=False):
        handles.append(Line2D([], [], marker=marker, label=f"{solver}, d = {d}", **points))
    return handles


def _loss_handles(dataset: xr.Dataset) -> list[Line2D]:
    """Legend entries of the two losses, and of the networks that are shown."""
    series = _series(dataset)
    largest = [pair for pair in series if pair[1] == max(d for _, d in series)][:1]
    handles = []
    for name, face in (("test_loss", "0.3"), ("train_loss", "white")):
        marks: dict[str, Any] = {"marker": MARKERS[name], "markerfacecolor": face} if largest else {}
        marks["linestyle"] = LINE_STYLES[name] if f"theory_{name}" in dataset else ""
        handles.append(Line2D([], [], color="0.3", label=name.replace("_", " "), markersize=4, **marks))
    return handles + [Line2D([], [], linestyle="", label=f"(points: {solver}, d = {d})") for solver, d in largest]
