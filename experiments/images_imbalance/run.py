"""Outnumbering a class of images delays its generalisation against the other's, where theory hastens it, and opens the gap of Bag further.

The pair Bag and Sneaker at a fixed number of images in all, from one class in the majority to the other.
"""

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, images
from rfdiff.images.protocol import imbalanced

CLASSES, SEEDS = (8, 7), {"full": 1, "small": 1}
RATIOS = {"full": (16.0, 4.0, 1.0, 0.25, 0.0625), "small": (4.0, 1.0, 0.25), "smoke": (2.0, 0.5)}  # Bag over Sneaker


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, imbalanced(2 * images.SIZES[form].each, ratio)) for ratio in RATIOS[form]]


compute, compute_small = images.forms(cases, SEEDS)


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    ratios = images.log_ratio(data, "tau_gen", 0, 1).mean(1)
    expected = -np.diff(np.log(data["predicted"].sel(predicted_reading="tau_gen").mean("seed").values), axis=1)[:, 0]
    listed, theirs = (", ".join(f"{np.exp(ratio):.2f}" for ratio in values) for values in (ratios, expected))
    said = [images.learned_said(data)]
    if data.attrs["form"] != "smoke":  # whose few steps and stand-ins resolve no order of times
        text = (
            f"at t = {data['t'].values[images.level_of(data)]:.2g} τ_gen of Bag over that of Sneaker rises while Bag becomes outnumbered, "
        )
        text += f"by more than {images.RESOLVED}: {listed}"
        said.append((text, bool(ratios[-1] - ratios[0] > np.log(images.RESOLVED))))
    said.append((f"in theory it falls: {theirs}", bool(expected[-1] < expected[0])))
    if data.attrs["form"] == "smoke":  # what the claim says of photographs, stand-ins need not show
        return said
    gap = data["gap"].isel(step=-1).mean("seed").values
    text = "the last gap of Bag is larger where it is outnumbered most than where it outnumbers most: "
    text += f"{gap[-1, 0]:.3f} against {gap[0, 0]:.3f} (Sneaker: {gap[0, 1]:.3f} against {gap[-1, 1]:.3f})"
    return [*said, (text, bool(gap[-1, 0] > gap[0, 0]))]


def table(data: xr.Dataset) -> str:
    return images.table(data)


def draw(data: xr.Dataset) -> Figure:
    return images.draw(data, "One pair of classes, from one in the majority to the other")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
