"""The deviation of networks in dimension d from the theory falls as 1/d, for every class and for train and test loss, and none of it is
left at d → ∞.

Two classes of variance 1.5 and 0.4, little data (half a sample a dimension) so that the finite-size term is large; training time is late.
"""

import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import chi2

from experiments import harness
from experiments.harness import Criterion
from rfdiff import MixtureLaw, Problem, simulation, theory
from rfdiff.plots import MARKERS, class_colors

LAW = MixtureLaw.isotropic([0.5, 0.5], [1.5, 0.4])
PSI_P, PSI_N, T = 1.5, 0.5, 0.1
TAUS = [100.0, 1000.0]  # the second is judged
CURVES = ("train_loss", "test_loss")
RESOLVED = 5.0  # standard errors of c, below which a deviation has no first order to see and its slope says nothing
WRONG = 1.1  # factor on ψ_n of a theory that must be noticed as wrong
FULL = [(12, 2500), (24, 1500), (48, 600), (96, 200), (192, 60)]
SMOKE = [(12, 1500), (24, 800), (48, 240), (96, 50)]


def problem(psi_n: float = PSI_N) -> Problem:
    """The problem, or one with another number of samples."""
    return Problem(LAW, "erf", T, PSI_P, psi_n)


def simulate(argument: tuple[int, int]) -> dict[str, Any]:
    """Mean and standard error of the curves (curve, time, class) at one dimension."""
    d, seeds = argument
    curves = simulation.learning_curves(problem(), TAUS, d=d, key=jax.random.key(d), num_seeds=seeds)
    return {"loss": [getattr(curves, name) for name in CURVES], "stderr": [getattr(curves, f"{name}_stderr") for name in CURVES]}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    """Deviations from the right theory and from one with 10 % more samples, and the fits to them."""
    sizes = SMOKE if smoke else FULL
    found = cells("finite_size", simulate, sizes)
    dims = ("d", "curve", "tau", "class")
    data = xr.Dataset({name: (dims, harness.stack(found, name)) for name in ("loss", "stderr")})
    data = data.assign_coords(d=[d for d, _ in sizes], seeds=("d", [seeds for _, seeds in sizes]), curve=list(CURVES), tau=TAUS)
    for name, psi_n in (("theory", PSI_N), ("wrong_theory", PSI_N * WRONG)):
        limit = theory.learning_curves(problem(psi_n), TAUS)
        data[name] = (dims[1:], np.array([getattr(limit, curve) for curve in CURVES]))
    data["loss"].attrs["long_name"] = "loss per coordinate of the simulation, mean over seeds"
    data["stderr"].attrs["long_name"] = "standard error of loss over seeds"
    return _with_fits(data)


def _with_fits(data: xr.Dataset) -> xr.Dataset:
    d = data["d"].values.astype(float)
    fits: dict[str, list[Any]] = {}
    for index in np.ndindex(*data["theory"].shape):
        stderr = data["stderr"].values[(slice(None), *index)]
        deviation = data["loss"].values[(slice(None), *index)] - data["theory"].values[index]
        wrong = data["loss"].values[(slice(None), *index)] - data["wrong_theory"].values[index]
        fit = {
            **power_law(d, deviation, stderr),
            **series(d, deviation, stderr),
            **leading_power(d, deviation, stderr),
            "wrong_rest": series(d, wrong, stderr)["rest"],
        }
        for name, value in fit.items():
            fits.setdefault(name, []).append(value)
    return data.assign({name: (data["theory"].dims, np.reshape(values, data["theory"].shape)) for name, values in fits.items()})


def power_law(d: np.ndarray, deviation: np.ndarray, stderr: np.ndarray) -> dict[str, float]:
    """Weighted fit of log |deviation| against log d: slope and its standard error."""
    x, y, weight = np.log(d), np.log(abs(deviation)), (deviation / stderr) ** 2
    centre = weight @ x / weight.sum()
    spread = weight @ (x - centre) ** 2
    return {"slope": weight @ ((x - centre) * y) / spread, "slope_stderr": spread**-0.5}


def leading_power(d: np.ndarray, deviation: np.ndarray, stderr: np.ndarray) -> dict[str, float]:
    """Fit of d^{-a} (c + e/d): the exponent a towards which the slope tends for large d, and its standard error; NaN without a fit."""
    start = [*np.linalg.lstsq(np.stack([1 / d, d**-2.0], 1), deviation, rcond=None)[0], 1.0]
    try:
        value, covariance = curve_fit(lambda d, c, e, a: d**-a * (c + e / d), d, deviation, start, stderr, absolute_sigma=True)
    except (RuntimeError, OptimizeWarning):
        return {"power": np.nan, "power_stderr": np.nan}
    return {"power": -value[2], "power_stderr": float(np.sqrt(covariance[2, 2]))}


