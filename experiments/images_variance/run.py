"""Of two balanced classes of images a U-Net memorises the one of higher variance first; theory's order of learning does not carry over.

Bag varies more than twice as much as Sneaker. The theory is that of a random-features network with the fitted law of the images, by plain
gradient flow, at each t at which losses are measured.
"""

import sys

import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, image_readings, images
from experiments.harness import Criterion

CLASSES = (8, 7)  # Bag, Sneaker
SEEDS = {"full": 3, "small": 3}
MEMORISATION = "τ_mem of Bag over that of Sneaker, every seed"
UNDECIDED = (MEMORISATION,)


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, (images.SIZES[form].each,) * 2)]


compute, compute_small, compute_finished = images.forms("images_variance", cases, SEEDS, at_each_t=True)


def criteria(data: xr.Dataset) -> list[Criterion]:
    ratio = float((data["variance"].isel({"class": 0}) / data["variance"].isel({"class": 1})).min())
    judged = image_readings.judged
    found = [image_readings.learned(data), judged("variance of Bag over that of Sneaker", ratio, ".2f", "> 1.5", ratio > 1.5)]
    if data.attrs["form"] == "smoke":  # what the claim says of photographs, stand-ins need not show
        return found
    later = float(image_readings.memorised_first(data, 0, 1)[0].max())  # NaN if a seed decides nothing
    gap = float(image_readings.lead(data, "gap", 0, 1)[0].min())
    times = data["time"].sel(reading="tau_mem").isel(case=0).values
    mem = float((times[:, 0] / times[:, 1]).max())
    resolved, right = image_readings.orders_at_each_t(data, "tau_gen")
    orders = Criterion("resolved orders of τ_gen at each t as in theory", f"{right} of {resolved}", "at most half", 2 * right <= resolved)
    return [
        *found,
        judged("steps until half of the samples are memorised, Bag over Sneaker, every seed", later, ".3f", "< 1", later < 1),
        judged("last loss gap of Bag minus that of Sneaker, every seed", gap, ".3f", "> 0", gap > 0),
        judged(MEMORISATION, mem, ".2f", "< 1", mem < 1),
        orders,
    ]


def table(data: xr.Dataset) -> str:
    return image_readings.table(data)


def draw(data: xr.Dataset) -> Figure:
    return image_readings.draw(data, "Two balanced classes of unlike variance")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
