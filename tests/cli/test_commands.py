"""The command line: what it writes and prints, how it refuses, how it stops and goes on."""

import dataclasses
import io
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import progress, simulation, theory
from rfdiff.agreement import Agreement, assess
from rfdiff.class_times import times
from rfdiff.cli import entry, parsing, tables
from rfdiff.files import kept_parts, result_file
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Ridge
from rfdiff.simulation import solver_costs
from rfdiff.simulation.features import sizes_at
from tests import synthetic

TOML = """\
activation = "tanh"
t = 0.3
psi_p = 2.0
psi_n = 2.0
[mixture]
weights = [0.6, 0.4]
variances = [1.4, 0.5]
centroid_gram = [[0.5, 0.0], [0.0, 0.5]]
"""
D, SEEDS = 24, 4
TAUS = ["0.5", "3", "20", "100", "1000", "inf"]
ROOT = Path(__file__).resolve().parents[2]

Words = list[str]


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(TOML)
    return path


def words(command: str, problem: Path, out: Path, *more: str) -> Words:
    sizes = ["--d", str(D), "--seeds", str(SEEDS)] if command in ("simulate", "compare") else []
    times_given = [] if "--rule" in more or "--points" in more else ["--taus", *TAUS]
    return [command, str(problem), "--out", str(out), *sizes, *times_given, *more]


def refusal(capsys: pytest.CaptureFixture[str], arguments: Words) -> str:
    """The line with which a command line is refused, after checking that it is the only one and the status is 2."""
    assert entry.main(arguments) == entry.BAD_INPUT
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    *before, line = told.err.splitlines()
    assert not before, told.err
    assert told.out == ""
    assert line.startswith("rfdiff: ")
    return line


