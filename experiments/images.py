"""What the experiments with U-Nets share: sizes of their three forms, one run as a cell, and the theory of the images it was trained on.

The full form is for a GPU (28 x 28 pixels), `--small` for two CPU cores (14 x 14, a narrow net), `--smoke` takes seconds on made-up images.
Few images a class, so that a network of this size memorises them. A finished run is a small file in the folder `runs` of its experiment;
the checkpoints of an unfinished one are in `runs.partial` beside it. The same command goes on from both. Readings: image_readings.py.
"""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from experiments import harness
from experiments.real_images.run import stand_ins
from rfdiff import MinibatchSGD, MixtureLaw, Problem, load, save, theory, times
from rfdiff.images import checkpoints, evaluation, readout
from rfdiff.images.architecture import Architecture
from rfdiff.images.classifier import trained_classifier
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import CLASS_NAMES, VARIABLE, FashionMNIST
from rfdiff.images.fashion_mnist import load as load_images
from rfdiff.images.protocol import Protocol, fitted_law, law_numbers, prepare
from rfdiff.images.settings import Settings
from rfdiff.images.training import train

Case = tuple[Sequence[int], Sequence[int]]  # classes, counts
Run = tuple[str, Sequence[int], Sequence[int], int]  # form, classes, counts, seed
THEORY_TIME, THEORY_RATIO = 0.1, 4.0  # diffusion time and ψ_p of the random-features network that the order is taken from
LATEST_T = 0.5  # of the measured t at which theory is evaluated: later, the times of the classes hardly differ
TAUS = [*np.geomspace(0.1, 1e6, 71).tolist(), np.inf]
TOLERANCE = 3e-3
LATEST_TAU = 3000.0  # of steps of SGD in theory, long after the gap has opened
RULES = ("plain flow", "SGD, steps half the largest stable one", "SGD, a tenth of it")


@dataclasses.dataclass(frozen=True)
class Form:
    """Sizes of one form. A run ends when half of the samples of every class are memorised, or at the last step.

    The limit is one of steps, so that a run does not depend on what else the machine does.

    Args:
        side, width, depth, attention: pixels and network.
        each: training images of a class in the balanced pair.
        held_out, measured, batch, levels: of the training.
        steps: most of a run.
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
    "full": Form(28, 32, 3, 1, 32, 500, 256, 30_000, 64, 8, 1000, 50, 300, 8, "bfloat16"),
    "small": Form(14, 16, 2, 1, 8, 256, 128, 20_000, 16, 4, 400, 20, 300, 8),
    "smoke": Form(7, 4, 2, 0, 24, 30, 24, 60, 16, 3, 60, 5, 30, 8),
}
RUN_AXES: dict[str, tuple[str, ...]] = {
    "mean_loss": ("step", "set", "class"),
    "mean_loss_stderr": ("step", "set", "class"),
    "gap": ("step", "class"),
    "time": ("reading", "class"),
    "time_at": ("curve_reading", "log_snr", "class"),
    "loss": ("step", "set", "log_snr", "class"),
    "loss_stderr": ("step", "set", "log_snr", "class"),
    "t": ("log_snr",),
    "grid": ("class", "kind", "place", "row", "column"),
    "angle": ("class", "other"),
    **dict.fromkeys(("accuracy", "last_step", "minutes"), ()),
    **dict.fromkeys(("weight", "variance", "centroid_norm"), ("class",)),
    **dict.fromkeys(readout.VARIABLES, ("checkpoint", "class")),
}
THEORY_AXES = {"predicted": ("predicted_reading", "class"), "predicted_at": ("predicted_reading", "log_snr", "class")}
PER_DECADE = 8  # measured steps and checkpoints
HALF = 0.5  # part of a class's samples; where it is memorised, the class counts as memorised


@functools.lru_cache(maxsize=1)
def photographs() -> FashionMNIST:
    """Fashion-MNIST, from where RFDIFF_FASHION_MNIST says or beside the checkout."""
    default = harness.HOME.parents[1] / "shared" / "data" / "fashion-mnist"
    return load_images(None if os.environ.get(VARIABLE) else default)


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
    chosen = {name: getattr(size, name) for name in names}
    return Settings(protocol=protocol, architecture=network, seed=seed, per_decade=PER_DECADE, kept_per_decade=PER_DECADE, **chosen)


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the runs of an experiment are kept.

    Args:
        finished: folder of the small files.
        working: folder of the checkpoints of unfinished runs, and of classifiers.
    """

    finished: Path
    working: Path

    def file(self, run: Run) -> Path:
        """Of a finished run."""
        return self.finished / f"{name_of(run)}.nc"

    def theory(self, run: Run) -> Path:
        """Of the theory of a run."""
        return self.finished / f"{name_of(run)}-theory.nc"


