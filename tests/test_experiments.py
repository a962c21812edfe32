"""The experiments' harness, and every committed experiment: its criterion holds and its README says what its result file says."""

import ast
import types
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from matplotlib.figure import Figure

import rfdiff
from experiments import harness

README = f"# Example\n\n{harness.CLAIM} What stood here before.\n\n{harness.OPEN}\n{harness.CLOSE}\n\nAfter.\n"


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

    def criteria(self, dataset: xr.Dataset) -> list[harness.Criterion]:
        least = float(dataset["y"].min())
        return [harness.Criterion("smallest square, |x|²", f"{least:g}", ">= 0", self.claim and least >= 0)]

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
    assert "| smallest square, \\|x\\|² | 1 | >= 0 | yes |\n\ns.e.: standard errors. Computed in 0.0 minutes, rfdiff" in text
    assert "## Numbers\n\n| x | y |\n| --- | --- |\n| 1 | 1 |" in text
    assert text.startswith("# Example\n\n**Claim.** An experiment in a folder of its own: squares of three")
    assert text.endswith("\n\nAfter.\n")
    assert harness.result_of(home).attrs["experiment"] == "example"
    assert sorted(path.name for path in home.iterdir()) == ["README.md", "figure.png", "result.nc", "run.py"]
    assert harness.main(example, ["--check"]) == 0
    assert "the criterion holds and the README is up to date" in capsys.readouterr().out


def test_an_interrupted_run_goes_on(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    example.stop_at = 3
    assert harness.main(example, []) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert not (harness.folder(example) / "result.nc").exists()
    example.stop_at = -1
    assert harness.main(example, []) == 0
    assert example.calls == [1, 2, 3]
    assert harness.result_of(harness.folder(example))["y"].values.tolist() == [1, 4, 9]


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
    (home / "README.md").write_text(good.replace("squares of", "cubes of"))
    assert harness.check(example) == ["example: the claim in README.md is not that of run.py; run the experiment with --redraw"]
    (home / "README.md").write_text(good)
    rfdiff.save(harness.result_of(home), home / "result.nc", smoke=1)
    assert "is a smoke result" in harness.check(example)[0]
    (home / "figure.png").unlink()
    example.claim = False
    faults = " ".join(harness.check(example))
    assert "does not hold: smallest square, |x|²: 1; allowed: >= 0" in faults and "no figure.png" in faults
    assert harness.main(example, ["--check"]) == 1
    assert harness.main(example, ["--redraw"]) == 1
    assert (home / "figure.png").is_file() and example.calls == [1, 2, 3]
    assert "| **NO** |" in (home / "README.md").read_text()
    example.criteria = lambda dataset: []  # type: ignore[method-assign]
    assert "no criterion" in " ".join(harness.check(example))


def test_a_claim_that_its_run_contradicts_stays_and_is_told(example: Example) -> None:
    home, name = harness.folder(example), "smallest square, |x|²"
    example.claim = False
    assert harness.main(example, []) == 1
    example.CONTRADICTED = (name,)  # type: ignore[attr-defined]
    assert harness.check(example) == ["example: README.md does not say 'contradict' before its numbers"]
    text = (home / "README.md").read_text()
    (home / "README.md").write_text(text.replace(harness.OPEN, f"The run contradicts it.\n\n{harness.OPEN}"))
    assert harness.check(example) == [] and harness.main(example, ["--redraw"]) == 0
    example.claim = True
    assert f"example: holds: {name}: 1; allowed: >= 0" in harness.check(example)
    example.CONTRADICTED = ("another",)  # type: ignore[attr-defined]
    assert "example: no criterion 'another', whose verdict run.py states" in harness.check(example)


def test_what_a_result_leaves_open_is_told(example: Example) -> None:
    harness.main(example, [])
    open_one = harness.Criterion("time", "not known", "< 1", None)
    example.criteria = lambda dataset: [open_one]  # type: ignore[method-assign]
    assert harness.main(example, ["--redraw"]) == 1
    assert "| time | not known | < 1 | not decided |" in (harness.folder(example) / "README.md").read_text()
    assert harness.check(example)[0] == "example: is not decided: time: not known; allowed: < 1"
    example.UNDECIDED = ("time",)  # type: ignore[attr-defined]
    assert harness.check(example) == ["example: README.md does not say 'not decided' before its numbers"]


def test_smoke_needs_a_folder_of_its_own(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main(example, ["--smoke"]) == 2
    assert "give another folder with --out" in capsys.readouterr().err
    assert harness.main(example, ["--smoke", "--out", str(tmp_path / "a" / "b")]) == 0
    assert harness.result_of(tmp_path / "a" / "b").sizes["x"] == 2
    assert (harness.folder(example) / "README.md").read_text() == README
    assert harness.main(example, ["--check", "--out", str(tmp_path / "a" / "b")]) == 0


def test_refusals(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (harness.folder(example) / "README.md").write_text("no markers")
    assert harness.main(example, []) == 2
    assert example.calls == []
    assert "README: needs <!-- numbers -->" in capsys.readouterr().err
    (harness.folder(example) / "README.md").write_text(README.replace(harness.CLAIM, "Claim:"))
    assert harness.main(example, []) == 2 and example.calls == []
    assert "README: needs one paragraph that begins with **Claim.**" in capsys.readouterr().err
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


@pytest.mark.thorough
def test_index_is_up_to_date() -> None:
    text = (harness.HOME / "README.md").read_text(encoding="utf-8")
    assert harness.with_numbers(text, harness.index()) == text


def inner_imports(source: str) -> list[str]:
    """Imports of rfdiff that its users do not have: not a public name of the front door, of its subpackages, or of the extra `images`."""
    inner = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            inner += [alias.name for alias in node.names if alias.name.startswith("rfdiff.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rfdiff":
            module = node.module or ""
            if module.startswith("rfdiff.images"):
                continue
            top = module.removeprefix("rfdiff").lstrip(".")
            public = [*rfdiff.__all__, "images"] if not top else getattr(rfdiff, top).__all__ if top in rfdiff.__all__ else []
            inner += [f"{module}.{alias.name}" for alias in node.names if alias.name not in public]
    return inner


@pytest.mark.parametrize("path", sorted(harness.HOME.rglob("*.py")), ids=lambda path: str(path.relative_to(harness.HOME)))
def test_experiments_use_the_front_door(path: Path) -> None:
    assert inner_imports(path.read_text(encoding="utf-8")) == []


def test_inner_imports_are_seen() -> None:
    assert inner_imports("from rfdiff import Problem, theory\nfrom rfdiff.plots import save_figure\nimport numpy") == []
    source = "from rfdiff.curves import CURVE_NAMES\nfrom rfdiff.theory import dynamics\nimport rfdiff.problem\nfrom rfdiff import curves"
    assert inner_imports(source) == ["rfdiff.curves.CURVE_NAMES", "rfdiff.theory.dynamics", "rfdiff.problem", "rfdiff.curves"]
