"""The command times: class-wise times read from the curves and from the class-resolved spectrum, side by side, and their sensitivities."""

import dataclasses
import time
from typing import Any

import numpy as np
import xarray as xr

from rfdiff import plots, theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, times
from rfdiff.cli import tables
from rfdiff.cli.command import Command
from rfdiff.cli.options import MOST_POINTS, Flag, Output, ProblemFile, Redrawing, check, fraction
from rfdiff.cli.terminal import note, prepare_folder, read_problem, redraw_folder, say, say_cost, say_files
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.problem import Problem

CONTENT = "class-wise times"
FILE, FIGURE = "times.nc", "times.png"
BULKS = ("generalisation", "memorisation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times(Output):
    """Two estimates of each class's times, from the curves and from the spectrum (closed form), and what the times respond to."""

    problem: ProblemFile
    """Problem file; experiments/problem.toml is a commented example."""
    sensitivity: Flag = False
    """Also print d log tau / d log parameter for every number of the problem; the derivatives are exact."""
    q: float = 0.5
    """tau_opt(q) is when a class's test loss has gone this fraction of the way to that of the exact score."""
    points: int = 400
    """Number of training times at which the curves are computed."""
    tolerance: float = 1e-6
    """Largest numerical error of a closed-form loss."""


def run(options: Times) -> int:
    """Read the times of a problem in both ways, write them, draw them, print their table.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, results that stand in the folder; --sensitivity where the curves have no limit (p = n m).
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    check(
        options,
        q=fraction(options.q),
        points=(20 <= options.points <= MOST_POINTS, f"20 to {MOST_POINTS}"),
        tolerance=(1e-9 <= options.tolerance <= 0.1, "1e-9 <= tolerance <= 0.1"),
    )
    problem = read_problem(options.problem)
    if options.sensitivity and problem.psi_p == problem.psi_n * problem.noise_draws:
        raise InputError(f"--sensitivity: psi_p = {problem.psi_p:g} = psi_n m, where the curves have no limit; allowed: psi_p != psi_n m")
    prepare_folder(options.out, (FILE, FIGURE), options.overwrite)
    note(f"closed form: curves, spectrum{', derivatives' if options.sensitivity else ''}")
    curves = theory.learning_curves(problem, theory.time_grid(problem, num=options.points), tolerance=options.tolerance)
    spectrum = theory.spectrum(problem)
    sensitivity = theory.sensitivity(problem, options.q) if options.sensitivity else None
    dataset = labelled(problem, curves, spectrum, options.q, sensitivity)
    save_dataset(dataset, options.out / FILE, command="times", seconds=round(time.monotonic() - start, 1))
    show(dataset, options.out)
    say_cost(time.monotonic() - start)
    return 0


def redraw(options: Redrawing) -> int:
    """Print the table of a times.nc and draw its figure again.

    Raises:
        InputError: a damaged file, or a figure that stands in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    out = redraw_folder(options, (FIGURE,))
    show(dataset, out)
    return 0


def labelled(
    problem: Problem, curves: LearningCurves, spectrum: Spectrum, q: float, sensitivity: theory.TimeSensitivity | None
) -> xr.Dataset:
    """Both readings of the times of a problem, and the curves and the spectrum that they are read from, as a dataset."""
    read, bulks = times(curves, q), theory.bulk_times(problem, spectrum)
    variables = {
        "time": (("quantity", "class"), _stacked(read), {"long_name": "class-wise training time tau, read from the curves"}),
        "bulk_time": (("bulk", "class"), np.stack([bulks.tau_gen, bulks.tau_mem]), {"long_name": "the same, read from the spectrum"}),
        "bulk_fastest": ("bulk", bulks.fastest, {"long_name": "relaxation time at the upper edge of the bulk"}),
        "bulk_slowest": ("bulk", bulks.slowest, {"long_name": "relaxation time at the lower edge of the bulk"}),
        "bulk_share": (("bulk", "class"), bulks.shares, {"long_name": "part of the modes of the bulk that belongs to the class"}),
        "bulk_edges": (("bulk", "edge"), bulks.edges, {"long_name": "eigenvalues between which the bulk lies"}),
        "separated": ((), bool(bulks.separated), {"long_name": "whether a gap of the spectrum separates the bulks"}),
        "weight": ("class", curves.weights, {"long_name": "class fraction"}),
        "train_loss": (("tau", "class"), curves.train_loss, {"long_name": "train loss per coordinate"}),
        "test_loss": (("tau", "class"), curves.test_loss, {"long_name": "test loss per coordinate"}),
        "class_density": (("eigenvalue", "class"), spectrum.class_density, {"long_name": "part of the spectral density of the class"}),
        "interval": ("eigenvalue", spectrum.bulk, {"long_name": "index of the support interval of the grid point"}),
    }
    coordinates: dict[str, Any] = {"quantity": list(TIME_NAMES), "bulk": list(BULKS), "class": np.arange(problem.num_classes)}
    coordinates |= {"tau": curves.taus, "eigenvalue": spectrum.eigenvalues, "edge": ["lower", "upper"]}
    if sensitivity is not None:
        slopes = np.stack([_stacked(found) for found in sensitivity.elasticities.values()])
        variables["elasticity"] = (("parameter", "quantity", "class"), slopes, {"long_name": "d log time / d log parameter"})
        coordinates["parameter"] = list(sensitivity.elasticities)
    errors = {"error_estimate": float(curves.error_estimate)}
    attributes = {"content": CONTENT, "problem": problem.to_toml(), "q": q, "kappa": float(curves.kappa), **errors}
    return xr.Dataset(variables, coordinates, attributes)


def show(dataset: xr.Dataset, out: Any) -> None:
    """Print the tables of a dataset of times, draw its figure, and say where it is."""
    say("\n".join(table(dataset)))
    plots.save_figure(plots.times(*results_of(dataset)), out / FIGURE)
    say_files(out, FILE, (FIGURE,))


def results_of(dataset: xr.Dataset) -> tuple[LearningCurves, Spectrum, ClassTimes, theory.BulkTimes]:
    """The curves, the spectrum and both estimates of the times that a times.nc holds; what it does not hold is NaN."""
    taus, weights, error = dataset["tau"].values, dataset["weight"].values, float(dataset.attrs["error_estimate"])
    test, zeros = dataset["test_loss"].values, np.zeros(dataset["test_loss"].shape)
    unknown, kappa = np.full(test.shape, np.nan), float(dataset.attrs["kappa"])
    curves = LearningCurves(taus, dataset["train_loss"].values, test, unknown, unknown[0], weights, kappa, error, zeros, zeros, zeros)
    grid, intervals, density = dataset["eigenvalue"].values, dataset["interval"].values, dataset["class_density"].values
    support = np.array([[grid[intervals == i].min(), grid[intervals == i].max()] for i in np.unique(intervals)])
    spectrum = Spectrum(support, grid, density.sum(axis=1), density, intervals, np.zeros(0), np.zeros(0), np.nan)
    read = ClassTimes(**{name: dataset["time"].sel(quantity=name).values for name in TIME_NAMES}, q=float(dataset.attrs["q"]))
    edges, fastest, slowest = (dataset[name].values for name in ("bulk_edges", "bulk_fastest", "bulk_slowest"))
    gap = np.array([edges[1, 1], edges[0, 0]])
    shares, separated = dataset["bulk_share"].values, bool(dataset["separated"])
    gen, mem = dataset["bulk_time"].values
    bulks = theory.BulkTimes(gen, mem, fastest, slowest, shares, edges, gap, separated)
    return curves, spectrum, read, bulks


def table(dataset: xr.Dataset) -> list[str]:
    """Both readings of each class's times and their ratio; the bulks; the elasticities, if there are any."""
    header = ["class", "weight", "read from", "tau_gen", "tau_stop", "tau_mem", f"tau_opt({dataset.attrs['q']:g})", "tau_mem/tau_gen"]
    rows = [header]
    for c in range(dataset.sizes["class"]):
        gen, stop, mem, opt = dataset.time.values[:, c]
        spectral_gen, spectral_mem = dataset.bulk_time.values[:, c]
        lines = [
            [str(c), f"{dataset.weight.values[c]:.3g}", "curves", gen, stop, mem, opt, mem / gen],
            ["", "", "spectrum", spectral_gen, np.nan, spectral_mem, np.nan, spectral_mem / spectral_gen],
            ["", "", "spectrum/curves", spectral_gen / gen, np.nan, spectral_mem / mem, np.nan, np.nan],
        ]
        rows += [[*line[:3], *(tables.number(float(value)) for value in line[3:])] for line in lines]
    return [*tables.columns(rows), "", *_bulk_lines(dataset), *_sensitivity_lines(dataset)]


def _bulk_lines(dataset: xr.Dataset) -> list[str]:
    if not dataset.separated:
        return ["the bulks of the spectrum are not separated: no gap leaves the part 1/psi_p of the modes above it, so it gives no times"]
    rows = [["bulk", "eigenvalues", "times 1/(kappa lambda)", "part of each class"]]
    for b, name in enumerate(BULKS):
        low, high = dataset.bulk_edges.values[b]
        span = f"{dataset.bulk_fastest.values[b]:.4g} to {dataset.bulk_slowest.values[b]:.4g}"
        rows.append([name, f"{low:.4g} to {high:.4g}", span, ", ".join(f"{share:.3f}" for share in dataset.bulk_share.values[b])])
    return tables.columns(rows)


def _sensitivity_lines(dataset: xr.Dataset) -> list[str]:
    """One row a parameter, one column a time and class."""
    if "elasticity" not in dataset:
        return []
    classes = range(dataset.sizes["class"])
    rows = [["d log time / d log", *(f"{name}, {c}" for name in TIME_NAMES for c in classes)]]
    for name, slopes in zip(dataset.parameter.values, dataset.elasticity.values, strict=True):
        rows.append([str(name), *("-" if np.isnan(slope) else f"{slope:+.3f}" for slope in slopes.ravel())])
    return ["", *tables.columns(rows)]


def _stacked(found: Any) -> np.ndarray:
    return np.stack([np.asarray(getattr(found, name)) for name in TIME_NAMES])


COMMAND = Command("times", Times, run)
