"""The folder of results: what is refused, what is replaced, formats, sizes and panels of figures, and the lock."""

from pathlib import Path

import pytest

from rfdiff.cli import curve_results, entry
from rfdiff.cli.curve_results import FILES
from rfdiff.cli.folder import results_folder
from rfdiff.cli.options import Drawing
from rfdiff.errors import InputError
from rfdiff.files import result_file
from tests import synthetic
from tests.cli.command_line import refused, run


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of theory alone that nothing had to be computed for."""
    result = result_file.Result(synthetic.problem(), synthetic.theory(), synthetic.spectrum())
    return result_file.save(result, tmp_path_factory.mktemp("made") / "result.nc")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.thorough
def test_figures_have_the_format_the_size_and_the_panels_that_are_asked_for(file: Path, tmp_path: Path) -> None:
    assert run("plot", str(file), "--out", str(tmp_path), "--format", "svg", "--size", "6", "3")[0] == 0
    assert names(tmp_path) == ["curves.svg", "spectrum.svg"]
    svg = (tmp_path / "curves.svg").read_text()
    assert 'width="432pt" height="216pt"' in svg  # 72 points an inch
    status, told = run("plot", str(file), "--out", str(tmp_path / "p"), "--format", "pdf", "--panels", "--class-names", "broad", "narrow")
    assert status == 0 and names(tmp_path / "p") == ["curves_losses.pdf", "curves_score_error.pdf", "spectrum.pdf"]
    assert all((tmp_path / "p" / name).read_bytes().startswith(b"%PDF") for name in names(tmp_path / "p"))
    assert [line.split()[0] for line in told.splitlines()[1:3]] == ["broad", "narrow"]
    assert f"in {tmp_path / 'p'}: curves_losses.pdf, curves_score_error.pdf, spectrum.pdf" in told


def test_figures_of_an_earlier_run_are_removed_when_it_is_replaced_and_not_when_a_file_is_drawn_again(file: Path, tmp_path: Path) -> None:
    for name in ("agreement.png", "curves.pdf", "curves_losses.png", "mine.png", "curves_of_mine.png"):
        (tmp_path / name).write_bytes(b"of an earlier run")
    result = result_file.load(file)
    curve_results.show(result, tmp_path, 0.5, Drawing(), replace=False)
    assert {"agreement.png", "curves.pdf", "curves_losses.png"} <= set(names(tmp_path))
    curve_results.show(result, tmp_path, 0.5, Drawing(), replace=True)
    assert names(tmp_path) == ["curves.png", "curves_of_mine.png", "mine.png", "spectrum.png"]


def test_results_in_any_format_are_refused_without_overwrite(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "curves_losses.svg").write_bytes(b"mine")
    line = refused(capsys, "plot", str(file), "--out", str(tmp_path))
    assert "already holds curves_losses.svg; choose another folder or add --overwrite" in line
    with pytest.raises(InputError, match=r"^--out: .* already holds curves_losses\.svg"), results_folder(tmp_path, FILES, False):
        raise AssertionError("entered")


def test_two_commands_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        results_folder(tmp_path, FILES, False),
        pytest.raises(InputError, match="another process works on the results in it; allowed: one at a time"),
        results_folder(tmp_path, FILES, True),
    ):
        raise AssertionError("entered")
    with results_folder(tmp_path, FILES, False):
        assert (tmp_path / ".lock").exists()


def test_figures_are_not_drawn_where_another_command_works(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with results_folder(tmp_path, FILES, False):
        line = refused(capsys, "plot", str(file), "--out", str(tmp_path))
    assert "another process works on the results in it; allowed: one at a time" in line and names(tmp_path) == []


def test_input_that_is_refused_late_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(InputError, match="late"), results_folder(out, FILES, False):
        raise InputError("late")
    assert names(tmp_path) == []
    with pytest.raises(InputError, match="late"), results_folder(out, FILES, False):
        (out / "seeds.partial").mkdir()
        raise InputError("late")
    assert names(out) == ["seeds.partial"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "a"], "--class-names: 'a' twice; allowed: another name for each class"),
        (["X", ""], "--class-names: '' as the name of class 1; allowed: words of printable characters"),
        (["X", " "], "--class-names: ' ' as the name of class 1"),
        (["X", "a\nb"], "as the name of class 1"),
        (["X"], "--class-names: 1 names; allowed: 2, one for each class"),
    ],
)
def test_names_of_classes_that_cannot_be_told_apart_are_refused(
    classes: list[str], message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "plot", str(file), "--out", str(tmp_path / "out"), "--class-names", *classes)
    assert not (tmp_path / "out").exists()


def test_a_figure_too_small_for_its_labels_is_drawn_and_said(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["plot", str(file), "--out", str(tmp_path), "--size", "1", "1"]) == 0  # a warning of matplotlib would be an error
    told = capsys.readouterr()
    assert "curves.png, spectrum.png: too small for the labels, which overlap; a larger --size has room" in told.err
    assert names(tmp_path) == ["curves.png", "spectrum.png"]


def test_home_is_expanded_in_every_path(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "copy.nc").write_bytes(file.read_bytes())
    assert run("plot", "~/copy.nc", "--out", "~/figures")[0] == 0
    assert names(tmp_path / "figures") == ["curves.png", "spectrum.png"] and not (tmp_path / "~").exists()


@pytest.mark.parametrize(("form", "start"), [("csv", "class,weight,source,tau_gen,"), ("json", '{\n "times": [')])
def test_tables_for_programs_have_standard_output_to_themselves(
    form: str, start: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["plot", str(file), "--out", str(tmp_path), "--table", form]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(start) and " in " not in told.out and f"in {tmp_path}: curves.png" in told.err
