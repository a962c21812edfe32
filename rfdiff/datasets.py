"""Labelled arrays on disk: any xarray Dataset as one NetCDF file that describes itself, written whole or not at all.

`store` writes what one command computed of one problem; this is for everything else: maps over parameters, experiments, sweeps.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff._files import replacing
from rfdiff.store import provenance

FORMAT = "rfdiff dataset"
FORMAT_VERSION = 1


def save_dataset(dataset: xr.Dataset, path: str | Path, **metadata: Any) -> Path:
    """Write a dataset with its provenance (versions, device, date) as one NetCDF file; an existing file is replaced only by a whole one.

    Args:
        dataset: variables with named dimensions; give each `long_name` and `units` attributes.
        path: the file, customarily ending in .nc.
        metadata: text and numbers about the run, kept as attributes.

    Returns:
        The path.

    Raises:
        ValueError: a metadata entry that is neither text nor a number.
        OSError: the file cannot be written.
    """
    for name, value in metadata.items():
        if name in ("format", "format_version") or isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"metadata: {name} = {value!r}; allowed: text and numbers, under other names than format and format_version")
    path = Path(path)
    labelled = dataset.assign_attrs({**dataset.attrs, "format": FORMAT, "format_version": FORMAT_VERSION, **provenance(**metadata)})
    encoding = {
        str(name): {"_FillValue": None, **({"fletcher32": True} if variable.size and variable.ndim and variable.dtype.kind in "fiub" else {})}
        for name, variable in labelled.variables.items()
    }
    with replacing(path) as temporary:
        labelled.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
    return path


def load_dataset(path: str | Path) -> xr.Dataset:
    """Read a dataset back, every number as it was.

    Args:
        path: a file that `save_dataset` wrote.

    Raises:
        ValueError: missing, unreadable, truncated or foreign file, or one of a newer format; the message names the file and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as opened:
            data = opened.load()
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as err:  # whatever HDF5, h5netcdf and xarray say of a damaged file
        reason = "is truncated" if "truncated" in str(err) else f"cannot be read as a NetCDF file ({(str(err).splitlines() or [''])[0]})"
        raise ValueError(f"{path}: {reason}") from err
    if data.attrs.get("format") != FORMAT:
        raise ValueError(f"{path}: is not an rfdiff dataset (attribute format is {data.attrs.get('format')!r}, expected {FORMAT!r})")
    version = data.attrs.get("format_version")
    if not isinstance(version, int | np.integer) or version > FORMAT_VERSION:
        raise ValueError(f"{path}: has format version {version!r}; allowed: integers up to {FORMAT_VERSION}; upgrade rfdiff")
    return data
