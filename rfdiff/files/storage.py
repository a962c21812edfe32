"""One `save` and one `load` for every kind of file that rfdiff writes."""

import importlib
from pathlib import Path
from typing import Protocol, runtime_checkable

import xarray as xr

from rfdiff.errors import InputError
from rfdiff.files import dataset_file, netcdf, result_file
from rfdiff.files.atomic import expanded, write_arrays, write_bytes
from rfdiff.files.provenance import Entry
from rfdiff.files.result_file import Result
from rfdiff.labels import Labelled
from rfdiff.problem import Problem
from rfdiff.problem_file import matrices_of

# Where each type lives that a file can be read back into; its module is imported when such a file is read.
HOMES = {
    "BulkTimes": "rfdiff.theory_results",
    "Calibration": "rfdiff.calibration.steps_per_tau",
    "ClassTimes": "rfdiff.class_times.named_times",
    "CloneFractions": "rfdiff.backward.cloning",
    "EmpiricalSpectrum": "rfdiff.curves",
    "LearningCurves": "rfdiff.curves",
    "PhaseMap": "rfdiff.theory_results",
    "Proposal": "rfdiff.design.proposals",
    "ReturnFractions": "rfdiff.backward.uturns",
    "SGDStability": "rfdiff.theory_results",
    "Spectrum": "rfdiff.curves",
    "Stieltjes": "rfdiff.theory_results",
    "TimeSensitivity": "rfdiff.theory_results",
    "Trial": "rfdiff.design.trials",
}


@runtime_checkable
class HasDataset(Protocol):
    """A result that a labelled dataset holds."""

    def to_xarray(self) -> xr.Dataset:
        """The dataset."""


def save(value: Result | Labelled | HasDataset | xr.Dataset | Problem, path: str | Path, **metadata: Entry) -> Path:
    """Write a result of any kind as one NetCDF file, whole or not at all, with versions, kind of machine and date; a problem as TOML.

    Args:
        value: a `Result` (a problem with its curves and spectrum), any type with `to_xarray` (`LearningCurves`, `Spectrum`,
            `ClassTimes`, …), an `xarray.Dataset`, or a `Problem`.
        path: the file, customarily ending in .nc, for a problem in .toml; ~ stands for the home folder. Covariances of a problem are
            written beside it, as NAME.matrices.npz.
        metadata: text and numbers to record beside a result (random seed, seconds, …).

    Returns:
        The path.

    Raises:
        InputError: another type; a problem whose activation is a user's own function, or with metadata; an entry that is neither text nor
            a number.
        OSError: the file cannot be written; nothing of it is left.
    """
    if isinstance(value, Problem):
        return _save_problem(value, expanded(path), metadata)
    if isinstance(value, Result):
        return result_file.save(Result(**{**vars(value), "metadata": {**value.metadata, **metadata}}), path)
    if isinstance(value, Labelled):
        return dataset_file.save_dataset(value.to_xarray().assign_attrs(content=type(value).__name__), path, **metadata)
    if isinstance(value, xr.Dataset):
        return dataset_file.save_dataset(value, path, **metadata)
    if isinstance(value, HasDataset):  # a speciation, a generation: read back as the dataset
        return dataset_file.save_dataset(value.to_xarray(), path, **metadata)
    raise InputError(f"value: got {type(value).__name__}; allowed: a Result, a type with to_xarray, an xarray.Dataset, or a Problem")


def matrices_beside(path: Path) -> Path:
    """Where the matrices of a problem file lie: NAME.matrices.npz beside NAME.toml."""
    return path.with_name(f"{path.stem}.matrices.npz")


def _save_problem(problem: Problem, path: Path, metadata: dict[str, Entry]) -> Path:
    if metadata:
        raise InputError(f"{next(iter(metadata))}: given with a Problem; allowed: metadata of results only")
    if path.suffix != ".toml":
        raise InputError(f"path: {path}; allowed: a name that ends in .toml, for a Problem")
    if problem.mixture.covariances is None:
        return write_bytes(path, problem.to_toml().encode())
    text, matrices = problem.to_toml(matrices_beside(path).name), matrices_beside(path)
    write_arrays(matrices, matrices_of(problem.mixture))
    return write_bytes(path, text.encode())


def load(path: str | Path) -> Result | Labelled | xr.Dataset | Problem:
    """Read a file of any kind back, every number as it was.

    Args:
        path: a file that `save` or a command wrote; ~ stands for the home folder.

    Returns:
        `Result` for result.nc; the type that was saved for a value of its own; an `xarray.Dataset` for maps, times, speciation,
        generation, sweeps and image evaluations, with provenance and numbers of the run as its attributes.

    Raises:
        InputError: missing, unreadable, truncated, damaged or foreign file, one of a newer format, or one without what it must hold; the
            message names the file and the fault.
    """
    if expanded(path).suffix == ".toml":
        return _load_problem(expanded(path))
    if netcdf.attribute_of(path, "format") == result_file.FORMAT:
        return result_file.load(path)
    data = dataset_file.load_dataset(path)
    name = str(data.attrs.get("content", ""))
    if name not in HOMES:
        return data
    kind: type[Labelled] = getattr(importlib.import_module(HOMES[name]), name)
    try:
        return kind.from_xarray(data)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err


def _load_problem(path: Path) -> Problem:
    try:
        return Problem.from_toml(path)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})") from err
