"""The command speciate: what it writes and prints, how it refuses, stops and goes on."""

import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from rfdiff import MixtureLaw, Problem, backward, save
from rfdiff.backward import speciation_study
from rfdiff.cli import entry, speciate
from rfdiff.cli.command import DISAGREE
from rfdiff.files.dataset_file import load_dataset, save_dataset
from tests.cli.command_line import run

TOML = """\
activation = "tanh"
t = 0.1
psi_p = 8.0
psi_n = 4.0
[mixture]
weights = [0.7, 0.3]
variances = [1.5, 0.6]
"""
GROUPS = TOML.replace("variances = [1.5, 0.6]", "eigenvalues = [[2.5, 0.6], [0.5, 0.6]]\neigenvalue_weights = [0.5, 0.5]")
GRAM = "centroid_gram = [[0.3, -0.3], [-0.3, 0.3]]\n"
SMALL = ["--d", "64", "--num-trajectories", "400", "--num-times", "4", "--num-steps", "32"]
FILES = [".lock", "return_probability.png", "speciation.nc", "trajectories.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is stopped at its third U-turn, then finished."""
    out = tmp_path_factory.mktemp("speciate")
    (out / "problem.toml").write_text(TOML + GRAM)
    arguments = ["speciate", str(out / "problem.toml"), *SMALL, "--out", str(out / "result")]
    turned, uturn = [], backward.uturn

    def stopping(process: Any, times: Any, **rest: Any) -> Any:
        turned.append(times[0])
        if len(turned) == 3:
            raise KeyboardInterrupt
        return uturn(process, times, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speciation_study, "uturn", stopping)
        errors = io.StringIO()
        patch.setattr(sys, "stderr", errors)
        assert run(*arguments)[0] == entry.INTERRUPTED
        assert "interrupted; 2 of 5 points are kept, the same command resumes from them" in errors.getvalue()
        status, told = run(*arguments)
    assert status == 0 and len(turned) == 5 and turned[2] == turned[3]  # the two kept ones are not turned again
    (out / "told").write_text(told)
    return out


@pytest.mark.thorough
def test_files_and_table(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "result").iterdir()) == FILES
    told = (folder / "told").read_text()
    assert "backward process of the exact score at d = 64, 400 trajectories for each point" in told
    assert "verdict: measurement and closed form agree (allowed: " in told
    assert "from the start" in told and "s.e." in told and "in " + str(folder / "result") in told
    data = load_dataset(folder / "result" / "speciation.nc")
    assert data.attrs["content"] == "speciation" and data.attrs["d"] == 64 and data.sizes["turn_time"] == 4
    assert np.all((data.uturn >= 0) & (data.uturn <= 1)) and data.return_probability.shape == (161, 2)
    assert data.path.dims == ("trajectory", "path_time", "axis") and data.sizes["axis"] == 1
    theory = data.uturn_theory.values
    np.testing.assert_allclose(theory[0], data.return_probability.values[0])
    assert np.all(np.abs(data.uturn.values - theory) < 4 * data.uturn_stderr.values + 0.03)  # at d = 64, in 32 steps
    statistical = np.sqrt(np.maximum(theory * (1 - theory), 0.5 / 400 * (1 - 0.5 / 400)) / 400)
    worst = abs(data.uturn.values - theory) / np.hypot(np.hypot(statistical, data.uturn_systematic), data.posterior - theory)
    assert all(f"{number:.1f} s.e." in told for number in worst.max(axis=0))
    well = data.well_time.values
    assert well[0] == np.inf and 0 < well[1] < 5


