"""What the networks of a problem generate along training, as one result with labels."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.generation.runs import REFERENCES, STATISTICS, SampleStatistics
from rfdiff.labels import as_dataset
from rfdiff.memorisation import memorised_fraction
from rfdiff.problem import Problem

if TYPE_CHECKING:
    import xarray as xr


Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]  # axes, values and attributes
CONTENT = "generation"


@dataclass(frozen=True)
class Generation:
    """Statistics of what N networks generate at T training times, with the two reference scores, beside theory's curves.

    Args:
        problem: the problem.
        d: dimension.
        taus: (T,) training times.
        times: (G,) diffusion times of the backward process.
        networks: statistics of each network.
        num_samples: samples of each network and source.
        threshold: of the distance ratio below which a sample is memorised.
        method: scheme of the backward process.
        theory: closed-form curves at the diffusion time of the grid nearest to that of the problem (`nearest_time`), or None.
        theory_times: times of each class in closed form, at the same diffusion time, or None.

    Raises:
        InputError: no network, or networks of other training times.
    """

    problem: Problem
    d: int
    taus: Float[np.ndarray, " T"]
    times: Float[np.ndarray, " G"]
    networks: tuple[SampleStatistics, ...]
    num_samples: int
    threshold: float
    method: str
    theory: LearningCurves | None = None
    theory_times: ClassTimes | None = None

    def __post_init__(self) -> None:
        sources = len(self.taus) + len(REFERENCES)
        if not self.networks or any(len(network.counts) != sources for network in self.networks):
            raise InputError(f"networks: {len(self.networks)} given; allowed: at least one, each with {sources} sources")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the T + 2 sources of samples."""
        return (*(f"tau = {tau:.4g}" for tau in self.taus), *REFERENCES)

    def stacked(self, name: str) -> Float[np.ndarray, "N T+2 ..."]:
        """A field of `SampleStatistics` of all networks."""
        return np.stack([getattr(network, name) for network in self.networks])

    def memorised_fractions(self) -> Float[np.ndarray, "T+2 K 3"]:
        """Memorised fraction of each source and class, and the ends of its 95 % bootstrap interval over networks and samples."""
        counts, memorised = self.stacked("counts"), self.stacked("memorised")
        sources, classes = counts.shape[1:]
        pairs = [[memorised_fraction(counts[:, s, c], memorised[:, s, c]) for c in range(classes)] for s in range(sources)]
        return np.array(pairs)

    def to_xarray(self) -> "xr.Dataset":
        """Everything as a labelled dataset, with the axes network, source, class and time."""
        weights = np.asarray(self.problem.mixture.weights)
        variables: dict[str, Variable] = {
            name: (("network", *label.dims), self.stacked(name), {"long_name": label.long_name}) for name, label in STATISTICS.items()
        }
        variables |= {
            "memorised_interval": (
                ("source", "class", "edge"),
                self.memorised_fractions(),
                {"long_name": "memorised fraction and its 95 % bootstrap interval"},
            ),
            "weight": (("class",), weights, {"long_name": "class fraction"}),
            "tau": (
                ("source",),
                np.append(self.taus, [np.nan] * len(REFERENCES)),
                {"long_name": "training time; NaN for the two reference scores"},
            ),
            **self._theory_variables(),
        }
        coordinates = {"source": list(self.sources), "time": self.times, "class": np.arange(weights.size)}
        coordinates |= {"edge": ["fraction", "lower", "upper"]}
        if self.theory is not None:
            coordinates["theory_tau"] = self.theory.taus
        attributes = {"content": CONTENT, "t": nearest_time(self.times, float(self.problem.t)), "method": self.method}
        attributes |= {"d": self.d, "samples": self.num_samples, "threshold": self.threshold}
        if self.theory_times is not None and self.theory_times.reasons:
            attributes["reasons"] = self.theory_times.to_xarray().attrs["reasons"]
        if self.theory is not None:
            attributes["theory_error"] = float(self.theory.error_estimate)
        return as_dataset(variables, coordinates, attributes)

    def _theory_variables(self) -> dict[str, Variable]:
        """Theory's score error and times, with what bounds them, NaN where there is no theory."""
        unknown = np.full(self.problem.num_classes, np.nan)
        read = (unknown, unknown) if self.theory_times is None else (self.theory_times.tau_gen, self.theory_times.tau_mem)
        bounds = {} if self.theory_times is None else self.theory_times.bounds or {}
        variables: dict[str, Variable] = {
            "tau_gen": (("class",), np.asarray(read[0]), {"long_name": "theory's generalisation time at the attribute t"}),
            "tau_mem": (("class",), np.asarray(read[1]), {"long_name": "theory's memorisation time at the attribute t"}),
            **{f"{name}_bounds": (("class", "bound"), found, {"long_name": f"bounds of {name}"}) for name, found in bounds.items()},
        }
        if self.theory is not None:
            text = {"long_name": "score error in closed form at the attribute t"}
            variables["theory_score_error"] = (("theory_tau", "class"), np.asarray(self.theory.score_error), text)
        return variables


def times_in(dataset: "xr.Dataset") -> ClassTimes:
    """Theory's times in a generation result, with their bounds and reasons; files of earlier versions have neither, and hold two times.

    Raises:
        InputError: a variable is missing, or holds no numbers.
    """
    unknown = np.full(dataset.sizes["class"], np.nan)
    known = {name: dataset[name].values if name in dataset else unknown for name in TIME_NAMES}
    there = {name: (("class", "bound"), dataset[name].values) for name in (f"{time}_bounds" for time in TIME_NAMES) if name in dataset}
    variables = {name: (("class",), values) for name, values in known.items()}
    attributes = {"q": 0.5, **{name: dataset.attrs[name] for name in ("reasons",) if name in dataset.attrs}}
    return ClassTimes.from_xarray(as_dataset({**variables, **there}, {}, attributes))


def nearest_time(times: Float[np.ndarray, " G"], t: float) -> float:
    """The time of a grid that is nearest to t, in the logarithm."""
    return float(times[int(np.argmin(np.abs(np.log(np.asarray(times) / t))))])


def at_nearest_time(problem: Problem, times: Float[np.ndarray, " G"]) -> Problem:
    """The problem at the time of the backward grid nearest its t; theory is evaluated there."""
    return dataclasses.replace(problem, t=nearest_time(times, float(problem.t)))
