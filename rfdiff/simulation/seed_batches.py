"""Curves of some replicas, and their mean and standard error: what every solver returns, and how the seeds of a run are put together."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from rfdiff.curves import CURVE_NAMES, EmpiricalSpectrum, LearningCurves
from rfdiff.errors import InputError
from rfdiff.labels import Label, fields_of, labelled_dataset, static_attributes
from rfdiff.value_types import static, value_type, whole_number

if TYPE_CHECKING:
    import xarray as xr

MOST_SEEDS = 10**6  # of one run: standard errors fall as 1/√S, and nobody waits for more
OPTIONAL = ("eigenvalues", "class_weights", "error_estimate", "probe_stderr", "untrained_loss")  # not every solver has them
PLAIN = ("kappa", "dimension", "dtype")  # fields that are no arrays

BATCH_LABELS = {
    "seeds": Label(("seed",), "number of the replica", variable="seed"),
    "taus": LearningCurves.LABELS["taus"],
    **{name: dataclasses.replace(LearningCurves.LABELS[name], dims=("seed", "tau", "class")) for name in CURVE_NAMES},
    **EmpiricalSpectrum.LABELS,
    "truncation": Label(("seed",), "bound on the relative error of the exact noise and population averages"),
    "optimal_loss": LearningCurves.LABELS["optimal_loss"],
    "weights": LearningCurves.LABELS["weights"],
    "kappa": LearningCurves.LABELS["kappa"],
    "error_estimate": Label(("seed",), "numerical error of the solver in the losses"),
    "untrained_loss": LearningCurves.LABELS["untrained_loss"],
}
PROBED = {f"{name}_probe_stderr": Label(("seed", "tau", "class"), f"standard error of {name} over random probes") for name in CURVE_NAMES}


@value_type
class SeedBatch:
    """Curves of some replicas (S seeds, T times, K classes, p features): what a checkpoint keeps between chunks.

    Args:
        seeds: (S,) replica numbers r; replica r depends only on fold_in(key, r).
        taus: (T,) training times of the rule's schedule.
        train_loss, test_loss, score_error: (S, T, K) curves.
        eigenvalues: (S, p) eigenvalues of U; None from a solver that does not find them.
        class_weights: (S, p, K) weights in the class-resolved density; None likewise.
        truncation: (S,) bound on the relative error of the exact noise and population averages.
        optimal_loss: (K,) loss of the exact score of the problem's mixture at the realised d.
        weights: (K,) class fractions of the problem.
        kappa: κ = 2Δ/ψ_p.
        error_estimate: (S,) numerical error of the solver in the losses; 0 from the exact flow, which solves U to rounding.
        probe_stderr: (3, S, T, K) standard errors over random probes of the train loss, test loss and score error; None without probes.
        untrained_loss: (S, K) train loss before training; None in batches stored without it.
        dimension, dtype: as in `LearningCurves`.
    """

    seeds: Int[np.ndarray, " S"]
    taus: Float[np.ndarray, " T"]
    train_loss: Float[np.ndarray, "S T K"]
    test_loss: Float[np.ndarray, "S T K"]
    score_error: Float[np.ndarray, "S T K"]
    eigenvalues: Float[np.ndarray, "S p"] | None
    class_weights: Float[np.ndarray, "S p K"] | None
    truncation: Float[np.ndarray, " S"]
    optimal_loss: Float[np.ndarray, " K"]
    weights: Float[np.ndarray, " K"]
    kappa: float
    error_estimate: Float[np.ndarray, " S"] | None = None
    probe_stderr: Float[np.ndarray, "3 S T K"] | None = None
    untrained_loss: Float[np.ndarray, "S K"] | None = None
    dimension: int = static(default=0)
    dtype: str = static(default="float64")

    def to_xarray(self) -> "xr.Dataset":
        """The batch with the axes seed, tau, mode and class; the numbers of the seeds are the coordinate `seed`."""
        errors = {} if self.probe_stderr is None else dict(zip(PROBED, self.probe_stderr, strict=True))
        arrays = {**dict.fromkeys(PROBED), **fields_of(self, BATCH_LABELS), **errors}
        return labelled_dataset(arrays, BATCH_LABELS | PROBED, static_attributes(self))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every field as a named array, without those that are None: what a file of kept seeds holds."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: np.asarray(value) for name, value in values if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SeedBatch":
        """The batch of `to_arrays`.

        Raises:
            InputError: an array that is missing, or one that is no field of a batch.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        missing, foreign = sorted(names - {*arrays, *OPTIONAL}), sorted({*arrays} - names)
        if missing or foreign:
            problem = f"{missing[0]} is missing" if missing else f"{foreign[0]} is no field of it"
            raise InputError(f"batch: {problem}; allowed: the arrays of one SeedBatch")
        plain = {name: np.asarray(arrays[name]).item() for name in PLAIN}
        return cls(**{**dict.fromkeys(OPTIONAL), **arrays, **plain})


