"""Ten networks of dimension at most 100 whose curves are committed in float64: what a device is checked against.

Between them they vary the activation, noise draws m, ψ_p, ψ_n, t, the training rule, the number of classes and the solver. All stay clear
of the cases that float32 is known to lose (p near n m, τ far beyond 1/(κ λ_min) at small t), so that one limit fits each.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from rfdiff import GradientDescent, GradientFlow, HeavyBall, MixtureLaw, Problem, Ridge, simulation

TAUS = np.append(np.geomspace(0.1, 1e4, 11), np.inf)
TWO = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
ONE = MixtureLaw.isotropic([1.0], [1.0])
THREE = MixtureLaw.isotropic([0.5, 0.3, 0.2], [1.0, 0.5, 2.0], np.diag([0.5, 1.0, 0.2]))
FIVE = MixtureLaw.isotropic([0.2] * 5, [0.4, 0.7, 1.0, 1.3, 1.6])
UNEVEN = MixtureLaw([0.6, 0.4], [[2.0, 0.3], [0.5, 1.5]], [0.25, 0.75], [[0.3, 0.0], [0.0, 0.3]])


class Case(NamedTuple):
    """A network to train: arguments of `simulation.run_seeds`, and how far float32 may be from float64."""

    problem: Problem
    d: int
    taus: Any = TAUS
    rule: Any = GradientFlow()
    solver: str = "exact"
    limit: float = 1e-4

    def losses(self, dtype: str) -> np.ndarray:
        """(2, T, K) train and test losses."""
        found = simulation.run_seeds(
            self.problem, self.taus, d=self.d, key=jax.random.key(7), seeds=[0], rule=self.rule, dtype=dtype, solver=self.solver
        )
        return np.stack([found.train_loss[0], found.test_loss[0]])


def problem(law: MixtureLaw, activation: str, t: float, psi_p: float, psi_n: float, draws: float = math.inf) -> Problem:
    """A problem in one line."""
    return Problem(law, activation, t=t, psi_p=psi_p, psi_n=psi_n, noise_draws=draws)


CASES = {
    "tanh, case A": Case(problem(TWO, "tanh", 0.1, 4, 3), 64),
    "relu, one class, m = 1": Case(problem(ONE, "relu", 0.5, 2, 6, 1), 50),
    "erf, K = 3, heavy ball": Case(problem(THREE, "erf", 1.0, 3, 2), 48, TAUS[:-1], HeavyBall(0.02, 0.9)),
    "softplus, unequal directions, gradient descent": Case(problem(UNEVEN, "softplus", 0.3, 3, 4), 40, TAUS[:-1], GradientDescent(0.01)),
    "gelu, m = 4": Case(problem(TWO, "gelu", 0.2, 2, 3, 4), 60),
    "sin, wide": Case(problem(TWO, "sin", 0.1, 16, 4), 32),
    "tanh, K = 5, ridge": Case(problem(FIVE, "tanh", 0.2, 4, 5), 80, None, Ridge(np.geomspace(10, 1e-3, 9))),
    "erf, t = 0.01": Case(problem(TWO, "erf", 0.01, 4, 3), 40, TAUS[:-1]),
    "tanh, krylov": Case(problem(TWO, "tanh", 0.1, 20, 4), 50, TAUS[:-3], GradientFlow(), "krylov"),
    "relu, m = 2, krylov-matrix-free": Case(problem(THREE, "relu", 0.4, 6, 8, 2), 100, TAUS[:-3], GradientFlow(), "krylov-matrix-free"),
}
