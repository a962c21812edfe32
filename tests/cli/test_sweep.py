"""The commands sweep and collect: what they write and print, how they refuse, their exit status."""

from pathlib import Path

import pytest
import tomli_w

from rfdiff.cli import collect as collect_command
from rfdiff.cli import entry
from rfdiff.files import result_file
from rfdiff.files.dataset_file import load_dataset
from rfdiff.sweep import Task, running
from tests.sweep.instant import SMALL, instant, sweep

AXES = ("variance_ratio", "psi_n")
FIGURES = [f"sweep_{kind}_{axis}.png" for axis in AXES for kind in ("times", "curves")]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A specification, whose cells cost nothing."""
    monkeypatch.setattr(running, "compute", instant)
    monkeypatch.setattr(running.serially, "__defaults__", (instant,))
    path = tmp_path / "spec.toml"
    path.write_text(tomli_w.dumps(sweep(**SMALL).document))
    return path


@pytest.mark.thorough
def test_sweep_and_collect(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert entry.main(["sweep", str(spec), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("18 cells: 18 done, 0 failed\n") and told.err.startswith("sweep: 18 cells; theory 0 done")
    assert entry.main(["collect", str(out)]) == 0
    told = capsys.readouterr()
    head, table, last = told.out.splitlines()[:2], told.out.splitlines()[2:-1], told.out.splitlines()[-1]
    assert head == ["sweep: variance_ratio (2 values)  x  psi_n (3 values)", "18 cells: 18 done, 0 failed, 0 missing"]
    assert table[0].split()[:5] == ["variance_ratio", "psi_n", "source", "class", "tau_gen"] and len(table) == 1 + 6 * 2 * 2
    assert last == f"in {out}: {', '.join(['sweep.nc', *FIGURES])}"
    dataset = load_dataset(out / "sweep.nc")
    assert dataset.attrs["content"] == collect_command.CONTENT
    records = collect_command.times_table(dataset, ["broad", "narrow"]).records()
    assert len(records) == 24 and records[1]["class"] == "narrow" and records[2]["source"] == "exact, d = 12"
    at = {"variance_ratio": 0, "psi_n": 1, "quantity": 4, "class": 1}
    assert records[5]["best_test_loss"] == dataset.theory_class_time.isel(at).item() and records[5]["psi_n"] == dataset.psi_n.values[1]
    assert records[2]["state"] == "2 done" and records[0]["state"] == "done"
    assert entry.main(["collect", str(out)]) == 2
    assert "already holds sweep.nc, sweep_times_variance_ratio.png" in capsys.readouterr().err


@pytest.mark.thorough
def test_plot_draws_a_sweep_again(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert entry.main(["sweep", str(spec), "--out", str(out)]) == 0
    assert entry.main(["collect", str(out)]) == 0
    new = tmp_path / "new"
    assert entry.main(["plot", str(out / "sweep.nc"), "--out", str(new)]) == 0
    assert sorted(path.name for path in new.iterdir()) == sorted([".lock", *FIGURES])
    assert all((new / name).read_bytes() == (out / name).read_bytes() for name in FIGURES)
    assert entry.main(["collect", str(out), "--out", str(tmp_path / "other" / "all.nc")]) == 0
    assert (tmp_path / "other" / "all_curves_psi_n.png").exists()
    capsys.readouterr()
    cell = next(path for path in (out / "cells").iterdir() if result_file.load(path).theory is not None)
    assert entry.main(["plot", str(cell), "--out", str(tmp_path / "cell")]) == 0  # a cell is a result like any other
    assert (tmp_path / "cell" / "curves.png").exists()


@pytest.mark.slow
def test_failures_are_told_and_give_their_exit_status(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(task: Task) -> object:
        if task.seeds == (1,) and "psi_n = 3.0" in task.problem:
            raise MemoryError("no room")
        return instant(task)

    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.serially, "__defaults__", (failing,))
        assert entry.main(["sweep", str(spec), "--out", str(out)]) == 3
        assert "18 cells: 16 done, 2 failed; --retry tries them again" in capsys.readouterr().out
        assert entry.main(["sweep", str(spec), "--out", str(out)]) == 3
    assert entry.main(["collect", str(out)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.split()
        == [
            "variance_ratio",
            "=",
            "1.0,",
            "psi_n",
            "=",
            "3.0,",
            "solver",
            "=",
            "exact,",
            "d",
            "=",
            "12,",
            "seed",
            "=",
            "1",
            "MemoryError:",
            "no",
            "room",
        ]
        for line in lines
    )
    assert entry.main(["sweep", str(spec), "--out", str(out), "--retry"]) == 0
    assert entry.main(["collect", str(out), "--overwrite"]) == 0
    next((out / "cells").iterdir()).write_bytes(b"")
    capsys.readouterr()
    assert entry.main(["collect", str(out), "--overwrite"]) == 2
    assert "cannot be read as a NetCDF file" in capsys.readouterr().err
    assert entry.main(["collect", str(out), "--overwrite", "--skip-bad"]) == 3
    assert "18 cells: 17 done, 0 failed, 0 missing, 1 bad files skipped" in capsys.readouterr().out


def test_an_empty_sweep_is_collected_without_figures(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(task: Task) -> object:
        raise ArithmeticError("never")

    monkeypatch.setattr(running.serially, "__defaults__", (failing,))
    assert entry.main(["sweep", str(spec), "--out", str(tmp_path / "out")]) == 3
    assert entry.main(["collect", str(tmp_path / "out")]) == 3
    told = capsys.readouterr()
    assert "no cell is done" in told.err and [path.name for path in (tmp_path / "out").glob("*.png")] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "SPEC"], "--out"),
        (["sweep", "none.toml", "--out", "OUT"], "none.toml: cannot be read (No such file or directory)"),
        (["sweep", "SPEC", "--out", "OUT", "--workers", "0"], "--workers: 0; allowed: at least 1"),
        (["sweep", "SPEC", "--out", "OUT", "--workers", "2", "--scheduler", "tcp://x:1"], "--scheduler, --workers: both"),
        (["collect", "OUT"], "manifest.json: no such manifest"),
    ],
)
def test_refusals(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    given = [str(spec) if word == "SPEC" else str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert entry.main(given) == 2
    told = capsys.readouterr()
    assert message in told.err and len(told.err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_an_interrupt_is_one_line_and_status_130(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(task: Task) -> object:
        if task.solver == "exact":
            raise KeyboardInterrupt
        return instant(task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running.serially, "__defaults__", (stopped,))
        assert entry.main(["sweep", str(spec), "--out", str(tmp_path / "out")]) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "rfdiff: interrupted; 6 of 18 cells are kept, the same command resumes from them"
    assert entry.main(["sweep", str(spec), "--out", str(tmp_path / "out")]) == 0
