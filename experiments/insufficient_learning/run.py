"""When the majority is memorised, an outnumbered minority that varies in directions of its own is further from learned than the majority.

The measure is the score error E of the minority at that time, over that of an untrained network, E_0 = (1 - L*)/Δ, where classes are
compared: E/E_0 = (L - L*)/(1 - L*), 0 for the exact score. Isotropic classes beside classes in subspaces of their own.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, variables, with_error
from experiments.readings import SETTING, closed_form, isotropic, subspaces, two_sizes
from rfdiff import LearningCurves, times
from rfdiff.plots import class_colors

T = SETTING["t"]
KINDS = {"isotropic": isotropic, "subspaces": subspaces}
BEHIND = "at the majority's τ_mem the minority's E/E_0 is above the majority's"
MOMENTS = ["majority memorised", "least", "untrained"]


def cell(kind: str, ratio: float, minority: float) -> dict[str, Any]:
    """Class 0 is the majority; its variance is `ratio` times that of the minority, with product 1."""
    return KINDS[kind]([1 - minority, minority], [ratio**0.5, ratio**-0.5])


def score_errors(curves: LearningCurves) -> np.ndarray:
    """Score errors (3, K), `MOMENTS`: at the majority's τ_mem (NaN without such a time), the least of each class, that of A = 0."""
    tau = float(np.asarray(times(curves).tau_mem)[0])
    grid, error, optimal = np.asarray(curves.taus), np.asarray(curves.score_error), np.asarray(curves.optimal_loss)
    finite = np.isfinite(grid)
    at = [np.interp(np.log(tau), np.log(grid[finite]), error[finite, c]) if np.isfinite(tau) else np.nan for c in range(len(optimal))]
    return np.stack([at, error.min(axis=0), (1 - optimal) / -np.expm1(-2 * T)])


def predicted(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"value": score_errors(closed_form(arguments))}


def simulated(arguments: dict[str, Any]) -> dict[str, Any]:
    """The mean curves of networks of two sizes, each ensemble read at its own majority's τ_mem."""
    return two_sizes(arguments, score_errors)


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    minorities = [float(w) for w in np.round(np.geomspace(0.02, 0.5, 3 if smoke else 15), 6)]
    ratios = [float(r) for r in np.geomspace(0.25, 4, 3 if smoke else 13)]
    shown, d, seeds = ([0.125], 24, 10) if smoke else ([0.05, 0.2, 0.5], 40, 14)
    theory = cells("theory", predicted, [cell(kind, r, w) for kind in KINDS for r in ratios for w in minorities])
    beside = cells("theory", predicted, [cell(kind, 1.0, w) for kind in KINDS for w in shown])
    seen = cells("simulation", simulated, [cell(kind, 1.0, w) | {"d": d, "seeds": seeds} for kind in KINDS for w in shown])
    dims = ("kind", "shown", "moment", "class")
    found = {
        "theory": (("kind", "ratio", "minority", "moment", "class"), harness.stack(theory, "value", (2, len(ratios), len(minorities)))),
        "theory_shown": (dims, harness.stack(beside, "value", (2, len(shown)))),
        **variables(seen, "networks", {"kind": 2, "shown": len(shown)}, ("moment", "class")),
    }
    axes = {"kind": list(KINDS), "ratio": ratios, "minority": minorities, "shown": shown, "moment": MOMENTS}
    setting = {"d": d, "seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh"}
    return xr.Dataset(found, axes, setting)


def relative(values: np.ndarray) -> np.ndarray:
    """Score errors (..., moment, class) at the majority's τ_mem and at their least, over those of an untrained network: (..., 2, class)."""
    return values[..., :2, :] / values[..., 2:, :]


def _comparisons(data: xr.Dataset) -> tuple[Comparison, Comparison]:
    """Logarithms of the score errors (kind, fraction, class) at the majority's τ_mem, and of the minority's E/E_0 over the majority's."""

    def each(values: np.ndarray) -> np.ndarray:
        return np.log(values[..., 0, :])

    def between(values: np.ndarray) -> np.ndarray:
        return np.diff(np.log(relative(values)[..., 0, :]))[..., 0]

    theory = data["theory_shown"].values
    return tuple(compare(data, "networks", read(theory), read, data.attrs["d"], cell_axes=2) for read in (each, between))  # type: ignore[return-value]


