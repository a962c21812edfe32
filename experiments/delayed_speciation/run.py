"""A rare class is decided later in the backward process: its speciation time falls with its weight.

Two isotropic classes of variance 1, centroids at distance √d, data centred. Two classes share one time by R_c = (1 + π_c)/2, since
π_0 (1 - R_0) = π_1 (1 - R_1): a rare class delays both.
"""

import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import norm

from experiments import harness
from experiments.harness import Criterion
from rfdiff import GaussianMixture, MixtureLaw, backward
from rfdiff.plots import class_colors

FALSE_ALARM = 0.01
REACH = np.linspace(-1.6, 1.2, 9)  # times of the U-turns, around the speciation time


def law(pi: float) -> MixtureLaw:
    """Minority of weight π, the class 1; centroids (1 - π) v and -π v with |v|² = d."""
    places = np.array([pi, -(1 - pi)])
    return MixtureLaw.isotropic([1 - pi, pi], [1.0, 1.0], np.outer(places, places))


def closed_form(cell: dict[str, Any]) -> dict[str, Any]:
    mixture, d, grid = law(cell["pi"]), cell["d"], np.linspace(0.05, cell["latest"], 81)
    times, wells = backward.speciation_times(mixture, d=d), backward.potential_times(mixture, d=d)
    curve, classical = backward.return_probability(mixture, grid, d=d), backward.classical_time(mixture, d=d)
    return {"time": times, "well": wells, "grid": grid, "curve": curve, "classical": classical}


def measured(cell: dict[str, Any]) -> dict[str, Any]:
    """U-turns and clones of one weight, and the closed form at their times."""
    mixture, d, num = law(cell["pi"]), cell["d"], cell["num"]
    process = backward.BackwardProcess(GaussianMixture.from_law(mixture, d, jax.random.key(1)), num_steps=180)
    t_s = float(backward.speciation_times(mixture, d=d)[1])
    turns = np.maximum(t_s + REACH, 0.1)
    turned = backward.uturn(process, turns, key=jax.random.key(2), num_trajectories=num)
    copies = backward.clones(process, t_s + 3, key=jax.random.key(3), num_trajectories=cell["clones"], num_times=12)
    expected, at_copies = (backward.return_probability(mixture, times, d=d) for times in (turns, copies.times))
    # the same classes in equal parts: what must be rejected
    even = MixtureLaw.isotropic([0.5, 0.5], mixture.variances, mixture.centroid_gram)
    balanced = backward.return_probability(even, turns, d=d)
    found = {"turn": turns, "uturn": turned.fraction, "uturn_error": turned.stderr, "expected": expected, "balanced": balanced}
    return found | {"copy": copies.times, "clone": copies.fraction, "clone_error": copies.stderr, "clone_expected": at_copies}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    d = 256 if smoke else 1024
    weights = [0.5, 0.1, 0.01] if smoke else [float(w) for w in np.geomspace(0.5, 0.001, 19)]
    shown, num, pairs = ([0.5, 0.05], 2000, 4000) if smoke else ([0.5, 0.1, 0.01, 0.001], 10_000, 40_000)
    latest = float(np.log(d) / 2 + 1.5)
    theory = cells("theory", closed_form, [{"pi": pi, "d": d, "latest": latest} for pi in weights])
    beside = cells("theory", closed_form, [{"pi": pi, "d": d, "latest": latest} for pi in shown])
    found = cells("measured", measured, [{"pi": pi, "d": d, "num": num, "clones": pairs} for pi in shown])
    variables = {
        "time": (("weight", "class"), harness.stack(theory, "time")),
        "well": (("weight", "class"), harness.stack(theory, "well")),
        "classical": ("weight", harness.stack(theory, "classical")),
        "curve": (("shown", "grid", "class"), harness.stack(beside, "curve")),
        "shown_time": (("shown", "class"), harness.stack(beside, "time")),
    }
    for name in found[0]:
        axes = ("shown", "branch" if name.startswith(("cop", "clone")) else "place", "class")
        variables[name] = (axes[: found[0][name].ndim + 1], harness.stack(found, name))
    return xr.Dataset(variables, {"weight": weights, "shown": shown, "grid": theory[0]["grid"]}, {"d": d, "num": num, "clones": pairs})


