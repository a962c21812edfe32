"""What a design may change, as logarithms of factors: loss weights, samples of each class, features; and the stop time.

The coordinates x (2K + 1) of a problem's neighbours are log factors on the K loss weights (before they are normalised), on the K numbers
of samples n_c, and on ψ_p. One program serves every choice of levers: what may not move has no room to.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.value_types import as_number, is_concrete

LEVERS = ("loss_weights", "stop_time", "psi_p", "samples_C")
WIDEST = 7.0  # natural logarithms by which the ratio of two loss weights may change


@dataclasses.dataclass(frozen=True)
class Levers:
    """What may be changed.

    Args:
        loss_weights: whether the weights of the classes in the training loss may be.
        stop_time: whether training may stop at any time.
        psi_p: whether the number of features may be, by at most `factor` in either direction.
        samples: classes that may get more samples, up to `factor` times as many.
        factor: that factor, > 1.
    """

    loss_weights: bool = True
    stop_time: bool = True
    psi_p: bool = False
    samples: tuple[int, ...] = ()
    factor: float = 4.0

    def room(self, problem: Problem) -> Float[np.ndarray, "X 2"]:
        """(2K+1, 2) lower and upper bounds of x; both 0 where nothing may move. The largest loss weight is the unit of the others."""
        k, room = problem.num_classes, np.zeros((2 * problem.num_classes + 1, 2))
        weights = np.asarray(problem.training_weights)
        if self.loss_weights and k > 1:
            moving = (np.arange(k) != np.argmax(weights)) & (weights > 0)
            room[:k][moving] = [-WIDEST, WIDEST]
        room[[k + c for c in self.samples], 1] = np.log(self.factor)
        if self.psi_p:
            room[-1] = [-np.log(self.factor), np.log(self.factor)]
        return room

    def text(self) -> str:
        """The levers in words."""
        named = {"loss_weights": self.loss_weights, "stop_time": self.stop_time, "psi_p": self.psi_p}
        return ", ".join([*(name for name, may in named.items() if may), *(f"samples_{c}" for c in self.samples)])


@dataclasses.dataclass(frozen=True)
class Setting:
    """A problem and when its training stops.

    Args:
        problem: the problem, with its loss weights given.
        tau: stop time; inf for convergence.
    """

    problem: Problem
    tau: float

    @property
    def samples(self) -> Float[np.ndarray, " K"]:
        """(K,) samples of each class over d."""
        return float(self.problem.psi_n) * np.asarray(self.problem.mixture.weights)


def levers_of(names: Sequence[str], num_classes: int, factor: float = 4.0) -> Levers:
    """Levers by their names.

    Args:
        names: of `LEVERS`, with the number of a class for C.
        num_classes: K.
        factor: largest change of a number of samples or features, > 1.

    Raises:
        InputError: no name, an unknown one, a class that is not there, or a factor out of range.
    """
    samples = {f"samples_{c}": c for c in range(num_classes)}
    unknown = [name for name in names if name not in (*LEVERS[:3], *samples)]
    if unknown or not names:
        raise InputError(f"levers: {', '.join(unknown) or 'none given'}; allowed: {', '.join((*LEVERS[:3], *samples))}")
    if not 1 < as_number(factor) <= 1000:
        raise InputError(f"factor: {factor!r}; allowed: 1 < factor <= 1000")
    chosen = tuple(c for name, c in samples.items() if name in names)
    return Levers("loss_weights" in names, "stop_time" in names, "psi_p" in names, chosen, float(factor))


def moved(problem: Problem, x: Float[np.ndarray, " X"] | Float[Array, " X"]) -> Problem:
    """The neighbour of a problem at coordinates x (2K+1), which may be traced; its loss weights are given, as numbers.

    Without weights of its own a problem has those of its samples, which follow them.
    """
    k, xp = problem.num_classes, np if is_concrete(x) else jnp
    samples = problem.psi_n * xp.asarray(problem.mixture.weights) * xp.exp(x[k : 2 * k])
    psi_n = samples.sum()
    fractions = samples / psi_n
    weights = (fractions if problem.loss_weights is None else xp.asarray(problem.loss_weights)) * xp.exp(x[:k])
    law = dataclasses.replace(problem.mixture, weights=fractions)
    number = float if is_concrete(x) else jax.numpy.asarray
    return dataclasses.replace(
        problem, mixture=law, psi_n=number(psi_n), psi_p=number(problem.psi_p * xp.exp(x[-1])), loss_weights=weights / weights.sum()
    )
