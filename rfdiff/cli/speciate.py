"""The command speciate: when each class is decided in the backward process, in closed form and measured: table, figures, dataset."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from rfdiff import backward, plots
from rfdiff.backward.decisions import proportion_error
from rfdiff.backward.reduction import ReducedMixture
from rfdiff.backward.samplers import chunk_of
from rfdiff.backward.speciation import check_classes
from rfdiff.cli import tables
from rfdiff.cli.command import Command
from rfdiff.cli.options import LARGEST_KEY, Flag, Output, ProblemFile, Redrawing, between, check
from rfdiff.cli.terminal import prepare_folder, read_problem, redraw_folder, say, say_cost, say_files
from rfdiff.errors import InputError
from rfdiff.files import kept_parts
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.mixture import GaussianMixture
from rfdiff.problem import Problem
from rfdiff.progress import progress

CONTENT = "speciation"
FILE, FIGURES = "speciation.nc", ("return_probability.png", "trajectories.png")
LARGEST_DIMENSION, MOST, MOST_STEPS = 2**24, 10_000_000, 100_000
SHOWN, AXES = 20, 2  # trajectories of each class in the picture, and most of its panels
BEYOND = 5.0  # from noise: a signal e^{-5} of that at the earliest speciation time is left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speciate(Output):
    """When each class is decided in the backward process with the exact score: in closed form and measured (isotropic classes)."""

    problem: ProblemFile
    """Problem file; only its mixture matters here."""
    d: int = 1000
    """Dimension of the data."""
    trajectories: int = 2000
    """Trajectories for each class at each time of a U-turn, and pairs of clones at each time."""
    points: int = 12
    """Number of times for the U-turns, and for the clones."""
    steps: int = 192
    """Steps from noise to data; a multiple of --points."""
    full: Flag = False
    """Simulate all d coordinates. The default simulates only those that the exact score depends on, which gives the same law."""
    seed: int = 0
    """Random key."""


def run(options: Speciate) -> int:
    """Speciation times of a problem's mixture, measured and in closed form; a stopped measurement goes on from the points that are kept.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, or results that stand in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    steps = options.points <= options.steps <= MOST_STEPS and options.steps % max(options.points, 1) == 0
    check(
        options,
        d=between(options.d, 2, LARGEST_DIMENSION),
        trajectories=between(options.trajectories, 10, MOST),
        points=between(options.points, 2, 1000),
        steps=(steps, f"a multiple of --points up to {MOST_STEPS}"),
        seed=between(options.seed, 0, LARGEST_KEY),
    )
    problem = read_problem(options.problem)
    numbers = _isotropic(problem, options.d)
    mixture = GaussianMixture.from_law(problem.mixture, options.d, jax.random.key(options.seed))
    denoiser = backward.Denoiser(mixture, full=options.full, num_steps=options.steps)
    if options.full:
        chunk_of(options.d, options.trajectories * problem.num_classes, jnp.zeros(0).dtype)
    prepare_folder(options.out, (FILE, *FIGURES), options.overwrite)
    dataset = closed_form(problem, numbers, options, denoiser.t_end)
    folder = kept_parts.measurement_folder(
        options.out, problem, options.d, options.trajectories, options.points, options.steps, options.full, options.seed
    )
    dataset = dataset.assign(_measured(denoiser, dataset, options, kept_parts.KeptArrays(folder)))
    save_dataset(dataset, options.out / FILE, command="speciate", seconds=round(time.monotonic() - start, 1))
    kept_parts.remove(folder)
    show(dataset, options.out)
    say_cost(time.monotonic() - start)
    return 0


