"""Class-wise times of a U-Net in training steps, and the dataset of an evaluated run; needs no optional extra."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from rfdiff.class_times import TIME_NAMES, ClassTimes, times
from rfdiff.curves import LearningCurves

CONTENT = "U-Net on images"
FILE, CURVES, SAMPLES = "evaluation.nc", "curves.png", "samples.png"
READINGS = (*TIME_NAMES[:3], "tau_copy")  # without tau_opt: no score is known
RESOLVED = 3.0  # standard errors by which the last gap must exceed 0 for a memorisation time
VARIABLES = {
    "number": "samples that the classifier gives to the class",
    "fraction": "their share of all samples",
    "memorised": "part of them whose nearest training image is nearer than 1/3 of the second-nearest's distance",
    "low": "lower end of its 95 % bootstrap interval",
    "high": "upper end of it",
    "frechet": "squared Frechet distance to one half of the real test images in the classifier's features",
    "floor": "the same between as many images of the other half and that half",
    "energy": "energy distance to that half, without bias: 0 in expectation for real images, whatever their number",
    "energy_floor": "the same between as many images of the other half and that half",
}


class ImageTimes(NamedTuple):
    """Class-wise times in training steps, with what is known of those that the run does not resolve.

    Args:
        mean: of the mean loss over the log-SNRs.
        at: of the loss at each log-SNR.
    """

    mean: ClassTimes
    at: tuple[ClassTimes, ...]


def class_times(losses: xr.Dataset) -> ImageTimes:
    """τ_gen, τ_stop and τ_mem in steps, read by `class_times.times` from the loss as a fraction of that before the first step.

    The held-out loss takes the place of the test loss. A time that the run is too short for is NaN, with a bound where one is known: τ_mem
    is at least half-way of the gap so far while the gap still grows. It is NaN without a bound where the last gap is within 3 standard
    errors of 0. τ_opt, which needs the loss of the exact score, is not known.

    Args:
        losses: of `training.train`, R steps from 0, T log-SNRs, K classes.
    """
    mean = _times(losses, losses["mean_loss"].values, losses["mean_loss_stderr"].values)
    at = (_times(losses, losses["loss"].values[:, :, j], losses["loss_stderr"].values[:, :, j]) for j in range(losses.sizes["log_snr"]))
    return ImageTimes(mean, tuple(at))


def _times(losses: xr.Dataset, loss: Float[np.ndarray, "R 2 K"], error: Float[np.ndarray, "R 2 K"]) -> ClassTimes:
    """Times of losses, train and held-out."""
    weights = losses["count"].values / losses["count"].values.sum()
    train, test = np.moveaxis(loss / loss[:1], 1, 0)
    unknown = np.full(len(weights), np.nan)
    if len(loss) < 3:
        reasons = (("fewer than 3 measured steps",) * len(weights),) * len(TIME_NAMES)
        return ClassTimes(unknown, unknown, unknown, unknown, reasons=reasons)
    none, steps = np.zeros_like(test), losses["step"].values.astype(np.float64)
    curves = LearningCurves(steps, train, test, none * np.nan, unknown, weights, 1.0, np.nan, none, none, none, source="simulation")
    read = times(curves)
    gap, spread = loss[-1, 1] - loss[-1, 0], np.hypot(error[-1, 0], error[-1, 1])
    return _without_noise(read, gap <= RESOLVED * spread)


def _without_noise(read: ClassTimes, noise: Bool[np.ndarray, " K"]) -> ClassTimes:
    """The times without τ_mem of the classes whose last gap is noise."""
    place, text = TIME_NAMES.index("tau_mem"), f"the last gap is within {RESOLVED:g} standard errors of 0"
    reasons = tuple(text if is_noise else reason for is_noise, reason in zip(noise, read.reasons[place], strict=True))
    bounds = {**(read.bounds or {})}
    bounds["tau_mem"] = np.where(noise[:, None], np.nan, bounds["tau_mem"])
    return dataclasses.replace(
        read,
        tau_mem=np.where(noise, np.nan, read.tau_mem),
        bounds=bounds,
        reasons=(*read.reasons[:place], reasons, *read.reasons[place + 1 :]),
    )


def _stacked(read: ClassTimes) -> Float[np.ndarray, "3 K"]:
    return np.stack([getattr(read, name) for name in READINGS[:3]])


def times_of(dataset: xr.Dataset) -> ClassTimes:
    """The times of the mean loss in an evaluated run, with their bounds, for a table."""
    values = {name: dataset["time"].sel(reading=name).values for name in READINGS[:3]}
    unknown = np.full(dataset.sizes["class"], np.nan)
    bounds = None
    if "time_bounds" in dataset:
        bounds = {name: dataset["time_bounds"].sel(curve_reading=name).values for name in READINGS[:3]}
    return ClassTimes(values["tau_gen"], values["tau_stop"], values["tau_mem"], unknown, bounds=bounds)


def read_out(
    losses: xr.Dataset, steps: Sequence[int], evaluations: Sequence[Mapping[str, np.ndarray]], **attributes: str | float
) -> xr.Dataset:
    """Losses, evaluations and times of a run as one dataset.

    τ_copy is the first checkpoint at which half of a class's samples are memorised, inf if none is.

    Args:
        losses: of `training.train`.
        steps: of the evaluated checkpoints.
        evaluations: of `Evaluator.run`, one a checkpoint; none of a network that cannot be sampled.
        attributes: text and numbers to record.
    """
    read = class_times(losses)
    copy = np.full(losses.sizes["class"], np.nan)
    dataset = losses.copy()
    relative = losses["mean_loss"] / losses["mean_loss"].isel(step=0, drop=True)
    gap = relative.sel(set="held_out", drop=True) - relative.sel(set="train", drop=True)
    dataset["gap"] = gap.assign_attrs(
        long_name="held-out minus train loss, mean over the log-SNRs, in units of the loss before the first step"
    )
    if evaluations:
        rows = {name: np.stack([row[name] for row in evaluations]) for name in (*VARIABLES, "all_memorised", "grid")}
        for name, text in VARIABLES.items():
            dataset[name] = (("checkpoint", "class"), rows[name], {"long_name": text})
        dataset["all_memorised"] = ("checkpoint", rows["all_memorised"], {"long_name": "memorised part of all samples"})
        axes = ("checkpoint", "class", "kind", "place", "row", "column")
        dataset["grid"] = (axes, rows["grid"], {"long_name": "grey levels 0..255 of samples and of the training images nearest to them"})
        dataset = dataset.assign_coords(checkpoint=list(steps), kind=["sample", "nearest"])
        for k in range(len(copy)):
            half = np.flatnonzero(rows["memorised"][:, k] >= 0.5)
            copy[k] = steps[half[0]] if len(half) else np.inf
    dataset["time"] = (("reading", "class"), np.vstack([_stacked(read.mean), copy]), {"long_name": "class-wise time in training steps"})
    bounds = np.stack([(read.mean.bounds or {}).get(name, np.full((len(copy), 2), np.nan)) for name in READINGS[:3]])
    text = "lower and upper bound of a time that the run does not resolve"
    dataset["time_bounds"] = (("curve_reading", "class", "bound"), bounds, {"long_name": text})
    each = np.stack([_stacked(one) for one in read.at], axis=1)
    dataset["time_at"] = (("curve_reading", "log_snr", "class"), each, {"long_name": "the time from the loss at one log-SNR"})
    dataset = dataset.assign_coords(reading=list(READINGS), curve_reading=list(READINGS[:3]))
    return dataset.assign_attrs(content=CONTENT, **attributes)


def steps_of(dataset: xr.Dataset) -> list[int]:
    """Steps of the evaluated checkpoints."""
    return [int(step) for step in dataset["checkpoint"].values]
