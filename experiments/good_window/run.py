"""The training times that are good for every class form a window that closes as the minority gets rarer; in theory there is none below
some weight.

Each class varies in its own half of the directions, equal variances, t = 0.3, σ(x) = tanh(x + 1). A class is well learned where its score
error is below 0.45 of that of an untrained network; in samples its memorised fraction must be below a twentieth too.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments import harness
from experiments.harness import Criterion
from rfdiff import Activation, MixtureLaw, Problem, generation, theory
from rfdiff.backward import log_snr_grid
from rfdiff.plots import class_colors

T, PSI_P, PSI_N, LEVEL, MEMORISED = 0.3, 64.0, 16.0, 0.45, 0.05
ACTIVATION = Activation("shifted tanh", lambda x: jnp.tanh(x + 1))
LINE_TAUS = np.geomspace(1, 1e6, 121)
FIELDS = ("counts", "memorised", "score_error")


def problem(pi: float) -> Problem:
    law = MixtureLaw([1 - pi, pi], [[2.0, 0.0], [0.0, 2.0]], [0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]])
    return Problem(law, ACTIVATION, t=T, psi_p=PSI_P, psi_n=PSI_N)


def closed_form(pi: float) -> dict[str, Any]:
    """Score error of each class over that of an untrained network."""
    curves = theory.learning_curves(problem(pi), LINE_TAUS)
    return {"relative": curves.score_error * -np.expm1(-2 * T) / (1 - curves.optimal_loss)}


def network(cell: dict[str, Any]) -> dict[str, Any]:
    key = jax.random.fold_in(jax.random.key(0), cell["seed"])
    grid = log_snr_grid(3.0, 0.01, cell["steps"])
    found = generation.generate(problem(cell["pi"]), [0.0, *cell["taus"]], d=cell["d"], times=grid, key=key, num_samples=cell["num"])
    place = int(np.argmin(np.abs(np.log(grid / T))))
    error = found.score_error[:, place]
    return {"relative": error[1:-2] / error[0], "counts": found.counts[1:-2], "memorised": found.memorised[1:-2]}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    weights = [0.5, 0.05] if smoke else [float(w) for w in np.geomspace(0.5, 0.02, 25)]
    shown, seeds, num, steps = ([0.5, 0.05], 1, 200, 16) if smoke else ([0.5, 0.2, 0.05], 2, 500, 30)
    taus = [10.0, 1e5] if smoke else [1.0, 3.0, 6.0, 10.0, 20.0, 50.0, 200.0, 1e3, 1e4, 1e6]
    lines = cells("theory", closed_form, weights)
    beside = cells("theory", closed_form, shown)
    ask = [{"pi": pi, "seed": r, "d": 8, "num": num, "steps": steps, "taus": taus} for pi in shown for r in range(seeds)]
    found = cells("networks", network, ask)
    axes = ("shown", "network", "tau", "class")
    variables = {
        "theory": (("weight", "line_tau", "class"), harness.stack(lines, "relative")),
        "theory_shown": (("shown", "line_tau", "class"), harness.stack(beside, "relative")),
        **{name: (axes, harness.stack(found, name, (len(shown), seeds))) for name in ("relative", "counts", "memorised")},
    }
    return xr.Dataset(
        variables,
        {"weight": weights, "shown": shown, "line_tau": LINE_TAUS, "tau": taus},
        {"d": 8, "seeds": seeds, "num": num, "steps": steps},
    )


def good(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Whether a class is good: in theory (weight, τ, class), and in networks (shown, τ, class)."""
    counts, near = data["counts"].values.sum(axis=1), data["memorised"].values.sum(axis=1)
    learned = data["relative"].values.mean(axis=1) < LEVEL
    return data["theory"].values < LEVEL, learned & (near <= MEMORISED * counts)


def window(taus: np.ndarray, fine: np.ndarray) -> str:
    kept = taus[fine]
    return f"{kept.min():.3g} to {kept.max():.3g}" if kept.size else "none"


def criteria(data: xr.Dataset) -> list[Criterion]:
    theory_good, seen_good = good(data)
    width = theory_good.all(axis=2).sum(axis=1)
    empty = np.flatnonzero(width == 0)
    closed = data["weight"].values[empty].max() if empty.size else np.nan
    alone = theory_good[:, :, 0].any(axis=1)
    widens = int(np.sum(np.diff(width) > 0))
    both, tau = seen_good.all(axis=2), data["tau"].values
    there = bool(both[0].any() and seen_good[-1, :, 0].any())
    last = [float(tau[fine].max()) if fine.any() else float(tau.min()) for fine in (both[0], both[-1], seen_good[-1, :, 0])]
    balanced, rare, majority = last
    return [
        Criterion("theory: steps to a smaller π at which the window widens", str(widens), "0", widens == 0),
        Criterion(
            "theory: largest π without a window (there is one at π = 0.5)", f"{closed:.3g}", "exists", bool(width[0] > 0 and width[-1] == 0)
        ),
        Criterion("theory: weights at which the majority alone has a window", f"{alone.sum()} of {alone.size}", "all", bool(alone.all())),
        Criterion(
            "networks: last τ good for both classes, π = 0.05 over π = 0.5",
            f"{rare / balanced:.1e}",
            "<= 0.01",
            there and rare <= balanced / 100,
        ),
        Criterion(
            "networks, π = 0.05: last τ good for the majority, over that for both",
            f"{majority / rare:.1e}",
            ">= 100",
            there and majority >= 100 * rare,
        ),
    ]


