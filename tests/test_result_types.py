"""Every public type that holds results becomes a labelled dataset: the types are walked, so that a new one cannot be forgotten."""

import importlib
import inspect

import numpy as np
import pytest
import xarray as xr

import rfdiff
from rfdiff.backward import BackwardPaths, SpeciationVerdict
from rfdiff.backward.speciation_agreement import Compared
from rfdiff.generation import ClassMoments, SampleStatistics
from rfdiff.simulation import SeedBatch
from rfdiff.theory import Losses

NO_RESULTS = {
    # what is asked and what it is asked about
    "Activation", "GaussianMixture", "MixtureLaw", "Problem", "Samples", "ReducedMixture", "LearnedBefore", "Levers", "Setting",
    "WeightedSum", "WorstClass", "Checkpoint", "StopWhen", "Sweep", "Task", "Cell", "Folder",
    "GradientDescent", "GradientFlow", "HeavyBall", "MinibatchSGD", "Nesterov", "Ridge",
    # what computes further: scores, a process, a kernel and its plan, a network
    "BackwardProcess", "EmpiricalScore", "GridScore", "TrainedNetwork", "CurveKernel", "Plan",
    "InputError",
    "LossRecord",  # what somebody's own training logged
    "Statement",  # a sentence of a diagnosis, which has the dataset
    "Result",  # a file of several groups, each a result with a dataset of its own
}  # fmt: skip
PACKAGES = ("", *(f".{name}" for name in rfdiff.SUBPACKAGES), ".agreement", ".sweep")


def public_types() -> set[type]:
    modules = [importlib.import_module(f"rfdiff{name}") for name in PACKAGES]
    return {item for module in modules for name in module.__all__ if inspect.isclass(item := getattr(module, name))}


def without_dataset(types: set[type]) -> set[str]:
    return {kind.__name__ for kind in types if not hasattr(kind, "to_xarray")}


def test_every_public_result_type_has_a_dataset() -> None:
    types = public_types()
    assert without_dataset(types) == NO_RESULTS
    assert len(types) > len(NO_RESULTS) + 15
    forgotten = type("Forgotten", (), {})
    assert without_dataset({*types, forgotten}) - NO_RESULTS == {"Forgotten"}


RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.random(shape)


S, T, K, P, G = 3, 4, 2, 5, 2
BATCH = SeedBatch(
    seeds=np.array([4, 7, 9]),
    taus=np.array([0.0, 1.0, 2.0, np.inf]),
    train_loss=numbers(S, T, K),
    test_loss=numbers(S, T, K),
    score_error=numbers(S, T, K),
    eigenvalues=numbers(S, P),
    class_weights=numbers(S, P, K),
    truncation=numbers(S),
    optimal_loss=numbers(K),
    weights=numbers(K),
    kappa=0.3,
    error_estimate=numbers(S),
    probe_stderr=numbers(3, S, T, K),
    untrained_loss=numbers(S, K),
    dimension=6,
)
STATISTICS = SampleStatistics(np.ones((T, K), int), np.zeros((T, K), int), numbers(T, K), numbers(T, K), numbers(T, K), numbers(T, G, K))
COMPARED = {"uturn": Compared(*numbers(5, T, K)), "clone": Compared(*numbers(5, G, K))}
LOSSES = Losses(numbers(T, K), numbers(T, K))  # type: ignore[arg-type]  # arrays of numpy
MOMENTS = ClassMoments(*numbers(3, K))
VERDICT = SpeciationVerdict("disagree", "U-turns are off", agrees=False, threshold=3.5, unnoticed=0.2, compared=COMPARED)
PATHS = BackwardPaths(np.array([2.0, 1.0, 0.5]), numbers(5, 3, 2), np.array([0, 0, 1, 1, 0]), "projection")


@pytest.mark.parametrize(
    ("data", "sizes", "held"),
    [
        (BATCH.to_xarray(), {"seed": S, "tau": T, "class": K, "mode": P}, {"test_loss": BATCH.test_loss, "seed": BATCH.seeds}),
        (LOSSES.to_xarray(), {"time": T, "class": K}, {"train": np.asarray(LOSSES.train), "test": np.asarray(LOSSES.test)}),
        (STATISTICS.to_xarray(), {"source": T, "class": K, "time": G}, {"score_error": STATISTICS.score_error}),
        (MOMENTS.to_xarray(), {"class": K}, {"variance_error": MOMENTS.variance_error}),
        (VERDICT.to_xarray(), {"turn_time": T, "class": K, "clone_time": G}, {"clone_error": COMPARED["clone"].error}),
        (PATHS.to_xarray(), {"trajectory": 5, "path_time": 3, "axis": 2}, {"path": PATHS.positions, "path_time": PATHS.times}),
    ],
    ids=["SeedBatch", "Losses", "SampleStatistics", "ClassMoments", "SpeciationVerdict", "BackwardPaths"],
)
def test_datasets_hold_the_numbers_with_names_and_words(data: xr.Dataset, sizes: dict[str, int], held: dict[str, np.ndarray]) -> None:
    assert dict(data.sizes) == sizes
    for name, expected in held.items():
        np.testing.assert_array_equal(data[name], expected)
    assert all(variable.attrs["long_name"] for variable in data.data_vars.values())


def test_batches_keep_what_is_not_an_axis() -> None:
    data = BATCH.to_xarray()
    assert (data.attrs["dimension"], data.attrs["dtype"], float(data.kappa)) == (6, "float64", 0.3)
    np.testing.assert_array_equal(data.test_loss_probe_stderr, np.asarray(BATCH.probe_stderr)[1])
    bare = SeedBatch.from_arrays({name: value for name, value in BATCH.to_arrays().items() if name != "probe_stderr"}).to_xarray()
    assert set(data.data_vars) - set(bare.data_vars) == {f"{name}_probe_stderr" for name in ("train_loss", "test_loss", "score_error")}
    verdict = {"verdict": "disagree", "reason": "U-turns are off", "agrees": 0, "threshold": 3.5, "unnoticed": 0.2}
    assert VERDICT.to_xarray().attrs == verdict
