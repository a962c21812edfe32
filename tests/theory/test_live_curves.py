"""One compiled program for all problems of a shape: how far its curves are from those of the closed form, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from rfdiff import GradientFlow, InputError, MinibatchSGD, MixtureLaw, Problem, theory
from rfdiff.theory import live_curves
from rfdiff.theory.live_curves import STEP

pytestmark = pytest.mark.thorough
TAUS = np.geomspace(0.1, 1e4, 41)
WANTED = 1e-3


def line(seed: int, activation: str = "tanh", draws: float = np.inf) -> Problem:
    """Two classes on a line; the first seeds are the corners of what the sliders reach."""
    rng = np.random.default_rng(seed)
    norms = [np.array([2.0, 2.0]), np.array([0.05, 1.5]), rng.uniform(0.1, 1.5, 2)][min(seed, 2)]
    variances = [np.array([10.0, 0.01]), np.array([0.3, 3.0]), rng.uniform(0.1, 3, 2)][min(seed, 2)]
    gram = np.outer(norms, norms) * np.array([[1.0, -1.0], [-1.0, 1.0]])
    t, psi_p, psi_n = float(rng.uniform(0.05, 1.0)), float(rng.uniform(1, 8)), float(rng.uniform(0.5, 6))
    return Problem(MixtureLaw.isotropic([0.6, 0.4], variances, gram), activation, t, psi_p, psi_n, draws)


def deviation(problem: Problem, found: live_curves.LiveCurves) -> float:
    exact = theory.learning_curves(problem, TAUS, tolerance=1e-5)
    return float(max(np.max(abs(found.test - exact.test_loss)), np.max(abs(found.train - exact.train_loss))))


@pytest.mark.parametrize("seed", range(4))
def test_error_is_what_it_says_and_small_enough(seed: int) -> None:
    problem = line(seed)
    found = live_curves.live_curves(problem, TAUS)
    if found.error > WANTED:
        found = live_curves.live_curves(problem, TAUS, size=1)
    assert found.error <= WANTED
    assert deviation(problem, found) <= WANTED


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_error_covers_the_true_one_on_random_problems(activation: str) -> None:
    """Where it says that the curves will do, from centred classes to long centroids, little noise to much, few samples to many."""
    rng, looked = np.random.default_rng(5), 0
    for _ in range(24):
        norms = rng.uniform(0, 2, 2) * (rng.random() < 0.7)
        variances, (t, psi_p, psi_n) = 10 ** rng.uniform(-1.5, 0.8, 2), 10 ** rng.uniform([-2, -0.5, -0.5], [0.5, 1.5, 1.5])
        law = MixtureLaw.isotropic([0.6, 0.4], variances, np.outer(norms, norms) * rng.choice([-1.0, 1.0]) ** (1 - np.eye(2)))
        problem = Problem(law, activation, float(t), float(psi_p), float(psi_n))
        for size in range(2):
            found = live_curves.live_curves(problem, TAUS, size=size)
            if found.error <= WANTED:
                assert deviation(problem, found) <= found.error, (size, problem)
                looked += 1
    assert looked > 20


def test_averages_over_a_kink_are_resolved_where_there_is_little_noise() -> None:
    """With 12 nodes on each side of the kink these curves were a tenth of a loss off."""
    problem = Problem(MixtureLaw.isotropic([0.5, 0.5], [0.166, 0.671], np.zeros((2, 2))), "relu", 0.0188, 0.806, 1.17)
    found = live_curves.live_curves(problem, TAUS)
    assert deviation(problem, found) <= found.error <= 1e-4


def test_moving_numbers_compiles_nothing() -> None:
    live_curves.live_curves(line(2), TAUS)
    programs = live_curves._KERNEL
    before = programs._cache_size()
    live_curves.live_curves(line(3), TAUS, rule=GradientFlow(weight_decay=0.1))
    assert programs._cache_size() == before


def test_a_near_start_changes_nothing_and_a_bad_one_is_mended() -> None:
    problem = line(2)
    found = live_curves.live_curves(problem, TAUS)
    close = live_curves.live_curves(line(3), TAUS).solutions
    for near in (found.solutions, close, np.full_like(close, np.nan), -1e6 * close, close[:5]):
        again = live_curves.live_curves(problem, TAUS, near=near)
        np.testing.assert_allclose(again.test, found.test, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(again.train, found.train, rtol=1e-9, atol=1e-9)


def test_neurons_of_the_problem_before_are_taken_only_where_they_are_the_same() -> None:
    first, other = line(2), line(3)
    law, even = replace(first.mixture, weights=np.array([0.3, 0.7])), np.array([0.5, 0.5])
    moved = replace(first, psi_p=3.3, psi_n=1.1, mixture=law, loss_weights=even)
    for problem in (moved, other, replace(first, t=0.3)):
        live_curves._LATEST.clear()
        alone = live_curves.live_curves(problem, TAUS)
        live_curves.live_curves(first, TAUS)
        after = live_curves.live_curves(problem, TAUS)
        for name in ("train", "test", "optimal"):
            np.testing.assert_array_equal(getattr(after, name), getattr(alone, name))
        assert np.max(abs(alone.test - live_curves.live_curves(first, TAUS).test)) > 1e-3


def test_coarser_types_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same criterion rejects a lattice with four times the step."""
    problem = line(0)
    monkeypatch.setattr(live_curves, "STEP", 4 * STEP)
    assert deviation(problem, live_curves.live_curves(problem, TAUS, size=1)) > WANTED


def test_other_shapes_are_refused() -> None:
    cube = Problem(MixtureLaw.isotropic([0.4, 0.3, 0.3], [1.0, 1.0, 1.0], np.eye(3)), "tanh", 0.1, 4.0, 3.0)
    with pytest.raises(InputError, match="centroids of rank 3; allowed: joint eigenvalues and centroids in a plane"):
        live_curves.live_curves(cube, TAUS)
    with pytest.raises(InputError, match="rule"):
        live_curves.live_curves(line(2), TAUS, rule=MinibatchSGD(0.1, 1.0))
