"""Damaged files of every kind: what is missing is named, what has changed is noticed, and nothing but one clear error comes of it."""

import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from rfdiff import InputError, load, save
from rfdiff.files import result_file
from rfdiff.files.atomic import write_arrays
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.value_types import same_value
from tests import synthetic

MOST_BYTES = 4096  # of a disk that is nearly full


def dataset() -> xr.Dataset:
    """Everything that files of maps, times, sweeps and evaluations hold: numbers, truth values, text, single numbers, axis labels."""
    return xr.Dataset(
        {
            "time": (("quantity", "t", "class"), np.arange(12.0).reshape(2, 3, 2), {"long_name": "class-wise time"}),
            "converged": ("t", [True, False, True], {"long_name": "error below the tolerance"}),
            "status": ("t", np.array(["done", "failed", "ψ"]), {"long_name": "state"}),
            "separated": ((), True),
            "error": ((), 1e-7, {"units": "1"}),
        },
        {"t": ("t", [0.1, 0.2, 0.3], {"spacing": "log"}), "quantity": ["tau_gen", "tau_mem"], "class": [0, 1]},
        {"content": "phase map", "x": "t", "q": 0.5, "seconds": 3},
    )


def result() -> result_file.Result:
    return result_file.Result(synthetic.problem(), synthetic.theory(), metadata={"rule": "gradient-flow"})


@pytest.fixture(params=["dataset", "result"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of each format."""
    return save(dataset() if request.param == "dataset" else result(), tmp_path / "whole.nc", random_seed=3)


def same_content(one: object, other: object) -> bool:
    if isinstance(one, xr.Dataset):
        return isinstance(other, xr.Dataset) and one.identical(other)
    return same_value(one, other)


def members(path: Path) -> Iterator[tuple[str, str]]:
    """Every variable and attribute of a file as (object, attribute or ""), but for what HDF5 and NetCDF keep for themselves."""
    found: list[tuple[str, str]] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        hidden = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates", "dtype", "coordinates"}
        found.append((name, ""))
        found.extend((name, key) for key in item.attrs if key not in hidden)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
        found.extend(("/", key) for key in file.attrs if key not in ("_NCProperties", "layout", "checksum"))
    return iter(found)


def test_whatever_is_missing_is_named_in_one_line(whole: Path, tmp_path: Path) -> None:
    count, path = 0, tmp_path / "damaged.nc"
    for name, attribute in list(members(whole))[::3]:
        path.write_bytes(whole.read_bytes())
        with h5py.File(path, "r+") as file:
            if attribute:
                del file[name].attrs[attribute]
            else:
                del file[name]
        with pytest.raises(InputError, match=r"^[^\n]*damaged\.nc: [^\n]+$"):
            load(path)
        count += 1
    assert count >= 10


@pytest.mark.thorough
def test_whatever_bit_is_flipped_nothing_wrong_is_read(whole: Path, tmp_path: Path) -> None:
    """Refused in one line, or without effect on what is read; no exception is left to the interpreter's finalisers."""
    content, path, rng, expected = whole.read_bytes(), tmp_path / "damaged.nc", np.random.default_rng(0), load(whole)
    refused = 0
    for place in rng.integers(0, len(content), 40):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read = load(path)
        except InputError as err:
            refused += 1
            assert "damaged.nc: " in str(err) and "\n" not in str(err)
        else:
            assert same_content(read, expected)
    gc.collect()  # finalisers of files that failed to open run here, under filterwarnings = error
    assert refused > 8


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q", 0.25, r"is damaged, or was changed after it was written \(its checksum differs\)"),
        ("x", "psi_p", "its checksum differs"),
        ("layout", "{", "is damaged .attribute layout cannot be read"),
        ("layout", "[1]", "is damaged .attribute layout cannot be read"),
        ("checksum", "0", "its checksum differs"),
        ("format_version", 99, "newer than"),
    ],
)
def test_changed_attributes(name: str, value: object, message: str, tmp_path: Path) -> None:
    path = save_dataset(dataset(), tmp_path / "a.nc")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=rf"a\.nc: .*{message}"):
        load_dataset(path)


def test_a_changed_number_of_the_problem_is_noticed(tmp_path: Path) -> None:
    """HDF5 has no checksum for attributes: t = 0.1 would have become 0.2 without a word."""
    path = save(result(), tmp_path / "a.nc")
    with h5py.File(path, "r+") as file:
        file.attrs["problem"] = str(file.attrs["problem"]).replace("t = 0.1", "t = 0.2")
    with pytest.raises(InputError, match="its checksum differs"):
        load(path)


def test_files_of_earlier_versions_have_no_seal(whole: Path) -> None:
    expected = load(whole)
    with h5py.File(whole, "r+") as file:
        del file.attrs["layout"], file.attrs["checksum"]
    read = load(whole)
    assert same_content(read, expected)


@contextmanager
def nearly_full_disk() -> Iterator[None]:
    """No file can grow beyond `MOST_BYTES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    old = save_dataset(xr.Dataset({"x": ((), 1.0)}), tmp_path / "old.nc")
    before = old.read_bytes()
    assert len(before) > MOST_BYTES
    with nearly_full_disk():
        for path in (tmp_path / "new.nc", old):
            for write in (lambda path=path: save(result(), path), lambda path=path: save(dataset(), path)):
                with pytest.raises(OSError, match=path.name):
                    write()
        with pytest.raises(OSError, match=r"seed-0\.npz"):
            write_arrays(tmp_path / "seed-0.npz", {"x": np.zeros(10_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["old.nc"] and old.read_bytes() == before


def test_home_folders_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save(dataset(), "~/a.nc") == tmp_path / "a.nc"
    assert isinstance(load("~/a.nc"), xr.Dataset)
    save(result(), "~/b.nc")
    assert isinstance(load(Path("~/b.nc")), result_file.Result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nc", "b.nc"]
    for bad in ("~nobody-of-that-name/a.nc", "a\0b.nc"):
        with pytest.raises(InputError, match=r"home|null character"):
            load(bad)


def test_every_type_comes_back(tmp_path: Path) -> None:
    for value in (synthetic.theory(), synthetic.simulation(), synthetic.spectrum()):
        back = load(save(value, tmp_path / "a.nc", note="x"))
        assert type(back) is type(value) and same_value(back, value)
    with pytest.raises(InputError, match=r"value: got int; allowed: a Result, a type with to_xarray"):
        save(3, tmp_path / "b.nc")  # type: ignore[arg-type]
    foreign = save_dataset(dataset().assign_attrs(content="LearningCurves"), tmp_path / "c.nc")
    with pytest.raises(InputError, match=r"c\.nc: the file has no attribute 'source'"):
        load(foreign)
