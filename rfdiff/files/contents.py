"""What the file of each command holds, checked before tables and figures are made of it: one check for every kind of file.

The seal of a file (`seal`) knows what it was written with. Files of earlier versions have none, and one that another program wrote again
has lost it: they are judged by what their kind must hold.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from rfdiff.class_times import TIME_NAMES
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import load_dataset
from rfdiff.labels import NUMERIC, Label, attribute_of, values_of
from rfdiff.problem import classes_of_record
from rfdiff.rules import RULES

Dims = tuple[str, ...]
AXES = "*"  # stands for the axes that attributes of the file name
BEFORE = "…"  # any words may come before the others
TEXT = ("quantity", "bulk", "parameter", "setting", "source", "solver", "set", "reading", "status", "diagnosis")  # variables of words


@dataclass(frozen=True)
class Content:
    """Variables with their axes, attributes with their types, and the words along axes that have names.

    Args:
        variables: what must be there; a single asterisk stands for the axes that attributes name.
        attributes: the same of the file.
        words: what an axis must hold.
        axes: attributes that name axes, one each or several with commas between them; each axis is a variable itself.
        older: names in files of earlier versions, by the names of today.
        parts: of which each is there as a whole or not at all.
    """

    variables: Mapping[str, Dims]
    attributes: Mapping[str, type[Any]] = field(default_factory=dict)
    words: Mapping[str, Dims] = field(default_factory=dict)
    axes: Dims = ()
    older: Mapping[str, str] = field(default_factory=dict)
    parts: "tuple[Content, ...]" = ()


def _alike(names: str, *dims: str) -> dict[str, Dims]:
    """Variables with the same axes, their names with spaces between them."""
    return dict.fromkeys(names.split(), dims)


THEORY, NETWORKS, SERIES = "theory", (AXES, "solver", "d"), "_per_seed"
SWEPT_LOSSES = ("train_loss", "test_loss", "score_error")
SWEPT_THEORY = Content(
    {
        **_alike(" ".join(f"theory_{name}" for name in SWEPT_LOSSES), AXES, "time", "class"),
        "theory_class_time": (AXES, "quantity", "class"),
        **_alike("theory_status theory_diagnosis", AXES),
    }
)
SWEPT_NETWORKS = Content(
    {
        **_alike(" ".join(f"{name} {name}_stderr" for name in SWEPT_LOSSES), *NETWORKS, "time", "class"),
        **_alike("class_time class_time_stderr", *NETWORKS, "quantity", "class"),
        **_alike("status diagnosis", *NETWORKS, "seed"),
        **{name: (name,) for name in ("solver", "d", "seed")},
    }
)
CONTENTS: dict[str, Content] = {
    "phase map": Content(
        {"time": ("quantity", AXES, "class"), **_alike("error_estimate converged", AXES)},
        {"q": float},
        {"quantity": TIME_NAMES},
        axes=("x", "y"),
        older={"converged": "failed"},
    ),
    "class-wise times": Content(
        {
            "time": ("quantity", "class"),
            **_alike("train_loss test_loss", "tau", "class"),
            **_alike("bulk_time bulk_share", "bulk", "class"),
            **_alike("bulk_fastest bulk_slowest", "bulk"),
            "bulk_edges": ("bulk", "edge"),
            "class_density": ("eigenvalue", "class"),
            "interval": ("eigenvalue",),
            "weight": ("class",),
            "separated": (),
            **{name: (name,) for name in ("tau", "eigenvalue")},
        },
        {"q": float, "kappa": float, "error_estimate": float},
        {"quantity": TIME_NAMES, "bulk": ("generalisation", "memorisation"), "edge": ("lower", "upper")},
        parts=(
            Content({"elasticity": ("parameter", "quantity", "class"), "parameter": ("parameter",)}),
            Content(_alike(" ".join(f"{name}_bounds" for name in TIME_NAMES), "class", "bound")),
        ),
    ),
    "design": Content(
        {
            **_alike("goal tau psi_p", "setting"),
            **_alike("score_error loss_weights samples", "setting", "class"),
            **_alike("front_score_error front_loss_weights front_samples", "front", "class"),
            **_alike("front_tau front_psi_p", "front"),
            "error_estimate": (),
        },
        {"what": str, "levers": str, "worst": int, "factor": float},
        {"setting": ("unchanged", "weights", "samples", "best")},
        parts=(
            Content(
                {
                    "simulated": ("tried", "seed", "class"),
                    "predicted": ("tried", "class"),
                    **_alike("difference difference_stderr", "class"),
                },
                {"dimension": int},
            ),
        ),
    ),
    "diagnosis": Content(
        {
            **_alike("samples fraction variance effective_dimension centroid_norm speciation_time", "class"),
            "centroid_angle": ("class", "other"),
            "tau": ("t", "step"),
            **_alike("train_loss test_loss score_error", "t", "step", "class"),
            "optimal_loss": ("t", "class"),
            **_alike("kappa error_estimate", "t"),
            "time": ("t", "quantity", "class"),
            "window": ("t", "class", "edge"),
            "t": ("t",),
        },
        {
            **dict.fromkeys(("d", "main", "num_seeds", "random_seed"), int),
            **dict.fromkeys(("psi_p", "psi_n", "tolerance"), float),
            **dict.fromkeys(("activation", "remedy", "no_remedy", "no_speciation", "preparation"), str),
        },
        {"quantity": TIME_NAMES, "edge": ("first", "last")},
        parts=(
            Content(
                {
                    **_alike("network_train_loss network_test_loss network_score_error", "t", "step", "seed", "class"),
                    **_alike("network_time network_time_stderr", "t", "quantity", "class"),
                    **_alike("network_window network_window_stderr", "t", "class", "edge"),
                }
            ),
        ),
    ),
    "calibration": Content(
        {
            **_alike("steps_per_tau log_error disagreement"),
            **_alike("class_steps_per_tau class_log_error offset scale misfit", "class"),
            **_alike("time steps reached", "quantity", "class"),
            **_alike("step member train held_out", "row"),
            **_alike("train_curve held_out_curve", "curve_step", "class"),
            "curve_step": ("curve_step",),
        },
        {"q": float},
        {"quantity": TIME_NAMES},
        parts=(Content(_alike(" ".join(f"{name}_bounds" for name in TIME_NAMES), "class", "bound")),),
    ),
    "speciation": Content(
        {
            "return_probability": ("time", "class"),
            **_alike("speciation_time well_time weight variance", "class"),
            **_alike("uturn uturn_stderr uturn_theory", "turn_time", "class"),
            **_alike("clone clone_stderr clone_theory", "clone_time", "class"),
            "path": ("trajectory", "path_time", "axis"),
            "path_class": ("trajectory",),
            **{name: (name,) for name in ("time", "turn_time", "clone_time", "path_time")},
        },
        {"d": int, "trajectories": int, "steps": int, "classical_time": float},
    ),
    "generation": Content(
        {
            **_alike("counts mean_error variance_error", "network", "source", "class"),
            "score_error": ("network", "source", "time", "class"),
            "memorised_interval": ("source", "class", "edge"),
            "tau": ("source",),
            **_alike("weight tau_gen tau_mem", "class"),
            "theory_score_error": ("theory_tau", "class"),
            **{name: (name,) for name in ("time", "theory_tau")},
        },
        {"d": int, "samples": int, "threshold": float, "t": float},
        {"source": (BEFORE, "empirical score", "exact score"), "edge": ("fraction", "lower", "upper")},
        parts=(Content(_alike(" ".join(f"{name}_bounds" for name in TIME_NAMES), "class", "bound")),),
    ),
    "sweep": Content(
        {"tau": (AXES, "time")},
        {"axes": str, "specification": str, "cells": int, "done": int, "failed": int, "missing": int, "skipped": int, "q": float},
        {"quantity": (*TIME_NAMES, "best_test_loss")},
        axes=("axes",),
        parts=(SWEPT_THEORY, SWEPT_NETWORKS),
    ),
    "U-Net on images": Content(
        {
            "mean_loss": ("step", "set", "class"),
            "gap": ("step", "class"),
            "time": ("reading", "class"),
            "count": ("class",),
            "step": ("step",),
        },
        {},
        {"set": ("train", "held_out"), "reading": ("tau_gen", "tau_stop", "tau_mem", "tau_copy")},
        parts=(
            Content({"time_bounds": ("curve_reading", "class", "bound")}, words={"curve_reading": ("tau_gen", "tau_stop", "tau_mem")}),
            Content(
                {
                    **_alike("frechet floor fraction memorised low high", "checkpoint", "class"),
                    "grid": ("checkpoint", "class", "kind", "place", "row", "column"),
                    "checkpoint": ("checkpoint",),
                },
                {"accuracy": float},
            ),
        ),
    ),
}


def load_content(path: str | Path, content: str) -> xr.Dataset:
    """The dataset in the file of a command, after checking that it holds what its tables and figures take.

    Args:
        path: the file.
        content: its attribute of that name, one of `CONTENTS`.

    Raises:
        InputError: as `load_dataset`; or a variable, attribute or word along an axis that is missing or of another kind. The message
            names the file.
    """
    data = load_dataset(path)
    try:
        require_content(data, content)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    return data


def require_content(data: xr.Dataset, content: str) -> None:
    """Refuse a dataset that lacks something of its kind.

    Raises:
        InputError: naming the variable or attribute.
    """
    kind = CONTENTS[content]
    named = [str(name) for attribute in kind.axes for name in attribute_of(data.attrs, attribute, str).split(", ")]
    for name in named:
        _require_variable(data, name, (name,))
    if content == "phase map":
        for name in named:
            if "spacing" not in data[name].attrs:
                raise InputError(f"variable {name} has no attribute 'spacing'")
    parts = [part for part in kind.parts if any(name in data.variables for name in part.variables)]
    if content == "sweep":
        parts = _swept(attribute_of(data.attrs, "specification", str))
    for part in (kind, *parts):
        for attribute, of in part.attributes.items():
            attribute_of(data.attrs, attribute, of)
        for name, dims in part.variables.items():
            older = part.older.get(name, name)
            wanted = tuple(axis for dim in dims for axis in (named if dim == AXES else [dim]))
            _require_variable(data, older if older in data.variables and name not in data.variables else name, wanted)
        for axis, words in part.words.items():
            _require_words(data, axis, words)
    if "class" not in data.sizes:
        raise InputError("the file has no axis 'class'")
    _check_words_of_attributes(data)


def _swept(specification: str) -> list[Content]:
    """The parts of a collected sweep: theory, networks, or both, as its specification asks for."""
    try:
        solvers = list(tomllib.loads(specification)["solvers"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as err:
        raise InputError(f"attribute 'specification' of the file is not that of a sweep ({err})") from err
    return [SWEPT_THEORY] * (THEORY in solvers) + [SWEPT_NETWORKS] * any(name != THEORY for name in solvers)


def _require_variable(data: xr.Dataset, name: str, dims: Dims) -> None:
    if name.removeprefix("theory_") not in TEXT:
        values_of(data, {name: Label(dims, "")})
    elif name not in data.variables:
        raise InputError(f"the file has no variable {name!r}")
    elif data.variables[name].dims != dims or data.variables[name].dtype.kind in NUMERIC:
        raise InputError(f"variable {name} has dimensions {data.variables[name].dims}, expected words along {dims}")


def _require_words(data: xr.Dataset, axis: str, words: Dims) -> None:
    if axis not in data.variables:
        raise InputError(f"the file has no variable {axis!r}")
    found, wanted = [str(word) for word in data.variables[axis].values.ravel()], [word for word in words if word != BEFORE]
    if (found[-len(wanted) :] if words[0] == BEFORE else found) != wanted:
        raise InputError(f"variable {axis} holds {', '.join(found)}; expected {', '.join(wanted)}")


def _check_words_of_attributes(data: xr.Dataset) -> None:
    """Refuse a problem that cannot be read or has other classes, and an unknown training rule, where the file names them."""
    if "problem" in data.attrs:
        count = classes_of_record(attribute_of(data.attrs, "problem", str))
        if count != data.sizes["class"]:
            raise InputError(f"the file has {data.sizes['class']} classes, its problem has {count}")
    if "rule" in data.attrs and data.attrs["rule"] not in RULES:
        raise InputError(f"attribute 'rule' of the file is {data.attrs['rule']!r}; allowed: {', '.join(RULES)}")
