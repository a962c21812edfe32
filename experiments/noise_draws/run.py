"""With m noise draws per sample, the late test loss of every class peaks at p = n m and falls again beyond (double descent); with the
exact noise average, m = ∞, there is no peak.

Two classes of variance 1.5 and 0.5 in equal shares, two samples per dimension; m = 1, 2, 4 and the exact noise average.
"""

import math
import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from experiments.harness import Criterion
from rfdiff import MixtureLaw, Problem, assess, simulation, theory
from rfdiff.plots import OKABE_ITO

LAW = MixtureLaw.isotropic([0.5, 0.5], [1.5, 0.5])
PSI_N, T = 2.0, 0.1
DRAWS = [1, 2, 4, 0]  # 0 stands for m = ∞, which a file of integers cannot hold
TAUS = [1.0, 10.0, 100.0, 1000.0, 10000.0]  # of the simulations; the last is shown against ψ_p
LINE_TAUS = [0.0, *np.geomspace(0.1, 1e6, 57), np.inf]
LATE = 1e4
CURVES_AT = 4.0  # ψ_p of the curves against time: p = n m of m = 2
NAMES = {0: "m = ∞", 1: "m = 1", 2: "m = 2", 4: "m = 4"}


def problem(draws: int, psi_p: float) -> Problem:
    """Two samples per dimension; draws 0 is the exact average."""
    return Problem(LAW, "tanh", T, psi_p, PSI_N, draws or math.inf)


def predict(argument: tuple[int, float]) -> dict[str, Any]:
    """Curves of the theory (time, class), τ = ∞ included."""
    curves = theory.learning_curves(problem(*argument), LINE_TAUS, tolerance=1e-5)
    return {"test": curves.test_loss, "train": curves.train_loss, "error": curves.error_estimate}


