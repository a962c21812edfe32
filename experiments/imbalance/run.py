"""For isotropic classes imbalance never changes which class comes first; for classes that vary in different directions it does, and the
common definitions of "first" then contradict each other.

Class 0 of fraction π_0 has the lower variance, σ²_1/σ²_0 = r. Isotropic: both classes vary in all directions. Subspaces: each class varies
in its own half of the directions, so that the data as a whole vary by 2 π_c σ²_c along those of class c.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, same_order, variables
from experiments.readings import GEN, MEM, OPT, ROWS, STOP, isotropic, log_ratio, predicted, simulated, subspaces
from rfdiff.plots import class_colors

Q = 0.2  # τ_opt(q): with subspaces no class goes half of the way to the exact score at equal fractions
KINDS = {"isotropic": isotropic, "subspaces": subspaces}
DEFINITIONS = (
    (GEN, "tau_gen", r"$\tau_{\rm gen}$: $1-1/e$ of the class's own descent"),
    (STOP, "tau_stop", r"$\tau_{\rm stop}$: lowest test loss"),
    (MEM, "tau_mem", r"$\tau_{\rm mem}$: half of the final gap"),
    (OPT, "tau_opt", rf"$\tau_{{\rm opt}}({Q:g})$: {Q:g} of the way to $L^*$"),
)
JUDGED = (GEN, MEM, OPT)  # not τ_stop: its minimum is flat, and single networks scatter over a decade


def cell(kind: str, ratio: float, pi: float) -> dict[str, Any]:
    return KINDS[kind]([pi, 1 - pi], [ratio**-0.5, ratio**0.5]) | {"q": Q}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    weights = np.array([0.1, 0.3, 0.5, 0.7, 0.9]) if smoke else np.round(1 / (1 + np.exp(-np.linspace(-4, 4, 33))), 6)
    weights = [float(w) for w in weights]
    ratios = [2.0] if smoke else [1.2, 2.0, 4.0]
    shown, d, seeds = ([0.75], 24, 10) if smoke else ([0.2, 0.5, 0.8], 40, 14)
    theory = cells("theory", predicted, [cell(kind, r, pi) for kind in KINDS for r in ratios for pi in weights])
    networks = cells("simulation", simulated, [cell(kind, 2.0, pi) | {"d": d, "seeds": seeds} for kind in KINDS for pi in shown])
    beside = cells("theory", predicted, [cell(kind, 2.0, pi) for kind in KINDS for pi in shown])
    dims = ("kind", "shown", "reading", "class")
    found = {
        "theory": (("kind", "ratio", "weight", "reading", "class"), harness.stack(theory, "value", (2, len(ratios), len(weights)))),
        "theory_shown": (dims, harness.stack(beside, "value", (2, len(shown)))),
        **variables(networks, "networks", {"kind": 2, "shown": len(shown)}, ("reading", "class")),
    }
    axes = {"kind": list(KINDS), "ratio": ratios, "weight": weights, "shown": shown, "reading": list(ROWS)}
    setting = {"d": d, "seeds": seeds, "q": Q, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh"}
    return xr.Dataset(found, axes, setting)


def flips(weights: np.ndarray, leads: np.ndarray) -> list[float]:
    """π_0 at which log(τ_0/τ_1) changes sign, linearly between neighbours (in log odds the midpoint where one is infinite)."""
    odds = np.log(weights / (1 - weights))
    known = ~np.isnan(leads)
    odds, leads = odds[known], leads[known]
    places = []
    for i in np.flatnonzero(np.sign(leads[1:]) * np.sign(leads[:-1]) < 0):
        share = leads[i] / (leads[i] - leads[i + 1]) if np.isfinite(leads[i : i + 2]).all() else 0.5
        places.append(float(1 / (1 + np.exp(-(odds[i] + share * (odds[i + 1] - odds[i]))))))
    return places


def order(weights: np.ndarray, leads: np.ndarray) -> str:
    """The order in words: who is first, and between which fractions."""
    known = leads[~np.isnan(leads)]
    places = [f"{place:.2f}" for place in flips(weights, leads)]
    if known.size == 0:
        return "neither ever"
    first = "0" if known[0] < 0 else "1"
    return f"class {first} first, flips at π_0 = {', '.join(places)}" if places else f"class {first} first throughout"


def criteria(data: xr.Dataset) -> list[Criterion]:
    leads = {kind: log_ratio(data["theory"].sel(kind=kind).values) for kind in KINDS}
    lead = float(leads["isotropic"][:, :, [row for row, _, _ in DEFINITIONS]].min())
    judged = [Criterion("theory, isotropic, all four definitions: log(τ_0/τ_1), so no flip", f"{lead:+.2f}", "> 0", lead > 0)]
    for row, name, _ in DEFINITIONS[:3]:
        line = leads["subspaces"][:, :, row]
        judged.append(Criterion(f"theory, subspaces, {name}: log(τ_0/τ_1) at smallest and largest π_0, so a flip",
                                f"{line[:, 0].max():+.2f}, {line[:, -1].min():+.2f}", "< 0, > 0",
                                bool(np.all(line[:, 0] < 0) and np.all(line[:, -1] > 0))))  # fmt: skip
    with np.errstate(invalid="ignore"):
        step = np.diff(leads["subspaces"][:, :, OPT], axis=-1)  # NaN between two infinite leads
    largest = float(np.nanmax(step))
    judged.append(Criterion(f"theory, subspaces, tau_opt({Q:g}): change of log(τ_0/τ_1) when π_0 grows", f"{largest:+.2g}", "<= 0",
                            bool(np.all(np.isnan(step) | (step <= 0)))))  # fmt: skip
    if 1.2 in data["ratio"].values:
        line = log_ratio(data["theory"].sel(kind="subspaces", ratio=1.2).values[:, OPT])
        judged.append(Criterion(f"theory, subspaces, ratio 1.2, tau_opt({Q:g}): log(τ_0/τ_1) at smallest and largest π_0",
                                f"{line[0]:+.2f}, {line[-1]:+.2f}", "> 0, < 0", bool(line[0] > 0 and line[-1] < 0)))  # fmt: skip
    return judged + _simulated(data)


def _comparison(data: xr.Dataset, row: int, ratio: bool) -> Comparison:
    """Networks against theory by one definition, (kind, fraction): log ratios of the times, or (..., class) the log times themselves."""

    def read(values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return log_ratio(values[..., row, :]) if ratio else np.log(values[..., row, :])

    return compare(data, "networks", read(data["theory_shown"].values), read, data.attrs["d"], cell_axes=2)


def _simulated(data: xr.Dataset) -> list[Criterion]:
    each = [_comparison(data, row, ratio=False) for row in JUDGED]
    names = ", ".join(name for row, name, _ in DEFINITIONS if row in JUDGED)
    return [
        agreement(names, each),
        rejection(names, [(one, one.theory[..., ::-1]) for one in each]),
        same_order(names, [_comparison(data, row, ratio=True) for row in JUDGED]),
    ]


def table(data: xr.Dataset) -> str:
    rows = []
    for kind in KINDS:
        for r in data["ratio"].values:
            lead = log_ratio(data["theory"].sel(kind=kind, ratio=r).values)
            rows.append([kind, f"{r:g}", *(order(data["weight"].values, lead[:, row]) for row, _, _ in DEFINITIONS)])
    header = ["classes", "σ²_1/σ²_0", *(f"{name}({Q:g})" if row == OPT else name for row, name, _ in DEFINITIONS)]
    seen = []
    for i, kind in enumerate(KINDS):
        for j, pi in enumerate(data["shown"].values):
            row_ = [kind, f"{pi:g}"]
            for row in JUDGED:
                found = _comparison(data, row, ratio=True)
                row_.append(f"{found.theory[i, j]:+.2f}")
                row_ += [f"{v[i, j]:+.2f} ± {e[i, j]:.2f}" if np.isfinite(v[i, j]) else "—"
                         for v, e in ((found.seen, found.seen_error), (found.limit, found.error))]  # fmt: skip
            seen.append(row_)
    names = [f"{name}({Q:g})" if row == OPT else name for row, name, _ in DEFINITIONS if row in JUDGED]
    head = ["log(τ_0/τ_1) at ratio 2", "π_0", *(f"{n}: {side}" for n in names for side in ("theory", "networks at d", "d → ∞"))]
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a point, twice as many at d/2."
    return f"{harness.markdown(header, rows)}\n\n{harness.markdown(head, seen)}\n\n{size}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(13.5, 6.6), layout="constrained")
    panels = figure.subplots(2, len(DEFINITIONS), sharex=True)
    odds = np.log(data["weight"].values / (1 - data["weight"].values))
    shown = np.log(data["shown"].values / (1 - data["shown"].values))
    for i, kind in enumerate(KINDS):
        for j, (row, _, title) in enumerate(DEFINITIONS):
            panel = panels[i, j]
            limit = 3.2 if kind == "subspaces" else 1.9
            panel.axhline(0, color="0.4", linewidth=0.9)
            panel.axhspan(-limit, 0, color="0.95", zorder=0)
            for r, color, style in zip(data["ratio"].values, class_colors(3), ("-", "--", "-."), strict=False):
                lead = log_ratio(data["theory"].sel(kind=kind, ratio=r).values)[:, row]
                panel.plot(odds, np.where(np.isfinite(lead), lead, np.nan), style, color=color, label=rf"$\sigma^2_1/\sigma^2_0$ = {r:g}")
                never = np.isinf(lead)
                panel.plot(odds[never], np.sign(lead[never]) * 0.93 * limit, "x", color=color, markersize=4)
            points(panel, shown, _comparison(data, row, ratio=True), i, "o", "k", power=False)
            panel.set_ylim(-limit, limit)
            if i == 0:
                panel.set_title(title, fontsize=9)
            if i == 1:
                panel.set_xlabel(r"fraction $\pi_0$ of the class of lower variance")
            if j == 0:
                panel.set_ylabel(f"{kind}\n" r"$\log(\tau_0/\tau_1)$; shaded: class 0 first")
            ticks = [0.02, 0.1, 0.5, 0.9, 0.98]
            panel.set_xticks([np.log(w / (1 - w)) for w in ticks], [f"{w:g}" for w in ticks])
    for face, label in (("k", f"networks, ratio 2, d = {data.attrs['d']}"), ("none", r"networks, ratio 2, $d\to\infty$")):
        panels[0, 0].plot([], [], "ko", markerfacecolor=face, markersize=5, label=label)
    panels[0, 0].legend(fontsize=7, loc="lower left")
    panels[1, 3].set_title("× : one class never reaches the criterion", fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
