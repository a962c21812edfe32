"""What a file held when it was written: names and axes of everything in it, and a checksum, stored as two attributes of its root.

HDF5 checks the chunks of arrays alone. The seal covers attributes, text and single numbers too, and it knows what is missing: one check
for every kind of file, present and future, with nothing to keep in step. Files of earlier versions have no seal and are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.errors import InputError

LAYOUT, CHECKSUM = "layout", "checksum"
SEAL = (LAYOUT, CHECKSUM)
TEXT = "text"


def sealed(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The groups of a file, whose root carries the seal."""
    root = groups["/"].assign_attrs({LAYOUT: json.dumps(_layout(groups)), CHECKSUM: _checksum(groups)})
    return {**groups, "/": root}


def check_layout(groups: Mapping[str, xr.Dataset]) -> None:
    """Refuse a file that lacks something it was written with, or holds it in another shape.

    Raises:
        InputError: naming the group, variable or attribute.
    """
    if LAYOUT not in groups["/"].attrs:
        return
    try:
        written, found = json.loads(groups["/"].attrs[LAYOUT]), _layout(groups)
        for group, expected in written.items():
            where, inside = ("the file", "") if group == "/" else (f"group {group}", f"{group}/")
            if group not in found:
                raise InputError(f"has no group {group!r}")
            for name in expected["attributes"]:
                if name not in found[group]["attributes"]:
                    raise InputError(f"{where} has no attribute {name!r}")
            for name, (dims, kind, attributes) in expected["variables"].items():
                if name not in found[group]["variables"]:
                    raise InputError(f"{where} has no variable {name!r}")
                _compare(f"variable {inside}{name}", [dims, kind, attributes], found[group]["variables"][name])
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError, RecursionError, UnicodeError) as err:
        raise InputError(f"is damaged (attribute {LAYOUT} cannot be read)") from err


def check_content(groups: Mapping[str, xr.Dataset]) -> None:
    """Refuse a file of which anything was changed after it was written.

    Raises:
        InputError: the checksum is another.
    """
    stored = groups["/"].attrs.get(CHECKSUM)
    if stored is not None and stored != _checksum(groups):
        raise InputError("is damaged, or was changed after it was written (its checksum differs)")


def _compare(where: str, expected: list[Any], found: list[Any]) -> None:
    if found[0] != expected[0]:
        raise InputError(f"{where} has dimensions {tuple(found[0])}, expected {tuple(expected[0])}")
    if found[1] != expected[1]:
        raise InputError(f"{where} is of kind {found[1]}, expected {expected[1]}")
    missing = sorted(set(expected[2]) - set(found[2]))
    if missing:
        raise InputError(f"{where} has no attribute {missing[0]!r}")


def _layout(groups: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Names of the attributes of each group, and axes, kind and attributes of its variables."""
    return {
        group: {
            "attributes": sorted(str(name) for name in data.attrs if name not in SEAL),
            "variables": {
                str(name): [list(map(str, variable.dims)), _kind(variable), sorted(map(str, variable.attrs))]
                for name, variable in sorted(data.variables.items(), key=lambda item: str(item[0]))
            },
        }
        for group, data in sorted(groups.items())
    }


def _kind(variable: xr.Variable) -> str:
    return {"b": "truth value", "i": "integer", "u": "integer", "f": "number"}.get(variable.dtype.kind, TEXT)


def _checksum(groups: Mapping[str, xr.Dataset]) -> str:
    """SHA-256 over everything that the groups hold, in a fixed order and form."""
    digest = hashlib.sha256()
    for group, data in sorted(groups.items()):
        digest.update(f"group {group} {_attributes(data.attrs)}".encode())
        for name, variable in sorted(data.variables.items(), key=lambda item: str(item[0])):
            digest.update(f"variable {name} {variable.dims} {variable.shape} {_kind(variable)} {_attributes(variable.attrs)}".encode())
            digest.update(_bytes(variable))
    return digest.hexdigest()


def _attributes(attributes: Mapping[Any, Any]) -> str:
    plain = {str(name): np.asarray(value).tolist() for name, value in attributes.items() if name not in SEAL}
    return json.dumps(plain, sort_keys=True, default=str)


def _bytes(variable: xr.Variable) -> bytes:
    values = np.asarray(variable.values)
    if _kind(variable) == TEXT:
        return "\0".join(str(value) for value in values.ravel()).encode(errors="surrogatepass")
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
