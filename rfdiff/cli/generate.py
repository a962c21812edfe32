"""The command generate: what networks generate along their training, class by class, beside theory's times: table, figure, dataset."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from rfdiff import generation, plots, theory
from rfdiff.backward import log_snr_grid
from rfdiff.class_times import times
from rfdiff.cli import tables
from rfdiff.cli.backward_options import Generate
from rfdiff.cli.checks import read_problem, redraw_folder
from rfdiff.cli.parsing import Plot
from rfdiff.cli.terminal import prepare_folder, say
from rfdiff.errors import InputError
from rfdiff.files import kept_parts
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.problem import Problem
from rfdiff.rules import check_taus
from rfdiff.simulation.features import LARGEST_DIMENSION, floating_type, sizes_at
from rfdiff.theory.neuron_types import is_odd

CONTENT = "generation"
FILE, FIGURE = "generation.nc", "generation.png"
MOST = 10_000_000
CURVE_POINTS = 80
COUNTED = ("counts", "memorised", "mean_error", "variance_error", "score_error")
REFERENCES = 2  # the last two sources


def compute(options: Generate) -> int:
    """Generate samples with the networks of a problem; a stopped run goes on from the networks that are kept.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, results that stand in the folder, or networks that do not fit in memory.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    _check_options(options)
    problem = read_problem(options.problem)
    grid = log_snr_grid(options.t_start, options.t_end, options.steps)
    taus = theory.time_grid(problem, num=options.points) if options.tau is None else check_taus(options.tau)
    sizes, dtype = sizes_at(problem, options.d), floating_type(None if options.dtype == "default" else options.dtype)
    if sizes.n < 2:
        raise InputError(f"--d: {options.d} makes n = {sizes.n} samples; allowed: at least 2, for a second nearest")
    generation.check_memory(sizes, dtype, len(taus), len(grid))
    prepare_folder(options.out, (FILE, FIGURE), options.overwrite)
    folder = kept_parts.measurement_folder(
        options.out,
        problem,
        options.d,
        taus.tolist(),
        grid.tolist(),
        options.samples,
        options.threshold,
        options.method,
        dtype,
        options.seed,
    )
    runs = _networks(problem, taus, grid, options, dtype, kept_parts.KeptArrays(folder))
    dataset = labelled(problem, taus, grid, runs, options)
    save_dataset(dataset, options.out / FILE, command="generate", seconds=round(time.monotonic() - start, 1))
    kept_parts.remove(folder)
    show(dataset, options.out)
    say(tables.cost_line(time.monotonic() - start))
    return 0


def redraw(options: Plot) -> int:
    """Print the table of a generation.nc and draw its figure again.

    Raises:
        InputError: a damaged file, or a figure that stands in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    out = redraw_folder(options, (FIGURE,))
    show(dataset, out)
    return 0


def labelled(problem: Problem, taus: np.ndarray, grid: np.ndarray, runs: list[dict[str, Any]], options: Generate) -> xr.Dataset:
    """Measures of all networks at all sources, and theory's curves and times at the grid's time next to the problem's t, as a dataset."""
    t = float(grid[_nearest(grid, float(problem.t))])
    beside = dataclasses.replace(problem, t=t)
    curves = theory.learning_curves(beside, theory.time_grid(beside, num=CURVE_POINTS))
    read = times(curves)
    weights = np.asarray(problem.mixture.weights)
    found = {name: np.stack([run[name] for run in runs]) for name in COUNTED}
    dims = ("network", "source", "class")
    interval = np.array(
        [
            [generation.memorised_interval(found["counts"][:, i, c], found["memorised"][:, i, c]) for c in range(weights.size)]
            for i in range(len(taus) + REFERENCES)
        ]
    )
    variables = {
        "counts": (dims, found["counts"], {"long_name": "generated samples of the class"}),
        "memorised": (dims, found["memorised"], {"long_name": "those of them that are memorised"}),
        "mean_error": (dims, found["mean_error"], {"long_name": "squared error of the class mean per coordinate"}),
        "variance_error": (dims, found["variance_error"], {"long_name": "relative error of the class variance"}),
        "score_error": (("network", "source", "time", "class"), found["score_error"], {"long_name": "score error per coordinate"}),
        "memorised_interval": (("source", "class", "edge"), interval, {"long_name": "memorised fraction and its 95 % bootstrap interval"}),
        "weight": ("class", weights, {"long_name": "class fraction"}),
        "tau_gen": ("class", read.tau_gen, {"long_name": "theory's generalisation time at the attribute t"}),
        "tau_mem": ("class", read.tau_mem, {"long_name": "theory's memorisation time at the attribute t"}),
        "theory_score_error": (("theory_tau", "class"), curves.score_error, {"long_name": "score error in closed form at the attribute t"}),
        "tau": ("source", np.append(taus, [np.nan] * REFERENCES), {"long_name": "training time; NaN for the two reference scores"}),
    }
    names = [*[f"tau = {tau:.4g}" for tau in taus], "empirical score", "exact score"]
    coordinates = {"source": names, "time": grid, "theory_tau": curves.taus, "class": np.arange(weights.size)}
    coordinates |= {"edge": ["fraction", "lower", "upper"]}
    record = {"d": options.d, "samples": options.samples, "threshold": options.threshold, "random_seed": options.seed}
    attributes = {"content": CONTENT, "problem": problem.to_toml(), "t": t, "method": options.method, **record}
    attributes["odd_score"] = int(is_odd(problem.activation))
    return xr.Dataset(variables, coordinates, attributes)


