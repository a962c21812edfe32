"""Specifications of sweeps: what is read, and what is refused by name before anything is computed."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from rfdiff.parameters import get_parameter
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, Nesterov, Ridge
from rfdiff.sweep import cells, read_spec, sweep_from_dict
from rfdiff.sweep.cells import cell_name, cells_of, versions
from rfdiff.sweep.specification import point_of
from tests.sweep.instant import document, sweep
from tests.tolerances import rejects

ROOT = Path(__file__).resolve().parents[2]


def test_a_grid_holds_every_combination_in_order() -> None:
    found = sweep()
    assert list(found.axes) == ["variance_ratio", "psi_n"] and found.scales == {"variance_ratio": "log", "psi_n": "linear"}
    points = [point_of(found, i) for i in range(len(found.problems))]
    assert points == [{"variance_ratio": r, "psi_n": n} for r in (1.0, 4.0) for n in (2.0, 3.0, 4.0)]
    for problem, point in zip(found.problems, points, strict=True):
        assert {name: get_parameter(problem, name) for name in point} == pytest.approx(point, rel=1e-12)
    assert isinstance(found.rule, GradientFlow) and found.networks == ("exact", "krylov") and found.dimensions == (12, 24)


def test_cells_are_problems_times_dimensions_times_seeds_of_each_solver() -> None:
    found = cells_of(sweep(), versions())
    assert len({cell.name for cell in found}) == len(found) == 6 + 2 * 2 * 6 * 3
    assert [cell.task.solver for cell in found[:7]] == ["theory"] * 6 + ["exact"]
    assert all(cell.task.seeds == () and cell.task.d is None for cell in found[:6])
    grouped = cells_of(sweep(seeds_per_cell=2), versions())
    assert {cell.task.seeds for cell in grouped[6:]} == {(0, 1), (2,)}
    assert cells_of(sweep(d=12, solvers=["exact"]), versions())[0].text == "exact, d = 12, seed 0"


def test_the_hash_depends_on_what_the_result_depends_on_and_on_nothing_else() -> None:
    first = {cell.name for cell in cells_of(sweep(), versions())}
    assert first == {cell.name for cell in cells_of(sweep(), versions())}
    assert first < {cell.name for cell in cells_of(sweep(seeds=4), versions())}  # more seeds, dimensions and solvers keep the old cells
    assert first < {
        cell.name for cell in cells_of(sweep(d=[12, 24, 36], solvers=["krylov-probes", "krylov", "exact", "theory"]), versions())
    }
    theory = {cell.name for cell in cells_of(sweep(solvers=["theory"], d=None, seeds=None), versions())}
    assert theory < first
    exact = {cell.name for cell in cells_of(sweep(solvers=["exact"]), versions())}
    other = {cell.name for cell in cells_of(sweep(solvers=["exact"], tolerance=1e-3), versions())}
    assert exact == other  # no tolerance in an eigendecomposition

    def tolerances(**given: float) -> set[float | None]:
        return {cell.task.tolerance for cell in cells_of(sweep(solvers=["theory", "krylov"], **given), versions())}

    assert tolerances(tolerance=1e-3, krylov_tolerance=1e-5) == {1e-3, 1e-5}
    assert tolerances(krylov_tolerance=1e-5) == {1e-6, 1e-5}
    assert tolerances(tolerance=1e-3) == {1e-3}  # as sweeps of earlier versions meant it
    rejects(lambda: _same(exact, cells_of(sweep(solvers=["exact"], random_seed=1), versions())))
    rejects(lambda: _same(exact, cells_of(sweep(solvers=["exact"], dtype="float32"), versions())))
    rejects(lambda: _same(exact, cells_of(sweep(solvers=["exact"], taus=[1.0, 2.0, 3.0]), versions())))
    rejects(lambda: _same(exact, cells_of(sweep(solvers=["exact"]), {**versions(), "jax": "0"})))
    task = cells_of(sweep(), versions())[-1].task
    changed: dict[str, Any] = {"problem": "x", "solver": "x", "d": 1, "seeds": (9,), "taus": None, "points": 9, "rule": "x"}
    changed |= {"rule_numbers": (("x", 1.0),), "dtype": "x", "tolerance": 0.5, "random_seed": 9}
    assert set(changed) == {field.name for field in dataclasses.fields(task)}
    names = {cell_name(dataclasses.replace(task, **{name: value}), versions()) for name, value in changed.items()}
    assert len(names | {cell_name(task, versions())}) == len(changed) + 1


def _same(names: set[str], others: list[cells.Cell]) -> None:
    assert names & {cell.name for cell in others}


def test_a_list_of_problems_and_a_single_one() -> None:
    base = document()["problem"]
    other = {**base, "activation": "erf"}
    found = sweep(problem=None, axes=None, problems=[base, other])
    assert list(found.axes) == ["problem"] and point_of(found, 1) == {"problem": 1}
    assert [problem.activation.name for problem in found.problems] == ["tanh", "erf"]
    assert len(sweep(axes=None).problems) == 1


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"name": "gradient-descent", "step_size": 0.01}, GradientDescent),
        ({"name": "heavy-ball", "step_size": 0.01, "momentum": 0.9}, HeavyBall),
        ({"name": "nesterov", "step_size": 0.01, "momentum": 0.9, "weight_decay": 0.1, "averaging": 0.99}, Nesterov),
        ({"name": "gradient-flow", "averaging": 30.0}, GradientFlow),
        ({"name": "ridge", "penalties": [10.0, 1.0, 0.1]}, Ridge),
    ],
)
def test_rules(table: dict[str, Any], kind: type) -> None:
    found = sweep(rule=table, taus=None)
    assert type(found.rule) is kind
    task = cells_of(found, versions())[0].task
    assert dict(task.rule_numbers) == {name: value for name, value in table.items() if name != "name"}
    assert (task.points is None) == (kind is Ridge)


def test_a_written_specification_is_read_to_the_same_cells(tmp_path: Path) -> None:
    """The manifest holds the specification as TOML: axes keep their order and every bit, also behind a table that comes first in TOML."""
    axes = {
        "psi_n": {"from": 1.1, "to": 7.3, "num": 4, "scale": "log"},
        "t": [0.3, 0.1],
        "weight_0": {"values": [0.3, 0.31], "scale": "log"},
    }
    first = sweep(axes=axes)
    (tmp_path / "again.toml").write_text(tomli_w.dumps(first.document))
    again = read_spec(tmp_path / "again.toml")
    assert list(again.axes) == ["psi_n", "t", "weight_0"] and again.scales == first.scales == {
        "psi_n": "log",
        "t": "linear",
        "weight_0": "log",
    }
    for name, values in first.axes.items():
        np.testing.assert_array_equal(again.axes[name], values)
    assert cells_of(again, versions()) == cells_of(first, versions())


def test_the_example_is_a_sweep() -> None:
    found = read_spec(ROOT / "experiments" / "sweep.toml")
    assert set(found.solvers) == {"theory", "exact"} and len(found.problems) == 6


def test_the_batch_of_sgd_has_the_name_of_the_option_too() -> None:
    document = {"problem": PROBLEM, "solvers": ["exact"], "d": [12], "seeds": 1, "taus": [1.0, 2.0, 3.0]}
    by_option = {"name": "sgd", "step_size": 0.5, "batch": 1.0}
    first, second = (sweep_from_dict({**document, "rule": rule}) for rule in (SGD, by_option))
    assert first.rule.equals(second.rule) and cells_of(first, versions()) == cells_of(second, versions())


LAW = {"weights": [0.6, 0.4], "variances": [1.4, 0.5]}
PROBLEM = {"activation": "tanh", "t": 0.3, "psi_p": 2.0, "psi_n": 2.0, "mixture": LAW}
SGD = {"name": "sgd", "step_size": 0.5, "batch_per_dimension": 1.0}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dimension": 3}, "sweep: unknown key 'dimension'; allowed: problem, problems, axes, d,"),
    ({"solvers": None}, "solvers: None; allowed: a list out of theory, exact, krylov"),
    ({"solvers": ["eigh"]}, r"solvers: \['eigh'\]; allowed: a list out of theory"),
    ({"solvers": "exact"}, "solvers: 'exact'; allowed: a list out of theory"),
    ({"solvers": ["exact", "exact"]}, r"solvers: \['exact', 'exact'\] repeats itself"),
    ({"d": None}, "sweep: key 'd' is missing; required for exact"),
    ({"seeds": None}, "sweep: key 'seeds' is missing; required for exact"),
    ({"solvers": ["theory"]}, r"d: \[12, 24\], but the only solver is theory"),
    ({"d": 0}, "d: .* an integer from 1 to 2147483648"),
    ({"d": [12, 12]}, r"d: \[12, 12\] repeats itself"),
    ({"d": [True]}, r"d: \[True\]; allowed: an integer"),
    ({"d": 12.0}, r"d: \[12.0\]; allowed: an integer"),
    ({"seeds": 0}, "seeds: 0; allowed: an integer from 1"),
    ({"seeds": True}, "seeds: True; allowed: an integer from 1"),
    ({"seeds_per_cell": 4}, "seeds_per_cell: 4; allowed: an integer from 1 to 3"),
    ({"dtype": "float16"}, "dtype: 'float16'; allowed: float32, float64"),
    ({"tolerance": 1e-12}, "tolerance: 1e-12; allowed: 1e-9 <= tolerance <= 0.1"),
    ({"krylov_tolerance": 1}, "krylov_tolerance: 1; allowed: 0 < krylov_tolerance < 1"),
    ({"random_seed": -1}, "random_seed: -1; allowed: an integer from 0"),
    ({"points": 2, "taus": None}, "points: 2; allowed: an integer from 3"),
    ({"points": 20}, "points: 20 beside taus; allowed: one of them"),
    ({"taus": [3.0, 1.0, 2.0]}, r"taus: \[3, 1, 2\] does not increase strictly"),
    ({"taus": [1.0, 2.0]}, "taus: 2 given; allowed: at least 3"),
    ({"rule": {"name": "adam"}}, "rule: name: 'adam'; allowed: gradient-flow, gradient-descent, heavy-ball, nesterov, sgd, ridge"),
    ({"rule": {"step_size": 1.0}}, "rule: .*; allowed: a table .rule. with a name"),
    ({"rule": {"name": "gradient-descent"}}, "rule: gradient-descent: key 'step_size' is missing"),
    ({"rule": {"name": "gradient-flow", "step_size": 1.0}}, "rule: gradient-flow: unknown key 'step_size'"),
    ({"rule": {"name": "gradient-descent", "step_size": -1.0}}, "rule: step_size: -1.0; allowed: a finite number > 0"),
    ({"rule": {"name": "ridge", "penalties": [1.0, 2.0, 3.0]}, "taus": None}, "rule: penalties: .* decreasing"),
    ({"rule": {"name": "ridge", "penalties": [3.0, 2.0, 1.0]}}, "taus: .* with ridge; allowed: none"),
    ({"rule": {"name": "gradient-descent", "step_size": 1e-14}}, r"axes: variance_ratio = 1, psi_n = 2: taus: .* takes .* steps"),
    ({"rule": {"name": "sgd", "step_size": 0.5}}, "rule: sgd: key 'batch_per_dimension' is missing"),
    ({"rule": SGD | {"sampling": "even"}}, "rule: sampling: 'even'; allowed: uniform, balanced, weighted"),
    ({"rule": SGD}, "solvers: exact, krylov with sgd; allowed: theory and exact, which then trains step by step"),
    ({"rule": {**SGD, "batch": 1.0}}, "rule: batch beside batch_per_dimension, which is the same number; allowed: one of them"),
    ({"rule": SGD, "solvers": ["exact"], "taus": [1.0, 2.0, 1e12]}, r"taus: 1e\+12 takes more steps of sgd, one by one, than are allowed"),
    ({"rule": SGD, "solvers": ["exact"], "taus": None}, "taus: none or inf with sgd, which trains networks step by step"),
    ({"rule": SGD, "solvers": ["exact"], "taus": [1.0, 2.0, math.inf]}, "taus: none or inf with sgd, which trains networks step by step"),
    ({"rule": SGD | {"batch_per_dimension": 0.01}, "solvers": ["exact"]}, "d = 12: batch_per_dimension: 0.01 makes no batch at d = 12"),
    (
        {"rule": SGD, "problem": {**PROBLEM, "loss_weights": [0.5, 0.5]}},
        "axes: variance_ratio = 1, psi_n = 2: loss_weights: 0.5, 0.5 with rule sgd and uniform batches",
    ),
    ({"problem": None}, r"sweep: give either a table \[problem\]"),
    ({"problems": [PROBLEM]}, r"sweep: give either a table \[problem\]"),
    ({"problem": None, "problems": [PROBLEM]}, "axes: given beside a list of problems"),
    ({"problem": None, "axes": None, "problems": [PROBLEM, PROBLEM]}, "problems: 1 is the same as 0"),
    ({"problem": None, "axes": None, "problems": [PROBLEM, {**PROBLEM, "t": -1.0}]}, "problems: 1: t: -1.0; allowed"),
    ({"problem": None, "axes": None, "problems": []}, "problems: .*; allowed: a list of tables"),
    (
        {"problem": None, "axes": None, "problems": [PROBLEM, {**PROBLEM, "mixture": {"weights": [1.0], "variances": [1.0]}}]},
        r"problems: of \[2, 1\] classes; allowed: all of the same number",
    ),
    ({"problem": {**PROBLEM, "psi_q": 1.0}}, "problem: problem: unknown key 'psi_q'"),
    ({"problem": 3}, r"problem: 3; allowed: a table \[problem\]"),
    ({"axes": {"psi": [1.0]}}, "axes: psi = 1: parameter: 'psi'; allowed: t, psi_p, psi_n"),
    ({"axes": {"weight_7": [0.5]}}, "axes: weight_7 = 0.5: parameter: 'weight_7' of a problem with 2 classes"),
    ({"axes": {"weight_0": [0.5, 1.5]}}, "axes: weight_0 = 1.5: weights: "),
    ({"axes": {"centroid_norm_0": [0.5, 1.0]}}, "axes: centroid_norm_0 = 0.5: parameter: centroid_norm_0 is 0"),
    ({"axes": {"weight_0": [0.5], "weight_1": [0.4]}}, "axes: weight_0 and weight_1 cannot vary independently"),
    ({"axes": {"t": []}}, r"axes: t: \[\]; allowed: a list of distinct finite numbers"),
    ({"axes": {"t": [0.1, 0.1]}}, "axes: t: .*; allowed: a list of distinct finite numbers"),
    ({"axes": {"t": ["a"]}}, "axes: t: .* is not an array of numbers"),
    ({"axes": {"t": {"from": 0.1, "to": 0.5}}}, "axes: t: key 'num' is missing; required: from, to, num"),
    ({"axes": {"t": {"from": 0.1, "to": 0.5, "num": 1}}}, "axes: t: num = 1; allowed: an integer from 2"),
    ({"axes": {"t": {"from": 0.5, "to": 0.1, "num": 3}}}, "axes: t: from 0.5 to 0.1; allowed: 0 < from < to < inf"),
    ({"axes": {"t": {"from": 0.1, "to": 0.5, "num": 3, "scale": "cubic"}}}, "axes: t: scale: 'cubic'; allowed: log, linear"),
    ({"axes": {"t": {"values": [0.1], "num": 3}}}, "axes: t: unknown key 'num'; allowed: values, scale"),
    ({"axes": 3}, r"axes: 3; allowed: a table \[axes\]"),
    ({"d": [12, 1], "axes": {"psi_n": [1.0]}}, "axes: psi_n = 1: d: 1 makes p = 2 features and n = 1 samples"),
    ({"solvers": ["krylov-probes"], "d": [1]}, "d: 1 with krylov-probes; allowed: at least 2"),
    ({"seeds": 10_000}, "sweep: 240006 cells; allowed: at most 100000"),
    ({"axes": {"t": {"from": 0.1, "to": 0.5, "num": 400}, "psi_p": {"from": 1, "to": 5, "num": 400}}}, "axes: 400 x 400 problems"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_refusals_name_the_key_the_value_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_from_dict(document(**changes))


def test_files_that_are_no_specification(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: cannot be read \(No such file"):
        read_spec(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.toml: not a TOML file"):
        read_spec(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("seeds = = 3")
    with pytest.raises(ValueError, match=r"bad\.toml: not a TOML file"):
        read_spec(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("solvers = ['theory']")
    with pytest.raises(ValueError, match=r"bad\.toml: sweep: give either"):
        read_spec(tmp_path / "bad.toml")
