"""The memorisation time grows with the number of samples, in the limit proportionally, while the generalisation time hardly moves: the
window between them opens with more data.

Two classes of variance 1.5 and 0.5 in equal shares, exact noise average, more features than samples; slopes of log τ against log ψ_n.
"""

import sys
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, variables, with_error
from experiments.readings import GEN, MEM, OPT, STOP, isotropic, problem_of, readings, two_sizes
from rfdiff import theory
from rfdiff.plots import class_colors

VARIANCES = (1.5, 0.5)
SIM_PSI_P = 8.0  # of the networks: larger ratios need p, n far below d³ too, or cubic features spoil the limit
ROWS = (GEN, OPT, STOP, MEM)
TIMES = ("tau_gen", "tau_opt", "tau_stop", "tau_mem", "tau_spectral")  # the last: 1/(κ λ_min)
NAMES = dict(zip(TIMES, ["τ_gen", "τ_opt", "τ_stop", "τ_mem", "1/(κ λ_min)"], strict=True))
TAUS = [0.0, *np.geomspace(0.03, 1e9, 140), np.inf]
START, PER_DECADE, STEPS = 0.5, 6, 14  # grid of ψ_n
DECADE = (START, 10 * START)  # of ψ_n, in which the networks are
LATE = tuple(START * 10 ** (k / PER_DECADE) for k in (STEPS - PER_DECADE, STEPS))  # the last decade of the grid
JUDGED = ("tau_gen", "tau_opt", "tau_mem")  # τ_stop jumps between two minima of the test loss


def cell(psi_p: float, psi_n: float) -> dict[str, Any]:
    """One point of the map."""
    return isotropic([0.5, 0.5], list(VARIANCES), psi_p=psi_p, psi_n=psi_n)


def predict(argument: tuple[float, float]) -> dict[str, Any]:
    """Times from the curves, and relaxation time of the lowest edge of the continuous spectrum (one for both classes)."""
    here = problem_of(cell(*argument))
    edge = float(np.min(theory.spectrum(here, num_points=200).support[:, 0]))
    read = readings(theory.learning_curves(here, TAUS, tolerance=1e-5))[list(ROWS)]
    return {"times": np.concatenate([read, np.full((1, len(VARIANCES)), 1 / (here.kappa * edge))])}


def simulate(argument: tuple[float, int, int]) -> dict[str, Any]:
    """Times of networks at d and d/2."""
    psi_n, d, seeds = argument
    return two_sizes(cell(SIM_PSI_P, psi_n) | {"d": d, "seeds": seeds}, lambda curves: readings(curves)[list(ROWS)], TAUS)


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    """Theory at several ψ_p on a grid of ψ_n, networks over a decade at the smallest ψ_p."""
    psi_p = [SIM_PSI_P, 65536.0] if smoke else [SIM_PSI_P, 1024.0, 65536.0]
    steps = range(0, STEPS + 1, 2) if smoke else range(STEPS + 1)
    psi_n = [START * 10 ** (k / PER_DECADE) for k in steps]
    sim_psi_n = [0.5, 5.0] if smoke else [0.5, 1.0, 2.0, 3.0, 5.0]
    d, seeds = (24, 8) if smoke else (48, 10)
    lines = cells("memorisation_time, theory", predict, [(p, n) for p in psi_p for n in psi_n])
    beside = cells("memorisation_time, theory", predict, [(SIM_PSI_P, n) for n in sim_psi_n])
    found = cells("memorisation_time, networks", simulate, [(n, d, seeds) for n in sim_psi_n])
    data = xr.Dataset(coords={"psi_p": psi_p, "psi_n": psi_n, "sim_psi_n": sim_psi_n, "time": list(TIMES), "sim_time": list(TIMES[:4])})
    data["times"] = (("psi_p", "psi_n", "time", "class"), harness.stack(lines, "times", (len(psi_p), len(psi_n))))
    data["times_beside"] = (("sim_psi_n", "time", "class"), harness.stack(beside, "times"))
    data = data.assign(variables(found, "networks", {"sim_psi_n": len(sim_psi_n)}, ("sim_time", "class")))
    data["times"].attrs = {"long_name": "training time", "units": "tau"}
    return data.assign_attrs(d=d, seeds=seeds)


