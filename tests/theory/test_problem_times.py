"""Times of the closed form do not depend on the training times that are shown; read from known curves they are those of the formulas."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, times
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, HeavyBall, Ridge
from rfdiff.theory import problem_times
from tests.tolerances import rejects

GRID = np.append(np.geomspace(1e-3, 4e4, problem_times.NUM_TIMES), np.inf)
SHOWN = ([0.1, 1.0, 10.0, 100.0], [0.1, 1.0, 10.0, 100.0, 1000.0], [1.0, 100.0, 1e6, np.inf], None)


def test_loss(tau: np.ndarray) -> np.ndarray:
    """Learned in times 1 and 7, overfitted in times 100 and 900."""
    return np.asarray(1 - 0.5 * (1 - np.exp(-tau)) - 0.2 * (1 - np.exp(-tau / 7)) + 0.1 * (1 - np.exp(-tau / 100)) - 0.05 * np.expm1(-tau / 900))


def train_loss(tau: np.ndarray) -> np.ndarray:
    return np.asarray(1 - 0.5 * (1 - np.exp(-tau)) - 0.2 * (1 - np.exp(-tau / 7)) - 0.2 * (1 - np.exp(-tau / 300)))


def known(taus: np.ndarray = GRID, **changes: np.ndarray) -> LearningCurves:
    """One class with those losses and an optimum of 0.2."""
    test, train, zeros = test_loss(taus)[:, None], train_loss(taus)[:, None], np.zeros((taus.size, 1))
    curves = LearningCurves(taus, train, test, test - 0.2, np.array([0.2]), np.ones(1), 1.0, 1e-9, zeros, zeros, zeros)
    return dataclasses.replace(curves, **changes)


def test_times_of_known_curves() -> None:
    found = problem_times._read(known(), 0.6)
    stop = minimize_scalar(lambda x: float(test_loss(np.exp(x))), bounds=(1, 5), method="bounded", options={"xatol": 1e-12})
    gap = float(test_loss(np.array(np.inf)) - train_loss(np.array(np.inf))) / 2
    levels = {
        "tau_gen": lambda x: 1 - test_loss(np.exp(x)) - (1 - np.exp(-1)) * (1 - stop.fun),
        "tau_mem": lambda x: test_loss(np.exp(x)) - train_loss(np.exp(x)) - gap,
        "tau_opt": lambda x: 1 - test_loss(np.exp(x)) - 0.6 * 0.8,
    }
    for name, excess in levels.items():
        exact = np.exp(brentq(excess, -3, 3 if name != "tau_mem" else 8))
        value = float(getattr(found, name)[0])
        assert value == pytest.approx(exact, rel=2e-6), name
        gridded = float(getattr(times(known(), 0.6), name)[0])
        rejects(lambda gridded=gridded, exact=exact: np.testing.assert_allclose(gridded, exact, rtol=2e-6))  # type: ignore[misc]
    assert float(found.tau_stop[0]) == pytest.approx(np.exp(stop.x), rel=1e-5)


def test_early_crossings_are_before_the_grid() -> None:
    """A level reached before the first grid point: the curves are linear in τ there."""
    found = problem_times._read(known(), 1e-5)
    slope = 0.5 + 0.2 / 7 - 0.1 / 100 - 0.05 / 900
    assert float(found.tau_opt[0]) == pytest.approx(1e-5 * 0.8 / slope, rel=1e-3)


def test_curves_that_never_get_there() -> None:
    rising = known(test_loss=2 - test_loss(GRID)[:, None])
    found = problem_times._read(rising, 0.5)
    assert (np.isnan(found.tau_gen[0]), found.tau_stop[0], found.tau_opt[0]) == (True, 0, np.inf)
    falling = known(test_loss=train_loss(GRID)[:, None])
    found = problem_times._read(falling, 0.99)
    assert found.tau_stop[0] == found.tau_opt[0] == np.inf and np.isnan(found.tau_mem[0]) and np.isfinite(found.tau_gen[0])


def test_where_the_gap_diverges_there_is_no_memorisation_time() -> None:
    """p = n m: half of an infinite gap is reached nowhere, whatever the end of the grid; the other times stay."""
    unbounded = test_loss(GRID)[:, None].copy()
    unbounded[-1] = np.nan
    found, whole = problem_times._read(known(test_loss=unbounded), 0.6), problem_times._read(known(), 0.6)
    assert np.isnan(found.tau_mem[0])
    for name in ("tau_gen", "tau_stop", "tau_opt"):
        assert getattr(found, name)[0] == getattr(whole, name)[0]
    lost = unbounded.copy()
    lost[5] = np.nan
    assert all(np.isnan(getattr(problem_times._read(known(test_loss=lost), 0.6), name)[0]) for name in TIME_NAMES)


def example(name: str) -> Problem:
    law = {"p": MixtureLaw.isotropic([0.6, 0.4], [1.4, 0.5]), "readme": MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4])}[name]
    return Problem(law, "tanh", t=0.3, psi_p=2.0, psi_n=2.0) if name == "p" else Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def test_times_do_not_depend_on_what_is_shown() -> None:
    """Read from the curves shown they were wrong by factors: τ_mem 28 for 252, τ_stop 3209 for 6."""
    problem = example("readme")
    curves, whole = theory.curves_and_times(problem, SHOWN[0], tolerance=1e-5)
    np.testing.assert_array_equal(curves.taus, SHOWN[0])
    coarse = times(theory.learning_curves(problem, theory.time_grid(problem, 1000), tolerance=1e-5))
    for name in TIME_NAMES:
        np.testing.assert_allclose(getattr(whole, name), getattr(coarse, name), rtol=2e-4, err_msg=name)
    for shown in SHOWN[1:]:
        again = theory.curves_and_times(problem, shown, tolerance=1e-5)[1]
        for name in TIME_NAMES:
            np.testing.assert_allclose(getattr(again, name), getattr(whole, name), rtol=1e-7, err_msg=f"{name}, {shown}")


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GradientDescent(0.05), HeavyBall(0.02, 0.5)], ids=["descent", "momentum"])
def test_discrete_rules_come_near_the_flow(rule: HeavyBall) -> None:
    """Small steps: the flow, sped up by 1/(1 - momentum)."""
    problem = example("p")
    flow, found = theory.times(problem, tolerance=1e-5), theory.times(problem, rule=rule, tolerance=1e-5)
    for name in TIME_NAMES:
        np.testing.assert_allclose(getattr(found, name) / (1 - rule.momentum), getattr(flow, name), rtol=0.05, err_msg=name)


@pytest.mark.slow
def test_two_routes_to_the_same_times(case_a: Problem) -> None:
    """Against root finding in the kernel itself."""
    plan = theory.plan_curves(case_a, tolerance=1e-7, gram_derivatives=False)
    with jax.enable_x64(True):
        exact = jax.jit(lambda p: theory.class_times(theory.curve_kernel(p, plan)))(case_a)
    found = theory.times(case_a, tolerance=1e-7)
    for name in TIME_NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=2e-5, err_msg=name)


def test_refusals() -> None:
    with pytest.raises(InputError, match="rule: Ridge has penalties and no training time"):
        theory.times(example("p"), rule=Ridge([0.1]))
    with pytest.raises(InputError, match="q: 1; allowed: 0 < q < 1"):
        theory.times(example("p"), q=1)
    with pytest.raises(InputError, match="taus: "):
        theory.curves_and_times(example("p"), [1.0, 0.5])
