"""The memorisation time grows with the number of samples while the generalisation time stays: exponents per class, and where they hold.

Two classes of variance 1.5 and 0.5 in equal shares, exact noise average, more features than samples; slopes of log τ against log ψ_n.
"""

import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from rfdiff import LearningCurves, MixtureLaw, Problem, simulation, theory, times
from rfdiff.plots import class_colors

LAW = MixtureLaw.isotropic([0.5, 0.5], [1.5, 0.5])
T, SIM_PSI_P = 0.1, 32.0
TIMES = ("tau_gen", "tau_opt", "tau_stop", "tau_mem", "tau_spectral")  # the last: 1/(κ λ_min)
TAUS = [0.0, *np.geomspace(0.03, 1e9, 140), np.inf]
DECADE = (1.0, 10.0)  # of ψ_n, in which the simulations are


def problem(psi_p: float, psi_n: float) -> Problem:
    """One point of the map."""
    return Problem(LAW, "tanh", T, psi_p, psi_n)


def read(curves: LearningCurves) -> np.ndarray:
    """(4, K) times of `rfdiff.times`, in the order of TIMES."""
    found = times(curves)
    return np.array([getattr(found, name) for name in TIMES[:4]])


def predict(argument: tuple[float, float]) -> dict[str, Any]:
    """Times from the curves, and relaxation time of the lowest edge of the continuous spectrum (one for both classes)."""
    here = problem(*argument)
    edge = float(np.min(theory.spectrum(here, 200).support[:, 0]))
    spectral = np.full((1, LAW.num_classes), 1 / (here.kappa * edge))
    return {"times": np.concatenate([read(theory.learning_curves(here, TAUS, tolerance=1e-5)), spectral])}


def simulate(argument: tuple[float, int, int]) -> dict[str, Any]:
    """Times from the mean curves of the networks, and standard errors by leaving out one network at a time."""
    psi_n, d, seeds = argument
    curves = simulation.learning_curves(problem(SIM_PSI_P, psi_n), TAUS, d, jax.random.key(round(1000 * psi_n)), seeds)
    test, train = curves.per_seed["test_loss"], curves.per_seed["train_loss"]
    left_out = []
    for r in range(seeds):
        keep = np.arange(seeds) != r
        part = LearningCurves(
            curves.taus,
            train[keep].mean(0),
            test[keep].mean(0),
            curves.score_error,
            curves.optimal_loss,
            curves.weights,
            curves.kappa,
            curves.error_estimate,
            curves.train_loss_stderr,
            curves.test_loss_stderr,
            curves.score_error_stderr,
        )
        left_out.append(np.log(read(part)))
    spread = np.array(left_out) - np.mean(left_out, axis=0)
    return {"sim_times": read(curves), "sim_log_stderr": np.sqrt((seeds - 1) / seeds * np.sum(spread**2, axis=0))}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    """Theory at several ψ_p on a fine grid of ψ_n, networks over a decade at the smallest ψ_p."""
    psi_p = [SIM_PSI_P, 1024.0, 65536.0]
    psi_n = [1.0, 3.0, 10.0, 50.0, 100.0] if smoke else [10 ** (k / 8) for k in range(17)]
    sim_psi_n = [1.0, 3.0, 10.0] if smoke else [1.0, 2.0, 3.0, 5.0, 7.0, 10.0]
    d, seeds = (8, 8) if smoke else (16, 8)
    pairs = [(p, n) for p in psi_p for n in psi_n]
    lines = cells("memorization_time, theory", predict, pairs)
    points = cells("memorization_time, simulation", simulate, [(n, d, seeds) for n in sim_psi_n])
    data = xr.Dataset(coords={"psi_p": psi_p, "psi_n": psi_n, "sim_psi_n": sim_psi_n, "time": list(TIMES), "sim_time": list(TIMES[:4])})
    data["times"] = (("psi_p", "psi_n", "time", "class"), harness.stack(lines, "times", (len(psi_p), len(psi_n))))
    data["sim_times"] = (("sim_psi_n", "sim_time", "class"), harness.stack(points, "sim_times"))
    data["sim_log_stderr"] = (("sim_psi_n", "sim_time", "class"), harness.stack(points, "sim_log_stderr"))
    data["times"].attrs = {"long_name": "training time", "units": "tau"}
    data["sim_log_stderr"].attrs["long_name"] = "standard error of log sim_times over networks, jackknife"
    return data.assign_attrs(d=d, seeds=seeds)


