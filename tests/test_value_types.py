"""What every value type can do: pickle, compare by value, say in one line what it is, and become a labelled dataset and a file."""

import dataclasses
import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from rfdiff import (
    Activation,
    ClassTimes,
    GaussianMixture,
    GradientDescent,
    GradientFlow,
    HeavyBall,
    InputError,
    MixtureLaw,
    Problem,
    Ridge,
    Samples,
    assess,
    load,
    save,
    times,
)
from rfdiff.activation import ACTIVATIONS
from rfdiff.files.storage import HOMES
from rfdiff.labels import Labelled
from rfdiff.theory_results import BulkTimes, PhaseMap, SGDStability, Stieltjes, TimeSensitivity
from rfdiff.value_types import as_integer, as_number, describe, same_value, value_type, whole_number
from tests import synthetic

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


def made_up_times(*shape: int) -> ClassTimes:
    return ClassTimes(*(RNG.uniform(1, 2, shape) for _ in range(4)), q=0.25)


def results() -> dict[str, Labelled]:
    """One of each result type, with NaN, inf and absent fields among them."""
    theory, simulation, smaller = synthetic.theory(), synthetic.simulation(), synthetic.simulation(seeds=2, d=10)
    sensitivity = TimeSensitivity(made_up_times(2), {"t": made_up_times(2), "psi_p": made_up_times(2)}, made_up_times(2, 2, 2), 1e-7)
    converged = np.array([[True, False, True], [True, True, True]])
    return {
        "theory": theory,
        "simulation": simulation,
        "spectrum": synthetic.spectrum(),
        "empirical": synthetic.given(simulation.spectrum),
        "times": times(theory),
        "made up": made_up_times(3),
        "stieltjes": Stieltjes(
            np.array([1 + 2j, np.nan]), np.ones((2, 3), complex), np.zeros(2), np.array([True, False]), np.full(2, np.nan)
        ),
        "bulks": BulkTimes(np.ones(2), np.full(2, 2.0), np.zeros(2), np.ones(2), np.eye(2), np.ones((2, 2)), np.zeros(2), True),
        "stability": SGDStability(0.4, 2.0, 0.3, np.array([0.1, np.nan]), np.array([0.2, 0.3])),
        "sensitivity": sensitivity,
        "map": PhaseMap(np.array([1.0, 2.0]), np.arange(3.0), made_up_times(2, 3, 2), np.zeros((2, 3)), converged, ("t", "psi_n")),
        "agreement": assess(theory, simulation, smaller),
    }


def inputs() -> dict[str, Any]:
    law = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], np.eye(2) / 10)
    return {
        "law": law,
        "matrices": MixtureLaw.from_covariances([1.0], [np.diag([1.0, 2.0])]),
        "problem": Problem(law, "relu", t=0.1, psi_p=4, psi_n=3, noise_draws=2),
        "mixture": GaussianMixture.from_law(law, 6, jax.random.key(0)),
        "noised": GaussianMixture.from_law(law, 6, jax.random.key(0)).noised,
        "samples": Samples(np.arange(6.0).reshape(3, 2), [0, 0, 1]),
        "flow": GradientFlow(),
        "descent": GradientDescent(0.1),
        "momentum": HeavyBall(0.1, 0.9),
        "ridge": Ridge([0.1, 0.01]),
    }


VALUES = {**inputs(), **results()}


@pytest.mark.parametrize("name", VALUES)
def test_values_pickle_and_compare(name: str) -> None:
    value = VALUES[name]
    copy = pickle.loads(pickle.dumps(value))
    assert type(copy) is type(value) and value.equals(copy) and copy.equals(value)
    assert not any(value.equals(other) for key, other in VALUES.items() if key != name)


@pytest.mark.parametrize("name", VALUES)
def test_one_changed_number_makes_another_value(name: str) -> None:
    value, changed = VALUES[name], 0
    leaves, structure = jax.tree_util.tree_flatten(value)
    for i, leaf in enumerate(leaves):
        array = np.array(leaf)
        if array.size and array.dtype.kind in "fc":
            array.flat[-1] = array.flat[-1] + 1 if np.isfinite(array.flat[-1]) else 12.5
            assert not value.equals(jax.tree_util.tree_unflatten(structure, [*leaves[:i], array, *leaves[i + 1 :]]))
            changed += 1
    assert changed or name == "flow"


def test_values_of_other_kinds_differ() -> None:
    law = VALUES["law"]
    assert not law.equals(None) and not law.equals(3) and not same_value(1.0, "1") and not same_value({"a": 1}, {"b": 1})
    assert not same_value([1, 2], [1]) and same_value({"a": [1.0, np.nan]}, {"a": [1.0, np.nan]})
    static = dataclasses.replace(VALUES["theory"], source="simulation")
    assert not VALUES["theory"].equals(static)
    assert same_value(np.float64(2), 2) and not same_value(np.zeros(2), np.zeros(3))


def test_activations_pickle_by_name_or_by_function() -> None:
    for activation in ACTIVATIONS.values():
        assert pickle.loads(pickle.dumps(activation)) is activation
    own = pickle.loads(pickle.dumps(Activation("wave", np.sin)))  # type: ignore[arg-type]
    assert own == Activation("wave", np.sin)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VALUES)
def test_repr_is_one_short_line(name: str) -> None:
    text = repr(VALUES[name])
    assert "\n" not in text and len(text) < 500 and type(VALUES[name]).__name__ in text


