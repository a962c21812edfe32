"""The command times: what it writes and prints, how it refuses."""

import types
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, stacked, times
from rfdiff.cli import tables
from rfdiff.cli import times as times_command
from rfdiff.cli.options import Quantity
from rfdiff.files.dataset_file import load_dataset
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD, Rule
from tests import synthetic
from tests.cli.command_line import refused, run

TOML = """\
activation = "tanh"
t = 0.1
psi_p = 8.0
psi_n = 4.0
[mixture]
weights = [0.5, 0.5]
variances = [1.5, 0.6]
"""


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """One run of `rfdiff times` without derivatives, with what it printed."""
    folder = tmp_path_factory.mktemp("times")
    (folder / "problem.toml").write_text(TOML)
    status, text = run("times", str(folder / "problem.toml"), "--out", str(folder / "out"), "--num-times", "60")
    return types.SimpleNamespace(status=status, text=text, problem=folder / "problem.toml", out=folder / "out")


@pytest.mark.thorough
def test_times_holds_both_readings_for_xarray_alone(timed: types.SimpleNamespace) -> None:
    assert timed.status == 0
    assert sorted(path.name for path in timed.out.iterdir()) == [".lock", "times.nc", "times.png"]
    with xr.open_dataset(timed.out / "times.nc", engine="h5netcdf") as data:
        found = data.load()
    problem = Problem.from_toml(timed.problem)
    curves, covering = theory.covering_curves(problem, theory.time_grid(problem, num_times=60))
    read, bulks = times(covering), theory.bulk_times(problem)
    np.testing.assert_array_equal(found.time, [getattr(read, name) for name in TIME_NAMES])
    np.testing.assert_array_equal(found.bulk_time, [bulks.tau_gen, bulks.tau_mem])
    np.testing.assert_array_equal(found.bulk_edges, bulks.edges)
    np.testing.assert_array_equal(found.test_loss, curves.test_loss)
    assert bool(found.separated) and "elasticity" not in found
    lines = timed.text.splitlines()
    assert lines[0].split()[:4] == ["class", "weight", "read", "from"]
    gen, spectral = read.tau_gen[1], bulks.tau_gen[1]
    shown = [line.split() for line in lines[4:7]]
    assert shown[0][:4] == ["1", "0.5", "curves", tables.number(gen)]
    assert shown[1][:2] == ["spectrum", tables.number(spectral)]
    assert shown[2][:2] == ["spectrum/curves", tables.number(spectral / gen)]
    assert "generalisation" in timed.text and f"{bulks.fastest[0]:.4g}" in timed.text and f"{bulks.slowest[0]:.4g}" in timed.text


