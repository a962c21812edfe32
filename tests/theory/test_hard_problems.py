"""Problems on which closed forms went wrong in silence: each is right now, or says how far it is off.

Truth is the same theory on contours that are laid otherwise, exact end values, or real networks.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.activation import Activation
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, HeavyBall
from rfdiff.theory import learning_curves, limit_diverges, spectrum, time_grid
from tests.tolerances import rejects

TAUS = np.array([0.1, 1, 10, 100, 1e3, 1e4, 1e6, math.inf])


def two_classes(activation: object = "tanh", draws: float = math.inf, psi_p: float = 2.0, psi_n: float = 2.0) -> Problem:
    return Problem(MixtureLaw.isotropic([0.6, 0.4], [1.4, 0.5]), activation, 0.3, psi_p, psi_n, draws)  # type: ignore[arg-type]


def losses(curves: LearningCurves) -> np.ndarray:
    return np.stack([curves.train_loss, curves.test_loss])


@pytest.mark.slow
def test_a_rare_class_interpolates_like_the_others() -> None:
    """One sample in 1200 is of class 0, with its own scale: p > n m, so every train loss ends at 0."""
    law = MixtureLaw(
        [0.0008112, 0.9991888],
        [[60, 0.013517], [15.6143, 0.0078137], [60, 0.0353945]],
        [0.5242384, 0.0427139, 0.4330477],
        [[0.0784106, -0.0469761], [-0.0469761, 0.0620405]],
    )
    curves = learning_curves(Problem(law, "sin", t=0.005624109, psi_p=48.730564, psi_n=0.13066113, noise_draws=2), TAUS)
    assert curves.error_estimate <= 1e-6
    assert np.max(abs(curves.train_loss[-2:])) < 1e-6
    assert np.all(curves.train_loss[:5] > 0.05)


@pytest.mark.parametrize("activation", [pytest.param("tanh", marks=pytest.mark.thorough), pytest.param("softplus", marks=pytest.mark.slow)])
def test_neurons_far_from_the_typical_one_lie_inside_the_contour(activation: str) -> None:
    problem = Problem(MixtureLaw.isotropic([1.0], [0.3], [[1.0]]), activation, t=0.1, psi_p=2.0, psi_n=4.0, noise_draws=2)
    rough, fine = (learning_curves(problem, TAUS, tolerance=tolerance) for tolerance in (1e-6, 1e-8))
    assert rough.error_estimate <= 1e-6
    assert np.max(abs(losses(rough) - losses(fine))) < 3 * rough.error_estimate + fine.error_estimate


@pytest.mark.thorough
def test_at_the_interpolation_threshold_with_several_draws() -> None:
    """p = n m: all finite times are there, the limit is not, and no grid pretends that it is."""
    law = MixtureLaw.isotropic([0.6, 0.4], [1.4, 0.5])
    problem = Problem(law, "gelu", t=0.022, psi_p=0.36, psi_n=0.36 / 5, noise_draws=5)
    curves = learning_curves(problem, TAUS)
    assert curves.error_estimate <= 1e-6
    assert np.all(np.isfinite(losses(curves)[:, :-1])) and np.all(np.isnan(losses(curves)[:, -1]))
    assert np.all(np.diff(curves.total("train_loss")[:-1]) < 0)
    assert limit_diverges(problem) and np.all(np.isfinite(time_grid(problem, num_times=10)))
    assert not limit_diverges(Problem(law, "gelu", t=0.022, psi_p=0.361, psi_n=0.36 / 5, noise_draws=5))


@pytest.mark.thorough
def test_a_gap_between_0_and_the_support_is_no_support() -> None:
    """p = 0.94 n: points far below the lower edge are out of reach of the free resolvent, and must not count as support down to 0."""
    law = MixtureLaw([1.0], [[0.382312], [2.82065]], [0.52614, 0.47386], [[0.0]])
    problem = Problem(law, "tanh", t=0.00319101, psi_p=0.944638, psi_n=1.00561, noise_draws=1)
    curves = learning_curves(problem, TAUS)
    assert curves.error_estimate <= 1e-6 and np.all(np.isfinite(losses(curves)))
    assert 10 < curves.test_loss.max() < 20
    assert float(time_grid(problem, num_times=10)[-2]) < 1e8


def test_times_near_the_largest_number_are_convergence() -> None:
    curves = learning_curves(two_classes(), [1.0, 1e300, 1e308, math.inf])
    for late in (1, 2):
        np.testing.assert_allclose(losses(curves)[:, late], losses(curves)[:, -1], rtol=0, atol=1e-12)
    rejects(lambda: np.testing.assert_allclose(losses(curves)[:, 0], losses(curves)[:, -1], rtol=0, atol=1e-2))


def test_the_filter_of_the_flow_does_not_overflow() -> None:
    with jax.enable_x64(True):
        z = jnp.array([1e-3 + 1e-3j, 2.0 + 1.5j, 1e-250 + 0j])
        f = np.asarray(GradientFlow().filter(z, np.array([1e-300, 1.0, 1e300, np.inf]), 0.4))
    exact = -np.expm1(-0.4 * np.asarray(z)[:2]) / np.asarray(z)[:2]
    np.testing.assert_allclose(f[1, :2], exact, rtol=1e-14)
    np.testing.assert_allclose(f[0], 0.4e-300, rtol=1e-14)
    np.testing.assert_allclose(f[2:, :2], 1 / np.broadcast_to(z[:2], (2, 2)), rtol=1e-14)


@pytest.mark.thorough
def test_momentum_near_one() -> None:
    """A thin contour around modes that oscillate for thousands of steps, against a thick one that serves the first hundred."""
    rule = HeavyBall(0.1, 0.999)
    curves = learning_curves(two_classes(), [0.1, 1.0, 10.0, 100.0, 1e4, math.inf], rule=rule)
    early = learning_curves(two_classes(), [0.1, 1.0, 10.0], rule=rule)
    assert curves.error_estimate <= 1e-6 and early.error_estimate <= 1e-6
    np.testing.assert_allclose(losses(curves)[:, :3], losses(early), rtol=0, atol=2e-6)
    converged = learning_curves(two_classes(), [1.0, 1e300, 1e308, math.inf])
    np.testing.assert_allclose(losses(curves)[:, -2:], losses(converged)[:, -2:], rtol=0, atol=2e-6)
    assert np.max(abs(losses(curves)[:, 3] - losses(curves)[:, 4])) > 0.05, "at τ = 100 they still oscillate"


EVEN = {
    "square": lambda x: x**2,
    "bell": lambda x: jnp.exp(-(x**2) / 2),
    "abs": Activation("abs", jnp.abs, kinks=(0.0,)),
    "cos": jnp.cos,
}


@pytest.mark.parametrize("name", [name if name == "square" else pytest.param(name, marks=pytest.mark.slow) for name in EVEN])
def test_even_activations_learn_nothing_of_centred_classes(name: str) -> None:
    """Their linear part is 0: with averaged noise V vanishes, and every loss stays 1."""
    curves = learning_curves(two_classes(EVEN[name]), TAUS)
    np.testing.assert_allclose(losses(curves), 1, rtol=0, atol=1e-12)
    assert curves.error_estimate <= 1e-6


@pytest.mark.slow
def test_even_activations_memorise_the_noise_they_are_shown() -> None:
    """With two draws the network fits their noise: theory against networks at d and 2d."""
    problem, taus = two_classes(EVEN["bell"], draws=2), [1.0, 30.0, 1000.0]
    predicted = losses(learning_curves(problem, taus))

    def deviation(d: int) -> float:
        networks = simulation.learning_curves(problem, taus, d=d, key=jax.random.key(3), num_seeds=8)
        return float(np.max(abs(losses(networks) - predicted)))

    deviations = deviation(40), deviation(80)
    assert deviations[1] < 0.05 and predicted[1, -1].max() > 1.3
    assert deviations[1] < 0.8 * deviations[0]


def test_little_noise_is_no_failure() -> None:
    curves = learning_curves(Problem(two_classes().mixture, "sin", t=1e-6, psi_p=2.0, psi_n=3.0), [1.0, 1e4, math.inf])
    assert np.all(np.isfinite(losses(curves))) and curves.error_estimate <= 1e-6


def test_no_structure_of_single_neuron_types_shows_in_a_spectrum(case_a: Problem) -> None:
    """Unbounded neuron types have no sharp edge: the quantile that stands for one does not depend on how finely they are drawn."""
    found = spectrum(case_a)
    assert np.all(found.eigenvalues * found.density > 1e-3)
    assert found.support[0, 0] == pytest.approx(0.01465, rel=0.01)
    rise = found.density[: 1 + int(np.argmax(found.density[:200]))]
    assert np.all(rise > 0.5 * np.maximum.accumulate(rise)), "one rise from the edge, no spikes"
