"""A proposed setting put to the test: networks trained at it and at the unchanged one."""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Array, Float, Key

from rfdiff.design.levers import Setting
from rfdiff.design.proposals import SETTINGS, Proposal
from rfdiff.labels import Label, Labelled, labelled_dataset, static_attributes
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.simulation import learning_curves
from rfdiff.simulation.features import sizes_at
from rfdiff.value_types import as_integer, static, value_type

if TYPE_CHECKING:
    import xarray as xr

TRIED = (SETTINGS[0], SETTINGS[-1])


@value_type
class Trial(Labelled):
    """Networks at the unchanged setting and at the best one (S seeds, K classes).

    Args:
        simulated: (2, S, K) score errors of each network at the stop time of its setting.
        predicted: (2, K) the theory's.
        difference: (K,) mean of best minus unchanged.
        difference_stderr: (K,) its standard error.
        dimension: d.
    """

    simulated: Float[np.ndarray, "2 S K"]
    predicted: Float[np.ndarray, "2 K"]
    difference: Float[np.ndarray, " K"]
    difference_stderr: Float[np.ndarray, " K"]
    dimension: int = static()

    LABELS: ClassVar = {
        "simulated": Label(("tried", "seed", "class"), "score error of a trained network"),
        "predicted": Label(("tried", "class"), "score error of the theory"),
        "difference": Label(("class",), "score error of networks, best setting minus unchanged"),
        "difference_stderr": Label(("class",), "standard error of the difference"),
    }

    @property
    def means(self) -> Float[np.ndarray, "2 K"]:
        """(2, K) mean score errors of the networks."""
        return self.simulated.mean(axis=1)

    @property
    def stderr(self) -> Float[np.ndarray, "2 K"]:
        """(2, K) their standard errors."""
        return self.simulated.std(axis=1, ddof=1) / np.sqrt(self.simulated.shape[1])

    def to_xarray(self) -> "xr.Dataset":
        """The networks by setting on the axis tried."""
        data = labelled_dataset({name: getattr(self, name) for name in self.LABELS}, self.LABELS, static_attributes(self))
        return data.assign_coords(tried=list(TRIED))


def verify(
    proposal: Proposal,
    problem: Problem,
    *,
    d: int,
    key: Key[Array, ""],
    num_seeds: int,
    rule: GradientFlow | MinibatchSGD = GradientFlow(),
    progress: Progress | None = None,
) -> Trial:
    """Train networks at the unchanged setting and at the best one, each up to its stop time.

    Args:
        proposal: of `propose`, for this problem.
        problem: the unchanged problem.
        d: dimension.
        key: JAX random key; both settings use the same first layers.
        num_seeds: networks at each setting, at least 2.
        rule: as in `propose`; SGD takes its steps on actual batches, with the numbers of each setting.
        progress: called with (networks done, networks in all).

    Returns:
        `Trial`.

    Raises:
        InputError: fewer than 2 seeds; networks that cannot be built or do not fit in memory; a batch that is empty
            at d, or by rounding not that of the theory.
    """
    require_progress(progress)
    num_seeds = as_integer("num_seeds", num_seeds, 2, why="for a standard error")
    settings = [proposal.setting(problem, name, rule) for name in TRIED]
    for setting in settings:
        sizes_at(setting.problem, d)  # refuses what cannot be built before any network is trained
        if isinstance(setting.rule, MinibatchSGD):
            setting.rule.check_batch(d)

    def errors(index: int, setting: Setting) -> Float[np.ndarray, "S K"]:
        told = None if progress is None else lambda done, _: progress(index * num_seeds + done, 2 * num_seeds)
        taus = np.array([setting.tau])
        curves = learning_curves(setting.problem, taus, d=d, key=key, num_seeds=num_seeds, rule=setting.rule, progress=told)
        return (curves.per_seed or {})["score_error"][:, 0]

    simulated = np.stack([errors(i, setting) for i, setting in enumerate(settings)])
    change = simulated[1] - simulated[0]
    predicted = proposal.score_error[[SETTINGS.index(name) for name in TRIED]]
    return Trial(simulated, predicted, change.mean(axis=0), change.std(axis=0, ddof=1) / np.sqrt(num_seeds), d)
