"""The experiments' harness, and every committed experiment: its criterion holds and its README says what its result file says."""

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from experiments import harness
from rfdiff.files.dataset_file import load_dataset, save_dataset

README = f"# Example\n\n{harness.OPEN}\n{harness.CLOSE}\n\nAfter.\n"


class Example:
    """An experiment in a folder of its own: squares of three numbers; it stops itself at a chosen one."""

    __name__ = "example"

    def __init__(self, folder: Path) -> None:
        self.__file__ = str(folder / "run.py")
        self.calls: list[int] = []
        self.stop_at, self.claim = -1, True
        folder.mkdir()
        (folder / "run.py").write_text('"""Squares are not negative."""\n')
        (folder / "README.md").write_text(README)

    def square(self, x: int) -> dict[str, Any]:
        if x == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(x)
        return {"y": x**2}

    def compute(self, smoke: bool, cells: harness.Cells) -> xr.Dataset:
        xs = [1, 2] if smoke else [1, 2, 3]
        return xr.Dataset({"y": ("x", harness.stack(cells("squares", self.square, xs), "y"))}, {"x": xs})

    def table(self, dataset: xr.Dataset) -> str:
        return harness.markdown(["x", "y"], [[f"{x}", f"{y}"] for x, y in zip(dataset["x"].values, dataset["y"].values, strict=True)])

    def verdict(self, dataset: xr.Dataset) -> list[tuple[str, bool]]:
        return [("squares are not negative", self.claim and bool(np.all(dataset["y"] >= 0)))]

    def draw(self, dataset: xr.Dataset) -> Figure:
        figure = Figure()
        figure.subplots().plot(dataset["x"], dataset["y"])
        return figure


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return Example(tmp_path / "example")


def test_a_run_writes_result_figure_and_readme(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    home = harness.folder(example)
    assert harness.main(example, []) == 0
    text = (home / "README.md").read_text()
    assert "| 3 | 9 |\n\n- holds: squares are not negative\n\nComputed in 0.0 minutes, rfdiff" in text
    assert text.startswith("# Example") and text.endswith("\n\nAfter.\n")
    assert load_dataset(home / "result.nc").attrs["experiment"] == "example"
    assert sorted(path.name for path in home.iterdir()) == ["README.md", "figure.png", "result.nc", "run.py"]
    assert harness.main(example, ["--check"]) == 0
    assert "the criterion holds and the README is up to date" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example.stop_at = 3
    assert harness.main(example, []) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (harness.folder(example) / "result.nc").exists()
    example.stop_at = -1
    assert harness.main(example, []) == 0
    assert example.calls == [1, 2, 3]
    assert load_dataset(harness.folder(example) / "result.nc")["y"].values.tolist() == [1, 4, 9]


def test_kept_cells_are_not_taken_for_those_of_another_source(example: Example) -> None:
    example.stop_at = 3
    harness.main(example, [])
    Path(example.__file__).write_text('"""Changed."""\n')
    example.stop_at = -1
    assert harness.main(example, []) == 0
    assert example.calls == [1, 2, 1, 2, 3]


def test_check_finds_what_is_stale_or_broken(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    home = harness.folder(example)
    assert harness.main(example, ["--check"]) == 2
    assert "result.nc: no such file" in capsys.readouterr().err
    harness.main(example, [])
    assert harness.check(example) == []
    good = (home / "README.md").read_text()
    (home / "README.md").write_text(good.replace("| 3 | 9 |", "| 3 | 8 |"))
    assert "numbers in README.md are not those of result.nc" in harness.check(example)[0]
    (home / "README.md").write_text(good)
    save_dataset(load_dataset(home / "result.nc"), home / "result.nc", smoke=1)
    assert "is a smoke result" in harness.check(example)[0]
    (home / "figure.png").unlink()
    example.claim = False
    faults = " ".join(harness.check(example))
    assert "does not hold: squares are not negative" in faults and "no figure.png" in faults
    assert harness.main(example, ["--check"]) == 1
    assert harness.main(example, ["--redraw"]) == 1
    assert (home / "figure.png").is_file() and example.calls == [1, 2, 3]
    assert "DOES NOT HOLD" in (home / "README.md").read_text()
    example.verdict = lambda dataset: []  # type: ignore[method-assign]
    assert "the verdict is empty" in " ".join(harness.check(example))


def test_smoke_needs_a_folder_of_its_own(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main(example, ["--smoke"]) == 2
    assert "give another folder with --out" in capsys.readouterr().err
    assert harness.main(example, ["--smoke", "--out", str(tmp_path / "a" / "b")]) == 0
    assert load_dataset(tmp_path / "a" / "b" / "result.nc").sizes["x"] == 2
    assert (harness.folder(example) / "README.md").read_text() == README
    assert harness.main(example, ["--check", "--out", str(tmp_path / "a" / "b")]) == 0


def test_refusals(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (harness.folder(example) / "README.md").write_text("no markers")
    assert harness.main(example, []) == 2
    assert example.calls == []
    assert "README: needs <!-- numbers -->" in capsys.readouterr().err
    cells = harness.Cells(tmp_path / "cells", [])
    with pytest.raises(ValueError, match="allowed: plain numbers"):
        cells("label", example.square, [object()])
    cells("label", example.square, [5])
    (kept,) = (tmp_path / "cells").iterdir()
    kept.write_bytes(b"PK")
    with pytest.raises(ValueError, match=rf"{kept.name}: damaged cell .*delete it"):
        cells("label", example.square, [5])


def found() -> dict[str, types.ModuleType]:
    return harness.experiments()


@pytest.mark.parametrize("name", sorted(found()))
def test_committed_experiment(name: str) -> None:
    """Its criterion holds in the committed result, and the numbers in its README are those of the file; without one the README says so."""
    text = (harness.HOME / name / "README.md").read_text(encoding="utf-8")
    if not (harness.HOME / name / "result.nc").exists():
        assert harness.NOT_RUN in text and hasattr(found()[name], "compute_small")
        return
    assert harness.check(found()[name]) == []
    assert f"python -m experiments.{name}.run" in text and "figure.png" in text and "falsif" in text.lower()


def test_index_is_up_to_date() -> None:
    text = (harness.HOME / "README.md").read_text(encoding="utf-8")
    assert harness.with_numbers(text, harness.index()) == text
