"""Curves of some replicas, and their mean and standard error: what every solver returns, and how the seeds of a run are put together."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rfdiff.curves import EmpiricalSpectrum, LearningCurves
from rfdiff.errors import InputError
from rfdiff.value_types import static, value_type

Progress = Callable[[int, int], None]


@value_type
class SeedBatch:
    """Curves of some replicas (S seeds, T times, K classes, p features): what a checkpoint keeps between chunks.

    Args:
        seeds: (S,) replica numbers r; replica r is drawn from fold_in(key, r) alone.
        taus: (T,) training times of the rule's schedule.
        train_loss, test_loss, score_error: (S, T, K) curves.
        eigenvalues: (S, p) eigenvalues of U; None from a solver that does not find them.
        class_weights: (S, p, K) weights in the class-resolved density; None likewise.
        truncation: (S,) bound on the relative error of the exact noise and population averages.
        optimal_loss: (K,) loss of the exact score of the problem's mixture at the realised d.
        weights: (K,) class fractions of the problem.
        kappa: κ = 2Δ/ψ_p.
        error_estimate: (S,) numerical error of the losses; NaN from the exact flow, which leaves rounding alone.
        probe_stderr: (3, S, T, K) standard errors over random probes of the train loss, test loss and score error; None without probes.
        dimension, dtype: as in `LearningCurves`.
    """

    seeds: Any
    taus: Any
    train_loss: Any
    test_loss: Any
    score_error: Any
    eigenvalues: Any
    class_weights: Any
    truncation: Any
    optimal_loss: Any
    weights: Any
    kappa: Any
    error_estimate: Any = None
    probe_stderr: Any = None
    dimension: int = static(default=0)
    dtype: str = static(default="float64")


def summarize(batches: Sequence[SeedBatch]) -> LearningCurves:
    """Mean and standard error over all replicas of some batches, in the order of their seeds.

    Raises:
        InputError: no batch; batches of different runs; a seed that occurs twice.
    """
    if len(batches) == 0:
        raise InputError("batches: none given; allowed: at least one SeedBatch")
    first = batches[0]
    for batch in batches[1:]:
        same = all(np.array_equal(getattr(batch, f), getattr(first, f)) for f in ("taus", "weights", "kappa", "optimal_loss"))
        if not same or (batch.dimension, batch.dtype) != (first.dimension, first.dtype):
            raise InputError(
                f"batches: one of d = {batch.dimension} in {batch.dtype} beside one of d = {first.dimension} in {first.dtype}, or of "
                "another problem or time grid; allowed: batches of one run"
            )
    seeds = np.concatenate([batch.seeds for batch in batches])
    if len(np.unique(seeds)) != len(seeds):
        raise InputError(f"batches: seeds {sorted(seeds.tolist())} occur more than once; allowed: each replica once")
    order = np.argsort(seeds)

    def gather(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches])[order]

    per_seed = {name: gather(name) for name in ("train_loss", "test_loss", "score_error")}
    means = {name: value.mean(axis=0) for name, value in per_seed.items()}
    errors = {f"{name}_stderr": _standard_error(value) for name, value in per_seed.items()}
    if len(seeds) == 1 and first.probe_stderr is not None:  # with more seeds their spread holds that of the probes
        errors = {f"{name}_stderr": value[0] for name, value in zip(per_seed, first.probe_stderr, strict=True)}
    whole = all(batch.eigenvalues is not None for batch in batches)
    estimates = [np.nan if batch.error_estimate is None else float(np.max(batch.error_estimate)) for batch in batches]
    return LearningCurves(
        taus=first.taus,
        **means,
        optimal_loss=first.optimal_loss,
        weights=first.weights,
        kappa=first.kappa,
        error_estimate=max(estimates) if not np.isnan(estimates).any() else math.nan,
        **errors,
        per_seed=per_seed,
        spectrum=EmpiricalSpectrum(gather("eigenvalues"), gather("class_weights")) if whole else None,
        source="simulation",
        dimension=first.dimension,
        dtype=first.dtype,
    )


def _standard_error(values: np.ndarray) -> np.ndarray:
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Replica numbers as integers.

    Raises:
        InputError: none given, repeated ones, or numbers that are not integers in [0, 2^32).
    """
    values = list(seeds)
    good = all(isinstance(r, numbers.Integral) and not isinstance(r, bool) and 0 <= r < 2**32 for r in values)
    if not values or not good or len(set(values)) != len(values):
        raise InputError(f"seeds: {values!r}; allowed: one or more distinct integers in [0, 2^32)")
    return [int(r) for r in values]
