"""Of four balanced classes of images a U-Net memorises the more varied ones first, and it does not generalise in the order of the theory.

Bag, Sneaker, Trouser and Ankle boot: variances, norms and angles of the centroids differ together.
"""

import itertools
import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, image_readings, images
from experiments.harness import Criterion

CLASSES, SEEDS = (8, 7, 1, 9), {"full": 2, "small": 1}


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, (images.SIZES[form].each // 2,) * len(CLASSES))]


compute, compute_small, compute_finished = images.forms("images_four_classes", cases, SEEDS)


def criteria(data: xr.Dataset) -> list[Criterion]:
    judged = [image_readings.learned(data)]
    if data.attrs["form"] == "smoke":  # whose few steps order nothing
        return judged
    variance = data["variance"].isel(case=0).mean("seed").values
    pairs = [(a, b) for a, b in itertools.permutations(range(len(variance)), 2) if variance[a] > image_readings.RESOLVED * variance[b]]
    gap = image_readings.at_end(data, "gap")[0]
    times = data["time"].sel(reading="tau_mem").isel(case=0).values
    lead = min((float((gap[:, a] - gap[:, b]).min()) for a, b in pairs), default=np.nan)
    later = max((float((times[:, a] / times[:, b]).max()) for a, b in pairs), default=np.nan)
    resolved, right = image_readings.orders(data, "tau_gen")
    t = data["t"].values[image_readings.level_of(data)]
    where = f"{len(pairs)} pairs whose variances differ by more than {image_readings.RESOLVED}"
    return [
        *judged,
        Criterion(f"last loss gap, more varied class minus the other ({where}, every seed)", f"{lead:.3f}", "> 0", lead > 0),
        Criterion("τ_mem, more varied class over the other (the same pairs)", f"{later:.2f}", "< 1", later < 1),
        Criterion(f"t = {t:.2g}: resolved orders of τ_gen as in theory", f"{right} of {resolved}", "at most half", 2 * right <= resolved),
    ]


def table(data: xr.Dataset) -> str:
    return image_readings.table(data)


def draw(data: xr.Dataset) -> Figure:
    return image_readings.draw(data, "Four balanced classes")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
