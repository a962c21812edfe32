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
from rfdiff.theory import minibatch
from tests.tolerances import rejects

TAUS = np.array([0.5, 1.5, 5.0, 15.0, 30.0, 60.0])
TWO = Problem(MixtureLaw.isotropic([0.4, 0.6], [1.5, 0.4]), "tanh", 0.1, 2.0, 2.0)
ANISOTROPIC = MixtureLaw([0.6, 0.4], [[2.4, 0.2], [0.2, 1.4]], [0.5, 0.5], np.zeros((2, 2)))
# of these, class sizes are whole at d and at d/2: a rounded one would be a deviation of order 1/n_c
REWEIGHTED = dataclasses.replace(TWO, mixture=MixtureLaw.isotropic([0.25, 0.75], [1.5, 0.4]), loss_weights=np.array([0.7, 0.3]))
THREE = Problem(
    MixtureLaw([0.5, 0.25, 0.25], [[2.4, 0.2, 1.0], [0.2, 1.4, 0.6]], [0.5, 0.5], np.zeros((3, 3))),
    "tanh", 0.2, 2.0, 2.0, loss_weights=[0.2, 0.2, 0.6],
)  # fmt: skip
CASES: dict[str, tuple[Problem, MinibatchSGD]] = {
    "two classes": (TWO, MinibatchSGD(0.5, 0.5)),
    "one class": (Problem(MixtureLaw.isotropic([1.0], [1.2]), "erf", 0.2, 2.0, 1.5), MinibatchSGD(0.5, 0.5)),
    "two draws": (dataclasses.replace(TWO, noise_draws=2), MinibatchSGD(0.5, 0.5)),
    "momentum": (TWO, MinibatchSGD(0.5, 1.0, momentum=0.6)),
    "averaged": (TWO, MinibatchSGD(0.5, 0.25, averaging=0.9, weight_decay=0.02)),
    "anisotropic": (Problem(ANISOTROPIC, "tanh", 0.2, 2.0, 1.5), MinibatchSGD(0.5, 0.5)),
    "balanced": (REWEIGHTED, MinibatchSGD(0.5, 0.5, sampling="balanced")),
    "weighted": (REWEIGHTED, MinibatchSGD(0.5, 0.75, sampling="weighted")),
    "weighted, two draws": (dataclasses.replace(REWEIGHTED, noise_draws=2), MinibatchSGD(0.5, 0.75, sampling="weighted")),
    "balanced, three classes": (THREE, MinibatchSGD(0.5, 0.5, momentum=0.5, averaging=0.8, sampling="balanced")),
    "weighted, three classes": (THREE, MinibatchSGD(0.5, 0.75, sampling="weighted")),
}
D, SEEDS = 48, 16
# where curves move less, or scatter more
MORE_SEEDS = {"one class": 48, "anisotropic": 32, "weighted, two draws": 48, "balanced, three classes": 40, "weighted, three classes": 64}
NAMES = [name if name == "two classes" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


@functools.cache
def networks(name: str) -> tuple[LearningCurves, LearningCurves]:
    (problem, rule), (large, small) = CASES[name], jax.random.split(jax.random.key(5))
    seeds = MORE_SEEDS.get(name, SEEDS)
    run = functools.partial(simulation.learning_curves, problem, TAUS, num_seeds=seeds, rule=rule)
    return run(d=D, key=large), run(d=D // 2, key=small)


def accepts(name: str, rule: Rule | None = None, exchanged: bool = False, problem: Problem | None = None) -> None:
    asked, own = CASES[name]
    curves = theory.learning_curves(problem or asked, TAUS, rule=own if rule is None else rule, tolerance=1e-5)
    if exchanged:
        names = ("train_loss", "test_loss")
        curves = dataclasses.replace(curves, **{key: getattr(curves, key)[:, ::-1] for key in names})
    verdict = assess(curves, *networks(name))
    assert verdict.agrees, verdict


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_theory_agrees_with_runs_of_sgd(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, rule = CASES[name]
    accepts(name)
    rejects(lambda: accepts(name, rule.descent))  # without the noise
    rejects(lambda: accepts(name, dataclasses.replace(rule, batch_per_dimension=2 * float(rule.batch_per_dimension))))
    if name != "one class":
        rejects(lambda: accepts(name, exchanged=True))
    if problem.loss_weights is None:
        return
    rejects(lambda: accepts(name, dataclasses.replace(rule, sampling="uniform"), problem=dataclasses.replace(problem, loss_weights=None)))
    other = {"balanced": "weighted", "weighted": "balanced"}[rule.sampling]
    rejects(lambda: accepts(name, dataclasses.replace(rule, sampling=other)))
    monkeypatch.setattr(minibatch, "draw_weights", lambda problem, rule: np.asarray(problem.mixture.weights))
    rejects(lambda: accepts(name))  # noise of the class fractions
