"""What the experiments with U-Nets share: sizes of their three forms, one run as a cell, and the theory of the images it was trained on.

The full form is for a GPU (28 x 28 pixels), `--small` for two CPU cores (14 x 14, a narrow net), `--smoke` takes seconds on made-up images.
A run keeps its checkpoints with the finished cells, so that the same command resumes after Ctrl-C.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from experiments.real_images.run import stand_ins
from rfdiff import MixtureLaw, Problem, theory, times
from rfdiff.images import evaluation, readout
from rfdiff.images.architecture import Architecture
from rfdiff.images.classifier import trained_classifier
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import CLASS_NAMES, VARIABLE, FashionMNIST, load
from rfdiff.images.protocol import Protocol, fitted_law, law_numbers, prepare
from rfdiff.images.settings import Settings
from rfdiff.images.training import train
from rfdiff.plots import class_colors

Case = tuple[Sequence[int], Sequence[int]]  # classes, counts
READ = ("tau_gen", "tau_mem", "tau_copy")
THEORY_TIME, THEORY_RATIO = 0.1, 4.0  # diffusion time and ψ_p of the random-features network that the order is taken from
TAUS = [*np.geomspace(0.1, 1e6, 71).tolist(), np.inf]
TOLERANCE = 3e-3
RESOLVED = (
    1.15  # least ratio of two classes' times that counts as an order: measured steps are a factor 10^(1/8) = 1.33 apart, read between
)


@dataclasses.dataclass(frozen=True)
class Form:
    """Sizes of one form.

    Args:
        side, width, depth, attention: pixels and network.
        each: training images of a class in the balanced pair.
        held_out, measured, steps, batch, levels: of the training.
        samples, sampler_steps, first, epochs: of the evaluation; `first` is the first step that is evaluated.
        dtype: arithmetic.
    """

    side: int
    width: int
    depth: int
    attention: int
    each: int
    held_out: int
    measured: int
    steps: int
    batch: int
    levels: int
    samples: int
    sampler_steps: int
    first: int
    epochs: int
    dtype: str = "float32"


SIZES = {
    "full": Form(28, 64, 3, 1, 500, 500, 500, 60_000, 128, 8, 2000, 50, 100, 8, "bfloat16"),
    "small": Form(14, 16, 2, 1, 64, 256, 64, 2000, 32, 4, 200, 20, 100, 8),
    "smoke": Form(7, 4, 2, 0, 24, 30, 24, 60, 16, 3, 60, 5, 30, 8),
}


@functools.lru_cache(maxsize=1)
def photographs() -> FashionMNIST:
    """Fashion-MNIST, from where RFDIFF_FASHION_MNIST says or beside the checkout."""
    default = harness.HOME.parents[1] / "shared" / "data" / "fashion-mnist"
    return load(None if os.environ.get(VARIABLE) else default)


@functools.lru_cache(maxsize=1)
def stand_in_data() -> FashionMNIST:
    """Discs and stripes under the numbers of the classes 8 and 7, and both turned upside down under 1 and 9."""
    shapes, labels = stand_ins(28, 160)
    levels = np.round(255 * np.clip(shapes, 0, 1)).astype(np.uint8)
    images = np.concatenate([levels, 255 - levels])
    marks = np.concatenate([np.array([8, 7])[labels], np.array([1, 9])[labels]]).astype(np.uint8)
    return FashionMNIST(images[::2], marks[::2], images[1::2], marks[1::2])


def data_of(form: str) -> FashionMNIST:
    return stand_in_data() if form == "smoke" else photographs()


def settings_of(form: str, classes: Sequence[int], counts: Sequence[int], seed: int) -> Settings:
    """The run of a form on given classes and counts; the seed chooses images, network and noise."""
    size = SIZES[form]
    protocol = Protocol(classes=tuple(classes), counts=tuple(counts), held_out=size.held_out, side=size.side, split_seed=seed)
    network = Architecture(width=size.width, depth=size.depth, attention=size.attention)
    names = ("steps", "batch", "levels", "measured", "dtype")
    return Settings(protocol=protocol, architecture=network, seed=seed, **{name: getattr(size, name) for name in names})


def trained(place: Path, argument: tuple[str, Sequence[int], Sequence[int], int]) -> dict[str, Any]:
    """One run, trained and evaluated in a folder of `place`: what its evaluation.nc holds, and the numbers of its law."""
    form, classes, counts, seed = argument
    size, settings, devices = SIZES[form], settings_of(form, classes, counts, seed), Devices()
    folder = place / f"run-{form}-{'-'.join(map(str, [*classes, *counts]))}-{seed}"
    data = data_of(form)
    images = prepare(data, settings.protocol)
    losses = train(settings, images, folder, devices)
    classifier = trained_classifier(data, images, size.epochs, devices, place / f"classifier-{form}-{settings.protocol.classes}.npz")
    steps = evaluation.evaluated_steps(folder, size.first)
    sampling = evaluation.Sampling(samples=size.samples, sampler_steps=size.sampler_steps, seed=seed)
    rows = evaluation.Evaluator(folder, settings, images, data, classifier, sampling, devices).run(steps)
    dataset = readout.read_out(losses, steps, rows)
    names = ("mean_loss", "mean_loss_stderr", "gap", "time", "time_at", "step", "checkpoint", "t", "grid", *readout.VARIABLES)
    law = fitted_law(images)
    slow = form == "smoke" and len(classes) > 2  # the theory of four classes compiles for longer than a smoke run may take
    return {
        **{name: dataset[name].values for name in names},
        "accuracy": classifier.accuracy,
        **law_numbers(law),
        "predicted": np.full((2, len(classes)), np.nan) if slow else predicted(law, settings),
    }


def predicted(law: MixtureLaw, settings: Settings) -> np.ndarray:
    """(2, K) τ_gen and τ_mem of a random-features network at `THEORY_TIME`, with the law and the number of images of a run."""
    ratio = sum(settings.protocol.counts) / settings.protocol.side**2
    problem = Problem(law, "tanh", THEORY_TIME, THEORY_RATIO, ratio)  # type: ignore[arg-type]
    found = times(theory.learning_curves(problem, TAUS, tolerance=TOLERANCE))
    return np.stack([np.asarray(found.tau_gen), np.asarray(found.tau_mem)])


def forms(cases: Callable[[str], list[Case]], seeds: dict[str, int]) -> tuple[Callable[..., xr.Dataset], Callable[..., xr.Dataset]]:
    """`compute` and `compute_small` of an experiment, from its cases in a form and its numbers of seeds."""

    def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
        form = "smoke" if smoke else "full"
        return computed(form, cells, cases(form), seeds["full"])

    def compute_small(cells: harness.Cells) -> xr.Dataset:
        return computed("small", cells, cases("small"), seeds["small"])

    return compute, compute_small


def computed(form: str, cells: harness.Cells, cases: Sequence[Case], number: int) -> xr.Dataset:
    """Every case (classes, counts) with a number of seeds (one in the smoke form), as one dataset over (case, seed, …)."""
    if form != "smoke":
        photographs()  # refuses before anything expensive
    seeds = range(1 if form == "smoke" else number)
    arguments = [(form, list(classes), list(counts), seed) for classes, counts in cases for seed in seeds]
    found = cells("U-Nets", functools.partial(trained, cells.workspace()), arguments)
    axes: dict[str, tuple[str, ...]] = {
        "mean_loss": ("step", "set", "class"),
        "mean_loss_stderr": ("step", "set", "class"),
        "gap": ("step", "class"),
        "time": ("reading", "class"),
        "time_at": ("curve_reading", "log_snr", "class"),
        "predicted": ("predicted_reading", "class"),
        "grid": ("checkpoint", "class", "kind", "place", "row", "column"),
        "angle": ("class", "other"),
        "accuracy": (),
        **dict.fromkeys(("weight", "variance", "centroid_norm"), ("class",)),
        **dict.fromkeys(readout.VARIABLES, ("checkpoint", "class")),
    }
    shape = (len(cases), len(seeds))
    data: dict[str, Any] = {name: (("case", "seed", *own), harness.stack(found, name, shape)) for name, own in axes.items()}
    data["grid"] = (("case", *axes["grid"][1:]), data["grid"][1][:, 0, -1])  # of the first seed, at the end
    data["classes"] = (("case", "class"), np.array([[CLASS_NAMES[c] for c in classes] for classes, _ in cases]))
    data["count"] = (("case", "class"), np.array([counts for _, counts in cases]))
    data["t"] = (("log_snr",), found[0]["t"])
    coordinates = {"step": found[0]["step"], "checkpoint": found[0]["checkpoint"], "set": ["train", "held_out"]}
    coordinates |= {
        "reading": list(readout.READINGS),
        "curve_reading": list(readout.READINGS[:3]),
        "predicted_reading": ["tau_gen", "tau_mem"],
    }
    size = {f"form_{name}": value for name, value in dataclasses.asdict(SIZES[form]).items()}
    source = "made-up images, no photographs" if form == "smoke" else "Fashion-MNIST"
    return xr.Dataset(data, coordinates, {"form": form, "images": source, **size})


def level_of(data: xr.Dataset) -> int:
    """Index of the measured t nearest to that of the theory, on the scale of log t."""
    return int(np.argmin(abs(np.log(data["t"].values / THEORY_TIME))))


def log_ratio(data: xr.Dataset, reading: str, a: int, b: int) -> np.ndarray:
    """log of the ratio of two classes' times at the t of the theory, (case, seed); NaN where one of them does not exist."""
    at = data["time_at"].sel(curve_reading=reading).isel(log_snr=level_of(data)).values
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(at[..., a] / at[..., b])
    return np.where(np.isfinite(ratio), ratio, np.nan)


