"""The command generate: what it writes and prints, how it refuses, stops and goes on."""

import io
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import generation, plots
from rfdiff.cli import entry
from rfdiff.files.dataset_file import load_dataset
from tests.cli.command_line import run

TOML = """\
activation = "softplus"
t = 0.1
psi_p = 4.0
psi_n = 2.0
[mixture]
weights = [0.7, 0.3]
variances = [1.0, 0.6]
"""
GRAM = "centroid_gram = [[0.5, -0.5], [-0.5, 0.5]]\n"
SMALL = ["--d", "12", "--taus", "3", "30", "inf", "--num-samples", "40", "--num-steps", "12", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is stopped at its second network, then finished."""
    out = tmp_path_factory.mktemp("generate")
    (out / "problem.toml").write_text(TOML + GRAM)
    arguments = ["generate", str(out / "problem.toml"), *SMALL, "--out", str(out / "result")]
    started, generate = [], generation.generate

    def stopping(*words: Any, **named: Any) -> Any:
        started.append(int(jax.random.key_data(named["key"])[1]))
        if len(started) == 2:
            raise KeyboardInterrupt
        return generate(*words, **named)

    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "generate", stopping)
        patch.setattr(sys, "stderr", told)
        assert run(*arguments)[0] == entry.INTERRUPTED
        assert "1 of 2 networks are kept, the same command resumes" in told.getvalue()
        status, printed = run(*arguments)
    assert status == 0 and len(started) == 3 and started[0] != started[1] == started[2]  # the finished network is not made again
    (out / "printed.txt").write_text(printed, encoding="utf-8")
    return out


@pytest.mark.thorough
def test_what_it_writes(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "result").iterdir()) == [".lock", "generation.nc", "generation.png"]
    data = load_dataset(folder / "result" / "generation.nc")
    assert dict(data.counts.sizes) == {"network": 2, "source": 5, "class": 2}
    assert np.all(data.counts.sum("class") == 40) and np.all(data.memorised <= data.counts)
    assert list(data.source.values[-2:]) == ["empirical score", "exact score"] and np.isnan(data.tau.values[-2:]).all()
    assert np.isfinite(data.tau_gen).all() and np.isfinite(data.tau_mem).all()
    printed = (folder / "printed.txt").read_text(encoding="utf-8")
    assert "tau = inf" in printed and "exact score" in printed and "tau_mem" in printed


@pytest.mark.thorough
def test_plot_draws_it_again(folder: Path, tmp_path: Path) -> None:
    result = str(folder / "result" / "generation.nc")
    assert run("plot", result, "--out", str(tmp_path))[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "generation.png"]
    assert run("plot", result, "--out", str(tmp_path))[0] == entry.BAD_INPUT
    assert run("plot", result, "--q", "0.3")[0] == entry.BAD_INPUT
    with pytest.raises(ValueError, match="^class_names: 1 names; allowed: 2"):
        plots.generation(load_dataset(result), class_names=("a",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--d", "0"], "--d: 0; allowed: an integer >= 1"),
        (["--d", "100000"], "GiB of memory; allowed: d up to about"),
        (["--taus", "3", "2"], "--taus: [3, 2] does not increase strictly"),
        (["--num-times", "2"], "--num-times: 2; allowed: 3 to"),
        (["--num-seeds", "0"], "--num-seeds: 0; allowed: 1 to"),
        (["--num-samples", "1"], "--num-samples: 1; allowed: 10 to"),
        (["--num-steps", "1"], "--num-steps: 1; allowed: 2 to"),
        (["--t-start", "0.001"], "--t-start: 0.001; allowed: t_end = 0.01 < t_start"),
        (["--t-end", "0"], "--t-end: 0.0; allowed: a finite number > 0"),
        (["--threshold", "2"], "--threshold: 2.0; allowed: 0 < threshold <= 1"),
        (["--seed", "-1"], "--seed: -1; allowed: 0 to"),
    ],
)
def test_refusals(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "problem.toml").write_text(TOML)
    assert entry.main(["generate", str(tmp_path / "problem.toml"), *words, "--out", str(tmp_path / "out")]) == entry.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_results_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["generate", str(folder / "problem.toml"), *SMALL, "--out", str(folder / "result")]) == entry.BAD_INPUT
    assert "already holds generation.nc" in capsys.readouterr().err


def test_an_odd_activation_is_said_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*words: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    (tmp_path / "problem.toml").write_text(TOML.replace("softplus", "tanh") + GRAM)
    told = io.StringIO()
    monkeypatch.setattr(generation, "generate", stop)
    monkeypatch.setattr(sys, "stderr", told)
    assert run("generate", str(tmp_path / "problem.toml"), *SMALL, "--out", str(tmp_path / "out"))[0] == entry.INTERRUPTED
    assert "tanh is odd, so the score is odd too" in told.getvalue() and "softplus, gelu or a shifted function can" in told.getvalue()
