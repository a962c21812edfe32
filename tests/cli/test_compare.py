"""The commands predict, compare and plot: what they write and print."""

import dataclasses
import io
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.agreement import assess
from rfdiff.class_times import readings
from rfdiff.cli import command, curve_results, entry
from rfdiff.files import result_file
from rfdiff.problem import Problem
from tests.cli.command_line import SEEDS, TAUS, D, leaves, refusal, words


def test_compare_writes_what_the_library_computes(compared: types.SimpleNamespace) -> None:
    result = result_file.load(compared.out / "result.nc")
    problem, taus = Problem.from_toml(compared.problem), np.array([float(tau) for tau in TAUS])
    assert leaves((result.theory, result.covering)) == leaves(theory.covering_curves(problem, taus))
    assert leaves(result.spectrum) == leaves(theory.spectrum(problem))
    large, small = jax.random.split(jax.random.key(0))
    for found, d, key in ((result.simulation, D, large), (result.smaller, D // 2, small)):
        batches = [simulation.run_seeds(problem, taus, d=d, key=key, seeds=[r]) for r in range(SEEDS)]
        assert leaves(found) == leaves(simulation.summarize(batches))
        assert found is not None
        assert found.dimension == d
    assert result.theory is not None
    assert result.simulation is not None
    assert result.smaller is not None
    agreement = assess(result.theory, result.simulation, result.smaller)
    assert compared.status == (command.AGREE if agreement.agrees else command.DISAGREE)
    assert result.problem.to_toml() == problem.to_toml()
    recorded = {name: result.metadata[name] for name in ("command", "rule", "d", "num_seeds", "random_seed", "tolerance")}
    assert recorded == {"command": "compare", "rule": "gradient-flow", "d": D, "num_seeds": SEEDS, "random_seed": 0, "tolerance": 1e-6}


def test_compare_prints_table_verdict_places_and_cost(compared: types.SimpleNamespace) -> None:
    result = result_file.load(compared.out / "result.nc")
    assert "\n".join(curve_results.times_table(result.covering, result.simulation, 0.5)[0].lines()) in compared.text
    assert result.theory is not None and result.simulation is not None and result.smaller is not None
    assert "\n".join(curve_results.verdict_lines(assess(result.theory, result.simulation, result.smaller))) in compared.text
    assert f"in {compared.out}: result.nc, curves.png, spectrum.png, agreement.png" in compared.text
    assert "s wall time, " in compared.text.splitlines()[-1]
    assert compared.text.splitlines()[-1].endswith("GiB peak memory")
    assert sorted(path.name for path in compared.out.iterdir()) == [".lock", "agreement.png", "curves.png", "result.nc", "spectrum.png"]


@pytest.mark.thorough
def test_plot_draws_a_file_again(compared: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["plot", str(compared.out / "result.nc"), "--out", str(tmp_path / "new")]) == compared.status
    told = capsys.readouterr().out
    assert compared.text.splitlines()[:8] == told.splitlines()[:8]
    for name in ("curves.png", "spectrum.png", "agreement.png"):
        assert (tmp_path / "new" / name).read_bytes() == (compared.out / name).read_bytes()
    line = refusal(capsys, ["plot", str(compared.out / "result.nc"), "--out", str(tmp_path / "new")])
    assert "already holds curves.png, spectrum.png, agreement.png" in line
    assert entry.main(["plot", str(compared.out / "result.nc"), "--out", str(tmp_path / "new"), "--overwrite"]) == compared.status
    (tmp_path / "result.nc").write_bytes((compared.out / "result.nc").read_bytes())
    (tmp_path / "curves.png").write_bytes(b"of an older drawing")
    assert entry.main(["plot", str(tmp_path / "result.nc")]) == compared.status  # the figures of the file's own folder are made anew
    assert (tmp_path / "curves.png").read_bytes() == (compared.out / "curves.png").read_bytes()


@pytest.mark.thorough
def test_disagreement_is_exit_status_one(compared: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_file.load(compared.out / "result.nc")
    assert result.theory is not None
    wrong = dataclasses.replace(result.theory, test_loss=np.asarray(result.theory.test_loss)[:, ::-1])
    path = result_file.save(dataclasses.replace(result, theory=wrong), tmp_path / "swapped.nc")
    assert entry.main(["plot", str(path)]) == command.DISAGREE


@pytest.mark.thorough
def test_times_of_the_theory_do_not_depend_on_the_times_shown(
    problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table and the marks of the figure come from the closed form at all times, in the file too."""
    printed = []
    for name, taus in (("few", ["0.1", "1", "10", "100"]), ("far", ["1", "100", "1e6", "inf"])):
        assert entry.main(["predict", str(problem_file), "--taus", *taus, "--out", str(tmp_path / name)]) == 0
        printed.append([line for line in capsys.readouterr().out.splitlines() if " theory " in line])
        result = result_file.load(tmp_path / name / "result.nc")
        assert result.theory is not None and result.covering is not None and result.theory.taus.size == 4
        values = readings(result.covering, 0.5)[0]
        assert printed[-1][0].split()[3:7] == [f"{row[0]:.4g}" for row in values[:4]]
    assert printed[0] == printed[1] and "-" not in printed[0][0].split()
    assert entry.main(["plot", str(tmp_path / "few" / "result.nc"), "--out", str(tmp_path / "again")]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if " theory " in line] == printed[0]


def test_predict_holds_theory_alone(problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(words("predict", problem_file, tmp_path / "out")) == 0
    result = result_file.load(tmp_path / "out" / "result.nc")
    assert result.theory is not None
    assert result.spectrum is not None
    assert (result.simulation, result.smaller) == (None, None)
    assert "seeds" not in result.metadata
    told = capsys.readouterr().out
    assert "theory" in told
    assert "simulation" not in told
    assert "verdict" not in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "curves.png", "result.nc", "spectrum.png"]


def test_standing_results_are_refused_before_anything_is_computed(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "curves.png").write_bytes(b"mine")

    def computed(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed before refusing")

    with monkeypatch.context() as patch:
        patch.setattr(simulation, "run_seeds", computed)
        patch.setattr(theory, "time_grid", computed)
        patch.setattr(theory, "covering_curves", computed)
        for command in ("predict", "simulate", "compare"):
            line = refusal(capsys, [command, str(problem_file), "--out", str(out)])
            assert "already holds curves.png; choose another folder or add --overwrite" in line
    assert (out / "curves.png").read_bytes() == b"mine"
    assert sorted(path.name for path in out.iterdir()) == ["curves.png"]
    assert entry.main(words("simulate", problem_file, out, "--overwrite")) == 0
    assert (out / "curves.png").read_bytes() != b"mine"


def test_output_suits_a_terminal_without_unicode(
    compared: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", plain)
    assert entry.main(["plot", str(compared.out / "result.nc"), "--out", str(tmp_path / "ψ")]) == compared.status
    assert entry.main(["forecast"]) == entry.BAD_INPUT
    told = plain.buffer.getvalue().decode("ascii")
    assert told.replace(" +- ", " ± ").replace("...", "…").splitlines()[2].split() == compared.text.splitlines()[2].split()
    assert capsys.readouterr().err.splitlines()[-1].startswith("rfdiff: forecast: no such command; allowed: init, fit, diagnose, predict, ")
