"""On images the theory of their fitted Gaussian law is within 4 % of real networks until a class is learned, and says which class is
learned first; later it overstates the test loss, by up to 30 %.

Networks trained on images of two kinds of clothing, networks trained on samples of the Gaussian mixture with the same means and
covariances, and the closed form for that mixture. What the two kinds of networks have in common is finite size; the rest is not Gaussian.
"""

import functools
import itertools
import os
import sys
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from experiments.harness import Criterion
from experiments.readings import TIMES, times_with_errors
from rfdiff import GaussianMixture, LearningCurves, MixtureLaw, Problem, Samples, simulation, theory
from rfdiff.images.fashion_mnist import CLASS_NAMES, VARIABLE, class_pixels, load
from rfdiff.plots import MARKERS, class_colors

PAIRS = [(8, 7), (1, 6), (2, 4)]
RATIOS = [(0.5, 2.0), (1.0, 1.0), (4.0, 1.0)]  # (ψ_p, ψ_n): p < n, p = n, p > n
POOLED, WHOLE, MAIN = 14, 28, (1.0, 1.0)  # pixels a side; the ratios of the whole images
STAND_INS, STAND_IN_SIDE = (-1, -1), 6
T, ACTIVATION, TOLERANCE, HELD_OUT = 0.1, "tanh", 3e-3, 1000
TAUS = [*np.geomspace(0.3, 3e4, 41).tolist(), np.inf]
CURVES = ("train_loss", "test_loss")
SOURCES = ("theory", "images", "gaussian")
REGIMES = ("up to τ_gen", "τ_gen to τ_mem", "after τ_mem")  # by the times of the theory, each class's own
HOLDS = 0.04  # relative deviation that counts as agreement until a class is learned
SHARED = 1 / 3  # least part of the deviation at τ = ∞, on average over the classes, that Gaussian samples must show too
ALIKE, WORSE = 1.2, 2.0  # ratio of variances above which exchanging the classes in the theory must make it worse, by this factor
STAYS = 0.5  # least ratio of the deviation of Gaussian samples at d = 784 to that at 196; 1/d would make it 0.25


