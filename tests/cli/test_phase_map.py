"""The command phase-map: what it writes and prints, how it refuses, how a map stops and goes on."""

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.cli import entry, map_results, phase_map
from rfdiff.files import kept_parts
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.parameters import set_parameter
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD, Rule
from rfdiff.theory import map_program, maps
from tests import synthetic
from tests.cli.command_line import refused, run

TOML = """\
activation = "tanh"
t = 0.1
psi_p = 8.0
psi_n = 4.0
[mixture]
weights = [0.5, 0.5]
variances = [1.5, 0.6]
"""
ONE_CLASS = TOML.replace("[0.5, 0.5]", "[1.0]").replace("[1.5, 0.6]", "[1.5]")
NUM = 3
CELLS = NUM * NUM
AXES = {"variance_ratio": np.geomspace(0.5, 2, NUM), "weight_0": np.linspace(0.3, 0.7, NUM)}
WORDS = ["--x", "variance_ratio", "0.5", "2", str(NUM), "--y", "weight_0", "0.3", "0.7", str(NUM)]
FILE = phase_map.FILES.data
FIGURES = [f"phase_map_{name}.png" for name in TIME_NAMES]


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Any:
    """Few cells a chunk, so that a small map has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "CHUNK", 4)
        yield


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """One run of `rfdiff phase-map`, with what it printed."""
    folder = tmp_path_factory.mktemp("map")
    (folder / "problem.toml").write_text(TOML)
    status, text = run("phase-map", str(folder / "problem.toml"), "--out", str(folder / "out"), *WORDS)
    return types.SimpleNamespace(status=status, text=text, problem=folder / "problem.toml", out=folder / "out")


@pytest.mark.thorough
def test_the_file_holds_what_the_library_computes_for_xarray_alone(mapped: types.SimpleNamespace) -> None:
    assert mapped.status == 0
    assert sorted(path.name for path in mapped.out.iterdir()) == sorted([".lock", FILE, *FIGURES])
    with xr.open_dataset(mapped.out / FILE, engine="h5netcdf") as data:
        found = data.load()
    (mapped.out.parent / "again.toml").write_text(found.attrs["problem"])
    problem = Problem.from_toml(mapped.out.parent / "again.toml")
    assert problem.to_toml() == Problem.from_toml(mapped.problem).to_toml()
    expected = theory.phase_map(problem, AXES)
    assert found.time.dims == ("quantity", "variance_ratio", "weight_0", "class")
    for name in TIME_NAMES:
        np.testing.assert_array_equal(found.time.sel(quantity=name), getattr(expected.times, name))
    np.testing.assert_array_equal(found.error_estimate, expected.error_estimate)
    np.testing.assert_array_equal(found.converged, expected.converged)
    for name, values in AXES.items():
        np.testing.assert_array_equal(found[name], values)
    assert (found.attrs["x"], found.attrs["y"], found.attrs["q"], found.attrs["tolerance"]) == ("variance_ratio", "weight_0", 0.5, 1e-4)
    assert [found[name].attrs["spacing"] for name in AXES] == ["log", "linear"]
    assert {"rfdiff_version", "date", "seconds"} <= set(found.attrs)


@pytest.mark.thorough
def test_the_table_says_what_failed_and_where_the_order_flips(mapped: types.SimpleNamespace) -> None:
    found = load_dataset(mapped.out / FILE)
    table, head = map_results.order_table(found, (0, 1))
    lines = [*head, *table.lines()]
    assert "\n".join(lines) in mapped.text
    assert lines[0] == "phase map: variance_ratio (3 values, 0.5 to 2, log)  x  weight_0 (3 values, 0.3 to 0.7, linear)"
    assert lines[1].startswith(f"{CELLS} cells, 0 failed, numerical error of a loss at most ")
    gen = lines[3].split()
    # equal classes in the middle column of the map; the broader class generalises first on its right, the narrower on its left
    assert gen == ["tau_gen", "33.3", "%", "33.3", "%", "33.3", "%", "0", "1", "-"]
    assert map_results.flip_text(map_results.map_of(found).flips("tau_gen", 0)) == "1"
    assert f"in {mapped.out}: {', '.join([FILE, *FIGURES])}" in mapped.text
    assert mapped.text.splitlines()[-1].endswith("GiB peak memory")


@pytest.mark.thorough
def test_plot_draws_a_map_again(mapped: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, new = str(mapped.out / FILE), tmp_path / "new"
    status, text = run("plot", file, "--out", str(new))
    assert status == 0
    assert text.splitlines()[:7] == mapped.text.splitlines()[:7], "but for the names of the files"
    for name in FIGURES:
        assert (new / name).read_bytes() == (mapped.out / name).read_bytes()
    assert "already holds phase_map_tau_gen.png" in refused(capsys, "plot", file, "--out", str(new))
    assert "--pair: 0 2; allowed: two different ones of 0 to 1" in refused(capsys, "plot", file, "--pair", "0", "2")
    assert "--q: 0.4; " in refused(capsys, "plot", file, "--q", "0.4")
    one = tmp_path / "one"
    assert run("plot", file, "--out", str(one), "--quantity", "tau_mem", "--pair", "1", "0")[0] == 0
    assert sorted(path.name for path in one.iterdir()) == [".lock", "phase_map_tau_mem.png"]
    assert (one / "phase_map_tau_mem.png").read_bytes() != (new / "phase_map_tau_mem.png").read_bytes()


@pytest.mark.thorough
def test_standing_results_are_not_overwritten(mapped: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "phase-map", str(mapped.problem), "--out", str(mapped.out), *WORDS)
    assert "already holds phase_map.nc, phase_map_tau_gen.png" in line
    assert line.endswith("choose another folder or add --overwrite")


def stopping_after(patch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let some chunks be computed, then stop like a user; the list grows by one for each."""
    done: list[int] = []
    real: Any = map_program.forms

    def cells(*arguments: Any, **options: Any) -> Any:
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(len(done))
        return real(*arguments, **options)

    patch.setattr(map_program, "forms", cells)
    return done


