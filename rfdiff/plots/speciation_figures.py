"""Figures of the backward process: the return probability of each class over time, and trajectories that come apart."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfdiff.errors import InputError
from rfdiff.plots.curve_figures import class_colors

LINEAR = 4.0  # noise has variance 1: what lies beyond is signal
TICKS = (1, 2, 4, 10, 20, 40, 100, 200, 400, 1000)


def plot_return_probability(
    theory: tuple[Any, Any],
    uturns: tuple[Any, Any, Any] | None = None,
    clones: tuple[Any, Any, Any] | None = None,
    speciation: Any = None,
    wells: Any = None,
    class_names: tuple[str, ...] | None = None,
) -> Figure:
    """Probability R_c(t) to return to a class over the time of the turn: closed form in lines, U-turns and clones in points.

    Args:
        theory: times (T,) and R_c (T, K).
        uturns: times (N,), fractions (N, K) and standard errors (N, K), or None.
        clones: the same of clones, or None; NaN where no clone ended in the class.
        speciation: (K,) times where R_c = (1 + π_c)/2, marked on the lines, or None.
        wells: (K,) times where the well of a class appears, as vertical lines where finite, or None.
        class_names: K labels; "class 0", … if None.

    Raises:
        InputError: a wrong number of names.
    """
    times, curve = np.asarray(theory[0], np.float64), np.asarray(theory[1], np.float64)
    k = curve.shape[1]
    names = _names(class_names, k)
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    handles: list[Any] = []
    for c, color in enumerate(class_colors(k)):
        panel.plot(times, curve[:, c], color=color, linewidth=1.6)
        handles.append(Line2D([], [], color=color, linewidth=1.6, label=names[c]))
        for measured, face, marker in ((uturns, color, "o"), (clones, "white", "s")):
            if measured is not None:
                at, share, stderr = (np.asarray(values, np.float64) for values in measured)
                style: dict[str, Any] = {"color": color, "markerfacecolor": face, "markersize": 5, "linewidth": 1}
                panel.errorbar(at, share[:, c], stderr[:, c], fmt=marker, **style)
        if speciation is not None and np.isfinite(np.asarray(speciation)[c]):
            t = float(np.asarray(speciation)[c])
            panel.plot([t], [np.interp(t, times, curve[:, c])], "*", color=color, markersize=14, markeredgecolor="black", zorder=5)
        if wells is not None and np.isfinite(np.asarray(wells)[c]):
            panel.axvline(float(np.asarray(wells)[c]), color=color, linestyle=":", linewidth=1.2)
    grey: dict[str, Any] = {"color": "0.4", "linestyle": "none"}
    if uturns is not None:
        handles.append(Line2D([], [], marker="o", label="U-turns", **grey))
    if clones is not None:
        handles.append(Line2D([], [], marker="s", markerfacecolor="white", label="clones", **grey))
    if speciation is not None:
        handles.append(Line2D([], [], marker="*", markersize=12, label=r"$R_c = (1 + \pi_c)/2$", **grey))
    if wells is not None and np.any(np.isfinite(np.asarray(wells))):
        handles.append(Line2D([], [], color="0.4", linestyle=":", label="the class's well appears"))
    panel.set(xlabel=r"time $t$ of the turn", ylabel=r"return probability $R_c(t)$", ylim=(-0.03, 1.03))
    margin = 0.02 * np.ptp(times)
    panel.set_xlim(times.max() + margin, times.min() - margin)  # the backward process runs to the right
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
    return figure


def plot_backward_paths(
    times: Any,
    paths: Any,
    classes: Any,
    num_classes: int,
    quantity: str,
    speciation: Any = None,
    class_names: tuple[str, ...] | None = None,
) -> Figure:
    """Trajectories of the backward process on one axis, in the colour of the class in which they end, from noise (left) to data (right).

    Args:
        times: (T,) decreasing times.
        paths: (N, T, A) coordinates of each trajectory, one panel each; the scale is linear up to 4 and logarithmic beyond.
        classes: (N,) class in which each ends.
        num_classes: number K of classes.
        quantity: what the coordinate is, for the axis.
        speciation: (K,) speciation times, as vertical lines, or None.
        class_names: K labels; "class 0", … if None.

    Raises:
        InputError: shapes that do not fit together, or a wrong number of names.
    """
    grid, lines, ends = np.asarray(times, np.float64), np.asarray(paths, np.float64), np.asarray(classes)
    if lines.ndim != 3 or lines.shape[:2] != (ends.size, grid.size) or not lines.shape[2]:
        raise InputError(f"paths: shape {lines.shape}; allowed: ({ends.size}, {grid.size}, A), N trajectories at T times on A axes")
    names = _names(class_names, num_classes)
    count = lines.shape[2]
    figure = Figure(figsize=(7.2, 1.4 + 3.0 * count), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    colors = class_colors(num_classes)
    for a, panel in enumerate(panels):
        for path, end in zip(lines[:, :, a], ends, strict=True):
            panel.plot(grid, path, color=colors[int(end)], linewidth=0.7, alpha=0.7)
        for c, color in enumerate(colors):
            if speciation is not None and np.isfinite(np.asarray(speciation)[c]):
                panel.axvline(float(np.asarray(speciation)[c]), color=color, linestyle="--", linewidth=1.2)
        if np.abs(lines[:, :, a]).max() > LINEAR:
            panel.set_yscale("symlog", linthresh=LINEAR)
            ticks = [tick for tick in TICKS if 2 <= tick <= np.abs(lines[:, :, a]).max()]
            panel.set_yticks([*[-tick for tick in reversed(ticks)], 0, *ticks], minor=False)
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
        panel.set_ylabel(quantity + (f" {a + 1}" if count > 1 else ""))
    handles = [Line2D([], [], color=colors[c], label=f"{names[c]} ({np.sum(ends == c)})") for c in range(num_classes)]
    if speciation is not None and np.any(np.isfinite(np.asarray(speciation))):
        handles.append(Line2D([], [], color="0.4", linestyle="--", label="speciation time"))
    panels[-1].set_xlabel(r"diffusion time $t$, from noise to data")
    panels[-1].set_xlim(grid.max(), 0)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4), frameon=False)
    return figure


def _names(class_names: tuple[str, ...] | None, num_classes: int) -> tuple[str, ...]:
    names = class_names or tuple(f"class {c}" for c in range(num_classes))
    if len(names) != num_classes:
        raise InputError(f"class_names: {len(names)} names; allowed: {num_classes}, one a class")
    return names
