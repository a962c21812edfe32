"""The closed form of SGD meets networks trained on actual batches, and siblings that are a little wrong are rejected."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.agreement import assess
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD, Rule
from tests.tolerances import rejects

TAUS = np.array([0.5, 1.5, 5.0, 15.0, 30.0, 60.0])
TWO = Problem(MixtureLaw.isotropic([0.4, 0.6], [1.5, 0.4]), "tanh", 0.1, 2.0, 2.0)
ANISOTROPIC = MixtureLaw([0.6, 0.4], [[2.4, 0.2], [0.2, 1.4]], [0.5, 0.5], np.zeros((2, 2)))
CASES: dict[str, tuple[Problem, MinibatchSGD]] = {
    "two classes": (TWO, MinibatchSGD(0.5, 0.5)),
    "one class": (Problem(MixtureLaw.isotropic([1.0], [1.2]), "erf", 0.2, 2.0, 1.5), MinibatchSGD(0.5, 0.5)),
    "two draws": (dataclasses.replace(TWO, noise_draws=2), MinibatchSGD(0.5, 0.5)),
    "momentum": (TWO, MinibatchSGD(0.5, 1.0, momentum=0.6)),
    "averaged": (TWO, MinibatchSGD(0.5, 0.25, averaging=0.9, weight_decay=0.02)),
    "anisotropic": (Problem(ANISOTROPIC, "tanh", 0.2, 2.0, 1.5), MinibatchSGD(0.5, 0.5)),
}
D, SEEDS = 48, 16
NAMES = [name if name == "two classes" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@functools.cache
def networks(name: str) -> tuple[LearningCurves, LearningCurves]:
    (problem, rule), (large, small) = CASES[name], jax.random.split(jax.random.key(5))
    seeds = 48 if name == "one class" else SEEDS  # whose curves move less
    run = functools.partial(simulation.learning_curves, problem, TAUS, num_seeds=seeds, rule=rule)
    return run(d=D, key=large), run(d=D // 2, key=small)


def accepts(name: str, rule: Rule | None = None, exchanged: bool = False) -> None:
    problem, own = CASES[name]
    curves = theory.learning_curves(problem, TAUS, rule=own if rule is None else rule, tolerance=1e-5)
    if exchanged:
        names = ("train_loss", "test_loss")
        curves = dataclasses.replace(curves, **{key: getattr(curves, key)[:, ::-1] for key in names})
    verdict = assess(curves, *networks(name))
    assert verdict.agrees, verdict


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_theory_agrees_with_runs_of_sgd(name: str) -> None:
    _, rule = CASES[name]
    accepts(name)
    rejects(lambda: accepts(name, rule.descent))  # without the noise
    rejects(lambda: accepts(name, dataclasses.replace(rule, batch_per_dimension=2 * float(rule.batch_per_dimension))))
    if name != "one class":
        rejects(lambda: accepts(name, exchanged=True))
