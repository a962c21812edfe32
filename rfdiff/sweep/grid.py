"""The problems of a sweep: a grid over numbers of one problem, or a list."""

import itertools
from typing import Any

import numpy as np

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.problem_file import check_keys
from rfdiff.sweep.refusals import is_integer, named, one_of
from rfdiff.theory.maps import problem_at
from rfdiff.value_types import as_number, as_real_array

MOST_PROBLEMS = 100_000
RANGE_KEYS = ("from", "to", "num", "scale")
LIST_KEYS = ("values", "scale")
SCALES = ("log", "linear")
LIST_AXIS = "problem"  # the axis of a list of problems: their numbers


def problems_of(document: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str], tuple[Problem, ...]]:
    """Axes, how each is drawn, and the problem at every point of the grid (the last axis fastest), or those of the list.

    Args:
        document: with [problem] and, unless it is alone, [axes]; or with [[problems]].

    Raises:
        InputError: naming the axis, the value or the problem.
    """
    if ("problem" in document) == ("problems" in document):
        raise InputError("sweep: give either a table [problem], with [axes] to vary it, or a list [[problems]], not both or neither")
    if "problems" in document:
        if "axes" in document:
            raise InputError("axes: given beside a list of problems; allowed: with one [problem]")
        return _listed(document["problems"])
    if not isinstance(document["problem"], dict):
        raise InputError(f"problem: {document['problem']!r}; allowed: a table [problem]")
    base, tables = named("problem", Problem.from_dict, document["problem"]), document.get("axes", {})
    if not isinstance(tables, dict):
        raise InputError(f"axes: {tables!r}; allowed: a table [axes]")
    if not tables:
        return _listed([document["problem"]])
    read = {name: _axis(name, values) for name, values in tables.items()}
    axes = {name: values for name, (values, _) in read.items()}
    if np.prod([len(values) for values in axes.values()], dtype=float) > MOST_PROBLEMS:
        raise InputError(f"axes: {' x '.join(str(len(v)) for v in axes.values())} problems; allowed: at most {MOST_PROBLEMS}")
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    where = [", ".join(f"{name} = {value:g}" for name, value in point.items()) for point in points]
    found = tuple(named(f"axes: {text}", problem_at, base, point) for text, point in zip(where, points, strict=True))
    return axes, {name: scale for name, (_, scale) in read.items()}, found


def _listed(tables: object) -> tuple[dict[str, np.ndarray], dict[str, str], tuple[Problem, ...]]:
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"problems: {tables!r}; allowed: a list of tables [[problems]]")
    found = tuple(named(f"problems: {i}", Problem.from_dict, table) for i, table in enumerate(tables))
    if len({problem.num_classes for problem in found}) > 1:
        raise InputError(f"problems: of {[problem.num_classes for problem in found]} classes; allowed: all of the same number")
    return {LIST_AXIS: np.arange(len(found))}, {LIST_AXIS: "linear"}, found


def _axis(name: str, given: object) -> tuple[np.ndarray, str]:
    """Values of an axis, from a list or from a range, and how it is drawn."""
    if isinstance(given, dict):
        if "values" in given:
            check_keys(f"axes: {name}", given, LIST_KEYS)
            values, found = _axis(name, given["values"])
            return values, one_of(f"axes: {name}: scale", given.get("scale", found), SCALES)
        check_keys(f"axes: {name}", given, RANGE_KEYS, RANGE_KEYS[:3])
        spacing = one_of(f"axes: {name}: scale", given.get("scale", "linear"), SCALES)
        low, high = as_number(given["from"]), as_number(given["to"])
        if not 0 < low < high < np.inf:
            raise InputError(f"axes: {name}: from {given['from']!r} to {given['to']!r}; allowed: 0 < from < to < inf")
        if not is_integer(given["num"], 2, MOST_PROBLEMS):
            raise InputError(f"axes: {name}: num = {given['num']!r}; allowed: an integer from 2 to {MOST_PROBLEMS}")
        return (np.geomspace if spacing == "log" else np.linspace)(low, high, given["num"]), spacing
    values = as_real_array(f"axes: {name}", given)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)) or len(np.unique(values)) < values.size:
        raise InputError(
            f"axes: {name}: {given!r}; allowed: a list of distinct finite numbers, {{values, scale}} or {{from, to, num, scale}}"
        )
    ordered = np.sort(values)
    even = values.size > 2 and ordered[0] > 0 and np.allclose(ordered[1:] / ordered[:-1], ordered[1] / ordered[0])
    return values, "log" if even else "linear"
