"""At equal variances the class of smaller centroid generalises first, several times more weakly than a class of higher variance does.

Two classes of equal fractions and (but for the yardstick) variance 1. Elasticities e = d log(τ_0/τ_1) / d log x at the symmetric point,
x the ratio of the squared centroid norms, or of the variances, by central differences of the closed form.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.readings import GEN, LABELS, MEM, ROWS, isotropic, log_ratio, log_ratio_error, predicted, simulated
from rfdiff.plots import class_colors

STEP = 0.1  # of log x in the central differences; the error of the elasticity is of order STEP^2
FINITE_SIZE = 4.0  # log(τ_0/τ_1) at dimension d may be off by this over d


def cell(norm: float, norm_ratio: float = 1.0, variance_ratio: float = 1.0, cosine: float = 0.0) -> dict[str, Any]:
    """Squared norms over d `norm` times √ratio and 1/√ratio, variances likewise around 1, angle between the centroids by its cosine."""
    one, other = norm * norm_ratio**0.5, norm * norm_ratio**-0.5
    gram = [[one, cosine * norm], [cosine * norm, other]]
    return isotropic([0.5, 0.5], [variance_ratio**0.5, variance_ratio**-0.5], gram)


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    norms = [0.25] if smoke else [0.25, 1.0]
    ratios = [0.25, 4.0] if smoke else [float(r) for r in np.geomspace(0.125, 8, 7)]
    cosines = [] if smoke else [-0.9, -0.5, 0.0, 0.5, 0.9]
    shown, d, seeds = ([4.0], 20, 6) if smoke else ([0.25, 4.0], 40, 10)
    up = float(np.exp(STEP))
    steps = [cell(n, **{name: x}) for n in norms for name in ("norm_ratio", "variance_ratio") for x in (1 / up, up)]
    pairs = harness.stack(cells("elasticities", predicted, steps), "value", (len(norms), 2, 2))
    elasticity = (log_ratio(pairs[:, :, 1]) - log_ratio(pairs[:, :, 0])) / (2 * STEP)
    base = norms[-1]
    found = {"elasticity": (("norm", "of", "reading"), elasticity)}
    axes = {
        "norm": norms,
        "of": ["norm_ratio", "variance_ratio"],
        "ratio": ratios,
        "cosine": cosines,
        "shown": shown,
        "reading": list(ROWS),
    }
    for name in ("norm_ratio", "variance_ratio"):
        lines = cells("theory", predicted, [cell(base, **{name: r}) for r in ratios])
        networks = cells("simulation", simulated, [cell(base, **{name: r}) | {"d": d, "seeds": seeds} for r in shown])
        found[name] = (("ratio", "reading", "class"), harness.stack(lines, "value"))
        found[f"{name}_simulation"] = (("shown", "reading", "class"), harness.stack(networks, "value"))
        found[f"{name}_error"] = (("shown", "reading", "class"), harness.stack(networks, "error"))
    angles = [harness.stack(cells("angle", predicted, [cell(base, x, 1.0, c) for c in cosines]), "value") for x in (1.0, 4.0) if cosines]
    found["angle"] = (("angle_ratio", "cosine", "reading", "class"), np.stack(angles) if angles else np.zeros((2, 0, len(ROWS), 2)))
    setting = {"d": d, "seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh", "step": STEP}
    return xr.Dataset(found, {**axes, "angle_ratio": [1.0, 4.0]}, setting)


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    e = data["elasticity"].values
    relative = abs(e[:, 0, GEN] / e[:, 1, GEN])
    said = [
        ("theory: the class of smaller centroid generalises first (elasticity of τ_gen to the squared norm > 0)",
         bool(np.all(e[:, 0, GEN] > 0))),
        ("theory: the class of higher variance generalises first (elasticity < 0)", bool(np.all(e[:, 1, GEN] < 0))),
        (f"theory: on τ_gen the norm acts at most a quarter as strongly as the variance (largest: {np.max(relative):.3f})",
         bool(np.all(relative < 0.25))),
        ("theory: the class of smaller centroid is memorised first (elasticity of τ_mem to the squared norm > 0)",
         bool(np.all(e[:, 0, MEM] > 0))),
    ]  # fmt: skip
    d = data.attrs["d"]
    for name in ("norm_ratio", "variance_ratio"):
        seen, error = data[f"{name}_simulation"].values[:, GEN], data[f"{name}_error"].values[:, GEN]
        expected = log_ratio(data[name].sel(ratio=data["shown"].values, method="nearest").values[:, GEN])
        lead, bar = log_ratio(seen), log_ratio_error(seen, error)
        worst = max(float(np.max(abs(lead - expected) - 4 * bar)) * d, 0.0)
        said.append((f"simulation, d = {d}, {name}: log(τ_gen,0/τ_gen,1) within 4 standard errors and {FINITE_SIZE:g}/d of theory"
                     f" ({worst:.1f}/d needed)", worst < FINITE_SIZE))  # fmt: skip
        said.append(
            (f"simulation, {name}: the order of theory, by more than 3 standard errors", bool(np.all(lead * np.sign(expected) > 3 * bar)))
        )
    return said


def table(data: xr.Dataset) -> str:
    rows = []
    for norm, e in zip(data["norm"].values, data["elasticity"].values, strict=True):
        for row, name in ((GEN, "τ_gen"), (MEM, "τ_mem")):
            rows.append([f"{norm:g}", name, f"{e[0, row]:+.3f}", f"{e[1, row]:+.3f}", f"{e[0, row] / e[1, row]:+.2f}"])
    head = ["squared norm over d", "time", "e_norm = d log(τ_0/τ_1)/d log(|μ_0|²/|μ_1|²)", "e_variance, same with σ²", "e_norm/e_variance"]
    first = harness.markdown(head, rows)
    if not data.sizes["cosine"]:
        return first
    angles = []
    for c, one, four in zip(data["cosine"].values, *data["angle"].values, strict=True):
        ratios = [f"{np.exp(log_ratio(four)[row]):.3f}" for row in (GEN, MEM)]
        angles.append([f"{c:g}", f"{one[GEN, 0]:.3f}", f"{one[MEM, 0]:.0f}", *ratios])
    head = ["cosine", "τ_gen of both, equal norms", "τ_mem of both", "τ_gen,0/τ_gen,1 at norm² ratio 4", "τ_mem,0/τ_mem,1"]
    return f"{first}\n\n{harness.markdown(head, angles)}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    names = {"norm_ratio": r"$|\mu_0|^2/|\mu_1|^2$", "variance_ratio": r"$\sigma^2_0/\sigma^2_1$"}
    for (name, label), color, marker in zip(names.items(), class_colors(2), ("o", "s"), strict=True):
        for row, style, kind in ((GEN, "-", "tau_gen"), (MEM, "--", "tau_mem")):
            panels[0].plot(
                data["ratio"], np.exp(log_ratio(data[name].values[:, row])), style, color=color, label=f"{LABELS[kind]} against {label}"
            )
        seen, error = data[f"{name}_simulation"].values[:, GEN], data[f"{name}_error"].values[:, GEN]
        value = np.exp(log_ratio(seen))
        panels[0].errorbar(data["shown"], value, value * log_ratio_error(seen, error), fmt=marker, color=color, markersize=5, capsize=2,
                           label=rf"{LABELS['tau_gen']}, networks, d = {data.attrs['d']}")  # fmt: skip
    panels[0].axhline(1, color="0.5", linewidth=0.8)
    panels[0].set(xscale="log", yscale="log", xlabel="ratio of class 0 to class 1", ylabel=r"$\tau_0/\tau_1$")
    panels[0].minorticks_off()
    panels[0].set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    panels[0].set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    panels[0].set_title(rf"orthogonal centroids, $|\mu|^2/d$ = {data['norm'].values[-1]:g}, $\sigma^2$ = 1 else", fontsize=9)
    panels[0].legend(fontsize=7)
    for values, ratio, style in zip(data["angle"].values, data["angle_ratio"].values, ("-", "--"), strict=True):
        for c, color in enumerate(class_colors(2)):
            label = rf"class {c}, $|\mu_0|^2/|\mu_1|^2$ = {ratio:g}"
            panels[1].plot(data["cosine"], values[:, GEN, c], style, color=color, marker=".", label=label)
    panels[1].set(xlabel="cosine of the angle between the centroids", ylabel=LABELS["tau_gen"])
    panels[1].set_title("theory, equal variances", fontsize=9)
    panels[1].legend(fontsize=7)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
