"""What networks generate as one result: labels, memorised fractions over networks, theory beside it."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from rfdiff import MixtureLaw, Problem, times
from rfdiff.cli.generate import theory_table
from rfdiff.errors import InputError
from rfdiff.generation import Generation, SampleStatistics, at_nearest_time, nearest_time, times_in
from rfdiff.memorisation import memorised_fraction
from tests import synthetic

PROBLEM = Problem(MixtureLaw.isotropic([0.7, 0.3], [1.0, 0.6]), "softplus", t=0.12, psi_p=4.0, psi_n=2.0)
TIMES, TAUS = np.array([2.0, 0.5, 0.1, 0.02]), np.array([3.0, 30.0])


def statistics(seed: int) -> SampleStatistics:
    rng = np.random.default_rng(seed)
    counts = rng.integers(10, 50, (4, 2))
    mean, floor, variance = rng.uniform(size=(3, 4, 2))
    return SampleStatistics(counts, counts // 3, mean, floor, variance, rng.uniform(size=(4, 4, 2)))


def result(**changes: object) -> Generation:
    theory = synthetic.theory(2, np.geomspace(0.1, 1e4, 60))
    fields = {"problem": PROBLEM, "d": 8, "taus": TAUS, "times": TIMES, "networks": (statistics(0), statistics(1)), "num_samples": 60}
    fields |= {"threshold": 1 / 3, "method": "heun-sde", "theory": theory, "theory_times": times(theory), **changes}
    return Generation(**fields)  # type: ignore[arg-type]


def test_every_number_stands_under_its_label() -> None:
    found = result()
    data = found.to_xarray()
    for name in ("counts", "memorised", "mean_error", "mean_error_floor", "variance_error"):
        assert data[name].dims == ("network", "source", "class")
        np.testing.assert_array_equal(data[name][1], getattr(statistics(1), name))
    assert data.score_error.dims == ("network", "source", "time", "class")
    assert list(data.source.values) == ["tau = 3", "tau = 30", "empirical score", "exact score"]
    np.testing.assert_array_equal(data.tau, [3, 30, np.nan, np.nan])
    one, two = statistics(0), statistics(1)
    expected = memorised_fraction([one.counts[2, 1], two.counts[2, 1]], [one.memorised[2, 1], two.memorised[2, 1]])
    np.testing.assert_array_equal(data.memorised_interval.sel(source="empirical score")[1], expected)
    assert data.attrs["t"] == 0.1 and data.attrs["samples"] == 60
    np.testing.assert_array_equal(data.tau_mem, found.theory_times.tau_mem)  # type: ignore[union-attr]


def test_times_that_the_theory_does_not_resolve_come_back_with_bounds_and_reasons() -> None:
    theory = synthetic.theory(2, np.geomspace(0.1, 10, 40))
    read, again = times(theory), times_in(result(theory=theory, theory_times=times(theory)).to_xarray())
    assert read.text("tau_mem", 0).startswith("> ") and read.reason("tau_mem", 0)
    for name in ("tau_gen", "tau_mem"):
        assert [again.text(name, c) for c in range(2)] == [read.text(name, c) for c in range(2)]
        assert [again.reason(name, c) for c in range(2)] == [read.reason(name, c) for c in range(2)]
    table = theory_table(result(theory=theory, theory_times=read).to_xarray())
    assert table.lines()[1].split()[-1] == read.text("tau_mem", 0).split()[-1] and table.lines()[1].split()[-2] == ">"


def test_theory_may_be_missing() -> None:
    data = result(theory=None, theory_times=None).to_xarray()
    assert np.isnan(data.tau_gen).all() and "theory_score_error" not in data
    xr.testing.assert_equal(data.counts, result().to_xarray().counts)


def test_the_nearest_time_is_that_in_the_logarithm() -> None:
    assert nearest_time(TIMES, 0.12) == 0.1 and nearest_time(TIMES, 0.23) == 0.5  # 0.3 is half-way in t, 0.22 in log t
    assert at_nearest_time(PROBLEM, TIMES).equals(dataclasses.replace(PROBLEM, t=0.1))


def test_networks_of_other_times_are_refused() -> None:
    for networks in ((), (statistics(0), dataclasses.replace(statistics(1), counts=np.ones((3, 2), int)))):
        with pytest.raises(InputError, match=r"^networks: \d given; allowed: at least one, each with 4 sources"):
            result(networks=networks)
