"""Labelled arrays on disk (maps, times, experiments): one checksummed NetCDF file, written whole or not at all, readable with xarray alone.

A result of theory and simulation has a format of its own in `result_file`; this one takes any `xarray.Dataset` of numbers, truth values
and text. Its attribute `content` says what it holds, and with it which variables and attributes it must have (`Schema`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from rfdiff.errors import InputError
from rfdiff.files import netcdf
from rfdiff.files.provenance import Entry, provenance

FORMAT = "rfdiff dataset"
FORMAT_VERSION = 1
RESERVED = ("format", "format_version")
STORABLE = "biufUO"  # kinds of numpy arrays: truth values, integers, floating numbers, text
TEXT = "UO"


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a file of some content must hold.

    Args:
        content: its attribute content.
        variables: {name: dims} of the variables it must have, of numbers unless named in `text`; dims None where they vary.
        attributes: {name: type} of the attributes it must have, `str`, `int` or `float` (which takes integers too).
        text: names of the variables that hold text.
    """

    content: str
    variables: Mapping[str, tuple[str, ...] | None]
    attributes: Mapping[str, type] = dataclasses.field(default_factory=dict)
    text: tuple[str, ...] = ()

    def check(self, data: xr.Dataset) -> None:
        """Refuse a dataset that is not of this content.

        Raises:
            InputError: naming the variable or attribute that is missing or of another kind.
        """
        if data.attrs.get("content") != self.content:
            raise InputError(f"holds {data.attrs.get('content')!r}, not {self.content!r}")
        for name, dims in self.variables.items():
            if name not in data.variables:
                raise InputError(f"has no variable {name!r}")
            found = data.variables[name]
            if dims is not None and found.dims != dims:
                raise InputError(f"variable {name} has dimensions {found.dims}, expected {dims}")
            if (found.dtype.kind in TEXT) != (name in self.text):
                raise InputError(f"variable {name} is of type {found.dtype}; allowed: {'text' if name in self.text else 'numbers'}")
        for name, kind in self.attributes.items():
            if name not in data.attrs:
                raise InputError(f"has no attribute {name!r}")
            if not isinstance(data.attrs[name], int | float if kind is float else kind):
                expected = "text" if kind is str else "a number"
                raise InputError(f"attribute {name} is {data.attrs[name]!r}; allowed: {expected}")


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
    return netcdf.write({"/": whole.set_coords(list(dataset.coords))}, path)


def load_dataset(path: str | Path, schema: Schema | None = None) -> xr.Dataset:
    """Read a dataset back, every number as it was; its attributes hold the provenance and the metadata.

    Args:
        path: a file that `save_dataset` wrote; ~ stands for the home folder.
        schema: what it must hold, or None for anything.

    Raises:
        InputError: missing, unreadable, truncated or foreign file, one of a newer format, or one without what it must hold; the message
            names the file and the fault.

    Reference: tests/files/test_dataset_file.py.
    """
    data = netcdf.read(path)["/"]
    try:
        netcdf.check_format(data.attrs, FORMAT, FORMAT_VERSION)
        if schema is not None:
            schema.check(data)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    data.attrs = {name: value for name, value in data.attrs.items() if name not in RESERVED}
    return data


def content_of(path: str | Path) -> str | None:
    """What a file that `save_dataset` wrote says it holds (its attribute content, "" without one); None if it is no such file.

    A file that is no such file, or cannot be read, is for its own reader to refuse.
    """
    if netcdf.attribute_of(path, "format") != FORMAT:
        return None
    content: Any = netcdf.attribute_of(path, "content")
    return "" if content is None else str(content)
