"""Results on disk: every number survives, no half file is ever taken for a whole one, every bad file is named with its fault."""

import dataclasses
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import h5py
import jax
import numpy as np
import pytest
import xarray as xr

from rfdiff.files import result_file
from rfdiff.files.atomic import replacing
from rfdiff.files.provenance import provenance
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from tests import synthetic


def full_result() -> result_file.Result:
    return result_file.Result(
        synthetic.problem(),
        synthetic.theory(),
        synthetic.spectrum(),
        synthetic.simulation(),
        synthetic.simulation(seeds=2, d=10),
        provenance(random_seed=7, rule="gradient-flow", tolerance=1e-6, note="ψ, and an empty one:", empty=""),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_file.save(full_result(), tmp_path_factory.mktemp("store") / "result.nc")


def assert_identical(one: object, other: object) -> None:
    """Same structure, and the same bits and dtypes in every leaf."""
    leaves, others = jax.tree_util.tree_leaves(one), jax.tree_util.tree_leaves(other)
    assert str(jax.tree_util.tree_structure(one)) == str(jax.tree_util.tree_structure(other))
    for a, b in zip(leaves, others, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


def test_round_trip_is_exact_in_every_bit(written: Path) -> None:
    expected, found = full_result(), result_file.load(written)
    for name in ("theory", "spectrum", "simulation", "smaller"):
        assert_identical(getattr(found, name), getattr(expected, name))
    assert found.problem.to_toml() == expected.problem.to_toml()
    assert found.theory is not None
    assert np.isinf(np.asarray(found.theory.taus)[-1])
    dated = {name: value for name, value in expected.metadata.items() if name != "date"}
    assert {name: value for name, value in found.metadata.items() if name != "date"} == dated
    assert {name: type(value) for name, value in found.metadata.items()} == {name: type(value) for name, value in expected.metadata.items()}


def test_what_was_not_computed_stays_absent(tmp_path: Path) -> None:
    bare = dataclasses.replace(synthetic.simulation(), per_seed=None, spectrum=None)
    empty_atoms = dataclasses.replace(synthetic.spectrum(), atom_locations=np.zeros(0), atom_weights=np.zeros(0))
    found = result_file.load(result_file.save(result_file.Result(synthetic.problem(), None, empty_atoms, bare), tmp_path / "a.nc"))
    assert (found.theory, found.smaller, found.metadata) == (None, None, {})
    assert_identical(found.simulation, bare)
    assert_identical(found.spectrum, empty_atoms)
    nothing = result_file.load(result_file.save(result_file.Result(synthetic.problem()), tmp_path / "b.nc"))
    assert (nothing.theory, nothing.spectrum, nothing.simulation) == (None, None, None)


def test_single_precision_and_infinities_keep_their_bits(tmp_path: Path) -> None:
    rough = np.asarray(synthetic.theory().test_loss, np.float32)
    rough[3] = np.array([np.nan, -np.inf])
    rough[4] = np.array([-0.0, 1e-42])
    curves = dataclasses.replace(synthetic.theory(), test_loss=rough, dtype="float32")
    found = result_file.load(result_file.save(result_file.Result(synthetic.problem(), curves), tmp_path / "a.nc"))
    assert_identical(found.theory, curves)


def test_file_explains_itself_to_plain_xarray(written: Path) -> None:
    with xr.open_datatree(written, engine="h5netcdf") as tree:
        assert Problem.to_toml(synthetic.problem()) == tree.attrs["problem"]
        assert {"rfdiff_version", "jax_version", "numpy_version", "python_version", "device", "date", "random_seed", "rule"} <= set(
            tree.attrs
        )
        for name, group in tree.children.items():
            for variable, data in group.variables.items():
                assert {"units", "long_name"} <= set(data.attrs), f"{name}/{variable}"
    with xr.open_dataset(written, group="simulation", engine="h5netcdf") as simulation:
        assert simulation["train_loss_per_seed"].dims == ("seed", "tau", "class")
        assert simulation["eigenvalues"].dims == ("seed", "mode")
        last = simulation["test_loss"].sel({"tau": np.inf, "class": 1}).item()
        assert last == np.asarray(synthetic.simulation().test_loss)[-1, 1]
        assert (simulation.attrs["dimension"], simulation.attrs["source"], simulation.attrs["dtype"]) == (20, "simulation", "float64")
    with xr.open_dataset(written, group="spectrum", engine="h5netcdf") as spectrum:
        assert spectrum["class_density"].dims == ("eigenvalue", "class")


def test_file_names_no_host_and_no_path(written: Path) -> None:
    content = written.read_bytes()
    for secret in (platform.node(), str(Path.home()), str(written.parent), str(Path.cwd())):
        assert len(secret) < 3 or secret.encode() not in content


def test_no_truncated_file_is_taken_for_whole(written: Path, tmp_path: Path) -> None:
    content, path = written.read_bytes(), tmp_path / "short.nc"
    for share in (0.0, 0.01, 0.7):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"short\.nc: (is truncated|cannot be read as a NetCDF file)"):
            result_file.load(path)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"short\.nc: is truncated"):
        result_file.load(path)


