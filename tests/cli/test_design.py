"""The command design: what it writes and prints, how it refuses; the searches themselves have tests of their own."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr

from rfdiff import design
from rfdiff.cli import entry
from rfdiff.cli.design import settings_table, trial_table
from rfdiff.files.dataset_file import load_dataset
from rfdiff.files.storage import load
from rfdiff.rules import GradientFlow, MinibatchSGD
from tests.cli.command_line import TOML, refused, run
from tests.design import made_up

SGD = ["--rule", "sgd", "--step-size", "0.5", "--batch", "1"]


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(TOML)
    return path


def answered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Searches and networks answered at once; what they were asked."""
    asked: list[Any] = []

    def propose(*arguments: Any, **options: Any) -> design.Proposal:
        asked.append((*arguments, options.pop("progress") is not None, options))
        return made_up.proposal() if options["rule"].equals(GradientFlow()) else made_up.sgd_proposal()

    monkeypatch.setattr(design, "propose", propose)
    monkeypatch.setattr(design, "verify", lambda *_, d, key, num_seeds, rule, progress: made_up.trial(num_seeds))
    return asked


def test_design_writes_settings_front_and_networks(problem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, out = answered(monkeypatch), problem.parent / "out"
    status, text = run(
        "design", str(problem), "--out", str(out), "--levers", "loss_weights", "samples_0", "stop_time", "--verify", "--num-seeds", "4"
    )
    assert status == 0
    assert asked[0][1:3] == (design.WorstClass(), design.Levers(True, True, False, (0,), 4.0))
    assert sorted(path.name for path in out.iterdir()) == [".lock", "design.nc", "trade_off.png"]
    with xr.open_dataset(out / "design.nc", engine="h5netcdf") as data:
        found = data.load()
    assert found.attrs["content"] == "design" and found.sizes["seed"] == 4
    np.testing.assert_array_equal(found.score_error, made_up.proposal().score_error)
    np.testing.assert_array_equal(found.difference, made_up.trial().difference)
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["setting", "goal"]
    assert "no loss weight helps, only samples do" in text and "networks" not in lines[0]
    assert isinstance(load(out / "design.nc"), xr.Dataset)
    again = run("plot", str(out / "design.nc"), "--out", str(problem.parent / "again"))
    assert again[0] == 0 and again[1].splitlines()[:-2] == lines[: len(again[1].splitlines()[:-2])]


def test_options_of_other_goals(problem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch)
    common = ["design", str(problem), "--out", str(problem.parent / "out"), "--overwrite"]
    assert run(*common, "--goal", "learned-before", "--pair", "1", "0", "--descent", "0.8")[0] == 0
    assert run(*common, "--goal", "weighted-sum", "--goal-weights", "1", "3", "--levers", "psi_p", "--tau", "inf", "--factor", "2")[0] == 0
    assert asked[0][1] == design.LearnedBefore(1, 0, 0.8)
    assert asked[1][1:3] == (design.WeightedSum((1.0, 3.0)), design.Levers(False, False, True, (), 2.0))
    assert asked[1][4].pop("rule").equals(GradientFlow())
    assert asked[1][4] == {"tau": np.inf, "budget": None, "tolerance": 1e-4}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--goal-weights", "1", "1"], "--goal-weights: not an option of --goal worst-class; it goes with weighted-sum"),
        (["--pair", "0", "1"], "--pair: not an option of --goal worst-class; it goes with learned-before"),
        (["--levers", "weights"], "levers: weights; allowed: loss_weights, stop_time, psi_p, step, batch, averaging, samples_0, samples_1"),
        (["--levers", "loss_weights"], "--tau: missing, and stop_time is no lever"),
        (["--tau", "3"], "--tau: given, and stop_time is a lever"),
        (["--verify", "--num-seeds", "1"], "--num-seeds: 1; allowed: 2 to"),
        (["--descent", "1"], "--descent: 1.0; allowed: 0 < descent < 1"),
        (["--factor", "0.5"], "factor: 0.5; allowed: 1 < factor <= 1000"),
        (["--class-names", "a"], "--class-names: 1 names; allowed: 2"),
        (["--rule", "heavy-ball", "--step-size", "1", "--momentum", "0.5"], "invalid choice 'heavy-ball' for argument '--rule'"),
        (["--rule", "ridge"], "invalid choice 'ridge' for argument '--rule'"),
        (["--rule", "sgd", "--step-size", "0.5"], "--batch: missing; --rule sgd needs it"),
        (["--batch", "1"], "--batch: not an option of --rule gradient-flow"),
        (["--averaging", "-1"], "--averaging: -1.0; allowed: a finite number > 0"),
        (["--levers", "step", "stop_time"], "levers: step; allowed: with rule sgd"),
        (["--budget", "3"], "budget: 3.0; allowed: with rule sgd"),
        ([*SGD, "--levers", "loss_weights", "stop_time"], "levers: loss_weights with uniform batches"),
        ([*SGD, "--budget", "0"], "budget: 0.0; allowed: a finite number of samples over d, at least the 1 of the unchanged setting"),
        ([*SGD, "--tau", "inf", "--levers", "step"], "tau: inf, which visits any number of samples"),
        ([*SGD[:-1], "0.01", "--verify", "--d", "24"], "--batch: 0.0025 makes no batch at d = 24"),
        ([*SGD, "--verify", "--num-seeds", "1"], "--num-seeds: 1; allowed: 2 to"),
    ],
)
def test_refusals(problem: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = problem.parent / "out"
    assert says in refused(capsys, "design", str(problem), "--out", str(out), *words)
    assert not out.exists()


def test_sgd_has_levers_of_its_own(problem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, out = answered(monkeypatch), problem.parent / "out"
    status, text = run(
        "design", str(problem), "--out", str(out), *SGD, "--averaging", "0.5", "--budget", "20", "--verify", "--num-seeds", "4"
    )
    assert status == 0
    assert asked[0][2] == design.Levers(False, True, step=True, batch=True, averaging=True)
    options = asked[0][4]
    assert options["rule"].equals(MinibatchSGD(0.5, 1.0, averaging=0.5)) and options["budget"] == 20
    heading, *_ = text.splitlines()
    assert heading.split()[:9] == ["setting", "goal", "stop", "time", "psi_p", "step", "batch", "/", "d"] and "visited / d" in heading
    assert "training rule, unchanged: sgd, step size 0.5, batch 1.0, averaging 0.5" in text
    assert "it visits 18 d samples of the 20 d that may be visited in 36 steps" in text
    assert load_dataset(out / "design.nc").attrs["rule"] == "sgd"
    again = run("plot", str(out / "design.nc"), "--out", str(problem.parent / "again"))
    assert again[0] == 0 and again[1].splitlines()[:-2] == text.splitlines()[: len(again[1].splitlines()[:-2])]


def test_gradient_flow_takes_decay_and_averaging(problem: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "propose", asking := Mock(return_value=made_up.proposal()))
    assert run("design", str(problem), "--out", str(problem.parent / "out"), "--weight-decay", "0.1", "--averaging", "5")[0] == 0
    assert asking.call_args.kwargs["rule"].equals(GradientFlow(weight_decay=0.1, averaging=5.0))


def test_one_class_is_refused(problem: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem.write_text(TOML.replace("[0.6, 0.4]", "[1.0]").replace("[1.4, 0.5]", "[1.4]"))
    assert "problem: 1 class" in refused(capsys, "design", str(problem), "--out", str(problem.parent / "out"))


def test_tables_for_programs(problem: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answered(monkeypatch)
    assert entry.main(["design", str(problem), "--out", str(problem.parent / "out"), "--table", "json"]) == 0
    (records,) = json.loads(capsys.readouterr().out).values()
    assert [record["setting"] for record in records[::2]] == [
        "unchanged",
        "best loss weights",
        "more samples of class 0",
        "best of all levers",
    ]
    assert records[-1]["change"] == pytest.approx(0.2)
    named = settings_table(made_up.proposal(), ("rare", "common"))
    assert named.rows[1][4].text == "common"
    trial = made_up.trial()
    rows = trial_table(trial).records()
    assert rows[0]["change"] == pytest.approx(trial.difference[0]) and rows[0]["change error"] == pytest.approx(trial.difference_stderr[0])
    assert rows[0]["theory (change)"] == pytest.approx(-1.2)
