"""The law of a data set, what is diagnosed of it, and what each class is like: spread, effective dimension, centroid."""

import dataclasses
from typing import Any

import numpy as np

from rfdiff.activation import ACTIVATIONS
from rfdiff.covariance_estimates import class_moments
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.value_types import as_integer, as_number

TIMES = (0.01, 0.03, 0.1, 0.3, 1.0)
MOST_TIMES = 20
REMEDIES = ("try", "search", "none")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is diagnosed: the network, the diffusion times, and how much is tried.

    Args:
        activation: of the random features, by name.
        times: diffusion times t, increasing.
        psi_p: features per dimension.
        psi_n: training samples per dimension.
        tolerance: numerical error wanted of a loss.
        num_seeds: networks trained on the data at each t; 0 for none, else at least 2, for standard errors.
        seed: random seed of the networks.
        remedies: how to look for what would help: "try" a few weights and samples of the worst class, "search" as `rfdiff.design` does, or
            "none".

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    activation: str = "tanh"
    times: tuple[float, ...] = TIMES
    psi_p: float = 4.0
    psi_n: float = 1.0
    tolerance: float = 5e-3
    num_seeds: int = 3
    seed: int = 0
    remedies: str = "try"

    def __post_init__(self) -> None:
        times = tuple(as_number(t) for t in self.times)
        if not 1 <= len(times) <= MOST_TIMES or not all(0 < t < np.inf for t in times) or any(np.diff(times) <= 0):
            raise InputError(f"times: {self.times!r}; allowed: 1 to {MOST_TIMES} increasing numbers > 0")
        object.__setattr__(self, "times", times)
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation: {self.activation!r}; allowed: {', '.join(ACTIVATIONS)}")
        if self.num_seeds != 0:
            as_integer("networks", self.num_seeds, 2, why="for a standard error; or 0 for none")
        as_integer("seed", self.seed, 0)
        if self.remedies not in REMEDIES:
            raise InputError(f"remedies: {self.remedies!r}; allowed: {', '.join(REMEDIES)}")

    @property
    def main(self) -> int:
        """Index of the diffusion time that figures and remedies are about: the one nearest 0.1."""
        return int(np.argmin(np.abs(np.log(np.asarray(self.times) / 0.1))))


def fitted_law(samples: Samples) -> MixtureLaw:
    """The Gaussian mixture with the class fractions, means and shrunk covariances (Ledoit and Wolf) of the samples.

    Raises:
        InputError: as `class_moments`; fewer than two classes, between which nothing could be told.
    """
    if samples.num_classes < 2:
        raise InputError(f"data: {samples.num_classes} class; allowed: at least 2, which a diagnosis compares")
    weights, covariances, centroids, _ = class_moments(samples.samples, samples.labels)
    return MixtureLaw.from_covariances(weights, covariances, centroids, class_names=samples.class_names)


def problem_at(law: MixtureLaw, setting: Setting, t: float) -> Problem:
    """The problem of the fitted law at one diffusion time.

    Raises:
        InputError: as `Problem`.
    """
    return Problem(law, setting.activation, t, setting.psi_p, setting.psi_n)


def class_numbers(samples: Samples, law: MixtureLaw) -> dict[str, Any]:
    """Variables of a dataset: samples, fraction, variance tr Σ/d, effective dimension (tr Σ)²/tr Σ², norms and angles of the centroids.

    The centroids are those about the mean of the whole data, Σ_c π_c μ_c.
    """
    covariances = np.asarray(law.covariances)
    trace = np.einsum("cii->c", covariances)
    weights, centroids = np.asarray(law.weights), np.asarray(law.centroids)
    apart = centroids - weights @ centroids
    gram = apart @ apart.T / samples.dimension
    norms = np.sqrt(np.diag(gram))
    cosines = gram / np.maximum(np.outer(norms, norms), 1e-300)
    return {
        "samples": ("class", np.array(samples.counts), {"long_name": "samples of the class"}),
        "fraction": ("class", weights, {"long_name": "class fraction"}),
        "variance": ("class", trace / samples.dimension, {"long_name": "variance of the class per coordinate"}),
        "effective_dimension": (
            "class",
            trace**2 / np.einsum("cij,cij->c", covariances, covariances),
            {"long_name": "effective dimension of the class, (tr S)^2 / tr S^2"},
        ),
        "centroid_norm": ("class", norms, {"long_name": "distance of the class mean from the mean of all data, over sqrt(d)"}),
        "centroid_angle": (
            ("class", "other"),
            np.degrees(np.arccos(np.clip(cosines, -1, 1))),
            {"long_name": "angle between two class means about the mean of all data", "units": "degrees"},
        ),
    }
