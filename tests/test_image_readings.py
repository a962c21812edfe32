"""Readings of U-Nets on results whose answer is known: runs that end at different steps, and a class that is never memorised."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import rfdiff
from experiments import harness, image_readings, images

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


RUNS: list[images.Run] = [("smoke", [8, 7], [24, 24], seed) for seed in range(2)]


def keep(places: images.Places, run: images.Run, last: int) -> None:
    """A finished run of made-up numbers, and its theory, as `trained` and `predicted` keep them."""
    settings = images.settings_of(*run)
    sizes = {"step": settings.measured_steps(), "checkpoint": [step for step in settings.kept_steps() if step >= 30]}
    lengths = {**{name: len(values) for name, values in sizes.items()}, "set": 2, "class": 2, "other": 2, "reading": 4, "log_snr": 3}
    lengths |= {"curve_reading": 3, "predicted_reading": 2}
    axes = {name: own for name, own in images.RUN_AXES.items() if name != "grid"}
    made = {name: (own, np.full([lengths[axis] for axis in own], 0.75)) for name, own in axes.items()}
    whole = xr.Dataset({**made, "grid": (images.RUN_AXES["grid"], np.zeros((2, 2, 8, 7, 7), np.uint8))}, sizes)
    record = json.dumps({"settings": settings.record(), "form": dataclasses.asdict(images.SIZES["smoke"])})
    places.finished.mkdir(exist_ok=True)
    rfdiff.save(whole.assign(last_step=last), places.file(run), run=record)
    constants = [0.1, 4.0, 0.0, images.TOLERANCE, images.TAUS[0], images.TAUS[-2], len(images.TAUS)]
    law = {name: (own, np.full([lengths[axis] for axis in own], 2.0)) for name, own in images.THEORY_AXES.items()}
    theory = json.dumps({"protocol": dataclasses.asdict(settings.protocol), "theory": constants})
    rfdiff.save(xr.Dataset(law), places.theory(run), run=theory)


def test_the_result_of_the_runs_that_are_finished(tmp_path: Path) -> None:
    places, cells = images.Places(tmp_path / "runs", tmp_path / "runs.partial"), harness.Cells(tmp_path / "cells", [])
    case: list[images.Case] = [([8, 7], [24, 24])]
    with pytest.raises(ValueError, match="no finished run of the form smoke"):
        images.computed("smoke", cells, places, case, 2, at_each_t=False, finished=True)
    keep(places, RUNS[1], last=42)
    whole = images.computed("smoke", cells, places, case, 2, at_each_t=False, finished=True)
    assert whole["ran"].values.tolist() == [[False, True]] and cells.seconds == 45.0
    assert np.isnan(whole["memorised"][0, 0]).all() and (whole["memorised"][0, 1] == 0.75).all()
    assert image_readings.half_memorised(whole)[0].tolist() == [[np.inf] * 2, [whole["checkpoint"].values[0]] * 2]
    assert "42 steps (0.8 minutes of processor time)" in image_readings.table(whole)
    assert image_readings.judged("lead", float(image_readings.lead(whole, "gap", 0, 1)[0].min()), ".2f", "> 0", False).holds is None
    assert len(image_readings.draw(whole, "two seeds").axes) == 4
    assert (whole["predicted"][0, 1] == 2.0).all()
    places.theory(RUNS[1]).unlink()
    assert np.isnan(images.computed("smoke", cells, places, case, 2, at_each_t=False, finished=True)["predicted"]).all()


def test_a_kept_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    places = images.Places(tmp_path / "runs", tmp_path / "runs.partial")
    keep(places, RUNS[0], last=60)
    assert int(images.trained(places, RUNS[0])["last_step"]) == 60
    places.file(RUNS[0]).rename(places.file(RUNS[1]))
    with pytest.raises(ValueError, match="seed-1.nc: not of these settings; .* delete it to compute it again"):
        images.trained(places, RUNS[1])