def series(d: np.ndarray, deviation: np.ndarray, stderr: np.ndarray) -> dict[str, float]:
    """Fits c/d + e/d² with its misfit, and b + c/d + e/d²: b is what is left at d → ∞, in units of its standard error."""

    def solve(columns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
        design = np.stack(columns, 1) / stderr[:, None]
        covariance = np.linalg.inv(design.T @ design)
        value = covariance @ design.T @ (deviation / stderr)
        return value, np.sqrt(np.diag(covariance)), float(np.sum((deviation / stderr - design @ value) ** 2))

    (c, e), (c_stderr, e_stderr), misfit = solve([1 / d, 1 / d**2])
    (rest, *_), (rest_stderr, *_), _ = solve([d**0, 1 / d, 1 / d**2])
    p_value = chi2.sf(misfit, len(d) - 2)
    return {
        "c": c,
        "c_stderr": c_stderr,
        "e": e,
        "e_stderr": e_stderr,
        "p_value": p_value,
        "rest": rest / rest_stderr,
        "rest_stderr": rest_stderr,
    }


def _judged(data: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """The curves at the last time, by name."""
    last = data.isel(tau=-1)
    return [
        (f"{curve.replace('_loss', '')}, class {c}", last.sel(curve=curve).isel({"class": c}))
        for curve in data["curve"].values
        for c in range(data.sizes["class"])
    ]


def _resolved(at: xr.Dataset) -> bool:
    return bool(abs(at["c"]) > RESOLVED * at["c_stderr"])


def table(data: xr.Dataset) -> str:
    """Slope, coefficients and rest of every curve at the last time."""
    header = [
        "curve at τ = 1000",
        "theory",
        "slope of log deviation",
        "slope for d → ∞",
        "c",
        "e",
        "p-value of c/d + e/d²",
        "left at d → ∞ (its standard error)",
    ]
    rows = []
    for name, at in _judged(data):
        value = {key: float(at[key]) for key in at.data_vars if at[key].ndim == 0}
        rows.append(
            [
                name,
                f"{value['theory']:.4f}",
                f"{value['slope']:.3f} ± {value['slope_stderr']:.3f}" if _resolved(at) else "— (c is 0 within its error)",
                f"{value['power']:.3f} ± {value['power_stderr']:.3f}" if _resolved(at) else "—",
                f"{value['c']:.3f} ± {value['c_stderr']:.3f}",
                f"{value['e']:.2f} ± {value['e_stderr']:.2f}",
                f"{value['p_value']:.2f}",
                f"{value['rest'] * value['rest_stderr']:.1e} ({value['rest_stderr']:.1e})",
            ]
        )
    sizes = ", ".join(f"{d} ({seeds})" for d, seeds in zip(data["d"].values, data["seeds"].values, strict=True))
    return harness.markdown(header, rows) + f"\n\nDimensions (networks): {sizes}."


def criteria(data: xr.Dataset) -> list[Criterion]:
    """1/d and nothing beside it, with power shown on a wrong theory."""
    curves = [(name, at) for name, at in _judged(data) if _resolved(at)]
    judged = [
        Criterion("curves with a resolved first-order term", f"{len(curves)} of {len(_judged(data))}", "at least 3", len(curves) >= 3)
    ]
    for exponent, far in ((-1.0, False), (-0.5, True), (-2.0, True)):
        off = [abs(float(at["power"]) - exponent) / float(at["power_stderr"]) for _, at in curves]
        worst = (min if far else max)(off, default=np.nan)
        name = f"exponent of d in the deviation: distance from {exponent:g}"
        judged.append(Criterion(name, f"{worst:.1f} s.e.", f"{'>' if far else '<'} 3 s.e.", worst > 3 if far else worst < 3))
    last = data.isel(tau=-1)
    least, most = float(last["p_value"].min()), float(abs(last["rest"]).max())
    wrong = float(abs(last["wrong_rest"]).max())
    return [
        *judged,
        Criterion("fit of c/d + e/d²: p-value", f"{least:.3f}", "> 0.002", least > 0.002),
        Criterion("deviation left at d → ∞", f"{most:.1f} s.e.", "< 3.5 s.e.", most < 3.5),
        Criterion("the same against a theory with 10 % more samples", f"{wrong:.1f} s.e.", "> 5 s.e.", wrong > 5),
    ]


def draw(data: xr.Dataset) -> Figure:
    """|simulation − theory| against d, a panel a curve; lines of slope −1 through the fitted c."""
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    d = data["d"].values.astype(float)
    fine = np.geomspace(d[0], d[-1], 50)
    colors = class_colors(data.sizes["class"])
    last = data.isel(tau=-1)
    for panel, curve in zip(panels, CURVES, strict=True):
        for c, color in enumerate(colors):
            at = last.sel(curve=curve).isel({"class": c})
            slope = (
                f"slope {float(at['slope']):.2f}, {float(at['power']):.2f} ± {float(at['power_stderr']):.2f} for $d\\to\\infty$"
                if _resolved(at)
                else "no 1/d term resolved"
            )
            label = f"class {c}: {slope}"
            deviation = abs(at["loss"].values - float(at["theory"]))
            panel.errorbar(d, deviation, at["stderr"].values, fmt=MARKERS[curve], color=color, markersize=5, capsize=2, label=label)
            if _resolved(at):
                panel.plot(d, abs(float(at["c"])) / d, color=color, linewidth=1.2)
                panel.plot(fine, abs(float(at["c"]) + float(at["e"]) / fine) / fine, ":", color=color, linewidth=1.2)
        panel.plot([], [], color="0.3", linewidth=1.2, label="c/d, slope −1")
        panel.plot([], [], ":", color="0.3", linewidth=1.2, label="c/d + e/d²")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xticks(d, [f"{size:.0f}" for size in d])
        panel.minorticks_off()
        panel.set_xlabel("dimension d")
        panel.set_title(f"{curve.replace('_', ' ')} at τ = {TAUS[-1]:.0f}", fontsize=10)
        panel.legend(frameon=False, fontsize=8, loc="lower left")
    panels[0].set_ylabel("|simulation − theory|, loss per coordinate")
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
