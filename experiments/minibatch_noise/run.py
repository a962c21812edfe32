"""The noise of small batches keeps classes from being learned, not from being memorised; averaging the weights undoes most of the harm of
batches of d/4.

SGD on batches of β d samples with fresh noise: the best score error of each class, its times, and the gap between test and train loss as
τ → ∞, which says how much better the network fits the samples of a class than new ones. The best score error is over all of training, the
untrained network included. Isotropic classes, and classes in subspaces of their own.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
NAMES = {"raw": "last weights", "averaged": f"averaged, γ = {GAMMA:g}"}  # of the weights that are measured, as the dataset calls them
FONT = 9.5


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
    best = np.minimum(np.asarray(curves.score_error).min(0), untrained(arguments["law"], problem_of(arguments).t))
    return {"value": np.stack([found.tau_gen, found.tau_mem, best, gap])}


def untrained(law: dict[str, Any], t: float) -> np.ndarray:
    """Score errors (K,) before training: the mean square of the exact score of centred classes, Σ_g w_g/(e^{-2t} λ_gc + 1 - e^{-2t})."""
    kept = np.exp(-2 * t)
    return np.asarray(np.asarray(law["eigenvalue_weights"]) @ (1 / (kept * np.asarray(law["eigenvalues"]) + 1 - kept)))


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


def _readings(data: xr.Dataset, name: str) -> np.ndarray:
    """`READ` (kind, [batch or share,] reading, class), with the untrained network among those that the best score error is of."""
    values = data[name].values.copy()
    start = np.stack([untrained(cell(kind)["law"], data.attrs["diffusion_time"]) for kind in KINDS])
    values[..., BEST, :] = np.minimum(values[..., BEST, :], start if values.ndim == 3 else start[:, None])
    return np.asarray(values)


def _ratios(data: xr.Dataset, name: str, reading: int) -> np.ndarray:
    """A reading over that of the whole gradient (kind, batch or share, class)."""
    return _readings(data, name)[:, :, reading] / _readings(data, "whole")[:, None, reading]


def criteria(data: xr.Dataset) -> list[Criterion]:
    best, gap, late = (_ratios(data, "raw", reading) for reading in (BEST, GAP, MEM))
    worse, kept, delay = float(best[:, 0].min()), float(abs(gap - 1).max()), float(late.max())
    whole, raw, averaged = (_readings(data, name)[..., BEST, :] for name in ("whole", "raw", "averaged"))
    left = (averaged[:, 0] - whole) / (raw[:, 0] - whole)
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
        agreement("logarithms of score errors and gaps", [networks]),
        rejection("score errors and gaps", [(networks, calm)], "a theory without the noise of the batches"),
        rejection("score errors and gaps", [(networks, exchanged)]),
    ]  # fmt: skip


def table(data: xr.Dataset) -> str:
    rows = []
    for i, kind in enumerate(data["kind"].values):
        for c in range(data.sizes["class"]):
            groups = {"whole gradient": _readings(data, "whole")[i]}
            for name, words in NAMES.items():
                groups |= {f"β = {b:.3g}, {words}": _readings(data, name)[i, j] for j, b in enumerate(data["batch"].values)}
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
    start = ", ".join(f"{e:.4g}" for kind in KINDS for e in untrained(cell(kind)["law"], data.attrs["diffusion_time"]))
    first += f"\n\n—: never learned. Score errors of the untrained network, in the order of the table: {start}."
    rest = np.isnan(networks.out())
    left_out = f"{rest.sum()} of {rest.size} values are left out of the comparison: gaps that are not positive in theory or in networks."
    return f"{first}\n\n{harness.markdown(['classes', 'class', 'rule', *heads], at)}\n\n{size} {left_out}"


def _colors(kind: str) -> list[Any]:
    """Colours of the classes: the same one for the rarer class of either kind."""
    rare, frequent = class_colors(2)
    weights = KINDS[kind][0]
    return [rare if weight == min(weights) else frequent for weight in weights]


def _finish(panel: Axes, title: str, x: str, y: str) -> None:
    """Words and a logarithmic scale with numbers at 1, 2 and 5 times powers of ten."""
    panel.set_title(title, fontsize=FONT + 1)
    panel.set_xlabel(x, fontsize=FONT)
    panel.set_ylabel(y, fontsize=FONT)
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(labelsize=FONT)


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(9.6, 14.5), layout="constrained")
    panels = figure.subplots(4, 2)
    for panel, kind in zip(panels[0], KINDS, strict=True):
        _draw_best(panel, data, kind)
    _draw_times(panels[1, 0], data)
    _draw_gaps(panels[1, 1], data)
    networks = _comparison(data)
    for row, kind in zip(panels[2:], KINDS, strict=True):
        for panel, curve in zip(row, range(len(CURVES)), strict=True):
            _draw_networks(panel, data, networks, kind, curve)
    panels[2, 0].legend(fontsize=FONT)
    entries = [
        *(panels[0, 0].plot([], [], color=color, linewidth=3, label=f"{words} class")[0]
          for color, words in zip(class_colors(2), ("rarer", "more frequent"), strict=True)),
        panels[0, 0].plot([], [], linestyle="", marker="o", color="0.3", label="networks at d")[0],
        panels[0, 0].plot([], [], linestyle="", marker="o", color="0.3", markerfacecolor="none", label="networks at d → ∞")[0],
    ]  # fmt: skip
    figure.legend(handles=entries, loc="outside lower center", ncols=4, fontsize=FONT, frameon=False)
    return figure


def _draw_best(panel: Axes, data: xr.Dataset, kind: str) -> None:
    """Best score error against the batch size."""
    i, batches = list(KINDS).index(kind), data["batch"].values
    for c, color in enumerate(_colors(kind)):
        for name, style in zip(NAMES, ("-", "--"), strict=True):
            panel.plot(batches, _readings(data, name)[i, :, BEST, c], style, color=color)
        panel.axhline(float(_readings(data, "whole")[i, BEST, c]), color=color, linestyle=":", linewidth=1.2)
    for style, words in zip(("-", "--", ":"), (*NAMES.values(), "whole gradient"), strict=True):
        panel.plot([], [], style, color="0.4", label=words)
    panel.set(xscale="log")
    fractions = ", ".join(f"{weight:g}" for weight in KINDS[kind][0])
    _finish(panel, f"{kind}, π = ({fractions}): learning (theory)", r"batch size over $d$, $\beta$", "best score error")
    _batch_ticks(panel)
    if kind == "isotropic":
        panel.legend(fontsize=FONT)


def _batch_ticks(panel: Axes) -> None:
    panel.set_xticks([0.25, 1, 4, 16], ["1/4", "1", "4", "16"])
    panel.xaxis.minorticks_off()


def _draw_times(panel: Axes, data: xr.Dataset) -> None:
    """Times of the isotropic classes against the batch size."""
    for reading, name, style in ((MEM, r"$\tau_{\rm mem}$", "-"), (GEN, r"$\tau_{\rm gen}$ (ends: never learned)", "--")):
        for c, color in enumerate(_colors("isotropic")):
            panel.plot(data["batch"], data["raw"].values[0, :, reading, c], style, color=color)
        panel.plot([], [], style, color="0.4", label=name)
    panel.set(xscale="log")
    _finish(panel, "isotropic: times (theory)", r"batch size over $d$, $\beta$", r"training time $\tau$")
    _batch_ticks(panel)
    panel.legend(fontsize=FONT, loc="center right")


def _draw_gaps(panel: Axes, data: xr.Dataset) -> None:
    """Final gap against the step."""
    for i, (kind, style) in enumerate(zip(KINDS, ("-", "--"), strict=True)):
        for c, color in enumerate(_colors(kind)):
            panel.plot(data["share"], _ratios(data, "by_step", GAP)[i, :, c], style, color=color)
        panel.plot([], [], style, color="0.4", label=kind)
    panel.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    _finish(panel, r"memorisation, $\beta = 1$ (theory)", "step over the largest stable one", "final gap over that of the whole gradient")
    panel.set_yscale("linear")
    panel.legend(fontsize=FONT)


def _draw_networks(panel: Axes, data: xr.Dataset, networks: Comparison, kind: str, curve: int) -> None:
    """Score error or gap along training under each rule: theory and networks."""
    i = list(KINDS).index(kind)
    for r, (style, marker) in enumerate(zip((":", "-", "--"), ("^", "o", "s"), strict=True)):
        for c, color in enumerate(_colors(kind)):
            panel.plot(data["many"], data["line"].values[i, r, curve, :, c], style, color=color)
            points(panel, data["tau"].values, networks, (i, r, curve, slice(None), c), marker, color)
        panel.plot([], [], style + marker, color="0.4", label=list(RULES)[r])
    panel.set(xscale="log")
    words = ("score error", "test loss - train loss")[curve]
    if CURVES[curve] == "gap":
        panel.set_ylim(1e-3, 4)
    _finish(panel, rf"{kind}: {CURVES[curve]}, $\beta = {SMALLEST:g}$", r"training time $\tau$", words)


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
