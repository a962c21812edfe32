"""The factor between steps and τ: found where it is known, within errors that cover it, and refused where nothing determines it."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from rfdiff import GradientDescent, MixtureLaw, Problem, simulation, theory
from rfdiff.calibration import Calibration, LossRecord, fit_steps
from rfdiff.class_times import times
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from tests import synthetic
from tests.tolerances import rejects

RHO, OFFSETS, SCALES = 37.0, (0.2, 0.5), (3.0, 0.7)
STEPS = np.geomspace(20, 60_000, 60).round()
CURVES = synthetic.theory(grid=synthetic.taus(100))


def record(noise: float = 0.0, seed: int = 0, correlation: float = 0.0, steps: np.ndarray = STEPS, last: float = np.inf) -> LossRecord:
    """Losses of a training that follows the curves at `RHO` steps per τ, with an offset, a scale and noise of each class."""
    rng, steps = np.random.default_rng(seed), steps[steps <= last]
    inner = slice(1, -1)  # without 0 and inf
    losses = []
    for values in (CURVES.train_loss, CURVES.test_loss):
        theory_loss = PchipInterpolator(np.log(CURVES.taus[inner]), values[inner])(np.log(steps / RHO))
        fluctuation = rng.normal(size=theory_loss.shape)
        for k in range(1, len(steps)):
            fluctuation[k] = correlation * fluctuation[k - 1] + np.sqrt(1 - correlation**2) * fluctuation[k]
        losses.append((OFFSETS + np.array(SCALES) * (theory_loss + noise * fluctuation)).ravel())
    return LossRecord(np.repeat(steps, 2), np.tile([0, 1], steps.size), *losses)


def fitted(losses: LossRecord, curves: LearningCurves = CURVES) -> Calibration:
    return fit_steps(curves, losses, times(curves))


def test_losses_without_noise_give_the_factor_and_both_maps() -> None:
    found = fitted(record())
    np.testing.assert_allclose(found.steps_per_tau, RHO, rtol=1e-5)
    np.testing.assert_allclose([found.offset, found.scale], [OFFSETS, SCALES], rtol=1e-4)
    assert found.log_error < 1e-4 and found.misfit.max() < 1e-4
    np.testing.assert_allclose(found.steps[0], RHO * times(CURVES).tau_gen, rtol=1e-5)
    assert found.reached.dtype == bool and found.reached[0].all()
    slower = dataclasses.replace(CURVES, taus=1.02 * CURVES.taus)
    rejects(lambda: np.testing.assert_allclose(fitted(record(), slower).steps_per_tau, RHO, rtol=1e-2))


def test_the_order_of_rows_and_missing_losses_do_not_matter() -> None:
    whole = record(0.01)
    order = np.random.default_rng(1).permutation(whole.step.size)
    shuffled = LossRecord(whole.step[order], whole.member[order], whole.train[order], whole.held_out[order])
    np.testing.assert_allclose(fitted(shuffled).steps_per_tau, fitted(whole).steps_per_tau, rtol=1e-6)
    alone = LossRecord(whole.step, whole.member, np.where(whole.member == 0, whole.train, np.nan), whole.held_out)
    assert abs(np.log(fitted(alone).steps_per_tau / RHO)) < 4 * fitted(alone).log_error < 0.4


def test_a_class_without_losses_has_steps_but_no_map() -> None:
    whole = record(0.002)
    of_one = whole.member == 1
    found = fitted(LossRecord(*(np.asarray(getattr(whole, field.name))[of_one] for field in dataclasses.fields(whole))))
    assert np.isnan(found.scale[0]) and np.isnan(found.class_log_error[0]) and found.disagreement == 1
    assert np.isfinite(found.steps[0]).all() and not found.reached[:, 0].any()
    assert abs(np.log(found.steps_per_tau / RHO)) < 4 * found.log_error < 0.2


def test_what_is_ahead_is_told_from_what_is_reached() -> None:
    found = fitted(record(0.002, last=3000))  # between τ_gen and τ_mem
    assert found.reached[0].all() and not found.reached[2].any()
    assert abs(np.log(found.steps_per_tau / RHO)) < 4 * found.log_error


def test_classes_that_disagree_make_the_error_larger() -> None:
    losses = record(0.002)
    other = np.where(losses.member == 1, 1.5 * losses.step, losses.step)
    found = fitted(LossRecord(other, losses.member, losses.train, losses.held_out))
    np.testing.assert_allclose(found.class_steps_per_tau, [RHO, 1.5 * RHO], rtol=0.05)
    assert found.disagreement > 3 and fitted(losses).disagreement < 3


def test_losses_that_determine_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="they do not determine the steps per tau"):
        fitted(record(0.05, steps=np.arange(1.0, 12)))  # up to τ = 0.3: a straight line
    rising = record()
    with pytest.raises(InputError, match=r"they rise where the theory's fall|they do not determine"):
        fitted(LossRecord(rising.step, rising.member, -rising.train, np.full(rising.step.size, np.nan)))
    with pytest.raises(InputError, match="class 2; allowed: 0 to 1"):
        fitted(dataclasses.replace(rising, member=rising.member + 1))


@pytest.mark.thorough
@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_errors_cover_the_known_factor(correlation: float) -> None:
    """Of 100 records, 68 are expected within one standard error; fewer than 55 or less than 88 within two would be too small errors."""
    found = [fitted(record(0.01, seed, correlation)) for seed in range(100)]
    off = np.array([abs(np.log(one.steps_per_tau / RHO)) / one.log_error for one in found])
    assert np.sum(off < 1) >= 55 and np.sum(off < 2) >= 88 and np.sum(off < 0.3) <= 50
    unscaled = np.array([abs(np.log(one.steps_per_tau / RHO)) / (one.log_error / 4) for one in found])
    rejects(lambda: np.testing.assert_array_less(55, np.sum(unscaled < 1)))


@pytest.mark.thorough
def test_a_network_under_gradient_descent_has_the_steps_of_its_rule() -> None:
    """Steps of size η are 1/η per τ. One network deviates from theory by O(1/d): the error that is found must know that."""
    problem = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.4, 0.5]), "tanh", t=0.3, psi_p=2.0, psi_n=2.0)
    step, counts = 0.25, np.unique(np.geomspace(1, 4000, 40).round())
    _, covering = theory.covering_curves(problem, theory.time_grid(problem, num_times=40), tolerance=1e-3)
    runs = simulation.learning_curves(
        problem, step * counts, d=60, key=jax.random.key(0), num_seeds=4, rule=GradientDescent(step_size=step)
    ).per_seed
    assert runs is not None
    for train, test in zip(runs["train_loss"], runs["test_loss"], strict=True):
        losses = LossRecord(np.repeat(counts, 2), np.tile([0, 1], counts.size), train.ravel(), test.ravel())
        found = fit_steps(covering, losses, times(covering))
        off = abs(np.log(found.steps_per_tau * step))
        assert off < 4 * found.log_error and off < 0.2 and found.log_error < 0.15
