"""When the majority is memorised, an outnumbered minority with directions of its own is further from learned than the majority.

The measure is the minority's excess loss (L - L*)/(1 - L*) at that time: 1 is an untrained network, 0 the exact score. It is
compared with the excess loss of the majority at the same time, for isotropic classes and for classes in subspaces of their own.
"""

import dataclasses
import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.readings import closed_form, isotropic, networks, subspaces
from rfdiff import LearningCurves, times
from rfdiff.curves import CURVE_NAMES
from rfdiff.plots import class_colors

KINDS = {"isotropic": isotropic, "subspaces": subspaces}
BEHIND = "at the majority's τ_mem the minority's excess loss is above the majority's"
FINITE_SIZE = 8.0  # the logarithm of an excess loss at dimension d may be off by this over d


def cell(kind: str, ratio: float, minority: float) -> dict[str, Any]:
    """Class 0 is the majority; its variance is `ratio` times that of the minority, with product 1."""
    return KINDS[kind]([1 - minority, minority], [ratio**0.5, ratio**-0.5])


def excess(curves: LearningCurves) -> np.ndarray:
    """Excess losses (K,) at the majority's τ_mem, and the least of each class over training, (2, K); NaN without such a time."""
    tau = float(np.asarray(times(curves).tau_mem)[0])
    grid, test, optimal = np.asarray(curves.taus), np.asarray(curves.test_loss), np.asarray(curves.optimal_loss)
    scaled = (test - optimal) / (1 - optimal)
    if not np.isfinite(tau):
        return np.full_like(scaled[:2], np.nan)
    finite = np.isfinite(grid)
    at = [np.interp(np.log(tau), np.log(grid[finite]), scaled[finite, c]) for c in range(scaled.shape[1])]
    return np.stack([at, scaled.min(axis=0)])


def predicted(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"value": excess(closed_form(arguments))}


def simulated(arguments: dict[str, Any]) -> dict[str, Any]:
    """Mean and standard error over the networks, each read at its own majority's τ_mem."""
    curves = networks(arguments)
    per_seed = curves.per_seed or {}
    runs = [dataclasses.replace(curves, **{name: per_seed[name][s] for name in CURVE_NAMES}) for s in range(arguments["seeds"])]
    values = np.stack([excess(run) for run in runs])
    return {"value": values.mean(axis=0), "error": values.std(axis=0, ddof=1) / np.sqrt(len(values))}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    minorities = [float(w) for w in np.round(np.geomspace(0.02, 0.5, 3 if smoke else 15), 6)]
    ratios = [float(r) for r in np.geomspace(0.25, 4, 3 if smoke else 13)]
    shown, d, seeds = ([0.1], 20, 6) if smoke else ([0.05, 0.2, 0.5], 40, 10)
    theory = cells("theory", predicted, [cell(kind, r, w) for kind in KINDS for r in ratios for w in minorities])
    beside = cells("theory", predicted, [cell(kind, 1.0, w) for kind in KINDS for w in shown])
    seen = cells("simulation", simulated, [cell(kind, 1.0, w) | {"d": d, "seeds": seeds} for kind in KINDS for w in shown])
    dims = ("kind", "shown", "moment", "class")
    found = {
        "theory": (("kind", "ratio", "minority", "moment", "class"), harness.stack(theory, "value", (2, len(ratios), len(minorities)))),
        "theory_shown": (dims, harness.stack(beside, "value", (2, len(shown)))),
        "simulation": (dims, harness.stack(seen, "value", (2, len(shown)))),
        "error": (dims, harness.stack(seen, "error", (2, len(shown)))),
    }
    axes = {"kind": list(KINDS), "ratio": ratios, "minority": minorities, "shown": shown, "moment": ["majority memorised", "least"]}
    setting = {"d": d, "seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh"}
    return xr.Dataset(found, axes, setting)


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    at = data["theory"].isel(moment=0)
    strong = data["minority"].values <= 0.1
    own = at.sel(kind="subspaces").values[:, strong]
    d, seen, error = data.attrs["d"], data["simulation"].values[:, :, 0], data["error"].values[:, :, 0]
    off = abs(np.log(seen / data["theory_shown"].values[:, :, 0])) - 4 * error / seen
    worst = float(np.max(off)) * d
    lead = (seen[1, :, 1] - seen[1, :, 0]) / np.hypot(error[1, :, 0], error[1, :, 1])
    few = data["shown"].values <= 0.1
    gap = at.sel(kind="subspaces").values[..., 1] - at.sel(kind="isotropic").values[..., 1]
    own_text = f"theory, subspaces, minority of a tenth or less, every variance ratio: {BEHIND}"
    networks_text = f"simulation, d = {d}, subspaces, minority of a tenth or less: {BEHIND} by more than 3 standard errors"
    size_text = f"simulation, d = {d}: excess losses within 4 standard errors and {FINITE_SIZE:g}/d (relatively) of theory"
    equal = at.sel(kind="subspaces").sel(ratio=1.0, method="nearest").values[strong, 1]
    return [
        (f"{own_text} (least difference {np.min(own[..., 1] - own[..., 0]):.2f})", bool(np.all(own[..., 1] > own[..., 0]))),
        ("theory, the same at equal variances: it is above 1, worse than an untrained network", bool(np.all(equal > 1))),
        ("theory: such a minority is further from learned with subspaces than without, at every ratio", bool(np.all(gap[:, strong] > 0))),
        (f"{networks_text} (least: {np.min(lead[few]):.1f})", bool(np.all(lead[few] > 3))),
        (f"{size_text} ({max(worst, 0):.1f}/d needed)",
         bool(worst < FINITE_SIZE)),
    ]  # fmt: skip