def name_of(run: Run) -> str:
    form, classes, counts, seed = run
    return f"{form}-{'-'.join(map(str, classes))}-of-{'-'.join(map(str, counts))}-seed-{seed}"


def trained(places: Places, run: Run) -> xr.Dataset:
    """One run, from its file if it is finished; otherwise trained from its newest checkpoint to its end, and kept.

    Arrays have a place for each step that the form allows, NaN after the last; `last_step` says how far it came, `minutes` how many minutes
    of processor time it took.

    Raises:
        ValueError: a kept run of other settings.
    """
    form, classes, counts, seed = run
    settings = settings_of(form, classes, counts, seed)
    record = json.dumps({"settings": settings.record(), "form": dataclasses.asdict(SIZES[form])})
    path = places.file(run)
    if path.is_file():
        return _kept(path, record)
    cell = _train(places.working, run, settings)
    dataset = xr.Dataset({name: (own, cell[name]) for name, own in RUN_AXES.items()}, {name: cell[name] for name in ("step", "checkpoint")})
    path.parent.mkdir(parents=True, exist_ok=True)
    save(dataset, path, run=record)
    return dataset


def _kept(path: Path, record: str) -> xr.Dataset:
    """A kept dataset, whose record must be the given one."""
    found = load(path)
    if not isinstance(found, xr.Dataset) or found.attrs.get("run") != record:
        raise ValueError(f"{path}: not of these settings; allowed: a file with the record {record}; delete it to compute it again")
    return found


def _train(place: Path, run: Run, settings: Settings) -> dict[str, Any]:
    """Named arrays of a run, trained and evaluated checkpoint after checkpoint until it ends."""
    form, devices = run[0], Devices()
    size, folder, data = SIZES[form], place / name_of(run), data_of(form)
    images = prepare(data, settings.protocol)
    planned = [step for step in settings.kept_steps() if step >= size.first]
    reached = max(checkpoints.kept(folder), default=0)
    clock, evaluator = Clock(folder), None
    for stop in [step for step in planned if step >= reached]:
        losses = train(dataclasses.replace(settings, steps=stop), images, folder, devices)
        if evaluator is None:
            kept = place / f"classifier-{form}-{'-'.join(map(str, settings.protocol.classes))}.npz"
            classifier = trained_classifier(data, images, size.epochs, devices, kept)
            sampling = evaluation.Sampling(samples=size.samples, sampler_steps=size.sampler_steps, seed=settings.seed)
            evaluator = evaluation.Evaluator(folder, settings, images, data, classifier, sampling, devices)
        steps = [step for step in planned if step <= stop]
        rows = evaluator.run(steps)
        minutes = clock.minutes()
        if np.all(rows[-1]["memorised"] >= HALF):
            break
    dataset = readout.read_out(losses, steps, rows)
    names = ("mean_loss", "mean_loss_stderr", "loss", "loss_stderr", "gap", "time", "time_at", "t", *readout.VARIABLES)
    whole = dataset[list(names)].reindex(step=settings.measured_steps(), checkpoint=planned)
    return {
        **{name: whole[name].values for name in (*names, "step", "checkpoint")},
        "grid": dataset["grid"].values[-1],
        "last_step": steps[-1],
        "minutes": minutes,
        "accuracy": classifier.accuracy,
        **law_numbers(fitted_law(images)),
    }


