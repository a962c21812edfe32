"""A U-Net on two balanced classes of images learns and memorises them in the order that theory takes from their variances.

Bag varies three times as much as Sneaker. Orders are those of the losses at the measured t nearest to that of the theory.
"""

import sys

import xarray as xr
from matplotlib.figure import Figure

from experiments import harness, images

CLASSES = (8, 7)  # Bag, Sneaker
SEEDS = {"full": 3, "small": 2}


def cases(form: str) -> list[images.Case]:
    return [(CLASSES, (images.SIZES[form].each,) * 2)]


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    form = "smoke" if smoke else "full"
    return images.computed(form, cells, cases(form), SEEDS["full"])


def compute_small(cells: harness.Cells) -> xr.Dataset:
    return images.computed("small", cells, cases("small"), SEEDS["small"])


def verdict(data: xr.Dataset) -> list[tuple[str, bool]]:
    said = [images.learned_said(data), images.order_said(data, "tau_gen", "learned"), images.order_said(data, "tau_mem", "memorised")]
    ratio = data["variance"].isel({"class": 0}) / data["variance"].isel({"class": 1})
    text = f"the variances of the classes differ by a factor of {float(ratio.min()):.2f} or more, above 1.5"
    return [*said, (text, bool((ratio > 1.5).all()))]


def table(data: xr.Dataset) -> str:
    return images.table(data)


def draw(data: xr.Dataset) -> Figure:
    return images.draw(data, "Two balanced classes of unlike variance")


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