def test_a_flipped_bit_in_the_numbers_is_noticed(written: Path, tmp_path: Path) -> None:
    content, path = written.read_bytes(), tmp_path / "flipped.nc"
    for values in (
        synthetic.theory().test_loss,
        synthetic.theory().taus,
        synthetic.simulation().test_loss_stderr,
        synthetic.spectrum().density,
    ):
        stored = np.asarray(values).tobytes()
        assert stored in content
        damaged = bytearray(content)
        damaged[content.index(stored) + len(stored) // 2] ^= 1  # a small change of one number, which nothing else would show
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^[^\n]*flipped\.nc: cannot be read as a NetCDF file \([^\n]*$"):
            result_file.load(path)


def change_attribute(name: str, value: object) -> Any:
    def change(file: h5py.File) -> None:
        if value is None:
            del file.attrs[name]
        else:
            file.attrs[name] = value

    return change


def drop(name: str) -> Any:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def drop_source(file: h5py.File) -> None:
    del file["theory"].attrs["source"]


BAD_PROBLEM = 'activation = "cos"\nt = 0.1\npsi_p = 1\npsi_n = 1\n[mixture]\nweights = [1.0]\nvariances = [1.0]\n'
ONE_CLASS = BAD_PROBLEM.replace("cos", "tanh")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_attribute("format", "something else"), "is not an rfdiff result"),
        (change_attribute("format", None), r"is not an rfdiff result \(attribute format is None"),
        (change_attribute("format_version", result_file.FORMAT_VERSION + 1), "has format version 3, newer than 2.*upgrade rfdiff"),
        (change_attribute("format_version", "one"), "format_version is 'one'; allowed: an integer"),
        (change_attribute("problem", None), "has no attribute 'problem'"),
        (change_attribute("problem", "t = = 1"), "result.nc: problem: not TOML: Invalid value"),
        (change_attribute("problem", f"t = {'[' * 20000}"), "result.nc: .*nested too deeply"),
        (change_attribute("problem", BAD_PROBLEM), "activation: unknown name 'cos'"),
        (change_attribute("problem", ONE_CLASS), "group theory has 2 classes, its problem has 1"),
        (drop("theory/test_loss"), "group theory has no variable 'test_loss'"),
        (drop("spectrum/density"), "group spectrum has no variable 'density'"),
        (drop("simulation/class_weights"), "group simulation has no variable 'class_weights'"),
        (drop_source, "group theory has no attribute 'source'"),
    ],
)
def test_foreign_and_incomplete_files_are_named_with_their_fault(change: Any, message: str, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "result.nc"
    path.write_bytes(written.read_bytes())
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        result_file.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.thorough
def test_variable_with_other_dimensions_is_refused(written: Path, tmp_path: Path) -> None:
    with xr.open_datatree(written, engine="h5netcdf", decode_cf=False) as tree:
        groups = {path: node.to_dataset().load() for path, node in tree.subtree_with_keys}
    groups["theory"]["test_loss"] = groups["theory"]["test_loss"].transpose()
    xr.DataTree.from_dict(groups).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"variable theory/test_loss has dimensions \('class', 'tau'\), expected \('tau', 'class'\)"):
        result_file.load(tmp_path / "a.nc")


