"""What would help the class that is learned worst, and when generation decides for each class; each says why where it cannot be said."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rfdiff.backward import speciation_times
from rfdiff.design import WorstClass, propose
from rfdiff.design.proposals import SETTINGS
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.progress import Progress

TOLERANCE = 1e-3
HELPS = 0.01  # share of the goal below which a lever is said not to help


@dataclasses.dataclass(frozen=True)
class Remedy:
    """What a search for a better setting found.

    Args:
        sentences: what to do, in words.
        reason: why nothing was searched, or "".
        loss_weights: (K,) best weights of the classes in the loss; NaN without a search.
    """

    sentences: tuple[str, ...]
    reason: str
    loss_weights: np.ndarray


def remedy(problem: Problem, names: Sequence[str], progress: Progress | None = None) -> Remedy:
    """Loss weights and samples that make the largest score error of any class small, at one diffusion time."""
    try:
        found = propose(problem, WorstClass(), tolerance=TOLERANCE, progress=progress)
    except InputError as err:
        return Remedy((), str(err), np.full(len(names), np.nan))
    at = {name: SETTINGS.index(name) for name in SETTINGS}
    before, weighted, grown = (float(found.goal[at[name]]) for name in ("unchanged", "weights", "samples"))
    worst, weights = names[found.worst], found.loss_weights[at["weights"]]
    told = [f"unchanged, the largest score error of any class is {before:.3g}, at the best common stop time {found.tau[0]:.3g}"]
    gain = 1 - weighted / before
    if gain > HELPS:
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
        told.append(
            f"weights of the classes in the loss ({shares}) take {100 * gain:.0f} % off it, stopped at {found.tau[at['weights']]:.3g}"
        )
    else:
        told.append(f"no weights of the classes in the loss help (the best take off {100 * gain:.1f} %)")
    gain = 1 - grown / before
    more = found.samples[at["samples"], found.worst] / found.samples[0, found.worst]
    what = f"{more:.3g} times the samples of {worst}"
    told.append(f"{what} take {100 * gain:.0f} % off it" if gain > HELPS else f"{what} do not help ({100 * gain:.1f} %)")
    return Remedy(tuple(told), "", np.asarray(weights))


def speciation(law: MixtureLaw, d: int) -> tuple[np.ndarray, str]:
    """(K,) diffusion time at which the backward process of the exact score decides for each class, and why there is none, or ""."""
    try:
        return np.asarray(speciation_times(law, d=d), np.float64), ""
    except InputError as err:
        return np.full(law.num_classes, np.nan), str(err)
