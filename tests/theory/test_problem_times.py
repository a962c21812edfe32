"""Times of the closed form do not depend on the training times that are shown."""

import dataclasses

import jax
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, times
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, HeavyBall, Ridge
from tests.tolerances import rejects

EXAMPLE = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.4, 0.5]), "tanh", t=0.3, psi_p=2.0, psi_n=2.0)
# of case A, to the digits that a grid of 2,000 times and root finding in the kernel agree on
CASE_A = {"tau_gen": [3.08342, 9.17631], "tau_stop": [11.6712, 115.290], "tau_mem": [252.516, 310.280], "tau_opt": [2.80824, 9.35583]}


def assert_case_a(read: ClassTimes) -> None:
    for name, values in CASE_A.items():
        np.testing.assert_allclose(getattr(read, name), values, rtol=2e-4, err_msg=name)


@pytest.mark.thorough
def test_times_do_not_depend_on_what_is_shown(case_a: Problem) -> None:
    """Read from the curves shown, τ_mem was 28.5 for 252.5 and τ_stop 7.0 for 11.7."""
    for shown in ([0.1, 1.0, 10.0, 100.0], [1.0, 100.0, 1e6, np.inf]):
        curves, covering = theory.covering_curves(case_a, shown, tolerance=1e-5)
        np.testing.assert_array_equal(curves.taus, shown)
        assert_case_a(times(covering))
        rejects(lambda curves=curves: assert_case_a(times(curves)))  # type: ignore[misc]
        direct = theory.learning_curves(case_a, shown, tolerance=1e-5)
        np.testing.assert_allclose(curves.test_loss, direct.test_loss, atol=1e-5)


@pytest.mark.slow
def test_two_routes_to_the_same_times(case_a: Problem) -> None:
    """Against root finding in the kernel itself."""
    plan = theory.plan_curves(case_a, tolerance=1e-7, gram_derivatives=False)
    with jax.enable_x64(True):
        exact = jax.jit(lambda p: theory.class_times(theory.curve_kernel(p, plan)))(case_a)
    found = theory.times(case_a, tolerance=1e-7)
    for name in TIME_NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-4, err_msg=name)
    assert_case_a(found)


@pytest.mark.slow
def test_where_the_gap_diverges_there_is_no_memorisation_time() -> None:
    """p = n m: it had another value for every end of the grid; the other times exist."""
    found = theory.times(dataclasses.replace(EXAMPLE, noise_draws=1), tolerance=1e-4)
    assert np.all(np.isnan(found.tau_mem)) and "the test loss diverges" in found.reasons[TIME_NAMES.index("tau_mem")][0]
    np.testing.assert_allclose(found.tau_gen, [0.47474, 0.94427], rtol=1e-3)
    np.testing.assert_allclose(found.tau_stop, [1.90597, 6.3348], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GradientDescent(0.05), HeavyBall(0.02, 0.5)], ids=["descent", "momentum"])
def test_discrete_rules_come_near_the_flow(rule: HeavyBall) -> None:
    """Small steps: the flow, sped up by 1/(1 - momentum)."""
    flow, found = theory.times(EXAMPLE, tolerance=1e-5), theory.times(EXAMPLE, rule=rule, tolerance=1e-5)
    for name in TIME_NAMES:
        np.testing.assert_allclose(getattr(found, name) / (1 - rule.momentum), getattr(flow, name), rtol=0.05, err_msg=name)


def test_refusals() -> None:
    with pytest.raises(InputError, match="rule: Ridge has penalties and no training time"):
        theory.times(EXAMPLE, rule=Ridge([0.1]))
    with pytest.raises(InputError, match="q: 1; allowed: 0 < q < 1"):
        theory.times(EXAMPLE, q=1)
    with pytest.raises(InputError, match="taus: "):
        theory.covering_curves(EXAMPLE, [1.0, 0.5])
