"""The command simulate, and the networks of compare: what reaches the simulation, and how a run stops and goes on."""

import dataclasses
import re
import signal
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.cli import curve_options, entry, parsing, rule_options
from rfdiff.errors import InputError
from rfdiff.files import kept_parts, result_file
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, MinibatchSGD, Nesterov, Ridge
from rfdiff.simulation.features import sizes_at
from tests import synthetic
from tests.cli.command_line import SEEDS, TAUS, TOML, D, Words, leaves, refusal, started, words


@pytest.mark.slow
def test_default_times_are_the_grid_of_the_theory(problem_file: Path, tmp_path: Path) -> None:
    assert entry.main(words("simulate", problem_file, tmp_path / "out", "--num-times", "6")) == 0
    result = result_file.load(tmp_path / "out" / "result.nc")
    assert result.simulation is not None
    np.testing.assert_array_equal(result.simulation.taus, theory.time_grid(Problem.from_toml(problem_file), num_times=6))


@pytest.mark.thorough
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
        (["--rule", "nesterov", "--step-size", "0.2", "--momentum", "0.5", "--averaging", "0.9"], Nesterov(0.2, 0.5, averaging=0.9)),
        (["--rule", "sgd", "--step-size", "0.2", "--batch", "0.5"], MinibatchSGD(0.2, 0.5)),
        (
            ["--rule", "sgd", "--step-size", "0.2", "--batch", "0.5", "--sampling", "balanced", "--averaging", "0.9"],
            MinibatchSGD(0.2, 0.5, averaging=0.9, sampling="balanced"),
        ),
        (["--weight-decay", "0.1", "--averaging", "30"], GradientFlow(weight_decay=0.1, averaging=30)),
        (["--rule", "ridge", "--penalties", "1", "0.1", "0.01"], Ridge([1, 0.1, 0.01])),
        ([], GradientFlow()),
    ],
)
def test_rules_reach_the_simulation(
    options: Words, expected: Any, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def stop(
        problem: Problem, taus: Any, *, d: int, key: Any, seeds: Any, rule: Any, dtype: str, solver: str, krylov_tolerance: Any
    ) -> None:
        seen.append((rule, None if taus is None else list(taus), d, dtype, list(seeds), solver, krylov_tolerance))
        raise InputError("seen enough")

    monkeypatch.setattr(simulation, "run_seeds", stop)
    if "balanced" in options:  # batches that need weights of the classes
        problem_file.write_text(problem_file.read_text().replace("[mixture]", "loss_weights = [0.5, 0.5]\n[mixture]"))
    times = [tau for tau in TAUS if tau != "inf"] if "sgd" in options else TAUS
    given = options if "ridge" in options else [*options, "--taus", *times]
    arguments = ["simulate", str(problem_file), "--out", str(tmp_path / "o"), "--d", "9", "--dtype", "float32", *given]
    assert entry.main(arguments) == entry.BAD_INPUT
    ((rule, taus, d, dtype, seeds, *solved),) = seen
    assert type(rule) is type(expected)
    assert rule.equals(expected)
    assert taus == (None if "ridge" in options else [float(tau) for tau in times])
    assert (d, dtype, seeds, solved) == (9, "float32", [0], ["exact", None])


@pytest.mark.parametrize("command", ["simulate", "compare"])
@pytest.mark.parametrize(
    ("d", "change", "message"),
    [
        (1_000_000, ("", ""), "--d: 1000000 makes p = 2000000 features and needs about"),
        (5, ("psi_n = 2.0", "psi_n = 0.25"), "--d: [52] makes p = .* and n = [01] samples; allowed: "),
        (1000, ("t = 0.3", "t = 0.3\nnoise_draws = 100000000"), "--d: 1000 makes n = 2000 samples, 2e.11 with .*; allowed: at most 1e.10"),
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

    for module, name in ((theory, "time_grid"), (theory, "covering_curves"), (simulation, "run_seeds")):
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


def interrupted_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let `count` seeds run, then stop like a user; the list collects the seeds that were computed."""
    done: list[int] = []
    real = simulation.run_seeds

    def run(problem: Problem, taus: Any, *, seeds: Any, **options: Any) -> Any:
        if len(done) == count:
            raise KeyboardInterrupt
        batch = real(problem, taus, seeds=seeds, **options)
        done.extend(seeds)
        return batch

    monkeypatch.setattr(simulation, "run_seeds", run)
    return done


@pytest.mark.thorough
def test_interruption_keeps_seeds_and_the_same_command_goes_on(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = words("simulate", problem_file, out)
    with monkeypatch.context() as patch:
        assert interrupted_after(patch, 2) == []
        assert entry.main(arguments) == entry.INTERRUPTED
    told = capsys.readouterr().err
    assert told.splitlines()[-1] == f"rfdiff: interrupted; 2 of {SEEDS} seeds at d = {D} are kept, the same command resumes from them"
    assert "Traceback" not in told
    (kept,) = out.glob("*.partial")
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
    assert sorted(path.name for path in out.iterdir()) == [".lock", "curves.png", "result.nc", "spectrum.png"]
    assert entry.main(words("simulate", problem_file, tmp_path / "whole")) == 0
    resumed, whole = result_file.load(out / "result.nc"), result_file.load(tmp_path / "whole" / "result.nc")
    assert leaves(resumed.simulation) == leaves(whole.simulation)


@pytest.mark.thorough
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


@pytest.mark.slow
def test_solvers_give_the_same_networks(problem_file: Path, tmp_path: Path) -> None:
    found = {}
    for solver in ("exact", "krylov"):
        assert entry.main(words("simulate", problem_file, tmp_path / solver, "--num-seeds", "2", "--solver", solver)) == 0
        found[solver] = result_file.load(tmp_path / solver / "result.nc")
        assert found[solver].metadata["solver"] == solver
    one, other = (result.simulation for result in found.values())
    assert one is not None and other is not None and other.spectrum is None and not (tmp_path / "krylov" / "spectrum.png").exists()
    np.testing.assert_allclose(one.per_seed["test_loss"], other.per_seed["test_loss"], atol=1e-8)  # type: ignore[index]


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
        folder(solver="krylov", krylov_tolerance=1e-6),
        folder(rule=GradientDescent(0.1)),
        folder(rule=GradientDescent(0.2)),
        folder(rule=HeavyBall(0.1, 0.5)),
        folder(rule=HeavyBall(0.1, 0.6)),
        folder(rule=Ridge([1.0])),
        folder(rule=Ridge([1.0, 2.0])),
    ]
    assert len(set(variants)) == len(variants)
    kept_parts.remove(folder())  # nothing there: nothing to do


@pytest.mark.thorough
def test_real_interrupt_signal_stops_cleanly_and_resumes_bit_for_bit(
    problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, count = tmp_path / "out", 120
    arguments = ["simulate", str(problem_file), "--d", str(D), "--num-seeds", str(count), "--taus", *TAUS]
    process = started([*arguments, "--out", str(out)])
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


@pytest.mark.thorough
def test_a_result_that_could_not_be_written_costs_no_network(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "result.nc")

    arguments = words("simulate", problem_file, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(result_file, "save", full)
        assert entry.main(arguments) == entry.BAD_INPUT
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: result.nc: No space left on device"
    computed = interrupted_after(monkeypatch, 0)
    assert entry.main(arguments) == 0
    assert computed == [] and (tmp_path / "out" / "result.nc").exists()


def test_penalties_are_taken_in_any_order() -> None:
    given = parsing.parse(["predict", "p.toml", "--rule", "ridge", "--penalties", "0.01,1", "0.1"])[1]
    rule = rule_options.training_rule(given)
    np.testing.assert_array_equal(rule.penalties, [1.0, 0.1, 0.01])  # type: ignore[attr-defined]
    assert curve_options.run_record("predict", given)["penalties"] == "0.01, 1.0, 0.1"
