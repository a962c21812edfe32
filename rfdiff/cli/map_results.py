"""A phase map as a dataset, and its table: how often each of two classes comes first, and where their order flips."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, stacked
from rfdiff.cli.tables import Cell, Table, integer, measured, shown, words
from rfdiff.parameters import meaning
from rfdiff.problem import Problem
from rfdiff.theory_results import TIE

CONTENT = "phase map"


def labelled(found: theory.PhaseMap, problem: Problem, scales: Mapping[str, str], record: Mapping[str, object]) -> xr.Dataset:
    """A map as a dataset whose coordinates bear the names of the two numbers; `record` joins its attributes."""
    x, y = found.names
    axes = {
        name: (name, values, {"long_name": meaning(name), "units": "1", "spacing": scales[name]})
        for name, values in ((x, found.first), (y, found.second))
    }
    values = stacked(found.times)
    return xr.Dataset(
        {
            "time": (("quantity", x, y, "class"), values, {"long_name": "class-wise training time tau", "units": "training time"}),
            "error_estimate": ((x, y), found.error_estimate, {"long_name": "numerical error of the losses", "units": "1"}),
            "converged": ((x, y), found.converged, {"long_name": "error below the tolerance; elsewhere the times are NaN"}),
        },
        {"quantity": list(TIME_NAMES), **axes, "class": np.arange(problem.num_classes)},
        {"content": CONTENT, "problem": problem.record(), "x": x, "y": y, "q": found.times.q, **record},
    )


def map_of(dataset: xr.Dataset) -> theory.PhaseMap:
    """The map that a phase_map.nc holds."""
    x, y = (str(dataset.attrs[which]) for which in "xy")
    gen, stop, mem, opt = (dataset["time"].sel(quantity=name).values for name in TIME_NAMES)
    times = ClassTimes(gen, stop, mem, opt, q=float(dataset.attrs["q"]))
    error = dataset["error_estimate"].values
    return theory.PhaseMap(dataset[x].values, dataset[y].values, times, error, converged_cells(dataset), (x, y))


def converged_cells(dataset: xr.Dataset) -> np.ndarray:
    """(A, B) whether the times of a cell came below the tolerance; files of earlier versions hold the opposite, `failed`."""
    return ~dataset.failed.values.astype(bool) if "failed" in dataset else dataset.converged.values.astype(bool)


def order_table(dataset: xr.Dataset, pair: tuple[int, int], class_names: Sequence[str] | None = None) -> tuple[Table, list[str]]:
    """For each time the share of the decided cells in which each class is first; and how many cells there are and failed.

    A class that never reaches the criterion comes second; a cell is undecided where neither does or a time does not exist. The last
    columns say between which values of each number the order flips along it.
    """
    x, y = (str(dataset.attrs[which]) for which in "xy")
    axes = "  x  ".join(
        f"{name} ({axis.size} values, {axis.values[0]:g} to {axis.values[-1]:g}, {axis.attrs['spacing']})"
        for name, axis in ((x, dataset[x]), (y, dataset[y]))
    )
    failed, error = ~converged_cells(dataset), dataset.error_estimate.values
    worst = f", numerical error of a loss at most {error[~failed].max():.1e}" if not failed.all() else ""
    head = [f"phase map: {axes}", f"{failed.size} cells, {failed.sum()} failed{worst}"]
    if dataset.sizes["class"] == 1:
        return _time_table(dataset, int(failed.sum())), head
    result = map_of(dataset)
    a, b = (f"class {c}" if class_names is None else class_names[c] for c in pair)
    headings = ["time", f"{a} first", f"{b} first", "equal", "undecided", f"flips along {x}", f"flips along {y}"]
    rows: list[list[Cell]] = []
    for name in TIME_NAMES:
        order = result.log_ratio(name, pair)
        decided = ~np.isnan(order)
        counts = [np.sum(order < -TIE), np.sum(order > TIE), np.sum(abs(order) <= TIE)]
        shares = [shown(100 * float(count) / max(int(decided.sum()), 1), ".1f", " %") for count in counts]
        undecided = integer(order.size - decided.sum() - failed.sum())
        rows.append([words(name), *shares, undecided, *(words(flip_text(result.flips(name, axis, pair))) for axis in (0, 1))])
    return Table("order of the classes", headings, rows), head


def _time_table(dataset: xr.Dataset, failed: int) -> Table:
    """Of a single class: least, median and greatest of each time over the map."""
    rows: list[list[Cell]] = []
    for name in TIME_NAMES:
        values = dataset.time.sel(quantity=name).values[..., 0]
        known = values[np.isfinite(values)]
        numbers = [measured(float(f(known)) if known.size else np.nan) for f in (np.min, np.median, np.max)]
        rows.append([words(name), *numbers, integer(values.size - known.size - failed)])
    return Table("times", ["time", "lowest", "median", "highest", "never or none"], rows)


def flip_text(values: np.ndarray) -> str:
    """Least and greatest value at which the order of two classes flips; "-" if it nowhere does."""
    if not values.size:
        return "-"
    low, high = (f"{value:.3g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
