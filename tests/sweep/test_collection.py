"""Collecting a sweep: every number at its place, bad files by name, figures of what is there."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex

from rfdiff import plots
from rfdiff.class_times import readings
from rfdiff.curves import LearningCurves
from rfdiff.files import result_file
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.sweep import DONE, FAILED, Folder, Sweep, collect, run_sweep
from rfdiff.sweep.cells import Cell, Task, cells_of, versions
from tests.sweep.instant import instant, sweep
from tests.sweep.test_running import counting
from tests.synthetic import given
from tests.tolerances import rejects

ASKED = {"solvers": ["theory", "exact"], "d": [12], "seeds": 3, "seeds_per_cell": 2, "axes": {"t": [0.3, 0.2], "psi_n": [2.0, 3.0]}}


def asked(**changes: Any) -> Sweep:
    return sweep(**{**ASKED, **changes})


def made(out: Path, sweep: Sweep, fail: Any = lambda task: False) -> list[Cell]:
    run_sweep(sweep, out, execute=counting([], fail))
    return cells_of(sweep, versions())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of 12 cells."""
    out = tmp_path_factory.mktemp("template")
    made(out, asked())
    return out


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> tuple[Path, list[Cell]]:
    """A copy of it, to be damaged."""
    shutil.copytree(template, tmp_path / "copy")
    return tmp_path / "copy", cells_of(asked(), versions())


def assert_mean(here: xr.Dataset, values: np.ndarray) -> None:
    np.testing.assert_allclose(here.test_loss, values.mean(0), rtol=1e-14)
    np.testing.assert_allclose(here.test_loss_stderr, values.std(0, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_every_curve_stands_at_its_coordinates(finished: tuple[Path, list[Cell]]) -> None:
    out, cells = finished
    found = collect(out)
    assert found.test_loss.dims == ("t", "psi_n", "solver", "d", "time", "class") and set(np.unique(found.status)) == {DONE}
    np.testing.assert_array_equal(found.t, [0.3, 0.2])
    np.testing.assert_array_equal(found.tau.values, np.broadcast_to(np.asarray(asked().taus), (2, 2, 5)))
    points = [(t, n) for t in (0.3, 0.2) for n in (2.0, 3.0)]
    pooled: dict[tuple[Any, ...], list[LearningCurves]] = {}
    for cell in cells:
        at = dict(zip(("t", "psi_n"), points[cell.index], strict=True))
        curves = instant(cell.task)
        if cell.task.d is None:
            np.testing.assert_array_equal(found.theory_test_loss.sel(at), curves.test_loss)
            np.testing.assert_array_equal(found.theory_class_time.sel(at), readings(curves, 0.5)[0])
            continue
        part = found.test_loss_per_seed.sel(at).sel(solver="exact", d=cell.task.d, seed=list(cell.task.seeds))
        np.testing.assert_array_equal(part, (curves.per_seed or {})["test_loss"])
        pooled.setdefault((*points[cell.index], cell.task.d), []).append(curves)
    for (t, n, d), parts in pooled.items():
        values = np.concatenate([given(part.per_seed)["test_loss"] for part in parts])
        assert_mean(found.sel(t=t, psi_n=n, solver="exact", d=d), values)
        rejects(partial(assert_mean, found.sel(t=0.5 - t, psi_n=n, solver="exact", d=d), values))
    assert bool(np.isfinite(found.class_time.sel(quantity="best_test_loss")).all())


@pytest.mark.thorough
def test_failed_and_missing_cells_are_nan_and_say_why(tmp_path: Path) -> None:
    def fail(task: Task) -> bool:
        return (task.d is None and "psi_n = 3.0" in task.problem) or task.seeds == (2,)

    cells = made(tmp_path, asked(), fail)
    missing = next(cell for cell in cells if cell.task.seeds == (0, 1))
    Folder(tmp_path).result(missing.name).unlink()
    found = collect(tmp_path)
    assert (found.attrs["cells"], found.attrs["done"], found.attrs["failed"], found.attrs["missing"]) == (12, 5, 6, 1)
    assert set(np.unique(found.theory_status.sel(psi_n=3.0))) == {FAILED}
    assert np.isnan(found.theory_test_loss.sel(psi_n=3.0)).all() and np.isfinite(found.theory_test_loss.sel(psi_n=2.0)).all()
    assert set(np.unique(found.diagnosis.sel(seed=2))) == {"ValueError: made to fail"}
    here = found.isel(t=0, psi_n=0).sel(solver="exact", d=12)
    assert list(here.status.values) == ["missing", "missing", "failed"] and np.isnan(here.test_loss).all()
    other = found.isel(t=1, psi_n=0).sel(solver="exact", d=12)
    np.testing.assert_allclose(other.test_loss, other.test_loss_per_seed.sel(seed=[0, 1]).mean("seed"), rtol=1e-14)
    again = load_dataset(save_dataset(found, tmp_path / "sweep.nc"))
    assert again.status.identical(found.status) and again.tau.equals(found.tau)
    plots.sweep_times(again, "psi_n")
    plots.sweep_curves(again, "t")


def test_bad_files_are_named_and_skipped_only_when_asked(finished: tuple[Path, list[Cell]]) -> None:
    out, cells = finished
    folder = Folder(out)
    files = [folder.result(cell.name) for cell in cells]
    files[0].write_bytes(files[0].read_bytes()[:-1000])  # truncated
    files[1].write_bytes(b"something else")
    files[2].write_bytes(files[3].read_bytes())  # another cell's
    result = result_file.load(files[4])
    result_file.save(dataclasses.replace(result, metadata={**result.metadata, "jax_version": "0.0"}), files[4])
    (folder.cells / "notes.txt").write_text("mine")
    (folder.cells / f"{'0' * 32}.nc").write_bytes(files[5].read_bytes())
    (folder.cells / ".leftover.nc.7.partial").write_bytes(b"torn")
    files[6].unlink()
    folder.failure(cells[6].name).write_text("{")
    with pytest.raises(ValueError) as err:
        collect(out)
    told = str(err.value)
    expected = [
        (files[0], "is truncated"),
        (files[1], "cannot be read as a NetCDF file"),
        (files[2], "is not of this cell"),
        (files[4], "was computed by rfdiff "),
        (folder.cells / "notes.txt", "is no cell of this sweep"),
        (folder.cells / f"{'0' * 32}.nc", "is no cell of this sweep"),
        (folder.failure(cells[6].name), "damaged failure record"),
    ]
    for path, fault in expected:
        assert f"{path}: {fault}" in told
    assert told.count(".nc: ") + told.count(".json: ") + told.count(".txt: ") == 7 and "leftover" not in told
    assert told.endswith("delete them and run the sweep again, or leave them out with --skip-bad")
    found = collect(out, skip_bad=True)
    assert (found.attrs["skipped"], found.attrs["done"]) == (7, 7)
    assert (found.theory_status == "skipped").sum() == 3 and "truncated" in str(found.theory_diagnosis.values[0, 0])


@pytest.mark.thorough
def test_a_file_of_a_newer_format_is_named(finished: tuple[Path, list[Cell]], monkeypatch: pytest.MonkeyPatch) -> None:
    out, cells = finished
    path = Folder(out).result(cells[0].name)
    result = result_file.load(path)
    monkeypatch.setattr(result_file, "_root_attributes", lambda result: {"format": result_file.FORMAT, "format_version": 99})
    result_file.save(result, path)
    with pytest.raises(ValueError, match=rf"{cells[0].name}\.nc: has format version 99, newer than 2"):
        collect(out)


def test_no_sweep(tmp_path: Path, finished: tuple[Path, list[Cell]]) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json: no such manifest"):
        collect(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file/manifest\.json: no such manifest"):
        collect(tmp_path / "file")
    file = finished[0] / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 2}))
    with pytest.raises(ValueError, match="has format version 2; allowed: up to 1"):
        collect(finished[0])


