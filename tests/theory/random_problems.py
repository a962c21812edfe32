"""Random problems over everything that makes closed forms hard, and the losses of each by a contour and neuron types laid otherwise."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.activation import Activation
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow
from rfdiff.theory import contour_losses, limit_diverges, solutions, type_choice
from rfdiff.theory.contour import Span
from rfdiff.theory.contour_ladder import Question
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.neuron_types import by_lattice, gram_root
from rfdiff.theory.support import bounds
from rfdiff.theory.training_times import LEAST, Times, types_radius

ACTIVATIONS: tuple[str | Activation, ...] = (
    "tanh", "erf", "relu", "softplus", "gelu", "sin",
    Activation("arctan", jnp.arctan), Activation("cos", jnp.cos), Activation("abs", jnp.abs, kinks=(0.0,)),
)  # fmt: skip
SHARES = (0.17, 0.13, 0.15, 0.13, 0.13, 0.13, 0.06, 0.05, 0.05)


def random_problem(seed: int) -> Problem:
    """m in {1, 2, 5, ∞}, t log-uniform in 1e-3..1, ψ log-uniform in 0.05..50, up to 4 classes of fractions from 1e-4 on, up to 3 groups of
    directions, centroids of any rank with a Gram norm of up to 10.
    """
    rng = np.random.default_rng(40_000 + seed)
    activation = ACTIVATIONS[int(rng.choice(len(ACTIVATIONS), p=SHARES))]
    draws = float(rng.choice([1, 2, 5, math.inf], p=[0.2, 0.2, 0.2, 0.4]))
    t = float(10 ** rng.uniform(-3, 0))
    psi_p, psi_n = (float(x) for x in 0.05 * 1000 ** rng.random(2))
    k = int(rng.integers(1, 5))
    weights = rng.dirichlet(np.ones(k))
    if k > 1 and rng.random() < 0.4:
        weights[0] = 10 ** rng.uniform(-4, -1) * (1 - 1e-9)
        weights[1:] *= (1 - weights[0]) / weights[1:].sum()
    weights = np.maximum(weights, 1e-4)
    groups = int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    eigenvalues = 10 ** rng.uniform(-1.5 if groups > 1 else -1, 0.7, (groups, k))
    shares = rng.dirichlet(np.ones(groups)) if groups > 1 else np.ones(1)
    rank = int(rng.integers(0, k + 1))
    gram = np.zeros((k, k))
    if rank:
        root = rng.normal(size=(k, rank))
        gram = root @ root.T
        gram *= 10 ** rng.uniform(-1.5, 1) / np.linalg.norm(gram, 2)
    return Problem(MixtureLaw(weights / weights.sum(), eigenvalues, shares, gram), activation, t, psi_p, psi_n, draws)


class Reference(NamedTuple):
    """Losses (2, T, K) of the same problem and their error."""

    losses: np.ndarray
    error: float


def reference(problem: Problem, curves: LearningCurves, level: int, tolerance: float) -> Reference:
    """Losses on a contour down to the bound of the spectrum, with nodes for a tolerance, neuron types at a level of refinement: of other
    scrambles, where they are Sobol points.
    """
    rule, kappa = GradientFlow(), float(problem.kappa)
    taus, clock = rule.schedule(curves.taus, kappa)
    with jax.enable_x64(True):
        radius = types_radius(problem, 1e-9)[0]

        def on(eq: Equivalent) -> Reference:
            span = Span(*bounds(eq))
            times = Times.within_reach(taus, span, rule, kappa, limit_diverges(problem), 1e-6)
            question = Question(rule, kappa, times.asked, times.clock(rule, clock, kappa), tolerance)
            values = contour_losses.evaluate(eq, question, question.lay(span))
            assert values.residual < 1e-8
            return Reference(*times.read(values.losses, values.error + values.missing, 1e-6))

        if not gram_root(problem.mixture.centroid_gram).shape[1] or by_lattice(problem, radius):
            return on(equivalent(problem, level, radius, LEAST))
        few, penalties = equivalent(problem, 0, radius), np.geomspace(1e-3, 10, 10)
        controls = type_choice._controls(few, solutions.anywhere(few, -penalties), penalties)
        scrambles = [on(type_choice._set(problem, level, radius, 100 + i, controls)) for i in range(4)]
        return Reference(np.mean([one.losses for one in scrambles], 0), max(one.error for one in scrambles))
