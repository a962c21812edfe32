"""Imbalance reverses which of two classes of images a U-Net memorises first: the outnumbered one.

The pair Bag and Sneaker at a fixed number of images in all, with either class in the majority. Balanced, Bag comes first (images_variance).
"""

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, image_readings, images
from experiments.harness import Criterion
from rfdiff.images.protocol import imbalanced

CLASSES, SEEDS = (8, 7), {"full": 2, "small": 2}
HALF = "steps until half of the samples are memorised, Bag over Sneaker, every seed"
CONTRADICTED = (f"Bag outnumbered: {HALF}",)
RATIOS = {"full": (4.0, 0.25), "small": (3.0, 1 / 3), "smoke": (2.0, 0.5)}  # Bag over Sneaker


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, imbalanced(2 * images.SIZES[form].each, ratio)) for ratio in RATIOS[form]]


compute, compute_small, compute_finished = images.forms("images_imbalance", cases, SEEDS)


def criteria(data: xr.Dataset) -> list[Criterion]:
    judged = image_readings.judged
    found = [image_readings.learned(data)]
    if data.attrs["form"] == "smoke":  # its few steps and stand-ins memorise nothing and resolve no order of times
        return found
    first = image_readings.memorised_first(data, 0, 1)
    majority, outnumbered = float(first[0].min()), float(first[-1].max())
    rise = float(np.exp(image_readings.log_ratio(data, "tau_gen", 0, 1).mean(1)[[-1, 0]] @ [1, -1]))
    gap = image_readings.at_end(data, "gap").mean(1)
    lead = float(gap[-1, 0] - gap[0, 0])
    t = data["t"].values[image_readings.level_of(data)]
    text = f"t = {t:.2g}: τ_gen of Bag over that of Sneaker, factor from Bag in the majority to Bag outnumbered"
    return [
        *found,
        judged(f"Bag in the majority: {HALF}", majority, ".3f", "> 1", majority > 1),
        judged(f"Bag outnumbered: {HALF}", outnumbered, ".3f", "< 1", outnumbered < 1),
        judged(text, rise, ".2f", f"> {image_readings.RESOLVED}", rise > image_readings.RESOLVED),
        judged("last gap of Bag, outnumbered minus in the majority", lead, ".3f", "> 0", lead > 0),
    ]


def table(data: xr.Dataset) -> str:
    return image_readings.table(data)


def draw(data: xr.Dataset) -> Figure:
    return image_readings.draw(data, "One pair of classes, either in the majority")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
