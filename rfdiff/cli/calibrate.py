"""The command calibrate: how many steps of a real training one unit of the theory's training time is, from its losses."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
import xarray as xr

from rfdiff import plots
from rfdiff.calibration import Calibration, LossRecord, fit_steps, read_losses
from rfdiff.class_times import TIME_NAMES, ClassTimes, times
from rfdiff.cli.command import AGREE, Command
from rfdiff.cli.folder import Files, check_drawing, drawn, redraw_dataset, results_folder, write_figures
from rfdiff.cli.options import Drawing, NearOptimal, Output, Redrawing, check, fraction
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import report
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.diagnosis import assembly as diagnosis
from rfdiff.errors import InputError
from rfdiff.files import result_file
from rfdiff.files.contents import load_content
from rfdiff.files.dataset_file import content_of, save_dataset
from rfdiff.files.provenance import Entry
from rfdiff.labels import labelled_dataset
from rfdiff.rules import Ridge

CONTENT = "calibration"
FILES = Files("calibration.nc", {"calibration": ()})
MARGIN = 10.0  # factor of steps beyond the record to which the fitted curves are drawn
RECORD_ROWS = {"step": "training step", "member": "number of the class", "train": "train loss", "held_out": "held-out loss"}
LOSSES = (
    "Losses of your training: columns step, class, train, held_out, one row for each step and class. Leave a cell empty if it was not "
    "measured. Classes are called as in the problem, or 0, 1, ... where they have no names there."
)
DEVIATES = 0.3  # misfit above which the losses are said not to follow the theory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrate(Output):
    """Find how many steps of your own training make one unit of training time, and at which steps each class is learned and memorised."""

    result: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULT")]
    """The result.nc of rfdiff predict or compare, or the diagnosis.nc of rfdiff diagnose."""
    losses: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LOSSES.csv", help=LOSSES)]
    q: NearOptimal = 0.5


def run(options: Calibrate) -> int:
    """Fit the factor, write it, print it with the steps of the times, and draw the losses over the fitted curves.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, losses that determine no factor, or existing results in the folder.
        OSError: the folder cannot be written to.
    """
    check(options, q=fraction(options.q))
    reference = reference_of(options.result)
    curves, names = reference.curves, reference.class_names
    check_drawing(options, len(names))
    record = read_losses(options.losses, names)
    read = times(curves, q=options.q, loss_weights=reference.loss_weights)
    try:
        found = fit_steps(curves, record, read)
    except InputError as err:
        raise InputError(f"{options.losses}: {err}") from err
    with results_folder(options.out, FILES, options.overwrite):
        dataset = labelled(found, record, curves, read, names)
        save_dataset(dataset.assign_attrs(reference.attributes, command="calibrate"), options.out / FILES.data)
        show(dataset, options.out, options, replace=True)
    return AGREE


@dataclasses.dataclass(frozen=True)
class Reference:
    """What losses are compared with.

    Args:
        curves: the theory's, on times that cover every mode where the file has them.
        class_names: K names of the classes, as the CSV calls them.
        loss_weights: (K,) weights of the classes in the training loss; None where all are above 0.
        attributes: what the calibration records of it.
    """

    curves: LearningCurves
    class_names: tuple[str, ...]
    loss_weights: np.ndarray | None
    attributes: dict[str, Entry]


def reference_of(path: Path) -> Reference:
    """The theory's curves in the file of predict, compare or diagnose.

    Raises:
        InputError: no such file, one without theory, or one of ridge, which has no training time.
    """
    if content_of(path) == diagnosis.CONTENT:
        return _of_diagnosis(load_content(path, diagnosis.CONTENT))
    result = result_file.load(path)
    curves = result.theory if result.covering is None else result.covering
    if curves is None:
        raise InputError(f"{path}: holds no theory; allowed: the file of rfdiff predict, compare or diagnose")
    if result.metadata.get("rule") == Ridge.name:
        raise InputError(f"{path}: is of ridge, which has penalties and no training time; allowed: a rule in time")
    problem = result.problem
    names = problem.mixture.class_names or tuple(str(c) for c in range(problem.num_classes))
    return Reference(curves, names, np.asarray(problem.training_weights), {"problem": problem.record()})


def _of_diagnosis(data: xr.Dataset) -> Reference:
    """The curves of a diagnosis at its main diffusion time."""
    at = data.isel(t=int(data.attrs["main"]))
    there = np.flatnonzero(~np.isnan(at["tau"].values))
    losses = {name: at[name].transpose("step", "class").values[there] for name in CURVE_NAMES}
    fields: dict[str, Any] = {**losses, **{f"{name}_stderr": np.zeros_like(loss) for name, loss in losses.items()}}
    fields |= {"taus": at["tau"].values[there], "optimal_loss": at["optimal_loss"].values, "weights": at["fraction"].values}
    curves = LearningCurves(**fields, kappa=float(at["kappa"]), error_estimate=float(at["error_estimate"]))
    return Reference(curves, tuple(str(name) for name in data["class"].values), None, {"diffusion_time": float(at["t"])})


def labelled(found: Calibration, record: LossRecord, curves: LearningCurves, read: ClassTimes, names: Sequence[str]) -> xr.Dataset:
    """A calibration with the record it was fitted to and the theory's curves in steps, as a dataset."""
    data = labelled_dataset({name: getattr(found, name) for name in found.LABELS}, found.LABELS)
    rows: dict[str, Any] = {name: ("row", getattr(record, name), {"long_name": text}) for name, text in RECORD_ROWS.items()}
    taus = np.asarray(curves.taus)
    positive = record.step[record.step > 0]
    low, high = (value / found.steps_per_tau for value in (positive.min(), positive.max() * MARGIN))
    shown = np.flatnonzero((taus >= low / 2) & (taus <= 2 * high))
    data = data.assign(
        **rows,
        train_curve=(("curve_step", "class"), found.offset + found.scale * np.asarray(curves.train_loss)[shown]),
        held_out_curve=(("curve_step", "class"), found.offset + found.scale * np.asarray(curves.test_loss)[shown]),
    )
    times_data = read.to_xarray()
    bounds: dict[str, Any] = {str(name): times_data[name] for name in times_data.data_vars if str(name).endswith("_bounds")}
    data = data.assign({"time": (("quantity", "class"), np.stack([getattr(read, name) for name in TIME_NAMES])), **bounds})
    attributes = {"content": CONTENT, "q": read.q, **({"reasons": times_data.attrs["reasons"]} if "reasons" in times_data.attrs else {})}
    steps = taus[shown] * found.steps_per_tau
    axes: dict[str, Any] = {"class_name": ("class", list(names)), "curve_step": steps, "quantity": list(TIME_NAMES)}
    return data.assign_coords(axes).assign_attrs(attributes)


