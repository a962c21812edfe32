"""Of four balanced classes of images a U-Net memorises the more varied ones first; theory's order of generalisation is not its own.

Bag, Sneaker, Trouser and Ankle boot: variances, norms and angles of the centroids differ together.
"""

import itertools
import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, images

CLASSES, SEEDS = (8, 7, 1, 9), {"full": 2, "small": 1}


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, (images.SIZES[form].each // 2,) * len(CLASSES))]


compute, compute_small = images.forms(cases, SEEDS)


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    said = [images.learned_said(data)]
    if data.attrs["form"] == "smoke":  # whose few steps order nothing
        return said
    variance = data["variance"].isel(case=0).mean("seed").values
    pairs = [(a, b) for a, b in itertools.permutations(range(len(variance)), 2) if variance[a] > images.RESOLVED * variance[b]]
    gap = data["gap"].isel(step=-1, case=0).values
    text = f"after the last step the loss gap is the larger one in the more varied class of each of the {len(pairs)} pairs whose variances "
    text += f"differ by more than {images.RESOLVED}, in every seed"
    said.append((text, bool(pairs) and all(bool(np.all(gap[:, a] > gap[:, b])) for a, b in pairs)))
    times = data["time"].sel(reading="tau_mem").isel(case=0).values
    said.append(("τ_mem is the earlier one in it", all(bool(np.all(times[:, a] < times[:, b])) for a, b in pairs)))
    resolved, right = images.orders(data, "tau_gen")
    t = data["t"].values[images.level_of(data)]
    text = f"at t = {t:.2g} theory has the order of τ_gen right in {right} of the {resolved} resolved pairs of classes, no more than half"
    return [*said, (text, 2 * right <= resolved)]


def table(data: xr.Dataset) -> str:
    return images.table(data)


def draw(data: xr.Dataset) -> Figure:
    return images.draw(data, "Four balanced classes")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