def test_repr_says_what_it_is() -> None:
    assert repr(VALUES["theory"]).startswith("<LearningCurves: theory, 24 times from 0 to inf, 2 classes, error ")
    assert "simulation at d = 20 in float64, 3 seeds" in repr(VALUES["simulation"])
    assert "relu" in repr(VALUES["problem"]) and "psi_p=4" in repr(VALUES["problem"]) and "[1.5, 0.4]" in repr(VALUES["problem"])
    assert repr(VALUES["agreement"]).startswith("<Agreement: ")
    assert repr(HeavyBall(0.1, 0.9)) == "HeavyBall(step_size=0.1, momentum=0.9, weight_decay=0)"
    assert describe(np.arange(100.0)) == "<float64[100] from 0 to 99>" and describe(np.array(["a"] * 9)) == "<<U1[9]>"
    assert describe((1.0, "a")) == "(1, 'a')" and describe([0.5]) == "[0.5]" and describe({"a": np.zeros(2)}) == "{'a': [0, 0]}"


@pytest.mark.parametrize("name", results())
def test_notebooks_show_a_table(name: str) -> None:
    assert "<" in cast(Any, VALUES[name])._repr_html_()
    assert "&lt;" not in cast(Any, VALUES["map"])._repr_html_()[:1]


@pytest.mark.parametrize("name", results())
def test_results_become_labelled_datasets_and_come_back(name: str) -> None:
    value = cast(Labelled, VALUES[name])
    data = value.to_xarray()
    assert isinstance(data, xr.Dataset) and data.data_vars
    for variable in data.data_vars.values():
        assert variable.attrs["long_name"], variable.name
    if type(value).RESTORABLE:
        back = type(value).from_xarray(data)
        assert value.equals(back)
        first = next(iter(data.data_vars))
        with pytest.raises(InputError, match=f"group x has no variable {first!r}|group x has no attribute"):
            type(value).from_xarray(data.drop_vars([str(first)]), "x")


@pytest.mark.parametrize("name", results())
def test_results_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    value = cast(Labelled, VALUES[name])
    back = load(save(value, tmp_path / "a.nc"))
    if type(value).RESTORABLE:
        assert value.equals(back)
    else:
        assert isinstance(back, xr.Dataset) and back.attrs["content"] == type(value).__name__


@pytest.mark.thorough
def test_a_file_is_read_into_its_type_by_a_process_that_knows_the_type_from_nowhere_else(tmp_path: Path) -> None:
    written = save(VALUES["made up"], tmp_path / "times.nc")
    code = "import sys, rfdiff; print(type(rfdiff.load(sys.argv[1])).__name__)"
    command = [sys.executable, "-c", code, str(written)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.split() == ["ClassTimes"]


def test_every_restorable_type_has_a_home() -> None:
    for name in sorted(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in (ROOT / "rfdiff").rglob("*.py")):
        if not name.startswith("rfdiff.images") and "(Labelled)" in (ROOT / name.replace(".", "/")).with_suffix(".py").read_text():
            importlib.import_module(name)
    assert {kind.__name__: kind.__module__ for kind in Labelled.__subclasses__() if kind.RESTORABLE} == HOMES


def test_reasons_in_a_file_that_are_no_sentences_are_refused() -> None:
    data = VALUES["made up"].to_xarray()
    with pytest.raises(InputError, match="attribute 'reasons' is not a list of lists"):
        ClassTimes.from_xarray(data.assign_attrs(reasons="[1, 2"))


def test_malformed_datasets_are_refused() -> None:
    data = VALUES["theory"].to_xarray()
    for change, message in (
        (data.assign(test_loss=data.test_loss.astype(str)), "variable x/test_loss is of type"),
        (data.assign(test_loss=data.test_loss.transpose()), "variable x/test_loss has dimensions"),
        (data.assign_attrs(source=3), "attribute 'source' of group x is 3; allowed: text"),
        (data.assign_attrs(dimension="ten"), "attribute 'dimension' of group x is 'ten'; allowed: a number"),
    ):
        with pytest.raises(InputError, match=message):
            type(VALUES["theory"]).from_xarray(change, "x")


@pytest.mark.parametrize("value", [3, np.int64(3), np.int32(3), np.uint8(3), np.array(3), jnp.array(3)])
def test_integers_of_every_kind_are_taken(value: Any) -> None:
    assert as_integer("d", value, 1, 5) == 3 and type(as_integer("d", value, 1)) is int and as_number(value) == 3.0


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, np.float64(3), "3", None, [3], np.array([3]), 3j])
def test_what_is_no_integer_is_refused(value: Any) -> None:
    assert whole_number(value) is None
    with pytest.raises(InputError, match=r"^d: .*; allowed: an integer >= 1 and <= 9, for a test$"):
        as_integer("d", value, 1, 9, why="for a test")


@pytest.mark.parametrize("value", [0, 10, np.int64(-1)])
def test_integers_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"^d: .*; allowed: an integer >= 1 and <= 9$"):
        as_integer("d", value, 1, 9)


def test_types_without_the_base_class_can_do_the_same() -> None:
    @value_type
    class Pair:
        first: Any
        second: Any = None

    one = cast(Any, Pair(np.ones(3)))
    assert one.equals(Pair(np.ones(3))) and not one.equals(Pair(np.zeros(3))) and repr(one).endswith("Pair(first=[1, 1, 1])")