class Clock:
    """Minutes of processor time that a run has taken, those before an interruption included: kept in its folder.

    Processor time, since a run may share the machine with others.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._start = folder / "minutes.json", time.process_time()
        self._before = float(json.loads(self._file.read_text(encoding="utf-8"))) if self._file.is_file() else 0.0

    def minutes(self) -> float:
        """So far."""
        total = self._before + (time.process_time() - self._start) / 60
        self._file.write_text(json.dumps(total), encoding="utf-8")
        return total


def predicted(places: Places, run: Run, at_each_t: bool) -> xr.Dataset:
    """Times of a random-features network with the law and the number of images of a run, by plain gradient flow; kept beside the run.

    `predicted` (reading, class) at `THEORY_TIME`; with `at_each_t` also `predicted_at` (reading, t, class) at the measured t below
    `LATEST_T`. NaN elsewhere, and in the smoke form of more than two classes, for which it compiles too long.

    Raises:
        ValueError: kept numbers of another run or theory.
    """
    form, classes, counts, seed = run
    settings = settings_of(form, classes, counts, seed)
    constants = [THEORY_TIME, THEORY_RATIO, LATEST_T * at_each_t, TOLERANCE, TAUS[0], TAUS[-2], len(TAUS)]
    record = json.dumps({"protocol": dataclasses.asdict(settings.protocol), "theory": constants})
    path = places.theory(run)
    if path.is_file():
        return _kept(path, record)
    levels = np.logaddexp(0, -settings.measured_log_snrs().astype(np.float64)) / 2  # λ = log(e^{-2t}/Δ)
    unknown = np.full((2, len(classes)), np.nan)
    law = fitted_law(prepare(data_of(form), settings.protocol))
    ratio = sum(counts) / settings.protocol.side**2

    def read(t: float) -> np.ndarray:
        problem = Problem(law, "tanh", t, THEORY_RATIO, ratio)
        found = times(theory.learning_curves(problem, TAUS, tolerance=TOLERANCE))
        return np.stack([np.asarray(found.tau_gen), np.asarray(found.tau_mem)])

    own = unknown if form == "smoke" and len(classes) > 2 else read(THEORY_TIME)
    each = [read(float(t)) if form != "smoke" and t < LATEST_T * at_each_t else unknown for t in levels]
    values = {"predicted": own, "predicted_at": np.stack(each, 1)}
    dataset = xr.Dataset({name: (THEORY_AXES[name], value) for name, value in values.items()})
    save(dataset, path, run=record)
    return dataset


def of_batches(argument: tuple[str, list[float], list[float], int]) -> dict[str, Any]:
    """Times at `THEORY_TIME` by plain flow and by SGD with the batch of a form, of centred isotropic classes: (rule, reading, class).

    Theory of batches exists for centred classes with common principal axes, so neither has the centroids and axes of the images. The steps
    are half and a tenth of the largest that is stable.

    Args:
        argument: form, fractions and variances of the classes, number of images.
    """
    form, fractions, variances, images = argument
    size = SIZES[form]
    pixels = size.side**2
    problem = Problem(MixtureLaw.isotropic(fractions, variances), "tanh", THEORY_TIME, THEORY_RATIO, images / pixels)
    found = [times(theory.learning_curves(problem, TAUS, tolerance=TOLERANCE))]
    largest = float(theory.sgd_stability(problem, rule=MinibatchSGD(1e-3, size.batch / pixels)).largest_step)
    for step in (largest / 2, largest / 10):
        taus = step * np.unique(np.round(np.geomspace(1, LATEST_TAU / step, 61)))
        found.append(times(theory.learning_curves(problem, taus, tolerance=TOLERANCE, rule=MinibatchSGD(step, size.batch / pixels))))
    return {"of_batches": np.stack([np.stack([np.asarray(read.tau_gen), np.asarray(read.tau_mem)]) for read in found])}


def forms(
    name: str, cases: Callable[[str], list[Case]], seeds: dict[str, int], at_each_t: bool = False
) -> tuple[Callable[..., xr.Dataset], ...]:
    """`compute`, `compute_small` and `compute_finished` of an experiment.

    Args:
        name: of its folder.
        cases: its cases in a form.
        seeds: numbers of seeds of the full and the small form; the smoke form has one.
        at_each_t: as in `computed`.
    """
    home = harness.HOME / name

    places = Places(home / "runs", home / "runs.partial")

    def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
        if smoke:
            return computed("smoke", cells, Places(cells.workspace(), cells.workspace()), cases("smoke"), 1, at_each_t)
        return computed("full", cells, places, cases("full"), seeds["full"], at_each_t)

    def compute_small(cells: harness.Cells) -> xr.Dataset:
        return computed("small", cells, places, cases("small"), seeds["small"], at_each_t)

    def compute_finished(cells: harness.Cells) -> xr.Dataset:
        return computed("full", cells, places, cases("full"), seeds["full"], at_each_t, finished=True)

    return compute, compute_small, compute_finished


def computed(
    form: str, cells: harness.Cells, places: Places, cases: Sequence[Case], number: int, at_each_t: bool, finished: bool = False
) -> xr.Dataset:
    """Every case (classes, counts) with a number of seeds, as one dataset over (case, seed, …), NaN for a run that is missing.

    Args:
        at_each_t: whether the theory is evaluated at the measured t too.
        finished: takes what is finished and trains nothing; NaN for the theory of a run that is not kept.

    Raises:
        ValueError: with `finished`, where nothing is.
    """
    runs: list[Run] = [(form, list(classes), list(counts), seed) for classes, counts in cases for seed in range(number)]
    if finished and not any(places.file(run).is_file() for run in runs):
        raise ValueError(f"{places.finished}: no finished run of the form {form}; allowed: at least one")
    if form != "smoke":
        photographs()  # refuses before anything expensive
    found = {i: trained(places, run) for i, run in enumerate(runs) if not finished or places.file(run).is_file()}
    for i, run in list(found.items()):
        cells.seconds += 60 * float(run["minutes"])
        if finished and not places.theory(runs[i]).is_file():
            sizes = {**run.sizes, "predicted_reading": 2}
            law = xr.Dataset({name: (own, np.full([sizes[axis] for axis in own], np.nan)) for name, own in THEORY_AXES.items()})
        else:
            law = predicted(places, runs[i], at_each_t)
        found[i] = xr.merge([run, law], combine_attrs="drop")
    some = next(iter(found.values()))
    every = [found.get(i, some.where(False) if i not in found else some) for i in range(len(runs))]
    each = [xr.concat(every[i : i + number], "seed") for i in range(0, len(runs), number)]
    data = xr.concat(each, "case")
    last = float(data["last_step"].max())
    data = data.sel(step=data["step"] <= last, checkpoint=data["checkpoint"] <= last)  # no run has reached the others
    data["grid"] = data["grid"].isel(seed=0)  # at the end
    data["t"] = some["t"]
    if at_each_t and form != "smoke":
        law = [data[name].isel(case=0).mean("seed").values.tolist() for name in ("weight", "variance")]
        (read,) = cells("theory of batches", of_batches, [[form, *law, sum(cases[0][1])]])
        data["of_batches"] = (("rule", "predicted_reading", "class"), read["of_batches"])
    data["ran"] = (("case", "seed"), np.isin(np.arange(len(runs)), list(found)).reshape(len(cases), number))
    data["classes"] = (("case", "class"), np.array([[CLASS_NAMES[c] for c in classes] for classes, _ in cases]))
    data["count"] = (("case", "class"), np.array([counts for _, counts in cases]))
    data = data.assign_coords(
        set=["train", "held_out"],
        reading=list(readout.READINGS),
        curve_reading=list(readout.READINGS[:3]),
        predicted_reading=["tau_gen", "tau_mem"],
    )
    size = {f"form_{name}": value for name, value in dataclasses.asdict(SIZES[form]).items()}
    source = "made-up images, no photographs" if form == "smoke" else "Fashion-MNIST"
    return data.drop_attrs().assign_attrs({"form": form, "images": source, **size})