def summarize(batches: Sequence[SeedBatch]) -> LearningCurves:
    """Mean and standard error over all replicas of some batches, in the order of their seeds.

    Its `error_estimate` is the largest numerical error of any replica: that of its solver, and the truncation of its exact averages, which
    changes the losses by less than its own size unless λ_min is smaller than that share of λ_max (then late times may change more).

    Raises:
        InputError: no batch; batches of different runs; a seed that occurs twice.
    """
    if len(batches) == 0:
        raise InputError("batches: none given; allowed: at least one SeedBatch")
    first = batches[0]
    _check_one_run(batches)
    seeds = np.concatenate([batch.seeds for batch in batches])
    order = np.argsort(seeds)

    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches])[order]

    per_seed = {name: gather(name) for name in CURVE_NAMES}
    means = {name: value.mean(axis=0) for name, value in per_seed.items()}
    errors = {f"{name}_stderr": _standard_error(value) for name, value in per_seed.items()}
    if len(seeds) == 1 and first.probe_stderr is not None:  # with more seeds their spread holds that of the probes
        errors = {f"{name}_stderr": value[0] for name, value in zip(per_seed, first.probe_stderr, strict=True)}
    whole = all(batch.eigenvalues is not None for batch in batches)
    solved = [0.0 if batch.error_estimate is None else np.nan_to_num(batch.error_estimate) for batch in batches]
    return LearningCurves(
        taus=first.taus,
        **means,
        optimal_loss=first.optimal_loss,
        weights=first.weights,
        kappa=first.kappa,
        error_estimate=max(float(np.max(batch.truncation + error)) for batch, error in zip(batches, solved, strict=True)),
        **errors,
        per_seed=per_seed,
        spectrum=EmpiricalSpectrum(gather("eigenvalues"), gather("class_weights")) if whole else None,
        untrained_loss=gather("untrained_loss") if all(batch.untrained_loss is not None for batch in batches) else None,
        source="simulation",
        dimension=first.dimension,
        dtype=first.dtype,
    )


def _check_one_run(batches: Sequence[SeedBatch]) -> None:
    """Refuse batches of different runs, and seeds that occur twice."""
    first = batches[0]
    for batch in batches[1:]:
        same = all(np.array_equal(getattr(batch, f), getattr(first, f)) for f in ("taus", "weights", "kappa", "optimal_loss"))
        if not same or (batch.dimension, batch.dtype) != (first.dimension, first.dtype):
            raise InputError(
                f"batches: one of d = {batch.dimension} in {batch.dtype} beside one of d = {first.dimension} in {first.dtype}, or of "
                "another problem or time grid; allowed: batches of one run"
            )
    numbers, counts = np.unique(np.concatenate([batch.seeds for batch in batches]), return_counts=True)
    if np.any(counts > 1):
        raise InputError(f"batches: seed {numbers[counts > 1][0]} occurs more than once; allowed: each replica once")


def _standard_error(values: Float[np.ndarray, "S T K"]) -> Float[np.ndarray, "T K"]:
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Replica numbers as integers.

    Raises:
        InputError: none given, more than `MOST_SEEDS`, repeated ones, or numbers that are not integers in [0, 2^32).
    """
    try:
        count = len(seeds)
    except TypeError:  # no collection at all
        count = 0
    if not 1 <= count <= MOST_SEEDS:
        shown = repr(seeds) if count == 0 else f"{count} of them"
        raise InputError(f"seeds: {shown}; allowed: one or more distinct integers in [0, 2^32), at most {MOST_SEEDS:g} of them")
    numbers = [whole_number(seed) for seed in seeds]
    replicas = [r for r in numbers if r is not None and 0 <= r < 2**32]
    if len(set(replicas)) != count:
        raise InputError(f"seeds: {list(seeds)!r:.200}; allowed: one or more distinct integers in [0, 2^32)")
    return replicas
