"""At equal class fractions the class of higher variance generalises first; at t = 0.1 it is memorised first, at 0.01 and 0.3 last.

Two classes with σ²_0/σ²_1 = r at σ²_0 σ²_1 = 1, and three classes with variances √r, 1, 1/√r, all isotropic and centred.
"""

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.readings import GEN, LABELS, MEM, ROWS, isotropic, log_ratio, log_ratio_error, predicted, simulated
from rfdiff.plots import class_colors

FINITE_SIZE = 7.0  # a time at dimension d may be off by this over d, relatively; an order closer than that is not asked of networks


def variances(k: int, ratio: float) -> list[float]:
    return [ratio**0.5, ratio**-0.5] if k == 2 else [ratio**0.5, 1.0, ratio**-0.5]


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    ratios = [float(r) for r in np.geomspace(1, 8, 4 if smoke else 13)]
    shown, d, seeds = ([4.0], 16, 6) if smoke else ([2.0, 4.0, 8.0], 40, 10)
    times_t = [0.1, 0.01] if smoke else [0.3, 0.1, 0.03, 0.01]
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for k in (2, 3):
        equal = [1 / k] * k
        theory = cells(f"theory, K = {k}", predicted, [isotropic(equal, variances(k, r)) for r in ratios])
        size = d if k == 2 else 3 * d // 4  # n = 4 d is then a multiple of K
        networks = cells(
            f"simulation, K = {k}", simulated, [isotropic(equal, variances(k, r)) | {"d": size, "seeds": seeds} for r in shown]
        )
        found[f"theory_{k}"] = (("ratio", "reading", f"class{k}"), harness.stack(theory, "value"))
        found[f"simulation_{k}"] = (("shown", "reading", f"class{k}"), harness.stack(networks, "value"))
        found[f"error_{k}"] = (("shown", "reading", f"class{k}"), harness.stack(networks, "error"))
        found[f"dimension_{k}"] = ((), np.asarray(size))
    by_t = cells("theory against t", predicted, [isotropic([0.5, 0.5], variances(2, r), t=t) for t in times_t for r in ratios])
    found["theory_t"] = (("t", "ratio", "reading", "class2"), harness.stack(by_t, "value", (len(times_t), len(ratios))))
    axes = {"ratio": ratios, "shown": shown, "t": times_t, "reading": list(ROWS)}
    return xr.Dataset(found, axes, {"seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh"})


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    said = []
    unequal = data["ratio"].values > 1
    for k in (2, 3):
        d = int(data[f"dimension_{k}"])
        theory = data[f"theory_{k}"].values[unequal]
        networks, error = data[f"simulation_{k}"].values, data[f"error_{k}"].values
        at = np.stack([[np.interp(np.log(r), np.log(data["ratio"]), np.log(data[f"theory_{k}"].values[:, i, c])) for c in range(k)]
                       for r in data["shown"].values for i in (GEN, MEM)]).reshape(-1, 2, k)  # fmt: skip
        for j, (row, name) in enumerate(((GEN, "generalises"), (MEM, "is memorised"))):
            ordered = bool(np.all(np.diff(theory[:, row], axis=-1) > 0))
            said.append((f"theory, K = {k}: the class of higher variance {name} first at every ratio above 1", ordered))
            gap, asked = _order(networks[:, row], error[:, row], at[:, j], FINITE_SIZE / d)
            if asked or row == GEN:
                text = f"simulation, K = {k}, d = {d}: class 0 before class {k - 1} ({name}) by more than 3 standard errors in all {asked}"
                text += f" cells that theory sets apart by more than {FINITE_SIZE:g}/d in log τ (least: {gap:.1f})"
                said.append((text, asked > 0 and gap > 3))
            off = np.abs(np.log(networks[:, row]) - at[:, j]) - 4 * error[:, row] / networks[:, row]
            worst = float(np.max(off) * d)
            text = f"K = {k}: simulated times within 4 standard errors and {FINITE_SIZE:g}/d of theory ({name}; {worst:.1f}/d needed)"
            said.append((text, worst < FINITE_SIZE))
    for t in (t for t in data["t"].values if t in (0.3, 0.01)):
        later = log_ratio(data["theory_t"].sel(t=t).values[unequal][:, MEM])
        said.append((f"theory, K = 2, t = {t:g}: the class of higher variance is memorised last at every ratio", bool(np.all(later > 0))))
    return said


