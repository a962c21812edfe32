"""Numbers of a problem by name: what maps, sensitivities and sweeps vary.

Each name sets one physical quantity and says what stays fixed. Setters are made of plain arithmetic, so a value may be traced.
"""

import dataclasses
import re
from typing import Any

import numpy as np

from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.value_types import is_concrete

NAMES: dict[str, str] = {
    "t": "diffusion time",
    "psi_p": "features per dimension",
    "psi_n": "training samples per dimension",
    "weight_C": "fraction of class C; the other classes keep their proportions",
    "variance_C": "variance of class C; its covariance is scaled",
    "variance_ratio": "variance of class 0 over that of class 1, which stays; the covariance of class 0 is scaled",
    "centroid_norm_C": "squared norm of the centroid of class C over d; its directions stay",
}
SHORT = "t, psi_p, psi_n, weight_C, variance_C, variance_ratio, centroid_norm_C with C the number of a class"


def get_parameter(problem: Problem, name: str) -> float:
    """Value of a number of a problem by its name.

    Args:
        problem: the problem, K classes.
        name: one of `NAMES`, with the number of a class for C.

    Raises:
        InputError: no such name, or a class that the problem does not have.
    """
    kind, c = _split(problem, name)
    law = problem.mixture
    if kind in ("t", "psi_p", "psi_n"):
        return getattr(problem, kind)
    if kind == "weight":
        return law.weights[c]
    if kind == "centroid_norm":
        return law.centroid_gram[c, c]
    return law.variances[0] / law.variances[1] if kind == "variance_ratio" else law.variances[c]


def set_parameter(problem: Problem, name: str, value: Any) -> Problem:
    """The problem with one number replaced, everything else fixed as `NAMES` says.

    Args:
        problem: the problem, K classes.
        name: one of `NAMES`, with the number of a class for C.
        value: the new value; it may be traced.

    Returns:
        A new `Problem`, validated if its numbers are concrete.

    Raises:
        InputError: no such name or class; a value out of range; a variance or centroid that is 0 and cannot be scaled.
    """
    kind, c = _split(problem, name)
    if kind in ("t", "psi_p", "psi_n"):
        return dataclasses.replace(problem, **{kind: value})
    law = problem.mixture
    unit = np.eye(problem.num_classes)[c]
    if kind == "weight":
        rest = (1 - unit) * law.weights / (1 - law.weights[c])
        return _with(problem, weights=unit * value + rest * (1 - value))
    if kind == "centroid_norm":
        factor = (1 - unit) + unit * (value / _scalable(name, law.centroid_gram[c, c])) ** 0.5
        fields = {"centroid_gram": law.centroid_gram * factor[:, None] * factor}
        return _with(problem, **fields, **({} if law.centroids is None else {"centroids": law.centroids * factor[:, None]}))
    target = value * law.variances[1] if kind == "variance_ratio" else value
    factor = (1 - unit) + unit * (target / _scalable(name, law.variances[c]))
    matrices = {} if law.covariances is None else {"covariances": law.covariances * factor[:, None, None]}
    return _with(problem, eigenvalues=law.eigenvalues * factor, **matrices)


def parameter_names(problem: Problem) -> list[str]:
    """Every name that applies to a problem and whose value can be scaled, except ratios (which repeat others)."""
    law, classes = problem.mixture, range(problem.num_classes)
    names = ["t", "psi_p", "psi_n"]
    names += [f"weight_{c}" for c in classes if problem.num_classes > 1]
    names += [f"variance_{c}" for c in classes if law.variances[c] > 0]
    return names + [f"centroid_norm_{c}" for c in classes if law.centroid_gram[c, c] > 0]


def _split(problem: Problem, name: str) -> tuple[str, int]:
    if name in ("t", "psi_p", "psi_n"):
        return name, 0
    if name == "variance_ratio" and problem.num_classes >= 2:
        return name, 0
    match = re.fullmatch(r"(weight|variance|centroid_norm)_(\d+)", name)
    if not match:
        raise InputError(f"parameter: {name!r}; allowed: {SHORT}")
    c = int(match[2])
    if c >= problem.num_classes or (match[1] == "weight" and problem.num_classes == 1):
        raise InputError(f"parameter: {name!r} of a problem with {problem.num_classes} classes; allowed: {SHORT}, numbered from 0")
    return match[1], c


def _scalable(name: str, present: Any) -> Any:
    if is_concrete(present) and not present > 0:
        raise InputError(f"parameter: {name} is {float(present):g} in the problem and cannot be scaled; allowed: a problem where it is > 0")
    return present


def _with(problem: Problem, **fields: Any) -> Problem:
    law: MixtureLaw = dataclasses.replace(problem.mixture, **fields)
    return dataclasses.replace(problem, mixture=law)
