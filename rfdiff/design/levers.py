"""What a design may change, as logarithms of factors: loss weights, samples of each class, features, the numbers of SGD; the stop time.

The coordinates x (2K + 4) are log factors on the K loss weights (before they are normalised), on the K numbers of samples n_c, on ψ_p, and
on step, batch and memory of minibatch SGD. One program serves every choice of levers: what may not move has no room to.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.value_types import as_number, is_concrete

OF_RULE = ("step", "batch", "averaging")  # of minibatch SGD, in the order of their coordinates
LEVERS = ("loss_weights", "stop_time", "psi_p", *OF_RULE, "samples_C")
WIDEST = 7.0  # natural logarithms by which the ratio of two loss weights may change
STEP_RANGE = 100.0  # factor by which the step of SGD may change, in either direction
LONGEST = 1e4  # steps that an average remembers, at most


@dataclasses.dataclass(frozen=True)
class Levers:
    """What may be changed.

    Args:
        loss_weights: whether the weights of the classes in the training loss may be.
        stop_time: whether training may stop at any time.
        psi_p: whether the number of features may be, by at most `factor` in either direction.
        samples: classes that may get more samples, up to `factor` times as many.
        factor: that factor, > 1; the batch of SGD changes by no more than it either.
        step, batch, averaging: whether these numbers of minibatch SGD may be; the step by a factor of 100, the memory of the average up to
            10^4 steps.
    """

    loss_weights: bool = True
    stop_time: bool = True
    psi_p: bool = False
    samples: tuple[int, ...] = ()
    factor: float = 4.0
    step: bool = False
    batch: bool = False
    averaging: bool = False

    @property
    def of_rule(self) -> tuple[str, ...]:
        """Those of minibatch SGD that may be changed."""
        return tuple(name for name in OF_RULE if getattr(self, name))

    def room(self, problem: Problem, rule: GradientFlow | MinibatchSGD = GradientFlow()) -> Float[np.ndarray, "X 2"]:
        """(2K+4, 2) lower and upper bounds of x; both 0 where nothing may move. The largest loss weight is the unit of the others."""
        k, room = problem.num_classes, np.zeros((2 * problem.num_classes + 4, 2))
        weights = np.asarray(problem.training_weights)
        if self.loss_weights and k > 1:
            moving = (np.arange(k) != np.argmax(weights)) & (weights > 0)
            room[:k][moving] = [-WIDEST, WIDEST]
        room[[k + c for c in self.samples], 1] = np.log(self.factor)
        if self.psi_p:
            room[2 * k] = [-np.log(self.factor), np.log(self.factor)]
        if isinstance(rule, MinibatchSGD):
            memory = np.log(_memory(rule))
            widest = {"step": np.log([1 / STEP_RANGE, STEP_RANGE]), "batch": np.log([1 / self.factor, self.factor])}
            widest["averaging"] = np.array([-memory, np.log(LONGEST) - memory])
            for i, name in enumerate(OF_RULE):
                room[2 * k + 1 + i] = widest[name] if getattr(self, name) else 0
        return room

    def text(self) -> str:
        """The levers in words."""
        return ", ".join([*(name for name in LEVERS[:-1] if getattr(self, name)), *(f"samples_{c}" for c in self.samples)])


@dataclasses.dataclass(frozen=True)
class Setting:
    """A problem, how it is trained, and when the training stops.

    Args:
        problem: the problem, with its loss weights given.
        tau: stop time; inf for convergence.
        rule: training rule.
    """

    problem: Problem
    tau: float
    rule: GradientFlow | MinibatchSGD = GradientFlow()

    @property
    def samples(self) -> Float[np.ndarray, " K"]:
        """(K,) samples of each class over d."""
        return float(self.problem.psi_n) * np.asarray(self.problem.mixture.weights)


def levers_of(names: Sequence[str], num_classes: int, factor: float = 4.0) -> Levers:
    """Levers by their names.

    Args:
        names: of `LEVERS`, with the number of a class for C.
        num_classes: K.
        factor: largest change of a number of samples or features, or of a batch, > 1.

    Raises:
        InputError: no name, an unknown one, a class that is not there, or a factor out of range.
    """
    samples = {f"samples_{c}": c for c in range(num_classes)}
    unknown = [name for name in names if name not in (*LEVERS[:-1], *samples)]
    if unknown or not names:
        raise InputError(f"levers: {', '.join(unknown) or 'none given'}; allowed: {', '.join((*LEVERS[:-1], *samples))}")
    if not 1 < as_number(factor) <= 1000:
        raise InputError(f"factor: {factor!r}; allowed: 1 < factor <= 1000")
    chosen = tuple(c for name, c in samples.items() if name in names)
    named = {name: name in names for name in LEVERS[:-1]}
    return Levers(**named, samples=chosen, factor=float(factor))


def moved(problem: Problem, x: Float[np.ndarray, " X"] | Float[Array, " X"]) -> Problem:
    """The neighbour of a problem at coordinates x (2K+4), which may be traced; its loss weights are given, as numbers.

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
        problem, mixture=law, psi_n=number(psi_n), psi_p=number(problem.psi_p * xp.exp(x[2 * k])), loss_weights=weights / weights.sum()
    )


def moved_rule(rule: MinibatchSGD, x: Float[np.ndarray, " X"]) -> MinibatchSGD:
    """SGD with the step, batch and average of coordinates x (2K+4); an average over one step is none."""
    step, batch, memory = np.exp(x[-3:])
    memory *= _memory(rule)
    return dataclasses.replace(
        rule,
        step_size=float(rule.step_size) * step,
        batch_per_dimension=float(rule.batch_per_dimension) * batch,
        averaging=1 - 1 / memory if memory > 1 + 1e-9 else None,
    )


def _memory(rule: MinibatchSGD) -> float:
    """Number of steps 1/(1 - γ) that the average remembers, 1 without one."""
    return 1.0 if rule.averaging is None else 1 / (1 - float(rule.averaging))
