"""The table of speciation times and the measurement beside it: what they hold, how a measurement goes on, what is labelled."""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from rfdiff import load, save
from rfdiff.backward import (
    BackwardProcess,
    ReturnFractions,
    classical_time,
    measure_speciation,
    potential_times,
    return_probability,
    speciation_study,
    speciation_table,
    speciation_times,
)
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from tests.tolerances import assert_within, rejects

LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.6], [[0.3, -0.3], [-0.3, 0.3]])
D, NUM, POINTS = 64, 400, 4


def process(law: MixtureLaw = LAW, num_steps: int = 64) -> BackwardProcess:
    return BackwardProcess(GaussianMixture.from_law(law, D, jax.random.key(0)), num_steps=num_steps)


@pytest.mark.thorough
def test_the_table_holds_every_reading() -> None:
    table = speciation_table(LAW, d=D)
    np.testing.assert_array_equal(table.speciation_times, speciation_times(LAW, d=D))
    np.testing.assert_array_equal(table.potential_times, potential_times(LAW, d=D))
    assert table.classical_time == float(classical_time(LAW, d=D))
    assert table.times.shape == (161,) and table.times[0] < table.speciation_times.min() < table.speciation_times.max() < table.times[-1]
    data = table.to_xarray()
    np.testing.assert_array_equal(data.return_probability, return_probability(LAW, table.times, d=D))
    assert data.return_probability.dims == ("time", "class") and data.attrs["d"] == D
    chosen = speciation_table(LAW, d=D, times=[0.5, 1.0])
    np.testing.assert_array_equal(chosen.return_probability, return_probability(LAW, [0.5, 1.0], d=D))


def test_classes_that_are_never_told_apart_have_a_table_too() -> None:
    table = speciation_table(MixtureLaw.isotropic([0.7, 0.3], [1.0, 1.0]), d=D)
    assert np.isnan(table.speciation_times).all() and np.isfinite(table.times).all()
    np.testing.assert_allclose(table.return_probability, np.broadcast_to([0.7, 0.3], (161, 2)), atol=1e-9)


@pytest.fixture(scope="module")
def measured() -> speciation_study.Speciation:
    return measure_speciation(process(), speciation_table(LAW, d=D), key=jax.random.key(1), num_trajectories=NUM, num_times=POINTS)


@pytest.mark.thorough
def test_the_measurement_lies_on_the_closed_form(measured: speciation_study.Speciation) -> None:
    uturns, clones = measured.uturns, measured.clones
    expected = measured.closed_form_at(uturns.times)
    assert_within(uturns.fraction, np.maximum(uturns.error, 0.01), expected, 0.02)
    rejects(lambda: assert_within(uturns.fraction, np.maximum(uturns.error, 0.01), expected[::-1], 0.02))
    pairs = measured.closed_form_at(clones.times) @ np.asarray(LAW.weights)
    assert_within(clones.same, clones.same_stderr, pairs, 0.02)
    assert measured.paths.positions.shape == (40, 65, 1) and set(measured.paths.classes) == {0, 1}


@pytest.mark.thorough
def test_a_speciation_is_saved_and_read_as_its_dataset(measured: speciation_study.Speciation, tmp_path: Path) -> None:
    again = load(save(measured, tmp_path / "speciation.nc"))
    assert isinstance(again, xr.Dataset) and again.attrs["content"] == "speciation"
    xr.testing.assert_equal(again, measured.to_xarray())
    one = load(save(measured.uturns, tmp_path / "uturns.nc"))
    assert isinstance(one, ReturnFractions) and one.equals(measured.uturns)


@pytest.mark.thorough
def test_an_interrupted_measurement_goes_on_to_the_same_numbers(
    measured: speciation_study.Speciation, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, parts = speciation_table(LAW, d=D), dict[str, Mapping[str, np.ndarray]]()
    told: list[tuple[int, int]] = []

    def stopping(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(speciation_study, "clones", stopping)
        with pytest.raises(KeyboardInterrupt):
            measure_speciation(process(), table, key=jax.random.key(1), num_trajectories=NUM, num_times=POINTS, parts=parts)
    assert sorted(parts) == [f"turn-{i}" for i in range(POINTS)]
    again = measure_speciation(
        process(), table, key=jax.random.key(1), num_trajectories=NUM, num_times=POINTS, parts=parts,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    xr.testing.assert_identical(again.to_xarray(), measured.to_xarray())
    assert told[0][0] == POINTS * 2 * NUM and told[-1][0] == told[-1][1]  # the U-turns are not made again


@pytest.mark.thorough
def test_the_error_of_clones_follows_that_of_uturns(measured: speciation_study.Speciation) -> None:
    """Weak order 2: twice as long a step, four times the error; none where the U-turns have none."""
    turns = measured.uturns
    assert np.all(measured.clone_systematic == 0) or np.any(turns.systematic > 0)
    biased = type(turns)(turns.times, turns.posterior + 0.1, turns.stderr, turns.posterior, np.full_like(turns.stderr, 1e-3))
    study = type(measured)(**{**vars(measured), "uturns": biased})
    inside = (study.clones.times > turns.times.min()) & (study.clones.times < turns.times.max())
    assert np.all(study.clone_systematic[inside] > 0.1)
