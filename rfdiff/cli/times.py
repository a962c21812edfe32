"""The command times: class-wise times read from the curves and from the class-resolved spectrum, and their sensitivities."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff import plots, theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, stacked, times
from rfdiff.cli.command import AGREE, NOT_COMPUTED, Command
from rfdiff.cli.curve_results import error_lines, missing_losses
from rfdiff.cli.folder import Files, check_drawing, drawn, loss_weight_lines_of, redraw_dataset, results_folder, write_figures
from rfdiff.cli.options import MOST_POINTS, Drawing, Flag, NearOptimal, Output, ProblemFile, Redrawing, check, fraction, read_problem
from rfdiff.cli.rule_options import RuleInTime, RuleOptions, rule_in_time, rule_record, rule_text
from rfdiff.cli.tables import Cell, Table, measured, shown, words
from rfdiff.cli.terminal import note, report, say_cost
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import save_dataset
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.theory.density import coupled_directions
from rfdiff.theory.input_checks import tolerance_allowed
from rfdiff.theory.minibatch import check_covered

CONTENT = "class-wise times"
PANELS = ("curves", "spectrum")
FILES = Files("times.nc", {"times": PANELS})
BULKS = ("generalisation", "memorisation")
NOT_SEPARATED = "the bulks of the spectrum are not separated: no gap leaves the part 1/psi_p of the modes above it, so it gives no times"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimesOptions(RuleOptions, Output):
    """Compute when each class is learned and memorised, from the curves and from the spectrum (closed form), and what moves these times."""

    rule: RuleInTime = GradientFlow.name
    """Training rule; the options below say with which rules they go."""
    problem: ProblemFile
    """Problem file in TOML; rfdiff init writes a commented one."""
    sensitivity: Flag = False
    """Also print d log tau / d log parameter for every number of the problem; the derivatives are exact."""
    q: NearOptimal = 0.5
    num_times: int = 400
    """Number of finite training times in figure and file; inf is added. The times of the classes do not depend on it."""
    tolerance: float = 1e-6
    """Largest numerical error allowed in a loss of the closed form."""


def run(options: TimesOptions) -> int:
    """Read the times of a problem in both ways, write them, draw them, print their table.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, existing results in the folder; --sensitivity where the curves have no limit (p = n m), or with another
            rule than gradient flow.
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    check(
        options,
        q=fraction(options.q),
        num_times=(20 <= options.num_times <= MOST_POINTS, f"20 to {MOST_POINTS}"),
        tolerance=tolerance_allowed(options.tolerance),
    )
    rule = rule_in_time(options)
    if options.sensitivity and not rule.equals(GradientFlow()):
        raise InputError(f"--sensitivity: with {rule_text(rule_record(options))}; allowed: with gradient flow alone")
    problem = read_problem(options.problem)
    coupled_directions(problem)  # of the spectrum, which comes after the curves
    if isinstance(rule, MinibatchSGD):
        check_covered(problem, rule)
    if options.sensitivity and problem.psi_p == problem.columns_per_dimension:
        raise InputError(f"--sensitivity: psi_p = {problem.psi_p:g} = psi_n m, where the curves have no limit; allowed: psi_p != psi_n m")
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        note(f"closed form: curves, spectrum{', derivatives' if options.sensitivity else ''}")
        grid = theory.time_grid(problem, num_times=options.num_times)
        curves, covering = theory.covering_curves(problem, grid, rule=rule, tolerance=options.tolerance)
        read = times(covering, q=options.q, loss_weights=problem.training_weights)
        spectrum = theory.spectrum(problem)
        sensitivity = theory.sensitivity(problem, q=options.q) if options.sensitivity else None
        dataset = labelled(problem, curves, spectrum, read, sensitivity)
        dataset = dataset.assign_attrs(
            **rule_record(options), command="times", tolerance=options.tolerance, seconds=round(time.monotonic() - start, 1)
        )
        save_dataset(dataset, options.out / FILES.data)
        status = show(dataset, options.out, options, replace=True)
    say_cost(start, options.table)
    return status


def redraw(options: Redrawing) -> int:
    """Print the table of a times.nc and draw its figure again, as `redraw_dataset`."""
    return redraw_dataset(options, CONTENT, FILES, show)


