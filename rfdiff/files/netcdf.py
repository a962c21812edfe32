"""NetCDF files, read and written here only: built in memory and written whole; every fault on reading is an error of one line.

What HDF5, h5netcdf and xarray say of a damaged file is of many kinds; here it becomes one `InputError` that names the file. A full
disk never reaches HDF5, which does not survive it: the bytes are made first, then written.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from rfdiff.errors import InputError
from rfdiff.files.atomic import expanded, write_bytes
from rfdiff.files.provenance import Entry
from rfdiff.files.seal import sealed

NUMERIC = "biuf"
READING_FAULTS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError, MemoryError)
Faults = tuple[type[Exception], ...]


class _File(h5netcdf.File):
    """A file whose finaliser is silent: one that was refused while it was opened has nothing to flush, and stumbles over that."""

    def __del__(self, silent: type[contextlib.suppress] = contextlib.suppress, faults: Faults = READING_FAULTS) -> None:
        with silent(*faults):  # as defaults, since at exit the module's own names may be gone
            self.close()


def write(groups: Mapping[str, xr.Dataset], path: str | Path) -> Path:
    """Write groups of labelled arrays as one file, whole or not at all, sealed, and with a checksum of every chunk.

    Args:
        groups: datasets by name, "/" for the root of the file, which must be there.
        path: the file; ~ stands for the home folder.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; nothing of it is left.
    """
    content = io.BytesIO()
    with h5netcdf.File(content, "w") as file:
        for name, data in sealed(groups).items():
            group = file if name == "/" else file.create_group(name)
            encoding = {str(key): _encoding(variable) for key, variable in data.variables.items()}
            # not `to_netcdf`, which under a Dask client takes its lock from the cluster's scheduler; nothing here is shared
            data.dump_to_store(xr.backends.H5NetCDFStore(group), encoding=encoding)
    return write_bytes(path, content.getvalue())


def read(path: str | Path) -> dict[str, xr.Dataset]:
    """All groups of a file, in memory, every number as it was; "/" is the root.

    Args:
        path: the file; ~ stands for the home folder.

    Raises:
        InputError: missing, unreadable, truncated or damaged file; the message names the file and the fault.
    """
    file = expanded(path)
    if not file.is_file():
        raise InputError(f"{path}: {'is not a regular file' if file.exists() else 'no such file'}")
    try:
        with h5py.File(file, "r") as source:
            names = ["/", *(str(name) for name, item in source.items() if isinstance(item, h5py.Group))]
        with _File(file, "r", decode_vlen_strings=True) as opened:
            return {name: _plain(_dataset(opened if name == "/" else opened[name])) for name in names}
    except READING_FAULTS as err:
        text = (str(err).strip() or "damaged").splitlines()[0]
        reason = "is truncated" if "truncated" in str(err) else f"cannot be read as a NetCDF file ({text})"
        raise InputError(f"{path}: {reason}") from err


def attribute_of(path: str | Path, name: str) -> Entry | None:
    """An attribute of the root of a file; None where it has none, or is no file that can be read: that is for its reader to refuse."""
    try:
        with h5py.File(expanded(path), "r") as source:
            value = source.attrs.get(name)
    except READING_FAULTS:
        return None
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else None


def check_format(attributes: Mapping[str, Any], name: str, newest: int) -> None:
    """Refuse a file of another program, of another kind, or of a format that is not known yet.

    Args:
        attributes: those of the root of the file.
        name: the format wanted.
        newest: the newest version of it that can be read.

    Raises:
        InputError: saying what the file is.
    """
    kind = name.removeprefix("rfdiff ")
    if attributes.get("format") != name:
        raise InputError(f"is not an rfdiff {kind} (attribute format is {attributes.get('format')!r}, expected {name!r})")
    version = attributes.get("format_version")
    if not isinstance(version, int):
        raise InputError(f"format_version is {version!r}; allowed: an integer")
    if version > newest:
        raise InputError(f"has format version {version}, newer than {newest}, the newest this rfdiff reads; upgrade rfdiff")


def check_metadata(entries: Mapping[str, Any], reserved: tuple[str, ...]) -> dict[str, Entry]:
    """Entries that a file can hold and give back, numpy's numbers as Python's.

    Raises:
        InputError: an entry that is neither text nor a number, or has a reserved name.
    """
    plain = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in entries.items()}
    for name, value in plain.items():
        if name in reserved or isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"metadata: {name} = {value!r}; allowed: text and numbers, under other names than {', '.join(reserved)}")
    return plain


def _dataset(group: h5netcdf.Group) -> xr.Dataset:
    store = xr.backends.H5NetCDFStore(group)
    return xr.open_dataset(store, mask_and_scale=False, decode_times=False).load()


def _plain(data: xr.Dataset) -> xr.Dataset:
    data.attrs = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in data.attrs.items()}
    return data


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """No fill values; a checksum with every chunk (HDF5 has none for a single number, nor for text)."""
    numeric = variable.dtype.kind in NUMERIC
    return {**({"_FillValue": None} if numeric else {}), **({"fletcher32": True} if numeric and variable.size and variable.ndim else {})}
