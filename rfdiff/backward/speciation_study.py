"""Speciation of one law: the table of the closed forms, and the measurement (U-turns, clones, trajectories)."""

import dataclasses
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import ArrayLike

from rfdiff.backward.cloning import CloneFractions, clones
from rfdiff.backward.estimates import Estimate, return_estimate, speciation_estimate
from rfdiff.backward.isotropic import checked_dimension, has_closed_form
from rfdiff.backward.potential import potential_times
from rfdiff.backward.process import BackwardProcess
from rfdiff.backward.reduction import ReducedMixture
from rfdiff.backward.speciation import classical_time, return_probability, speciation_times
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.backward.uturns import ReturnFractions, uturn
from rfdiff.diffusion import log_snr
from rfdiff.labels import as_dataset
from rfdiff.mixture import MixtureLaw
from rfdiff.progress import Progress, require_progress, within

if TYPE_CHECKING:
    import xarray as xr


CONTENT = "speciation"
SHOWN, AXES = 20, 2  # trajectories of each class that are kept, and most of the axes on which they are
MOST_PATHS = 2000  # trajectories of all coordinates among which those are chosen
BEYOND = 5.0  # from noise: a signal e^{-5} of that at the earliest speciation time is left
TIMES, FEW_TIMES = 161, 41  # of a table; where each takes an estimate, the latter
BEFORE, AFTER, EARLIEST = 1.8, 2.2, 0.04  # reach of the default times around the speciation times
TURN = ("fraction", "stderr", "posterior", "bias_stderr")  # of a U-turn that is kept
Part = Mapping[str, np.ndarray]
Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]  # axes, values and attributes


@dataclass(frozen=True)
class SpeciationTable:
    """Speciation of a law without any trajectory: in closed form, or for classes that are not isotropic as an estimate with its error.

    Args:
        law: the law.
        d: dimension.
        times: (T,) diffusion times.
        return_probability: (T, K) R_c at these times.
        speciation_times: (K,) times at which R_c = (1 + π_c)/2; NaN where it is not reached.
        potential_times: (K,) times at which the well of the class appears; inf if it was always there, NaN if it is never separate.
        classical_time: ½ log of the largest eigenvalue of the covariance of the data.
        return_error: (T, K) errors of R_c; None for isotropic classes, whose log-odds are taken for Gaussian.
        speciation_error: (K,) errors of the speciation times; None for isotropic classes.
    """

    law: MixtureLaw
    d: int
    times: Float[np.ndarray, " T"]
    return_probability: Float[np.ndarray, "T K"]
    speciation_times: Float[np.ndarray, " K"]
    potential_times: Float[np.ndarray, " K"]
    classical_time: float
    return_error: Float[np.ndarray, "T K"] | None = None
    speciation_error: Float[np.ndarray, " K"] | None = None

    def to_xarray(self) -> "xr.Dataset":
        """The table as a labelled dataset with the axes time and class."""
        variables: dict[str, Variable] = {
            "return_probability": (
                ("time", "class"),
                self.return_probability,
                {"long_name": "probability to return to the class, closed form"},
            ),
            "speciation_time": (
                ("class",),
                self.speciation_times,
                {"long_name": "time at which the return probability is (1 + weight)/2"},
            ),
            "well_time": (
                ("class",),
                self.potential_times,
                {"long_name": "time at which the class's well appears; inf: always there, NaN: none"},
            ),
            "weight": (("class",), np.asarray(self.law.weights), {"long_name": "class fraction"}),
            "variance": (("class",), np.asarray(self.law.variances), {"long_name": "class variance"}),
        }
        if self.return_error is not None and self.speciation_error is not None:
            variables["return_error"] = (("time", "class"), self.return_error, {"long_name": "error of return_probability"})
            variables["speciation_error"] = (("class",), self.speciation_error, {"long_name": "error of speciation_time"})
        coordinates = {"time": self.times, "class": np.arange(self.law.num_classes)}
        return as_dataset(variables, coordinates, {"content": CONTENT, "d": self.d, "classical_time": self.classical_time})


@dataclass(frozen=True)
class BackwardPaths:
    """Trajectories of the backward process on a few axes.

    Args:
        times: (T,) decreasing diffusion times.
        positions: (N, T, A) coordinates of each trajectory.
        classes: (N,) class in which each ends.
        quantity: what the coordinates are.
    """

    times: Float[np.ndarray, " T"]
    positions: Float[np.ndarray, "N T A"]
    classes: Int[np.ndarray, " N"]
    quantity: str

    def to_xarray(self) -> "xr.Dataset":
        """Coordinates `path` on the axes trajectory, path_time and axis, and the class in which each trajectory ends, `path_class`."""
        variables: dict[str, Variable] = {
            "path": (("trajectory", "path_time", "axis"), self.positions, {"long_name": self.quantity}),
            "path_class": (("trajectory",), self.classes, {"long_name": "class in which the trajectory ends"}),
        }
        return as_dataset(variables, {"path_time": self.times}, {})


