"""In the samples of trained networks a minority of one in ten is memorised first and most, and it is also the worse learned class.

Two isotropic classes of variance 1/2 with centroids apart, minority of one in ten beside equal parts; σ(x) = tanh(x + 1), which is not odd:
an odd score would generate both classes equally often. Theory's class-wise times at t = 0.1 beside the samples.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from experiments.harness import Criterion
from rfdiff import Activation, MixtureLaw, Problem, generation, memorised_fraction, theory, times
from rfdiff.backward import log_snr_grid
from rfdiff.plots import class_colors

T, PSI_P, PSI_N = 0.1, 64.0, 4.0
ACTIVATION = Activation("shifted tanh", lambda x: jnp.tanh(x + 1))
FIELDS = ("counts", "memorised", "mean_error", "variance_error", "score_error")
LATE = 1e5  # training times from which on the memorised fractions are judged
FIT = 30.0  # and the score errors: before it no class has learned anything


def problem(pi: float) -> Problem:
    law = MixtureLaw.isotropic([1 - pi, pi], [0.5, 0.5], [[0.7, -0.7], [-0.7, 0.7]])
    return Problem(law, ACTIVATION, t=T, psi_p=PSI_P, psi_n=PSI_N)


def closed_form(pi: float) -> dict[str, Any]:
    curves = theory.learning_curves(problem(pi), theory.time_grid(problem(pi), num_times=60))
    read = times(curves)
    return {"tau_gen": read.tau_gen, "tau_mem": read.tau_mem, "theory_tau": curves.taus, "theory_score": curves.score_error}


def network(cell: dict[str, Any]) -> dict[str, Any]:
    """One network, trained at every t of the grid, and what it generates."""
    grid = log_snr_grid(4.0, 0.01, cell["steps"])
    taus = [np.inf if tau < 0 else tau for tau in cell["taus"]]
    key = jax.random.fold_in(jax.random.key(0), cell["seed"])
    found = generation.generate(problem(cell["pi"]), taus, d=cell["d"], times=grid, key=key, num_samples=cell["num"])
    return {name: getattr(found, name) for name in FIELDS}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    weights = [0.5, 0.1]
    taus = [30.0, 1e5, 1e8] if smoke else [3.0, 10.0, 30.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e8, -1.0]  # -1 stands for inf
    d, num, seeds, steps = (8, 300, 1, 24) if smoke else (8, 1000, 4, 40)
    ask = [{"pi": pi, "seed": r, "d": d, "num": num, "steps": steps, "taus": taus} for pi in weights for r in range(seeds)]
    expected = cells("theory", closed_form, weights)
    networks = cells("networks", network, ask)
    axes = ("weight", "network", "source", "class")
    found: dict[str, Any] = {name: (axes, harness.stack(networks, name, (2, seeds))) for name in FIELDS[:4]}
    grid = log_snr_grid(4.0, 0.01, steps)
    place = int(np.argmin(np.abs(np.log(grid / T))))
    found["score_error"] = (axes, harness.stack(networks, "score_error", (2, seeds))[:, :, :, place])
    found |= {name: (("weight", "class"), harness.stack(expected, name)) for name in ("tau_gen", "tau_mem")}
    found["theory_tau"] = (("weight", "point"), harness.stack(expected, "theory_tau"))
    found["theory_score"] = (("weight", "point", "class"), harness.stack(expected, "theory_score"))
    found["tau"] = ("source", np.array([*[np.inf if tau < 0 else tau for tau in taus], np.nan, np.nan]))
    names = [*[f"{tau:g}" for tau in found["tau"][1][:-2]], "empirical", "exact"]
    return xr.Dataset(found, {"weight": weights, "source": names}, {"d": d, "num": num, "seeds": seeds, "steps": steps, "t": grid[place]})


def intervals(data: xr.Dataset, i: int) -> np.ndarray:
    """Memorised fraction and its interval (source, class, 3) at one weight."""
    counts, near = data["counts"].values[i], data["memorised"].values[i]
    return np.array([[memorised_fraction(counts[:, s, c], near[:, s, c]) for c in range(2)] for s in range(counts.shape[1])])


def criteria(data: xr.Dataset) -> list[Criterion]:
    tau = data["tau"].values
    late, fit = np.flatnonzero(tau >= LATE), np.flatnonzero(tau >= FIT)
    even, rare = intervals(data, 0), intervals(data, 1)
    exact, empirical = data.sizes["source"] - 1, data.sizes["source"] - 2
    apart = float((rare[late, 1, 1] - rare[late, 0, 2]).min())
    overlap = float(np.minimum(even[late, 0, 2] - even[late, 1, 1], even[late, 1, 2] - even[late, 0, 1]).min())
    copies, fresh = float(rare[empirical, :, 0].min()), float(rare[exact, :, 0].max())
    error = data["score_error"].values[1][:, fit]
    worse = float(np.exp(np.log(error[:, :, 1] / error[:, :, 0]).mean(axis=0).min()))
    mem = data["tau_mem"].values
    early = float(rare[tau < mem[1].min(), :, 0].max())
    return [
        Criterion(f"samples, π = 0.1, τ >= {LATE:g}: memorised fraction of the minority, distance of its interval above the majority's",
                  f"{apart:.2f}", "> 0", apart > 0),
        Criterion(f"samples, π = 0.5, τ >= {LATE:g}: overlap of the two intervals", f"{overlap:.2f}", ">= 0", overlap >= 0),
        Criterion("reference: memorised fraction under the empirical score", f"{copies:.2f}", "> 0.5", copies > 0.5),
        Criterion("reference: memorised fraction under the exact score", f"{fresh:.2f}", "< 0.05", fresh < 0.05),
        Criterion(f"networks, π = 0.1, τ >= {FIT:g}: score error of the minority over the majority's", f"{worse:.1f}", "> 1", worse > 1),
        Criterion("theory, π = 0.1: τ_mem of the minority over the majority's", f"{mem[1, 1] / mem[1, 0]:.2f}", "< 1",
                  bool(mem[1, 1] < mem[1, 0])),
        Criterion("samples, π = 0.1: memorised fraction before theory's τ_mem", f"{early:.2f}", "< 0.05", early < 0.05),
    ]  # fmt: skip


def table(data: xr.Dataset) -> str:
    rows = []
    for i, pi in enumerate(data["weight"].values):
        inside = intervals(data, i)
        for s, name in enumerate(data["source"].values):
            row = [f"{pi:g}", str(name)]
            for c in range(2):
                share = data["counts"].values[i, :, s, c].sum() / (data.attrs["num"] * data.attrs["seeds"])
                middle, low, high = inside[s, c]
                row += [f"{share:.3f}", f"{middle:.2f} [{low:.2f}, {high:.2f}]", f"{data['score_error'].values[i, :, s, c].mean():.2f}"]
            rows.append(row)
    names = ["generated", "memorised", "score error"]
    header = ["π", "τ or reference", *[f"class {c}: {name}" for c in range(2) for name in names]]
    mem = "; ".join(f"π = {pi:g}: τ_gen {g[0]:.1f}, {g[1]:.1f}, τ_mem {m[0]:.0f}, {m[1]:.0f}"
                    for pi, g, m in zip(data["weight"].values, data["tau_gen"].values, data["tau_mem"].values, strict=True))  # fmt: skip
    at = data.attrs
    size = f"d = {at['d']}, {at['seeds']} networks, {at['num']} samples each, {at['steps']} steps. Class 1 has weight π."
    return f"{harness.markdown(header, rows)}\n\nTheory at t = {T} (class 0, class 1): {mem}.\n\n{size}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(12, 7), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    tau = data["tau"].values[:-2]
    finite = tau[np.isfinite(tau)]
    x = np.where(np.isinf(tau), finite.max() * 10, tau)
    for i, pi in enumerate(data["weight"].values):
        inside = intervals(data, i)
        share = data["counts"].values[i] / data.attrs["num"]
        for c, color in enumerate(class_colors(2)):
            label = f"class {c}, weight {(1 - pi, pi)[c]:g}"
            error = share[:, :-2, c].std(axis=0) / max(data.attrs["seeds"] - 1, 1) ** 0.5
            panels[i, 0].errorbar(x, share[:, :-2, c].mean(axis=0), error, fmt="o-", color=color, ms=4, label=label)
            panels[i, 0].axhline((1 - pi, pi)[c], color=color, ls="--", lw=1)
            middle, low, high = inside[:-2, c].T
            panels[i, 1].errorbar(x, middle, [middle - low, high - middle], fmt="o-", color=color, ms=4, capsize=2)
            panels[i, 1].axhline(inside[-2, c, 0], color=color, ls=":", lw=1)
            each = data["score_error"].values[i, :, :-2, c]
            spread = each.std(axis=0) / max(data.attrs["seeds"] - 1, 1) ** 0.5
            panels[i, 2].errorbar(x, each.mean(axis=0), np.minimum(spread, 0.9 * each.mean(axis=0)), fmt="o", color=color, ms=4)
            at = data["theory_tau"].values[i]
            kept = (at >= x.min()) & (at <= finite.max())
            panels[i, 2].plot(at[kept], data["theory_score"].values[i, kept, c], color=color, lw=2.5, alpha=0.4)
            for panel in panels[i]:
                panel.axvline(data["tau_gen"].values[i, c], color=color, lw=0.8, alpha=0.5)
                panel.axvline(data["tau_mem"].values[i, c], color=color, lw=2.2, alpha=0.4)
        panels[i, 0].plot([], [], color="0.4", lw=0.8, label=r"theory's $\tau_{gen}$")
        panels[i, 0].plot([], [], color="0.4", lw=2.2, alpha=0.6, label=r"theory's $\tau_{mem}$")
        panels[i, 0].legend(fontsize=8)
        panels[i, 1].set_ylim(-0.03, 1.03)
        panels[i, 0].set_ylabel(rf"$\pi$ = {pi:g}")
    titles = (
        "fraction of the samples (dashed: weight)",
        "memorised fraction (dotted: empirical score)",
        f"score error at t = {data.attrs['t']:.2g} (curves: theory)",
    )
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10)
    for panel in panels[1]:
        panel.set(xscale="log", xlabel=r"training time $\tau$ (last: $\infty$)")
    for panel in panels[:, 2]:
        panel.set_yscale("log")
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