def redraw(options: Redrawing) -> int:
    """Print the table of a speciation.nc and draw its figures again.

    Raises:
        InputError: a damaged file, or figures that stand in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    out = redraw_folder(options, FIGURES)
    show(dataset, out)
    return 0


def closed_form(problem: Problem, numbers: tuple[Any, ...], options: Speciate, t_end: float) -> xr.Dataset:
    """R_c(t) on a grid of times, speciation times in all readings, and the times at which to measure."""
    with jax.enable_x64(True):
        speciated, wells, classical = (np.asarray(value) for value in _times(*numbers))
        known = speciated[np.isfinite(speciated)]
        low, high = (known.min(), known.max()) if known.size else [max(float(classical), 0.5)] * 2
        grid = np.linspace(max(low - 1.8, 2 * t_end), high + 2.2, 161)
        turns = np.linspace(grid[0], grid[-1], options.points)
        copies = backward.log_snr_grid(high + BEYOND, t_end, options.steps)[: -1 : options.steps // options.points]
        everywhere = np.asarray(_curves(*numbers, np.concatenate([grid, turns, copies])))
    curve, at_turns, at_copies = np.split(everywhere, [grid.size, grid.size + turns.size])
    weights = np.asarray(problem.mixture.weights)
    variables = {
        "return_probability": (("time", "class"), curve, {"long_name": "probability to return to the class, closed form"}),
        "uturn_theory": (("turn_time", "class"), at_turns, {"long_name": "the same at the times of the U-turns"}),
        "clone_theory": (("clone_time", "class"), at_copies, {"long_name": "the same at the times of the clones"}),
        "speciation_time": ("class", speciated, {"long_name": "time at which the return probability is (1 + weight)/2"}),
        "well_time": ("class", wells, {"long_name": "time at which the class's well appears; inf: always there, NaN: none"}),
        "weight": ("class", weights, {"long_name": "class fraction"}),
        "variance": ("class", np.asarray(numbers[2]), {"long_name": "class variance"}),
    }
    coordinates = {"time": grid, "turn_time": turns, "clone_time": copies, "class": np.arange(len(weights))}
    record = {"d": options.d, "trajectories": options.trajectories, "steps": options.steps, "random_seed": options.seed}
    attributes = {"content": CONTENT, "problem": problem.to_toml(), "classical_time": float(classical), "full": int(options.full), **record}
    return xr.Dataset(variables, coordinates, attributes)


def show(dataset: xr.Dataset, out: Path) -> None:
    """Print the table of a dataset, draw its figures, and say where they are."""
    say("\n".join(table(dataset)))
    for figure, name in zip((plots.return_probability(dataset), plots.trajectories(dataset)), FIGURES, strict=True):
        plots.save_figure(figure, out / name)
    say_files(out, FILE, FIGURES)


def table(dataset: xr.Dataset) -> list[str]:
    """Speciation times of each class in all readings, and how far the measured points lie from the closed form."""
    rows = [["class", "weight", "variance", "t_s, closed form", "t_s, U-turns", "t_s, well", "worst U-turn", "worst clones"]]
    expected = dataset.uturn_theory.values  # whose standard errors hold near 0 and 1 too, where those of a few counts do not
    turned = abs(dataset.uturn.values - expected) / proportion_error(expected, dataset.attrs["trajectories"])
    cloned = abs(dataset.clone.values - dataset.clone_theory.values) / dataset.clone_stderr.values
    for c, weight in enumerate(dataset.weight.values):
        measured = crossing(dataset.turn_time.values, dataset.uturn.values[:, c], dataset.uturn_stderr.values[:, c], (1 + weight) / 2)
        well = float(dataset.well_time.values[c])
        kept = cloned[np.isfinite(cloned[:, c]), c]
        rows.append(
            [
                str(c),
                f"{weight:.3g}",
                f"{dataset.variance.values[c]:.3g}",
                tables.number(float(dataset.speciation_time.values[c])),
                tables.number(*measured),
                "from the start" if np.isinf(well) else tables.number(well),
                f"{turned[:, c].max():.1f} s.e.",
                f"{kept.max():.1f} s.e." if kept.size else "-",
            ]
        )
    head = f"backward process of the exact score at d = {dataset.attrs['d']}, {dataset.attrs['trajectories']} trajectories for each point"
    classical = f"classical estimate, half the logarithm of the largest eigenvalue: {dataset.attrs['classical_time']:.4g}"
    return [head, classical, "", *tables.columns(rows)]


def crossing(times: np.ndarray, share: np.ndarray, stderr: np.ndarray, level: float) -> tuple[float, float]:
    """Time at which measured shares fall through a level, by linear interpolation, and its standard error; NaN where they do not."""
    below = np.flatnonzero((share[:-1] >= level) & (share[1:] < level))
    if not below.size:
        return np.nan, np.nan
    i = below[-1]
    slope = (share[i + 1] - share[i]) / (times[i + 1] - times[i])
    part = (level - share[i]) / (share[i + 1] - share[i])
    error = np.hypot((1 - part) * stderr[i], part * stderr[i + 1]) / abs(slope)
    return float(times[i] + part * (times[i + 1] - times[i])), float(error)


@jax.jit
def _times(*numbers: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    return backward.speciation_times(*numbers), backward.potential_times(*numbers), backward.classical_time(*numbers)


@jax.jit
def _curves(weights: Any, gram: Any, variances: Any, d: Any, times: Any) -> jax.Array:
    return jax.lax.map(lambda t: backward.return_probability(weights, gram, variances, d, t), times)


def _measured(denoiser: backward.Denoiser, dataset: xr.Dataset, options: Speciate, kept: kept_parts.KeptArrays) -> dict[str, Any]:
    """Variables of the U-turns, the clones and the trajectories of the picture; each point is kept as soon as it is done."""
    turning, cloning, drawing = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), 1), 3)
    turns, high = dataset.turn_time.values, float(dataset.clone_time.values[0])
    names = [*[f"turn-{i}" for i in range(len(turns))], "clones"]
    done = sum(name in kept for name in names)
    try:
        with progress(f"{len(turns)} times of U-turns, then clones", len(names), done, "point") as advance:
            for i, t in enumerate(turns):
                if names[i] not in kept:
                    label = None if denoiser.wide else f"U-turns at t = {t:.3g}"  # all coordinates: long enough for a report of its own
                    found = backward.uturn(denoiser, [t], jax.random.fold_in(turning, i), options.trajectories, label)
                    kept[names[i]] = {"share": found.fraction[0], "stderr": found.stderr[0], "bayes": np.asarray(found.bayes)[0]}
                    advance(1)
            if "clones" not in kept:
                label = None if denoiser.wide else "clones"
                copies, same, error = backward.clones(denoiser, high, cloning, options.trajectories, options.points, label)
                kept["clones"] = {"share": copies.fraction, "stderr": copies.stderr, "same": same, "same_stderr": error}
                advance(1)
    except KeyboardInterrupt as stop:
        done = sum(name in kept for name in names)
        raise KeyboardInterrupt(f"{done} of {len(names)} points are kept, the same command goes on from them") from stop
    points, clones = [kept[f"turn-{i}"] for i in range(len(turns))], kept["clones"]
    turn, copy = ("turn_time", "class"), ("clone_time", "class")
    return {
        "uturn": (turn, np.stack([p["share"] for p in points]), {"long_name": "part of the samples that return to their class"}),
        "uturn_stderr": (turn, np.stack([p["stderr"] for p in points]), {"long_name": "standard error of uturn"}),
        "posterior": (turn, np.stack([p["bayes"] for p in points]), {"long_name": "mean posterior of the own class at the turn"}),
        "clone": (copy, clones["share"], {"long_name": "part of the clones in a class whose twin is in it"}),
        "clone_stderr": (copy, clones["stderr"], {"long_name": "standard error of clone"}),
        "clone_same": ("clone_time", clones["same"], {"long_name": "part of the pairs in one class"}),
        "clone_same_stderr": ("clone_time", clones["same_stderr"], {"long_name": "standard error of clone_same"}),
    } | _paths(denoiser, high, drawing, options)


def _paths(denoiser: backward.Denoiser, t_start: float, key: jax.Array, options: Speciate) -> dict[str, Any]:
    """Some trajectories from noise on the axes on which the centroids differ most, or by their norm where they do not, and their ends."""
    draw, run, end = jax.random.split(key, 3)
    count = min(options.trajectories, 2000) if not denoiser.wide else options.trajectories
    x = denoiser.draw(draw, np.zeros(count, int), np.inf)
    law: Any = denoiser.law
    centroids = np.asarray(law.coordinates if isinstance(law, ReducedMixture) else law.means)
    spread = centroids - np.asarray(law.weights) @ centroids
    lengths, axes = np.linalg.svd(spread, full_matrices=False)[1:] if spread.size else (np.zeros(1), np.zeros((1, 0)))
    axes = axes[:AXES][lengths[:AXES] > 1e-6 * max(lengths[0], 1e-6)]
    if len(axes):
        observe, quantity = jax.tree_util.Partial(_along, axes), "projection on the centroid axis"
    else:
        observe, quantity = jax.tree_util.Partial(_square, float(options.d)), r"squared norm $\|x_t\|^2/d$"
    grid = backward.log_snr_grid(t_start, denoiser.t_end, options.steps)
    last, seen = denoiser.run(x, grid, run, observe=observe)
    classes = denoiser.classes(last, end)
    shown = np.concatenate([np.flatnonzero(classes == c)[:SHOWN] for c in range(denoiser.num_classes)])
    return {
        "path": (("trajectory", "path_time", "axis"), np.asarray(seen, np.float64)[shown], {"long_name": quantity}),
        "path_class": ("trajectory", classes[shown], {"long_name": "class in which the trajectory ends"}),
        "path_time": ("path_time", grid, {"long_name": "diffusion time"}),
    }


def _along(axes: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.sum(jnp.asarray(axes, x.dtype) * x[None, : axes.shape[1]], axis=1)


def _square(d: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.sum(x**2)[None] / d


def _isotropic(problem: Problem, d: int) -> tuple[Any, ...]:
    """What the closed form is a function of: class fractions, Gram matrix, variances and d.

    Raises:
        InputError: one class, or classes that are not isotropic.
    """
    law = problem.mixture
    check_classes(law.weights)
    if law.eigenvalues.shape[0] > 1 and np.any(np.ptp(law.eigenvalues, axis=0) > 0):
        raise InputError(
            "eigenvalues: the classes are not isotropic; allowed: variances, for the closed form (backward.uturn measures any mixture)"
        )
    return law.weights, law.centroid_gram, law.variances, float(d)


COMMAND = Command("speciate", Speciate, run)