@pytest.mark.thorough
def test_an_interrupted_map_goes_on_and_equals_an_uninterrupted_one(
    mapped: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / FILE).write_bytes(b"an older map")
    arguments = ["phase-map", str(mapped.problem), "--out", str(out), "--overwrite", *WORDS]
    with monkeypatch.context() as patch:
        stopping_after(patch, 2)
        assert entry.main(arguments) == entry.INTERRUPTED
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"rfdiff: interrupted; 8 of {CELLS} cells are kept, the same command resumes from them"
    assert (out / FILE).read_bytes() == b"an older map"
    (kept,) = out.glob("cells-*.partial")
    assert len(list(kept.iterdir())) == 2
    damaged = sorted(kept.iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-40])
    assert entry.main(arguments) == entry.BAD_INPUT
    assert f"{damaged}: damaged checkpoint" in capsys.readouterr().err
    damaged.write_bytes(whole)
    with monkeypatch.context() as patch:
        computed = stopping_after(patch, 99)
        assert entry.main(arguments) == 0
        assert len(computed) == 1
    assert f"{CELLS} cells, 8 of them done before" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", FILE, *FIGURES])
    resumed, uninterrupted = (load_dataset(folder / FILE) for folder in (out, mapped.out))
    for name, variable in uninterrupted.variables.items():
        assert np.array_equal(resumed[name].values, variable.values, equal_nan=variable.dtype.kind == "f"), name