def orders(data: xr.Dataset, reading: str) -> tuple[int, int]:
    """Pairs of classes whose order is resolved (the same in all seeds, by a factor `RESOLVED` on average), and those as in theory."""
    resolved = right = 0
    expected = np.log(data["predicted"].sel(predicted_reading=reading).mean("seed").values)
    for a, b in itertools.combinations(range(data.sizes["class"]), 2):
        for ratios, theirs in zip(log_ratio(data, reading, a, b), expected[:, a] - expected[:, b], strict=True):
            if np.isfinite([*ratios, theirs]).all() and abs(ratios.mean()) > np.log(RESOLVED) and len(set(np.sign(ratios))) == 1:
                resolved += 1
                right += int(np.sign(ratios.mean()) == np.sign(theirs))
    return resolved, right


def learned(data: xr.Dataset) -> harness.Criterion:
    """Whether every class was learned at all."""
    held_out = data["mean_loss"].sel(set="held_out")
    fall = float((1 - held_out.min("step") / held_out.isel(step=0)).min())
    least = 0.02 if data.attrs["form"] == "smoke" else 0.5
    return harness.Criterion("fall of the held-out loss of every class", f"{fall:.0%}", f"> {least:.0%}", fall > least)


def table(data: xr.Dataset) -> str:
    """A line a case and class: the numbers of the law, times in theory and in steps, and what the last checkpoint generates."""
    heads = ["images", "class", "variance", "centroid norm²/d", "theory τ_gen", "theory τ_mem", *(f"{name}, steps" for name in READ)]
    rows, means = [], data.drop_vars(["classes", "grid"]).mean("seed", skipna=False)
    for i, k in np.ndindex(data.sizes["case"], data.sizes["class"]):
        at = means.isel({"case": i, "class": k})
        end = at.isel(checkpoint=-1)
        line = [
            str(int(at["count"])),
            str(data["classes"].values[i, k]),
            f"{float(at['variance']):.3f}",
            f"{float(at['centroid_norm']):.3f}",
        ]
        line += [f"{value:.4g}" for value in at["predicted"].values]
        line += [", ".join(f"{value:.4g}" for value in data["time"].sel(reading=name).values[i, :, k]) for name in READ]
        line += [f"{float(at['gap'][-1]):.3f}", f"{float(end['fraction']):.0%}", f"{float(end['memorised']):.0%}"]
        rows.append([*line, f"{float(end['frechet']):.3g} ({float(end['floor']):.3g})"])
    size = data.attrs
    text = f"{size['images']}, form {size['form']}: {size['form_side']} × {size['form_side']} pixels, width {size['form_width']}, "
    seeds = f"{data.sizes['seed']} seeds (times: one per seed; the rest: their mean)" if data.sizes["seed"] > 1 else "one seed"
    text += f"{size['form_steps']} steps of {size['form_batch']} images, {seeds}. "
    text += f"Accuracy of the classifier on the test images: {float(data['accuracy'].min()):.1%} or better. Theory: tanh, "
    text += (
        f"t = {THEORY_TIME}, ψ_p = {THEORY_RATIO:g}, ψ_n = images/pixels, the law fitted to the training images, in its own unit of time."
    )
    return f"{text}\n\n{harness.markdown([*heads, 'last gap', 'share of samples', 'memorised', 'Fréchet (floor)'], rows)}"


