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

from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.plots.curve_figures import class_colors

SYMBOLS = {"tau_gen": r"\tau_{gen}", "tau_stop": r"\tau_{stop}", "tau_mem": r"\tau_{mem}", "tau_opt": r"\tau_{opt}"}
MEANINGS = {
    "tau_gen": "generalisation: the test loss has made 1 − 1/e of its whole descent",
    "tau_stop": "early stopping: the test loss is lowest",
    "tau_mem": "memorisation: the gap of test and train loss has half its final value",
    "tau_opt": "near-optimality: the test loss has gone the fraction q to that of the exact score",
}


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
        ValueError: an unknown quantity, axes with fewer than 2 values, or a class that is not there.
    """
    values = np.asarray(times, np.float64)
    if quantity not in SYMBOLS:
        raise ValueError(f"quantity: {quantity!r}; allowed: {', '.join(SYMBOLS)}")
    if min(np.size(first), np.size(second)) < 2:
        raise ValueError(f"axes: {np.size(first)} x {np.size(second)} values; allowed: at least 2 on each axis")
    if values.shape[-1] > 1 and not (min(pair) >= 0 and max(pair) < values.shape[-1] and pair[0] != pair[1]):
        raise ValueError(f"classes: {pair}; allowed: two different ones of 0 to {values.shape[-1] - 1}")
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
        axis.set_label_text(_axis_label(name))
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


def _axis_label(name: str) -> str:
    known = {
        "t": r"diffusion time $t$",
        "psi_p": r"$\psi_p = p/d$",
        "psi_n": r"$\psi_n = n/d$",
        "variance_ratio": r"$\sigma_0^2/\sigma_1^2$",
    }
    if name in known:
        return known[name]
    kind, c = name.rsplit("_", 1)
    symbols = {"weight": r"class fraction $\pi", "variance": r"variance $\sigma^2", "centroid_norm": r"squared centroid norm $\|\mu\|^2/d"}
    return f"{symbols[kind]}$ of class {c}" if kind in symbols else name


def plot_times(curves: LearningCurves, spectrum: Spectrum, readings: Any, bulks: Any, class_names: tuple[str, ...] | None = None) -> Figure:
    """Both readings of the class-wise times: gaps of the curves above, the class-resolved density of mode times below, on one axis of τ.

    Args:
        curves: closed-form learning curves.
        spectrum: closed-form spectrum of the same problem.
        readings: `ClassTimes` read from the curves.
        bulks: `BulkTimes` read from the spectrum.
        class_names: K labels; "class 0", … if None.
    """
    names = class_names or tuple(f"class {c}" for c in range(curves.num_classes))
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    taus = np.asarray(curves.taus, np.float64)
    finite = np.isfinite(taus) & (taus > 0)
    mode_times = 1 / (float(curves.kappa) * np.asarray(spectrum.eigenvalues))
    for c, (color, name) in enumerate(zip(class_colors(curves.num_classes), names, strict=True)):
        above.plot(taus[finite], np.asarray(curves.test_loss)[finite, c], color=color, label=f"{name}, test loss")
        above.plot(taus[finite], np.asarray(curves.train_loss)[finite, c], "--", color=color, label=f"{name}, train loss")
        # per decade of the mode's time: ρ_c(λ) λ ln 10, since τ = 1/(κλ)
        weight = np.log(10) * np.asarray(spectrum.class_density)[:, c] * np.asarray(spectrum.eigenvalues)
        for bulk in np.unique(spectrum.bulk):
            part = np.asarray(spectrum.bulk) == bulk
            below.plot(mode_times[part], weight[part], color=color, label=f"{name}, modes" if bulk == 0 else None)
        for panel, found in ((above, readings), (below, bulks)):
            for time, style in (("tau_gen", ":"), ("tau_mem", "-.")):
                value = float(np.asarray(getattr(found, time))[c])
                if np.isfinite(value) and value > 0:
                    panel.axvline(value, color=color, linestyle=style, linewidth=1.1)
    handles = [
        Line2D([], [], color="0.3", linestyle=":", label=r"$\tau_{gen}$ of this reading"),
        Line2D([], [], color="0.3", linestyle="-.", label=r"$\tau_{mem}$ of this reading"),
    ]
    above.set(xscale="log", ylabel="loss per coordinate", title="reading from the curves")
    separated = bool(bulks.separated)
    below.set(ylabel="modes per decade of their time", xlabel=r"training time $\tau$, and relaxation time $1/(\kappa\lambda)$ of a mode")
    below.set_title("reading from the class-resolved spectrum" + ("" if separated else ": the bulks overlap, no times"))
    below.xaxis.set_minor_formatter(NullFormatter())
    drawn = [*above.get_legend_handles_labels()[0], *handles]
    figure.legend(handles=drawn, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