@dataclass(frozen=True)
class Speciation:
    """The closed form of a law and what was measured of it with the exact score.

    Args:
        table: closed form.
        uturns: measured R_c at increasing times.
        clones: measured agreement of clones at decreasing times.
        paths: trajectories for a picture.
        num_trajectories: trajectories of each class and time of a U-turn, and pairs of clones.
        num_steps: steps of one denoising.
        t_end: last time.
        full: whether all d coordinates were integrated.
    """

    table: SpeciationTable
    uturns: ReturnFractions
    clones: CloneFractions
    paths: BackwardPaths
    num_trajectories: int
    num_steps: int
    t_end: float
    full: bool

    def closed_form_at(self, times: ArrayLike) -> Float[np.ndarray, "... K"]:
        """R_c in closed form at other times than those of the table."""
        return return_probability(self.table.law, times, d=self.table.d)

    @property
    def clone_systematic(self) -> Float[np.ndarray, "T K"]:
        """Error of the clones from the length of their steps: that of U-turns at the same time, for the longer steps of clones.

        The scheme is of weak order 2 in the step of the log-SNR.
        """
        turns, copies = self.uturns, self.clones
        span = log_snr(self.t_end) - log_snr(copies.times.max())
        of_turns = turns.systematic * (span / (log_snr(self.t_end) - log_snr(turns.times)))[:, None] ** 2
        return np.stack([np.interp(copies.times, turns.times, column) for column in of_turns.T], axis=1)

    def to_xarray(self) -> "xr.Dataset":
        """Closed form and measurement as one labelled dataset."""
        turn, copy = ("turn_time", "class"), ("clone_time", "class")
        measured: dict[str, Variable] = {
            "uturn": (turn, self.uturns.fraction, {"long_name": "part of the samples that return to their class"}),
            "uturn_stderr": (turn, self.uturns.stderr, {"long_name": "standard error of uturn"}),
            "uturn_theory": (turn, self.closed_form_at(self.uturns.times), {"long_name": "closed form at the times of the U-turns"}),
            "uturn_systematic": (turn, self.uturns.systematic, {"long_name": "resolved error of uturn from the length of the steps"}),
            "posterior": (turn, self.uturns.posterior, {"long_name": "mean posterior of the class at the turn"}),
            "clone": (copy, self.clones.fraction, {"long_name": "part of the clones in a class whose twin is in it"}),
            "clone_stderr": (copy, self.clones.stderr, {"long_name": "standard error of clone"}),
            "clone_systematic": (copy, self.clone_systematic, {"long_name": "error of clone from the length of the steps"}),
            "clone_theory": (copy, self.closed_form_at(self.clones.times), {"long_name": "closed form at the times of the clones"}),
            "clone_same": (("clone_time",), self.clones.same, {"long_name": "part of the pairs in one class"}),
            "clone_same_stderr": (("clone_time",), self.clones.same_stderr, {"long_name": "standard error of clone_same"}),
        }
        coordinates = {"turn_time": self.uturns.times, "clone_time": self.clones.times}
        dataset = self.table.to_xarray().assign(measured).assign_coords(coordinates).merge(self.paths.to_xarray())
        return dataset.assign_attrs(trajectories=self.num_trajectories, steps=self.num_steps, full=int(self.full))


def speciation_table(law: MixtureLaw, *, d: int | None = None, times: ArrayLike | None = None) -> SpeciationTable:
    """Speciation times of a law in all readings, and its return probabilities.

    Args:
        law: K ≥ 2 classes.
        d: dimension; None for 256, or that of the law's matrices.
        times: (T,) diffusion times > 0 of the return probabilities; None for 161 around the speciation times, or 41 where the classes are
            not isotropic.

    Raises:
        InputError: as `return_probability`.

    Reference: docs/theory/speciation.md; tests/backward/test_speciation_study.py.
    """
    size, closed = int(np.asarray(checked_dimension(law, d))), has_closed_form(law)
    speciated = Estimate(speciation_times(law, d=size), np.zeros(0)) if closed else speciation_estimate(law, d=size)
    classical = float(classical_time(law, d=size))
    known = speciated.value[np.isfinite(speciated.value)]
    low, high = (known.min(), known.max()) if known.size else [max(classical, 0.5)] * 2
    count = TIMES if closed else FEW_TIMES
    grid = np.linspace(max(low - BEFORE, EARLIEST), high + AFTER, count) if times is None else np.asarray(times, np.float64)
    wells = potential_times(law, d=size)
    if closed:
        return SpeciationTable(law, size, grid, return_probability(law, grid, d=size), speciated.value, wells, classical)
    returned = return_estimate(law, grid, d=size)
    return SpeciationTable(law, size, grid, returned.value, speciated.value, wells, classical, returned.error, speciated.error)


