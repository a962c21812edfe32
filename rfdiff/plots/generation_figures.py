"""Figure of what networks generate along their training, class by class, with theory's times."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfdiff.errors import InputError
from rfdiff.plots.curve_figures import class_colors

REFERENCES: dict[str, Any] = {"empirical score": ":", "exact score": "--"}
SMALLEST = 1e-6  # of a reference line on a logarithmic axis
BEYOND = 3.0  # τ = inf is drawn at this many times the last finite τ


def plot_generation(dataset: xr.Dataset, class_names: tuple[str, ...] | None = None) -> Figure:
    """Fraction generated, errors of mean and variance, memorised fraction and score error of each class against training time.

    Points are means over networks with standard errors, or bootstrap intervals of 95 % (memorised fraction). Horizontal lines are the two
    reference scores, vertical ones theory's τ_gen (thin) and τ_mem (thick), the smooth line theory's score error, at the same t as the
    points.

    Args:
        dataset: of the command generate.
        class_names: K labels; "class 0", … if None.

    Raises:
        InputError: a wrong number of names.
    """
    k = dataset.sizes["class"]
    names = class_names or tuple(f"class {c}" for c in range(k))
    if len(names) != k:
        raise InputError(f"class_names: {len(names)} names; allowed: {k}, one a class")
    figure = Figure(figsize=(12.0, 6.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharex=True).ravel()
    place = int(np.argmin(np.abs(np.log(dataset.time.values / dataset.attrs["t"]))))
    quantities = [
        ("fraction of the samples", dataset.counts.values / dataset.attrs["samples"], "linear"),
        ("squared error of the class mean, per coordinate", dataset.mean_error.values, "linear"),
        ("variance of the class, generated / exact", 1 + dataset.variance_error.values, "log"),
        (f"memorised fraction (ratio < {dataset.attrs['threshold']:.3g})", None, "linear"),
        (rf"score error at $t$ = {dataset.time.values[place]:.2g}, per coordinate", dataset.score_error.values[:, :, place], "log"),
    ]
    taus = dataset.tau.values
    x = _drawn(taus[~np.isnan(taus)])
    for panel, (title, values, scale) in zip(panels, quantities, strict=False):
        for c, color in enumerate(class_colors(k)):
            _draw_class(panel, dataset, x, _spread(dataset, values, c), c, color, scale)
        panel.set(xscale="log", yscale=scale)
        panel.set_title(title, fontsize=10)
    theory_taus = dataset.theory_tau.values
    inside = (theory_taus >= x.min()) & (theory_taus <= taus[np.isfinite(taus)].max(initial=x.min()))
    for c, color in enumerate(class_colors(k)):
        panels[4].plot(theory_taus[inside], dataset.theory_score_error.values[inside, c], color=color, linewidth=2.2, alpha=0.4)
    for panel in panels[2:5]:
        panel.set_xlabel(r"training time $\tau$" + (r" (last point: $\tau = \infty$)" if np.isinf(taus).any() else ""))
        panel.tick_params(labelbottom=True)
    panels[5].axis("off")
    panels[5].legend(handles=_handles(names), loc="center left", frameon=False, fontsize=10)
    return figure


def _draw_class(
    panel: Axes, dataset: xr.Dataset, x: np.ndarray, found: tuple[np.ndarray, np.ndarray], c: int, color: str, scale: str
) -> None:
    """One class in one panel: networks in points, both reference scores, theory's times."""
    (middle, spread), count = found, len(x)
    panel.errorbar(x, middle[:count], spread[:, :count], fmt="o-", color=color, markersize=4, linewidth=1, capsize=2)
    for name, style in REFERENCES.items():
        value = float(middle[list(dataset.source.values).index(name)])
        if np.isfinite(value) and not (scale == "log" and value < SMALLEST):  # the exact score has an error of 0
            panel.axhline(value, color=color, linestyle=style, linewidth=1, alpha=0.8)
    for key, width in (("tau_gen", 0.8), ("tau_mem", 2.2)):
        if x.min() <= dataset[key].values[c] <= x.max():
            panel.axvline(float(dataset[key].values[c]), color=color, linewidth=width, alpha=0.35)


def _handles(names: tuple[str, ...]) -> list[Line2D]:
    grey: dict[str, Any] = {"color": "0.4"}
    return [
        *[Line2D([], [], color=color, marker="o", label=name) for name, color in zip(names, class_colors(len(names)), strict=True)],
        *[Line2D([], [], linestyle=style, label=name, **grey) for name, style in REFERENCES.items()],
        Line2D([], [], linewidth=0.8, label=r"theory $\tau_{\rm gen}$ (thin, vertical)", **grey),
        Line2D([], [], linewidth=2.2, alpha=0.5, label=r"theory $\tau_{\rm mem}$ (thick, vertical)", **grey),
        Line2D([], [], linewidth=2.2, alpha=0.5, label="theory's score error (curve)", **grey),
    ]


def _drawn(taus: np.ndarray) -> np.ndarray:
    """Places on a logarithmic axis: 0 below and inf beyond the others."""
    inner = taus[np.isfinite(taus) & (taus > 0)]
    inner = inner if inner.size else np.ones(1)
    return np.where(np.isinf(taus), inner.max() * BEYOND, np.where(taus == 0, inner.min() / BEYOND, taus))


def _spread(dataset: xr.Dataset, values: np.ndarray | None, c: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over networks (N sources,) and its error below and above (2, N); the memorised fraction where values is None."""
    if values is None:
        share, low, high = np.moveaxis(dataset.memorised_interval.values[:, c], -1, 0)
        return share, np.nan_to_num(np.stack([share - low, high - share])).clip(0)
    own = np.ma.masked_invalid(values[:, :, c])
    count = np.maximum(own.count(axis=0), 1)
    error = own.std(axis=0, ddof=1 if len(own) > 1 else 0).filled(0) / np.sqrt(count)
    middle = own.mean(axis=0).filled(np.nan)
    return middle, np.stack([np.minimum(error, 0.9 * np.abs(np.nan_to_num(middle))), error])
