"""Readings of U-Nets on results whose answer is known: runs that end at different steps, and a class that is never memorised."""

import numpy as np
import pytest
import xarray as xr

from experiments import image_readings

CHECKPOINTS = [10, 100, 1000, 10_000]
LAST = [10_000, 1000]  # of two seeds


@pytest.fixture
def data() -> xr.Dataset:
    """One case, two seeds: class 0 passes a half between 10 and 100, class 1 only in the first seed, between 1000 and 10,000."""
    first = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.25], [1.0, 0.75]]
    second = [[0.2, 0.0], [0.8, 0.1], [0.9, 0.2], [np.nan, np.nan]]
    memorised = np.array([[first, second]])
    axes = ("case", "seed", "checkpoint", "class")
    gap = (("case", "seed", "step", "class"), memorised[:, :, 1:])
    variables = {"memorised": (axes, memorised), "gap": gap, "last_step": (("case", "seed"), np.array([LAST]))}
    return xr.Dataset(variables, {"checkpoint": CHECKPOINTS, "step": CHECKPOINTS[1:]})


def test_half_of_a_class_is_memorised_between_two_checkpoints(data: xr.Dataset) -> None:
    half = image_readings.half_memorised(data)
    np.testing.assert_allclose(half[0, 0], [10**1.5, 10**3.5])
    assert half[0, 1, 0] == pytest.approx(10**1.5) and half[0, 1, 1] == np.inf


def test_a_class_that_never_comes_bounds_the_ratio(data: xr.Dataset) -> None:
    np.testing.assert_allclose(image_readings.memorised_first(data, 0, 1), [[10**-2.0, 10**-1.5]])
    np.testing.assert_allclose(image_readings.memorised_first(data, 1, 0), [[10**2.0, 10**1.5]])
    never = data.assign(memorised=data["memorised"] * 0)
    assert np.isnan(image_readings.memorised_first(never, 0, 1)).all()


def test_the_end_is_that_of_each_run(data: xr.Dataset) -> None:
    np.testing.assert_allclose(image_readings.at_end(data, "memorised")[0], [[1.0, 0.75], [0.9, 0.2]])
    np.testing.assert_allclose(image_readings.lead(data, "gap", 0, 1), [[0.25, 0.7]])
    whole = image_readings.at_end(data.drop_vars("last_step"), "memorised")[0]
    np.testing.assert_allclose(whole, [[1.0, 0.75], [np.nan, np.nan]])
