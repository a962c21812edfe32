"""Figures of class-wise times: maps over two parameters, and both readings of the times of one problem."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from rfdiff.errors import InputError
from rfdiff.plots.curve_figures import class_colors

SYMBOLS = {"tau_gen": r"\tau_{gen}", "tau_stop": r"\tau_{stop}", "tau_mem": r"\tau_{mem}", "tau_opt": r"\tau_{opt}"}
MEANINGS = {
    "tau_gen": "generalisation: the test loss has made 1 − 1/e of its whole descent",
    "tau_stop": "early stopping: the test loss is lowest",
    "tau_mem": "memorisation: the gap of test and train loss has half its final value",
    "tau_opt": "near-optimality: the test loss has gone the fraction q to that of the exact score",
}
LOSS_STYLES: tuple[tuple[Any, str], ...] = (("-", "test loss"), ("--", "train loss"))
TIE = 1e-6  # of log10 of the ratio of two times, far below the error with which any time is known
TIME_MARKERS = {"tau_gen": "^", "tau_mem": "D"}


def plot_phase_map(
    first: Any,
    second: Any,
    times: Any,
    failed: Any,
    names: tuple[str, str],
    quantity: str,
    pair: tuple[int, int] = (0, 1),
    logarithmic: tuple[bool, bool] = (False, False),
    q: float = 0.5,
) -> Figure:
    """Which of two classes comes first over two numbers of a problem: log10 of the ratio of their times, and where the order flips.

    Args:
        first, second: (A,) and (B,) values of the axes, at least 2 each.
        times: (A, B, K) times of one kind.
        failed: (A, B) whether a cell failed.
        names: names of the axes.
        quantity: "tau_gen", "tau_stop", "tau_mem" or "tau_opt".
        pair: the two classes; with K = 1 the map is log10 of the time itself.
        logarithmic: which axes are logarithmic.
        q: fraction in τ_opt.

    Returns:
        A figure; the black line is where both times are equal, grey cells failed, hatched ones have one class that never gets there.

    Raises:
        InputError: an unknown quantity, axes with fewer than 2 values, or a class that is not there.
    """
    values = np.asarray(times, np.float64)
    if quantity not in SYMBOLS:
        raise InputError(f"quantity: {quantity!r}; allowed: {', '.join(SYMBOLS)}")
    if min(np.size(first), np.size(second)) < 2:
        raise InputError(f"axes: {np.size(first)} x {np.size(second)} values; allowed: at least 2 on each axis")
    if values.shape[-1] > 1 and not (min(pair) >= 0 and max(pair) < values.shape[-1] and pair[0] != pair[1]):
        raise InputError(f"classes: {pair}; allowed: two different ones of 0 to {values.shape[-1] - 1}")
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.set_facecolor("0.75")
    symbol = SYMBOLS[quantity]
    handles: list[Any] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        if values.shape[-1] == 1:
            shown, never = np.log10(values[..., 0]), np.isinf(values[..., 0])
            label = rf"$\log_{{10}} {symbol}$"
        else:
            a, b = (values[..., c] for c in pair)
            shown, never = np.log10(a / b), np.isinf(a) | np.isinf(b)
            upper = rf"{symbol[:-1]},{pair[0]}}}" if symbol.endswith("}") else symbol
            lower = rf"{symbol[:-1]},{pair[1]}}}" if symbol.endswith("}") else symbol
            label = rf"$\log_{{10}}({upper}/{lower})$   (negative: class {pair[0]} first)"
    finite = np.isfinite(shown)
    if values.shape[-1] > 1:
        shown = np.where(abs(shown) < TIE, 0.0, shown)  # rounding of equal times is no order
    reach = max(float(np.max(abs(shown[finite]), initial=0)), 1e-6)
    norm = TwoSlopeNorm(0, -reach, reach) if values.shape[-1] > 1 else None
    mesh = panel.pcolormesh(
        first, second, np.where(finite, shown, np.nan).T, cmap="PuOr" if norm else "viridis", norm=norm, shading="nearest", rasterized=True
    )
    figure.colorbar(mesh, label=label)
    _mark(panel, first, second, never, "///", "a class never gets there", handles)
    _mark(panel, first, second, np.asarray(failed, bool), "xx", "failed", handles)
    _mark(panel, first, second, ~finite & ~never & ~np.asarray(failed, bool), "...", "no such time", handles)
    if norm is not None and np.any(shown[finite] < 0) and np.any(shown[finite] > 0):
        panel.contour(first, second, np.where(finite, shown, np.nan).T, levels=[0.0], colors="black", linewidths=1.6)
        handles.append(Line2D([], [], color="black", linewidth=1.6, label="equal times: the order flips"))
    for which, axis, is_log, name in zip("xy", (panel.xaxis, panel.yaxis), logarithmic, names, strict=True):
        if is_log:
            getattr(panel, f"set_{which}scale")("log", subs=(2, 3, 5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_label_text(axis_label(name))
    panel.set_title(MEANINGS[quantity].replace("fraction q", f"fraction {q:g}"), fontsize=9)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _mark(panel: Axes, first: Any, second: Any, where: np.ndarray, hatch: str, label: str, handles: list[Any]) -> None:
    """Hatch the cells of a mask, and explain the hatching."""
    if not where.any():
        return
    panel.pcolor(first, second, np.where(where, 1.0, np.nan).T, shading="nearest", hatch=hatch, alpha=0, edgecolor="0.35", linewidth=0)
    handles.append(Patch(facecolor="0.75", edgecolor="0.35", hatch=hatch, label=label))


def axis_label(name: str) -> str:
    """Label of an axis by the name of its number (`rfdiff.parameters`)."""
    known = {
        "t": r"diffusion time $t$",
        "psi_p": r"$\psi_p = p/d$",
        "psi_n": r"$\psi_n = n/d$",
        "variance_ratio": r"$\sigma_0^2/\sigma_1^2$",
        "problem": "problem",
    }
    if name in known:
        return known[name]
    kind, c = name.rsplit("_", 1)
    symbols = {"weight": r"class fraction $\pi", "variance": r"variance $\sigma^2", "centroid_norm": r"squared centroid norm $\|\mu\|^2/d"}
    return f"{symbols[kind]}$ of class {c}" if kind in symbols else name


def plot_times(curves: Any, spectrum: Any, readings: Any, bulks: Any, class_names: tuple[str, ...] | None = None) -> Figure:
    """Both readings of the class-wise times on one axis of τ: losses above, how the modes of each class relax below.

    Below, the class-resolved density of each bulk is scaled to area 1 over log10 of the mode's time 1/(κλ), so that the time read from it
    is the mean on this axis. Triangles are τ_gen, diamonds τ_mem, as in `plot_curves`.

    Args:
        curves: closed-form learning curves: taus, train_loss, test_loss, kappa, num_classes.
        spectrum: closed-form spectrum of the same problem: eigenvalues, class_density, bulk.
        readings: `ClassTimes` read from the curves.
        bulks: `BulkTimes` read from the spectrum: tau_gen, tau_mem, edges, separated.
        class_names: K labels; "class 0", … if None.

    Raises:
        InputError: a wrong number of names.
    """
    k = curves.num_classes
    names = class_names or tuple(f"class {c}" for c in range(k))
    if len(names) != k:
        raise InputError(f"class_names: {len(names)} names; allowed: {k}, one a class")
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    taus, test, train = (np.asarray(values, np.float64) for values in (curves.taus, curves.test_loss, curves.train_loss))
    finite = np.isfinite(taus) & (taus > 0)
    mode_times, lobes = _lobes(float(curves.kappa), spectrum, bulks)
    colors = class_colors(k)
    for c, color in enumerate(colors):
        above.plot(taus[finite], test[finite, c], color=color, linewidth=1.6)
        above.plot(taus[finite], train[finite, c], "--", color=color, linewidth=1.6)
        _mark_reading(above, taus[finite], test[finite, c], readings, c, color)
        for interval in np.unique(spectrum.bulk):
            part = np.asarray(spectrum.bulk) == interval
            below.plot(mode_times[part], lobes[part, c], color=color, linewidth=1.6)
            below.fill_between(mode_times[part], lobes[part, c], color=color, alpha=0.12, linewidth=0)
        _mark_reading(below, mode_times[::-1], lobes[::-1, c], bulks, c, color)
    above.set(xscale="log", ylabel="loss per coordinate")
    above.set_title("read from the curves", fontsize=10)
    separated = bool(bulks.separated)
    below.set(ylabel=f"density of the modes of each class\nin {'each bulk' if separated else 'all bulks'}, per decade")
    below.set_xlabel(r"training time $\tau$ (above), relaxation time $1/(\kappa\lambda)$ of a mode (below)")
    below.set_title("read from the class-resolved spectrum" + ("" if separated else ": the bulks overlap, no times"), fontsize=10)
    below.set_ylim(bottom=0)
    below.xaxis.set_minor_formatter(NullFormatter())
    handles = [Line2D([], [], color=color, linewidth=1.6, label=name) for color, name in zip(colors, names, strict=True)]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=label) for style, label in LOSS_STYLES]
    for time, marker in TIME_MARKERS.items():
        label = f"${SYMBOLS[time]}$"
        handles.append(Line2D([], [], marker=marker, color="0.6", markeredgecolor="black", markersize=8, linestyle=":", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    return figure


def _lobes(kappa: float, spectrum: Any, bulks: Any) -> tuple[np.ndarray, np.ndarray]:
    """Times (G,) of the modes, and class-resolved densities (G, K) over log10 of them that have area 1 in each separated bulk."""
    eigenvalues = np.asarray(spectrum.eigenvalues, np.float64)
    density = np.nan_to_num(np.asarray(spectrum.class_density)) * eigenvalues[:, None]
    intervals = np.asarray(spectrum.bulk)
    upper = eigenvalues >= np.asarray(bulks.edges)[0, 0] if bulks.separated else np.ones(eigenvalues.shape, bool)
    for part in (upper, ~upper):
        inside = [part & (intervals == interval) for interval in np.unique(intervals[part])]
        areas = sum(np.trapezoid(density[one], np.log10(eigenvalues[one]), axis=0) for one in inside)
        density[part] /= np.where(np.asarray(areas) > 0, areas, 1)
    return 1 / (kappa * eigenvalues), density


def _mark_reading(panel: Axes, places: np.ndarray, heights: np.ndarray, found: Any, c: int, color: Any) -> None:
    """τ_gen and τ_mem of class c on its line, with a thin line down to the axis of times."""
    for time, marker in TIME_MARKERS.items():
        value = float(np.asarray(getattr(found, time))[c])
        if np.isfinite(value) and value > 0:
            height = np.interp(np.log(value), np.log(places), heights)
            panel.axvline(value, color=color, linestyle=":", linewidth=1.1)
            panel.plot([value], [height], marker, color=color, markersize=8, markeredgecolor="black", zorder=5)