def slope(psi_n: np.ndarray, values: np.ndarray, stderr: np.ndarray | None = None) -> tuple[float, float]:
    """Slope of log time against log ψ_n and its standard error: that of the scatter for theory, of the given errors for networks."""
    x, y = np.log(psi_n), np.log(values)
    if not np.all(np.isfinite(y)):
        return np.nan, np.nan
    weight = np.ones_like(x)
    x = x - x.mean()
    value = float(weight * x @ y / (x @ x))
    if stderr is not None:
        return value, float(np.sqrt(x**2 @ stderr**2) / (x @ x))
    rest = y - y.mean() - value * x
    return value, float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / (x @ x)))


def theory_slope(data: xr.Dataset, name: str, c: int, psi_p: float, decade: tuple[float, float] = DECADE) -> tuple[float, float]:
    """Fit over a decade of ψ_n."""
    at = data["times"].sel(psi_p=psi_p, time=name).isel({"class": c})
    inside = (data["psi_n"].values >= decade[0] * 0.999) & (data["psi_n"].values <= decade[1] * 1.001)
    return slope(data["psi_n"].values[inside], at.values[inside])


def network_slope(data: xr.Dataset, name: str, c: int) -> tuple[float, float]:
    """Fit over the decade of the simulations, with the error that the networks' scatter gives."""
    at = data.sel(sim_time=name).isel({"class": c})
    return slope(data["sim_psi_n"].values, at["sim_times"].values, at["sim_log_stderr"].values)


def same_points(data: xr.Dataset, name: str, c: int) -> float:
    """Slope of the theory, interpolated, on the very points of the simulations."""
    at = data["times"].sel(psi_p=SIM_PSI_P, time=name).isel({"class": c}).values
    here = np.exp(np.interp(np.log(data["sim_psi_n"]), np.log(data["psi_n"]), np.log(at)))
    return slope(data["sim_psi_n"].values, here)[0]


def last_slope(data: xr.Dataset, c: int, psi_p: float, name: str = "tau_mem") -> float:
    """Local slope between the two largest ψ_n."""
    at = data["times"].sel(psi_p=psi_p, time=name).isel({"class": c}).values
    return float(np.diff(np.log(at))[-1] / np.diff(np.log(data["psi_n"].values))[-1])


def _with_error(fit: tuple[float, float]) -> str:
    return "—" if np.isnan(fit[0]) else f"{fit[0]:.3f} ± {fit[1]:.3f}"


def table(data: xr.Dataset) -> str:
    """Slopes of every time and class: networks, theory beside them, and theory far from the edges."""
    wide = [float(p) for p in data["psi_p"].values[1:]]
    header = ["time", "class", f"networks, ψ_p = {SIM_PSI_P:g}", f"theory, ψ_p = {SIM_PSI_P:g}"]
    header += [f"theory, ψ_p = {p:g}" for p in wide] + [f"ψ_p = {wide[-1]:g}, ψ_n 10–100", "last local slope there"]
    rows = []
    for name in TIMES:
        for c in range(1 if name == "tau_spectral" else data.sizes["class"]):
            row = [
                name,
                "both" if name == "tau_spectral" else str(c),
                "—" if name == "tau_spectral" else _with_error(network_slope(data, name, c)),
            ]
            row += [_with_error(theory_slope(data, name, c, p)) for p in (SIM_PSI_P, *wide)]
            row += [_with_error(theory_slope(data, name, c, wide[-1], (10, 100))), f"{last_slope(data, c, wide[-1], name):.3f}"]
            rows.append(row)
    size = f"Networks: d = {data.attrs['d']}, {data.attrs['seeds']} a point, ψ_n 1–10, m = ∞, t = {T:g}, tanh."
    return harness.markdown(header, rows) + f"\n\n{size}"


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    """Exponents 1 (asymptotically) and 0, and networks that follow the theory."""
    said = []
    largest = float(data["psi_p"].values[-1])
    for c in range(data.sizes["class"]):
        mem, gen, opt = (theory_slope(data, name, c, SIM_PSI_P)[0] for name in ("tau_mem", "tau_gen", "tau_opt"))
        said.append(
            (
                f"class {c}: over ψ_n 1–10, τ_gen has exponent {gen:.2f} < 0.15, τ_opt {opt:.3f} < 0.05 and τ_mem {mem:.2f} > 0.7",
                gen < 0.15 and opt < 0.05 and mem > 0.7,
            )
        )
        far = last_slope(data, c, largest)
        said.append(
            (f"class {c}: the exponent of τ_mem tends to 1: {far:.3f} at ψ_n = 100, ψ_p = {largest:g}, 1 within 0.05", abs(far - 1) < 0.05)
        )
        value, error = network_slope(data, "tau_gen", c)
        expected = same_points(data, "tau_gen", c)
        text = f"class {c}: networks' exponent of τ_gen {value:.3f} ± {error:.3f} is the theory's {expected:.3f} within 3 errors + 0.02"
        said.append((text, abs(value - expected) < 3 * error + 0.02))
        grown, spread = network_slope(data, "tau_mem", c)
        text = (
            f"class {c}: networks' exponent of τ_mem {grown:.2f} ± {spread:.2f} exceeds that of τ_gen by over 3 errors (value not judged)"
        )
        said.append((text, grown - value > 3 * float(np.hypot(spread, error))))
    return said