def test_figures_show_the_numbers_of_the_dataset(template: Path) -> None:
    found = collect(template)
    figure = plots.sweep_times(found, "psi_n")
    panels = np.array(figure.axes).reshape(3, 2)
    for j, t in enumerate((0.3, 0.2)):
        assert f"{t:g}" in panels[0, j].get_title()
        for c, color in enumerate(plots.OKABE_ITO[:2]):
            drawn = [line for line in panels[2, j].lines if to_hex(line.get_color()) == color.lower()]
            here = found.sel(t=t, quantity="best_test_loss").isel({"class": c})
            heights = [np.asarray(line.get_ydata()) for line in drawn if np.size(line.get_ydata()) == 2]
            expected = [here.theory_class_time, *(here.class_time.sel(solver="exact", d=d) for d in (12,))]
            for values in expected:
                assert any(np.array_equal(y, values) for y in heights)
    curves = plots.sweep_curves(found, "t")
    heights = [np.asarray(line.get_ydata()) for line in curves.axes[0].lines]
    here = found.isel(t=0, psi_n=1)
    assert any(np.array_equal(y, here.theory_train_loss.isel({"class": 1})) for y in heights)
    assert any(np.array_equal(y, here.test_loss.sel(solver="exact", d=12).isel({"class": 0})) for y in heights)
    with pytest.raises(ValueError, match="axis: 'psi_p'; allowed: t, psi_n"):
        plots.sweep_times(found, "psi_p")
    with pytest.raises(ValueError, match="axis: 'psi_p'; allowed: t, psi_n"):
        plots.sweep_curves(found, "psi_p")
