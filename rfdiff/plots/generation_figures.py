"""Figure of what trained networks generate, class by class along training, with the times of the theory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rfdiff.labels import Color
from rfdiff.plots.style import (
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
    plain_log_ticks,
    require_variables,
)

PANELS = ("fraction", "mean", "variance", "memorised", "score_error")
NEEDED = ("counts", "mean_error", "variance_error", "score_error", "memorised_interval", "tau", "tau_gen", "tau_mem", "theory_score_error")
SCALES: dict[str, str] = {"variance": "log", "score_error": "log"}
REFERENCES: dict[str, Any] = {"empirical score": ":", "exact score": "--"}
TIME_WIDTHS = {"tau_gen": 0.8, "tau_mem": 2.2}
SMALLEST = 1e-6  # a reference below this leaves a logarithmic axis
BEYOND = 3.0  # τ = ∞ is drawn at this many times the last finite τ, τ = 0 at this part of the first
COLUMNS = 3


def generation(
    result: LabelledResult,
    *,
    class_names: Sequence[str] | None = None,
    panels: str | Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Fraction generated, errors of mean and variance, memorised fraction and score error of each class against training time.

    Points are means over networks with their standard errors; for the memorised fraction, bootstrap intervals of 95 %. Horizontal lines
    are the two reference scores, vertical ones theory's τ_gen (thin) and τ_mem (thick), the smooth curve theory's score error.

    Args:
        result: a generation result, or the dataset of its file.
        class_names: K labels; "class 0", … if None.
        panels: some of "fraction", "mean", "variance", "memorised" and "score_error"; all if None.
        size: (width, height) in inches.

    Raises:
        InputError: a result of another kind, or a bad name, panel or size.
    """
    dataset = dataset_of(result)
    require_variables(dataset, (*NEEDED, "samples", "threshold", "t"), "a result of generation")
    labels, shown = labels_of(dataset, class_names), chosen_panels(panels, PANELS)
    columns = min(len(shown), COLUMNS)
    rows = -(-len(shown) // columns)
    figure = new_figure(4.0 * columns, 3.4 * rows, size)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    score_time = int(np.argmin(np.abs(np.log(dataset["time"].values / dataset.attrs["t"]))))
    titles = {
        "fraction": "fraction of the samples",
        "mean": "squared error of the class mean, per coordinate",
        "variance": "variance of the class, generated / exact",
        "memorised": f"memorised fraction (ratio < {dataset.attrs['threshold']:.3g})",
        "score_error": rf"score error at $t$ = {dataset['time'].values[score_time]:.2g}, per coordinate",
    }
    values = {
        "fraction": dataset["counts"].values / dataset.attrs["samples"],
        "mean": dataset["mean_error"].values,
        "variance": 1 + dataset["variance_error"].values,
        "score_error": dataset["score_error"].values[:, :, score_time],
    }
    taus = dataset["tau"].values
    x = _positions(taus[~np.isnan(taus)])
    for panel, name in zip(axes, shown, strict=False):
        scale = SCALES.get(name, "linear")
        for c, color in enumerate(class_colors(len(labels))):
            estimate = _memorised(dataset, c) if name == "memorised" else _mean_and_error(values[name][:, :, c])
            _draw_class(panel, dataset, x, estimate, c, color, scale)
            if name == "score_error":
                _draw_theory(panel, dataset, x, c, color)
        panel.set(xscale="log")
        if scale == "log":
            plain_log_ticks(panel.yaxis)
        panel.set_title(titles[name], fontsize=10)
    lowest = axes[max(0, len(shown) - columns) : len(shown)]
    for panel in lowest:
        panel.set_xlabel(r"training time $\tau$" + (r" (last point: $\tau = \infty$)" if np.isinf(taus).any() else ""))
        panel.tick_params(labelbottom=True)
    for panel in axes[len(shown) :]:
        panel.axis("off")
    legend_below(figure, _handles(labels, "score_error" in shown), columns=4)
    return figure


def _draw_class(
    panel: Axes, dataset: xr.Dataset, x: np.ndarray, estimate: tuple[np.ndarray, np.ndarray], c: int, color: Color, scale: str
) -> None:
    """One class in one panel: networks in points, both reference scores, theory's times."""
    (middle, spread), count = estimate, len(x)
    panel.errorbar(x, middle[:count], spread[:, :count], fmt="o-", color=color, markersize=4, linewidth=1, capsize=2)
    for name, style in REFERENCES.items():
        level = float(middle[list(dataset["source"].values).index(name)])
        if np.isfinite(level) and not (scale == "log" and level < SMALLEST):  # the exact score has an error of 0
            panel.axhline(level, color=color, linestyle=style, linewidth=1, alpha=0.8)
    for time, width in TIME_WIDTHS.items():
        tau = float(dataset[time].values[c])
        if x.min() <= tau <= x.max():
            panel.axvline(tau, color=color, linewidth=width, alpha=0.35)


def _draw_theory(panel: Axes, dataset: xr.Dataset, x: np.ndarray, c: int, color: Color) -> None:
    """Theory's score error of one class, over the finite times of the networks."""
    taus, finite = dataset["theory_tau"].values, dataset["tau"].values
    inside = (taus >= x.min()) & (taus <= finite[np.isfinite(finite)].max(initial=x.min()))
    panel.plot(taus[inside], dataset["theory_score_error"].values[inside, c], color=color, linewidth=2.2, alpha=0.4)


def _handles(labels: Sequence[str], with_theory: bool) -> list[Line2D]:
    grey: dict[str, Any] = {"color": "0.4"}
    handles = [
        *class_handles(labels, marker="o"),
        *[Line2D([], [], linestyle=style, label=name, **grey) for name, style in REFERENCES.items()],
        Line2D([], [], linewidth=TIME_WIDTHS["tau_gen"], label=f"theory ${TIME_SYMBOLS['tau_gen']}$ (thin, vertical)", **grey),
        Line2D([], [], linewidth=TIME_WIDTHS["tau_mem"], alpha=0.5, label=f"theory ${TIME_SYMBOLS['tau_mem']}$ (thick, vertical)", **grey),
    ]
    return handles + [Line2D([], [], linewidth=2.2, alpha=0.5, label="theory's score error (curve)", **grey)] * with_theory


def _positions(taus: np.ndarray) -> np.ndarray:
    """Positions on a logarithmic axis: τ = 0 below and τ = ∞ beyond the others."""
    inner = taus[np.isfinite(taus) & (taus > 0)]
    inner = inner if inner.size else np.ones(1)
    return np.where(np.isinf(taus), inner.max() * BEYOND, np.where(taus == 0, inner.min() / BEYOND, taus))


def _memorised(dataset: xr.Dataset, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Memorised fraction (N sources,) of a class and its distances (2, N) to the ends of the interval."""
    share, low, high = np.moveaxis(dataset["memorised_interval"].values[:, c], -1, 0)
    return share, np.nan_to_num(np.stack([share - low, high - share])).clip(0)


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over networks (N sources,) of values (networks, N), and its standard error below and above (2, N)."""
    valid = np.ma.masked_invalid(values)
    count = np.maximum(valid.count(axis=0), 1)
    error = valid.std(axis=0, ddof=1 if len(valid) > 1 else 0).filled(0) / np.sqrt(count)
    middle = valid.mean(axis=0).filled(np.nan)
    return middle, np.stack([np.minimum(error, 0.9 * np.abs(np.nan_to_num(middle))), error])