def stand_ins(side: int, number: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Images (2 number, side, side) that nobody photographed, for `--smoke`: discs and fainter stripes, on a texture; labels."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] / side
    place, radius = rng.uniform(0.2, 0.8, (2, number, 1, 1)), rng.uniform(0.15, 0.35, (number, 1, 1))
    discs = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 < radius**2
    phase, tilt = rng.uniform(0, 2 * np.pi, (number, 1, 1)), rng.uniform(-1, 1, (number, 1, 1))
    stripes = 0.35 + 0.35 * np.sin(2 * np.pi * 1.5 * (rows + tilt * columns) + phase)
    shapes = np.concatenate([discs, stripes]) * rng.uniform(0.1, 1, (2 * number, 1, 1))
    return shapes + 0.1 * rng.uniform(-1, 1, shapes.shape), np.repeat([0, 1], number)


@functools.lru_cache(maxsize=1)
def _original() -> Any:
    default = harness.HOME.parents[1] / "shared" / "data" / "fashion-mnist"
    return load(None if os.environ.get(VARIABLE) else default)


@functools.lru_cache(maxsize=2)
def prepared(pair: tuple[int, int], side: int) -> tuple[Samples, MixtureLaw, float, float]:
    """Images of two classes as the networks see them, their fitted law, and the shift and scale that made them.

    Average pooling to side², then one number is taken from every pixel of every image (the mean of them all) and one divides it, so that
    (1/2) Σ_c tr Σ_c/d = 1 for the covariances about each class's own mean.
    """
    if pair == STAND_INS:
        images, labels = stand_ins(side)
    else:
        pixels, labels = class_pixels(_original(), pair)
        block = WHOLE // side
        images = pixels.reshape(-1, side, block, side, block).mean((2, 4))
    x = images.reshape(len(images), -1)
    shift = float(x.mean())
    scale = float(np.sqrt(np.mean([x[labels == c].var(axis=0) for c in (0, 1)])))
    x = (x - shift) / scale
    return Samples(x, labels, HELD_OUT), MixtureLaw.fit(x, labels), shift, scale


def problem_of(law: MixtureLaw, psi_p: float, psi_n: float) -> Problem:
    return Problem(law, ACTIVATION, T, psi_p, psi_n)


def predicted(argument: tuple[tuple[int, int], int, float, float]) -> dict[str, Any]:
    """Closed form of one case: curves (curve, time, class), times (5, class), and numbers of the law."""
    pair, side, psi_p, psi_n = argument
    _, law, shift, scale = prepared(tuple(pair), side)
    curves = theory.learning_curves(problem_of(law, psi_p, psi_n), TAUS, tolerance=TOLERANCE)
    spectra = np.asarray(law.eigenvalues)
    return {
        **_measured(curves),
        "optimal_loss": curves.optimal_loss,
        "error_estimate": curves.error_estimate,
        "variance": law.variances,
        "effective_dimension": spectra.sum(0) ** 2 / (spectra**2).sum(0),
        "centroid_gram": law.centroid_gram,
        "shift": shift,
        "scale": scale,
    }


def trained(argument: tuple[tuple[int, int], int, float, float, str, int]) -> dict[str, Any]:
    """Networks on images, or on as many samples of their fitted law: curves and times with their standard errors over networks.

    Both are split alike and have the same first layers: nothing but the samples differs.
    """
    pair, side, psi_p, psi_n, source, seeds = argument
    data, law, _, _ = prepared(tuple(pair), side)
    if source == "gaussian":
        mixture = GaussianMixture.from_law(law, data.dimension, jax.random.key(0))
        data = Samples(*mixture.sample(jax.random.key(1), data.counts), HELD_OUT)
    problem = problem_of(law, psi_p, psi_n)
    return _measured(simulation.learning_curves(problem, TAUS, d=data.dimension, key=jax.random.key(2), num_seeds=seeds, data=data))


def _measured(curves: LearningCurves) -> dict[str, Any]:
    values, errors = times_with_errors(curves)
    return {
        "loss": np.stack([getattr(curves, name) for name in CURVES]),
        "stderr": np.stack([getattr(curves, f"{name}_stderr") for name in CURVES]),
        "value": values,
        "error": errors,
    }


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    if smoke:
        cases = [(STAND_INS, STAND_IN_SIDE, *RATIOS[-1])]  # where the deviations are largest
        seeds = [20]
    else:
        cases = [(pair, POOLED, *ratio) for pair in PAIRS for ratio in RATIOS] + [(pair, WHOLE, *MAIN) for pair in PAIRS]
        seeds = [8 if side == POOLED else 4 for _, side, _, _ in cases]
        _original()  # refuses before anything expensive
    found = [cells("theory", predicted, cases)]
    for source in SOURCES[1:]:
        found.append(cells(f"networks on {source}", trained, [(*case, source, s) for case, s in zip(cases, seeds, strict=True)]))
    dims = {"loss": ("curve", "tau", "class"), "value": ("reading", "class")}
    dims |= {"stderr": dims["loss"], "error": dims["value"]}
    data = {name: (("source", "case", *axes), np.stack([harness.stack(part, name) for part in found])) for name, axes in dims.items()}
    for name in ("optimal_loss", "variance", "effective_dimension"):
        data[name] = (("case", "class"), harness.stack(found[0], name))
    data["centroid_gram"] = (("case", "class", "other"), harness.stack(found[0], "centroid_gram"))
    for name in ("error_estimate", "shift", "scale"):
        data[name] = (("case",), harness.stack(found[0], name))
    labels = [["discs", "stripes"] if pair == STAND_INS else [CLASS_NAMES[c] for c in pair] for pair, *_ in cases]
    data["label"] = (("case", "class"), np.array(labels))
    data["side"] = (("case",), np.array([side for _, side, _, _ in cases]))
    data["psi_p"] = (("case",), np.array([case[2] for case in cases]))
    data["psi_n"] = (("case",), np.array([case[3] for case in cases]))
    data["seeds"] = (("case",), np.array(seeds))
    axes = {"source": list(SOURCES), "curve": list(CURVES), "tau": TAUS, "reading": list(TIMES)}
    images = "stand-ins made by run.py, no photographs" if smoke else "Fashion-MNIST, the 6,000 training images of each class"
    return xr.Dataset(data, axes, {"diffusion_time": T, "activation": ACTIVATION, "tolerance": TOLERANCE, "images": images})


def deviations(data: xr.Dataset, exchanged: bool = False) -> np.ndarray:
    """Relative deviation from theory of largest size in each regime, with its sign: (images and Gaussian, case, curve, regime, class)."""
    loss, taus = data["loss"].values, data["tau"].values
    reference = loss[:1, ..., ::-1] if exchanged else loss[:1]
    off = loss[1:] / reference - 1
    gen, mem = (data["value"].sel(source="theory", reading=name).values[:, None, :] for name in ("tau_gen", "tau_mem"))
    inside = [taus[:, None] <= gen, (taus[:, None] > gen) & (taus[:, None] <= mem), taus[:, None] > mem]
    worst = [np.where(mask[:, None], off, 0) for mask in inside]
    places = [np.argmax(abs(part), axis=3, keepdims=True) for part in worst]
    return np.stack([np.take_along_axis(part, at, axis=3)[:, :, :, 0] for part, at in zip(worst, places, strict=True)], axis=3)


def at_the_end(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Test loss at τ = ∞ of images and Gaussian samples minus theory, and their standard errors: (2, case, class)."""
    last = data.sel(curve="test_loss").isel(tau=-1)
    return last["loss"].values[1:] - last["loss"].values[:1], last["stderr"].values[1:]


def orders(data: xr.Dataset, reading: str) -> tuple[int, int]:
    """Cases in which networks on images resolve the order of the classes (3 standard errors), and those of them theory has right."""
    at = data.sel(reading=reading)
    value, error = at["value"].values, at["error"].sel(source="images").values
    with np.errstate(invalid="ignore"):
        gap, expected = value[1, :, 1] - value[1, :, 0], value[0, :, 1] - value[0, :, 0]
        resolved = np.isfinite(expected) & (abs(gap) > 3 * np.hypot(error[:, 0], error[:, 1]))
    return int(resolved.sum()), int(np.sum(resolved & (np.sign(gap) == np.sign(expected))))


def criteria(data: xr.Dataset) -> list[Criterion]:
    early = abs(deviations(data)[0][:, :, 0]).max((1, 2))
    apart = data["variance"].values.max(1) > ALIKE * data["variance"].values.min(1)
    worse = float((abs(deviations(data, exchanged=True)[0][:, :, 0]).max((1, 2)) / early)[apart].min())
    resolved, right = orders(data, "tau_gen")
    off, error = at_the_end(data)
    reference = data["loss"].sel(source="theory", curve="test_loss").values[:, -1]
    below, share = float((off[0] / error[0]).max()), off[1] / off[0]
    beyond = int(np.sum(off[0] - off[1] < -3 * np.hypot(*error)))
    judged = [
        Criterion(
            "images, up to τ_gen: deviation of a loss from theory", f"{early.max():.1%}", f"< {HOLDS:.0%}", bool(early.max() < HOLDS)
        ),
        Criterion(
            f"the same over that of a theory with exchanged classes, where variances differ ({apart.sum()} of {apart.size} cases)",
            f"1/{worse:.1f}",
            f"< 1/{WORSE:g}",
            worse > WORSE,
        ),
        Criterion(
            "images: resolved cases in which the class learned first is theory's",
            f"{right} of {resolved}",
            "all, at least one",
            right == resolved > 0,
        ),
        Criterion("images, τ = ∞: test loss minus theory", f"{below:.1f} s.e.", "< −3 s.e.", below < -3),
        Criterion(
            "part of that which Gaussian samples show, on average", f"{share.mean():.0%}", f"> {SHARED:.0%}", bool(share.mean() > SHARED)
        ),
        Criterion("the same in one class and case", f"{share.max():.0%}", "< 100%", bool(np.all(share < 1))),
        Criterion(
            "classes and cases where images lie 3 s.e. below Gaussian samples",
            f"{beyond} of {share.size}",
            "more than half",
            2 * beyond > share.size,
        ),
    ]
    if WHOLE in data["side"].values:
        sides, main = data["side"].values, (data["psi_p"].values == MAIN[0]) & (data["psi_n"].values == MAIN[1])
        ratio = (off[1] / reference)[sides == WHOLE] / (off[1] / reference)[(sides == POOLED) & main]
        text = f"Gaussian samples, τ = ∞: deviation at d = {WHOLE**2} over that at {POOLED**2} (1/d: {(POOLED / WHOLE) ** 2:.2f})"
        judged.append(Criterion(text, f"{ratio.min():.2f}", f"> {STAYS:g}", bool(ratio.min() > STAYS)))
    return judged


def table(data: xr.Dataset) -> str:
    off = 100 * deviations(data)
    first, second = [], []
    for i, c in np.ndindex(data.sizes["case"], 2):
        at = data.isel({"case": i, "class": c})
        names = " – ".join(data["label"].values[i])
        case = [f"{names}, {int(at['side'])}²", f"{float(at['psi_p']):g}, {float(at['psi_n']):g}"] if c == 0 else ["", ""]
        spread = [f"{float(at['variance']):.2f}", f"{float(at['effective_dimension']):.1f}"]
        moved = [f"{off[0, i, k, r, c]:+.1f} ({off[1, i, k, r, c]:+.1f})" for k in (1, 0) for r in range(3)]
        first.append([*case, str(at["label"].values), *spread, *moved])
        times = [_ratio(at.sel(reading=name)) for name in TIMES]
        second.append([*case, str(at["label"].values), *times])
    heads = [f"{name}, {regime}" for name in ("test", "train") for regime in REGIMES]
    one = harness.markdown(["images, pixels", "ψ_p, ψ_n", "class", "variance", "effective dimension", *heads], first)
    two = harness.markdown(["images, pixels", "ψ_p, ψ_n", "class", *TIMES], second)
    found = [(name, *orders(data, name)) for name in TIMES]
    right = ", ".join(f"{name} {good} of {resolved}" for name, resolved, good in found)
    parts = [
        f"Largest deviation from theory in each regime, in per cent of its loss: images (Gaussian samples). {data.attrs['images']}.",
        one,
        "Times: theory; images, and in brackets Gaussian samples, over theory.",
        two,
        f"Order of the two classes as predicted, of the cases that networks on images resolve (3 standard errors): {right}.",
        f"Largest numerical error of the theory: {float(data['error_estimate'].max()):.1e}; largest standard error of a loss on images at "
        f"τ = ∞: {_worst_error(data):.1%} of it.",
    ]
    return "\n\n".join(parts)


def _ratio(at: xr.Dataset) -> str:
    expected, images, gaussian = (float(at["value"].sel(source=source)) for source in SOURCES)
    if not np.isfinite([expected, images, gaussian]).all():
        return "; ".join(f"{value:.3g}" for value in (expected, images)) + f" ({gaussian:.3g})"
    return f"{expected:.3g}; × {images / expected:.2f} (× {gaussian / expected:.2f})"


def _worst_error(data: xr.Dataset) -> float:
    at = data.sel(source="images").isel(tau=-1)
    return float((at["stderr"] / at["loss"]).max())


def draw(data: xr.Dataset) -> Figure:
    """A row a pair, a column a ratio and size: lines theory, filled points images, open points Gaussian samples."""
    pairs = list(dict.fromkeys(map(tuple, data["label"].values)))
    columns = data.sizes["case"] // len(pairs)
    figure = Figure(figsize=(3.6 * columns, 2.9 * len(pairs) + 0.7), layout="constrained")
    panels = figure.subplots(len(pairs), columns, squeeze=False, sharey="row", sharex=True)
    colors, finite = class_colors(2), np.isfinite(data["tau"].values)
    for i in range(data.sizes["case"]):
        at = data.isel(case=i)
        row = pairs.index(tuple(at["label"].values))
        before = [j for j in range(i) if tuple(data["label"].values[j]) == pairs[row]]
        panel = panels[row, len(before)]
        for c, curve in itertools.product((0, 1), CURVES):
            _draw_curve(panel, at.sel(curve=curve).isel({"class": c, "tau": finite}), curve, colors[c])
        relation = "<" if at["psi_p"] < at["psi_n"] else ">" if at["psi_p"] > at["psi_n"] else "="
        title = f"d = {int(at['side']) ** 2}, $\\psi_p$ = {float(at['psi_p']):g}, $\\psi_n$ = {float(at['psi_n']):g} (p {relation} n)"
        panel.set(xscale="log", title=title if row == 0 else "")
        panel.title.set_fontsize(10)
        if not before:
            panel.set_ylabel("loss per coordinate")
            panel.legend(
                handles=[Line2D([], [], color=colors[c], linewidth=2.5, label=pairs[row][c]) for c in (0, 1)], loc="lower left", fontsize=9
            )
        if row == len(pairs) - 1:
            panel.set_xlabel(r"training time $\tau$")
    style = {"color": "0.25", "markersize": 5, "linestyle": ""}
    handles = [Line2D([], [], color="0.25", label="theory, test"), Line2D([], [], color="0.25", linestyle="--", label="theory, train")]
    for curve, name in (("test_loss", "test"), ("train_loss", "train")):
        handles.append(Line2D([], [], marker=MARKERS[curve], label=f"images, {name}", **style))
        handles.append(Line2D([], [], marker=MARKERS[curve], markerfacecolor="white", label=f"Gaussian samples, {name}", **style))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _draw_curve(panel: Axes, at: xr.Dataset, curve: str, color: str) -> None:
    """One class: theory, and every fourth time of the networks, the two kinds at different ones."""
    taus = at["tau"].values
    panel.plot(taus, at["loss"].sel(source="theory"), color=color, linestyle="-" if curve == "test_loss" else "--", linewidth=1.3, zorder=1)
    for start, source, face in ((0, "images", color), (2, "gaussian", "white")):
        part = at.sel(source=source).isel(tau=slice(start, None, 4))
        panel.errorbar(taus[start::4], part["loss"], part["stderr"], fmt=MARKERS[curve], color=color, markerfacecolor=face, markersize=4.2,
                       markeredgewidth=0.9, elinewidth=0.9, zorder=2)  # fmt: skip


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
