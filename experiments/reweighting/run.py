"""A rare class with directions of its own learns a little better by a larger weight in the loss or by more samples, and both cost the other
class more; but only samples keep it from overfitting.

Class 0 has a tenth of the samples. Its weight ω_0 in the training loss is raised at fixed samples, or its samples are multiplied until it
has as many as class 1, each class weighing as many as it has. Classes in subspaces of their own beside isotropic ones of equal variance;
and SGD on batches that are balanced by class, or weighted.
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
from experiments.readings import closed_form, isotropic, problem_of, subspaces, two_sizes
from rfdiff import GradientDescent, LearningCurves, MinibatchSGD, theory
from rfdiff.plots import class_colors

FONT = 9.5
KINDS = {"subspaces": subspaces, "isotropic": isotropic}
MINORITY, MOST = 0.1, 9.0  # fraction of class 0, and the factor at which it has as many samples as class 1
MOMENTS = ("best", "converged")
STEP, BATCH, HALF = 1.0, 1.0, 0.5
SAMPLINGS = ("uniform", "balanced", "weighted")  # uniform: without weights in the loss
TAUS = [2.0, 10.0, 40.0, 160.0]


def weighted(kind: str, weight: float) -> dict[str, Any]:
    """The weight of class 0 in the loss at fixed samples."""
    return KINDS[kind]([MINORITY, 1 - MINORITY], [1.0, 1.0]) | {"loss_weights": [weight, 1 - weight]}


def more(kind: str, factor: float) -> dict[str, Any]:
    """So many times the samples of class 0, those of class 1 as they were."""
    total = factor * MINORITY + 1 - MINORITY
    return KINDS[kind]([factor * MINORITY / total, (1 - MINORITY) / total], [1.0, 1.0], psi_n=4.0 * total)


def drawn(sampling: str) -> dict[str, Any]:
    """Classes in subspaces, trained on batches."""
    return weighted("subspaces", MINORITY if sampling == "uniform" else HALF) | {"sampling": sampling}


def errors(curves: LearningCurves) -> np.ndarray:
    """Score errors (2, K), `MOMENTS`: each class at its own best, and as τ → ∞."""
    error = np.asarray(curves.score_error)
    return np.stack([error.min(axis=0), error[-1]])


def predicted(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"value": errors(closed_form(arguments))}


def simulated(arguments: dict[str, Any]) -> dict[str, Any]:
    return two_sizes(arguments, errors)


def score_error(curves: LearningCurves) -> np.ndarray:
    return np.asarray(curves.score_error)


def rule(arguments: dict[str, Any]) -> MinibatchSGD:
    return MinibatchSGD(STEP, BATCH, sampling=arguments["sampling"])


def lines(arguments: dict[str, Any]) -> dict[str, Any]:
    """Score errors (T, K) under SGD in theory at the times of networks, at many, and without the noise of the batches."""
    problem, many = problem_of(arguments), np.unique(np.rint(np.geomspace(1, 1000, 50)))
    asked = {"value": (TAUS, rule(arguments)), "line": (many, rule(arguments)), "calm": (TAUS, GradientDescent(STEP))}
    found = {name: theory.learning_curves(problem, taus, rule=one, tolerance=1e-4) for name, (taus, one) in asked.items()}
    return {"many": many, **{name: score_error(curves) for name, curves in found.items()}}


def on_batches(arguments: dict[str, Any]) -> dict[str, Any]:
    return two_sizes(arguments, score_error, TAUS, rule(arguments))


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    weights = [MINORITY, 0.5] if smoke else [0.02, 0.05, MINORITY, *(float(w) for w in np.round(np.arange(0.2, 0.91, 0.1), 3))]
    factors = [1.0, MOST] if smoke else [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, MOST]
    shown_weights, shown_factors = ([0.5], [MOST]) if smoke else ([MINORITY, 0.5, 0.9], [4.0, MOST])
    # class sizes are whole at d and at d/2; the term in 1/d is large where a class with a small weight has converged
    k, size = len(KINDS), {"d": 20, "seeds": 8} if smoke else {"d": 80, "seeds": 10}
    batch_size = {"d": 20, "seeds": 10} if smoke else {"d": 40, "seeds": 28}
    by_weight = cells("theory", predicted, [weighted(kind, w) for kind in KINDS for w in weights])
    by_samples = cells("theory", predicted, [more(kind, f) for kind in KINDS for f in factors])
    at_weight = cells("theory", predicted, [weighted(kind, w) for kind in KINDS for w in shown_weights])
    at_samples = cells("theory", predicted, [more(kind, f) for kind in KINDS for f in shown_factors])
    seen_weight = cells("simulation", simulated, [weighted(kind, w) | size for kind in KINDS for w in shown_weights])
    seen_samples = cells("simulation", simulated, [more(kind, f) | size for kind in KINDS for f in shown_factors])
    batches = cells("batches in theory", lines, [drawn(sampling) for sampling in SAMPLINGS])
    seen = cells("batches", on_batches, [drawn(sampling) | batch_size for sampling in SAMPLINGS])
    dims = ("moment", "class")
    found = {
        "by_weight": (("kind", "weight", *dims), harness.stack(by_weight, "value", (k, len(weights)))),
        "by_samples": (("kind", "factor", *dims), harness.stack(by_samples, "value", (k, len(factors)))),
        "at_weight": (("kind", "shown_weight", *dims), harness.stack(at_weight, "value", (k, len(shown_weights)))),
        "at_samples": (("kind", "shown_factor", *dims), harness.stack(at_samples, "value", (k, len(shown_factors)))),
        **variables(seen_weight, "weighted", {"kind": k, "shown_weight": len(shown_weights)}, dims),
        **variables(seen_samples, "more", {"kind": k, "shown_factor": len(shown_factors)}, dims),
        "batch_theory": (("sampling", "tau", "class"), harness.stack(batches, "value")),
        "batch_line": (("sampling", "many", "class"), harness.stack(batches, "line")),
        "batch_calm": (("sampling", "tau", "class"), harness.stack(batches, "calm")),
        **{name: (dims, values, {}) for name, (dims, values) in variables_of_batches(seen).items()},
    }
    coordinates = {"kind": list(KINDS), "weight": weights, "factor": factors, "shown_weight": shown_weights, "shown_factor": shown_factors,
                   "moment": list(MOMENTS), "sampling": list(SAMPLINGS), "tau": TAUS, "many": batches[0]["many"]}  # fmt: skip
    setting = {
        **size,
        **{f"batch_{name}": value for name, value in batch_size.items()},
        "psi_p": 8.0,
        "psi_n": 4.0,
        "diffusion_time": 0.1,
        "activation": "tanh",
    }
    return xr.Dataset(found, coordinates, setting)


def variables_of_batches(seen: list[harness.Cell]) -> dict[str, Any]:
    """`variables` of the networks on batches, of which there are more: their axes of networks have names of their own."""
    found = variables(seen, "batches", {"sampling": len(SAMPLINGS)}, ("tau", "class"))
    return {name: (tuple(f"batch_{dim}" if "network" in dim else dim for dim in dims), values) for name, (dims, values) in found.items()}


def _comparisons(data: xr.Dataset) -> tuple[Comparison, Comparison, Comparison]:
    """Logarithms of the score errors of networks under weights, with more samples, and on batches."""
    d, batch_d, logs = data.attrs["d"], data.attrs["batch_d"], np.log
    return (
        compare(data, "weighted", logs(data["at_weight"].values), logs, d, cell_axes=2),
        compare(data, "more", logs(data["at_samples"].values), logs, d, cell_axes=2),
        compare(data, "batches", logs(data["batch_theory"].values), logs, batch_d, cell_axes=1),
    )


def _plain(data: xr.Dataset) -> np.ndarray:
    """Score errors (kind, moment, class) without weights."""
    return np.asarray(data["by_weight"].values[:, int(np.argmin(abs(data["weight"].values - MINORITY)))])


def price(data: xr.Dataset) -> np.ndarray:
    """What class 1 pays for what class 0 gains: log factor by which its best score error rises, over that by which class 0's falls.

    Subspaces: each larger weight of class 0, then each larger number of its samples.
    """
    weights, samples = data["weight"].values > MINORITY + 1e-9, data["factor"].values > 1
    larger = np.concatenate([data["by_weight"].values[0, weights], data["by_samples"].values[0, samples]])
    logs = np.log(larger[:, 0] / _plain(data)[0, 0])
    return np.asarray(-logs[:, 1] / logs[:, 0])


def criteria(data: xr.Dataset) -> list[Criterion]:
    plain, by_weight, by_samples = _plain(data), data["by_weight"].values, data["by_samples"].values
    half = by_weight[0, int(np.argmin(abs(data["weight"].values - HALF)))] / plain[0]
    late = float((by_weight[0, :, 1, 0] / plain[0, 1, 0]).min())
    samples = float(by_samples[0, -1, 1, 0] / plain[0, 1, 0])
    by_any = [float((values[0, :, 0, 0] / plain[0, 0, 0]).min()) for values in (by_weight, by_samples)]
    paid = price(data)
    others = by_weight[1, abs(data["weight"].values - MINORITY) > 0.15] / plain[1]
    weights, more_samples, batches = _comparisons(data)
    lead = batches.seen[2, -1, 0] - batches.seen[1, -1, 0]
    clear = float(lead / np.hypot(batches.seen_error[2, -1, 0], batches.seen_error[1, -1, 0]))
    ignored = np.broadcast_to(np.log(plain)[:, None], weights.theory.shape)
    swapped = batches.theory[[0, 2, 1]]
    over = "over that without weights"
    return [
        Criterion(f"theory, subspaces, ω_0 = ½: best score error of class 0 {over}", f"{half[0, 0]:.2f}", "> 0.9", bool(half[0, 0] > 0.9)),
        Criterion("theory, the same of class 1", f"{half[0, 1]:.2f}", "> 1.5", bool(half[0, 1] > 1.5)),
        Criterion(f"theory, subspaces, ω_0 ≤ 0.9: best score error of class 0 {over}", f"{by_any[0]:.2f}", "> 0.8", by_any[0] > 0.8),
        Criterion(f"theory, up to {MOST:g} times the samples: the same", f"{by_any[1]:.2f}", "> 0.8", by_any[1] > 0.8),
        Criterion(
            "theory, any of these: log factor by which class 1's best error rises, over that by which class 0's falls",
            f"{paid.min():.1f}", "> 1", bool(paid.min() > 1),
        ),
        Criterion(f"theory, subspaces, converged, any weight: score error of class 0 {over}", f"{late:.2f}", "> 0.8", late > 0.8),
        Criterion("theory, the same with as many samples as class 1", f"{samples:.2f}", "< 0.3", samples < 0.3),
        Criterion(f"theory, isotropic, ω_0 ≥ 0.3: score error {over}", f"{others.min():.2f}", "> 1", bool(others.min() > 1)),
        Criterion(
            f"networks at d, τ = {TAUS[-1]:g}: log ratio of class 0's errors on weighted and on balanced batches",
            f"{clear:.1f} s.e.", "> 3 s.e.", clear > 3,
        ),
        agreement("score errors", [weights, more_samples]),
        agreement("score errors on batches", [batches]),
        rejection("score errors", [(weights, ignored)], "a theory that ignores the weights"),
        rejection("score errors", [(each, each.theory[..., ::-1]) for each in (weights, batches)]),
        rejection("on batches", [(batches, np.log(data["batch_calm"].values))], "a theory without the noise of the batches"),
        rejection("on batches", [(batches, swapped)], "a theory with balanced and weighted batches exchanged"),
    ]  # fmt: skip


def table(data: xr.Dataset) -> str:
    weights, more_samples, batches = _comparisons(data)
    rows: list[list[str]] = []

    def row(head: list[str], found: Comparison, at: tuple[int, ...]) -> list[str]:
        cells = [(*at, m, c) for m in range(len(MOMENTS)) for c in range(2)]
        return [
            *head,
            *(text for here in cells for text in (f"{np.exp(found.theory[here]):.3f}", with_error(found.limit[here], found.error[here]))),
        ]

    for i, kind in enumerate(KINDS):
        rows += [row([kind, f"ω_0 = {w:g}"], weights, (i, j)) for j, w in enumerate(data["shown_weight"].values)]
        rows += [row([kind, f"{f:g} times the samples"], more_samples, (i, j)) for j, f in enumerate(data["shown_factor"].values)]
    heads = [f"class {c}, {moment}{what}" for moment in MOMENTS for c in range(2) for what in (": theory", ", d → ∞")]
    first = harness.markdown(["classes", "class 0 has", *heads], rows)
    at = []
    for s, sampling in enumerate(SAMPLINGS):
        for t, tau in enumerate(TAUS):
            cells = [(s, t, c) for c in range(2)]
            texts = (
                text
                for here in cells
                for text in (f"{np.exp(batches.theory[here]):.3f}", with_error(batches.limit[here], batches.error[here]))
            )
            at.append([sampling, f"{tau:g}", *texts])
    second = harness.markdown(["batches", "τ", "class 0: theory", "d → ∞", "class 1: theory", "d → ∞"], at)
    seeds = f"{data.attrs['seeds']} a point (on batches d = {data.attrs['batch_d']}, {data.attrs['batch_seeds']}), twice as many at d/2"
    return (
        f"{first}\n\n{second}\n\nNetworks: d = {data.attrs['d']}, {seeds}. Batches: step {STEP:g}, β = {BATCH:g}, ω_0 = ½ unless uniform."
    )


def _ticks(panel: Axes) -> None:
    """Numbers at 1, 2 and 5 times powers of ten."""
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.tick_params(labelsize=FONT)


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(9.6, 8.2), layout="constrained")
    panels, colors = figure.subplots(2, 2).ravel(), class_colors(2)
    weights, more_samples, batches = _comparisons(data)
    scans = [("weight", "by_weight", "shown_weight", weights, 0), ("factor", "by_samples", "shown_factor", more_samples, 0),
             ("weight", "by_weight", "shown_weight", weights, 1)]  # fmt: skip
    for panel, (axis, name, shown, found, kind) in zip(panels, scans, strict=False):
        for m, (style, marker) in enumerate((("-", "o"), ("--", "s"))):
            for c in range(2):
                width = 5.0 if kind and c == 0 else 1.5  # the classes coincide: one line inside the other
                panel.plot(data[axis], data[name].values[kind, :, m, c], style, color=colors[c], linewidth=width)
                points(panel, data[shown].values, found, (kind, slice(None), m, c), marker, colors[c])
        _ticks(panel)
    for panel in (panels[0], panels[2]):
        panel.axvline(MINORITY, color="0.6", linestyle=":", linewidth=1)
        panel.set_xlabel(r"weight $\omega_0$ of class 0 in the loss (dotted: its fraction)", fontsize=FONT)
    panels[0].set_title("subspaces: weight of class 0", fontsize=FONT + 1)
    panels[1].set(xscale="log")
    panels[1].set_xlabel("samples of class 0 over those at first", fontsize=FONT)
    panels[1].set_xticks([1, 2, 4, 9], ["1", "2", "4", "9"])
    panels[1].xaxis.minorticks_off()
    panels[1].set_title("subspaces: samples of class 0", fontsize=FONT + 1)
    panels[2].set_title("isotropic: weight of class 0", fontsize=FONT + 1)
    middle = float(np.sqrt(np.prod(data["by_weight"].values[1].mean((0, 2)))))
    panels[2].text(0.45, middle, "both classes coincide\n(blue under orange)", ha="center", va="center", fontsize=FONT)
    panels[1].sharey(panels[0])
    for s, (style, marker) in enumerate(zip((":", "-", "--"), ("^", "o", "s"), strict=True)):
        for c in range(2):
            panels[3].plot(data["many"], data["batch_line"].values[s, :, c], style, color=colors[c])
            points(panels[3], data["tau"].values, batches, (s, slice(None), c), marker, colors[c])
        panels[3].plot([], [], style + marker, color="0.4", label=SAMPLINGS[s])
    panels[3].set(xscale="log")
    panels[3].set_xlabel(r"training time $\tau$", fontsize=FONT)
    panels[3].set_title(r"subspaces: SGD; $\omega_0 = 1/2$ unless uniform", fontsize=FONT + 1)
    _ticks(panels[3])
    panels[3].legend(fontsize=FONT, loc="upper left")
    for panel in panels:
        panel.set_ylabel("score error", fontsize=FONT)
    _key(figure, panels[0])
    return figure


def _key(figure: Figure, panel: Axes) -> None:
    """Colours of the classes in the first panel; below all panels what lines and points are."""
    for c, words in enumerate(("class 0, rare (a tenth of the samples)", "class 1")):
        panel.plot([], [], color=class_colors(2)[c], linewidth=3, label=words)
    panel.legend(fontsize=FONT, loc="lower right")
    entries = [
        *(panel.plot([], [], style + marker, color="0.3", label=words)[0]
          for style, marker, words in (("-", "o", "best over training"), ("--", "s", "converged"))),
        panel.plot([], [], linestyle="", marker="o", color="0.3", label="networks at d")[0],
        panel.plot([], [], linestyle="", marker="o", color="0.3", markerfacecolor="none", label="networks at d → ∞")[0],
    ]  # fmt: skip
    figure.legend(handles=entries, loc="outside lower center", ncols=4, fontsize=FONT, frameon=False)


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
