"""Known averages over neurons against lattices, and weights with which points give them."""

import jax
import numpy as np
import pytest

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import matched_types
from rfdiff.theory.equivalent import equivalent, tables_of
from rfdiff.theory.matched_types import Known, TypeTables, features_at, features_of, known_averages, matched, regressed_means
from rfdiff.theory.neuron_coefficients import Coefficients
from rfdiff.theory.neuron_types import lattice_grid, sobol_grid
from tests.tolerances import rejects

GRAM = np.array([[1.0, 0.4], [0.4, 0.6]])


def problem(gram: np.ndarray, activation: str = "tanh", t: float = 0.1) -> Problem:
    k = len(gram)
    return Problem(MixtureLaw.isotropic(np.full(k, 1 / k), np.linspace(0.5, 1.5, k), gram), activation, t=t, psi_p=4.0, psi_n=3.0)


def made(case: Problem) -> tuple[TypeTables, Known]:
    with jax.enable_x64(True):
        tables = tables_of(case)
    assert tables is not None
    return tables


def arms(k: int, rank: int) -> np.ndarray:
    root = np.random.default_rng(0).standard_normal((k, rank)) / 3
    return np.asarray(root @ root.T)


@pytest.mark.parametrize(("activation", "t"), [("tanh", 0.1), ("relu", 0.01)])
def test_known_averages_are_those_of_a_lattice(activation: str, t: float) -> None:
    tables, known = made(problem(GRAM, activation, t))
    grid = lattice_grid(np.full(2, 0.1), 7.0)
    averages = grid.weights @ features_at(tables, np.asarray(grid.nodes))
    assert known.known.all()
    np.testing.assert_allclose(known.values, averages, rtol=0, atol=1e-10)
    rejects(lambda: np.testing.assert_allclose(known.values, 1.0001 * averages, rtol=0, atol=1e-10))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_features_from_tables_are_those_of_neurons(activation: str) -> None:
    case = problem(arms(5, 4), activation)
    with jax.enable_x64(True):
        eq, (tables, _) = equivalent(case, -2, 6.0), made(case)
        exact = features_of(Coefficients(eq.linear, eq.kept, eq.carried))
    np.testing.assert_allclose(features_at(tables, np.asarray(sobol_grid(4, 7).nodes)), exact, rtol=0, atol=2e-12 * np.max(exact))


def test_averages_that_no_series_reaches_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long centroids of nearly one direction, and few terms: their own averages are known, not that of both."""
    monkeypatch.setattr(matched_types, "MOST_TERMS", 64)
    tables = made(problem(16 * np.array([[1.0, 0.99], [0.99, 1.0]])))[0]
    known = known_averages(tables)
    np.testing.assert_array_equal(known.known, [True] * 4 + [True, False, True])
    one = lattice_grid(np.full(1, 1e-2), 8.0)
    averages = one.weights @ features_at(tables, np.asarray(one.nodes) * np.linalg.norm(tables.root[0]) @ np.linalg.pinv(tables.root[:1]).T)
    np.testing.assert_allclose(known.values[[0, 2, 4]], averages[[0, 2, 4]], rtol=1e-7)  # of the first class, along its centroid


def test_centred_classes_beside_others() -> None:
    gram = np.diag([1.0, 0.0, 0.7])
    tables, known = made(problem(gram))
    again = known_averages(tables)
    grid = lattice_grid(np.full(2, 0.2), 7.0)
    np.testing.assert_allclose(again.values, grid.weights @ features_at(tables, np.asarray(grid.nodes)), rtol=0, atol=1e-10)
    assert known.known.all()


def test_matched_weights() -> None:
    """They are positive, sum to 1, give the means, and leave what is already right alone."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((512, 3))
    functions, means = np.concatenate([x, x**2, 2 * x[:, :1], np.ones((512, 1))], 1), np.array([0, 0, 0, 1, 1, 1, 0, 1.0])
    weights = matched(functions, means)
    assert weights.min() > 0 and abs(weights.sum() - 1) < 1e-14
    np.testing.assert_allclose(weights @ functions, means, atol=1e-6)
    rejects(lambda: np.testing.assert_allclose(np.mean(functions, 0), means, atol=1e-6))
    np.testing.assert_allclose(matched(functions, weights @ functions), weights, rtol=1e-4)
    np.testing.assert_allclose(matched(functions, functions.mean(0)), 1 / 512, rtol=1e-9)
    np.testing.assert_allclose(matched(np.ones((8, 2)), np.ones(2)), 1 / 8)


def test_means_that_no_weights_give_leave_weights_of_some_size() -> None:
    x = np.linspace(-1, 1, 64)[:, None]
    weights = matched(x, np.array([1.5]))
    assert np.all(np.isfinite(weights)) and weights.min() >= 0 and abs(weights.sum() - 1) < 1e-12
    assert weights @ x[:, 0] > 0.99


def test_means_by_regression_on_known_averages() -> None:
    """Exact for what is linear in the features, and for others closer than the points' own mean."""
    case = problem(arms(4, 4))
    tables, known = made(case)
    features = features_at(tables, np.asarray(sobol_grid(4, 10, 3).nodes))
    fine = features_at(tables, np.asarray(sobol_grid(4, 16, 4).nodes))
    combine = np.random.default_rng(2).standard_normal((features.shape[1], 2))
    functions = [
        np.concatenate([piece @ combine, np.exp(piece[:, :1] + piece[:, 9:10])], 1) for piece in (features[:300], features[300:], fine)
    ]
    partly = known._replace(known=np.arange(known.known.size) > 1)
    values, means = regressed_means([features[:300], features[300:]], partly, functions[:2])
    np.testing.assert_allclose(values, known.values, atol=1e-4)
    np.testing.assert_array_equal(values[2:], known.values[2:])
    _, exact = regressed_means([features[:300], features[300:]], known, functions[:2])
    np.testing.assert_allclose(exact[:2], known.values @ combine, rtol=1e-8)
    off, plain = abs(means[2] - functions[2][:, 2].mean()), abs(np.concatenate(functions[:2])[:, 2].mean() - functions[2][:, 2].mean())
    assert off < 0.5 * plain


def test_types_above_rank_three_give_the_known_averages() -> None:
    case = problem(arms(5, 5))
    with jax.enable_x64(True):
        eq, known = equivalent(case, 0, 6.0), made(case)[1]
    averages = np.asarray(eq.type_weights) @ features_of(Coefficients(eq.linear, eq.kept, eq.carried))
    assert np.min(np.asarray(eq.type_weights)) > 0
    np.testing.assert_allclose(averages, known.values, rtol=1e-5)
    plain = features_of(Coefficients(eq.linear, eq.kept, eq.carried)).mean(0)
    rejects(lambda: np.testing.assert_allclose(plain, known.values, rtol=1e-5))


def test_centroids_too_long_for_tables_are_left_to_the_points() -> None:
    case = problem(900 * arms(4, 4))
    with jax.enable_x64(True):
        assert tables_of(case) is None
        np.testing.assert_array_equal(equivalent(case, -2, 6.0).type_weights, np.full(128, 1 / 128))
