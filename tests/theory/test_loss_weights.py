"""Weights of the classes in the training loss: the reference, exact identities, classes of weight 0, derivatives (docs: practice.md)."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import set_parameter
from rfdiff.problem import Problem
from tests.theory.curve_cases import TAUS, one_class, two_classes, with_
from tests.tolerances import loglog_slope, rejects

CENTRED_A = Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4.0, psi_n=3.0, loss_weights=[0.4, 0.6])
REFERENCE = [[0.89241, 0.75021], [1.07775, 0.70603], [1.37217, 0.76464], [1.51639, 0.79861]]  # test losses at τ = 10, 10², 10³, 10⁴
TIGHT = 1e-8


@functools.cache
def _curves(draws: float, weights: tuple[float, ...] | None, psi_n: float = 1.6) -> LearningCurves:
    return theory.learning_curves(two_classes(draws, loss_weights=weights, psi_n=psi_n), TAUS, tolerance=TIGHT)


def both(curves: LearningCurves) -> np.ndarray:
    return np.stack([curves.train_loss, curves.test_loss])


def close(one: np.ndarray, other: np.ndarray, tolerance: float = 5 * TIGHT) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def test_the_reference() -> None:
    def holds(problem: Problem) -> None:
        found = theory.learning_curves(problem, TAUS, tolerance=1e-6).test_loss
        close(found[[list(TAUS.round(9)).index(tau) for tau in (10.0, 100.0, 1000.0, 10000.0)]], np.array(REFERENCE), 1.5e-5)

    holds(CENTRED_A)
    exchanged = Problem(MixtureLaw.isotropic([0.4, 0.6], [1.5, 0.4]), "tanh", 0.1, 4.0, 3.0, loss_weights=[0.7, 0.3])
    rejects(lambda: holds(exchanged))
    rejects(lambda: holds(with_(CENTRED_A, loss_weights=None)))


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [math.inf, 3])
def test_the_class_fractions_are_the_default(draws: float) -> None:
    plain, same = _curves(draws, None), _curves(draws, (0.65, 0.35))
    close(both(same), both(plain), 1e-13)
    rejects(lambda: close(both(_curves(draws, (0.35, 0.65))), both(plain), 1e-2))


@pytest.mark.thorough
@pytest.mark.parametrize("draws", [math.inf, 3])
def test_a_class_of_weight_0_is_tested_only(draws: float) -> None:
    """Class 0 is as if alone, with its own samples; on the samples of the other, train and test loss are one."""
    weighted = _curves(draws, (1.0, 0.0))
    law = MixtureLaw.isotropic([1.0], [1.4])
    alone = theory.learning_curves(one_class(draws, mixture=law, psi_n=1.6 * 0.65), TAUS, tolerance=TIGHT)
    close(both(weighted)[..., :1], both(alone))
    close(weighted.train_loss[:, 1], weighted.test_loss[:, 1])
    assert np.max(weighted.test_loss[:, 0] - weighted.train_loss[:, 0]) > 0.1
    almost = both(_curves(draws, (1 - 1e-3, 1e-3)))
    finite = TAUS < 50  # a small weight has its effect late
    close(almost[:, finite], both(weighted)[:, finite], 1e-2)
    rejects(lambda: close(both(_curves(draws, (0.65, 0.35)))[:, finite], both(weighted)[:, finite], 1e-2))


@pytest.mark.thorough
def test_classes_alike_in_law_and_in_weight_are_one() -> None:
    """Two of three identical classes with the same ω_c/π_c are one class of both their fractions and weights."""

    def curves(fractions: list[float], weights: list[float]) -> np.ndarray:
        law = MixtureLaw.isotropic(fractions, [1.2] * len(fractions))
        return both(theory.learning_curves(one_class(3, mixture=law, loss_weights=weights), TAUS, tolerance=TIGHT))

    three, two = curves([0.2, 0.3, 0.5], [0.32, 0.48, 0.2]), curves([0.5, 0.5], [0.8, 0.2])
    close(three[..., [0, 1, 2]], two[..., [0, 0, 1]])
    rejects(lambda: close(three[..., [0, 1, 2]], curves([0.5, 0.5], [0.5, 0.5])[..., [0, 0, 1]], 1e-3))


@pytest.mark.thorough
def test_identical_classes_have_the_effective_sample_size() -> None:
    """With n_eff = n/Σ ω_c²/π_c samples of equal weight the test loss is the same up to 1/n²; with n samples, up to 1/n only."""
    fractions, weights = np.array([0.7, 0.3]), np.array([0.4, 0.6])
    sizes, taus = np.array([20.0, 40.0, 80.0]), np.array([3.0, 30.0])

    def loss(problem: Problem) -> float:
        return float(theory.learning_curves(problem, taus, tolerance=1e-9).test_loss[1, 0])

    pair = MixtureLaw.isotropic(fractions, [1.2, 1.2])
    weighted = np.array([loss(one_class(mixture=pair, loss_weights=weights, psi_n=n)) for n in sizes])

    def slope(share: float) -> float:
        return loglog_slope(sizes, weighted - np.array([loss(one_class(psi_n=n * share)) for n in sizes]))

    assert -2.15 < slope(1 / float(np.sum(weights**2 / fractions))) < -1.85
    assert -1.15 < slope(1.0) < -0.85


@pytest.mark.parametrize("weights", [(0.4, 0.6), (1.0, 0.0)])
@pytest.mark.parametrize("draws", [1, pytest.param(3, marks=pytest.mark.thorough), math.inf])
def test_the_classes_share_the_spectrum(draws: float, weights: tuple[float, float]) -> None:
    z = np.array([-0.5, 0.3 + 0.1j, 1 + 0.1j, 0.05 + 0.001j])
    found = theory.stieltjes(two_classes(draws, loss_weights=weights), z)
    close(found.class_resolved.sum(1), 1 + z * found.value, 1e-9)
    if not weights[1]:
        np.testing.assert_array_equal(found.class_resolved[:, 1], 0)


def test_spectrum() -> None:
    found = theory.spectrum(two_classes(2, loss_weights=[0.2, 0.8]))
    assert found.missing_mass < 1e-3
    np.testing.assert_allclose(np.sum(found.class_density, 1), found.density, rtol=1e-8)


def test_atoms_and_limits_know_which_samples_are_trained_on() -> None:
    """p = 2.2 d features, and 1.04 d or 1.6 d columns."""
    for weights, columns in (((1.0, 0.0), 1.04), ((0.4, 0.6), 1.6)):
        found = theory.spectrum(two_classes(1, loss_weights=weights))
        np.testing.assert_array_equal(found.atom_locations, [0.0])
        assert found.atom_weights[0] == pytest.approx(1 - columns / 2.2, abs=1e-6)
    assert theory.limit_diverges(two_classes(1, psi_p=1.04, loss_weights=[1.0, 0.0]))
    assert not theory.limit_diverges(two_classes(1, psi_p=1.04, loss_weights=[0.9, 0.1]))
    assert theory.limit_diverges(two_classes(1, psi_p=1.6, loss_weights=[0.9, 0.1]))


def test_training_lowers_the_weighted_train_loss() -> None:
    """The flow descends Σ_c ω_c L_c; the losses of the classes and their plain average may rise."""
    weights = np.array([0.02, 0.98])
    curves = _curves(math.inf, tuple(weights.tolist()))
    assert np.all(np.diff(curves.train_loss @ weights) < 1e-9)
    rejects(lambda: np.testing.assert_array_less(np.diff(curves.train_loss[:, 0]), 1e-9))


@pytest.mark.parametrize(
    ("weights", "step"),
    [pytest.param([0.4, 0.6], 1e-4, marks=pytest.mark.thorough), pytest.param([1.0, 0.0], -1e-4, marks=pytest.mark.slow)],
)
def test_gradient_in_the_loss_weights(weights: list[float], step: float) -> None:
    """∂/∂ω_c with Σ dω = 0, also where ω_1 = 0, against differences; the class fractions then stand for the samples alone."""
    taus = np.array([1.0, 100.0])

    def loss(curves: Any) -> Any:
        return curves.test_loss[1, 0] + curves.train_loss[1, 1]

    problem = two_classes(loss_weights=weights)
    slopes = theory.gradient(problem, taus, loss, tolerance=TIGHT)
    along = float(np.asarray(slopes.loss_weights) @ [1.0, -1.0])
    moved = [loss(theory.learning_curves(set_parameter(problem, "loss_weight_0", weights[0] + k * step), taus, tolerance=1e-9))
             for k in ((-1, 1) if weights[1] else (0, 1, 2))]  # fmt: skip
    difference = (moved[1] - moved[0]) / (2 * step) if weights[1] else (4 * moved[1] - 3 * moved[0] - moved[2]) / (2 * step)
    assert along == pytest.approx(difference, rel=1e-4)
    by_fraction = float(np.asarray(slopes.mixture.weights) @ [1.0, -1.0])
    assert abs(by_fraction - along) > 1e-3
    if not weights[1]:
        assert theory.gradient(two_classes(), taus, loss).loss_weights is None


@functools.cache
def _sensitivity() -> Any:
    return theory.sensitivity(two_classes(loss_weights=[0.5, 0.5]))


@pytest.mark.thorough
def test_sensitivity_to_samples() -> None:
    """d/d log n_c is π_c d/d log ψ_n + (1 - π_c) d/d log π_c at fixed weights, whose own slopes are others."""
    names = _sensitivity().elasticities
    for c, fraction in enumerate((0.65, 0.35)):
        want = fraction * names["psi_n"].tau_mem + (1 - fraction) * names[f"weight_{c}"].tau_mem
        np.testing.assert_allclose(names[f"samples_{c}"].tau_mem, want, rtol=1e-9)
        assert np.max(abs(names[f"loss_weight_{c}"].tau_mem - want)) > 1e-2


@pytest.mark.slow
def test_sensitivity_to_weights() -> None:
    """d log τ/d log ω_c against a difference; without weights, samples change the weights too."""
    problem, names = two_classes(loss_weights=[0.5, 0.5]), _sensitivity().elasticities
    ends = [theory.sensitivity(set_parameter(problem, "loss_weight_0", 0.5 * math.exp(h))).times.tau_mem for h in (-1e-3, 1e-3)]
    np.testing.assert_allclose(names["loss_weight_0"].tau_mem, np.log(ends[1] / ends[0]) / 2e-3, rtol=1e-4)
    plain = theory.sensitivity(two_classes()).elasticities
    np.testing.assert_allclose(plain["samples_0"].tau_mem, 0.65 * plain["psi_n"].tau_mem + 0.35 * plain["weight_0"].tau_mem, rtol=1e-9)


@pytest.mark.parametrize(
    ("lowest", "asked"),
    [
        pytest.param(0.3, [[0.3, 0.7]], marks=pytest.mark.thorough),
        pytest.param(0.0, [[0.0, 1.0], None], marks=pytest.mark.slow),
    ],
)
def test_a_map_over_a_loss_weight(lowest: float, asked: list[list[float] | None]) -> None:
    """The cell at ω = π has the times of the unweighted problem; one at another ω_0, 0 included, those of a problem made so."""
    axes = {"loss_weight_0": [lowest, 0.65], "psi_n": [1.6, 2.0]}
    found = theory.phase_map(two_classes(), axes)
    assert found.converged.all()
    for i, weights in enumerate(asked):
        problem = two_classes(loss_weights=weights)
        with jax.enable_x64(True):
            want = theory.class_times(theory.curve_kernel(problem, theory.plan_curves(problem)))
        for name in ("tau_gen", "tau_stop"):
            np.testing.assert_allclose(getattr(found.times, name)[i, 0], getattr(want, name), rtol=2e-3)
    assert abs(found.times.tau_stop[0, 0] / found.times.tau_stop[1, 0] - 1).max() > 0.05


def test_weights_are_kept_by_what_changes_a_problem() -> None:
    problem = two_classes(loss_weights=[0.5, 0.5])
    for other in (set_parameter(problem, "t", 0.3), set_parameter(problem, "samples_0", 2.0), dataclasses.replace(problem, psi_p=3.0)):
        np.testing.assert_array_equal(np.asarray(other.loss_weights), [0.5, 0.5])
