"""The command plan."""

from pathlib import Path

import pytest

from rfdiff import simulation
from rfdiff.cli import entry
from rfdiff.simulation import solver_costs
from tests.cli.command_line import refusal


def test_plan_prints_every_solver(problem_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_costs, "product_rate", lambda dtype: 5e10)
    assert entry.main(["plan", str(problem_file), "--d", "800", "--num-seeds", "3"]) == 0
    told = capsys.readouterr().out
    assert "p = 1600" in told and "3 networks" in told and all(name in told for name in simulation.SOLVERS)
    assert entry.main(["plan", str(problem_file), "--d", "900000"]) == 0
    assert "nothing fits; allowed: a smaller d" in capsys.readouterr().out
    assert "--d: 0; allowed: an integer >= 1" in refusal(capsys, ["plan", str(problem_file), "--d", "0"])
