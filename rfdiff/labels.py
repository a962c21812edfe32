"""What the arrays of a result mean: dimensions, words and units of each field, from which xarray datasets and files are made.

A result type states its labels once. `to_xarray` attaches them, `from_xarray` checks a dataset against them, so that a result file is
validated by the type that it holds.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from rfdiff.errors import InputError
from rfdiff.value_types import Value

if TYPE_CHECKING:
    import xarray as xr

NUMERIC = "biufc"  # kinds of numpy arrays: truth values, integers, floating and complex numbers
CLASS_AXIS = {"long_name": "class of the mixture, in the order of its weights", "units": "1"}


OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # safe for colour-blind readers
Color = str | tuple[float, float, float]

T = TypeVar("T", str, int, float, bool)


@dataclasses.dataclass(frozen=True)
class Label:
    """How a field of a result is named in a dataset.

    Args:
        dims: names of its axes.
        long_name: what it is, in words.
        units: "1" for pure numbers.
        variable: its name in the dataset; "" for the name of the field.
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"
    variable: str = ""


class Labelled(Value):
    """A value type whose arrays are labelled by `LABELS`; its static fields become attributes of the dataset."""

    LABELS: ClassVar[Mapping[str, Label]] = {}
    RESTORABLE: ClassVar[bool] = True  # whether `from_xarray` gives the value back; a file of another type is read as a dataset

    def to_xarray(self) -> "xr.Dataset":
        """The arrays as an `xarray.Dataset` with named axes, `long_name` and `units`, in float64 and integers as they are."""
        return labelled_dataset(fields_of(self, self.LABELS), self.LABELS, static_attributes(self))

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The value in a dataset that `to_xarray` made.

        Args:
            data: the dataset.
            where: what the dataset is (a group of a file), for messages.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        return cls(**values_of(data, cls.LABELS, where), **read_attributes(cls, data.attrs, where))

    def _repr_html_(self) -> str:
        """What a notebook shows: the dataset, foldable."""
        return str(self.to_xarray()._repr_html_())


def fields_of(value: object, labels: Mapping[str, Label]) -> dict[str, Any]:
    """The labelled fields of a value by name."""
    return {name: getattr(value, name) for name in labels}


def labelled_dataset(arrays: Mapping[str, Any], labels: Mapping[str, Label], attributes: Mapping[str, Any] | None = None) -> "xr.Dataset":
    """Arrays by name as a dataset with the axes and texts of their labels; None is left out, classes are numbered from 0."""
    variables = {
        label.variable or name: (label.dims, np.asarray(item), {"long_name": label.long_name, "units": label.units})
        for name, label in labels.items()
        if (item := arrays[name]) is not None
    }
    data = as_dataset(variables, {}, attributes or {})
    return data.assign_coords({"class": ("class", np.arange(data.sizes["class"]), CLASS_AXIS)}) if "class" in data.dims else data


def as_dataset(variables: Mapping[str, Any], coordinates: Mapping[str, Any], attributes: Mapping[str, Any]) -> "xr.Dataset":
    """`xarray.Dataset(variables, coordinates, attributes)`, for modules that are imported by those who never ask for one."""
    import xarray as xr

    return xr.Dataset(variables, coordinates, dict(attributes))


def values_of(data: "xr.Dataset", labels: Mapping[str, Label], where: str = "", optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arrays (and numbers, for fields without axes) of a dataset by field name.

    Args:
        data: the dataset.
        labels: labels of the fields.
        where: what the dataset is, for messages.
        optional: fields that may be missing; they are left out.

    Raises:
        InputError: a variable is missing, is not of numbers, or has other axes.
    """
    group, inside, values = (f"group {where}" if where else "the file"), (f"{where}/" if where else ""), {}
    for name, label in labels.items():
        variable = label.variable or name
        if variable not in data.variables:
            if name in optional:
                continue
            raise InputError(f"{group} has no variable {variable!r}")
        found = data.variables[variable]
        if found.dims != label.dims:
            raise InputError(f"variable {inside}{variable} has dimensions {found.dims}, expected {label.dims}")
        if found.dtype.kind not in NUMERIC:
            raise InputError(f"variable {inside}{variable} is of type {found.dtype}; allowed: numbers")
        array = np.array(found.values)
        values[name] = array.item() if array.ndim == 0 else array
    return values


def static_attributes(value: object) -> dict[str, Any]:
    """Static fields of a value type that are not None, as attributes of a dataset; truth values as 0 and 1, which NetCDF can hold."""
    fields = [field.name for field in dataclasses.fields(value) if field.metadata.get("static")]  # type: ignore[arg-type]
    given = {name: getattr(value, name) for name in fields}
    return {name: int(item) if isinstance(item, bool) else item for name, item in given.items() if item is not None}


def read_attributes(cls: type, attributes: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Static fields of a value type from the attributes of a dataset, each in its declared type.

    Raises:
        InputError: an attribute is missing that has no None for a value, or is of another type.
    """
    hints, found = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        if not field.metadata.get("static"):
            continue
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        if field.name in attributes or type(None) not in kinds:
            found[field.name] = attribute_of(attributes, field.name, next(k for k in kinds if k is not type(None)), where)
    return found


def attribute_of(attributes: Mapping[str, Any], name: str, kind: type[T], where: str = "") -> T:
    """An attribute of a dataset as text, number or truth value.

    Args:
        attributes: those of the dataset.
        name: the name.
        kind: `str`, `int`, `float` or `bool`.
        where: what the dataset is, for messages.

    Raises:
        InputError: it is missing, or of another type.
    """
    group = f"group {where}" if where else "the file"
    if name not in attributes:
        raise InputError(f"{group} has no attribute {name!r}")
    value = attributes[name]
    value = value.item() if isinstance(value, np.generic) else value
    good = isinstance(value, str) if kind is str else isinstance(value, int | float) and (kind is float or value == int(value))
    if not good:
        raise InputError(f"attribute {name!r} of {group} is {value!r}; allowed: {'text' if kind is str else 'a number'}")
    return kind(value)


def class_colors(num_classes: int) -> list[Color]:
    """One colour a class: Okabe-Ito up to its seven, evenly spaced from blue to dull yellow beyond."""
    if num_classes <= len(OKABE_ITO):
        return list(OKABE_ITO[:num_classes])
    shades = [float(shade) for shade in np.linspace(0.0, 0.85, num_classes)]
    return [(0.9 * s, 0.25 + 0.6 * s, 0.75 - 0.5 * s) for s in shades]
