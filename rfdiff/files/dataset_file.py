"""Labelled arrays on disk (maps, times, experiments): one checksummed NetCDF file, written whole or not at all, readable with xarray alone.

A result of theory and simulation has a format of its own in `result_file`; this one takes any `xarray.Dataset` of numbers, truth values
and text. Its attribute `content` says what it holds.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.errors import InputError
from rfdiff.files import netcdf
from rfdiff.files.provenance import Entry, provenance
from rfdiff.files.seal import SEAL, check_content, check_layout

FORMAT = "rfdiff dataset"
FORMAT_VERSION = 1
RESERVED = ("format", "format_version", *SEAL)
STORABLE = "biufcUO"  # kinds of numpy arrays: truth values, integers, floating and complex numbers, text
COMPLEX_AXIS = "complex_part"  # NetCDF has no complex numbers: real and imaginary part along a last axis of this name


def save_dataset(dataset: xr.Dataset, path: str | Path, **metadata: Entry) -> Path:
    """Write a dataset as one NetCDF file, whole or not at all; an existing file is replaced only by a whole one.

    Versions, kind of machine and date (`provenance`) become attributes, unless the dataset brings its own: one that was read
    and is written again keeps the provenance of its computation.

    Args:
        dataset: variables and coordinates of any shape; numbers, truth values or text.
        path: the file, customarily ending in .nc; ~ stands for the home folder.
        metadata: text and numbers to record as attributes beside those of the dataset (random seed, seconds, …).

    Returns:
        The path.

    Raises:
        InputError: not a dataset; a variable of another type; an attribute that is neither text nor a number, or has a reserved name.
        OSError: the file cannot be written.

    Reference: tests/files/test_dataset_file.py.
    """
    if not isinstance(dataset, xr.Dataset):
        raise InputError(f"dataset: got {type(dataset).__name__}; allowed: an xarray.Dataset")
    for name, variable in dataset.variables.items():
        text = variable.dtype.kind != "O" or all(isinstance(value, str) for value in variable.values.ravel())
        if variable.dtype.kind not in STORABLE or not text:
            raise InputError(f"dataset: variable {name!r} is of type {variable.dtype}; allowed: numbers, truth values and text")
    attributes = netcdf.check_metadata({**provenance(), **dataset.attrs, **metadata}, RESERVED)
    whole = xr.Dataset(dataset.variables, attrs={"format": FORMAT, "format_version": FORMAT_VERSION, **attributes})
    return netcdf.write({"/": _with_real_numbers(whole.set_coords(list(dataset.coords)))}, path)


def load_dataset(path: str | Path) -> xr.Dataset:
    """Read a dataset back, every number as it was; its attributes hold the provenance and the metadata.

    Args:
        path: a file that `save_dataset` wrote; ~ stands for the home folder.

    Raises:
        InputError: missing, unreadable, truncated, damaged or foreign file, one of a newer format, or one that lacks something it was
            written with; the message names the file and the fault.

    Reference: tests/files/test_dataset_file.py.
    """
    groups = netcdf.read(path)
    data = groups["/"]
    try:
        netcdf.check_format(data.attrs, FORMAT, FORMAT_VERSION)
        check_layout(groups)
        check_content(groups)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    data.attrs = {name: value for name, value in data.attrs.items() if name not in RESERVED}
    return _with_complex_numbers(data)


def content_of(path: str | Path) -> str | None:
    """What a file that `save_dataset` wrote says it holds (its attribute content, "" without one); None if it is no such file.

    A file that is no such file, or cannot be read, is for its own reader to refuse.
    """
    if netcdf.attribute_of(path, "format") != FORMAT:
        return None
    content: Any = netcdf.attribute_of(path, "content")
    return "" if content is None else str(content)


def _with_real_numbers(data: xr.Dataset) -> xr.Dataset:
    parts = {
        name: ((*variable.dims, COMPLEX_AXIS), np.stack([variable.values.real, variable.values.imag], axis=-1), variable.attrs)
        for name, variable in data.variables.items()
        if variable.dtype.kind == "c"
    }
    return data.assign(parts) if parts else data


def _with_complex_numbers(data: xr.Dataset) -> xr.Dataset:
    whole = {
        name: (variable.dims[:-1], variable.values[..., 0] + 1j * variable.values[..., 1], variable.attrs)
        for name, variable in data.variables.items()
        if variable.dims[-1:] == (COMPLEX_AXIS,)
    }
    return data.assign(whole) if whole else data