def draw(data: xr.Dataset) -> Figure:
    """Times against ψ_n with networks, and local exponents of τ_mem for several ψ_p."""
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors, psi_n = class_colors(data.sizes["class"]), data["psi_n"].values
    shown = psi_n <= 0.5 * SIM_PSI_P
    styles = dict(zip(TIMES, ["-", ":", "-.", "--", (0, (6, 1, 1, 1, 1, 1))], strict=True))
    marks = dict(zip(TIMES, "o^Ds", strict=False))
    for c, color in enumerate(colors):
        for name in TIMES[: 5 if c == 0 else 4]:
            at = data["times"].sel(psi_p=SIM_PSI_P, time=name).isel({"class": c}).values
            left.plot(psi_n[shown], at[shown], linestyle=styles[name], color="0.5" if name == "tau_spectral" else color)
        for name in TIMES[:4]:
            at = data.sel(sim_time=name).isel({"class": c})
            value = at["sim_times"].values
            left.errorbar(
                data["sim_psi_n"],
                value,
                value * np.nan_to_num(at["sim_log_stderr"].values),
                fmt=marks[name],
                color=color,
                markersize=4.5,
                capsize=2,
            )
        for psi_p, style in zip(data["psi_p"].values, ["-", "--", ":"], strict=True):
            at = data["times"].sel(psi_p=psi_p, time="tau_mem").isel({"class": c}).values
            keep = psi_n <= 0.5 * psi_p
            x = np.sqrt(psi_n[keep][1:] * psi_n[keep][:-1])
            right.plot(x, np.diff(np.log(at[keep])) / np.diff(np.log(psi_n[keep])), linestyle=style, color=color)
    right.axhline(1, color="0.6", linewidth=0.9)
    right.axhline(0, color="0.6", linewidth=0.9)
    for psi_p, style in zip(data["psi_p"].values, ["-", "--", ":"], strict=True):
        right.plot([], [], color="0.3", linestyle=style, label=f"ψ_p = {psi_p:g}")
    right.legend(frameon=False, fontsize=9, loc="lower left")
    left.set_yscale("log")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xlabel("samples per dimension ψ_n = n/d")
    left.set_ylabel("training time τ")
    left.set_title(f"theory (lines) and networks, d = {data.attrs['d']} (points); ψ_p = {SIM_PSI_P:g}", fontsize=10)
    right.set_ylabel("local exponent of τ_mem, d log τ_mem / d log ψ_n")
    right.set_title("where τ_mem ∝ n holds (theory)", fontsize=10)
    texts = dict(zip(TIMES, ["τ_gen", "τ_opt", "τ_stop", "τ_mem", "1/(κ λ_min)"], strict=True))
    handles = [
        Line2D([], [], color=color, linewidth=4, label=f"class {c}, variance {LAW.variances[c]:g}") for c, color in enumerate(colors)
    ]
    handles += [
        Line2D([], [], color="0.3", linestyle=styles[name], marker=marks.get(name, ""), markersize=4.5, label=texts[name]) for name in TIMES
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
