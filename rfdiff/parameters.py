"""Numbers of a problem by name: what maps, sensitivities and sweeps vary.

Each name sets one physical quantity and says what stays fixed. Setters are made of plain arithmetic, so a value may be traced.
"""

import dataclasses
import re
from typing import Any, cast

import jax
import numpy as np

from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.value_types import Scalar, is_concrete

NAMES: dict[str, str] = {
    "t": "diffusion time; the mixture, psi_p and psi_n stay",
    "psi_p": "features per dimension; psi_n stays",
    "psi_n": "training samples per dimension; psi_p stays",
    "weight_C": "fraction of class C; the other classes keep their proportions, and all variances and centroids stay",
    "samples_C": "training samples of class C per dimension; the other classes keep theirs, so psi_n and all fractions move",
    "loss_weight_C": "weight of class C in the training loss; the others keep their proportions there (if all 0, those of the fractions)",
    "variance_C": "variance of class C; its covariance is scaled, the other classes stay",
    "variance_ratio": "variance of class 0 over that of class 1; class 1 stays, the covariance of class 0 is scaled",
    "centroid_norm_C": "squared norm of the centroid of class C over d; its direction and the other centroids stay",
}
SHORT = "t, psi_p, psi_n, weight_C, samples_C, loss_weight_C, variance_C, variance_ratio, centroid_norm_C with C the number of a class"
OF_SEVERAL = ("weight", "samples", "loss_weight")  # which say nothing of a single class


def meaning(name: str) -> str:
    """What a name stands for and what stays fixed when it varies, as one line of text.

    Args:
        name: one of `NAMES`, with the number of a class for C.

    Raises:
        InputError: no such name.
    """
    general = re.sub(r"_\d+$", "_C", name)
    if general not in NAMES:
        raise InputError(f"parameter: {name!r}; allowed: {SHORT}")
    return NAMES[general].replace("class C", f"class {name.rpartition('_')[2]}")


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
    if kind == "samples":
        return cast(float, problem.psi_n * law.weights[c])
    if kind == "loss_weight":
        return cast(float, problem.training_weights[c])
    if kind == "centroid_norm":
        return law.centroid_gram[c, c]
    return law.variances[0] / law.variances[1] if kind == "variance_ratio" else law.variances[c]


def set_parameter(problem: Problem, name: str, value: float | jax.Array) -> Problem:
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
        number: dict[str, Any] = {kind: value}
        return dataclasses.replace(problem, **number)
    law = problem.mixture
    unit = np.eye(problem.num_classes)[c]
    if kind == "samples":
        samples = (1 - unit) * problem.psi_n * law.weights + unit * value
        moved = dataclasses.replace(law, weights=samples / samples.sum())
        return dataclasses.replace(problem, mixture=moved, psi_n=samples.sum())
    if kind == "loss_weight":
        weights = problem.training_weights
        if is_concrete(weights) and weights[c] == 1:
            weights = law.weights
        others = (1 - unit) * weights / (1 - weights[c])
        return dataclasses.replace(problem, loss_weights=unit * value + others * (1 - value))
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
    """Every name that applies to a problem and whose value can be scaled, except ratios (which repeat others).

    Names of the loss weights come after those that move the class fractions, which the weights follow where `loss_weights` is None: so
    set one after the other, each keeps fixed what it says.
    """
    law, classes = problem.mixture, range(problem.num_classes)
    names = ["t", "psi_p", "psi_n"]
    if problem.num_classes > 1:
        weights = problem.training_weights
        names += [f"weight_{c}" for c in classes] + [f"samples_{c}" for c in classes]
        names += [f"loss_weight_{c}" for c in classes if 0 < weights[c] < 1]
    names += [f"variance_{c}" for c in classes if law.variances[c] > 0]
    return names + [f"centroid_norm_{c}" for c in classes if law.centroid_gram[c, c] > 0]


def _split(problem: Problem, name: str) -> tuple[str, int]:
    if name in ("t", "psi_p", "psi_n"):
        return name, 0
    if name == "variance_ratio" and problem.num_classes >= 2:
        return name, 0
    match = re.fullmatch(r"(weight|samples|loss_weight|variance|centroid_norm)_(\d+)", name)
    if not match:
        raise InputError(f"parameter: {name!r}; allowed: {SHORT}")
    c = int(match[2])
    if c >= problem.num_classes or (match[1] in OF_SEVERAL and problem.num_classes == 1):
        raise InputError(f"parameter: {name!r} of a problem with {problem.num_classes} classes; allowed: {SHORT}, numbered from 0")
    return match[1], c


def _scalable(name: str, present: Scalar) -> Scalar:
    if is_concrete(present) and not present > 0:
        raise InputError(f"parameter: {name} is {float(present):g} in the problem and cannot be scaled; allowed: a problem where it is > 0")
    return present


def _with(problem: Problem, **fields: Any) -> Problem:
    law: MixtureLaw = dataclasses.replace(problem.mixture, **fields)
    return problem.with_mixture(law)