def table(data: xr.Dataset) -> str:
    rows = []
    for i, kind in enumerate(KINDS):
        for j, w in enumerate(data["shown"].values):
            theory, seen, error = (data[name].values[i, j] for name in ("theory_shown", "simulation", "error"))
            row = [f"{theory[0, c]:.3f}, {seen[0, c]:.3f} ± {error[0, c]:.3f}" for c in (1, 0)]
            rows.append([kind, f"{w:g}", *row, f"{theory[1, 1]:.3f}", f"{theory[1, 0]:.3f}"])
    head = ["classes of equal variance", "π of the minority", "minority at majority's τ_mem: theory, networks", "majority at that time",
            "minority at its best (theory)", "majority at its best"]  # fmt: skip
    return harness.markdown(head, rows)


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(12.5, 4.3), layout="constrained")
    panels = figure.subplots(1, 3)
    values = data["theory"].isel(moment=0).values[..., 1]
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    for panel, kind, part in zip(panels, KINDS, values, strict=False):
        mesh = panel.pcolormesh(data["minority"], data["ratio"], part, cmap="viridis", vmin=low, vmax=high, shading="gouraud")
        if part.min() < 1 < part.max():
            panel.contour(data["minority"], data["ratio"], part, levels=[1.0], colors="white", linewidths=1.5)
        panel.set(
            xscale="log",
            yscale="log",
            xlabel=r"fraction $\pi$ of the minority",
            ylabel=r"$\sigma^2_{\rm majority}/\sigma^2_{\rm minority}$",
        )
        panel.set_title(f"{kind}: minority's excess loss (theory)", fontsize=9)
        panel.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    figure.colorbar(mesh, ax=panels[:2], label=r"$(L-L^*)/(1-L^*)$ at $\tau_{\rm mem}$ of the majority; white: 1", shrink=0.9)
    nearest = int(np.argmin(abs(np.log(data["ratio"].values))))
    for i, (kind, style, marker) in enumerate(zip(KINDS, ("--", "-"), ("s", "o"), strict=True)):
        for c, (color, name) in enumerate(zip(class_colors(2), ("majority", "minority"), strict=True)):
            line = data["theory"].isel(moment=0).values[i, nearest, :, c]
            panels[2].plot(data["minority"], line, style, color=color, label=f"{name}, {kind}")
            seen, error = data["simulation"].values[i, :, 0, c], data["error"].values[i, :, 0, c]
            panels[2].errorbar(data["shown"], seen, error, fmt=marker, color=color, markersize=5, capsize=2)
    panels[2].axhline(1, color="0.5", linewidth=0.8)
    panels[2].set(xscale="log", xlabel=r"fraction $\pi$ of the minority", ylabel=r"excess loss at $\tau_{\rm mem}$ of the majority")
    panels[2].set_title(f"equal variances; points: networks, d = {data.attrs['d']}", fontsize=9)
    panels[2].legend(fontsize=7)
    for panel in panels:
        panel.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
        panel.minorticks_off()
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