def show(dataset: xr.Dataset, out: Path) -> None:
    """Print the table of a dataset, draw its figure, and say where it is."""
    say("\n".join(table(dataset)))
    plots.save_figure(plots.plot_generation(dataset), out / FIGURE)
    say(f"in {out}: {', '.join([*[FILE] * (out / FILE).exists(), FIGURE])}")


def table(dataset: xr.Dataset) -> list[str]:
    """What each source generates, class by class: means over the networks, with standard errors."""
    rows = [["source", "class", "fraction", "mean error", "variance error", "memorised (95 %)", "score error"]]
    place = _nearest(dataset.time.values, dataset.attrs["t"])
    fraction = dataset.counts.values / dataset.attrs["samples"]
    for i, name in enumerate(dataset.source.values):
        for c in range(dataset.sizes["class"]):
            share, low, high = dataset.memorised_interval.values[i, c]
            cells = [_mean(dataset[key].values[:, i, c]) for key in ("mean_error", "variance_error")]
            memorised = "-" if np.isnan(share) else f"{share:.3f} [{low:.3f}, {high:.3f}]"
            score = _mean(dataset.score_error.values[:, i, place, c])
            rows.append([str(name) if c == 0 else "", str(c), _mean(fraction[:, i, c]), *cells, memorised, score])
    times_ = [["theory", "class", "weight", "tau_gen", "tau_mem"]]
    for c, weight in enumerate(dataset.weight.values):
        numbers = (tables.number(float(dataset[key].values[c])) for key in ("tau_gen", "tau_mem"))
        times_.append([f"t = {dataset.attrs['t']:.3g}" if c == 0 else "", str(c), f"{weight:.3g}", *numbers])
    head = (
        f"{dataset.sizes['network']} networks at d = {dataset.attrs['d']}, {dataset.attrs['samples']} samples of each at each training time"
    )
    score_at = f"theory and score error at t = {dataset.attrs['t']:.3g}, the time of the grid next to the problem's"
    odd = "the activation is odd, and so is the score: classes at x and -x are generated equally often, whatever their weights"
    return [head, score_at, *[odd] * dataset.attrs["odd_score"], "", *tables.columns(times_), "", *tables.columns(rows)]


def _nearest(times: np.ndarray, t: float) -> int:
    """Place of the time next to t, in the logarithm."""
    return int(np.argmin(np.abs(np.log(times / t))))


def _mean(values: np.ndarray) -> str:
    """Mean over networks with its standard error; over those that have a value."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "-"
    error = float(known.std(ddof=1) / np.sqrt(known.size)) if known.size > 1 else 0.0
    return tables.number(float(known.mean()), error or np.nan)


def _networks(
    problem: Problem, taus: np.ndarray, grid: np.ndarray, options: Generate, dtype: str, kept: kept_parts.KeptArrays
) -> list[dict[str, Any]]:
    """Measures of every network; each is kept as soon as it is done."""
    key = jax.random.key(options.seed)
    names = [f"network-{r}" for r in range(options.seeds)]
    try:
        for r, name in enumerate(names):
            if name not in kept:
                label = f"network {r + 1} of {options.seeds}"
                own = jax.random.fold_in(key, np.uint32(r))
                found = generation.generate(
                    problem, options.d, taus, grid, own, options.samples, options.threshold, options.method, dtype, label=label
                )
                kept[name] = {field: getattr(found, field) for field in COUNTED}
    except KeyboardInterrupt as stop:
        done = sum(name in kept for name in names)
        raise KeyboardInterrupt(f"{done} of {options.seeds} networks are kept, the same command goes on from them") from stop
    return [dict(kept[name]) for name in names]


def _check_options(options: Generate) -> None:
    """Refuse numbers out of range.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    for name, good, allowed in (
        ("d", 1 <= options.d <= LARGEST_DIMENSION, f"1 to {LARGEST_DIMENSION}"),
        ("tau", options.tau is None or len(options.tau) > 0, "at least one training time"),
        ("points", 3 <= options.points <= 1000, "3 to 1000"),
        ("seeds", 1 <= options.seeds <= 10_000, "1 to 10000"),
        ("samples", 10 <= options.samples <= MOST, f"10 to {MOST}"),
        ("steps", 2 <= options.steps <= 10_000, "2 to 10000"),
        ("threshold", 0 < options.threshold <= 1, "0 < threshold <= 1"),
        ("seed", 0 <= options.seed < 2**32, "0 to 2^32 - 1"),
    ):
        if not good:
            raise InputError(f"--{name}: {getattr(options, name)!r}; allowed: {allowed}")