def _off(data: xr.Dataset, seen: str, theory: str) -> np.ndarray:
    """|measured - theory| in measured standard errors; NaN where no clone was in the class."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(data[seen].values - data[theory].values) / data[f"{seen}_error"].values


def _known(off: np.ndarray, data: xr.Dataset, name: str) -> np.ndarray:
    """Entries whose normal approximation holds: measured probabilities away from 0 and 1 by 5 standard errors."""
    share, error = data[name].values, data[f"{name}_error"].values
    with np.errstate(invalid="ignore"):
        return off[np.isfinite(off) & (np.minimum(share, 1 - share) > 5 * error)]


def crossings(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Time at which the measured U-turns of the minority fall through (1 + π)/2, and its standard error."""
    found = []
    for i, pi in enumerate(data["shown"].values):
        t, share, error = data["turn"].values[i], data["uturn"].values[i, :, 1], data["uturn_error"].values[i, :, 1]
        j = int(np.flatnonzero((share[:-1] >= (1 + pi) / 2) & (share[1:] < (1 + pi) / 2))[-1])
        slope = (share[j + 1] - share[j]) / (t[j + 1] - t[j])
        part = ((1 + pi) / 2 - share[j]) / (share[j + 1] - share[j])
        found.append((t[j] + part * (t[j + 1] - t[j]), np.hypot((1 - part) * error[j], part * error[j + 1]) / abs(slope)))
    values, errors = np.array(found).T
    return values, errors


def criteria(data: xr.Dataset) -> list[Criterion]:
    time = data["time"].values
    steps, apart = np.diff(time[:, 1]), float(np.max(np.abs(time[:, 0] - time[:, 1])))
    judged = [
        Criterion(
            f"theory: change of t_s from one weight to the next, π = 0.5 to {data['weight'].values[-1]:g}",
            f"{steps.max():.3f}",
            "< 0",
            bool(np.all(steps < 0)),
        ),
        Criterion("theory: difference of the times of the two classes", f"{apart:.1e}", "< 1e-6", apart < 1e-6),
    ]
    for name, theory, what in (("uturn", "expected", "U-turns"), ("clone", "clone_expected", "clones")):
        off = _known(_off(data, name, theory), data, name)
        limit = float(norm.isf(FALSE_ALARM / (2 * off.size)))
        judged.append(
            Criterion(
                f"{what}: distance from R_c ({off.size} points)", f"{off.max():.1f} s.e.", f"< {limit:.1f} s.e.", bool(off.max() < limit)
            )
        )
    rare = data.isel(shown=slice(1, None))
    wrong = float(_known(_off(rare, "uturn", "balanced"), rare, "uturn").max())
    judged.append(Criterion("U-turns: distance from a theory with balanced classes", f"{wrong:.0f} s.e.", "> 10 s.e.", wrong > 10))
    return judged


def table(data: xr.Dataset) -> str:
    seen, error = crossings(data)
    rows = []
    for i, pi in enumerate(data["shown"].values):
        j = int(np.argmin(np.abs(np.log(data["weight"].values / pi))))
        row = [f"{pi:g}", f"{data['shown_time'].values[i, 1]:.3f}", f"{seen[i]:.3f} ± {error[i]:.3f}"]
        rows.append([*row, f"{data['well'].values[j, 1]:.3f}", f"{data['classical'].values[j]:.3f}"])
    header = ["π of the minority", "t_s, closed form", "t_s, U-turns (linear between points)", "its well appears (nearest π)", "½ log Λ"]
    size = f"d = {data.attrs['d']}, {data.attrs['num']} U-turns per class and time, {data.attrs['clones']} pairs of clones."
    return f"{harness.markdown(header, rows)}\n\n{size}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (pi, color) in enumerate(zip(data["shown"].values, class_colors(data.sizes["shown"]), strict=True)):
        left.plot(data["grid"], data["curve"].values[i, :, 1], color=color, label=rf"$\pi$ = {pi:g}")
        left.errorbar(
            data["turn"].values[i], data["uturn"].values[i, :, 1], data["uturn_error"].values[i, :, 1], fmt="o", color=color, ms=5
        )
        good = np.isfinite(data["clone"].values[i, :, 1]) & (data["clone_error"].values[i, :, 1] < 0.1)
        at, share, error = (
            data[name].values[i][good] if name == "copy" else data[name].values[i, good, 1] for name in ("copy", "clone", "clone_error")
        )
        left.errorbar(at, share, error, fmt="s", color=color, mfc="white", ms=5, lw=1)
        left.plot([data["shown_time"].values[i, 1]], [(1 + pi) / 2], "*", color=color, ms=14, mec="k", zorder=5)
    left.set(xlim=(data["grid"].values.max(), 0), xlabel="time $t$ of the turn", ylabel=r"$R_c(t)$ of the minority")
    left.legend(fontsize=8, title="● U-turns  □ clones  ★ $t_s$", title_fontsize=8)
    seen, error = crossings(data)
    right.plot(data["weight"], data["time"].values[:, 1], color="k", label=r"$R_c = (1+\pi_c)/2$, both classes")
    right.plot(data["weight"], data["well"].values[:, 1], "--", color="0.4", label="the minority's well appears")
    right.plot(data["weight"], data["classical"].values, ":", color="0.4", label=r"classical $\frac{1}{2}\log\Lambda$")
    right.errorbar(data["shown"], seen, error, fmt="o", color="k", label="U-turns")
    right.set(xscale="log", xlabel=r"weight $\pi$ of the minority", ylabel="speciation time $t_s$")
    right.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
