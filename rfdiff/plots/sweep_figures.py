"""Figures of a collected sweep: class-wise times along an axis, learning curves at values of it; theory as lines, networks as points."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from rfdiff.errors import InputError
from rfdiff.plots.curve_figures import class_colors
from rfdiff.plots.time_figures import SYMBOLS, axis_label

ROWS = {"tau_gen": f"${SYMBOLS['tau_gen']}$", "tau_mem": f"${SYMBOLS['tau_mem']}$", "best_test_loss": "lowest test loss"}
MOST_COLUMNS, MOST_PANELS = 3, 6
POINTS = ("o", "s", "D", "^", "v", "P", "X", "*")  # one for each solver and dimension
FEW_TICKS = 6
MOST_MARKS = 30  # of a curve


def plot_sweep_times(dataset: Any, axis: str) -> Figure:
    """τ_gen, τ_mem and the lowest test loss of each class along one axis of a sweep.

    Args:
        dataset: a collected sweep (`rfdiff.sweep.collect`): axes of the attribute `axes`, `theory_class_time`, `class_time`.
        axis: name of the axis.

    Returns:
        A figure with a row for each quantity; columns are values of the first other axis (at most three), all further axes stand at
        their middle value. Bars are ± one standard error over seeds.

    Raises:
        InputError: no such axis.
    """
    others = _others(dataset, axis)
    columns = _spread(dataset.sizes[others[0]], MOST_COLUMNS) if others else [0]
    figure, panels = _panels(len(ROWS), len(columns))
    for j, column in enumerate(columns):
        here = _fixed(dataset, others, column)
        for i, (quantity, label) in enumerate(ROWS.items()):
            panel = panels[i][j]
            _draw_times(panel, here, axis, quantity)
            if j == 0:
                panel.set_ylabel(label)
            if quantity != "best_test_loss" and any(np.any(np.asarray(line.get_ydata()) > 0) for line in panel.lines):
                panel.set_yscale("log", subs=(2, 3, 5))
                for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
                    which(FuncFormatter(lambda value, _: f"{value:g}"))
            _dress(panel, dataset[axis], show_label=i == len(ROWS) - 1)
        panels[0][j].set_title(_title(here, others), fontsize=9)
    figure.legend(handles=_handles(dataset, with_train=False), loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_sweep_curves(dataset: Any, axis: str) -> Figure:
    """Train and test loss of each class against training time, at up to six values of one axis of a sweep.

    Args:
        dataset: a collected sweep (`rfdiff.sweep.collect`); of its networks those of the first solver in the largest dimension.
        axis: name of the axis; the others stand at their middle value.

    Raises:
        InputError: no such axis.
    """
    others = _others(dataset, axis)
    here = _fixed(dataset, others, None)
    places = _spread(dataset.sizes[axis], MOST_PANELS)
    columns = min(len(places), MOST_COLUMNS)
    figure, panels = _panels(-(-len(places) // columns), columns)
    for n, panel in enumerate(panels.flat):
        if n >= len(places):
            panel.set_visible(False)
            continue
        _draw_losses(panel, here.isel({axis: places[n]}))
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(_value_text(dataset[axis], places[n]), fontsize=9)
        if n % columns == 0:
            panel.set_ylabel("loss per coordinate")
        if n + columns >= len(places):
            panel.set_xlabel(r"training time $\tau$")
    if others:
        figure.suptitle(_title(here, others), fontsize=9)
    handles = _handles(dataset, with_train=True)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_times(panel: Axes, here: Any, axis: str, quantity: str) -> None:
    order = np.argsort(here[axis].values)
    x = here[axis].values[order].astype(float)
    for c, color in enumerate(class_colors(here.sizes["class"])):
        pick = {"quantity": quantity, "class": c}
        if "theory_class_time" in here:
            y = _finite(here.theory_class_time.sel(pick).values[order])
            panel.plot(x, y, color=color, linewidth=1.6, marker="." if len(x) == 1 else None)
        for marker, (solver, d) in zip(POINTS, _series(here), strict=False):
            values, errors = (here[name].sel(pick).sel(solver=solver, d=d).values[order] for name in ("class_time", "class_time_stderr"))
            style: dict[str, Any] = {"color": color, "markersize": 4.5, "markerfacecolor": "white", "elinewidth": 0.9}
            panel.errorbar(x, _finite(values), yerr=np.nan_to_num(errors), fmt=marker, **style)


def _draw_losses(panel: Axes, here: Any) -> None:
    tau = here.tau.values
    inner = np.isfinite(tau) & (tau > 0)
    for c, color in enumerate(class_colors(here.sizes["class"])):
        for name, style, marker, face in (("test_loss", "-", "o", color), ("train_loss", "--", "s", "white")):
            if f"theory_{name}" in here:
                panel.plot(tau[inner], here[f"theory_{name}"].values[inner, c], style, color=color, linewidth=1.4, zorder=3)
            if name in here:
                shown = np.flatnonzero(inner)[:: max(1, inner.sum() // MOST_MARKS)]
                part = here[name].isel(solver=0, d=int(np.argmax(here.d.values)), time=shown)
                error = here[f"{name}_stderr"].isel(solver=0, d=int(np.argmax(here.d.values)), time=shown)
                options: dict[str, Any] = {"color": color, "markersize": 3.2, "markerfacecolor": face, "elinewidth": 0.8, "alpha": 0.85}
                panel.errorbar(tau[shown], part.values[:, c], yerr=np.nan_to_num(error.values[:, c]), fmt=marker, **options)


def _others(dataset: Any, axis: str) -> list[str]:
    names = str(dataset.attrs["axes"]).split(", ")
    if axis not in names:
        raise InputError(f"axis: {axis!r}; allowed: {', '.join(names)}")
    return [name for name in names if name != axis]


def _fixed(dataset: Any, others: Sequence[str], column: int | None) -> Any:
    """The dataset with all axes but one at a value: the first other axis at `column` (None: its middle), further ones at their middle."""
    places = {name: dataset.sizes[name] // 2 for name in others}
    if others and column is not None:
        places[others[0]] = column
    return dataset.isel(places)


def _spread(size: int, most: int) -> list[int]:
    """At most so many places, evenly over an axis, with both ends."""
    return sorted({round(place) for place in np.linspace(0, size - 1, min(size, most))})


def _panels(rows: int, columns: int) -> tuple[Figure, Any]:
    figure = Figure(figsize=(max(3.0 * columns, 5.0) + 0.8, 2.2 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row")


def _dress(panel: Axes, axis: Any, show_label: bool) -> None:
    """Scale and ticks of an axis of the sweep: its own values where they are few."""
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
        panel.set_xlabel(axis_label(str(axis.name)))


def _title(here: Any, others: Sequence[str]) -> str:
    return ", ".join(_value_text(here[name], None) for name in others)


def _value_text(axis: Any, place: int | None) -> str:
    value = float(axis.values if place is None else axis.values[place])
    return f"{axis_label(str(axis.name))} = {value:.4g}"


def _finite(values: Any) -> np.ndarray:
    """Times that are never reached, or do not exist, leave a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _series(dataset: Any) -> list[tuple[str, int]]:
    if "class_time" not in dataset:
        return []
    return [(str(solver), int(d)) for solver in dataset.solver.values for d in dataset.d.values]