def labelled(
    problem: Problem, curves: LearningCurves, spectrum: Spectrum, read: ClassTimes, sensitivity: theory.TimeSensitivity | None
) -> xr.Dataset:
    """The times of a problem as read from curves at all training times and from the spectrum, with curves and spectrum, as a dataset."""
    bulks = theory.bulk_times(problem, spectrum=spectrum)
    variables = {
        "time": (("quantity", "class"), stacked(read), {"long_name": "class-wise training time tau, read from the curves"}),
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
        slopes = np.stack([stacked(found) for found in sensitivity.elasticities.values()])
        variables["elasticity"] = (("parameter", "quantity", "class"), slopes, {"long_name": "d log time / d log parameter"})
        coordinates["parameter"] = list(sensitivity.elasticities)
    errors = {"error_estimate": float(curves.error_estimate)}
    bounds = {
        f"{name}_bounds": (("class", "bound"), values, {"long_name": f"bounds of {name}"}) for name, values in (read.bounds or {}).items()
    }
    variables |= bounds
    attributes = {"content": CONTENT, "problem": problem.record(), "q": read.q, "kappa": float(curves.kappa), **errors}
    if read.reasons:
        attributes["reasons"] = read.to_xarray().attrs["reasons"]
    return xr.Dataset(variables, coordinates, attributes)


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> int:
    """Draw the figure of a dataset of times, print its tables, and say where the figure is.

    Returns:
        The exit status: 0, or 3 if a loss could not be computed.
    """
    results = results_of(dataset)
    names = write_figures(out, FILES, drawn(drawing, "times", functools.partial(plots.times, *results), PANELS), drawing, replace)
    rule = rule_text(dataset.attrs)
    trained = [f"training rule of the curves: {rule}; what is read from the spectrum are times of gradient flow"] if rule else []
    read = results[2]
    labels = [str(c) for c in range(dataset.sizes["class"])] if drawing.class_names is None else list(drawing.class_names)
    unknown = [(name, c) for c in range(len(labels)) for name in TIME_NAMES if read.reason(name, c)]
    reasons = [f"{name} of class {labels[c]}: {read.reason(name, c)}" for name, c in unknown]
    notes = [*loss_weight_lines_of(dataset.attrs), *trained, *([] if dataset.separated else [NOT_SEPARATED])]
    lost = [labels[c] for c in range(len(labels)) if dataset.separated and np.isnan(dataset.bulk_time.values[:, c]).any()]
    notes += [f"no time of class {label} from the spectrum: no modes of a bulk belong to it" for label in lost]
    notes += [*reasons, *error_lines(results[0], dataset.attrs.get("tolerance"))]
    missing = missing_losses(results[0])
    report(
        time_tables(dataset, drawing.class_names),
        drawing.table,
        [*notes, *[f"not computed: {missing}"] * bool(missing), f"in {out}: {', '.join(names)}"],
    )
    return NOT_COMPUTED if missing else AGREE


def results_of(dataset: xr.Dataset) -> tuple[LearningCurves, Spectrum, ClassTimes, theory.BulkTimes]:
    """The curves, the spectrum and both estimates of the times that a times.nc holds; what it does not hold is NaN."""
    taus, weights, error = dataset["tau"].values, dataset["weight"].values, float(dataset.attrs["error_estimate"])
    test, zeros = dataset["test_loss"].values, np.zeros(dataset["test_loss"].shape)
    unknown, kappa = np.full(test.shape, np.nan), float(dataset.attrs["kappa"])
    curves = LearningCurves(taus, dataset["train_loss"].values, test, unknown, unknown[0], weights, kappa, error, zeros, zeros, zeros)
    grid, intervals, density = dataset["eigenvalue"].values, dataset["interval"].values, dataset["class_density"].values
    support = np.array([[grid[intervals == i].min(), grid[intervals == i].max()] for i in np.unique(intervals)])
    spectrum = Spectrum(support, grid, density.sum(axis=1), density, intervals, np.zeros(0), np.zeros(0), np.nan)
    read = times_in(dataset)
    edges, fastest, slowest = (dataset[name].values for name in ("bulk_edges", "bulk_fastest", "bulk_slowest"))
    gap = np.array([edges[1, 1], edges[0, 0]])
    shares, separated = dataset["bulk_share"].values, bool(dataset["separated"])
    bulk_gen, bulk_mem = dataset["bulk_time"].values
    bulks = theory.BulkTimes(bulk_gen, bulk_mem, fastest, slowest, shares, edges, gap, separated)
    return curves, spectrum, read, bulks


def times_in(dataset: xr.Dataset) -> ClassTimes:
    """The times read from curves that a times.nc holds, with what is known where one is NaN."""
    variables: dict[str, Any] = {name: ("class", dataset["time"].sel(quantity=name).values) for name in TIME_NAMES}
    bounds = [name for name in (f"{name}_bounds" for name in TIME_NAMES) if name in dataset]
    variables |= {name: (("class", "bound"), dataset[name].values) for name in bounds}
    attributes = {name: dataset.attrs[name] for name in ("q", "reasons") if name in dataset.attrs}
    return ClassTimes.from_xarray(xr.Dataset(variables, attrs=attributes))


def time_tables(dataset: xr.Dataset, class_names: Sequence[str] | None = None) -> list[Table]:
    """Both readings of each class's times and their ratio; the bulks, if a gap separates them; the elasticities, if there are any."""
    labels = [str(c) for c in range(dataset.sizes["class"])] if class_names is None else list(class_names)
    headings = ["class", "weight", "read from", *TIME_NAMES[:-1], f"tau_opt({dataset.attrs['q']:g})", "tau_mem/tau_gen"]
    rows: list[list[Cell]] = []
    read = times_in(dataset)
    for c, label in enumerate(labels):
        gen, stop, mem, opt = dataset.time.values[:, c]
        spectral_gen, spectral_mem = dataset.bulk_time.values[:, c]
        for source, values in (
            ("curves", (gen, stop, mem, opt, mem / gen)),
            ("spectrum", (spectral_gen, np.nan, spectral_mem, np.nan, spectral_mem / spectral_gen)),
            ("spectrum/curves", (spectral_gen / gen, np.nan, spectral_mem / mem, np.nan, np.nan)),
        ):
            rows.append([words(label), shown(dataset.weight.values[c], ".3g"), words(source), *(measured(value) for value in values)])
            if source == "curves":
                for j, name in enumerate(TIME_NAMES):
                    if read.reason(name, c) or np.isnan(values[j]):
                        rows[-1][3 + j] = measured(values[j], text=read.text(name, c))
    tables = [Table("times", headings, rows, grouped=2)]
    if dataset.separated:
        tables.append(_bulk_table(dataset, labels))
    if "elasticity" in dataset:
        tables.append(_elasticity_table(dataset, labels))
    return tables


def _bulk_table(dataset: xr.Dataset, labels: Sequence[str]) -> Table:
    """Edges and relaxation times of each bulk, and the part of its modes that belongs to each class."""
    edges = ["lowest eigenvalue", "highest eigenvalue", "shortest 1/(kappa lambda)", "longest 1/(kappa lambda)"]
    rows = []
    for b, name in enumerate(BULKS):
        ends = (*dataset.bulk_edges.values[b], dataset.bulk_fastest.values[b], dataset.bulk_slowest.values[b])
        shares = (shown(float(share), ".3f") for share in dataset.bulk_share.values[b])
        rows.append([words(name), *(measured(float(end)) for end in ends), *shares])
    return Table("bulks", ["bulk", *edges, *(f"share of {label}" for label in labels)], rows)


def _elasticity_table(dataset: xr.Dataset, labels: Sequence[str]) -> Table:
    """One row a parameter, one column per time and class."""
    headings = ["d log time / d log", *(f"{name}, {label}" for name in TIME_NAMES for label in labels)]
    slopes = zip(dataset.parameter.values, dataset.elasticity.values, strict=True)
    return Table("elasticities", headings, [[words(name), *(shown(float(value), "+.3f") for value in row.ravel())] for name, row in slopes])


COMMAND = Command("times", TimesOptions, run)