def table(data: xr.Dataset) -> str:
    _, seen = good(data)
    rows = []
    for i, pi in enumerate(data["shown"].values):
        lines = data["theory_shown"].values[i] < LEVEL
        both = [window(data["line_tau"].values, lines.all(axis=1)), window(data["tau"].values, seen[i].all(axis=1))]
        each = [window(data["tau"].values, seen[i, :, c]) for c in range(2)]
        rows.append([f"{pi:g}", *both, *each, f"{data['relative'].values[i].mean(axis=0)[:, 1].min():.2f}"])
    header = [
        "π",
        "window in theory",
        "in samples (of the τ tried)",
        "majority alone",
        "minority alone",
        "minority's least relative score error",
    ]
    return f"{harness.markdown(header, rows)}\n\nd = 8, {data.attrs['seeds']} networks, {data.attrs['num']} samples each."


def draw(data: xr.Dataset) -> Figure:
    count = data.sizes["shown"]
    figure = Figure(figsize=(3.1 * (count + 1), 5.6), layout="constrained")
    panels = figure.subplots(2, count + 1, sharex="col", sharey="row", width_ratios=[*[1] * count, 1.1])
    tau, lines = data["tau"].values, data["line_tau"].values
    near = data["memorised"].values.sum(axis=1) / np.maximum(data["counts"].values.sum(axis=1), 1)
    seen = good(data)[1]
    for i, pi in enumerate(data["shown"].values):
        upper, lower = panels[:, i]
        for c, (color, marker) in enumerate(zip(class_colors(2), "os", strict=True)):
            upper.plot(lines, data["theory_shown"].values[i, :, c], color=color, lw=(2.4, 1.2)[c], alpha=0.7)
            upper.plot(tau, data["relative"].values[i, :, :, c].T, marker, color=color, ms=3.5, mfc=(color, "white")[c])
            lower.plot(tau, near[i, :, c], f"{marker}-", color=color, ms=3.5, lw=1, mfc=(color, "white")[c])
        both = (data["theory_shown"].values[i] < LEVEL).all(axis=1)
        if both.any():
            upper.axvspan(lines[both].min(), lines[both].max(), color="0.9", zorder=0)
        lower.plot(tau[seen[i].all(axis=1)], np.full(int(seen[i].all(axis=1).sum()), 0.9), "k^", ms=5)
        upper.axhline(LEVEL, color="0.4", ls="--", lw=1)
        lower.axhline(MEMORISED, color="0.4", ls="--", lw=1)
        upper.set(xscale="log", yscale="log", title=rf"$\pi$ = {pi:g}")
        lower.set(xscale="log", ylim=(-0.03, 1.03), xlabel=r"training time $\tau$")
    panels[0, 0].set_yticks([0.03, 0.1, 0.3, 1.0], ["0.03", "0.1", "0.3", "1"])
    panels[0, 0].minorticks_off()
    panels[0, 0].set_ylabel("score error / untrained")
    panels[1, 0].set_ylabel("memorised fraction")
    for panel in panels[:, count]:
        panel.remove()
    _windows(figure.add_subplot(panels[0, count].get_subplotspec()), data)
    _legend(figure.add_subplot(panels[1, count].get_subplotspec()))
    return figure


def _windows(panel: Any, data: xr.Dataset) -> None:
    """Where each class is well learned in theory, against π: a thin bar from the first to the last good τ."""
    fine = good(data)[0]
    for c, color in enumerate(class_colors(2)):
        for i, pi in enumerate(data["weight"].values):
            kept = data["line_tau"].values[fine[i, :, c]]
            if kept.size:
                panel.vlines(pi * (0.99, 1.01)[c], kept.min(), kept.max(), color=color, lw=1.2)
    panel.set(
        xscale="log", yscale="log", ylim=(1, 1e6), xlabel=r"weight $\pi$ of the minority", title="theory: well learned", ylabel=r"$\tau$"
    )
    panel.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    panel.minorticks_off()


def _legend(panel: Any) -> None:
    """One legend for all panels, in the free corner."""
    majority, minority = class_colors(2)
    handles = [
        Line2D([], [], color=majority, marker="o", ms=3.5, lw=2.4, alpha=0.8, label=r"majority, weight $1-\pi$"),
        Line2D([], [], color=minority, marker="s", ms=3.5, mfc="white", lw=1.2, label=r"minority, weight $\pi$"),
        Line2D([], [], color="0.4", ls="none", label="above: lines theory, points networks"),
        Line2D([], [], color="0.4", ls="--", lw=1, label="level of a good class"),
        Patch(color="0.9", label="theory: good for both"),
        Line2D([], [], color="k", marker="^", ms=5, ls="none", label="networks: good for both"),
    ]
    panel.axis("off")
    panel.legend(handles=handles, loc="center", fontsize=8, frameon=False)


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
