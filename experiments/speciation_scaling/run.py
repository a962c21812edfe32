"""The speciation time grows as ½ log d for classes with centroids at distance ∝ √d, and as ¼ log d for classes that differ in variance
only.

Two classes in equal parts: centroids at distance √d and variance 1, or no centroids and variances 1.5 and 0.5. Exact score.
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

CASES = {"centroids": 0.5, "variances": 0.25}  # slope of t_s against log d
FALSE_ALARM = 0.01
REACH = np.array([-0.1, 0.1])


def law(kind: str) -> MixtureLaw:
    if kind == "centroids":
        return MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], [[0.25, -0.25], [-0.25, 0.25]])
    return MixtureLaw.isotropic([0.5, 0.5], [1.5, 0.5])


def closed_form(cell: dict[str, Any]) -> dict[str, Any]:
    return {"time": backward.speciation_times(law(cell["kind"]), d=cell["d"])[0]}


def turned(cell: dict[str, Any]) -> dict[str, Any]:
    """Time at which the U-turns fall through 3/4, linear between two times beside the closed form, so near that R_c is a line there."""
    expected = float(closed_form(cell)["time"])
    mixture = GaussianMixture.from_law(law(cell["kind"]), cell["d"], jax.random.key(1))
    process = backward.BackwardProcess(mixture, num_steps=150)
    found = backward.uturn(process, expected + REACH, key=jax.random.key(cell["d"]), num_trajectories=cell["num"])
    share, error = found.fraction.mean(axis=1), np.hypot(*found.stderr.T) / 2  # both classes: π_0 (1 - R_0) = π_1 (1 - R_1)
    slope = (share[1] - share[0]) / np.ptp(REACH)
    at = REACH[0] + (0.75 - share[0]) / slope
    part = (at - REACH[0]) / np.ptp(REACH)
    return {"seen": expected + at, "error": np.hypot((1 - part) * error[0], part * error[1]) / abs(slope)}


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    dimensions = [2**k for k in ((6, 14, 16) if smoke else range(6, 17))]
    shown, num = ([64, 16384], 4000) if smoke else ([64, 256, 1024, 4096, 16384], 10_000)
    lines = cells("theory", closed_form, [{"kind": kind, "d": d} for kind in CASES for d in dimensions])
    points = cells("U-turns", turned, [{"kind": kind, "d": d, "num": num} for kind in CASES for d in shown])
    variables = {"time": (("kind", "d"), harness.stack(lines, "time", (2, len(dimensions))))}
    variables |= {name: (("kind", "shown"), harness.stack(points, name, (2, len(shown)))) for name in ("seen", "error")}
    return xr.Dataset(variables, {"kind": list(CASES), "d": dimensions, "shown": shown}, {"num": num})


def at_shown(data: xr.Dataset) -> np.ndarray:
    """Closed form (kind, shown) at the dimensions of the U-turns."""
    return data["time"].sel(d=data["shown"].values).values


def slopes(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope against log d of theory between its two largest d, of the U-turns between d = 1024 or so and the largest, and its error."""
    x = np.log(data["d"].values)
    theory = np.diff(data["time"].values[:, -2:], axis=1)[:, 0] / np.diff(x[-2:])
    seen, error = data["seen"].values, data["error"].values
    first = -3 if data.sizes["shown"] > 2 else 0
    step = np.log(data["shown"].values[-1] / data["shown"].values[first])
    return theory, (seen[:, -1] - seen[:, first]) / step, np.hypot(error[:, -1], error[:, first]) / step


def criteria(data: xr.Dataset) -> list[Criterion]:
    theory, seen, error = slopes(data)
    expected = np.array(list(CASES.values()))
    limit = float(norm.isf(FALSE_ALARM / 4))
    judged = []
    for i, kind in enumerate(CASES):
        right, wrong = expected[i], expected[1 - i]
        flat, steep = (max(abs(seen[i] - slope) - 0.01, 0.0) / error[i] for slope in (right, wrong))
        off = np.abs(data["seen"].values[i] - at_shown(data)[i]) / data["error"].values[i]
        many = float(norm.isf(FALSE_ALARM / (4 * off.size)))
        away = abs(theory[i] - right)
        judged += [
            Criterion(f"theory, {kind}: slope at the largest d, distance from {right:g}", f"{away:.4f}", "< 0.01", bool(away < 0.01)),
            Criterion(
                f"U-turns, {kind}: times against the closed form", f"{off.max():.1f} s.e.", f"< {many:.1f} s.e.", bool(off.max() < many)
            ),
            Criterion(
                f"U-turns, {kind}: slope {seen[i]:.3f}, distance beyond 0.01 from {right:g}",
                f"{flat:.1f} s.e.",
                f"< {limit:.1f} s.e.",
                bool(flat < limit),
            ),
            Criterion(f"the same from {wrong:g}", f"{steep:.0f} s.e.", f"> {limit:.1f} s.e.", bool(steep > limit)),
        ]
    return judged


def table(data: xr.Dataset) -> str:
    rows = []
    for i, kind in enumerate(CASES):
        for j, d in enumerate(data["shown"].values):
            rows.append(
                [kind, f"{d}", f"{at_shown(data)[i, j]:.3f}", f"{data['seen'].values[i, j]:.3f} ± {data['error'].values[i, j]:.3f}"]
            )
    return harness.markdown(["classes differ in", "d", "t_s, closed form", "t_s, U-turns"], rows)


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(6.6, 4.6), layout="constrained")
    panel = figure.subplots()
    d = data["d"].values
    for i, ((kind, slope), color) in enumerate(zip(CASES.items(), class_colors(2), strict=True)):
        panel.plot(d, data["time"].values[i], color=color, label=f"{kind}: closed form")
        panel.errorbar(data["shown"], data["seen"].values[i], data["error"].values[i], fmt="o", color=color, label=f"{kind}: U-turns")
        panel.plot(d, data["time"].values[i, -1] + slope * np.log(d / d[-1]), ":", color="0.4", label=f"slope {slope:g}")
    panel.set(xscale="log", xlabel="dimension $d$", ylabel="speciation time $t_s$")
    panel.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
