"""Labelled results on disk: one NetCDF file a result, written whole or not at all, readable with xarray alone.

Layout: `/` holds attributes only (format, problem as TOML, versions, platform, date, random seed, rule); the groups `/theory`,
`/simulation`, `/smaller` (the simulation at half the dimension) hold learning curves and `/spectrum` the limiting spectrum of U. A law
built from covariances stands in the group `/mixture` with its matrices; the problem's text then holds their traces only.
Groups that were not computed are absent. `xr.open_dataset(path, group="theory")` or `xr.open_datatree(path)` opens it anywhere.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.files import netcdf
from rfdiff.files.provenance import Entry
from rfdiff.files.seal import SEAL, check_content, check_layout
from rfdiff.labels import Label, dataset_of, values_of
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.value_types import same_value

FORMAT = "rfdiff result"
FORMAT_VERSION = 2  # of files with a group /mixture; the others are written as version 1, which older readers know
CURVE_GROUPS = ("theory", "simulation", "smaller")
RESERVED = ("format", "format_version", "problem", *SEAL)
MIXTURE_LABELS = {
    "weights": Label(("class",), "class fraction"),
    "covariances": Label(("class", "row", "column"), "covariance of the class"),
    "centroids": Label(("class", "row"), "mean of the class"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """What one command computed, as it stands in one file; None for what it did not compute.

    Args:
        problem: the question.
        theory: closed-form curves.
        spectrum: closed-form spectrum of U.
        simulation: simulated curves at dimension d.
        smaller: simulated curves at half that dimension, from which the finite-size term is estimated.
        metadata: text and numbers about the run (see `rfdiff.files.provenance`).
    """

    problem: Problem
    theory: LearningCurves | None = None
    spectrum: Spectrum | None = None
    simulation: LearningCurves | None = None
    smaller: LearningCurves | None = None
    metadata: dict[str, Entry] = dataclasses.field(default_factory=dict)

    def equals(self, other: object) -> bool:
        """Whether `other` is a result that holds the same values."""
        return same_value(self, other)


def save(result: Result, path: str | Path) -> Path:
    """Write a result as one NetCDF file, whole or not at all; an existing file is replaced only by a whole one.

    Args:
        result: what to write.
        path: the file, customarily ending in .nc; ~ stands for the home folder.

    Returns:
        The path.

    Raises:
        InputError: the activation is a user's own function, or a metadata entry is neither text nor a number.
        OSError: the file cannot be written.
    """
    groups = {"/": xr.Dataset(attrs=_root_attributes(result))}
    for name in (*CURVE_GROUPS, "spectrum"):
        value: LearningCurves | Spectrum | None = getattr(result, name)
        if value is not None:
            groups[name] = value.to_xarray()
    if result.problem.mixture.covariances is not None:
        law = result.problem.mixture
        groups["mixture"] = dataset_of(law, MIXTURE_LABELS)
        if law.class_names:
            groups["mixture"]["class_name"] = ("class", np.array(law.class_names), {"long_name": "name of the class", "units": "1"})
    return netcdf.write(groups, path)


def load(path: str | Path) -> Result:
    """Read a result back, every number as it was.

    Args:
        path: a file that `save` wrote; ~ stands for the home folder.

    Raises:
        InputError: missing, unreadable, truncated or foreign file, or one of a newer format; the message names the file and the fault.
    """
    groups = netcdf.read(path)
    try:
        netcdf.check_format(groups["/"].attrs, FORMAT, FORMAT_VERSION)
        check_layout(groups)
        result = _result_from(groups, groups["/"].attrs)  # what it says of a field is clearer than that something has changed
        check_content(groups)
        return result
    except InputError as err:
        raise InputError(f"{path}: {err}") from err


def _result_from(groups: dict[str, xr.Dataset], root: dict[str, Any]) -> Result:
    if "problem" not in root:
        raise InputError("has no attribute 'problem'")
    problem = Problem.from_text(str(root["problem"]))
    if "mixture" in groups:
        fields, stored = values_of(groups["mixture"], MIXTURE_LABELS, "mixture"), groups["mixture"].get("class_name", ())
        names = tuple(map(str, np.asarray(stored).tolist()))
        problem = problem.with_mixture(MixtureLaw.from_covariances(**fields, class_names=names))
    curves = {name: LearningCurves.from_xarray(groups[name], name) for name in CURVE_GROUPS if name in groups}
    spectrum = Spectrum.from_xarray(groups["spectrum"], "spectrum") if "spectrum" in groups else None
    classes = {name: value.num_classes for name, value in curves.items()}
    if spectrum is not None:
        classes["spectrum"] = spectrum.num_classes
    for name, count in classes.items():
        if count != problem.num_classes:
            raise InputError(f"group {name} has {count} classes, its problem has {problem.num_classes}")
    return Result(problem, spectrum=spectrum, metadata={name: value for name, value in root.items() if name not in RESERVED}, **curves)


def _root_attributes(result: Result) -> dict[str, Any]:
    metadata = netcdf.check_metadata(result.metadata, RESERVED)
    problem, law = result.problem, result.problem.mixture
    whole = law.covariances is None
    text = problem if whole else problem.with_mixture(MixtureLaw.isotropic(law.weights, law.variances, law.centroid_gram))
    return {"format": FORMAT, "format_version": 1 if whole else FORMAT_VERSION, "problem": text.to_toml(), **metadata}