def simulate(argument: tuple[int, float, int, int]) -> dict[str, Any]:
    """Losses at dimension d, and their agreement with theory judged with a second simulation at d/2."""
    draws, psi_p, d, seeds = argument
    here = problem(draws, psi_p)
    large, small = (
        simulation.learning_curves(here, TAUS, d=size, key=jax.random.key(size), num_seeds=seeds * d // size) for size in (d, d // 2)
    )
    agreement = assess(theory.learning_curves(here, TAUS, tolerance=1e-5), large, small)
    entries = np.concatenate([np.abs(values).ravel() for values in agreement.standardised.values()])
    return {
        "sim_test": large.test_loss,
        "sim_test_stderr": large.test_loss_stderr,
        "finite_size": agreement.allowance["test_loss"],
        "worst": np.nanmax(entries),
        "threshold": agreement.threshold,
    }


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    """Theory on a fine grid of ψ_p that holds every n m/d, simulation on a coarse one."""
    draws = [1, 0] if smoke else DRAWS
    psi_p = [1.0, 2.0, 2.5, 4.0] if smoke else [round(0.5 * 2 ** (k / 6), 12) for k in range(34)]
    sim_psi_p = [CURVES_AT] if smoke else [1.0, 2.0, 4.0, 8.0]
    d, seeds = (16, 20) if smoke else (32, 24)
    lines = cells("noise_draws, theory", predict, [(m, p) for m in draws for p in psi_p])
    points = cells("noise_draws, simulation", simulate, [(m, p, d, seeds) for m in draws for p in sim_psi_p])
    data = xr.Dataset(coords={"draws": draws, "psi_p": psi_p, "sim_psi_p": sim_psi_p, "tau": LINE_TAUS, "sim_tau": TAUS})
    for name in ("test", "train", "error"):
        values = harness.stack(lines, name, (len(draws), len(psi_p)))
        data[name] = (("draws", "psi_p", "tau", "class")[: values.ndim], values)
    for name in ("sim_test", "sim_test_stderr", "finite_size", "worst", "threshold"):
        values = harness.stack(points, name, (len(draws), len(sim_psi_p)))
        data[name] = (("draws", "sim_psi_p", "sim_tau", "class")[: values.ndim], values)
    data["test"].attrs["long_name"] = "test loss of the class, per coordinate, theory"
    data["sim_test"].attrs["long_name"] = "test loss of the class, per coordinate, mean over networks"
    return data.assign_attrs(d=d, seeds=seeds, psi_n=PSI_N)


def _late(data: xr.Dataset, c: int, draws: int, limit: bool = False) -> np.ndarray:
    """Theory test loss against ψ_p at τ = 10⁴ or ∞."""
    at = data["test"].sel(draws=draws).isel({"class": c})
    return np.asarray(at.isel(tau=-1) if limit else at.sel(tau=LATE, method="nearest"))


def _peak(psi_p: np.ndarray, values: np.ndarray) -> float:
    return float(psi_p[np.nanargmax(values)])  # NaN where the limit diverges: a peak next to it counts, not the NaN itself


def table(data: xr.Dataset) -> str:
    """Peaks, heights and simulated values."""
    psi_p, points = data["psi_p"].values, data["sim_psi_p"].values
    header = [
        "m",
        "class",
        "n m/d",
        "peak of theory at ψ_p (τ = ∞)",
        "(τ = 10⁴)",
        "theory there (τ = 10⁴)",
        "theory at the largest ψ_p",
        "peak of simulation at ψ_p",
    ]
    rows = []
    for m in data["draws"].values:
        for c in range(data.sizes["class"]):
            late = _late(data, c, m)
            simulated = data["sim_test"].sel(draws=m, sim_tau=LATE).isel({"class": c}).values
            peaks = [f"{_peak(psi_p, _late(data, c, m, True)):.3g}", f"{_peak(psi_p, late):.3g}"]
            row = [NAMES[m][4:], str(c), f"{PSI_N * m:.0f}" if m else "∞", *peaks, f"{late.max():.2f}", f"{late[-1]:.2f}"]
            rows.append([*row, f"{_peak(points, simulated):.3g}"])
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a point (twice as many at d/2), ψ_n = {PSI_N:g}, t = {T:g}, tanh."
    return harness.markdown(header, rows) + f"\n\n{size}"


def criteria(data: xr.Dataset) -> list[Criterion]:
    """Where the peak is, that the loss falls behind it, that m = ∞ has none, and that networks agree."""
    psi_p, points, classes = data["psi_p"].values, data["sim_psi_p"].values, range(data.sizes["class"])
    finite = [m for m in data["draws"].values if m and PSI_N * m <= psi_p[-2]]
    steps, falls, apart = [], [], []
    for m in finite:
        limits = [_late(data, c, m, True) for c in classes]
        steps += [abs(int(np.nanargmax(limit)) - int(np.argmin(abs(psi_p - PSI_N * m)))) for limit in limits]
        falls += [float(np.diff(limit[psi_p > PSI_N * m]).max()) for limit in limits]
        if points[0] < PSI_N * m < points[-1]:
            simulated = data["sim_test"].sel(draws=m, sim_tau=LATE).values
            apart += [abs(_peak(points, simulated[:, c]) - PSI_N * m) for c in classes]
    exact = [_late(data, c, 0, True) for c in classes]
    rises = min(float(np.diff(limit[int(np.argmin(limit)) :]).min()) for limit in exact)
    outside, count = int(np.sum(data["worst"].values > data["threshold"].values)), data["worst"].size
    draws = ", ".join(str(m) for m in finite)
    return [
        Criterion(f"theory, τ = ∞, m = {draws}: grid steps of ψ_p between the peak and n m/d", str(max(steps)), "<= 1", max(steps) <= 1),
        Criterion("theory, τ = ∞: change of the test loss per step of ψ_p beyond the peak", f"{max(falls):.2g}", "< 0", max(falls) < 0),
        Criterion(
            "networks, τ = 10⁴: distance of their peak from n m/d", f"{max(apart, default=0.0):.2g}", "0", bool(np.allclose(apart, 0))
        ),
        Criterion("theory, τ = ∞, m = ∞: change per step of ψ_p beyond the minimum, so no peak", f"{rises:.2g}", "> 0", rises > 0),
        Criterion(
            f"networks against theory: cells of {count} beyond the 1 % threshold", str(outside), f"<= {count // 10}", outside <= count // 10
        ),
    ]


def draw(data: xr.Dataset) -> Figure:
    """Curves against time at one ψ_p, and late test loss against ψ_p, for each class."""
    figure = Figure(figsize=(9.0, 7.2), layout="constrained")
    panels = figure.subplots(2, data.sizes["class"], sharey="row")
    colors = dict(zip(data["draws"].values, OKABE_ITO, strict=False))
    inner = (data["tau"].values > 0) & np.isfinite(data["tau"].values)
    for c in range(data.sizes["class"]):
        for m, color in colors.items():
            marks: dict[str, Any] = {"fmt": "o", "color": color, "markersize": 4.2, "capsize": 2, "linestyle": ""}
            line, point = data.sel(draws=m, psi_p=CURVES_AT).isel({"class": c}), data.sel(draws=m).isel({"class": c})
            panels[0, c].plot(data["tau"].values[inner], line["test"].values[inner], color=color)
            at = point.sel(sim_psi_p=CURVES_AT)
            panels[0, c].errorbar(data["sim_tau"], at["sim_test"].values, at["sim_test_stderr"].values, **marks)
            panels[1, c].plot(data["psi_p"], _late(data, c, m), color=color)
            panels[1, c].plot(data["psi_p"], _late(data, c, m, True), color=color, linestyle=":", linewidth=1.1)
            at = point.sel(sim_tau=LATE)
            panels[1, c].errorbar(data["sim_psi_p"], at["sim_test"].values, at["sim_test_stderr"].values, **marks)
            if m and PSI_N * m <= data["psi_p"].values[-1]:
                panels[1, c].axvline(PSI_N * m, color=color, linestyle="--", linewidth=0.8, alpha=0.6)
        panels[0, c].set_title(f"class {c}, variance {LAW.variances[c]:g}", fontsize=10)
        panels[0, c].set_xlabel(f"training time τ (ψ_p = {CURVES_AT:g})")
        panels[1, c].set_xlabel("features per dimension ψ_p = p/d")
        for panel in panels[:, c]:
            panel.set_xscale("log")
            panel.set_yscale("log")
        ticks = [0.5, 1, 2, 4, 8, 16]
        panels[1, c].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[1, c].minorticks_off()
        panels[1, c].set_ylim(0.6, 40)
    for panel, ticks in zip(panels.ravel(), ([1, 2, 5, 10], [1, 2, 5, 10], [1, 2, 5, 10, 20], [1, 2, 5, 10, 20]), strict=True):
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.yaxis.minorticks_off()
    panels[0, 0].set_ylabel("test loss per coordinate")
    panels[1, 0].set_ylabel("test loss per coordinate, late in training")
    handles = [Line2D([], [], color=color, label=NAMES[m]) for m, color in colors.items()]
    handles += [
        Line2D([], [], color="0.3", label="theory (below: τ = 10⁴)"),
        Line2D([], [], color="0.3", linestyle=":", label="theory, τ = ∞"),
        Line2D([], [], color="0.3", marker="o", linestyle="", label=f"simulation, d = {data.attrs['d']}"),
        Line2D([], [], color="0.3", linestyle="--", linewidth=0.8, label="p = n m"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