@pytest.mark.thorough
def test_cells_that_are_done_again_are_counted_once(mapped: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the first chunk is made to look large: its cells are done again (here with the same nodes, to compile nothing)."""
    sizes: list[int] = []
    real: Any = map_program.forms

    def cells(*arguments: Any, size: int, **options: Any) -> Any:
        sizes.append(size)
        found, error = real(*arguments, size=sizes[0], **options)
        return found, error + (len(sizes) == 1)

    monkeypatch.setattr(map_program, "forms", cells)
    kept: dict[str, Any] = {}
    problem = Problem.from_toml(mapped.problem)
    found = theory.phase_map(problem, AXES, store=kept)
    assert len(sizes) == len(kept) == 4 and sizes[3] > sizes[0]
    assert maps.cells_in(kept) == CELLS
    stored = load_dataset(mapped.out / FILE)
    np.testing.assert_array_equal(found.times.tau_gen, stored.time.sel(quantity="tau_gen"))


def test_another_map_finds_no_chunks_of_this_one(tmp_path: Path) -> None:
    problem = synthetic.problem()
    given: dict[str, Any] = {"problem": problem, "axes": AXES, "q": 0.5, "tolerance": 1e-4, "rule": GradientFlow()}
    other = {**AXES, "weight_0": AXES["weight_0"] + 0.01}
    variants: list[dict[str, Any]] = [{}, {"problem": synthetic.problem(3)}, {"axes": other}, {"q": 0.4}, {"tolerance": 1e-5}]
    variants.append({"rule": GradientFlow(averaging=3.0)})
    assert len({kept_parts.map_folder(tmp_path, **{**given, **change}) for change in variants}) == len(variants)
    kept = kept_parts.KeptArrays(tmp_path / "kept")
    assert not len(kept) and "a" not in kept
    kept["a"] = {"x": np.arange(3.0)}
    assert list(kept) == ["a"]
    np.testing.assert_array_equal(kept["a"]["x"], [0, 1, 2])
    del kept["a"]
    with pytest.raises(KeyError, match="a"):
        kept["a"]


RULES: dict[str, tuple[list[str], str, Rule]] = {
    "averaged": (["--averaging", "50"], "gradient-flow, averaging 50.0", GradientFlow(averaging=50.0)),
    "sgd": (
        ["--rule", "sgd", "--step-size", "0.5", "--batch", "2", "--averaging", "0.99"],
        "sgd, step size 0.5, batch 2.0, averaging 0.99",
        MinibatchSGD(0.5, 2, averaging=0.99),
    ),
}


@pytest.mark.parametrize("name", [pytest.param("averaged", marks=pytest.mark.thorough), pytest.param("sgd", marks=pytest.mark.slow)])
def test_a_map_under_another_rule_says_so(name: str, tmp_path: Path) -> None:
    """Averaged weights in four cells: the times are those of `theory.times`, later than those of the flow."""
    (tmp_path / "problem.toml").write_text(TOML)
    words, told, rule = RULES[name]
    axes = ["--x", "psi_n", "3", "5", "2", "--y", "weight_0", "0.4", "0.6", "2"]
    status, text = run("phase-map", str(tmp_path / "problem.toml"), "--out", str(tmp_path / "out"), *axes, *words)
    assert status == 0 and f"training rule: {told}" in text
    found = load_dataset(tmp_path / "out" / FILE)
    assert found.attrs["rule"] == rule.name and "averaging" in found.attrs and bool(found.converged.all())
    problem = set_parameter(Problem.from_toml(tmp_path / "problem.toml"), "weight_0", 0.6)
    problem = set_parameter(problem, "psi_n", 5.0)
    expected = theory.times(problem, rule=rule, tolerance=1e-4)
    np.testing.assert_allclose(found.time.sel(quantity="tau_gen")[1, 1], expected.tau_gen, rtol=1e-9)
    np.testing.assert_allclose(found.time.sel(quantity="tau_mem")[1, 1], expected.tau_mem, rtol=1e-9)
    assert np.all(expected.tau_gen > 1.5 * theory.times(problem).tau_gen)


X, Y = ["--x", "psi_p", "1", "2", "3"], ["--y", "psi_n", "1", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x", "sigma", "1", "2", "3", *Y], "--x: 'sigma'; allowed: t, psi_p, psi_n, weight_C"),
        (["--y", "weight_2", "0.1", "0.2", "3", *X], "--y: 'weight_2' of a problem with 2 classes; allowed"),
        (["--x", "t", "2", "1", "3", *Y], "--x: t from 2 to 1; allowed: 0 < LOW < HIGH"),
        (["--x", "t", "1", "1", "3", *Y], "--x: t from 1 to 1; allowed: 0 < LOW < HIGH"),
        (["--x", "t", "0", "1", "3", *Y], "--x: t from 0 to 1; allowed: 0 < LOW < HIGH"),
        (["--x", "t", "-1", "1", "3", "--x-scale", "linear", *Y], "--x: t from -1 to 1; allowed: 0 < LOW < HIGH"),
        (["--x", "t", "nan", "1", "3", *Y], "--x: t from nan to 1; allowed"),
        (["--x", "t", "1", "inf", "3", *Y], "--x: t from 1 to inf; allowed: 0 < LOW < HIGH < inf"),
        (["--x", "t", "1", "1e11", "3", *Y], r"--x: t = 1e\+11: t: 100000000000.0; allowed"),
        (["--y", "weight_0", "0.5", "1", "3", *X], "--y: weight_0 from 0.5 to 1; allowed: 0 < LOW < HIGH < 1"),
        (["--x", "t", "1", "2", "1", *Y], "--x: 1 values of t; allowed: 2 to 10000"),
        (
            ["--x", "t", "1", "2", "2000", "--y", "psi_n", "1", "2", "2000"],
            "--x, --y: 2000 x 2000 = 4000000 cells; allowed: at most 1000000",
        ),
        (["--x", "t", "1", "2", "2.5", *Y], r"--x: \['t', '1', '2', '2.5'\]; allowed: values of the kinds that help names"),
        (["--x", "t", "1", "2", *Y], "--x.*[Ee]xpected 4"),
        (["--x", "psi_n", "1", "2", "3", *Y], "--y: psi_n, as --x; allowed: another number"),
        (
            ["--x", "variance_ratio", "1", "2", "3", "--y", "variance_0", "1", "2", "3"],
            "--x, --y: variance_ratio and variance_0 cannot vary",
        ),
        (
            ["--x", "variance_ratio", "1", "2", "3", "--y", "variance_1", "1", "2", "3"],
            "--x, --y: variance_ratio and variance_1 cannot vary",
        ),
        (["--x", "weight_0", "0.1", "0.2", "3", "--y", "weight_1", "0.1", "0.2", "3"], "--x, --y: weight_0 and weight_1 cannot vary"),
        (["--x", "centroid_norm_0", "1", "2", "3", *Y], "--x: centroid_norm_0 is 0 in the problem and cannot be scaled; allowed"),
        (["FLAT", "--x", "variance_ratio", "1", "2", "3", *Y], "--x: variance_ratio of a problem in which the variance of class 0 is 0"),
        (["FLAT", "--x", "variance_0", "1", "2", "3", *Y], "--x: variance_0 is 0 in the problem and cannot be scaled"),
        (["ONE"], "--x: 'variance_ratio'; allowed: t, psi_p"),
        (["ONE", *X, *Y, "--pair", "0", "1"], "--pair: 0 1; allowed: no --pair, since the problem has one class"),
        ([*X, *Y, "--pair", "0", "2"], "--pair: 0 2; allowed: two different ones of 0 to 1"),
        ([*X, *Y, "--pair", "1", "1"], "--pair: 1 1; allowed: two different ones of 0 to 1"),
        ([*X, *Y, "--quantity", "tau"], "invalid choice 'tau'"),
        ([*X, *Y, "--q", "1"], "--q: 1.0; allowed: 0 < q < 1"),
        ([*X, *Y, "--tolerance", "1"], "--tolerance: 1.0; allowed: 1e-9 <= tolerance <= 0.1"),
    ],
)
def test_bad_maps_are_refused_in_one_line_before_anything_is_computed_or_made(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("computed before refusing")

    monkeypatch.setattr(theory, "phase_map", computed)
    text = {"FLAT": TOML.replace("[1.5, 0.6]", "[0.0, 0.6]"), "ONE": ONE_CLASS}.get(arguments[0], TOML)
    (tmp_path / "problem.toml").write_text(text)
    options = arguments[1:] if arguments[0] in ("FLAT", "ONE") else arguments
    line = refused(capsys, "phase-map", str(tmp_path / "problem.toml"), "--out", str(tmp_path / "out"), *options)
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


def made_up(num_classes: int, **axes: np.ndarray) -> xr.Dataset:
    """A map whose class c has the time x^c y in every cell, so that the order flips at x = 1."""
    (x, first), (y, second) = axes.items()
    found = theory.PhaseMap(
        first,
        second,
        ClassTimes(*[first[:, None, None] ** np.arange(num_classes) * second[None, :, None]] * 4),
        np.full((first.size, second.size), 1e-6),
        np.ones((first.size, second.size), bool),
        (x, y),
    )
    problem = synthetic.problem(num_classes)
    return map_results.labelled(found, problem, {x: "log", y: "linear"}, {"tolerance": 1e-4})


def test_shares_and_flips_of_a_known_map() -> None:
    data = made_up(2, psi_p=np.geomspace(0.5, 8, 5), psi_n=np.array([1.0, 2.0]))
    data.converged.values[4, 0] = False
    data.time.values[:, 4, 0] = np.nan
    data.time.values[3, 0, 0] = np.inf  # τ_opt: no class gets there
    data.time.values[3, 1, 0, 1] = np.inf  # class 1 does not
    table, head = map_results.order_table(data, (0, 1))
    assert head[1] == "10 cells, 1 failed, numerical error of a loss at most 1.0e-06"
    # x = 0.5 | 1 | 2, 4, 8: class 1 first | equal | class 0 first, over 9 cells
    lines = table.lines()
    assert lines[1].split() == ["tau_gen", "55.6", "%", "22.2", "%", "22.2", "%", "0", "1", "-"]
    assert lines[4].split() == ["tau_opt", "75.0", "%", "12.5", "%", "12.5", "%", "1", "1", "-"]
    swapped = map_results.order_table(data, (1, 0))[0].lines()[1].split()
    assert swapped[1::2][:3] == ["22.2", "55.6", "22.2"]
    named = map_results.order_table(data, (1, 0), ("broad", "narrow"))[0].headings
    assert list(named[1:3]) == ["narrow first", "broad first"]


def test_one_class_shows_the_time_itself(tmp_path: Path) -> None:
    data = made_up(1, psi_p=np.geomspace(0.5, 8, 5), psi_n=np.array([1.0, 2.0]))
    file = save_dataset(data, tmp_path / FILE)
    status, text = run("plot", str(file), "--quantity", "tau_gen")
    assert status == 0
    assert text.splitlines()[2].split() == ["time", "lowest", "median", "highest", "never", "or", "none"]
    assert text.splitlines()[3].split() == ["tau_gen", "1", "1.5", "2", "0"]
    assert (tmp_path / "phase_map_tau_gen.png").read_bytes().startswith(b"\x89PNG")


def test_plot_says_what_it_can_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save_dataset(xr.Dataset({"a": ("i", [1.0])}), tmp_path / "other.nc")
    assert "is not an rfdiff result" in refused(capsys, "plot", str(other))
    assert "--pair: applies only to a file of rfdiff phase-map" in refused(capsys, "plot", str(other), "--pair", "0", "1")
    whole = save_dataset(made_up(2, psi_p=np.array([1.0, 2.0]), psi_n=np.array([1.0, 2.0])), tmp_path / "map.nc").read_bytes()
    (tmp_path / "half.nc").write_bytes(whole[: len(whole) // 2])
    assert "half.nc: is truncated" in refused(capsys, "plot", str(tmp_path / "half.nc"))
