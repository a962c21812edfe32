"""Figure of the spectrum of the feature second moment U: closed form in lines, eigenvalues of networks as a histogram."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from rfdiff.curves import EmpiricalSpectrum, Spectrum
from rfdiff.errors import InputError
from rfdiff.labels import Color, class_colors
from rfdiff.plots.style import NotebookFigure, class_labels, legend_below, new_figure
from rfdiff.plots.time_axis import break_mark

LN10 = float(np.log(10.0))
ZERO_GAP = 0.08  # share of the logarithmic range between the smallest eigenvalue drawn and the stem of those that are 0


def spectrum(
    *spectra: Spectrum | EmpiricalSpectrum,
    class_names: Sequence[str] | None = None,
    bins_per_decade: int = 24,
    size: tuple[float, float] | None = None,
) -> NotebookFigure:
    """Spectrum of U per decade of λ: λ ρ(λ) ln 10 against log λ, so that the area of every bulk is its weight.

    Args:
        spectra: a closed form (`Spectrum`: lines, support shaded, atoms as stems), the eigenvalues of networks (`EmpiricalSpectrum`:
            histogram), or one of each.
        class_names: K labels; "class 0", … if None.
        bins_per_decade: bins of the histogram in a decade of λ.
        size: (width, height) in inches.

    Raises:
        InputError: no spectrum, two of one kind, no positive eigenvalue, or a bad name, number of bins or size.
    """
    predicted, empirical = _one_of_each(spectra)
    if not (isinstance(bins_per_decade, int | np.integer) and 1 <= bins_per_decade <= 1000):
        raise InputError(f"bins_per_decade: {bins_per_decade!r}; allowed: an integer from 1 to 1000")
    num_classes = {np.shape(item.class_density if isinstance(item, Spectrum) else item.class_weights)[-1] for item in spectra}
    if len(num_classes) > 1:
        raise InputError(f"spectra: of {' and '.join(map(str, sorted(num_classes)))} classes; allowed: spectra of one problem")
    (k,) = num_classes
    colors, labels = class_colors(k), class_labels(k, class_names)
    figure = new_figure(7.2, 4.4, size)
    panel = figure.subplots()
    handles: list[Any] = []
    if empirical is not None:
        _draw_histogram(panel, empirical, colors, bins_per_decade)
        handles.append(Patch(color="0.82", label=f"simulation ({np.shape(empirical.eigenvalues)[0]} networks)"))
    if predicted is not None:
        _draw_density(panel, predicted, colors)
        handles += [Line2D([], [], color="0.15", label="theory"), Patch(color="0.93", label="support")]
    panel.set_xscale("log")
    panel.set_ylim(0, 1.18 * panel.dataLim.y1)
    if _draw_atoms(panel, predicted, empirical):
        handles.append(Line2D([], [], color="0.15", marker="^", linewidth=1.2, label="atom (weight)"))
    panel.set_xlabel(r"eigenvalue $\lambda$ of $U$")
    panel.set_ylabel(r"weight per decade, $\lambda\,\rho(\lambda)\,\ln 10$")
    if k > 1:
        handles += [Line2D([], [], color=color, label=f"share of {label}") for label, color in zip(labels, colors, strict=True)]
    legend_below(figure, handles, columns=4)
    return figure


def _one_of_each(spectra: Sequence[Any]) -> tuple[Spectrum | None, EmpiricalSpectrum | None]:
    for item in spectra:
        if not isinstance(item, Spectrum | EmpiricalSpectrum):
            raise InputError(f"spectra: a {type(item).__name__}; allowed: Spectrum or EmpiricalSpectrum")
    predicted = [item for item in spectra if isinstance(item, Spectrum)]
    empirical = [item for item in spectra if isinstance(item, EmpiricalSpectrum)]
    if not spectra or len(predicted) > 1 or len(empirical) > 1:
        numbers = f"{len(predicted)} closed forms and {len(empirical)} of networks"
        raise InputError(f"spectra: {numbers}; allowed: one of either kind, or one of each")
    return next(iter(predicted), None), next(iter(empirical), None)


def _draw_histogram(panel: Axes, empirical: EmpiricalSpectrum, colors: Sequence[Color], bins_per_decade: int) -> None:
    modes, shares = np.asarray(empirical.eigenvalues), np.asarray(empirical.class_weights)
    positive = modes > 0
    if not positive.any():
        raise InputError("spectra: no eigenvalue of the networks is positive; allowed: a feature second moment that is not zero")
    exponents = np.log10(modes[positive])
    first, last = np.floor(exponents.min() * bins_per_decade), np.floor(exponents.max() * bins_per_decade) + 1
    edges = np.arange(first, last + 1) / bins_per_decade
    total = np.histogram(exponents, edges)[0] * bins_per_decade / modes.size
    panel.stairs(total, 10.0**edges, fill=True, color="0.82", zorder=1)
    if len(colors) == 1:
        return
    for c, color in enumerate(colors):
        share = np.histogram(exponents, edges, weights=shares[positive][:, c])[0] * bins_per_decade / modes.shape[0]
        panel.stairs(share, 10.0**edges, color=color, linewidth=0.8, alpha=0.55, zorder=2)


def _draw_density(panel: Axes, predicted: Spectrum, colors: Sequence[Color]) -> None:
    grid, bulk = np.asarray(predicted.eigenvalues), np.asarray(predicted.bulk)
    for low, high in np.asarray(predicted.support):
        panel.axvspan(low, high, color="0.93", zorder=0)
    for interval in np.unique(bulk):
        inside = (bulk == interval) & (grid > 0)
        per_decade = grid[inside] * LN10
        panel.plot(grid[inside], per_decade * np.asarray(predicted.density)[inside], color="0.15", linewidth=1.5, zorder=4)
        if len(colors) > 1:
            for c, color in enumerate(colors):
                share = per_decade * np.asarray(predicted.class_density)[inside, c]
                panel.plot(grid[inside], share, color=color, linewidth=1.5, zorder=3)


def _draw_atoms(panel: Axes, predicted: Spectrum | None, empirical: EmpiricalSpectrum | None) -> bool:
    """Atoms as stems labelled with their weight; the one at λ = 0 is drawn at the left end, behind a break. Returns whether any exist."""
    atoms: dict[float, float] = {}
    if predicted is not None:
        locations, weights = np.asarray(predicted.atom_locations), np.asarray(predicted.atom_weights)
        atoms = {float(location): float(weight) for location, weight in zip(locations, weights, strict=True)}
    zeros = None if empirical is None else float(np.mean(np.asarray(empirical.eigenvalues) == 0))
    if zeros:
        atoms.setdefault(0.0, float("nan"))
    if not atoms:
        return False
    positive = [location for location in atoms if location > 0]
    left, right = panel.get_xlim()
    left, right = min([left, *(0.7 * location for location in positive)]), max([right, *(1.4 * location for location in positive)])
    panel.set_xlim(left, right)
    zero, top = left / (right / left) ** ZERO_GAP, panel.get_ylim()[1]
    for location, weight in atoms.items():
        x = zero if location == 0 else location
        text = ("" if np.isnan(weight) else f"{weight:.3g}") + (f"\n(sim. {zeros:.3g})" if location == 0 and zeros is not None else "")
        panel.plot([x, x], [0, 0.82 * top], color="0.15", linewidth=1.2, marker="^", markevery=[1], markersize=6, zorder=4)
        panel.annotate(text.strip(), (x, 0.86 * top), ha="left" if location == 0 else "center", va="bottom", fontsize=8)
    if 0.0 in atoms:
        panel.set_xlim(zero / (right / left) ** 0.03, right)
        decades = range(int(np.ceil(np.log10(left))), int(np.floor(np.log10(right))) + 1)
        panel.set_xticks([zero, *(10.0**e for e in decades)], ["0", *(f"$10^{{{e}}}$" for e in decades)])
        panel.xaxis.set_minor_locator(NullLocator())
        break_mark(panel, float(np.sqrt(zero * left)))
    return True
