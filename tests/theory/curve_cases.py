"""Problems that compile fast, and the one grid of training times, which the tests of learning curves share."""

import math
from typing import Any

import numpy as np

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem

# one grid for all tests of curves, so that they share compiled code: it holds the times of the tables, both limits, and 4 points a decade
TAUS = np.concatenate([[1e-4, 1e-3], np.geomspace(1e-2, 1e4, 25), [1e9, math.inf]])


def with_(problem: Problem, **changes: Any) -> Problem:
    fields = ("mixture", "activation", "t", "psi_p", "psi_n", "noise_draws", "loss_weights")
    return Problem(**{name: changes.get(name, getattr(problem, name)) for name in fields})


def two_classes(draws: float = math.inf, **changes: Any) -> Problem:
    """Centred classes of different variance: a problem that compiles fast."""
    return with_(Problem(MixtureLaw.isotropic([0.65, 0.35], [1.4, 0.5]), "tanh", 0.15, 2.2, 1.6, draws), **changes)


def one_class(draws: float = math.inf, **changes: Any) -> Problem:
    return with_(Problem(MixtureLaw.isotropic([1.0], [1.2]), "tanh", 0.15, 2.2, 1.6, draws), **changes)
