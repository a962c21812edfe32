"""How simulations approach the theory: the deviation falls as 1/d, with the slope measured and its error stated."""

import functools

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from tests.tolerances import rejects

# little data: the finite-size term at this time is some 30 times the standard error
PROBLEM = Problem(MixtureLaw.isotropic([1.0], [1.0]), "erf", 0.1, 1.5, 0.5)
TAUS = np.array([100.0, 1000.0])
SIZES = np.array([20, 40, 80])


@functools.cache
def simulated(seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Test loss at the second time and its standard error, at each size, with seeds · (20/d) networks."""
    runs = [simulation.learning_curves(PROBLEM, TAUS, d=int(d), key=jax.random.key(int(d)), num_seeds=seeds * 20 // int(d)) for d in SIZES]
    return np.array([run.test_loss[1, 0] for run in runs]), np.array([run.test_loss_stderr[1, 0] for run in runs])


def slope(problem: Problem, seeds: int) -> tuple[float, float]:
    """Weighted fit of log |simulation - theory| against log d: the slope and its standard error."""
    loss, stderr = simulated(seeds)
    deviation = abs(loss - theory.learning_curves(problem, TAUS).test_loss[1, 0])
    relative = stderr / deviation
    x, y, weight = np.log(SIZES), np.log(deviation), 1 / relative**2
    centre = (weight @ x) / weight.sum()
    spread = weight @ (x - centre) ** 2
    return float(weight @ ((x - centre) * y) / spread), float(1 / np.sqrt(spread))


def agrees(problem: Problem, seeds: int, error_bar: float) -> None:
    value, error = slope(problem, seeds)
    assert error < error_bar, f"no power: the slope is known to {error:.2g} only"
    # 0.05: the next order, 1/d², tilts the line over these sizes
    assert abs(value + 1) < 3 * error + 0.05, f"slope {value:.3f} +- {error:.3f}"


@pytest.mark.parametrize(
    ("seeds", "error_bar"), [pytest.param(384, 0.08, marks=pytest.mark.slow), pytest.param(1920, 0.035, marks=pytest.mark.slow)]
)
def test_the_deviation_falls_as_one_over_d(seeds: int, error_bar: float) -> None:
    agrees(PROBLEM, seeds, error_bar)
    law = PROBLEM.mixture
    rejects(lambda: agrees(Problem(law, "erf", 0.1, 1.5, 0.52), seeds, error_bar))
    rejects(lambda: agrees(Problem(law, "erf", 0.1, 0.5, 1.5), seeds, error_bar))
