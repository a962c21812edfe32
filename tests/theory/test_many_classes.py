"""Many classes with centroids: neuron types by quasi-Monte-Carlo, against lattices, one class, and finer point sets."""

import numpy as np
import pytest

from rfdiff import theory
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import dynamics, neuron_types
from tests.tolerances import rejects

TAUS = np.array([1.0, 30.0, 1000.0])


def problem(gram: np.ndarray, variances: np.ndarray | None = None) -> Problem:
    k = len(gram)
    spread = np.linspace(0.5, 1.5, k) if variances is None else variances
    return Problem(MixtureLaw.isotropic(np.full(k, 1 / k), spread, gram), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def within(found: object, reference: object, factor: float = 1.0) -> None:
    """Every loss within the error that was returned."""
    for side in ("train_loss", "test_loss"):
        off = np.max(abs(getattr(found, side) - getattr(reference, side)))
        assert off <= factor * (found.error_estimate + reference.error_estimate), f"{side} off by {off:.2g}"  # type: ignore[attr-defined]


def plane(k: int) -> np.ndarray:
    """Gram matrix of rank 2."""
    angles = np.linspace(0, np.pi, k, endpoint=False)
    arms = np.sqrt(0.6) * np.stack([np.cos(angles), 0.6 * np.sin(angles)], 1)
    return arms @ arms.T


@pytest.fixture(scope="module")
def by_lattice() -> object:
    return theory.learning_curves(problem(plane(4)), TAUS)


@pytest.mark.slow
def test_scrambled_points_find_what_the_lattice_finds(by_lattice: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Gram matrix of rank 2 given to the points for high rank: off by less than the returned error, which is small."""
    monkeypatch.setattr(neuron_types, "LATTICE_RANK", 1)
    found = theory.learning_curves(problem(plane(4)), TAUS, tolerance=1e-2)
    assert 1e-6 < found.error_estimate < 3e-3
    within(found, by_lattice)
    far = problem(plane(4), np.linspace(0.5, 1.6, 4))
    rejects(lambda: within(theory.learning_curves(far, TAUS, tolerance=1e-2), by_lattice))


@pytest.mark.thorough
def test_neurons_far_from_the_typical_one_stay_inside_the_contour() -> None:
    """Their bands below the support are too narrow to be seen in a scan; a contour through them is off by 2e-5 and does not know it."""
    single = problem(np.array([[0.5]]), np.array([0.8]))
    found, reference = (theory.learning_curves(single, TAUS, tolerance=tolerance) for tolerance in (1e-6, 1e-9))
    assert found.error_estimate <= 1e-6
    within(found, reference)


@pytest.mark.slow
def test_ten_equal_classes_are_one() -> None:
    """One centroid for all: a Gram matrix of rank 1, on the lattice, with the response system of ten classes."""
    one = theory.learning_curves(problem(np.array([[0.5]]), np.array([0.8])), TAUS)
    ten = theory.learning_curves(problem(np.full((10, 10), 0.5), np.full(10, 0.8)), TAUS)
    np.testing.assert_allclose(ten.test_loss, np.repeat(one.test_loss, 10, 1), atol=2e-6)
    np.testing.assert_allclose(ten.total("train_loss"), one.total("train_loss"), atol=2e-6)


@pytest.mark.slow
def test_the_error_estimate_is_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small point sets against larger ones, over laws: the estimate covers the change in most, and is not far above it."""
    rng = np.random.default_rng(3)
    covered, ratios = 0, []
    for _ in range(4):
        arms = rng.standard_normal((5, 8)) / 3
        case = problem(arms @ arms.T, rng.uniform(0.4, 1.6, 5))
        reference = theory.learning_curves(case, TAUS, tolerance=1e-6)
        monkeypatch.setattr(dynamics, "SOBOL_LEVELS", 2)
        found = theory.learning_curves(case, TAUS, tolerance=1e-6)
        monkeypatch.undo()
        off = max(np.max(abs(getattr(found, side) - getattr(reference, side))) for side in ("train_loss", "test_loss"))
        covered += off <= found.error_estimate + reference.error_estimate
        ratios.append(found.error_estimate / off)
        assert found.error_estimate > reference.error_estimate
    assert covered >= 3
    assert np.median(ratios) < 10
