"""What files must hold: a file without a seal that lacks something is refused by name, and what is asked for is enough to draw it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from rfdiff import InputError
from rfdiff.cli.command import BAD_INPUT, DISAGREE
from rfdiff.cli.plot import REDRAW
from rfdiff.files.contents import AXES, BEFORE, CONTENTS, TEXT, Content, load_content, require_content
from rfdiff.files.dataset_file import save_dataset
from tests import synthetic
from tests.cli.command_line import refused, run

AXIS_NAMES = {"phase map": ("t", "psi_n"), "sweep": ("psi_n",)}
LENGTHS = {"class": 2, "edge": 2, "bound": 2, "axis": 1, "kind": 2}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "phase map": {"x": "t", "y": "psi_n"},
    "sweep": {"axes": "psi_n", "specification": 'solvers = ["theory", "exact"]'},
    "speciation": {"d": 64, "trajectories": 2000},
    "diagnosis": {"remedy": '["more of class 1"]', "preparation": '[["source", "two.npz"]]'},
}
WHOLE = ("d", "seed", "step", "checkpoint", "interval", "path_class", "count", "counts", "grid", "member")


def made_up(content: str) -> xr.Dataset:
    """A dataset that holds exactly what its kind must hold, and every part that may be there."""
    kind, rng = CONTENTS[content], np.random.default_rng(0)
    named = AXIS_NAMES.get(content, ())
    parts = (kind, *kind.parts)
    words = {axis: _words(found) for part in parts for axis, found in part.words.items()}
    variables: dict[str, Any] = {axis: (axis, found) for axis, found in words.items()}
    variables |= {axis: (axis, np.array([1.0, 2.0, 3.0]), {"spacing": "log"}) for axis in named}
    for part in parts:
        for name, of in part.variables.items():
            dims = tuple(axis for dim in of for axis in (named if dim == AXES else [dim]))
            shape = [3 if axis in named else len(words[axis]) if axis in words else LENGTHS.get(axis, 5) for axis in dims]
            variables[name] = (dims, _values(name, dims, shape, rng))
    values: dict[type, Any] = {str: "x", int: 1, float: 0.5}
    attributes: dict[str, Any] = {name: values[of] for part in parts for name, of in part.attributes.items()}
    given: dict[str, Any] = ATTRIBUTES.get(content, {})
    data = xr.Dataset(variables, attrs={**attributes, **given, "content": content})
    return data if content == "sweep" else data.assign_attrs(problem=synthetic.problem().to_toml())


def _words(found: tuple[str, ...]) -> list[str]:
    return [*(["tau = 1", "tau = 10"] if BEFORE in found else []), *(word for word in found if word != BEFORE)]


def _values(name: str, dims: tuple[str, ...], shape: list[int], rng: np.random.Generator) -> np.ndarray:
    if name.removeprefix("theory_") in TEXT:
        return np.full(shape, "done") if dims != (name,) else np.array([f"word {i}" for i in range(shape[0])])
    if dims == (name,):
        return np.arange(1, shape[0] + 1) * (1 if name in WHOLE else 1.0)
    if name in WHOLE:
        return np.zeros(shape, int) + (2 if name.startswith("count") else 0)
    values = rng.uniform(0.2, 0.9, shape)
    return np.sort(values, axis=0)[::-1] if shape else np.array(1)


def unsealed(data: xr.Dataset, path: Path) -> Path:
    """A file of a dataset as another program writes it: without layout and checksum."""
    save_dataset(data, path)
    with h5py.File(path, "r+") as file:
        del file.attrs["layout"], file.attrs["checksum"]
    return path


def test_every_kind_that_is_drawn_again_is_described() -> None:
    assert set(CONTENTS) == set(REDRAW)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "content", [pytest.param(name, marks=pytest.mark.thorough) if name == "diagnosis" else name for name in sorted(CONTENTS)]
)
def test_what_a_kind_must_hold_is_enough_to_draw_it(content: str, tmp_path: Path) -> None:
    """Drawn with every part, whatever the verdict on the made-up numbers is."""
    path = unsealed(made_up(content), tmp_path / "file.nc")
    status, told = run("plot", str(path), "--out", str(tmp_path / "out"))
    assert status in (0, DISAGREE) and "in " + str(tmp_path / "out") in told


@pytest.mark.parametrize("content", sorted(CONTENTS))
def test_whatever_a_kind_must_hold_is_missed_by_name(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, kind = made_up(content), CONTENTS[content]
    require_content(data, content)
    parts: tuple[Content, ...] = (kind, *kind.parts)
    alone = {next(iter(part.variables)) for part in kind.parts if len(part.variables) == 1}  # a part that may be absent as a whole
    names = [name for part in parts for name in (*part.variables, *part.words) if name not in alone]
    for name in names:
        with pytest.raises(InputError, match=rf"^the file has no (variable|axis) '{name}'$"):
            require_content(data.drop_vars(name), content)
        if data[name].ndim > 1:
            with pytest.raises(InputError, match=rf"variable {name} has dimensions .*, expected"):
                require_content(data.assign({name: data[name].transpose(*data[name].dims[::-1])}), content)
        with pytest.raises(InputError, match=rf"variable {name} "):
            other = 1.0 if data[name].dtype.kind in "UO" else "a"
            require_content(data.assign({name: (data[name].dims, np.full(data[name].shape, other))}), content)
    for name in (name for part in parts for name in (*part.attributes, *part.axes)):
        with pytest.raises(InputError, match=rf"^the file has no attribute '{name}'$"):
            require_content(data.drop_attrs(deep=False).assign_attrs({k: v for k, v in data.attrs.items() if k != name}), content)
    path = unsealed(data.drop_vars(names[0]), tmp_path / "file.nc")
    assert f"{path}: the file has no variable '{names[0]}'" in refused(capsys, "plot", str(path), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        ("class-wise times", {"problem": "t = 1"}, "problem"),
        ("phase map", {"rule": "sgdd"}, "attribute 'rule' of the file is 'sgdd'; allowed: gradient-flow"),
        ("sweep", {"specification": "solvers = 3"}, "attribute 'specification' of the file is not that of a sweep"),
        ("sweep", {"axes": "psi_p"}, "the file has no variable 'psi_p'"),
        ("phase map", {"q": "x"}, "attribute 'q' of the file is 'x'; allowed: a number"),
    ],
)
def test_attributes_that_say_nothing(content: str, changes: dict[str, str], message: str, tmp_path: Path) -> None:
    path = unsealed(made_up(content).assign_attrs(changes), tmp_path / "file.nc")
    with pytest.raises(InputError, match=r"file\.nc: ") as refusal:
        load_content(path, content)
    assert message in str(refusal.value)


def test_names_of_earlier_versions_and_of_other_classes() -> None:
    data = made_up("phase map")
    require_content(data.rename(converged="failed"), "phase map")
    with pytest.raises(InputError, match="the file has 1 classes, its problem has 2"):
        require_content(data.isel({"class": [0]}), "phase map")
    with pytest.raises(InputError, match="variable quantity holds tau_mem, tau_stop, tau_gen, tau_opt; expected tau_gen"):
        require_content(data.assign_coords(quantity=["tau_mem", "tau_stop", "tau_gen", "tau_opt"]), "phase map")
    with pytest.raises(InputError, match="variable t has no attribute 'spacing'"):
        require_content(data.assign_coords(t=("t", [1.0, 2.0, 3.0])), "phase map")


def test_a_file_that_xarray_wrote_again_without_a_variable_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_dataset(made_up("sweep"), tmp_path / "sweep.nc")
    with xr.open_dataset(path, engine="h5netcdf") as data:
        data.load().drop_vars("class_time_stderr").drop_attrs(deep=False).assign_attrs(data.attrs).to_netcdf(
            tmp_path / "again.nc", engine="h5netcdf"
        )
    assert "has no variable 'class_time_stderr'" in refused(capsys, "plot", str(tmp_path / "again.nc"), "--out", str(tmp_path / "out"))
    assert BAD_INPUT == 2 and not (tmp_path / "out").exists()