def draw(data: xr.Dataset, title: str) -> Figure:
    """A column a case: losses, gap, Fréchet distance and memorised fraction of each class against steps; thin lines are seeds."""
    count = data.sizes["case"]
    figure = Figure(figsize=(3.6 * count + 1, 9), layout="constrained")
    panels = figure.subplots(4, count, squeeze=False, sharex=True, sharey="row")
    colors = class_colors(data.sizes["class"])
    for i, s, k in np.ndindex(count, data.sizes["seed"], data.sizes["class"]):
        _draw_run(panels[:, i], data.isel({"case": i, "seed": s, "class": k}), colors[k])
    for i in range(count):
        parts = [f"{n} {name}" for n, name in zip(data["count"].values[i], data["classes"].values[i], strict=True)]
        panels[0, i].set(title="\n".join(", ".join(parts[k : k + 2]) for k in range(0, len(parts), 2)))
        panels[0, i].set(xscale="log", yscale="log")
        panels[3, i].set(xlabel="training step", ylim=(-0.03, 1.03))
    if bool((data["frechet"] > 0).any()):
        panels[2, 0].set(yscale="log")
    for panel, text in zip(
        panels[:, 0], ("loss per coordinate", "held-out − train loss", "Fréchet distance", "memorised fraction"), strict=True
    ):
        panel.set(ylabel=text)
    names = list(dict.fromkeys(data["classes"].values[0]))
    handles: list[Any] = [Line2D([], [], color=color, label=str(name)) for name, color in zip(names, colors, strict=True)]
    handles += [Line2D([], [], color="0.3", label="held out"), Line2D([], [], color="0.3", linestyle="--", label="train")]
    handles.append(Line2D([], [], color="0.3", linestyle=":", label="halves of the real test images"))
    handles += [
        Line2D([], [], color="0.3", linestyle="", marker=m, label=text) for m, text in (("^", r"$\tau_{gen}$"), ("D", r"$\tau_{mem}$"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, 2 * count), frameon=False)
    figure.suptitle(title)
    return figure


def _draw_run(panels: Sequence[Axes], at: xr.Dataset, color: Any) -> None:
    steps, checkpoints = at["step"].values, at["checkpoint"].values
    train_loss, test = at["mean_loss"].values[:, 0], at["mean_loss"].values[:, 1]
    panels[0].plot(steps[1:], test[1:], color=color, linewidth=0.9)
    panels[0].plot(steps[1:], train_loss[1:], "--", color=color, linewidth=0.9)
    for reading, marker in (("tau_gen", "^"), ("tau_mem", "D")):
        place = float(at["time"].sel(reading=reading))
        if np.isfinite(place) and place > 0:
            panels[0].plot(place, np.interp(place, steps, test), marker, color=color, markeredgecolor="black", markersize=6)
    panels[1].plot(steps[1:], at["gap"].values[1:], color=color, linewidth=0.9)
    panels[2].plot(checkpoints, at["frechet"].values, ".-", color=color, linewidth=0.9)  # some points have no neighbour
    panels[2].plot(checkpoints, at["floor"].values, ":", color=color, linewidth=0.9)
    panels[3].plot(checkpoints, at["memorised"].values, color=color, linewidth=0.9)
    panels[3].fill_between(checkpoints, at["low"].values, at["high"].values, color=color, alpha=0.15, linewidth=0)
