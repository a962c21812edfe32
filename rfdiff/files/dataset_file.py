"""Labelled arrays on disk (maps, experiments): one checksummed NetCDF file, written whole or not at all, readable with xarray alone.

A learning curve has a format of its own in `store`; this one takes any `xarray.Dataset` of numbers, truth values and text.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.errors import InputError
from rfdiff.files.atomic import replacing
from rfdiff.files.result_file import provenance

FORMAT = "rfdiff dataset"
FORMAT_VERSION = 1
RESERVED = ("format", "format_version")
STORABLE = "biufUO"  # kinds of numpy arrays: truth values, integers, floating numbers, text


def save_dataset(dataset: xr.Dataset, path: str | Path, **metadata: Any) -> Path:
    """Write a dataset as one NetCDF file, whole or not at all; an existing file is replaced only by a whole one.

    Versions, kind of machine and date (`store.provenance`) become attributes, unless the dataset brings its own: one that was read
    and is written again keeps the provenance of its computation.

    Args:
        dataset: variables and coordinates of any shape; numbers, truth values or text.
        path: the file, customarily ending in .nc.
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
    attributes = {str(name): value for name, value in {**provenance(), **dataset.attrs, **metadata}.items()}
    for name, value in attributes.items():
        if name in RESERVED or isinstance(value, bool | np.bool_) or not isinstance(value, str | int | float | np.number):
            raise InputError(f"metadata: {name} = {value!r}; allowed: text and numbers, under other names than {', '.join(RESERVED)}")
    whole = xr.Dataset(dataset.variables, attrs={"format": FORMAT, "format_version": FORMAT_VERSION, **attributes})
    whole = whole.set_coords(list(dataset.coords))
    with replacing(path) as temporary:
        whole.to_netcdf(temporary, engine="h5netcdf", encoding={str(name): _encoding(value) for name, value in whole.variables.items()})
    return Path(path)


def load_dataset(path: str | Path) -> xr.Dataset:
    """Read a dataset back, every number as it was; its attributes hold the provenance and the metadata.

    Args:
        path: a file that `save_dataset` wrote.

    Raises:
        InputError: missing, unreadable, truncated or foreign file, or one of a newer format; the message names the file and the fault.

    Reference: tests/files/test_dataset_file.py.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    try:
        with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False, decode_times=False) as opened:
            data = opened.load()
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as err:  # whatever HDF5, h5netcdf and xarray say of a damaged file
        reason = (
            "is truncated" if "truncated" in str(err) else f"cannot be read as a NetCDF file ({(str(err) or 'damaged').splitlines()[0]})"
        )
        raise InputError(f"{path}: {reason}") from err
    if data.attrs.get("format") != FORMAT:
        raise InputError(f"{path}: is not an rfdiff dataset (attribute format is {data.attrs.get('format')!r}, expected {FORMAT!r})")
    version = data.attrs.get("format_version")
    if not isinstance(version, int | np.integer):
        raise InputError(f"{path}: format_version is {version!r}; allowed: an integer")
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: has format version {version}, newer than {FORMAT_VERSION}, the newest this rfdiff reads; upgrade rfdiff")
    data.attrs = {name: _plain(value) for name, value in data.attrs.items() if name not in RESERVED}
    return data


def content_of(path: str | Path) -> str | None:
    """What a file that `save_dataset` wrote says it holds (its attribute content, "" without one); None if it is no such file.

    A file that is no such file, or cannot be read, is for its own reader to refuse.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf", mask_and_scale=False, decode_times=False) as opened:
            return str(opened.attrs.get("content", "")) if opened.attrs.get("format") == FORMAT else None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return None


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """No fill values; a checksum with every chunk (HDF5 has none for a single number, nor for text)."""
    numeric = variable.dtype.kind in "biuf"
    return {**({"_FillValue": None} if numeric else {}), **({"fletcher32": True} if numeric and variable.size and variable.ndim else {})}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