def redraw(options: Redrawing) -> int:
    """Print the tables of a calibration.nc and draw its figure again, as `redraw_dataset`."""
    return redraw_dataset(options, CONTENT, FILES, show)


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> int:
    """Draw the losses over the fitted curves, print the factor and the steps, and say where the figure is."""
    stored = dataset["class_name"].values if "class_name" in dataset else np.arange(dataset.sizes["class"])
    names = list(drawing.class_names or map(str, stored))
    drawing = dataclasses.replace(drawing, class_names=tuple(names))
    written = write_figures(out, FILES, drawn(drawing, "calibration", functools.partial(plots.calibration, dataset)), drawing, replace)
    tables = [steps_table(dataset, names), fit_table(dataset, names)]
    report(tables, drawing.table, [*sentences(dataset, names), f"in {out}: {', '.join(written)}"])
    return AGREE


def steps_table(dataset: xr.Dataset, names: Sequence[str]) -> Table:
    """Steps of each time of each class with their error, and whether the training has passed them."""
    error, rho = float(dataset["log_error"]), float(dataset["steps_per_tau"])
    rows: list[list[Cell]] = []
    read = ClassTimes.from_xarray(_times_of(dataset))
    scaled: dict[str, Any] = {name: rho * np.asarray(getattr(read, name)) for name in TIME_NAMES}
    scaled["bounds"] = None if read.bounds is None else {name: rho * bound for name, bound in read.bounds.items()}
    in_steps = dataclasses.replace(read, **scaled)
    for c, label in enumerate(names):
        for j, name in enumerate(TIME_NAMES):
            step, tau = float(dataset["steps"].values[j, c]), float(dataset["time"].values[j, c])
            known = np.isfinite(step)
            shown = measured(step, step * error) if known else measured(step, text=in_steps.text(name, c))
            state = ("reached" if bool(dataset["reached"].values[j, c]) else "ahead") if known else "-"
            rows.append([words(label), words(name), measured(tau, text=read.text(name, c)), shown, words(state)])
    return Table("steps", ["class", "time", "tau", "step", "state"], rows, grouped=1)


def fit_table(dataset: xr.Dataset, names: Sequence[str]) -> Table:
    """What each class says alone, and the map from the theory's losses to those of the training."""
    rows = []
    for c, label in enumerate(names):
        alone, error = (float(dataset[name].values[c]) for name in ("class_steps_per_tau", "class_log_error"))
        numbers = (measured(float(dataset[name].values[c])) for name in ("offset", "scale", "misfit"))
        rows.append([words(label), measured(alone, alone * error), *numbers])
    return Table("fit", ["class", "steps per tau, this class alone", "offset", "scale", "misfit"], rows)


def sentences(dataset: xr.Dataset, names: Sequence[str]) -> list[str]:
    """The factor with its error in one line, and what is to be known of the fit."""
    rho, error, apart = (float(dataset[name]) for name in ("steps_per_tau", "log_error", "disagreement"))
    low, high = rho * np.exp(-error), rho * np.exp(error)
    told = [f"one unit of tau is {measured(rho, rho * error).text} steps (one standard error: {low:.4g} to {high:.4g})"]
    told.append("fitted: loss = offset + scale * theory, an offset and a scale for each class, one factor of steps for all")
    if apart > 1.5:
        told.append(f"the classes disagree on the factor: its error is {apart:.2g} times what the record alone would give")
    loose = [label for label, misfit in zip(names, dataset["misfit"].values, strict=True) if misfit > DEVIATES]
    if loose:
        told.append(f"the losses of {', '.join(loose)} do not follow the theory (misfit above {DEVIATES:g}): do not rely on these steps")
    return told


def _times_of(dataset: xr.Dataset) -> xr.Dataset:
    """The times in a calibration as `ClassTimes.from_xarray` takes them."""
    variables: dict[str, Any] = {name: ("class", dataset["time"].sel(quantity=name).values) for name in TIME_NAMES}
    bounds = [name for name in (f"{name}_bounds" for name in TIME_NAMES) if name in dataset]
    variables |= {name: (("class", "bound"), dataset[name].values) for name in bounds}
    return xr.Dataset(variables, attrs={name: dataset.attrs[name] for name in ("q", "reasons") if name in dataset.attrs})


COMMAND = Command("calibrate", Calibrate, run)