@pytest.mark.thorough
def test_plot_draws_it_again(folder: Path, tmp_path: Path) -> None:
    status, told = run("plot", str(folder / "result" / "speciation.nc"), "--out", str(tmp_path))
    assert status == 0 and "classical estimate" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == [*FILES[:2], FILES[3]]
    assert run("plot", str(folder / "result" / "speciation.nc"), "--out", str(tmp_path))[0] == entry.BAD_INPUT


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["groups", "matrices"])
def test_classes_that_are_not_isotropic(kind: str, tmp_path: Path) -> None:
    """Joint eigenvalue groups at a given dimension; matrices, three classes, at their own. Measurement and theory agree."""
    path = tmp_path / "problem.toml"
    if kind == "groups":
        path.write_text(GROUPS + GRAM)
        words, d, classes = SMALL, 64, 2
    else:
        rng = np.random.default_rng(0)
        roots = rng.normal(size=(3, 12, 24)) / 24**0.5
        covariances = (roots @ np.swapaxes(roots, 1, 2)) * np.array([2.0, 1.0, 0.4])[:, None, None]
        law = MixtureLaw.from_covariances([0.5, 0.3, 0.2], covariances, rng.normal(size=(3, 12)))
        save(Problem(law, "tanh", 0.1, 4.0, 4.0), path)
        words, d, classes = ["--num-trajectories", "1500", "--num-times", "4", "--num-steps", "128"], 12, 3
    status, told = run("speciate", str(path), *words, "--out", str(tmp_path / "result"))
    assert (
        status == 0 and f"backward process of the exact score at d = {d}, " in told and "verdict: measurement and closed form agree" in told
    )
    data = load_dataset(tmp_path / "result" / "speciation.nc")
    assert data.return_probability.shape == (41, classes) and data.attrs["full"] == 1
    assert np.all(data.return_error <= 1e-3) and np.all(data.speciation_error < 1e-2)
    law = Problem.from_toml(path).mixture
    np.testing.assert_allclose(data.speciation_time, backward.speciation_times(law, d=d), rtol=1e-9)
    if kind == "matrices":
        assert run("speciate", str(path), "--d", "8", *SMALL[2:], "--out", str(tmp_path / "other"))[0] == entry.BAD_INPUT


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        ([], TOML.replace("[0.7, 0.3]", "[1.0]").replace("[1.5, 0.6]", "[1.5]"), "K >= 2, since a single class has no speciation"),
        (["--d", "1"], TOML, "--d: 1; allowed: 2 to"),
        (["--num-times", "1"], TOML, "--num-times: 1; allowed: 2 to 1000"),
        (["--num-steps", "50"], TOML, "--num-steps: 50; allowed: a multiple of --num-times"),
        (["--num-trajectories", "1"], TOML, "--num-trajectories: 1; allowed: 10 to"),
        (["--seed", "-1"], TOML, "--seed: -1; allowed: 0 to"),
        (["--d", "1000000", "--num-trajectories", "1000000", "--full"], TOML, "GiB"),
        (
            ["--d", "2"],
            GROUPS.replace("[0.5, 0.5]", "[0.5, 0.25, 0.25]").replace("[0.5, 0.6]", "[0.5, 0.6], [0.1, 0.1]"),
            "d: 2; allowed: ",
        ),
    ],
)
def test_refusals(words: list[str], text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "problem.toml").write_text(text)
    assert entry.main(["speciate", str(tmp_path / "problem.toml"), *words, "--out", str(tmp_path / "out")]) == entry.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_results_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["speciate", str(folder / "problem.toml"), *SMALL, "--out", str(folder / "result")]) == entry.BAD_INPUT
    assert "already holds speciation.nc" in capsys.readouterr().err


def told_of(data: xr.Dataset) -> list[str]:
    """Everything that is printed of a dataset."""
    return [*speciate.head_lines(data), *speciate.speciation_table(data).lines()]


def test_table_of_what_is_never_reached() -> None:
    """Classes that nothing tells apart, and clones of which none fell into a class."""
    shares = (("turn_time", "class"), np.full((2, 2), 0.5))
    clones = (("clone_time", "class"), np.full((1, 2), np.nan))
    data = xr.Dataset(
        {
            "return_probability": (("time", "class"), np.full((3, 2), 0.5)), "uturn": shares, "uturn_stderr": shares,
            "clone": clones, "clone_stderr": clones, "clone_theory": clones, "uturn_theory": shares,
            "speciation_time": ("class", [np.nan, 1.0]),
            "well_time": ("class", [np.inf, np.nan]), "weight": ("class", [0.5, 0.5]), "variance": ("class", [1.0, 1.0]),
        },
        {"time": [0.0, 1.0, 2.0], "turn_time": [0.5, 1.0], "clone_time": [1.0]},
        {"d": 9, "trajectories": 7, "classical_time": 1.0},
    )  # fmt: skip
    lines = speciate.speciation_table(data).lines()
    assert lines[-2].split()[:4] == ["0", "0.5", "1", "-"] and lines[-2].endswith("-")


@pytest.mark.thorough
def test_steps_that_are_too_few_are_said(folder: Path) -> None:
    """Where steps move the U-turns, a line says so, and the deviations are counted in errors that include it."""
    data = load_dataset(folder / "result" / "speciation.nc")
    assert not any("are too few" in line for line in told_of(data))
    moved = data.assign(uturn=data.uturn + 0.4, uturn_systematic=0.4 + 0 * data.uturn, clone_systematic=0.4 + 0 * data.clone)
    told = told_of(moved)
    assert any(line.startswith("32 steps are too few: at t = ") and "by 0.4" in line and "use more --num-steps" in line for line in told)
    blind = told_of(moved.drop_vars(["uturn_systematic", "clone_systematic"]))  # a file of an earlier version
    worst = [float(re.findall(r"([0-9.]+) s\.e\.", lines[-1])[0]) for lines in (told, blind)]
    assert worst[0] < 4 < worst[1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("systematic", "line"),
    [
        (0.0, "verdict: measurement and closed form DISAGREE: U-turns of class"),
        (0.4, "verdict: INCONCLUSIVE, the steps move U-turns of class 0 at t = "),
    ],
)
def test_a_measurement_that_does_not_confirm_the_closed_form_has_status_1(
    systematic: float, line: str, folder: Path, tmp_path: Path
) -> None:
    """Off by 0.4, whether or not the steps explain it: with too few of them nothing is confirmed."""
    data = load_dataset(folder / "result" / "speciation.nc")
    moved = data.assign(uturn=abs(data.uturn - 0.4), uturn_systematic=systematic + 0 * data.uturn)
    save_dataset(moved, tmp_path / "speciation.nc", command="speciate")
    status, told = run("plot", str(tmp_path / "speciation.nc"))
    assert status == DISAGREE and line in told and "more --num-steps" in told