def measure_speciation(
    process: BackwardProcess,
    table: SpeciationTable,
    *,
    key: jax.Array,
    num_trajectories: int = 2000,
    num_times: int = 12,
    parts: MutableMapping[str, Part] | None = None,
    progress: Progress | None = None,
) -> Speciation:
    """Measure what a table of speciation times says, by U-turns and clones of the backward process.

    Args:
        process: of the law of the table in its dimension, with the exact score.
        table: closed form, whose times give the range of the U-turns.
        key: JAX random key.
        num_trajectories: trajectories for each class and time of a U-turn, and pairs of clones.
        num_times: number of times of the U-turns, and of the clones; a divisor of the steps of the process.
        parts: where each finished point is kept, so that an interrupted measurement resumes from it; None for nowhere.
        progress: called with (trajectory steps done, in all), or None.

    Raises:
        InputError: as `uturn` and `clones`.

    Reference: docs/theory/speciation.md; tests/backward/test_speciation_study.py.
    """
    require_progress(progress)
    finished: MutableMapping[str, Part] = {} if parts is None else parts
    turning, cloning, drawing = jax.random.split(key, 3)
    turns = np.linspace(table.times.min(), table.times.max(), num_times)
    known = table.speciation_times[np.isfinite(table.speciation_times)]
    start = (known.max() if known.size else max(table.classical_time, 0.5)) + BEYOND
    of_turn, of_clones = process.num_classes * num_trajectories, (num_times + 3) * num_trajectories // 2  # trajectories of the whole length
    total, done = num_times * of_turn + of_clones, 0
    if progress is not None:
        progress(sum(of_clones if name == "clones" else of_turn for name in finished), total)
    for i, t in enumerate(turns):
        if f"turn-{i}" not in finished:
            seen = uturn(
                process, [t], key=jax.random.fold_in(turning, i), num_trajectories=num_trajectories, progress=within(progress, done, total)
            )
            finished[f"turn-{i}"] = {name: getattr(seen, name)[0] for name in TURN}
        done += of_turn
    if "clones" not in finished:
        report = None if progress is None else partial(_scaled, progress, done, total)
        copies = clones(process, start, key=cloning, num_trajectories=num_trajectories, num_times=num_times, progress=report)
        finished["clones"] = {field.name: getattr(copies, field.name) for field in dataclasses.fields(copies)}
    rows = [finished[f"turn-{i}"] for i in range(num_times)]
    uturns = ReturnFractions(turns, **{name: np.stack([row[name] for row in rows]) for name in TURN})
    copies = CloneFractions(**finished["clones"])
    paths = backward_paths(process, start, table.d, key=drawing, num_trajectories=num_trajectories)
    return Speciation(table, uturns, copies, paths, num_trajectories, process.num_steps, process.t_end, not process.is_reduced)


def backward_paths(process: BackwardProcess, t_start: float, d: int, *, key: jax.Array, num_trajectories: int) -> BackwardPaths:
    """Some trajectories from noise on the axes on which the centroids differ most, or by their norm where they do not.

    Args:
        process: mixture, score, scheme.
        t_start: time of the first state, pure noise.
        d: dimension.
        key: JAX random key.
        num_trajectories: trajectories among which `SHOWN` that end in each class are kept.
    """
    draw, run, end = jax.random.split(key, 3)
    count = num_trajectories if process.is_reduced else min(num_trajectories, MOST_PATHS)
    x = process.draw(draw, np.zeros(count, int), np.inf)
    law = process.law
    centroids = np.asarray(law.coordinates if isinstance(law, ReducedMixture) else law.means)
    spread = centroids - np.asarray(law.weights) @ centroids
    lengths, axes = np.linalg.svd(spread, full_matrices=False)[1:] if spread.size else (np.zeros(1), np.zeros((1, 0)))
    axes = axes[:AXES][lengths[:AXES] > 1e-6 * max(lengths[0], 1e-6)]
    if len(axes):
        observe, quantity = jax.tree_util.Partial(_along, axes), "projection on the centroid axis"
    else:
        observe, quantity = jax.tree_util.Partial(_square, float(d)), r"squared norm $\|x_t\|^2/d$"
    grid = log_snr_grid(t_start, process.t_end, process.num_steps)
    last, seen = process.run(x, grid, run, observe=observe)
    classes = process.classes(last, end)
    shown = np.concatenate([np.flatnonzero(classes == c)[:SHOWN] for c in range(process.num_classes)])
    return BackwardPaths(grid, np.asarray(seen, np.float64)[shown], classes[shown], quantity)


def _scaled(progress: Progress, before: int, total: int, done: int, of: int) -> None:
    """Progress of the last part of some work, in units of the whole."""
    progress(before + (total - before) * done // of, total)


def _along(axes: Float[Array, "A r"], x: Float[Array, " r"], t: jax.Array) -> Float[Array, " A"]:
    return jnp.sum(jnp.asarray(axes, x.dtype) * x[None, : axes.shape[1]], axis=1)


def _square(d: jax.Array, x: Float[Array, " r"], t: jax.Array) -> Float[Array, "1"]:
    return jnp.sum(x**2)[None] / d