def leaves(value: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree_util.tree_leaves(value)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """One run of `rfdiff compare`, with what it printed."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "problem.toml").write_text(TOML)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed)
        status = entry.main(words("compare", folder / "problem.toml", folder / "out"))
    return types.SimpleNamespace(status=status, out=folder / "out", problem=folder / "problem.toml", text=printed.getvalue())


def test_compare_writes_what_the_library_computes(compared: types.SimpleNamespace) -> None:
    result = result_file.load(compared.out / "result.nc")
    problem, taus = Problem.from_toml(compared.problem), np.array([float(tau) for tau in TAUS])
    assert leaves(result.theory) == leaves(theory.learning_curves(problem, taus))
    assert leaves(result.spectrum) == leaves(theory.spectrum(problem))
    large, small = jax.random.split(jax.random.key(0))
    for found, d, key in ((result.simulation, D, large), (result.smaller, D // 2, small)):
        batches = [simulation.run_seeds(problem, taus, d, key, [r]) for r in range(SEEDS)]
        assert leaves(found) == leaves(simulation.summarize(batches))
        assert found is not None
        assert found.dimension == d
    assert result.theory is not None
    assert result.simulation is not None
    assert result.smaller is not None
    agreement = assess(result.theory, result.simulation, result.smaller)
    assert compared.status == (entry.AGREE if agreement.agrees else entry.DISAGREE)
    assert result.problem.to_toml() == problem.to_toml()
    recorded = {name: result.metadata[name] for name in ("command", "rule", "d", "seeds", "random_seed", "tolerance")}
    assert recorded == {"command": "compare", "rule": "gradient-flow", "d": D, "seeds": SEEDS, "random_seed": 0, "tolerance": 1e-6}


def test_compare_prints_table_verdict_places_and_cost(compared: types.SimpleNamespace) -> None:
    result = result_file.load(compared.out / "result.nc")
    assert tables.times_table(result.theory, result.simulation, 0.5) in compared.text
    assert result.theory is not None and result.simulation is not None and result.smaller is not None
    assert "\n".join(tables.verdict_lines(assess(result.theory, result.simulation, result.smaller))) in compared.text
    assert f"in {compared.out}: result.nc, curves.png, spectrum.png, agreement.png" in compared.text
    assert "s wall time, " in compared.text.splitlines()[-1]
    assert compared.text.splitlines()[-1].endswith("GiB peak memory")
    assert sorted(path.name for path in compared.out.iterdir()) == ["agreement.png", "curves.png", "result.nc", "spectrum.png"]


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


def test_disagreement_is_exit_status_one(compared: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_file.load(compared.out / "result.nc")
    assert result.theory is not None
    wrong = dataclasses.replace(result.theory, test_loss=np.asarray(result.theory.test_loss)[:, ::-1])
    path = result_file.save(dataclasses.replace(result, theory=wrong), tmp_path / "swapped.nc")
    assert entry.main(["plot", str(path)]) == entry.DISAGREE


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
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "result.nc", "spectrum.png"]


@pytest.mark.slow
def test_default_times_are_the_grid_of_the_theory(problem_file: Path, tmp_path: Path) -> None:
    assert entry.main(words("simulate", problem_file, tmp_path / "out", "--points", "6")) == 0
    result = result_file.load(tmp_path / "out" / "result.nc")
    assert result.simulation is not None
    np.testing.assert_array_equal(result.simulation.taus, theory.time_grid(Problem.from_toml(problem_file), num=6))


def test_simulate_depends_on_the_key_alone(problem_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert entry.main(words("simulate", problem_file, tmp_path / name, "--seed", seed)) == 0
    a, b, c = (result_file.load(tmp_path / name / "result.nc") for name in "abc")
    assert a.theory is None
    assert a.spectrum is None
    assert leaves(a.simulation) == leaves(b.simulation)
    assert a.simulation is not None
    assert c.simulation is not None
    assert not np.allclose(a.simulation.test_loss, c.simulation.test_loss)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--rule", "gradient-descent", "--step-size", "0.2"], GradientDescent(0.2)),
        (["--rule", "heavy-ball", "--step-size", "0.2", "--momentum", "0.5"], HeavyBall(0.2, 0.5)),
        (["--rule", "ridge", "--penalties", "1", "0.1", "0.01"], Ridge([1, 0.1, 0.01])),
        ([], GradientFlow()),
    ],
)
def test_rules_reach_the_simulation(
    options: Words, expected: Any, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def stop(problem: Problem, taus: Any, d: int, key: Any, seeds: Any, rule: Any, dtype: str, solver: str, tolerance: Any) -> None:
        seen.append((rule, None if taus is None else list(taus), d, dtype, list(seeds), solver, tolerance))
        raise ValueError("seen enough")

    monkeypatch.setattr(simulation, "run_seeds", stop)
    given = options if "ridge" in options else [*options, "--taus", *TAUS]
    arguments = ["simulate", str(problem_file), "--out", str(tmp_path / "o"), "--d", "9", "--dtype", "float32", *given]
    assert entry.main(arguments) == entry.BAD_INPUT
    ((rule, taus, d, dtype, seeds, *solved),) = seen
    assert type(rule) is type(expected)
    assert leaves(rule) == leaves(expected)
    assert taus == (None if "ridge" in options else [float(tau) for tau in TAUS])
    assert (d, dtype, seeds, solved) == (9, "float32", [0], ["exact", None])


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
        patch.setattr(theory, "learning_curves", computed)
        for command in ("predict", "simulate", "compare"):
            line = refusal(capsys, [command, str(problem_file), "--out", str(out)])
            assert "already holds curves.png; choose another folder or add --overwrite" in line
    assert (out / "curves.png").read_bytes() == b"mine"
    assert [path.name for path in out.iterdir()] == ["curves.png"]
    assert entry.main(words("simulate", problem_file, out, "--overwrite")) == 0
    assert (out / "curves.png").read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"Expected one of \{predict, simulate, compare, plan, phase-map, times, speciate, generate, sweep, collect, plot, images\}"),
        (["forecast"], "Unrecognized options: forecast"),
        (["predict"], "Missing from rfdiff predict: PROBLEM.toml"),
        (["predict", "PROBLEM", "--psi", "3"], "Unrecognized options: --psi, 3"),
        (["predict", "PROBLEM", "--d", "10"], r"Unrecognized or misplaced options: --d \(applied to rfdiff predict\)"),
        (["predict", "PROBLEM", "again.toml"], "Unrecognized options: again.toml"),
        (["compare", "PROBLEM", "--d", "ten"], "Error parsing --d: .*'ten'"),
        (["compare", "PROBLEM", "--d"], "Missing value for argument '--d'"),
        (["compare", "PROBLEM", "--seeds", "2.5"], "Error parsing --seeds: .*'2.5'"),
        (["predict", "PROBLEM", "--taus", "1", "x"], "Error parsing --taus: .*'x'"),
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
        (["compare", "PROBLEM", "--seeds", "1"], "--seeds: 1; allowed: at least 2, for a standard error"),
        (["simulate", "PROBLEM", "--seeds", "0"], "--seeds: 0; allowed: at least 1"),
        (["simulate", "PROBLEM", "--seed", "-1"], "--seed: -1; allowed: 0 to"),
        (["predict", "PROBLEM", "--points", "2"], "--points: 2; allowed: 3 to 100000"),
        (["predict", "PROBLEM", "--taus", "1", "2"], "--taus: 2 given; allowed: at least 3"),
        (["predict", "PROBLEM", "--taus", "3", "2", "1"], "taus: .* does not increase strictly"),
        (["predict", "PROBLEM", "--taus", "-1", "2", "3"], "taus: .*allowed: a non-empty list of training times >= 0"),
        (["predict", "PROBLEM", "--taus", "1", "2", "nan"], "taus: .*allowed: a non-empty list of training times >= 0"),
        (["predict", "PROBLEM", "--q", "1.5"], "--q: 1.5; allowed: 0 < q < 1"),
        (["predict", "PROBLEM", "--tolerance", "0"], "--tolerance: 0.0; allowed: 0 < tolerance < 1"),
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
        (["predict", "PROBLEM", "--rule", "gradient-descent", "--step-size", "-1"], "step_size: -1.0; allowed"),
        (["predict", "PROBLEM", "--momentum", "0.5"], "--momentum: not an option of --rule gradient-flow; it goes with heavy-ball"),
        (["predict", "PROBLEM", "--step-size", "1"], "it goes with gradient-descent and heavy-ball"),
        (["predict", "absent.toml"], r"absent\.toml: cannot be read \(No such file or directory\)"),
        (["predict", "FOLDER"], "cannot be read"),
        (["predict", "NOT_TOML"], "not a TOML file"),
        (["predict", "BINARY"], "not a TOML file"),
        (["predict", "UNKNOWN_KEY"], "problem: unknown key 'depth'"),
        (["predict", "BAD_VALUE"], "psi_p: -2.0; allowed: a finite number > 0"),
        (["predict", "PROBLEM", "--out", "PROBLEM"], "--out: .*problem.toml is not a folder"),
        (["predict", "PROBLEM", "--out", "PROBLEM/below"], "--out: cannot write to"),
        (["plot"], "Missing from rfdiff plot: FILE"),
        (["plot", "absent.nc"], r"absent\.nc: no such file"),
        (["plot", "PROBLEM"], "problem.toml: cannot be read as a NetCDF file"),
        (["plot", "TRUNCATED"], "truncated.nc: is truncated"),
        (["plot", "RESULT", "--q", "0"], "--q: 0.0; allowed: 0 < q < 1"),
        (["plot", "EMPTY"], "empty.nc: holds neither theory nor simulation"),
        (["--version", "now"], "Unrecognized options"),
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
    assert not (tmp_path / "rfdiff-out").exists() or not list((tmp_path / "rfdiff-out").iterdir())


@pytest.mark.parametrize("command", ["simulate", "compare"])
@pytest.mark.parametrize(
    ("d", "change", "message"),
    [
        (1_000_000, ("", ""), "d: 1000000 makes p = 2000000 features and needs about"),
        (5, ("psi_n = 2.0", "psi_n = 0.25"), "d: [52] makes p = .* and n = [01] samples; allowed: "),
        (1000, ("t = 0.3", "t = 0.3\nnoise_draws = 100000000"), "d: 1000 makes n = 2000 samples, 2e.11 with .*; allowed: at most 1e.10"),
    ],
)
def test_impossible_networks_are_refused_before_anything_is_computed_or_made(
    command: str,
    d: int,
    change: tuple[str, str],
    message: str,
    problem_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def computed(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed before refusing")

    for module, name in ((theory, "time_grid"), (theory, "learning_curves"), (simulation, "run_seeds")):
        monkeypatch.setattr(module, name, computed)
    problem_file.write_text(TOML.replace(*change) if change[0] else TOML)
    for times_given in (["--taus", *TAUS], []):
        line = refusal(capsys, [command, str(problem_file), "--out", str(tmp_path / "o"), "--d", str(d), *times_given])
        assert re.match(f"rfdiff: {message}", line), line
    assert not (tmp_path / "o").exists()


def test_sizes_have_an_upper_limit() -> None:
    for d in (2**31 + 1, 10**23):
        with pytest.raises(ValueError, match=f"^d: {d}; allowed: an integer >= 1 and <= 2147483648"):
            sizes_at(synthetic.problem(), d)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "rfdiff: out of memory"),
        (MemoryError("Unable to allocate\n3 GiB"), "rfdiff: out of memory: Unable to allocate 3 GiB"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nno room"),
            "rfdiff: the computation failed (JaxRuntimeError): RESOURCE_EXHAUSTED: no room",
        ),
    ],
)
def test_too_little_memory_is_one_line_and_status_two(
    error: Exception, line: str, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(theory, "time_grid", fail)
    assert refusal(capsys, ["predict", str(problem_file), "--out", str(tmp_path / "o")]) == line


def interrupted_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let `count` seeds run, then stop like a user; the list collects the seeds that were computed."""
    done: list[int] = []
    real = simulation.run_seeds

    def run(problem: Problem, taus: Any, d: int, key: Any, seeds: Any, **options: Any) -> Any:
        if len(done) == count:
            raise KeyboardInterrupt
        batch = real(problem, taus, d, key, seeds, **options)
        done.extend(seeds)
        return batch

    monkeypatch.setattr(simulation, "run_seeds", run)
    return done


def test_interruption_keeps_seeds_and_the_same_command_goes_on(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = words("simulate", problem_file, out)
    with monkeypatch.context() as patch:
        assert interrupted_after(patch, 2) == []
        assert entry.main(arguments) == entry.INTERRUPTED
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == f"rfdiff: interrupted; 2 of {SEEDS} seeds at d = {D} are kept, the same command goes on from them"
    assert "Traceback" not in told
    (kept,) = out.iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["seed-0.npz", "seed-1.npz"]
    with monkeypatch.context() as patch:
        computed = interrupted_after(patch, 99)
        assert entry.main(words("simulate", problem_file, out, "--seed", "5")) == 0  # another run: neither uses nor touches what is kept
        assert computed == list(range(SEEDS))
        assert kept.is_dir()
        computed.clear()
        assert entry.main([*arguments, "--overwrite"]) == 0
        assert computed == [2, 3]
    assert "4 seeds, 2 of them done before" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["curves.png", "result.nc", "spectrum.png"]
    assert entry.main(words("simulate", problem_file, tmp_path / "whole")) == 0
    resumed, whole = result_file.load(out / "result.nc"), result_file.load(tmp_path / "whole" / "result.nc")
    assert leaves(resumed.simulation) == leaves(whole.simulation)


def test_interruption_before_the_simulation_is_one_line_too(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(theory, "learning_curves", stop)
    assert entry.main(words("predict", problem_file, tmp_path / "out")) == entry.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: interrupted"


def test_damaged_checkpoint_is_named(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupted_after(patch, 1)
        assert entry.main(words("simulate", problem_file, out)) == entry.INTERRUPTED
    (kept,) = out.glob("*.partial/seed-0.npz")
    content = kept.read_bytes()
    capsys.readouterr()
    for damage in (b"", b"nonsense", content[: len(content) // 2], content[:-30]):
        kept.write_bytes(damage)
        assert "seed-0.npz: damaged checkpoint" in refusal(capsys, words("simulate", problem_file, out))


def test_solvers_give_the_same_networks(problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for solver in ("exact", "krylov"):
        assert entry.main(words("simulate", problem_file, tmp_path / solver, "--seeds", "2", "--solver", solver)) == 0
        found[solver] = result_file.load(tmp_path / solver / "result.nc")
        assert found[solver].metadata["solver"] == solver
    one, other = (result.simulation for result in found.values())
    assert one is not None and other is not None and other.spectrum is None and not (tmp_path / "krylov" / "spectrum.png").exists()
    np.testing.assert_allclose(one.per_seed["test_loss"], other.per_seed["test_loss"], atol=1e-8)  # type: ignore[index]
    capsys.readouterr()
    line = refusal(capsys, words("simulate", problem_file, tmp_path / "c", "--krylov-tolerance", "1e-4"))
    assert "--krylov-tolerance: goes with a Krylov solver" in line
    assert "--krylov-tolerance: 2.0; allowed" in refusal(
        capsys, words("simulate", problem_file, tmp_path / "c", "--solver", "krylov", "--krylov-tolerance", "2")
    )


def test_plan_prints_every_solver(problem_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_costs, "product_rate", lambda dtype: 5e10)
    assert entry.main(["plan", str(problem_file), "--d", "800", "--seeds", "3"]) == 0
    told = capsys.readouterr().out
    assert "p = 1600" in told and "3 networks" in told and all(name in told for name in simulation.SOLVERS)
    assert entry.main(["plan", str(problem_file), "--d", "900000"]) == 0
    assert "nothing fits; allowed: a smaller d" in capsys.readouterr().out
    assert "--d: 0; allowed: 1 to" in refusal(capsys, ["plan", str(problem_file), "--d", "0"])


def test_checkpoint_folder_tells_runs_apart(tmp_path: Path) -> None:
    problem, taus = synthetic.problem(), synthetic.taus()
    other = dataclasses.replace(problem, t=0.2)

    def folder(**changes: Any) -> Path:
        arguments = {
            "problem": problem,
            "taus": taus,
            "d": 10,
            "key": jax.random.key(0),
            "rule": GradientFlow(),
            "dtype": "float64",
            **changes,
        }
        return kept_parts.folder_for(tmp_path, **arguments)

    assert folder() == folder(taus=list(taus))
    variants = [
        folder(),
        folder(problem=other),
        folder(taus=taus[:-1]),
        folder(taus=None),
        folder(d=11),
        folder(key=jax.random.key(1)),
        folder(dtype="float32"),
        folder(solver="krylov"),
        folder(solver="krylov", tolerance=1e-6),
        folder(rule=GradientDescent(0.1)),
        folder(rule=GradientDescent(0.2)),
        folder(rule=HeavyBall(0.1, 0.5)),
        folder(rule=HeavyBall(0.1, 0.6)),
        folder(rule=Ridge([1.0])),
        folder(rule=Ridge([1.0, 2.0])),
    ]
    assert len(set(variants)) == len(variants)
    kept_parts.remove(folder())  # nothing there: nothing to do


def run(arguments: Words, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rfdiff", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_real_interrupt_signal_stops_cleanly_and_resumes_bit_for_bit(
    problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, count = tmp_path / "out", 400
    arguments = ["simulate", str(problem_file), "--d", str(D), "--seeds", str(count), "--taus", *TAUS]
    process = run([*arguments, "--out", str(out)])
    deadline = time.monotonic() + 90
    while len(list(out.glob("*.partial/*.npz"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == entry.INTERRUPTED, told
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("rfdiff: interrupted; ")
    assert printed == ""
    kept = int(last.split("; ")[1].split(" of ")[0])
    assert 3 <= kept < count
    assert not (out / "result.nc").exists()
    assert entry.main([*arguments, "--out", str(out)]) == 0
    assert f"{count} seeds, {kept} of them done before" in capsys.readouterr().err
    assert entry.main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    resumed, whole = result_file.load(out / "result.nc"), result_file.load(tmp_path / "whole" / "result.nc")
    assert leaves(resumed.simulation) == leaves(whole.simulation)


def test_process_reports_bad_input_on_standard_error_alone(tmp_path: Path) -> None:
    process = run(["predict", "--nonsense"], cwd=tmp_path)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (2, "")
    assert told.splitlines()[0].startswith("rfdiff: ")
    assert len(told.splitlines()) == 1


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
    ):
        assert entry.main(arguments) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert "usage: rfdiff" in told.out
    assert entry.main(["compare", "--help"]) == 0
    told = capsys.readouterr()
    for option in ("--d ", "--seeds ", "--seed ", "--out ", "--points ", "--taus ", "--rule ", "--step-size ", "--momentum ", "--q "):
        assert option in told.out


def test_output_suits_a_terminal_without_unicode(
    compared: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", plain)
    assert entry.main(["plot", str(compared.out / "result.nc"), "--out", str(tmp_path / "ψ")]) == compared.status
    assert entry.main(["forecast"]) == entry.BAD_INPUT
    told = plain.buffer.getvalue().decode("ascii")
    assert told.replace(" +- ", " ± ").splitlines()[2].split() == compared.text.splitlines()[2].split()
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: Unrecognized options: forecast (see rfdiff --help)"


def test_parse_gives_the_defaults_and_the_words() -> None:
    parsed = parsing.parse(["compare", "a.toml", "--taus", "0", "1e3", "inf", "--seed", "7", "--overwrite"])
    assert isinstance(parsed, parsing.Compare)
    assert (parsed.problem, parsed.out, parsed.taus) == (Path("a.toml"), Path("rfdiff-out"), (0.0, 1000.0, np.inf))
    assert (parsed.d, parsed.seeds, parsed.seed, parsed.rule, parsed.q, parsed.overwrite) == (100, 10, 7, "gradient-flow", 0.5, True)
    assert isinstance(parsing.parse(["plot", "a.nc"]), parsing.Plot)


# Tables


def test_table_reads_theory_beside_simulation_with_errors_over_seeds() -> None:
    predicted, simulated = synthetic.theory(), synthetic.simulation()
    table = tables.times_table(predicted, simulated, 0.4).splitlines()
    assert table[0].split() == ["class", "weight", "tau_gen", "tau_stop", "tau_mem", "tau_opt(0.4)", "best", "test", "loss"]
    assert [line.split()[0:3] for line in table[1::2]] == [["0", "0.667", "theory"], ["1", "0.333", "theory"]]
    found = times(predicted, 0.4)
    assert table[1].split()[3:6] == [f"{x[0]:.4g}" for x in (found.tau_gen, found.tau_stop, found.tau_mem)]
    assert simulated.per_seed is not None
    runs = [times(dataclasses.replace(simulated, **{n: simulated.per_seed[n][s] for n in simulated.per_seed}), 0.4) for s in range(3)]
    values, errors = tables.readings(simulated, 0.4)
    np.testing.assert_array_equal(values[2], times(simulated, 0.4).tau_mem)
    np.testing.assert_allclose(errors[2], np.std([run.tau_mem for run in runs], axis=0, ddof=1) / np.sqrt(3))
    lowest = np.asarray(simulated.per_seed["test_loss"]).min(axis=1)
    np.testing.assert_allclose(errors[4], np.std(lowest, axis=0, ddof=1) / np.sqrt(3))
    assert tables.number(values[2, 0], errors[2, 0]) in table[2]
    assert len(tables.times_table(None, simulated, 0.4).splitlines()) == 3


def test_times_that_a_seed_lacks_have_no_error_bar() -> None:
    simulated = synthetic.simulation()
    assert simulated.per_seed is not None
    never = np.array(simulated.per_seed["test_loss"])
    never[0, :, 1] = 1.5
    _, errors = tables.readings(dataclasses.replace(simulated, per_seed={**simulated.per_seed, "test_loss": never}), 0.4)
    assert np.isnan(errors[0, 1])
    assert np.isfinite(errors[0, 0])
    single = dataclasses.replace(simulated, per_seed={name: runs[:1] for name, runs in simulated.per_seed.items()})
    assert np.isnan(tables.readings(single, 0.4)[1]).all()
    assert np.isnan(tables.readings(synthetic.theory(), 0.4)[1]).all()


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, np.nan, "12.35"),
        (np.inf, np.nan, "inf"),
        (np.nan, 0.1, "-"),
        (12.3456, 0.0123, "12.346 ± 0.012"),
        (1234.5, 56.7, "1234 ± 57"),
        (1234.5, 567.8, "1234 ± 568"),
        (23.5, 1e-15, "23.5"),
        (2.0, 0.0, "2"),
    ],
)
def test_numbers_show_the_digits_their_error_leaves(value: float, error: float, expected: str) -> None:
    assert tables.number(value, error) == expected


def test_verdict_names_the_worst_place() -> None:
    def per_curve(value: float) -> dict[str, np.ndarray]:
        return {name: np.full((24, 2), value) for name in ("train_loss", "test_loss")}

    standardised = per_curve(0.0)
    standardised["test_loss"][5, 1] = -7.5
    standardised["test_loss"][0] = np.nan
    wrong = Agreement(
        synthetic.theory(),
        synthetic.simulation(),
        synthetic.simulation(d=10),
        deviation=per_curve(-0.25),
        allowance=per_curve(0.125),
        remainder=per_curve(0.03),
        stderr=per_curve(0.01),
        standardised=standardised,
        threshold=4.0,
        conclusive=True,
        agrees=False,
    )
    train, test, verdict = tables.verdict_lines(wrong)
    assert train.startswith("train loss: ")
    assert f"for class 1 at tau = {synthetic.taus()[5]:.4g}: -2.50e-01, of which finite size +1.2e-01 within 3.0e-02" in test
    assert test.endswith("standard error 1.0e-02: 7.50 standard errors out")
    assert verdict.startswith("verdict: simulation at d = 20 and theory DISAGREE (allowed: 4 standard errors; an error of 7.0e-02 ")
    vague = tables.verdict_lines(dataclasses.replace(wrong, conclusive=False))[-1]
    assert vague.startswith("verdict: INCONCLUSIVE, simulation at d = 20 ")
    assert "more seeds or a larger d (allowed: 4 standard errors; " in vague
    assert "DISAGREE" not in vague
    assert " agree (" in tables.verdict_lines(dataclasses.replace(wrong, agrees=True))[-1]


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "done", "lines"), [(100, 0, 5), (3, 0, 4), (100, 60, 3), (5, 5, 1)])
def test_progress_in_a_log_is_a_few_plain_lines(total: int, done: int, lines: int) -> None:
    stream = io.StringIO()
    with progress.progress("work", total, done, stream=stream) as advance:
        for _ in range(total - done):
            advance(1)
    told = stream.getvalue().splitlines()
    assert len(told) == lines
    assert told[0] == f"work: {total} seeds" + (f", {done} of them done before" if done else "")
    assert "\r" not in stream.getvalue()
    if done < total:
        assert told[-1].startswith(f"work: {total}/{total} seeds, ")
        assert told[-1].endswith("about 0 s left")


def test_progress_on_a_terminal_is_a_bar() -> None:
    stream = Terminal()
    with progress.progress("work", 10, 4, stream=stream) as advance:
        advance(6)
    assert "work" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_progress_estimates_the_time_left_from_this_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock["now"])
    stream = io.StringIO()
    with progress.progress("work", 100, 50, stream=stream) as advance:
        clock["now"] += 30.0
        advance(25)
    assert stream.getvalue().splitlines()[-1] == "work: 75/100 seeds, 30.0 s, about 30 s left"


def test_progress_is_given_to_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter: Callable[[int], object]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress("work", 1, unit="time") as reporter:
        reporter(1)
    assert stream.getvalue().splitlines()[0] == "work: 1 times"
