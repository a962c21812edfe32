"""Labelled arrays on disk: every value survives, and every bad file is named with its fault."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rfdiff.files.dataset_file import load_dataset, save_dataset


def example() -> xr.Dataset:
    values = np.array([[1.5, np.nan, -0.0], [np.inf, 1e-300, 2.0]])
    return xr.Dataset(
        {"tau": (("ratio", "class"), values, {"units": "1"}), "flip": ("ratio", [True, False]), "seeds": ((), 7)},
        {"ratio": [0.5, 2.0], "name": ("class", ["broad", "narrow", "ψ"]), "half": ("ratio", np.array([1, 2], np.int32))},
        {"note": "text", "q": 0.5},
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return save_dataset(example(), tmp_path / "a.nc", random_seed=3)


def test_round_trip(written: Path) -> None:
    found, expected = load_dataset(written), example()
    assert set(found.coords) == set(expected.coords) and set(found.data_vars) == set(expected.data_vars)
    for name, variable in expected.variables.items():
        assert found[name].dims == variable.dims
        assert np.array_equal(found[name].values, variable.values, equal_nan=variable.dtype.kind == "f")
        assert found[name].dtype.kind in (variable.dtype.kind, "O" if variable.dtype.kind == "U" else "")
    assert found["tau"].attrs == {"units": "1"}
    assert np.signbit(found["tau"].values[0, 2])
    assert (found.attrs["note"], found.attrs["q"], found.attrs["random_seed"]) == ("text", 0.5, 3)
    assert {"date", "rfdiff_version", "system"} <= set(found.attrs) and "format" not in found.attrs


def test_written_again_it_keeps_its_provenance(written: Path) -> None:
    found = load_dataset(written)
    found.attrs["date"] = "2001-02-03T04:05:06+00:00"
    assert load_dataset(save_dataset(found, written)).attrs == found.attrs


def test_complex_numbers_come_back(tmp_path: Path) -> None:
    data = xr.Dataset({"g": ("z", np.array([1 + 2j, np.nan - 0.5j]), {"units": "1"}), "x": ("z", [1.0, 2.0])})
    assert load_dataset(save_dataset(data, tmp_path / "a.nc")).drop_attrs(deep=False).identical(data)


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    values = np.full(64, 0.123456789)
    path = save_dataset(xr.Dataset({"x": ("i", values)}), tmp_path / "a.nc")
    raw, number = path.read_bytes(), values[:1].tobytes()
    assert number in raw
    path.write_bytes(raw.replace(number, np.array([0.2]).tobytes(), 1))
    with pytest.raises(ValueError, match=r"a\.nc: cannot be read"):
        load_dataset(path)


def test_refused_files(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.nc: no such file"):
        load_dataset(tmp_path / "none.nc")
    with pytest.raises(ValueError, match="is not a regular file"):
        load_dataset(tmp_path)
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.nc: cannot be read"):
        load_dataset(tmp_path / "text.nc")
    (tmp_path / "cut.nc").write_bytes(written.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cut\.nc: is truncated"):
        load_dataset(tmp_path / "cut.nc")
    for attributes, fault in (
        ({}, "is not an rfdiff dataset"),
        ({"format": "rfdiff result", "format_version": 1}, "is not an rfdiff dataset"),
        ({"format": "rfdiff dataset"}, "format_version is None"),
        ({"format": "rfdiff dataset", "format_version": 99}, "newer than 1"),
    ):
        xr.Dataset(attrs=attributes).to_netcdf(tmp_path / "foreign.nc", engine="h5netcdf")
        with pytest.raises(ValueError, match=rf"foreign\.nc: .*{fault}"):
            load_dataset(tmp_path / "foreign.nc")


def test_refused_datasets(written: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(ValueError, match="dataset: got DataArray"):
        save_dataset(xr.DataArray([1.0]), written)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"variable 'x' is of type datetime64\[ns\]"):
        save_dataset(xr.Dataset({"x": ("i", np.zeros(2, "datetime64[ns]"))}), written)
    with pytest.raises(ValueError, match="variable 'x' is of type object"):
        save_dataset(xr.Dataset({"x": ("i", np.array([None, 1], object))}), written)
    for entry in ({"format": "mine"}, {"list": [1]}, {"truth": True}):
        with pytest.raises(ValueError, match="metadata: .*allowed: text and numbers"):
            save_dataset(example(), written, **entry)
    assert written.read_bytes() == before
