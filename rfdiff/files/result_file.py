"""Labelled results on disk: one NetCDF file a result, written whole or not at all, readable with xarray alone.

Layout: `/` holds attributes only (format, problem as TOML, versions, platform, date, random seed, rule); the groups `/theory`,
`/simulation`, `/smaller` (the simulation at half the dimension) hold learning curves and `/spectrum` the limiting spectrum of U. A law
built from covariances stands in the group `/mixture` with its matrices; the problem's text then holds their traces only.
Groups that were not computed are absent. `xr.open_dataset(path, group="theory")` or `xr.open_datatree(path)` opens it anywhere.
"""

import dataclasses
import datetime
import platform
import tomllib
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from rfdiff.curves import CURVE_NAMES, EmpiricalSpectrum, LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.files.atomic import replacing
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem, problem_from_dict

FORMAT = "rfdiff result"
FORMAT_VERSION = 2  # of files with a group /mixture; the others are written as version 1, which older readers know
CURVE_GROUPS = ("theory", "simulation", "smaller")
RESERVED = ("format", "format_version", "problem")


@dataclasses.dataclass(frozen=True)
class Result:
    """What one command computed, as it stands in one file; None for what it did not compute.

    Args:
        problem: the question.
        theory: closed-form curves.
        spectrum: closed-form spectrum of U.
        simulation: simulated curves at dimension d.
        smaller: simulated curves at half that dimension, from which the finite-size term is estimated.
        metadata: text and numbers about the run (see `provenance`).
    """

    problem: Problem
    theory: LearningCurves | None = None
    spectrum: Spectrum | None = None
    simulation: LearningCurves | None = None
    smaller: LearningCurves | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Field:
    """How a field of a value type is labelled in a file."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    variable: str = ""


_CURVES: dict[str, _Field] = {
    "taus": _Field(("tau",), "training time, in the unit fixed by kappa (inf: convergence)", variable="tau"),
    "train_loss": _Field(("tau", "class"), "train loss of the class, per coordinate"),
    "test_loss": _Field(("tau", "class"), "test loss of the class, per coordinate"),
    "score_error": _Field(("tau", "class"), "squared distance to the exact score on the class, per coordinate"),
    "optimal_loss": _Field(("class",), "test loss of the exact score of the mixture on the class, per coordinate"),
    "weights": _Field(("class",), "class fraction"),
    "kappa": _Field((), "relaxation rate of a unit eigenvalue of U, 2 Delta / psi_p", "1/tau"),
    "error_estimate": _Field((), "largest numerical error of any entry (theory)"),
    "train_loss_stderr": _Field(("tau", "class"), "standard error of train_loss over seeds"),
    "test_loss_stderr": _Field(("tau", "class"), "standard error of test_loss over seeds"),
    "score_error_stderr": _Field(("tau", "class"), "standard error of score_error over seeds"),
}
_PER_SEED = {
    name: _Field(("seed", "tau", "class"), f"{name} of each seed", _CURVES[name].units, f"{name}_per_seed") for name in CURVE_NAMES
}
_EMPIRICAL: dict[str, _Field] = {
    "eigenvalues": _Field(("seed", "mode"), "eigenvalues of the simulated feature second moment U, ascending"),
    "class_weights": _Field(("seed", "mode", "class"), "share of the class in the spectral weight 1/p of the eigenvalue"),
}
_SPECTRUM: dict[str, _Field] = {
    "support": _Field(("interval", "edge"), "edges of the intervals that hold the continuous spectrum of U"),
    "eigenvalues": _Field(("eigenvalue",), "eigenvalue of U", variable="eigenvalue"),
    "density": _Field(("eigenvalue",), "spectral density of U", "1/eigenvalue"),
    "class_density": _Field(("eigenvalue", "class"), "part of the spectral density that belongs to the class", "1/eigenvalue"),
    "bulk": _Field(("eigenvalue",), "index of the support interval of the grid point"),
    "atom_locations": _Field(("atom",), "place of the atom", variable="atom"),
    "atom_weights": _Field(("atom",), "weight of the atom"),
    "missing_mass": _Field((), "numerical error of the total mass of the density and the atoms"),
}
_MIXTURE: dict[str, _Field] = {
    "weights": _Field(("class",), "class fraction"),
    "covariances": _Field(("class", "row", "column"), "covariance of the class"),
    "centroids": _Field(("class", "row"), "mean of the class"),
}


def provenance(**entries: Any) -> dict[str, Any]:
    """Versions, kind of machine and date of a run, for `Result.metadata`; no host names and no paths.

    Args:
        entries: further text and numbers to record (random seed, rule, …).
    """
    versions = {f"{name}_version": version_of(name) for name in ("rfdiff", "jax", "numpy", "scipy", "xarray")}
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python_version": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} ({device.device_kind}) x {jax.device_count()}",
        **entries,
    }


def save(result: Result, path: str | Path) -> Path:
    """Write a result as one NetCDF file, whole or not at all; an existing file is replaced only by a whole one.

    Args:
        result: what to write.
        path: the file, customarily ending in .nc.

    Returns:
        The path.

    Raises:
        InputError: the activation is a user's own function, or a metadata entry is neither text nor a number.
        OSError: the file cannot be written.
    """
    path = Path(path)
    groups = {"/": xr.Dataset(attrs=_root_attributes(result))}
    for name in CURVE_GROUPS:
        curves = getattr(result, name)
        if curves is not None:
            groups[f"/{name}"] = _curves_dataset(curves)
    if result.problem.mixture.covariances is not None:
        groups["/mixture"] = _with_class_axis(_dataset(result.problem.mixture, _MIXTURE))
    if result.spectrum is not None:
        groups["/spectrum"] = _with_class_axis(_dataset(result.spectrum, _SPECTRUM))
    with replacing(path) as temporary:
        encoding = {group: {str(name): _encoding(variable) for name, variable in data.variables.items()} for group, data in groups.items()}
        xr.DataTree.from_dict(groups).to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    return path


def load(path: str | Path) -> Result:
    """Read a result back, every number as it was.

    Args:
        path: a file that `save` wrote.

    Raises:
        InputError: missing, unreadable, truncated or foreign file, or one of a newer format; the message names the file and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    try:
        with xr.open_datatree(path, engine="h5netcdf", decode_cf=False) as opened:
            groups: dict[str, xr.Dataset] = {name: node.to_dataset().load() for name, node in opened.children.items()}
            root = {str(name): value for name, value in opened.attrs.items()}
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as err:  # whatever HDF5, h5netcdf and xarray say of a damaged file
        reason = "is truncated" if "truncated" in str(err) else f"cannot be read as a NetCDF file ({_first_line(err)})"
        raise InputError(f"{path}: {reason}") from err
    try:
        return _result_from(groups, root)
    except ValueError as err:
        raise InputError(f"{path}: {err}") from err