def criteria(data: xr.Dataset) -> list[Criterion]:
    scaled = relative(data["theory"].values)[..., 0, :]
    own, shared = (scaled[data["kind"].values == kind][0] for kind in ("subspaces", "isotropic"))
    strong = data["minority"].values <= 0.125
    equal = own[int(np.argmin(abs(np.log(data["ratio"].values)))), strong, 1]
    least = float(np.min(own[:, strong, 1] / own[:, strong, 0]))
    gap = float(np.min((own[..., 1] - shared[..., 1])[:, strong]))
    each, between = _comparisons(data)
    few = data["shown"].values <= 0.125
    lead = float(np.min(between.seen[1, few] / between.seen_error[1, few]))
    return [
        Criterion("theory, subspaces, π <= 1/8: E/E_0 of the minority over the majority's", f"{least:.1f}", "> 1", least > 1),
        Criterion("theory, the same at equal variances: E/E_0 of the minority", f"{equal.min():.2f}", "> 1", bool(np.all(equal > 1))),
        Criterion("theory, π <= 1/8: E/E_0 of the minority, subspaces minus isotropic", f"{gap:+.2f}", "> 0", gap > 0),
        Criterion("networks at d, the same: log of the ratio of minority to majority", f"{lead:.1f} s.e.", "> 5 s.e.", lead > 5),
        agreement("score error", [each]),
        rejection("score error", [(each, each.theory[..., ::-1])]),
    ]


def table(data: xr.Dataset) -> str:
    rows = []
    each, _ = _comparisons(data)
    for i, kind in enumerate(KINDS):
        for j, w in enumerate(data["shown"].values):
            scaled, row = relative(data["theory_shown"].values[i, j]), [kind, f"{w:g}"]
            for c in (1, 0):
                row.append(f"{np.exp(each.theory[i, j, c]):.3f}")
                row += [with_error(v[i, j, c], e[i, j, c]) for v, e in ((each.seen, each.seen_error), (each.limit, each.error))]
            rows.append([*row, *(f"{scaled[0, c]:.2f} / {scaled[1, c]:.2f}" for c in (1, 0))])
    head = ["classes of equal variance", "π of the minority", "E of the minority at majority's τ_mem: theory", "networks at d", "d → ∞",
            "E of the majority then: theory", "networks at d", "d → ∞", "minority, E/E_0 then / at its best (theory)",
            "majority, the same"]  # fmt: skip
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a point, twice as many at d/2."
    return f"{harness.markdown(head, rows)}\n\n{size}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(12.5, 4.5), layout="constrained")
    panels = figure.subplots(1, 3)
    values, scaled = data["theory"].values[..., 0, 1], relative(data["theory"].values)[..., 0, 1]
    scale = LogNorm(float(np.nanmin(values)), float(np.nanmax(values)))
    for panel, kind, part, ratio in zip(panels, KINDS, values, scaled, strict=False):
        mesh = panel.pcolormesh(data["minority"], data["ratio"], part, cmap="cividis", norm=scale, shading="gouraud")
        if ratio.min() < 1 < ratio.max():
            panel.contour(data["minority"], data["ratio"], ratio, levels=[1.0], colors="white", linewidths=1.5)
        panel.set(xscale="log", yscale="log", xlabel=r"fraction $\pi$ of the minority",
                  ylabel=r"$\sigma^2_{\rm majority}/\sigma^2_{\rm minority}$, product 1")  # fmt: skip
        panel.set_title(f"{kind}: score error of the minority (theory)", fontsize=10)
        panel.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    bar = figure.colorbar(mesh, ax=panels[:2], label=r"$E$ at $\tau_{\rm mem}$ of the majority; white: untrained", shrink=0.95)
    ticks = [v for v in (0.5, 1, 2, 5, 10, 20, 50) if scale.vmin <= v <= scale.vmax]
    bar.set_ticks(ticks, labels=[f"{v:g}" for v in ticks])
    bar.ax.minorticks_off()
    nearest = int(np.argmin(abs(np.log(data["ratio"].values))))
    each, _ = _comparisons(data)
    for i, (kind, style, marker) in enumerate(zip(KINDS, ("--", "-"), ("s", "o"), strict=True)):
        for c, (color, name) in enumerate(zip(class_colors(2), ("majority", "minority"), strict=True)):
            line = data["theory"].values[i, nearest, :, 0, c]
            panels[2].plot(data["minority"], line, style, color=color, label=f"{name}, {kind}", linewidth=1.5 + (1 - c) * (1 - i) * 2)
            points(panels[2], data["shown"].values, each, (i, slice(None), c), marker, color)
    panels[2].axhline(
        float(data["theory_shown"].values[0, 0, 2, 1]), color="0.5", linewidth=0.9, linestyle=":", label="untrained, isotropic"
    )
    for face, label in (("0.3", f"networks, d = {data.attrs['d']}"), ("none", r"networks, $d\to\infty$")):
        panels[2].plot([], [], "o", color="0.3", markerfacecolor=face, label=label)
    panels[2].set(
        xscale="log", yscale="log", xlabel=r"fraction $\pi$ of the minority", ylabel=r"score error $E$ at $\tau_{\rm mem}$ of the majority"
    )
    panels[2].set_title("equal variances", fontsize=10)
    panels[2].legend(fontsize=7)
    for panel in panels:
        panel.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
        panel.xaxis.minorticks_off()
    for panel in panels[:2]:
        panel.yaxis.minorticks_off()
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