def _handles(dataset: Any, with_train: bool) -> list[Any]:
    colors = class_colors(dataset.sizes["class"])
    handles: list[Any] = [Line2D([], [], color=color, linewidth=2, label=f"class {c}") for c, color in enumerate(colors)]
    simulated = _series(dataset)
    if with_train:
        largest = [pair for pair in simulated if pair[1] == max(d for _, d in simulated)][:1]
        mark: dict[str, Any] = {"markersize": 4}
        for name, style, marker, face in (("test loss", "-", "o", "0.3"), ("train loss", "--", "s", "white")):
            points: dict[str, Any] = {"marker": marker, "markerfacecolor": face} if largest else {}
            line: Any = style if "theory_test_loss" in dataset else ""
            handles.append(Line2D([], [], color="0.3", linestyle=line, label=name, **mark, **points))
        handles += [Line2D([], [], linestyle="", label=f"(points: {solver}, d = {d})") for solver, d in largest]
        return handles
    if "theory_class_time" in dataset:
        handles.append(Line2D([], [], color="0.3", label="theory"))
    for marker, (solver, d) in zip(POINTS, simulated, strict=False):
        handles.append(Line2D([], [], color="0.3", linestyle="", marker=marker, markerfacecolor="white", label=f"{solver}, d = {d}"))
    return handles