def _result_from(groups: dict[str, xr.Dataset], root: dict[str, Any]) -> Result:
    if root.get("format") != FORMAT:
        raise InputError(f"is not an rfdiff result (attribute format is {root.get('format')!r}, expected {FORMAT!r})")
    version = root.get("format_version")
    if not isinstance(version, int | np.integer):
        raise InputError(f"format_version is {version!r}; allowed: an integer")
    if version > FORMAT_VERSION:
        raise InputError(f"has format version {version}, newer than {FORMAT_VERSION}, the newest this rfdiff reads; upgrade rfdiff")
    try:
        problem = problem_from_dict(tomllib.loads(str(root["problem"])))
    except KeyError as err:
        raise InputError("has no attribute 'problem'") from err
    except RecursionError as err:
        raise InputError("attribute problem is not a problem: nested too deeply") from err
    if "mixture" in groups:
        problem = with_mixture(problem, MixtureLaw.from_covariances(**_values(groups["mixture"], _MIXTURE, "mixture")))
    curves = {name: _curves_from(groups[name], name) for name in CURVE_GROUPS if name in groups}
    for name, value in curves.items():
        if value.num_classes != problem.num_classes:
            raise InputError(f"group {name} has {value.num_classes} classes, its problem has {problem.num_classes}")
    spectrum = Spectrum(**_values(groups["spectrum"], _SPECTRUM, "spectrum")) if "spectrum" in groups else None
    metadata = {name: value.item() if isinstance(value, np.generic) else value for name, value in root.items() if name not in RESERVED}
    return Result(problem, spectrum=spectrum, metadata=metadata, **curves)