def test_what_is_no_netcdf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nc").write_text("tau, loss\n1, 2\n" * 100)
    with pytest.raises(ValueError, match=r"text\.nc: cannot be read as a NetCDF file"):
        result_file.load(tmp_path / "text.nc")
    with pytest.raises(ValueError, match=r"none\.nc: no such file"):
        result_file.load(tmp_path / "none.nc")
    with pytest.raises(ValueError, match="is not a regular file"):
        result_file.load(tmp_path)
    xr.Dataset({"x": ("n", np.arange(3))}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc: is not an rfdiff result"):
        result_file.load(tmp_path / "other.nc")


@pytest.mark.parametrize("value", [True, None, [1.0], np.arange(3), {"a": 1}])
def test_metadata_must_be_text_or_numbers(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata: entry = .*; allowed: text and numbers"):
        result_file.save(result_file.Result(synthetic.problem(), metadata={"entry": cast(Any, value)}), tmp_path / "a.nc")
    with pytest.raises(ValueError, match="metadata: format = "):
        result_file.save(result_file.Result(synthetic.problem(), metadata={"format": "mine"}), tmp_path / "a.nc")
    assert list(tmp_path.iterdir()) == []


def test_own_activation_cannot_be_written(tmp_path: Path) -> None:
    own = Problem(synthetic.problem().mixture, lambda x: x / (1 + x**2), 0.1, 4.0, 3.0)
    with pytest.raises(ValueError, match="user's own function and cannot be written"):
        result_file.save(result_file.Result(own), tmp_path / "a.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("moment", ["dump_to_store", "fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_nothing_else(
    error: BaseException, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = result_file.save(result_file.Result(synthetic.problem(), synthetic.theory()), tmp_path / "result.nc")
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    target: Any = xr.Dataset if moment == "dump_to_store" else os
    with monkeypatch.context() as patch:
        patch.setattr(target, moment, fail)
        with pytest.raises(type(error)):
            result_file.save(full_result(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.nc"]


def test_killed_writer_leaves_no_result(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom rfdiff.files.atomic import replacing\n"
        "with replacing(sys.argv[1]) as path:\n    path.write_bytes(b'x' * 100)\n    os._exit(9)\n"
    )
    target = tmp_path / "result.nc"
    assert subprocess.run([sys.executable, "-c", script, str(target)], check=False).returncode == 9
    assert not target.exists()
    assert [entry.suffix for entry in tmp_path.iterdir()] == [".partial"]


def test_missing_folder_and_fresh_permissions(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"), replacing(tmp_path / "nowhere" / "a") as temporary:
        temporary.write_bytes(b"x")
    with replacing(tmp_path / "a") as temporary:
        temporary.write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_round_trip_of_a_law_built_from_covariances(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((2, 12, 12))
    law = MixtureLaw.from_covariances([0.7, 0.3], roots @ np.swapaxes(roots, 1, 2), rng.standard_normal((2, 12)))
    problem = synthetic.problem().with_mixture(law)
    found = result_file.load(result_file.save(result_file.Result(problem), tmp_path / "dense.nc")).problem
    assert_identical(found, problem)
    with xr.open_datatree(tmp_path / "dense.nc") as tree:
        assert tree.attrs["format_version"] == 2 and tree["mixture"]["covariances"].dims == ("class", "row", "column")
        np.testing.assert_allclose(Problem.from_toml(_text(tmp_path, tree.attrs["problem"])).mixture.variances, law.variances)


def _text(folder: Path, text: str) -> Path:
    (folder / "problem.toml").write_text(text)
    return folder / "problem.toml"
