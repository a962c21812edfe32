"""Figures of curves, spectra and agreement: free-standing, no global state, drawn without a display.

Class colours are the colour-blind safe set of Okabe and Ito. Training time is on a logarithmic axis; its ends τ = 0 and τ = ∞ stand
apart behind a break, since no logarithm holds them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from rfdiff.class_times import ClassTimes
from rfdiff.curves import EmpiricalSpectrum, LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.files.atomic import replacing

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: dict[str, Any] = {"train_loss": "--", "test_loss": "-"}
MARKERS = {"train_loss": "s", "test_loss": "o"}
END_GAP = 0.09  # share of the logarithmic range between the last finite time and ∞ (and between 0 and the first)
LN10 = float(np.log(10.0))


def class_colors(num_classes: int) -> list[Any]:
    """One colour a class: Okabe-Ito up to its seven, evenly spaced from blue to dull yellow beyond."""
    if num_classes <= len(OKABE_ITO):
        return list(OKABE_ITO[:num_classes])
    shades = np.linspace(0.0, 0.85, num_classes)
    return [(0.9 * s, 0.25 + 0.6 * s, 0.75 - 0.5 * s) for s in shades]


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return Path(path)


def plot_curves(
    theory: LearningCurves | None = None,
    simulation: LearningCurves | None = None,
    times: ClassTimes | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Figure:
    """Per-class losses and score error against training time: theory as lines, simulation as points with error bars.

    Args:
        theory: closed-form curves, or None.
        simulation: simulated curves, or None; bars are ± one standard error over seeds.
        times: τ_gen and τ_mem to mark on the test curves of the theory (of the simulation without one), or None.
        class_names: K labels; "class 0", … if None.

    Returns:
        A figure of two panels, losses and score error; the dotted horizontal lines are the losses L_c^* of the exact score.

    Raises:
        InputError: neither theory nor simulation, or a wrong number of names.
    """
    shown = [curves for curves in (theory, simulation) if curves is not None]
    if not shown:
        raise InputError("theory, simulation: both None; allowed: at least one")
    colors, names = class_colors(shown[0].num_classes), _names(shown[0].num_classes, class_names)
    figure = _figure(9.6, 4.4)
    losses, errors = figure.subplots(1, 2)
    axis = _TimeAxis([np.asarray(curves.taus, np.float64) for curves in shown])
    for panel, quantities in ((losses, ("train_loss", "test_loss")), (errors, ("score_error",))):
        for name in quantities:
            if theory is not None:
                _draw_lines(panel, axis, theory, name, colors)
            if simulation is not None:
                _draw_points(panel, axis, simulation, name, colors)
        axis.apply(panel)
    for level, color in zip(np.asarray(shown[0].optimal_loss), colors, strict=True):
        losses.axhline(level, color=color, linestyle=":", linewidth=0.9, alpha=0.6, zorder=1)
    if times is not None:
        _mark_times(losses, axis, shown[0], times, colors)
    losses.set_ylabel("loss per coordinate")
    errors.set_ylabel("score error per coordinate")
    if all(np.all(np.asarray(curves.score_error) > 0) for curves in shown):
        errors.set_yscale("log", subs=(2, 3, 5))
        for which in (errors.yaxis.set_major_formatter, errors.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.legend(handles=_curve_handles(names, colors, theory, simulation, times), loc="outside lower center", ncols=5, frameon=False)
    return figure


def plot_spectrum(
    spectrum: Spectrum | None = None,
    empirical: EmpiricalSpectrum | None = None,
    class_names: tuple[str, ...] | None = None,
    bins_per_decade: int = 24,
) -> Figure:
    """Spectrum of U per decade of λ, λ ρ(λ) ln 10 against log λ, so that every bulk shows its weight as an area.

    Args:
        spectrum: closed form (lines, support shaded, atoms as stems), or None.
        empirical: eigenvalues of all seeds (histogram), or None.
        class_names: K labels; "class 0", … if None.
        bins_per_decade: bins of the histogram in a decade of λ.

    Raises:
        InputError: neither of them, a wrong number of names, or no positive eigenvalue.
    """
    if spectrum is None and empirical is None:
        raise InputError("spectrum, empirical: both None; allowed: at least one")
    k = np.shape(spectrum.class_density if spectrum is not None else empirical.class_weights)[-1]  # type: ignore[union-attr]
    colors, names = class_colors(k), _names(k, class_names)
    figure = _figure(7.2, 4.4)
    panel = figure.subplots()
    handles: list[Any] = []
    if empirical is not None:
        _draw_histogram(panel, empirical, colors, bins_per_decade)
        handles.append(Patch(color="0.82", label=f"simulation ({np.shape(empirical.eigenvalues)[0]} seeds)"))
    if spectrum is not None:
        _draw_density(panel, spectrum, colors)
        handles += [Line2D([], [], color="0.15", label="theory"), Patch(color="0.93", label="support")]
    panel.set_xscale("log")
    panel.set_ylim(0, 1.18 * panel.dataLim.y1)
    _draw_atoms(panel, spectrum, empirical, handles)
    panel.set_xlabel(r"eigenvalue $\lambda$ of $U$")
    panel.set_ylabel(r"weight per decade, $\lambda\,\rho(\lambda)\,\ln 10$")
    if k > 1:
        handles += [Line2D([], [], color=color, label=f"part of {name}") for name, color in zip(names, colors, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def plot_agreement(agreement: Any, class_names: tuple[str, ...] | None = None) -> Figure:
    """Deviation of simulation from theory, less the finite-size allowance, in standard errors, against training time.

    Args:
        agreement: an `Agreement`: standardised deviations {"train_loss": (T, K), "test_loss": (T, K)} and the threshold.
        class_names: K labels; "class 0", … if None.

    Raises:
        InputError: a wrong number of names.
    """
    curves = agreement.simulation
    colors, names = class_colors(curves.num_classes), _names(curves.num_classes, class_names)
    axis = _TimeAxis([np.asarray(curves.taus, np.float64)])
    figure = _figure(9.6, 3.8)
    panels = figure.subplots(1, len(agreement.standardised), sharey=True, squeeze=False)[0]
    for panel, (name, values) in zip(panels, agreement.standardised.items(), strict=True):
        values = np.asarray(values)
        panel.axhspan(-agreement.threshold, agreement.threshold, color="0.93", zorder=0)
        for level in (-agreement.threshold, agreement.threshold):
            panel.axhline(level, color="0.3", linestyle="--", linewidth=1)
        for c, color in enumerate(colors):
            panel.plot(axis.places(curves.taus), values[:, c], MARKERS[name], color=color, markersize=3.5)
        panel.set_title(name.replace("_", " "), fontsize=10)
        axis.apply(panel)
    if max(float(np.nanmax(np.abs(values))) for values in agreement.standardised.values()) > 4 * agreement.threshold:
        panels[0].set_yscale("symlog", linthresh=2 * agreement.threshold, linscale=2)
    panels[0].set_ylabel("simulation − theory, less finite size\n(standard errors)")
    handles = [Line2D([], [], color=color, marker="o", linestyle="", label=name) for name, color in zip(names, colors, strict=True)]
    handles.append(Line2D([], [], color="0.3", linestyle="--", label=f"allowed: ±{agreement.threshold:.3g}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


class _TimeAxis:
    """Places of training times on a logarithmic axis that also shows 0 and ∞, each behind a break."""

    def __init__(self, grids: list[np.ndarray]) -> None:
        times = np.unique(np.concatenate(grids))
        inner = times[(times > 0) & np.isfinite(times)]
        inner = inner if inner.size else np.ones(1)
        self.low, self.high = float(inner[0]), float(inner[-1])
        gap = max(self.high / self.low, 10.0) ** END_GAP
        self.zero, self.limit = self.low / gap, self.high * gap
        self.has_zero, self.has_limit = bool(times[0] == 0), bool(np.isinf(times[-1]))

    def places(self, taus: Any) -> np.ndarray:
        taus = np.asarray(taus, np.float64)
        return np.where(taus == 0, self.zero, np.where(np.isinf(taus), self.limit, taus))

    def apply(self, panel: Axes) -> None:
        """Scale, ticks, break marks and label."""
        panel.set_xscale("log")
        margin = max(self.high / self.low, 10.0) ** 0.03
        left, right = (self.zero if self.has_zero else self.low) / margin, (self.limit if self.has_limit else self.high) * margin
        panel.set_xlim(left, right)
        first, last = int(np.ceil(np.log10(self.low) - 1e-9)), int(np.floor(np.log10(self.high) + 1e-9))
        step = max(1, -(-(last - first + 1) // 6))
        decades = [10.0**e for e in range(first, last + 1, step)]
        ticks = [(place, f"$10^{{{round(np.log10(place))}}}$") for place in decades]
        ticks = [(self.zero, "0")] * self.has_zero + ticks + [(self.limit, r"$\infty$")] * self.has_limit
        panel.xaxis.set_major_locator(FixedLocator([place for place, _ in ticks]))
        panel.set_xticklabels([label for _, label in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        breaks = [np.sqrt(self.zero * self.low)] * self.has_zero + [np.sqrt(self.limit * self.high)] * self.has_limit
        for place in breaks:
            panel.plot(
                [place], [0], marker=[(-0.6, -1), (0.6, 1)], markersize=9, color="0.2", transform=panel.get_xaxis_transform(), clip_on=False
            )
        panel.set_xlabel(r"training time $\tau$")


def _draw_lines(panel: Axes, axis: _TimeAxis, curves: LearningCurves, name: str, colors: list[Any]) -> None:
    taus, values = np.asarray(curves.taus), np.asarray(getattr(curves, name))
    inner = (taus > 0) & np.isfinite(taus)
    for c, color in enumerate(colors):
        style = STYLES.get(name, "-")
        panel.plot(taus[inner], values[inner, c], style, color=color, linewidth=1.5, zorder=3)
        for i in np.flatnonzero(~inner):
            panel.plot(axis.places(taus[i : i + 1]), values[i : i + 1, c], marker="_", markersize=11, color=color, linestyle="", zorder=3)


def _draw_points(panel: Axes, axis: _TimeAxis, curves: LearningCurves, name: str, colors: list[Any]) -> None:
    values, errors = np.asarray(getattr(curves, name)), np.asarray(getattr(curves, f"{name}_stderr"))
    every = max(1, len(values) // 40)
    keep = np.unique(np.concatenate([np.arange(0, len(values), every), [len(values) - 1]]))
    for c, color in enumerate(colors):
        panel.errorbar(
            axis.places(curves.taus)[keep],
            values[keep, c],
            yerr=errors[keep, c],
            fmt=MARKERS.get(name, "o"),
            color=color,
            markersize=3.6,
            markerfacecolor="white" if name == "train_loss" else color,
            markeredgewidth=0.9,
            elinewidth=0.9,
            alpha=0.85,
            zorder=2,
        )


def _mark_times(panel: Axes, axis: _TimeAxis, curves: LearningCurves, times: ClassTimes, colors: list[Any]) -> None:
    places, test = axis.places(curves.taus), np.asarray(curves.test_loss)
    for tau, marker in ((times.tau_gen, "^"), (times.tau_mem, "D")):
        for c, color in enumerate(colors):
            if np.isfinite(tau[c]):
                height = np.interp(np.log(max(tau[c], axis.zero)), np.log(places), test[:, c])
                panel.plot([max(tau[c], axis.zero)], [height], marker, color=color, markersize=8, markeredgecolor="black", zorder=5)


def _draw_histogram(panel: Axes, empirical: EmpiricalSpectrum, colors: list[Any], bins_per_decade: int) -> None:
    modes, shares = np.asarray(empirical.eigenvalues), np.asarray(empirical.class_weights)
    positive = modes > 0
    if not positive.any():
        raise InputError("empirical: no eigenvalue is positive; allowed: a feature second moment that is not zero")
    exponents = np.log10(modes[positive])
    first, last = np.floor(exponents.min() * bins_per_decade), np.floor(exponents.max() * bins_per_decade) + 1
    edges = np.arange(first, last + 1) / bins_per_decade
    total = np.histogram(exponents, edges)[0] * bins_per_decade / modes.size
    panel.stairs(total, 10.0**edges, fill=True, color="0.82", zorder=1)
    if len(colors) == 1:
        return
    for c, color in enumerate(colors):
        part = np.histogram(exponents, edges, weights=shares[positive][:, c])[0] * bins_per_decade / modes.shape[0]
        panel.stairs(part, 10.0**edges, color=color, linewidth=0.8, alpha=0.55, zorder=2)


def _draw_density(panel: Axes, spectrum: Spectrum, colors: list[Any]) -> None:
    grid, bulk = np.asarray(spectrum.eigenvalues), np.asarray(spectrum.bulk)
    for low, high in np.asarray(spectrum.support):
        panel.axvspan(low, high, color="0.93", zorder=0)
    for b in np.unique(bulk):
        inside = (bulk == b) & (grid > 0)
        measure = grid[inside] * LN10
        panel.plot(grid[inside], measure * np.asarray(spectrum.density)[inside], color="0.15", linewidth=1.5, zorder=4)
        if len(colors) > 1:
            for c, color in enumerate(colors):
                panel.plot(grid[inside], measure * np.asarray(spectrum.class_density)[inside, c], color=color, linewidth=1.5, zorder=3)


def _draw_atoms(panel: Axes, spectrum: Spectrum | None, empirical: EmpiricalSpectrum | None, handles: list[Any]) -> None:
    """Atoms as stems labelled with their weight; the one at λ = 0 stands at the left end, behind a break."""
    places = [] if spectrum is None else list(zip(np.asarray(spectrum.atom_locations), np.asarray(spectrum.atom_weights), strict=True))
    zeros = None if empirical is None else float(np.mean(np.asarray(empirical.eigenvalues) == 0))
    if zeros and not any(place == 0 for place, _ in places):
        places.append((0.0, np.nan))
    if not places:
        return
    positive = [place for place, _ in places if place > 0]
    left, right = panel.get_xlim()
    left, right = min([left, *(0.7 * place for place in positive)]), max([right, *(1.4 * place for place in positive)])
    panel.set_xlim(left, right)
    edge = left / (right / left) ** 0.08
    top = panel.get_ylim()[1]
    for place, weight in places:
        x = edge if place == 0 else place
        label = ("" if np.isnan(weight) else f"{weight:.3g}") + (f"\n(sim. {zeros:.3g})" if place == 0 and zeros is not None else "")
        panel.plot([x, x], [0, 0.82 * top], color="0.15", linewidth=1.2, marker="^", markevery=[1], markersize=6, zorder=4)
        panel.annotate(label.strip(), (x, 0.86 * top), ha="left" if place == 0 else "center", va="bottom", fontsize=8)
    if any(place == 0 for place, _ in places):
        panel.set_xlim(edge / (right / left) ** 0.03, right)
        decades = range(int(np.ceil(np.log10(left))), int(np.floor(np.log10(right))) + 1)
        panel.set_xticks([edge, *(10.0**e for e in decades)], ["0", *(f"$10^{{{e}}}$" for e in decades)])
        panel.xaxis.set_minor_locator(NullLocator())
        mark = [(-0.6, -1), (0.6, 1)]
        transform = panel.get_xaxis_transform()
        panel.plot([np.sqrt(edge * left)], [0], marker=mark, markersize=9, color="0.2", transform=transform, clip_on=False)
    handles.append(Line2D([], [], color="0.15", marker="^", linewidth=1.2, label="atom (weight)"))


def _curve_handles(
    names: list[str], colors: list[Any], theory: LearningCurves | None, simulation: LearningCurves | None, times: ClassTimes | None
) -> list[Any]:
    handles: list[Any] = [Patch(color=color, label=name) for name, color in zip(names, colors, strict=True)]
    if theory is not None:
        handles += [
            Line2D([], [], color="0.2", linestyle=STYLES[name], label=f"{name[:-5]}, theory") for name in ("test_loss", "train_loss")
        ]
    if simulation is not None:
        size = "" if simulation.dimension is None else f", d = {simulation.dimension}"
        for name, face in (("test_loss", "0.2"), ("train_loss", "white")):
            label = f"{name[:-5]}, simulation{size}"
            handles.append(Line2D([], [], color="0.2", linestyle="", marker=MARKERS[name], markerfacecolor=face, markersize=5, label=label))
    handles.append(Line2D([], [], color="0.2", linestyle=":", linewidth=0.9, label="loss of the exact score"))
    if times is not None:
        for marker, label in (("^", r"$\tau_{\rm gen}$"), ("D", r"$\tau_{\rm mem}$")):
            handles.append(Line2D([], [], color="0.6", linestyle="", marker=marker, markeredgecolor="black", markersize=7, label=label))
    return handles


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _names(num_classes: int, names: tuple[str, ...] | None) -> list[str]:
    if names is None:
        return [f"class {c}" for c in range(num_classes)]
    if len(names) != num_classes:
        raise InputError(f"class_names: {len(names)} names; allowed: {num_classes}, one a class")
    return list(names)