def _root_attributes(result: Result) -> dict[str, Any]:
    for name, value in result.metadata.items():
        if name in RESERVED or isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"metadata: {name} = {value!r}; allowed: text and numbers, under other names than {', '.join(RESERVED)}")
    problem, law = result.problem, result.problem.mixture
    whole = law.covariances is None
    text = problem if whole else with_mixture(problem, MixtureLaw.isotropic(law.weights, law.variances, law.centroid_gram))
    return {"format": FORMAT, "format_version": 1 if whole else FORMAT_VERSION, "problem": text.to_toml(), **result.metadata}


def with_mixture(problem: Problem, mixture: MixtureLaw) -> Problem:
    """The problem with another mixture law."""
    return Problem(mixture, problem.activation, problem.t, problem.psi_p, problem.psi_n, problem.noise_draws)


def _curves_dataset(curves: LearningCurves) -> xr.Dataset:
    data = _dataset(curves, _CURVES)
    for name, values in (curves.per_seed or {}).items():
        data[_PER_SEED[name].variable] = _variable(values, _PER_SEED[name])
    if curves.spectrum is not None:
        data = data.merge(_dataset(curves.spectrum, _EMPIRICAL))
    if "seed" in data.dims:
        data = data.assign_coords(seed=("seed", np.arange(data.sizes["seed"]), {"long_name": "index of the seed", "units": "1"}))
    dimension = {} if curves.dimension is None else {"dimension": curves.dimension}
    return _with_class_axis(data.assign_attrs(source=curves.source, dtype=curves.dtype, **dimension))


def _curves_from(data: xr.Dataset, group: str) -> LearningCurves:
    values = _values(data, _CURVES, group)
    per_seed = {name: field for name, field in _PER_SEED.items() if field.variable in data}
    spectrum = EmpiricalSpectrum(**_values(data, _EMPIRICAL, group)) if "eigenvalues" in data else None
    missing = [name for name in ("source", "dtype") if name not in data.attrs]
    if missing:
        raise InputError(f"group {group} has no attribute {missing[0]!r}")
    dimension = data.attrs.get("dimension")
    return LearningCurves(
        **values,
        per_seed=_values(data, per_seed, group) or None,
        spectrum=spectrum,
        source=str(data.attrs["source"]),
        dimension=None if dimension is None else int(dimension),
        dtype=str(data.attrs["dtype"]),
    )


def _dataset(value: Any, fields: dict[str, _Field]) -> xr.Dataset:
    variables = {field.variable or name: _variable(getattr(value, name), field) for name, field in fields.items()}
    return xr.Dataset(variables)


def _variable(values: Any, field: _Field) -> xr.Variable:
    return xr.Variable(field.dims, np.asarray(values), {"long_name": field.long_name, "units": field.units})


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """No fill values; a checksum with every chunk, so that damaged numbers are noticed (HDF5 has none for a single number)."""
    return {"_FillValue": None, **({"fletcher32": True} if variable.size and variable.ndim else {})}


def _with_class_axis(data: xr.Dataset) -> xr.Dataset:
    label = {"long_name": "class of the mixture, in the order of its weights", "units": "1"}
    return data.assign_coords({"class": ("class", np.arange(data.sizes["class"]), label)})


def _values(data: xr.Dataset, fields: dict[str, _Field], group: str) -> dict[str, Any]:
    values = {}
    for name, field in fields.items():
        variable = field.variable or name
        if variable not in data:
            raise InputError(f"group {group} has no variable {variable!r}")
        if data[variable].dims != field.dims:
            raise InputError(f"variable {group}/{variable} has dimensions {data[variable].dims}, expected {field.dims}")
        array = np.array(data[variable].values)
        values[name] = array.item() if array.ndim == 0 else array
    return values


def version_of(name: str) -> str:
    """Version of an installed package."""
    try:
        return packages.version(name)
    except packages.PackageNotFoundError:
        return "not installed as a package"


def _first_line(err: BaseException) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
