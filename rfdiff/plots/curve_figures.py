"""Figures of learning curves: losses and score error of each class along training, and how far a simulation lies from the theory."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from rfdiff.class_times import ClassTimes
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.labels import Color
from rfdiff.plots.style import (
    LINE_STYLES,
    MARKERS,
    TIME_MARKERS,
    NotebookFigure,
    chosen_panels,
    class_colors,
    class_labels,
    legend_below,
    new_figure,
    plain_log_ticks,
    time_handles,
)
from rfdiff.plots.time_axis import TimeAxis

PANELS = {"losses": ("train_loss", "test_loss"), "score_error": ("score_error",)}
MOST_POINTS = 40  # of a simulated curve
FAR_OUT = 4.0  # deviations beyond this multiple of the threshold are drawn on a scale that is linear near 0 and logarithmic beyond


class Deviations(Protocol):
    """What `agreement` draws of an `rfdiff.Agreement`."""

    @property
    def simulation(self) -> LearningCurves:
        """Networks at dimension d."""
        ...

    @property
    def standardised(self) -> Mapping[str, np.ndarray]:
        """{curve: (T, K)} deviation of the simulation from theory, less finite-size effects, in standard errors."""
        ...

    @property
    def threshold(self) -> float:
        """Largest standardised deviation of an agreeing pair."""
        ...


def curves(
    *results: LearningCurves,
    times: ClassTimes | None = None,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Losses and score error of each class against training time: theory in lines, networks in points with error bars.

    Args:
        results: a prediction, a simulation, or one of each; error bars are ± one standard error over the networks.
        times: τ_gen and τ_mem to mark on the test loss, or None.
        class_names: K labels; "class 0", … if None.
        panels: "losses", "score_error" or both; both if None.
        size: (width, height) in inches.

    Returns:
        A figure; dotted horizontal lines are the losses L_c^* of the exact score.

    Raises:
        InputError: no curves, two predictions, two simulations, other numbers of classes, or a bad name, panel or size.
    """
    theory, simulation = _one_of_each(results)
    reference = results[0] if theory is None else theory
    colors, labels = class_colors(reference.num_classes), class_labels(reference.num_classes, class_names)
    shown = chosen_panels(panels, list(PANELS))
    figure = new_figure(4.8 * len(shown), 4.4, size)
    axis = TimeAxis([result.taus for result in results])
    for panel, kind in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for name in PANELS[kind]:
            if theory is not None:
                _draw_lines(panel, axis, theory, name, colors)
            if simulation is not None:
                _draw_points(panel, axis, simulation, name, colors)
        axis.apply(panel)
        if kind == "losses":
            _dress_losses(panel, axis, reference, times, colors)
        else:
            panel.set_ylabel("score error per coordinate")
            if all(np.all(np.asarray(result.score_error) > 0) for result in results):
                plain_log_ticks(panel.yaxis)
    legend_below(figure, _handles(labels, colors, theory, simulation, times, "losses" in shown))
    return figure


