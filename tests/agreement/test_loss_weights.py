"""Theory and networks that weigh their classes in the loss, and the verdict on theories that weigh them otherwise."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.agreement import assess
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from tests.tolerances import rejects

TAUS = np.array([1.0, 10.0, 100.0, 1000.0, 1e5])
D, SEEDS = 48, 12
PROBLEMS = {
    "averaged": Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", 0.2, 2.0, 2.0, loss_weights=[0.3, 0.7]),
    "drawn": Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", 0.2, 2.0, 2.0, 2, [0.3, 0.7]),
    "untrained": Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", 0.2, 2.0, 2.0, 2, [1.0, 0.0]),
    "three": Problem(
        MixtureLaw([0.5, 0.3, 0.2], [[2.0, 0.3, 1.0], [0.5, 1.2, 0.4]], [0.5, 0.5], np.zeros((3, 3))),
        "erf", 0.2, 2.0, 2.0, math.inf, [0.2, 0.2, 0.6],
    ),
}  # fmt: skip
NAMES = [
    "drawn",
    pytest.param("untrained", marks=pytest.mark.thorough),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("averaged", "three")),
]


@functools.cache
def simulated(name: str) -> tuple[LearningCurves, LearningCurves]:
    """Networks at D and D/2, the same for all siblings."""
    large, small = jax.random.split(jax.random.key(5))
    run = functools.partial(simulation.learning_curves, PROBLEMS[name], TAUS, num_seeds=SEEDS)
    return run(d=D, key=large), run(d=D // 2, key=small)


def agrees(name: str, problem: Problem) -> None:
    verdict = assess(theory.learning_curves(problem, TAUS, tolerance=1e-4), *simulated(name))
    assert verdict.conclusive
    assert verdict.agrees


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_theory_agrees_with_weighted_networks(name: str) -> None:
    problem = PROBLEMS[name]
    agrees(name, problem)
    law, weights = problem.mixture, np.asarray(problem.loss_weights)
    rejects(lambda: agrees(name, dataclasses.replace(problem, loss_weights=None)))
    rejects(lambda: agrees(name, dataclasses.replace(problem, loss_weights=weights[::-1])))
    if np.all(weights > 0):
        exchanged = dataclasses.replace(law, weights=weights)
        rejects(lambda: agrees(name, dataclasses.replace(problem, mixture=exchanged, loss_weights=law.weights)))
        rejects(lambda: agrees(name, Problem(exchanged, problem.activation, 0.2, 2.0, 2.0, problem.noise_draws)))