@pytest.mark.thorough
def test_plot_draws_times_again(timed: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(timed.out / "times.nc")
    status, text = run("plot", file, "--out", str(tmp_path))
    assert status == 0
    assert text.splitlines()[:8] == timed.text.splitlines()[:8]
    assert (tmp_path / "times.png").read_bytes() == (timed.out / "times.png").read_bytes()
    assert "already holds times.png" in refused(capsys, "plot", file, "--out", str(tmp_path))
    assert "--quantity: applies only to a file of rfdiff phase-map" in refused(capsys, "plot", file, "--quantity", "tau_gen")
    assert "already holds times.nc, times.png" in refused(capsys, "times", str(timed.problem), "--out", str(timed.out))


def test_bulks_that_overlap_and_elasticities_are_told() -> None:
    def four(values: Any) -> ClassTimes:
        return ClassTimes(values[0], values[1], values[2], values[3])

    slopes = {name: four([np.array([i + j / 10, np.nan]) for j in range(4)]) for i, name in enumerate(("t", "psi_p"))}
    found = theory.TimeSensitivity(times(synthetic.theory()), slopes, four(np.zeros((4, 2, 2, 2))), 1e-7)
    data = times_command.labelled(synthetic.problem(), synthetic.theory(), synthetic.spectrum(), times(synthetic.theory(), q=0.4), found)
    table, rates = times_command.time_tables(data)  # no table of bulks, since no gap separates them
    assert list(table.headings[-2:]) == ["tau_opt(0.4)", "tau_mem/tau_gen"]
    assert table.lines()[2].split() == ["spectrum", "-", "-", "-", "-", "-"]
    assert rates.lines()[0].split()[:7] == ["d", "log", "time", "/", "d", "log", "tau_gen,"]
    assert rates.lines()[-1].split() == ["psi_p", "+1.000", "-", "+1.100", "-", "+1.200", "-", "+1.300", "-"]


RULES: dict[str, tuple[list[str], str, Rule]] = {
    "averaged": (["--averaging", "50"], "gradient-flow, averaging 50.0", GradientFlow(averaging=50.0)),
    "sgd": (
        ["--rule", "sgd", "--step-size", "0.5", "--batch", "2", "--averaging", "0.99"],
        "sgd, step size 0.5, batch 2.0, averaging 0.99",
        MinibatchSGD(0.5, 2, averaging=0.99),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["averaged", pytest.param("sgd", marks=pytest.mark.slow)])
def test_times_under_a_rule_are_those_of_its_curves(name: str, timed: types.SimpleNamespace, tmp_path: Path) -> None:
    words, meaning, rule = RULES[name]
    status, text = run("times", str(timed.problem), "--out", str(tmp_path / "out"), "--num-times", "60", *words)
    assert status == 0
    told = f"training rule of the curves: {meaning}; what is read from the spectrum are times of gradient flow"
    assert told in text and told not in timed.text
    found, flow = load_dataset(tmp_path / "out" / "times.nc"), load_dataset(timed.out / "times.nc")
    expected = theory.times(Problem.from_toml(timed.problem), rule=rule)
    np.testing.assert_allclose(found.time, [getattr(expected, name) for name in TIME_NAMES], rtol=1e-9)
    np.testing.assert_array_equal(found.bulk_time, flow.bulk_time)
    assert np.all(found.time[0] > 1.5 * flow.time[0])
    status, again = run("plot", str(tmp_path / "out" / "times.nc"), "--out", str(tmp_path / "new"))
    assert status == 0 and told in again


@pytest.mark.slow
def test_elasticities_are_those_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "problem.toml").write_text(TOML)
    status, text = run("times", str(tmp_path / "problem.toml"), "--out", str(tmp_path / "out"), "--sensitivity")
    assert status == 0
    found, expected = load_dataset(tmp_path / "out" / "times.nc"), theory.sensitivity(Problem.from_toml(tmp_path / "problem.toml"))
    for name, slopes in expected.elasticities.items():
        np.testing.assert_array_equal(found.elasticity.sel(parameter=name, quantity="tau_mem"), slopes.tau_mem)
        assert any(line.split()[:2] == [name, f"{slopes.tau_gen[0]:+.3f}"] for line in text.splitlines())
    np.testing.assert_allclose(found.time.sel(quantity="tau_mem"), expected.times.tau_mem, rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q", "0"], "--q: 0.0; allowed: 0 < q < 1"),
        (["--num-times", "19"], "--num-times: 19; allowed: 20 to 100000"),
        (["--tolerance", "1e-12"], "--tolerance: 1e-12; allowed: 1e-9 <= tolerance <= 0.1"),
        (["--sensitivity"], "--sensitivity: psi_p = 8 = psi_n m, where the curves have no limit"),
    ],
)
def test_bad_times_are_refused_in_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "problem.toml").write_text(TOML.replace("[mixture]", "noise_draws = 2\n[mixture]"))
    line = refused(capsys, "times", str(tmp_path / "problem.toml"), "--out", str(tmp_path / "out"), *arguments)
    assert message in line
    assert not (tmp_path / "out").exists()


def test_bounds_and_reasons_are_kept_in_the_file() -> None:
    bounds = {"tau_mem": np.array([[28.5, np.nan], [np.nan, np.nan]])}
    reasons = (("", ""), ("", ""), ("the grid ends before", ""), ("", ""))
    read = ClassTimes(np.ones(2), np.ones(2), np.array([np.nan, 2.0]), np.ones(2), q=0.5, bounds=bounds, reasons=reasons)
    data = xr.Dataset(
        {"time": (("quantity", "class"), stacked(read)), "tau_mem_bounds": (("class", "bound"), bounds["tau_mem"])},
        {"quantity": list(TIME_NAMES)},
        {"q": 0.5, "reasons": read.to_xarray().attrs["reasons"]},
    )
    again = times_command.times_in(data)
    assert again.text("tau_mem", 0) == "> 28.5" and again.reason("tau_mem", 0) == "the grid ends before" and again.text("tau_gen", 1) == "1"


def test_the_words_of_quantity_are_the_names_of_the_times() -> None:
    assert typing.get_args(Quantity) == ("all", *TIME_NAMES)
