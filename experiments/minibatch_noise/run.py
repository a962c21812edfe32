"""The noise of small batches keeps classes from being learned, not from being memorised; averaging the weights undoes most of it.

SGD on batches of β d samples with fresh noise: the best score error of each class, its times, and the gap between test and train loss as
τ → ∞, which says how much of the training set a class has been fitted by. Isotropic classes, and classes in subspaces of their own.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, variables, with_error
from experiments.readings import isotropic, problem_of, subspaces, two_sizes
from rfdiff import GradientDescent, LearningCurves, MinibatchSGD, theory, times
from rfdiff.plots import class_colors

KINDS = {"isotropic": ([0.8, 0.2], [1.5, 0.5]), "subspaces": ([0.1, 0.9], [1.0, 1.0])}
STEP, SMALLEST, GAMMA = 1.0, 0.25, 0.99
READ = ("tau_gen", "tau_mem", "best score error", "final gap")
GEN, MEM, BEST, GAP = range(4)
TAUS = [3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
CURVES = ("score error", "gap")
RULES = {
    "whole gradient": GradientDescent(STEP),
    "SGD": MinibatchSGD(STEP, SMALLEST),
    "SGD, averaged": MinibatchSGD(STEP, SMALLEST, averaging=GAMMA),
}
TOLERANCE = 1e-4


def cell(kind: str, **rule: Any) -> dict[str, Any]:
    """A problem and a rule as plain data."""
    return {**(isotropic if kind == "isotropic" else subspaces)(*KINDS[kind]), "rule": rule}


def predicted(arguments: dict[str, Any]) -> dict[str, Any]:
    """`READ` (4, K) of the closed form; batch None is the whole gradient."""
    rule = dict(arguments["rule"])
    batch, step = rule.pop("batch"), rule.pop("step", STEP)
    chosen = GradientDescent(step) if batch is None else MinibatchSGD(step, batch, **rule)
    curves = theory.covering_curves(problem_of(arguments), (), rule=chosen, tolerance=TOLERANCE)[1]
    found = times(curves)
    gap = np.asarray(curves.test_loss - curves.train_loss)[-1]
    return {"value": np.stack([found.tau_gen, found.tau_mem, np.asarray(curves.score_error).min(0), gap])}


def largest_step(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"step": theory.sgd_stability(problem_of(arguments), rule=MinibatchSGD(STEP, 1.0)).largest_step}


def read(curves: LearningCurves) -> np.ndarray:
    """(2, T, K) `CURVES` at all training times."""
    return np.stack([np.asarray(curves.score_error), np.asarray(curves.test_loss) - np.asarray(curves.train_loss)])


def lines(arguments: dict[str, Any]) -> dict[str, Any]:
    """`CURVES` of a rule of `RULES` in theory, at the times of networks and at many."""
    rule = RULES[arguments["name"]]
    many = np.unique(np.rint(np.geomspace(1, 3000, 60)))
    at, shown = (theory.learning_curves(problem_of(arguments), taus, rule=rule, tolerance=TOLERANCE) for taus in (arguments["taus"], many))
    return {"value": read(at), "taus": many, "line": read(shown)}


def simulated(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same of networks of two sizes, trained step by step."""
    return two_sizes(arguments, read, arguments["taus"], RULES[arguments["name"]])


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    batches = [SMALLEST, 1.0, 8.0] if smoke else [float(b) for b in np.geomspace(SMALLEST, 16, 7)]
    shares = [0.5, 0.95] if smoke else [0.125, 0.25, 0.5, 0.7, 0.85, 0.95]
    d, seeds, taus = (20, 8, TAUS[:4]) if smoke else (40, 14, TAUS)  # class sizes are whole at d and at d/2
    kinds, k = list(KINDS), len(KINDS)
    whole = cells("theory", predicted, [cell(kind, batch=None) for kind in kinds])
    raw = cells("theory", predicted, [cell(kind, batch=b) for kind in kinds for b in batches])
    averaged = cells("theory", predicted, [cell(kind, batch=b, averaging=GAMMA) for kind in kinds for b in batches])
    steps = harness.stack(cells("stability", largest_step, [cell(kind) for kind in kinds]), "step")
    near = [cell(kind, batch=1.0, step=float(share * step)) for kind, step in zip(kinds, steps, strict=True) for share in shares]
    by_step = cells("theory", predicted, near)
    named = [cell(kind) | {"name": name, "taus": taus} for kind in kinds for name in RULES]
    drawn = cells("lines", lines, named)
    seen = cells("simulation", simulated, [one | {"d": d, "seeds": seeds} for one in named])
    dims, axes = ("reading", "class"), {"kind": k, "rule": len(RULES)}
    found = {
        "whole": (("kind", *dims), harness.stack(whole, "value")),
        "raw": (("kind", "batch", *dims), harness.stack(raw, "value", (k, len(batches)))),
        "averaged": (("kind", "batch", *dims), harness.stack(averaged, "value", (k, len(batches)))),
        "by_step": (("kind", "share", *dims), harness.stack(by_step, "value", (k, len(shares)))),
        "largest_step": ("kind", steps),
        "theory": (("kind", "rule", "curve", "tau", "class"), harness.stack(drawn, "value", (k, len(RULES)))),
        "line": (("kind", "rule", "curve", "many", "class"), harness.stack(drawn, "line", (k, len(RULES)))),
        **variables(seen, "networks", axes, ("curve", "tau", "class")),
    }
    coordinates = {"kind": kinds, "batch": batches, "share": shares, "reading": list(READ), "rule": list(RULES), "tau": taus,
                   "curve": list(CURVES), "many": drawn[0]["taus"]}  # fmt: skip
    setting = {"d": d, "seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "diffusion_time": 0.1, "activation": "tanh", "step": STEP}
    return xr.Dataset(found, coordinates, setting)


def _comparison(data: xr.Dataset) -> Comparison:
    """Logarithms of score error and gap (kind, rule, curve, tau, class)."""

    def logs(values: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(values)

    return compare(data, "networks", logs(data["theory"].values), logs, data.attrs["d"], cell_axes=2)


def _ratios(data: xr.Dataset, name: str, reading: int) -> np.ndarray:
    """A reading over that of the whole gradient (kind, batch or share, class)."""
    return np.asarray(data[name].values[:, :, reading] / data["whole"].values[:, None, reading])


def criteria(data: xr.Dataset) -> list[Criterion]:
    best, gap, late = (_ratios(data, "raw", reading) for reading in (BEST, GAP, MEM))
    worse, kept, delay = float(best[:, 0].min()), float(abs(gap - 1).max()), float(late.max())
    whole = data["whole"].values[:, BEST]
    left = (data["averaged"].values[:, 0, BEST] - whole) / (data["raw"].values[:, 0, BEST] - whole)
    share, by_step = data["share"].values, _ratios(data, "by_step", GAP)
    near, half = float(by_step[:, share == 0.95].min()), float(by_step[:, share == 0.5].min())
    networks = _comparison(data)
    calm, exchanged = networks.theory.copy(), networks.theory[..., ::-1]
    calm[:, 1:] = calm[:, :1]
    return [
        Criterion(f"theory, β = {SMALLEST:g}: best score error over that of the whole gradient", f"{worse:.2f}", "> 1.2", worse > 1.2),
        Criterion("theory, every β: change of the final gap between test and train loss", f"{kept:.1%}", "< 5 %", kept < 0.05),
        Criterion("theory, every β: τ_mem over that of the whole gradient", f"{delay:.3f}", "< 1.1", delay < 1.1),
        Criterion(
            f"theory, β = {SMALLEST:g}: part of the excess of the best score error that averaging leaves",
            f"{left.max():.2f}", "< 0.5", bool(left.max() < 0.5),
        ),
        Criterion("theory, 0.95 of the largest step: least final gap over that of the whole gradient", f"{near:.2f}", "< 0.8", near < 0.8),
        Criterion("theory, half of the largest step: the same", f"{half:.2f}", "> 0.95", half > 0.95),
        agreement("score errors and gaps", [networks]),
        rejection("score errors and gaps", [(networks, calm)], "a theory without the noise of the batches"),
        rejection("score errors and gaps", [(networks, exchanged)]),
    ]  # fmt: skip


def table(data: xr.Dataset) -> str:
    rows = []
    for i, kind in enumerate(data["kind"].values):
        for c in range(data.sizes["class"]):
            groups = {"whole gradient": data["whole"].values[i]}
            for name in ("raw", "averaged"):
                groups |= {f"β = {b:.3g}, {name}": data[name].values[i, j] for j, b in enumerate(data["batch"].values)}
            rows += [[kind, f"{c}", name, *(f"{v:.4g}" if np.isfinite(v) else "—" for v in value[:, c])] for name, value in groups.items()]
    first = harness.markdown(["classes", "class", "batches", "τ_gen", "τ_mem", "best score error", "final gap"], rows)
    networks, at = _comparison(data), []
    taus = data["tau"].values.tolist()
    shown = [(0, 1), (0, len(taus) - 1), (1, 3), (1, len(taus) - 1)]
    for i, kind in enumerate(data["kind"].values):
        for r, rule in enumerate(RULES):
            for c in range(data.sizes["class"]):
                row = [kind, f"{c}", rule]
                for curve, t in shown:
                    here = (i, r, curve, t, c)
                    row += [f"{np.exp(networks.theory[here]):.3f}", with_error(networks.limit[here], networks.error[here])]
                at.append(row)
    heads = [f"{('E', 'gap')[curve]} at τ = {taus[t]:g}{what}" for curve, t in shown for what in ("", ", d → ∞")]
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a rule, twice as many at d/2; β = {SMALLEST:g}, γ = {GAMMA:g}."
    return f"{first}\n\n{harness.markdown(['classes', 'class', 'rule', *heads], at)}\n\n{size}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    panels, colors, batches = figure.subplots(2, 3), class_colors(2), data["batch"].values
    for panel, kind, i in zip(panels[0], KINDS, range(2), strict=False):
        for c in range(2):
            label = f"class {c}, π = {KINDS[kind][0][c]:g}"
            panel.plot(batches, data["raw"].values[i, :, BEST, c], "-", color=colors[c], label=label)
            panel.plot(batches, data["averaged"].values[i, :, BEST, c], "--", color=colors[c])
            panel.axhline(float(data["whole"].values[i, BEST, c]), color=colors[c], linestyle=":", linewidth=1)
        for style, label in (("-", "last weights"), ("--", f"averaged, γ = {GAMMA:g}"), (":", "whole gradient")):
            panel.plot([], [], style, color="0.4", label=label)
        panel.set(xscale="log", yscale="log", xlabel=r"batch size over $d$, $\beta$", ylabel="best score error (theory)")
        panel.set_title(f"{kind}: learning", fontsize=10)
        panel.legend(fontsize=7)
    for i, (kind, style) in enumerate(zip(KINDS, ("-", "--"), strict=True)):
        for c in range(2):
            panels[0, 2].plot(data["share"], _ratios(data, "by_step", GAP)[i, :, c], style, color=colors[c], label=f"{kind}, class {c}")
    panels[0, 2].axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    panels[0, 2].set(xlabel="step over the largest stable one", ylabel="final gap over that of the whole gradient")
    panels[0, 2].set_title(r"memorisation, $\beta = 1$ (theory)", fontsize=10)
    panels[0, 2].legend(fontsize=7)
    for reading, name, style in ((GEN, r"$\tau_{\rm gen}$", "--"), (MEM, r"$\tau_{\rm mem}$", "-")):
        for c in range(2):
            panels[1, 0].plot(batches, data["raw"].values[0, :, reading, c], style, color=colors[c], label=f"{name}, class {c}")
    panels[1, 0].set(xscale="log", yscale="log", xlabel=r"batch size over $d$, $\beta$", ylabel=r"training time $\tau$")
    panels[1, 0].set_title("isotropic: times (theory); a line that ends: never learned", fontsize=10)
    panels[1, 0].legend(fontsize=7)
    for panel in (*panels[0, :2], panels[1, 0]):
        panel.set_xticks([0.25, 1, 4, 16], ["1/4", "1", "4", "16"])
        panel.xaxis.minorticks_off()
    networks = _comparison(data)
    for panel, curve in zip(panels[1, 1:], range(2), strict=True):
        for r, (style, marker) in enumerate(zip((":", "-", "--"), ("^", "o", "s"), strict=True)):
            for c in range(2):
                panel.plot(data["many"], data["line"].values[0, r, curve, :, c], style, color=colors[c])
                points(panel, data["tau"].values, networks, (0, r, curve, slice(None), c), marker, colors[c])
            panel.plot([], [], style + marker, color="0.4", label=list(RULES)[r])
        panel.set(xscale="log", yscale="log", xlabel=r"training time $\tau$")
        panel.set_title(f"isotropic: {CURVES[curve]}, β = {SMALLEST:g}; points: networks", fontsize=10)
        panel.legend(fontsize=7)
    panels[1, 1].set_ylabel("score error")
    panels[1, 2].set_ylabel("test loss - train loss")
    panels[1, 2].set_ylim(1e-3, 2)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
