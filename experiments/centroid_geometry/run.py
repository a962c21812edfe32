"""At equal variances the class with the smaller centroid generalises first, but the length of a centroid matters at most a quarter as much
as the variance of the class.

Two classes of equal fractions and (but for the yardstick) variance 1. Elasticities e = d log(τ_0/τ_1) / d log x at the symmetric point,
x the ratio of the squared centroid norms, or of the variances, at constant product: derivatives of the closed form (`theory.sensitivity`).
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, same_order, variables
from experiments.readings import GEN, LABELS, MEM, ROWS, isotropic, log_ratio, predicted, problem_of, simulated
from rfdiff import theory
from rfdiff.plots import class_colors

TOLERANCE = 1e-5  # of the losses behind the derivatives
RATIOS = ("norm_ratio", "variance_ratio")


def cell(norm: float, norm_ratio: float = 1.0, variance_ratio: float = 1.0, cosine: float = 0.0) -> dict[str, Any]:
    """Squared norms over d `norm` times √ratio and 1/√ratio, variances likewise around 1, angle between the centroids by its cosine."""
    one, other = norm * norm_ratio**0.5, norm * norm_ratio**-0.5
    gram = [[one, cosine * norm], [cosine * norm, other]]
    return isotropic([0.5, 0.5], [variance_ratio**0.5, variance_ratio**-0.5], gram)


def derivatives(arguments: dict[str, Any]) -> dict[str, Any]:
    """d log(τ_0/τ_1) / d log x (2 ratios x, 2 times), and d log τ / d cos of the angle (2 times, class), at a symmetric point.

    A ratio x at constant product moves one class by √x and the other by 1/√x.
    """
    found = theory.sensitivity(problem_of(arguments), tolerance=TOLERANCE)
    norm = arguments["law"]["centroid_gram"][0][0]
    names = ("tau_gen", "tau_mem")
    ratio = [[float(np.diff(getattr(found.elasticities[f"{of}_1"], name) - getattr(found.elasticities[f"{of}_0"], name))[0]) / 2
              for name in names] for of in ("centroid_norm", "variance")]  # fmt: skip
    gram = [getattr(found.gram_derivatives, name) for name in names]
    return {"ratio": ratio, "cosine": [norm * (slope[:, 0, 1] + slope[:, 1, 0]) for slope in gram]}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    norms = [0.25] if smoke else [0.25, 1.0]
    ratios = [0.25, 1.0, 4.0] if smoke else [float(r) for r in np.geomspace(0.125, 8, 7)]
    cosines = [] if smoke else [-0.9, -0.5, 0.0, 0.5, 0.9]
    shown, d, seeds = ([4.0], 20, 16) if smoke else ([0.25, 4.0], 40, 24)
    tilted = [] if smoke else [0.5, 0.9]
    slopes = cells("elasticities", derivatives, [cell(n) for n in norms] + [cell(norms[-1], cosine=c) for c in tilted])
    base = norms[-1]
    found = {
        "elasticity": (("norm", "of", "time"), harness.stack(slopes[: len(norms)], "ratio")),
        "angle_slope": (("tilted", "time", "class"), np.array([cell["cosine"] for cell in slopes[len(norms) :]]).reshape(-1, 2, 2)),
    }
    axes = {
        "norm": norms,
        "of": list(RATIOS),
        "time": ["tau_gen", "tau_mem"],
        "ratio": ratios,
        "cosine": cosines,
        "tilted": tilted,
        "shown": shown,
        "reading": list(ROWS),
    }
    for name in RATIOS:
        lines = cells("theory", predicted, [cell(base, **{name: r}) for r in ratios])
        networks = cells("simulation", simulated, [cell(base, **{name: r}) | {"d": d, "seeds": seeds} for r in shown])
        found[name] = (("ratio", "reading", "class"), harness.stack(lines, "value"))
        found |= variables(networks, name, {"shown": len(shown)}, ("reading", "class"))
    angles = [harness.stack(cells("angle", predicted, [cell(base, x, 1.0, c) for c in cosines]), "value") for x in (1.0, 4.0) if cosines]
    found["angle"] = (("angle_ratio", "cosine", "reading", "class"), np.stack(angles) if angles else np.zeros((2, 0, len(ROWS), 2)))
    setting = {"d": d, "seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh"}
    return xr.Dataset(found, {**axes, "angle_ratio": [1.0, 4.0]}, setting)


def _comparison(data: xr.Dataset, name: str, row: int, ratio: bool) -> Comparison:
    """Networks against theory: log ratios of the times, or the log times of each class."""

    def read(values: np.ndarray) -> np.ndarray:
        return log_ratio(values[..., row, :]) if ratio else np.log(values[..., row, :])

    return compare(data, name, read(data[name].sel(ratio=data["shown"].values, method="nearest").values), read, data.attrs["d"])


def criteria(data: xr.Dataset) -> list[Criterion]:
    e = data["elasticity"].values
    relative, norm_gen, norm_mem, variance_gen = float(np.max(abs(e[:, 0, 0] / e[:, 1, 0]))), e[:, 0, 0], e[:, 0, 1], e[:, 1, 0]
    judged = [
        Criterion("theory: elasticity of τ_gen to the squared norm (smaller centroid first)", f"{norm_gen.min():+.3f}", "> 0",
                  bool(np.all(norm_gen > 0))),
        Criterion("theory: elasticity of τ_gen to the variance (higher variance first)", f"{variance_gen.max():+.3f}", "< 0",
                  bool(np.all(variance_gen < 0))),
        Criterion("theory: ratio of the two, norm over variance", f"{relative:.3f}", "< 0.25", relative < 0.25),
        Criterion("theory: elasticity of τ_mem to the squared norm (smaller centroid first)", f"{norm_mem.min():+.3f}", "> 0",
                  bool(np.all(norm_mem > 0))),
    ]  # fmt: skip
    if data.sizes["tilted"]:
        slope, norm = float(np.max(abs(data["angle_slope"].values[:, 0]))), abs(float(norm_gen[-1]))
        judged.append(Criterion("theory: effect of the angle on τ_gen, |d log τ_gen/d cos|", f"{slope:.3f}", f"< {norm:.3f}", slope < norm))
    gen, mem, leads = ([_comparison(data, name, row, ratio) for name in RATIOS] for row, ratio in ((GEN, False), (MEM, False), (GEN, True)))
    return [
        *judged,
        agreement("τ_gen", gen),
        rejection("τ_gen", [(each, each.theory[:, ::-1]) for each in gen]),
        agreement("τ_mem", mem),
        same_order("τ_gen", leads),
    ]


def table(data: xr.Dataset) -> str:
    rows = []
    for norm, e in zip(data["norm"].values, data["elasticity"].values, strict=True):
        for i, name in enumerate(("τ_gen", "τ_mem")):
            rows.append([f"{norm:g}", name, f"{e[0, i]:+.3f}", f"{e[1, i]:+.3f}", f"{e[0, i] / e[1, i]:+.2f}"])
    head = ["squared norm over d", "time", "e_norm = d log(τ_0/τ_1)/d log(|μ_0|²/|μ_1|²)", "e_variance, same with σ²", "e_norm/e_variance"]
    tables = [harness.markdown(head, rows)]
    if data.sizes["cosine"]:
        angles = []
        for c, one, four in zip(data["cosine"].values, *data["angle"].values, strict=True):
            ratios = [f"{np.exp(log_ratio(four)[row]):.3f}" for row in (GEN, MEM)]
            slope = data["angle_slope"].sel(tilted=c).values[:, 0] if c in data["tilted"].values else []
            angles.append([f"{c:g}", f"{one[GEN, 0]:.3f}", f"{one[MEM, 0]:.0f}", *ratios, *([f"{v:+.3f}" for v in slope] or ["", ""])])
        head = ["cosine", "τ_gen of both, equal norms", "τ_mem of both", "τ_gen,0/τ_gen,1 at norm² ratio 4", "τ_mem,0/τ_mem,1",
                "d log τ_gen/d cos, equal norms", "d log τ_mem/d cos"]  # fmt: skip
        tables.append(harness.markdown(head, angles))
    seen = []
    for name in RATIOS:
        for j, r in enumerate(data["shown"].values):
            row = [name.replace("_", " "), f"{r:g}"]
            for reading in (GEN, MEM):
                found = _comparison(data, name, reading, ratio=True)
                row.append(f"{found.theory[j]:+.3f}")
                row += [f"{v[j]:+.3f} ± {e[j]:.3f}" for v, e in ((found.seen, found.seen_error), (found.limit, found.error))]
            seen.append(row)
    head = ["ratio of class 0 to class 1", "", *(f"log(τ_0/τ_1), {s}: {side}" for s in ("τ_gen", "τ_mem")
            for side in ("theory", "networks at d", "d → ∞"))]  # fmt: skip
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a point, twice as many at d/2."
    return "\n\n".join([*tables, harness.markdown(head, seen), size])


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    names = {"norm_ratio": r"$|\mu_0|^2/|\mu_1|^2$", "variance_ratio": r"$\sigma^2_0/\sigma^2_1$"}
    for (name, label), color in zip(names.items(), class_colors(4)[2:], strict=True):  # not the colours of the classes
        for row, style, marker, kind in ((GEN, "-", "o", "tau_gen"), (MEM, "--", "s", "tau_mem")):
            panels[0].plot(
                data["ratio"], np.exp(log_ratio(data[name].values[:, row])), style, color=color, label=f"{LABELS[kind]} against {label}"
            )
            points(panels[0], data["shown"].values, _comparison(data, name, row, ratio=True), slice(None), marker, color)
    for face, label in (("0.3", f"networks, d = {data.attrs['d']}"), ("none", r"networks, $d\to\infty$")):
        panels[0].plot([], [], "o", color="0.3", markerfacecolor=face, label=label)
    panels[0].axhline(1, color="0.5", linewidth=0.8)
    panels[0].set(xscale="log", yscale="log", xlabel="ratio of class 0 to class 1", ylabel=r"$\tau_0/\tau_1$")
    panels[0].minorticks_off()
    panels[0].set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    panels[0].set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    panels[0].set_title(rf"orthogonal centroids, $|\mu|^2/d$ = {data['norm'].values[-1]:g}, $\sigma^2$ = 1 else", fontsize=9)
    panels[0].legend(fontsize=7.5, loc="lower left")
    both, apart = data["angle"].values[:, :, GEN]
    panels[1].plot(data["cosine"], both[:, 0], "-", color="0.3", marker=".", label="both classes, equal norms")
    for c, (color, style) in enumerate(zip(class_colors(2), ("--", "-."), strict=True)):
        panels[1].plot(data["cosine"], apart[:, c], style, color=color, marker=".", label=rf"class {c}, $|\mu_0|^2/|\mu_1|^2$ = 4")
    panels[1].set(xlabel="cosine of the angle between the centroids", ylabel=LABELS["tau_gen"])
    panels[1].set_title("theory, equal variances", fontsize=9)
    panels[1].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0.4))
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