def _order(value: np.ndarray, error: np.ndarray, theory: np.ndarray, resolved: float) -> tuple[float, int]:
    """Least lead of class 0 over the last class in standard errors, over the cells whose log times theory sets apart; their number."""
    clear = theory[:, -1] - theory[:, 0] > resolved
    leads = (-log_ratio(value, 0, -1) / log_ratio_error(value, error, 0, -1))[clear]
    return float(np.min(leads, initial=np.inf)), int(clear.sum())


def table(data: xr.Dataset) -> str:
    rows = []
    for r in data["shown"].values:
        i, j = int(np.argmin(np.abs(np.log(data["ratio"].values / r)))), list(data["shown"].values).index(r)
        for k in (2, 3):
            sim, err = data[f"simulation_{k}"].values[j], data[f"error_{k}"].values[j]
            # theory at the grid ratio nearest to r; the grid holds r itself in the full run
            both = [(data[f"theory_{k}"].values[i, row], sim[row], err[row]) for row in (GEN, MEM)]
            text = [" / ".join(f"{v:.3g}" for v in theory) for theory, _, _ in both]
            seen = [" / ".join(f"{v:.3g} ± {e:.1g}" for v, e in zip(s, e_, strict=True)) for _, s, e_ in both]
            rows.append([f"{r:g}", str(k), text[0], seen[0], text[1], seen[1]])
    first = harness.markdown(["σ²_0/σ²_K-1", "K", "τ_gen theory", "τ_gen simulation", "τ_mem theory", "τ_mem simulation"], rows)
    last = data["theory_t"].isel(ratio=-1).values
    head = ["t", f"τ_gen,0/τ_gen,1 at ratio {data['ratio'].values[-1]:g}", "τ_mem,0/τ_mem,1"]
    second = [
        [f"{t:g}", f"{v[GEN, 0] / v[GEN, 1]:.3f}", f"{v[MEM, 0] / v[MEM, 1]:.3f}"] for t, v in zip(data["t"].values, last, strict=True)
    ]
    return f"{first}\n\n{harness.markdown(head, second)}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, k in zip(panels, (2, 3), strict=False):
        for c, color in enumerate(class_colors(k)):
            for row, style, marker, name in ((GEN, "-", "o", "tau_gen"), (MEM, "--", "s", "tau_mem")):
                label = f"{LABELS[name]}, class {c}"
                panel.plot(data["ratio"], data[f"theory_{k}"].values[:, row, c], style, color=color, label=label)
                value, error = data[f"simulation_{k}"].values[:, row, c], data[f"error_{k}"].values[:, row, c]
                panel.errorbar(data["shown"], value, error, fmt=marker, color=color, markersize=5, capsize=2)
        panel.set(xscale="log", yscale="log", xlabel=r"$\sigma^2_0\,/\,\sigma^2_{K-1}$", ylabel=r"training time $\tau$")
        panel.set_title(f"K = {k}, t = 0.1; points: networks, d = {int(data[f'dimension_{k}'])}", fontsize=10)
        panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(0.0, 0.55))
    for t, color, style in zip(data["t"].values, class_colors(len(data["t"])), ("-", "--", "-.", ":"), strict=False):
        panels[2].plot(data["ratio"], np.exp(log_ratio(data["theory_t"].sel(t=t).values[:, MEM])), style, color=color, label=f"t = {t:g}")
    panels[2].axhline(1, color="0.5", linewidth=0.8)
    panels[2].set(xscale="log", xlabel=r"$\sigma^2_0\,/\,\sigma^2_1$", ylabel=r"$\tau_{\rm mem,0}\,/\,\tau_{\rm mem,1}$")
    panels[2].set_title("theory, K = 2: order of memorisation", fontsize=10)
    panels[2].legend(fontsize=8)
    for panel in panels:
        panel.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        panel.minorticks_off()
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