def slopes(psi_n: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Least-squares slope of logarithms (N, ...) against log ψ_n, shape (...)."""
    x = np.log(psi_n) - np.mean(np.log(psi_n))
    with np.errstate(invalid="ignore"):
        return np.tensordot(x, logs, 1) / (x @ x)


def theory_slope(data: xr.Dataset, name: str, c: int, psi_p: float, decade: tuple[float, ...] = DECADE) -> tuple[float, float]:
    """Fit over a decade of ψ_n, and its standard error from the scatter about the line, which is curvature and not noise."""
    inside = (data["psi_n"].values >= decade[0] * 0.999) & (data["psi_n"].values <= decade[1] * 1.001)
    x, y = data["psi_n"].values[inside], np.log(data["times"].sel(psi_p=psi_p, time=name).values[inside, c])
    if not np.all(np.isfinite(y)):
        return np.nan, np.nan
    value, x = float(slopes(x, y)), np.log(x) - np.mean(np.log(x))
    rest = y - y.mean() - value * x
    return value, float(np.sqrt(rest @ rest / max(len(x) - 2, 1) / (x @ x)))


def time_values(data: xr.Dataset, name: str) -> Comparison:
    """Log times (ψ_n, class) of the networks against theory."""
    row, theory_ = TIMES.index(name), data["times_beside"].sel(time=name).values
    return compare(data, "networks", np.log(theory_), lambda values: np.log(values[..., row, :]), data.attrs["d"])


def exponents(data: xr.Dataset, name: str) -> Comparison:
    """Exponents (class,) of the networks against theory on the same ψ_n; one network is left out at every ψ_n at once."""
    row, psi_n = TIMES.index(name), data["sim_psi_n"].values
    expected = slopes(psi_n, np.log(data["times_beside"].sel(time=name).values))
    return compare(data, "networks", expected, lambda values: slopes(psi_n, np.log(values[..., row, :])), data.attrs["d"], cell_axes=0)


def _with_error(value: float, error: float) -> str:
    return "—" if np.isnan(value) or np.isnan(error) else f"{value:.3f} ± {error:.3f}"


def table(data: xr.Dataset) -> str:
    """Exponents of every time and class: networks, theory beside them, and theory far from the edges; times of the networks."""
    wide = [float(p) for p in data["psi_p"].values[1:]]
    decade = f"ψ_n {DECADE[0]:g}–{DECADE[1]:g}"
    header = ["time", "class", f"networks at d, {decade}", "networks, d → ∞", "theory on the same points"]
    header += [f"theory, ψ_p = {p:g}, {decade}" for p in wide] + [f"theory, ψ_p = {wide[-1]:g}, ψ_n {LATE[0]:.0f}–{LATE[1]:.0f}"]
    rows = []
    for name in TIMES:
        for c in range(1 if name == "tau_spectral" else data.sizes["class"]):
            row = [NAMES[name], "both", "—", "—", f"{slopes(data['sim_psi_n'].values, np.log(data['times_beside'].sel(time=name)))[c]:.3f}"]
            if name != "tau_spectral":
                found = exponents(data, name)
                row[1:4] = [str(c), _with_error(found.seen[c], found.seen_error[c]), _with_error(found.limit[c], found.error[c])]
            row += [_with_error(*theory_slope(data, name, c, p)) for p in wide]
            rows.append([*row, _with_error(*theory_slope(data, name, c, wide[-1], LATE))])
    values = []
    for i, n in enumerate(data["sim_psi_n"].values):
        for c in range(data.sizes["class"]):
            row = [f"{n:g}", str(c)]
            for name in ("tau_gen", "tau_mem"):
                found = time_values(data, name)
                row += [f"{np.exp(found.theory[i, c]):.4g}", with_error(found.seen[i, c], found.seen_error[i, c])]
                row += [with_error(found.limit[i, c], found.error[i, c])]
            values.append(row)
    head = ["ψ_n", "class", *(f"{s} {side}" for s in ("τ_gen", "τ_mem") for side in ("theory", "networks at d", "networks, d → ∞"))]
    size = f"Networks: ψ_p = {SIM_PSI_P:g}, d = {data.attrs['d']}, {data.attrs['seeds']} a point, twice as many at d/2."
    return f"{harness.markdown(header, rows)}\n\n{harness.markdown(head, values)}\n\n{size}"


def criteria(data: xr.Dataset) -> list[Criterion]:
    """Exponents 1 (asymptotically) and 0, and networks that follow the theory."""
    largest, classes = float(data["psi_p"].values[-1]), range(data.sizes["class"])
    where = f"theory, ψ_p = {largest:g}, ψ_n {LATE[0]:.0f}–{LATE[1]:.0f}"
    order = ("tau_mem", "tau_gen", "tau_opt")
    mem, gen, opt = (np.array([theory_slope(data, name, c, largest, LATE)[0] for c in classes]) for name in order)
    off, stay = float(np.max(abs(mem - 1))), float(max(gen.max(), opt.max()))
    times = [time_values(data, name) for name in JUDGED]
    names = ", ".join(NAMES[name] for name in JUDGED)
    slopes = {name: exponents(data, name) for name in ("tau_gen", "tau_mem")}
    return [
        Criterion(f"{where}: exponent of τ_mem, distance from 1", f"{off:.3f}", "< 0.05", off < 0.05),
        Criterion(f"{where}: exponents of τ_gen and τ_opt", f"{stay:.3f}", "< 0.05", stay < 0.05),
        agreement(names, times),
        rejection(names, [(each, each.theory[:, ::-1]) for each in times]),
        agreement("exponents of τ_gen, τ_mem", list(slopes.values())),
        rejection(
            "exponents of τ_gen, τ_mem",
            [(slopes["tau_gen"], slopes["tau_mem"].theory), (slopes["tau_mem"], slopes["tau_gen"].theory)],
            "the other time's exponent",
        ),
    ]


def draw(data: xr.Dataset) -> Figure:
    """Times against ψ_n with networks, and local exponents of τ_mem for several ψ_p."""
    figure = Figure(figsize=(10.4, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors, psi_n = class_colors(data.sizes["class"]), data["psi_n"].values
    shown = psi_n <= SIM_PSI_P
    styles = dict(zip(TIMES, ["-", ":", "-.", "--", (0, (6, 1, 1, 1, 1, 1))], strict=True))
    marks = dict(zip(TIMES, "o^Ds", strict=False))
    lines = dict(zip(data["psi_p"].values, ["-", "--", ":"] if len(data["psi_p"]) == 3 else ["-", ":"], strict=True))
    for c, color in enumerate(colors):
        for name in TIMES[: 5 if c == 0 else 4]:
            at = data["times"].sel(psi_p=SIM_PSI_P, time=name).isel({"class": c}).values
            left.plot(psi_n[shown], at[shown], linestyle=styles[name], color="0.5" if name == "tau_spectral" else color)
        for name in TIMES[:4]:
            points(left, data["sim_psi_n"].values, time_values(data, name), (slice(None), c), marks[name], color)
        for psi_p, style in lines.items():
            at = data["times"].sel(psi_p=psi_p, time="tau_mem").isel({"class": c}).values
            keep = psi_n <= 0.5 * psi_p
            x = np.sqrt(psi_n[keep][1:] * psi_n[keep][:-1])
            right.plot(x, np.diff(np.log(at[keep])) / np.diff(np.log(psi_n[keep])), linestyle=style, color=color)
    for level in (0, 1):
        right.axhline(level, color="0.6", linewidth=0.9)
    for psi_p, style in lines.items():
        right.plot([], [], color="0.3", linestyle=style, label=rf"$\psi_p$ = {psi_p:g}")
    right.legend(frameon=False, fontsize=9, loc="upper right")
    left.set_yscale("log")
    for panel, ticks in ((left, [0.5, 1, 2, 5]), (right, [0.5, 1, 2, 5, 10, 20, 50, 100])):
        panel.set_xscale("log")
        panel.set_xlabel(r"samples per dimension $\psi_n = n/d$")
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.xaxis.minorticks_off()
    left.set_ylabel(r"training time $\tau$")
    left.set_title(rf"theory (lines) and networks, $\psi_p$ = {SIM_PSI_P:g}", fontsize=10)
    right.set_ylabel(r"local exponent $d\log\tau_{\rm mem}\,/\,d\log\psi_n$")
    right.set_title(r"where $\tau_{\rm mem}\propto n$ holds (theory)", fontsize=10)
    texts = dict(
        zip(
            TIMES,
            [r"$\tau_{\rm gen}$", r"$\tau_{\rm opt}$", r"$\tau_{\rm stop}$", r"$\tau_{\rm mem}$", r"$1/(\kappa\lambda_{\rm min})$"],
            strict=True,
        )
    )
    handles = [Line2D([], [], color=color, linewidth=4, label=f"class {c}, variance {VARIANCES[c]:g}") for c, color in enumerate(colors)]
    handles += [
        Line2D([], [], color="0.3", linestyle=styles[name], marker=marks.get(name, ""), markersize=4.5, label=texts[name]) for name in TIMES
    ]
    handles += [
        Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor=face, label=label)
        for face, label in (("0.3", f"networks, d = {data.attrs['d']}"), ("none", r"networks, $d\to\infty$"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
