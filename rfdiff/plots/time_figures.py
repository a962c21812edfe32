"""Figure of the class-wise times of one problem, estimated from its curves and from its spectrum."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from rfdiff.class_times import ClassTimes
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.labels import Color
from rfdiff.plots.curve_figures import mark_time
from rfdiff.plots.style import (
    LINE_STYLES,
    TIME_MARKERS,
    NotebookFigure,
    chosen_panels,
    class_colors,
    class_handles,
    class_labels,
    legend_below,
    new_figure,
    time_handles,
)
from rfdiff.theory_results import BulkTimes

PANELS = ("curves", "spectrum")


def times(
    curves: LearningCurves,
    spectrum: Spectrum,
    from_curves: ClassTimes,
    from_spectrum: BulkTimes,
    *,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Two estimates of each class's τ_gen and τ_mem: from the losses (above), from the relaxation times of the modes (below).

    The lower panel shows the class-resolved density of each bulk over log10 of the mode's time 1/(κλ), scaled to area 1, so that the
    estimate is its mean on this axis.

    Args:
        curves: closed-form learning curves.
        spectrum: closed-form spectrum of the same problem.
        from_curves: times read from the curves.
        from_spectrum: times read from the bulks of the spectrum.
        class_names: K labels; "class 0", … if None.
        panels: "curves", "spectrum" or both; both if None.
        size: (width, height) in inches.

    Returns:
        A figure; triangles are τ_gen, diamonds τ_mem.

    Raises:
        InputError: a bad name, panel or size.
    """
    labels = class_labels(curves.num_classes, class_names)
    shown = chosen_panels(panels, PANELS)
    figure = new_figure(7.6, 3.1 * len(shown), size)
    axes = dict(zip(shown, figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0], strict=True))
    if "curves" in axes:
        _draw_losses(axes["curves"], curves, from_curves)
    if "spectrum" in axes:
        _draw_modes(axes["spectrum"], float(curves.kappa), spectrum, from_spectrum, curves.num_classes)
    for panel in axes.values():
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    meanings = {"curves": r"training time $\tau$", "spectrum": r"relaxation time $1/(\kappa\lambda)$ of a mode"}
    below = " (below)" * (len(shown) == 2)
    axes[shown[-1]].set_xlabel(" (above), ".join(meanings[name] for name in shown) + below)
    handles = class_handles(labels, linewidth=1.6)
    if "curves" in axes:
        names = ("test_loss", "train_loss")
        handles += [Line2D([], [], color="0.3", linestyle=LINE_STYLES[name], label=name.replace("_", " ")) for name in names]
    legend_below(figure, handles + time_handles(markersize=8, linestyle=":"), columns=6)
    return figure


def _draw_losses(panel: Axes, curves: LearningCurves, estimates: ClassTimes) -> None:
    taus = np.asarray(curves.taus, np.float64)
    finite = np.isfinite(taus) & (taus > 0)
    for c, color in enumerate(class_colors(curves.num_classes)):
        for name in ("test_loss", "train_loss"):
            panel.plot(taus[finite], np.asarray(getattr(curves, name))[finite, c], LINE_STYLES[name], color=color, linewidth=1.6)
        _mark_estimates(panel, taus[finite], np.asarray(curves.test_loss, np.float64)[finite, c], estimates, c, color)
    panel.set_ylabel("loss per coordinate")
    panel.set_title("from the curves", fontsize=10)


def _draw_modes(panel: Axes, kappa: float, spectrum: Spectrum, bulks: BulkTimes, num_classes: int) -> None:
    mode_times, densities = mode_densities(kappa, spectrum, bulks)
    intervals, separated = np.asarray(spectrum.bulk), bool(bulks.separated)
    for c, color in enumerate(class_colors(num_classes)):
        for interval in np.unique(intervals):
            inside = intervals == interval
            panel.plot(mode_times[inside], densities[inside, c], color=color, linewidth=1.6)
            panel.fill_between(mode_times[inside], densities[inside, c], color=color, alpha=0.12, linewidth=0)
        _mark_estimates(panel, mode_times[::-1], densities[::-1, c], bulks, c, color)
    panel.set_ylabel(f"density of the modes of a class\nin {'each bulk' if separated else 'all bulks'}, per decade")
    panel.set_title("from the spectrum" + ("" if separated else ": the bulks overlap, so it gives no times"), fontsize=10)
    panel.set_ylim(bottom=0)


def mode_densities(kappa: float, spectrum: Spectrum, bulks: BulkTimes) -> tuple[np.ndarray, np.ndarray]:
    """Relaxation times (G,) of the modes, and class-resolved densities (G, K) over log10 of them, of area 1 in each separated bulk."""
    eigenvalues = np.asarray(spectrum.eigenvalues, np.float64)
    density = np.nan_to_num(np.asarray(spectrum.class_density)) * eigenvalues[:, None]
    intervals = np.asarray(spectrum.bulk)
    upper = eigenvalues >= np.asarray(bulks.edges)[0, 0] if bulks.separated else np.ones(eigenvalues.shape, bool)
    for bulk in (upper, ~upper):
        inside = [bulk & (intervals == interval) for interval in np.unique(intervals[bulk])]
        areas = sum(np.trapezoid(density[mask], np.log10(eigenvalues[mask]), axis=0) for mask in inside)
        density[bulk] /= np.where(np.asarray(areas) > 0, areas, 1)
    return 1 / (kappa * eigenvalues), density


def _mark_estimates(
    panel: Axes, positions: np.ndarray, heights: np.ndarray, estimates: ClassTimes | BulkTimes, c: int, color: Color
) -> None:
    """τ_gen and τ_mem of class c on its line, with a thin line down to the axis."""
    for time, marker in TIME_MARKERS.items():
        tau = float(np.asarray(getattr(estimates, time))[c])
        mark_time(panel, tau, positions, heights, marker, color)
        if np.isfinite(tau) and tau > 0:
            panel.axvline(tau, color=color, linestyle=":", linewidth=1.1)
