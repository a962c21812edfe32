"""What a design found: the settings that serve a goal, what they cost, whether weights of the loss help at all, and the front."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from jaxtyping import Float

from rfdiff.design.levers import Setting, moved
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, labelled_dataset, read_attributes, static_attributes, values_of
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.value_types import static, value_type

if TYPE_CHECKING:
    import xarray as xr

HELPS = 0.1  # share of the goal that a lever must take off to count as help
SETTINGS = ("unchanged", "weights", "samples", "best")
OF_SGD = ("step_size", "batch", "averaging", "visited")  # what a proposal for minibatch SGD holds beside


@value_type
class Proposal(Labelled):
    """A design: four settings and a trade-off front (F settings, K classes).

    The settings are: the problem as it is; the best loss weights; the most samples of the class with the largest score error; the best use
    of all levers. All stop at their best time, unless the stop time is no lever.

    Args:
        goal: (4,) the number that was to be small, at each setting.
        tau: (4,) stop times.
        score_error: (4, K) score errors there.
        loss_weights: (4, K) weights of the classes in the training loss.
        samples: (4, K) samples of each class over d.
        psi_p: (4,) features over d.
        front_score_error, front_tau, front_loss_weights, front_samples, front_psi_p: the same (F, ...) on the front between the class
            with the largest score error and the mean of the others; the best setting for the former first, its error unchanged last.
        error_estimate: largest numerical error of a loss.
        what: the goal in words.
        levers: the levers in words.
        worst: class with the largest score error at the unchanged setting; of classes with the same, the one whose samples help most (of
            "learned before": the class to be learned).
        factor: largest change of a number of samples, features or a batch.
        step_size, batch, averaging: (4,) of minibatch SGD, None otherwise: η, B/d and the decay of the average a step, 0 without one.
        visited: (4,) samples over d that SGD visits up to the stop time, steps times batch: the price.
        front_step_size, front_batch, front_averaging, front_visited: the same (F,) on the front.
        budget: of visited samples over d, where there is one.
        sampling: how batches are drawn.
    """

    goal: Float[np.ndarray, " 4"]
    tau: Float[np.ndarray, " 4"]
    score_error: Float[np.ndarray, "4 K"]
    loss_weights: Float[np.ndarray, "4 K"]
    samples: Float[np.ndarray, "4 K"]
    psi_p: Float[np.ndarray, " 4"]
    front_score_error: Float[np.ndarray, "F K"]
    front_tau: Float[np.ndarray, " F"]
    front_loss_weights: Float[np.ndarray, "F K"]
    front_samples: Float[np.ndarray, "F K"]
    front_psi_p: Float[np.ndarray, " F"]
    error_estimate: float
    what: str = static()
    levers: str = static()
    worst: int = static()
    factor: float = static()
    step_size: Float[np.ndarray, " 4"] | None = None
    batch: Float[np.ndarray, " 4"] | None = None
    averaging: Float[np.ndarray, " 4"] | None = None
    visited: Float[np.ndarray, " 4"] | None = None
    front_step_size: Float[np.ndarray, " F"] | None = None
    front_batch: Float[np.ndarray, " F"] | None = None
    front_averaging: Float[np.ndarray, " F"] | None = None
    front_visited: Float[np.ndarray, " F"] | None = None
    budget: float | None = static(default=None)
    sampling: str | None = static(default=None)

    LABELS: ClassVar = {
        "goal": Label(("setting",), "the number that was to be small"),
        "tau": Label(("setting",), "stop time", "tau"),
        "score_error": Label(("setting", "class"), "squared distance to the exact score on the class, per coordinate"),
        "loss_weights": Label(("setting", "class"), "weight of the class in the training loss"),
        "samples": Label(("setting", "class"), "training samples of the class per dimension"),
        "psi_p": Label(("setting",), "features per dimension"),
        "front_score_error": Label(("front", "class"), "score error of the class on the trade-off front"),
        "front_tau": Label(("front",), "stop time on the front", "tau"),
        "front_loss_weights": Label(("front", "class"), "weight of the class in the training loss on the front"),
        "front_samples": Label(("front", "class"), "training samples of the class per dimension on the front"),
        "front_psi_p": Label(("front",), "features per dimension on the front"),
        "error_estimate": Label((), "largest numerical error of a loss"),
        "step_size": Label(("setting",), "step of SGD", "tau"),
        "batch": Label(("setting",), "batch of SGD over d"),
        "averaging": Label(("setting",), "decay of the average of the weights per step, 0 without one"),
        "visited": Label(("setting",), "samples that SGD visits, over d"),
        "front_step_size": Label(("front",), "step of SGD on the front", "tau"),
        "front_batch": Label(("front",), "batch of SGD over d on the front"),
        "front_averaging": Label(("front",), "decay of the average of the weights per step on the front, 0 without one"),
        "front_visited": Label(("front",), "samples that SGD visits, over d, on the front"),
    }

    def setting(self, problem: Problem, name: str = "best", rule: GradientFlow | MinibatchSGD = GradientFlow()) -> Setting:
        """One of the settings as a problem, a training rule and a stop time.

        Args:
            problem: the unchanged problem.
            name: one of `SETTINGS`.
            rule: the unchanged rule.

        Raises:
            InputError: another name.
        """
        if name not in SETTINGS:
            raise InputError(f"name: {name!r}; allowed: {', '.join(SETTINGS)}")
        i, k = SETTINGS.index(name), problem.num_classes
        x = np.zeros(2 * k + 4)
        x[k : 2 * k] = np.log(self.samples[i] / Setting(problem, np.inf).samples)
        x[2 * k] = np.log(self.psi_p[i] / float(problem.psi_p))
        there = moved(problem, x)
        if isinstance(rule, MinibatchSGD) and self.step_size is not None and self.batch is not None and self.averaging is not None:
            average = float(self.averaging[i]) or None
            rule = dataclasses.replace(
                rule, step_size=float(self.step_size[i]), batch_per_dimension=float(self.batch[i]), averaging=average
            )  # fmt: skip
        return Setting(Problem(**{**vars(there), "loss_weights": self.loss_weights[i]}), float(self.tau[i]), rule)

    def gain(self, name: str) -> float:
        """Share of the goal that a setting takes off the unchanged one."""
        return float(1 - self.goal[SETTINGS.index(name)] / self.goal[0])

    def advice(self) -> list[str]:
        """What to do, in sentences: what the best setting gains and costs, and whether weights or samples do it."""
        before, best = self.goal[0], self.goal[-1]
        lines = [f"{self.what}: {before:.4g} unchanged, {best:.4g} at best ({100 * self.gain('best'):.0f} % less)"]
        change = self.score_error[-1] - self.score_error[0]
        losers = [c for c, more in enumerate(change) if more > 1e-3 * self.score_error[0, c]]
        if losers:
            lines.append("it costs " + ", ".join(f"class {c} {change[c]:.3g} of score error" for c in losers))
        weights, samples = self.gain("weights"), self.gain("samples")
        more = f"{self.factor:g} times the samples of class {self.worst}: {100 * samples:.0f} % less"
        numbers = f"best loss weights: {100 * weights:.1f} % less; {more}"
        if self.sampling == "uniform":
            lines.append(f"{more}; loss weights are no lever of uniform batches (allowed: balanced or weighted ones)")
        elif weights < HELPS and samples > max(HELPS, 2 * weights):
            lines.append(f"no loss weight helps, only samples do ({numbers})")
        elif weights < HELPS:
            lines.append(f"no loss weight helps, and more samples do not either ({numbers})")
        else:
            lines.append(numbers)
        return [*lines, *self._price()]

    def _price(self) -> list[str]:
        """Step, batch and average of the best setting of SGD beside the unchanged ones, and what both cost in computation."""
        if self.step_size is None or self.batch is None or self.averaging is None or self.visited is None:
            return []
        average = [f"{value:.4g} per step" if value else "no average" for value in self.averaging[[0, -1]]]
        rule = (
            f"step {self.step_size[-1]:.4g} (unchanged {self.step_size[0]:.4g}), batch {self.batch[-1]:.4g} d "
            f"({self.batch[0]:.4g} d), averaging: {average[1]} ({average[0]})"
        )
        steps, visited = self.tau / self.step_size, self.visited
        within = "" if self.budget is None else f" of the {self.budget:.4g} d that may be visited"
        cost = f"it visits {visited[-1]:.4g} d samples{within} in {steps[-1]:.0f} steps; unchanged: {visited[0]:.4g} d in {steps[0]:.0f}"
        return [rule, cost]

    def to_xarray(self) -> "xr.Dataset":
        """The settings by name on the axis setting, and the front."""
        arrays = {name: getattr(self, name) for name in self.LABELS}
        data = labelled_dataset(arrays, self.LABELS, static_attributes(self))
        return data.assign_coords(setting=list(SETTINGS))

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The proposal in a dataset that `to_xarray` made; one for another rule than SGD has no step, batch and average.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        optional = (*OF_SGD, *(f"front_{name}" for name in OF_SGD))
        return cls(**values_of(data, cls.LABELS, where, optional), **read_attributes(cls, data.attrs, where))

    def __repr__(self) -> str:
        """One line: the goal and what was gained."""
        return f"<Proposal: {self.advice()[0]}, by {self.levers}>"
