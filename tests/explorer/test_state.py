"""The numbers on the sliders: query strings, problems, training rules, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest

from rfdiff import GradientFlow, InputError, MinibatchSGD, MixtureLaw, Problem
from rfdiff.explorer.state import State

THREE = State(
    fraction=(0.5, 0.3, 0.2),
    variance=(1.5, 0.4, 1.0),
    norm=(0.7, 0.0, 1.1),
    angle=(0.0, 0.0, 145.0),
    overlap=0.3,
    loss_weight=(0.2, 0.3, 0.5),
    noise_draws=4,
    activation="relu",
)


@pytest.mark.parametrize("state", [State(), THREE, State(rule="sgd", norm=(0, 0), averaging=7.5, weight_decay=1e-3, t=0.1 + 0.2)])
def test_query_reads_back(state: State) -> None:
    assert State.from_query(state.query()) == state
    assert State.from_query("") == State()


@pytest.mark.parametrize("state", [State(), THREE, dataclasses.replace(THREE, overlap=1.0)])
def test_problem_reads_back(state: State) -> None:
    back = State.from_problem(Problem.from_text(state.problem().to_toml()))
    assert back.problem().num_classes == state.num_classes
    for name in ("fraction", "variance", "norm", "angle", "loss_weight"):
        np.testing.assert_allclose(getattr(back, name), getattr(state, name), rtol=1e-12, atol=1e-6, err_msg=name)
    assert back.overlap == pytest.approx(state.overlap) and back.activation == state.activation
    np.testing.assert_allclose(back.problem().mixture.centroid_gram, state.problem().mixture.centroid_gram, atol=1e-7)


def test_overlap_keeps_variances_and_separates_directions() -> None:
    law = THREE.problem().mixture
    np.testing.assert_allclose(law.variances, THREE.variance, rtol=1e-13)
    shared = law.eigenvalue_weights @ (law.eigenvalues[:, 0] * law.eigenvalues[:, 1])
    alike = np.prod(THREE.variance[:2])
    assert shared == pytest.approx(alike * 0.3 / (0.3 + 0.7 / 3) ** 2)  # tr Σ_0 Σ_1/d, σ_0² σ_1² without a slider


def test_opposite_centroids_span_a_line() -> None:
    gram = State(norm=(0.7, 0.9), angle=(30.0, 210.0)).problem().mixture.centroid_gram
    assert np.linalg.matrix_rank(gram, tol=1e-12) == 1
    assert np.linalg.matrix_rank(State(norm=(0.7, 0.9), angle=(30.0, 211.0)).problem().mixture.centroid_gram, tol=1e-12) == 2


def test_rules() -> None:
    assert State(weight_decay=0.1, averaging=5.0).training_rule().equals(GradientFlow(0.1, 5.0))
    rule = State(rule="sgd", step_size=0.5, batch=2.0, averaging=5.0).training_rule()
    assert rule.equals(MinibatchSGD(0.5, 2.0, averaging=0.9)) and rule.memory == pytest.approx(5.0)
    weighted = State(rule="sgd", loss_weight=(0.5, 0.5)).training_rule()
    assert isinstance(weighted, MinibatchSGD) and weighted.sampling == "balanced"
    with pytest.raises(InputError, match=r"averaging: 0\.1; allowed: 0, or longer than the step size 0\.5"):
        State(rule="sgd", step_size=0.5, averaging=0.1).training_rule()


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("t=0", r"t: 0\.0; allowed: 0\.01 to 5"),
        ("t=nan", "t: 'nan'; allowed: a number"),
        ("psi_p=1e400", "psi_p: inf; allowed"),
        ("noise_draws=2.5", r"noise_draws: 2\.5; allowed: a whole number, or inf"),
        ("noise_draws=-inf", "noise_draws: -inf; allowed: 1 to 1000, or inf"),
        ("fraction=0.5,0.6", r"fraction: the numbers sum to 1\.1; allowed: a sum of 1"),
        ("fraction=1", "variance: 2 numbers; allowed: 1, one for each class"),
        ("fraction=0.2,0.2,0.2,0.2,0.2", "fraction: 5 classes; allowed: 1 to 4"),
        ("fraction=", "fraction: 0 classes"),
        ("loss_weight=1", "loss_weight: 1 numbers"),
        ("activation=step", "activation: 'step'; allowed: tanh"),
        ("rule=adam", "rule: 'adam'; allowed: flow, sgd"),
        ("nonsense=1", "query: 'nonsense' is unknown; allowed: activation, t"),
        ("t=1&t=2", "query: 't' is given twice"),
        ("t", "query: .*allowed: name=value"),
        ("t=" + "1" * 40, "t: '1+'; allowed: a number"),
        ("&".join(["t=1"] * 600), "query: 2399 characters; allowed: at most 2000"),
    ],
)
def test_refusals(query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        State.from_query(query)


def test_problems_without_sliders_are_refused() -> None:
    cube = Problem(MixtureLaw.isotropic([0.4, 0.3, 0.3], [1.0, 1.0, 1.0], np.eye(3)), "tanh", 0.1, 4.0, 3.0)
    with pytest.raises(InputError, match="centroid_gram: its centroids do not lie in a plane"):
        State.from_problem(cube)
    skewed = Problem(MixtureLaw([0.5, 0.5], [[1.0, 0.2], [0.4, 1.0]], [0.5, 0.5], np.zeros((2, 2))), "tanh", 0.1, 4.0, 3.0)
    with pytest.raises(InputError, match="covariances that no slider describes"):
        State.from_problem(skewed)
    with pytest.raises(InputError, match=r"psi_p: 500\.0; allowed: 0\.1 to 100"):
        State.from_problem(Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, 500.0, 3.0))
    many = Problem(MixtureLaw.isotropic([0.2] * 5, [1.0] * 5), "tanh", 0.1, 4.0, 3.0)
    with pytest.raises(InputError, match="weights: 5 classes; allowed in the explorer: 1 to 4"):
        State.from_problem(many)
    assert State.from_problem(Problem(MixtureLaw.isotropic([1.0], [1.0]), "erf", 0.1, 4.0, 3.0, math.inf)).angle == (0.0,)
