"""Class-wise times of a U-Net in training steps, and the dataset of an evaluated run; needs no optional extra."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.class_times import times
from rfdiff.curves import LearningCurves

CONTENT = "U-Net on images"
FILE, CURVES, SAMPLES = "evaluation.nc", "curves.png", "samples.png"
READINGS = ("tau_gen", "tau_stop", "tau_mem", "tau_copy")
RESOLVED = 3.0  # standard errors by which the last gap must exceed 0 for a memorisation time
VARIABLES = {
    "number": "samples that the classifier gives to the class",
    "fraction": "their share of all samples",
    "memorised": "part of them whose nearest training image is nearer than 1/3 of the second-nearest's distance",
    "low": "lower end of its 95 % bootstrap interval",
    "high": "upper end of it",
    "frechet": "squared Frechet distance to one half of the real test images in the classifier's features",
    "floor": "the same between as many images of the other half and that half",
}


def class_times(losses: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """τ_gen, τ_stop and τ_mem in steps, read by `curves.times` from the loss as a fraction of that before the first step.

    The held-out loss takes the place of the test loss. τ_mem is NaN where the last gap is within 3 standard errors of 0. The time that
    needs the exact score's loss is not read.

    Args:
        losses: of `training.train`, R steps from 0, T log-SNRs, K classes.

    Returns:
        (3, K) of the mean loss over the log-SNRs, and (3, T, K) of the loss at each.
    """
    mean = _times(losses, losses["mean_loss"].values, losses["mean_loss_stderr"].values)
    each = [_times(losses, losses["loss"].values[:, :, j], losses["loss_stderr"].values[:, :, j]) for j in range(losses.sizes["log_snr"])]
    return mean, np.stack(each, axis=1)


def _times(losses: xr.Dataset, loss: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(3, K) times of losses (R, 2, K), train and held-out."""
    weights = losses["count"].values / losses["count"].values.sum()
    train, test = np.moveaxis(loss / loss[:1], 1, 0)
    if len(loss) < 3:
        return np.full((3, len(weights)), np.nan)
    none, unknown = np.zeros_like(test), np.full(len(weights), np.nan)
    curves = LearningCurves(
        losses["step"].values.astype(np.float64),
        train,
        test,
        none * np.nan,
        unknown,
        weights,
        1.0,
        np.nan,
        none,
        none,
        none,
        source="simulation",
    )
    found = times(curves)
    gap, spread = loss[-1, 1] - loss[-1, 0], np.hypot(error[-1, 0], error[-1, 1])
    return np.stack([found.tau_gen, found.tau_stop, np.where(gap > RESOLVED * spread, found.tau_mem, np.nan)])


def read_out(losses: xr.Dataset, steps: Sequence[int], evaluations: Sequence[Mapping[str, Any]], **attributes: Any) -> xr.Dataset:
    """Losses, evaluations and times of a run as one dataset.

    τ_copy is the first checkpoint at which half of a class's samples are memorised, inf if none is.

    Args:
        losses: of `training.train`.
        steps: of the evaluated checkpoints.
        evaluations: of `Evaluator.run`, one a checkpoint; none of a network that cannot be sampled.
        attributes: text and numbers to record.
    """
    mean, each = class_times(losses)
    copy = np.full(losses.sizes["class"], np.nan)
    dataset = losses.copy()
    relative = losses["mean_loss"] / losses["mean_loss"].isel(step=0, drop=True)
    gap = relative.sel(set="held_out", drop=True) - relative.sel(set="train", drop=True)
    dataset["gap"] = gap.assign_attrs(
        long_name="held-out minus train loss, mean over the log-SNRs, in units of the loss before the first step"
    )
    if evaluations:
        found = {name: np.stack([row[name] for row in evaluations]) for name in (*VARIABLES, "all_memorised", "grid")}
        for name, text in VARIABLES.items():
            dataset[name] = (("checkpoint", "class"), found[name], {"long_name": text})
        dataset["all_memorised"] = ("checkpoint", found["all_memorised"], {"long_name": "memorised part of all samples"})
        axes = ("checkpoint", "class", "kind", "place", "row", "column")
        dataset["grid"] = (axes, found["grid"], {"long_name": "grey levels 0..255 of samples and of the training images nearest to them"})
        dataset = dataset.assign_coords(checkpoint=list(steps), kind=["sample", "nearest"])
        for k in range(len(copy)):
            half = np.flatnonzero(found["memorised"][:, k] >= 0.5)
            copy[k] = steps[half[0]] if len(half) else np.inf
    dataset["time"] = (("reading", "class"), np.vstack([mean, copy]), {"long_name": "class-wise time in training steps"})
    dataset["time_at"] = (("curve_reading", "log_snr", "class"), each, {"long_name": "the same from the loss at one log-SNR"})
    dataset = dataset.assign_coords(reading=list(READINGS), curve_reading=list(READINGS[:3]))
    return dataset.assign_attrs(content=CONTENT, **attributes)


def steps_of(dataset: xr.Dataset) -> list[int]:
    """Steps of the evaluated checkpoints."""
    return [int(step) for step in dataset["checkpoint"].values]