def agreement(
    result: Deviations,
    *,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Deviation of a simulation from the theory, in standard errors, against training time; the finite-size effect is taken away.

    Args:
        result: an `rfdiff.Agreement`.
        class_names: K labels; "class 0", … if None.
        panels: "train_loss", "test_loss" or both; both if None.
        size: (width, height) in inches.

    Returns:
        A figure; theory and simulation agree where all points lie in the grey band.

    Raises:
        InputError: a bad name, panel or size.
    """
    taus, num_classes = result.simulation.taus, result.simulation.num_classes
    colors, labels = class_colors(num_classes), class_labels(num_classes, class_names)
    axis = TimeAxis([taus])
    shown = chosen_panels(panels, list(result.standardised))
    figure = new_figure(4.8 * len(shown), 3.8, size)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    deviations = {name: np.asarray(result.standardised[name]) for name in shown}
    for panel, (name, values) in zip(axes, deviations.items(), strict=True):
        panel.axhspan(-result.threshold, result.threshold, color="0.93", zorder=0)
        for level in (-result.threshold, result.threshold):
            panel.axhline(level, color="0.3", linestyle="--", linewidth=1)
        for c, color in enumerate(colors):
            panel.plot(axis.positions(taus), values[:, c], MARKERS[name], color=color, markersize=3.5)
        panel.set_title(name.replace("_", " "), fontsize=10)
        axis.apply(panel)
    if max(float(np.nanmax(np.abs(values), initial=0)) for values in deviations.values()) > FAR_OUT * result.threshold:
        axes[0].set_yscale("symlog", linthresh=2 * result.threshold, linscale=2)
    axes[0].set_ylabel("simulation − theory, finite size removed\n(standard errors)")
    handles = [Line2D([], [], color=color, marker="o", linestyle="", label=label) for label, color in zip(labels, colors, strict=True)]
    handles.append(Line2D([], [], color="0.3", linestyle="--", label=f"allowed: ±{result.threshold:.3g}"))
    legend_below(figure, handles, columns=4)
    return figure


def mark_time(panel: Axes, tau: float, times: np.ndarray, heights: np.ndarray, marker: str, color: Color) -> None:
    """A marker at time τ on a curve of positive times and heights, interpolated in log τ; none where τ is not positive and finite."""
    if np.isfinite(tau) and tau > 0:
        height = np.interp(np.log(tau), np.log(times), heights)
        panel.plot([tau], [height], marker, color=color, markersize=8, markeredgecolor="black", zorder=5)


def _one_of_each(results: Sequence[LearningCurves]) -> tuple[LearningCurves | None, LearningCurves | None]:
    """The prediction and the simulation among the curves to draw."""
    for result in results:
        if not isinstance(result, LearningCurves):
            raise InputError(f"curves: a {type(result).__name__}; allowed: LearningCurves of theory or simulation")
    sources = [result.source for result in results]
    if not results or len(set(sources)) < len(sources):
        raise InputError(f"curves: {', '.join(sources) or 'none'}; allowed: a prediction, a simulation, or one of each")
    if len({result.num_classes for result in results}) > 1:
        numbers = " and ".join(str(result.num_classes) for result in results)
        raise InputError(f"curves: of {numbers} classes; allowed: curves of one problem")
    by_source = dict(zip(sources, results, strict=True))
    return by_source.get("theory"), by_source.get("simulation")


def _draw_lines(panel: Axes, axis: TimeAxis, result: LearningCurves, name: str, colors: Sequence[Color]) -> None:
    """Theory: a line over the finite times, and a dash at each of τ = 0 and τ = ∞."""
    taus, values = np.asarray(result.taus), np.asarray(getattr(result, name))
    inner = (taus > 0) & np.isfinite(taus)
    for c, color in enumerate(colors):
        panel.plot(taus[inner], values[inner, c], LINE_STYLES.get(name, "-"), color=color, linewidth=1.5, zorder=3)
        for i in np.flatnonzero(~inner):
            panel.plot(axis.positions(taus[i : i + 1]), values[i : i + 1, c], "_", markersize=11, color=color, zorder=3)


def _draw_points(panel: Axes, axis: TimeAxis, result: LearningCurves, name: str, colors: Sequence[Color]) -> None:
    """Networks: points with error bars, thinned evenly where there are many; the last time is always among them."""
    values, errors = np.asarray(getattr(result, name)), np.asarray(getattr(result, f"{name}_stderr"))
    shown = np.unique(np.append(np.arange(0, len(values), max(1, len(values) // MOST_POINTS)), len(values) - 1))
    style: dict[str, Any] = {"markersize": 3.6, "markeredgewidth": 0.9, "elinewidth": 0.9, "alpha": 0.85, "zorder": 2}
    for c, color in enumerate(colors):
        panel.errorbar(
            axis.positions(result.taus)[shown],
            values[shown, c],
            yerr=errors[shown, c],
            fmt=MARKERS.get(name, "o"),
            color=color,
            markerfacecolor="white" if name == "train_loss" else color,
            **style,
        )


def _dress_losses(panel: Axes, axis: TimeAxis, reference: LearningCurves, times: ClassTimes | None, colors: Sequence[Color]) -> None:
    """Losses of the exact score, marks of the times, and the label."""
    panel.set_ylabel("loss per coordinate")
    for level, color in zip(np.asarray(reference.optimal_loss), colors, strict=True):
        panel.axhline(level, color=color, linestyle=":", linewidth=0.9, alpha=0.6, zorder=1)
    if times is not None:
        for time, marker in TIME_MARKERS.items():
            for c, color in enumerate(colors):
                tau = float(np.asarray(getattr(times, time))[c])
                tau = max(tau, axis.zero) if np.isfinite(tau) else tau
                mark_time(panel, tau, axis.positions(reference.taus), np.asarray(reference.test_loss)[:, c], marker, color)


def _handles(
    labels: Sequence[str],
    colors: Sequence[Color],
    theory: LearningCurves | None,
    simulation: LearningCurves | None,
    times: ClassTimes | None,
    with_losses: bool,
) -> list[Any]:
    handles: list[Any] = [Patch(color=color, label=label) for label, color in zip(labels, colors, strict=True)]
    names = ("test_loss", "train_loss") if with_losses else ("test_loss",)
    kinds = {name: f"{name[:-5]}, " if with_losses else "" for name in names}
    if theory is not None:
        handles += [Line2D([], [], color="0.2", linestyle=LINE_STYLES[name], label=f"{kinds[name]}theory") for name in names]
    if simulation is not None:
        dimension = "" if simulation.dimension is None else f", d = {simulation.dimension}"
        for name in names:
            style: dict[str, Any] = {"marker": MARKERS[name], "markerfacecolor": "white" if name == "train_loss" else "0.2"}
            handles.append(Line2D([], [], color="0.2", linestyle="", markersize=5, label=f"{kinds[name]}simulation{dimension}", **style))
    if with_losses:
        handles.append(Line2D([], [], color="0.2", linestyle=":", linewidth=0.9, label="loss of the exact score"))
        handles += time_handles() if times is not None else []
    return handles
