"""Command lines that are understood, refused and explained."""

import ast
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from rfdiff.cli import compare, entry, parsing, plot
from rfdiff.files import result_file
from tests import synthetic
from tests.cli.command_line import TOML, Words, refusal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command missing; allowed: init, fit, diagnose, predict, simulate, compare, plan, .*see rfdiff --help"),
        (["forecast"], "forecast: no such command; allowed: init, fit, diagnose, predict, .*see rfdiff --help"),
        (["predct"], "predct: no such command, did you mean predict?"),
        (["predict", "PROBLEM", "--ouut", "o"], r"--ouut: not an option of rfdiff predict; did you mean --out\? \(see rfdiff predict "),
        (["predict", "PROBLEM", "--taus=1,x,3"], r"--taus: 'x' is not a number \(see rfdiff predict --help\)"),
        (["simulate", "PROBLEM", "--d", "9" * 5000], "--d: 5000 characters; allowed: at most 4096"),
        (["predict", "PROBLEM", "--out", "a\0b"], "--out: holds a null character"),
        (["predict", "PROBLEM", "--size", "5", "100"], "--size: 5 100; allowed: two lengths in inches, 1 to 60"),
        (["predict", "PROBLEM", "--class-names", "broad"], "--class-names: 1 names; allowed: 2, one for each class"),
        (["predict", "PROBLEM", "--format", "gif"], "invalid choice 'gif'"),
        (["predict", "PROBLEM", "--tolerance", "0.99"], "--tolerance: 0.99; allowed: 1e-9 <= tolerance <= 0.1"),
        (["predict", "PROBLEM", "--out", "~nobody_of_this_name/x"], "out: ~nobody_of_this_name/x: Could not determine home"),
        (["images", "fly"], "fly: no such action; allowed: data, train, evaluate .*see rfdiff images --help"),
        (["init", "problem.toml"], "problem.toml: exists already; choose another name or add --overwrite"),
        (["predict"], "missing: PROBLEM.toml"),
        (["predict", "PROBLEM", "--psi", "3"], "--psi: not an option of rfdiff predict"),
        (["predict", "PROBLEM", "--d", "10"], "--d: not an option of rfdiff predict; it belongs to simulate, compare, plan, "),
        (["predict", "PROBLEM", "again.toml"], "Unrecognized options: again.toml"),
        (["compare", "PROBLEM", "--d", "ten"], "rfdiff: --d: 'ten'; allowed: an integer .see"),
        (["compare", "PROBLEM", "--d"], "Missing value for argument '--d'.*see rfdiff compare --help"),
        (["compare", "PROBLEM", "--num-seeds", "2.5"], "rfdiff: --num-seeds: '2.5'; allowed: an integer .see"),
        (["predict", "PROBLEM", "--taus", "1", "x"], "--taus: 'x' is not a number"),
        (["predict", "PROBLEM", "--tolerance", "small"], "rfdiff: --tolerance: 'small'; allowed: a number .see"),
        (["predict", "PROBLEM", "--rule", "adam"], "invalid choice 'adam' for argument '--rule'. Expected one of .*'ridge'"),
        (["compare", "PROBLEM", "--dtype", "float16"], "invalid choice 'float16'"),
        (["compare", "PROBLEM", "--d", "3"], "--d: 3; allowed: an integer >= 4"),
        (["compare", "PROBLEM", "--d", "99999999999999999999999"], "--d: 99999999999999999999999; allowed: .* <= 2147483648"),
        (["simulate", "PROBLEM", "--d", "2147483649"], "--d: 2147483649; allowed: an integer >= 1 and <= 2147483648"),
        (["predict", "PROBLEM", "--taus"], "--taus: given without a number; allowed: at least 3"),
        (["predict", "PROBLEM", "--rule", "ridge", "--penalties"], "--penalties: given without a number; allowed: at least 3"),
        (["predict", "PROBLEM", "--penalties"], "--penalties: given without a number"),
        (["predict", "NESTED"], "nested.toml: not a TOML file"),
        (["simulate", "PROBLEM", "--d", "0"], "--d: 0; allowed: an integer >= 1"),
        (["compare", "PROBLEM", "--num-seeds", "1"], "--num-seeds: 1; allowed: 2 to 1000000, for a standard error"),
        (["simulate", "PROBLEM", "--num-seeds", "0"], "--num-seeds: 0; allowed: 1 to 1000000"),
        (["simulate", "PROBLEM", "--krylov-tolerance", "1e-4"], "--krylov-tolerance: applies only to Krylov solvers, not to --solver auto"),
        (
            ["simulate", "PROBLEM", "--solver", "krylov", "--krylov-tolerance", "2"],
            "--krylov-tolerance: 2.0; allowed: 0 < krylov_tolerance < 1",
        ),
        (["simulate", "PROBLEM", "--num-seeds", "1000000000"], "--num-seeds: 1000000000; allowed: 1 to 1000000"),
        (["simulate", "PROBLEM", "--seed", "-1"], "--seed: -1; allowed: 0 to"),
        (["predict", "PROBLEM", "--num-times", "2"], "--num-times: 2; allowed: 3 to 100000"),
        (["simulate", "PROBLEM", "--taus", "1", "2"], "--taus: 2 given; allowed: at least 3"),
        (["predict", "PROBLEM", "--taus", "3", "2", "1"], "taus: .* does not increase strictly"),
        (["predict", "PROBLEM", "--taus", "-1", "2", "3"], "taus: .*allowed: a non-empty list of training times >= 0"),
        (["predict", "PROBLEM", "--taus", "1", "2", "nan"], "taus: .*allowed: a non-empty list of training times >= 0"),
        (["predict", "PROBLEM", "--q", "1.5"], "--q: 1.5; allowed: 0 < q < 1"),
        (["predict", "PROBLEM", "--tolerance", "0"], "--tolerance: 0.0; allowed: 1e-9 <= tolerance <= 0.1"),
        (["predict", "PROBLEM", "--rule", "ridge"], "--penalties: missing; --rule ridge needs it"),
        (["predict", "PROBLEM", "--rule", "ridge", "--penalties", "1", "2"], "--penalties: 2 given"),
        (["predict", "PROBLEM", "--rule", "ridge", "--penalties", "1", "2", "0"], "penalties: .*allowed: a list of finite numbers > 0"),
        (["predict", "PROBLEM", "--rule", "ridge", "--penalties", "1", "2", "3", "--taus", "1", "2", "3"], "--taus: not an option of"),
        (["predict", "PROBLEM", "--rule", "gradient-descent"], "--step-size: missing; --rule gradient-descent needs it"),
        (["predict", "PROBLEM", "--rule", "heavy-ball", "--step-size", "1"], "--momentum: missing"),
        (
            ["predict", "PROBLEM", "--rule", "heavy-ball", "--step-size", "1", "--momentum", "1"],
            "momentum: 1.0; allowed: 0 <= momentum < 1",
        ),
        (["predict", "PROBLEM", "--rule", "gradient-descent", "--step-size", "-1"], "--step-size: -1.0; allowed"),
        (
            ["predict", "PROBLEM", "--momentum", "0.5"],
            "--momentum: not an option of --rule gradient-flow; it goes with heavy-ball and nesterov and sgd",
        ),
        (
            ["predict", "PROBLEM", "--rule", "ridge", "--penalties", "1", "2", "3", "--averaging", "3"],
            "--averaging: not an option of --rule ridge; it goes with gradient-flow and gradient-descent and heavy-ball",
        ),
        (["predict", "PROBLEM", "--rule", "sgd", "--step-size", "1"], "--batch: missing; --rule sgd needs it"),
        (["predict", "PROBLEM", "--sampling", "balanced"], "--sampling: not an option of --rule gradient-flow; it goes with sgd"),
        (["predict", "PROBLEM", "--rule", "sgd", "--step-size", "1", "--batch", "1", "--sampling", "even"], "invalid choice"),
        (["times", "PROBLEM", "--rule", "sgd", "--step-size", "1"], "--batch: missing; --rule sgd needs it"),
        (["times", "PROBLEM", "--rule", "ridge"], "--rule: ridge, which has penalties and no training time; allowed: gradient-flow, "),
        (["times", "PROBLEM", "--averaging", "9", "--sensitivity"], "--sensitivity: with gradient-flow, averaging 9.0; allowed: with"),
        (["phase-map", "PROBLEM", "--rule", "ridge"], "--rule: ridge, which has penalties and no training time; allowed: gradient-flow, "),
        (["phase-map", "PROBLEM", "--step-size", "1"], "--step-size: not an option of --rule gradient-flow; it goes with gradient-descent"),
        (["predict", "PROBLEM", "--batch", "1"], "--batch: not an option of --rule gradient-flow; it goes with sgd"),
        (["simulate", "PROBLEM", "--rule", "sgd", "--step-size", "1", "--batch", "1"], "--taus: missing; --rule sgd trains networks step"),
        (
            ["compare", "PROBLEM", "--rule", "sgd", "--step-size", "1", "--batch", "1", "--taus", "1", "2", "inf"],
            "--taus: inf; --rule sgd trains networks step",
        ),
        (["predict", "PROBLEM", "--weight-decay", "-1"], "--weight-decay: -1.0; allowed: a finite number >= 0"),
        (["simulate", "PROBLEM", "--rule", "sgd", "--step-size", "1", "--batch", "0", "--taus", "1", "2", "3"], "--batch: 0.0; allowed: "),
        (
            ["simulate", "PROBLEM", "--rule", "sgd", "--step-size", "0.1", "--batch", "1", "--taus", "1", "10", "1e12"],
            r"--taus: 1e\+12 takes 1e\+13 steps, one by one; allowed: at most",
        ),
        (
            ["simulate", "PROBLEM", "--rule", "sgd", "--step-size", "0.1", "--batch-per-dimension", "1e9", "--taus", "1", "2", "3"],
            "--batch: 1e.09 makes batches of 100000000000 pairs at d = 100, about .* GiB of memory; allowed: smaller ones",
        ),
        (
            ["simulate", "PROBLEM", "--rule", "sgd", "--step-size", "0.1", "--batch", "1e-4", "--taus", "1", "2", "3"],
            "--batch: 0.0001 makes no batch at d = 100",
        ),
        (
            ["compare", "PROBLEM", "--rule", "sgd", "--step-size", "0.1", "--batch", "1", "--taus", "1", "2", "3", "--d", "500000"],
            "--d: 500000 makes p = 1000000 features and needs about",
        ),
        (["predict", "PROBLEM", "--taus", "3", "2", "1"], r"--taus: \[3, 2, 1\] does not increase strictly"),
        (["design", "PROBLEM", "--goal", "weighted-sum", "--goal-weights", "1", "-1"], r"--goal-weights: \(1.0, -1.0\); allowed: finite"),
        (["design", "PROBLEM", "--goal", "learned-before", "--pair", "1", "1"], "--pair: 1 twice; allowed: two different classes"),
        (["design", "PROBLEM", "--levers", "x"], "--levers: x; allowed: loss_weights"),
        (["predict", "PROBLEM", "--step-size", "1"], "it goes with gradient-descent and heavy-ball"),
        (["predict", "absent.toml"], r"absent\.toml: cannot be read \(No such file or directory\)"),
        (["predict", "FOLDER"], "cannot be read"),
        (["predict", "NOT_TOML"], "not a TOML file"),
        (["predict", "BINARY"], "not a TOML file"),
        (["predict", "UNKNOWN_KEY"], "problem: unknown key 'depth'"),
        (["predict", "BAD_VALUE"], "psi_p: -2.0; allowed: a finite number > 0"),
        (["predict", "PROBLEM", "--out", "PROBLEM"], "--out: .*problem.toml is not a folder"),
        (["predict", "PROBLEM", "--out", "PROBLEM/below"], "--out: cannot write to"),
        (["plot"], "missing: FILE"),
        (["plot", "absent.nc"], r"absent\.nc: no such file"),
        (["plot", "PROBLEM"], "problem.toml: cannot be read as a NetCDF file"),
        (["plot", "TRUNCATED"], "truncated.nc: is truncated"),
        (["plot", "RESULT", "--q", "0"], "--q: 0.0; allowed: 0 < q < 1"),
        (["plot", "EMPTY"], "empty.nc: holds neither theory nor simulation"),
        (["--version", "now"], "--version: no such command"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    arguments: Words, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {
        "PROBLEM": ("problem.toml", TOML.encode()),
        "NOT_TOML": ("not.toml", b"t = = 3"),
        "BINARY": ("binary.toml", b"\xff\xfe\x00\x01"),
        "NESTED": ("nested.toml", b"t = " + b"[" * 20000),
        "UNKNOWN_KEY": ("key.toml", b"depth = 3\n" + TOML.encode()),
        "BAD_VALUE": ("value.toml", TOML.replace("psi_p = 2.0", "psi_p = -2.0").encode()),
    }
    for name, content in contents.values():
        (tmp_path / name).write_bytes(content)
    whole = result_file.save(result_file.Result(synthetic.problem(), synthetic.theory()), tmp_path / "whole.nc").read_bytes()
    (tmp_path / "truncated.nc").write_bytes(whole[: len(whole) // 2])
    result_file.save(result_file.Result(synthetic.problem()), tmp_path / "empty.nc")
    places = {key: name for key, (name, _) in contents.items()}
    places |= {"FOLDER": ".", "TRUNCATED": "truncated.nc", "RESULT": "whole.nc", "EMPTY": "empty.nc"}
    line = refusal(capsys, [word.replace(word.split("/")[0], places.get(word.split("/")[0], word.split("/")[0])) for word in arguments])
    assert re.search(message, line), line
    assert not (tmp_path / "rfdiff-out").exists()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rfdiff ")
    for arguments in (
        ["--help"],
        ["predict", "--help"],
        ["simulate", "-h"],
        ["compare", "--help"],
        ["phase-map", "--help"],
        ["times", "--help"],
        ["plot", "--help"],
        ["images", "--help"],
        ["images", "train", "--help"],
        ["init", "--help"],
    ):
        assert entry.main(arguments) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert "usage: rfdiff" in told.out
        assert "(default: None)" not in told.out and "(default: False)" not in told.out
    assert entry.main(["compare", "--help"]) == 0
    told = capsys.readouterr()
    for option in (
        "--d ",
        "--num-seeds ",
        "--seed ",
        "--out ",
        "--num-times ",
        "--taus ",
        "--rule ",
        "--step-size ",
        "--momentum ",
        "--q ",
    ):
        assert option in told.out


def broken_explanations(source: str) -> list[str]:
    """Explanations of options that run over a line: help would break them there, wherever that is."""
    found = []
    for kind in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        for field, text in itertools.pairwise(kind.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and "\n" in ast.literal_eval(text.value):
                found.append(ast.unparse(field.target))
    return found


def test_help_breaks_no_explanation_in_two() -> None:
    for file in Path(parsing.__file__).parent.glob("*.py"):
        assert not broken_explanations(file.read_text()), file.name
        assert not re.search("if not given[,.]", file.read_text()), f"{file.name}: defaults go into hint()"
    assert broken_explanations('class A:\n    x: int = 0\n    """One line,\n    and another."""\n') == ["x"]


@pytest.mark.parametrize(("command", "offered"), [("predict", "sgd,ridge}"), ("times", "nesterov,sgd}"), ("design", "{gradient-flow,sgd}")])
def test_help_offers_the_rules_that_a_command_takes(command: str, offered: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main([command, "--help"]) == 0
    (rules,) = [word for word in capsys.readouterr().out.split() if word.startswith("{gradient-flow,")]
    assert rules.endswith(offered)


def test_parse_gives_the_defaults_and_the_words() -> None:
    command, parsed = parsing.parse(["compare", "a.toml", "--taus", "0", "1e3", "inf", "--seed", "7", "--overwrite"])
    assert command is compare.COMMAND and isinstance(parsed, compare.Compare)
    assert (parsed.problem, parsed.out, parsed.taus) == (Path("a.toml"), Path("rfdiff-out"), (0.0, 1000.0, np.inf))
    assert (parsed.d, parsed.num_seeds, parsed.seed, parsed.rule, parsed.q, parsed.overwrite) == (100, 10, 7, "gradient-flow", 0.5, True)
    assert isinstance(parsing.parse(["plot", "a.nc"])[1], plot.Plot)
