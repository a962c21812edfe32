"""Weights of the classes in the loss on the command line: read from the problem's file, kept in the result, said beside the table."""

from pathlib import Path

import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.cli import entry
from rfdiff.cli.folder import loss_weight_lines, loss_weight_lines_of
from rfdiff.files import result_file
from rfdiff.problem import Problem
from tests.cli.command_line import TOML, refused, run, words

WEIGHTED = TOML.replace("[mixture]", "loss_weights = [0.2, 0.8]\n[mixture]")
LINE = "weights of the classes in the training loss: 0.2, 0.8; class fractions: 0.6, 0.4"


def test_the_line() -> None:
    assert loss_weight_lines(Problem.from_text(WEIGHTED)) == [LINE] == loss_weight_lines_of({"problem": WEIGHTED})
    assert loss_weight_lines(Problem.from_text(TOML)) == [] == loss_weight_lines_of({})


@pytest.mark.thorough
def test_they_reach_networks_result_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Problem] = []
    run_seeds = simulation.run_seeds

    def recorded(problem: Problem, *arguments: object, **options: object) -> simulation.SeedBatch:
        seen.append(problem)
        return run_seeds(problem, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(simulation, "run_seeds", recorded)
    (tmp_path / "problem.toml").write_text(WEIGHTED)
    status, text = run(*words("simulate", tmp_path / "problem.toml", tmp_path / "out"))
    assert status == 0 and LINE in text
    assert {tuple(np.asarray(problem.loss_weights)) for problem in seen} == {(0.2, 0.8)}
    np.testing.assert_array_equal(np.asarray(result_file.load(tmp_path / "out" / "result.nc").problem.loss_weights), [0.2, 0.8])


def test_malformed_ones_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.toml"
    path.write_text(WEIGHTED.replace("0.2, 0.8", "0.2, 0.9"))
    assert "loss_weights: [0.2, 0.9] sums to 1.1; allowed: a sum of 1" in refused(
        capsys, "predict", str(path), "--out", str(tmp_path / "o")
    )
    assert entry.BAD_INPUT == 2 and not (tmp_path / "o").exists()
