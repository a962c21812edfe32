"""What would help the class that is learned worst, and when generation decides for each class; each says why where it cannot be said.

Two ways to a remedy: a few other weights and sample counts of the worst classes, each tried in the theory of the fitted law; or the search
of `rfdiff.design` for the best weights, which costs many times that.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from rfdiff.backward import speciation_estimate
from rfdiff.backward.estimates import FINEST
from rfdiff.design import WorstClass, propose
from rfdiff.design.proposals import SETTINGS
from rfdiff.diagnosis.predictions import best_common_stop
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.progress import Progress
from rfdiff.theory import learning_curves

TOLERANCE = 1e-3
WEIGHT_FACTORS, SAMPLE_FACTOR = (0.5, 2.0, 4.0), 4.0
SHARED = 0.05  # relative difference of two score errors below which both classes are the worst
Arrays = Mapping[str, np.ndarray]
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


def candidates(problem: Problem, worst: Sequence[int]) -> dict[str, Problem]:
    """The problem with another loss weight of the first of the worst classes ("weight-2", ...), and with more samples of each of them
    ("samples-0" for class 0, ...).
    """
    law = problem.mixture
    found = {}
    for factor in WEIGHT_FACTORS:
        weights = _scaled(law.weights, worst[0], factor)
        found[f"weight-{factor:g}"] = dataclasses.replace(problem, loss_weights=weights / weights.sum())
    for c in worst:
        counts = _scaled(law.weights, c, SAMPLE_FACTOR)
        grown = MixtureLaw.from_covariances(
            counts / counts.sum(), np.asarray(law.covariances), law.centroids, class_names=law.class_names
        )  # fmt: skip
        found[f"samples-{c}"] = dataclasses.replace(problem, mixture=grown, psi_n=problem.psi_n * counts.sum())
    return found


def _scaled(fractions: Float[np.ndarray, " K"], c: int, factor: float) -> Float[np.ndarray, " K"]:
    """Class fractions with that of one class multiplied."""
    fractions = np.asarray(fractions, np.float64)
    return fractions * np.where(np.arange(fractions.size) == c, factor, 1.0)


def score_errors(problem: Problem, taus: Float[np.ndarray, " T"], tolerance: float) -> dict[str, np.ndarray]:
    """Training times (T,) and score errors (T, K) of a problem, from which stop times are chosen.

    Raises:
        InputError: what `theory.learning_curves` refuses.
    """
    curves = learning_curves(problem, taus, tolerance=tolerance)
    return {"taus": np.asarray(curves.taus), "score_error": np.asarray(curves.score_error)}


def hardest(arrays: Arrays) -> list[int]:
    """The classes with the largest score error at the stop time that makes it small: one, or the two that share it there."""
    best, _ = best_common_stop(arrays["taus"], arrays["score_error"])
    errors = arrays["score_error"][best]
    order = np.argsort(-errors)[:2]
    return [int(c) for c in order if errors[c] >= (1 - SHARED) * errors[order[0]]]


def tried(names: Sequence[str], worst: Sequence[int], unchanged: Arrays, found: Mapping[str, Arrays], fractions: np.ndarray) -> Remedy:
    """The remedy from what `candidates` gave, each as arrays of `score_errors`."""
    before, stop = _largest(unchanged)
    told = [f"unchanged, the largest score error of any class is {before:.3g}, at the best common stop time {stop:.3g}"]
    best = min(WEIGHT_FACTORS, key=lambda factor: _largest(found[f"weight-{factor:g}"])[0])
    tries = f"; tried: {', '.join(f'{factor:g}' for factor in WEIGHT_FACTORS)} times"
    helps = _told(told, f"{best:g} times the weight in the loss of {names[worst[0]]}", before, found[f"weight-{best:g}"], tries)
    for c in worst:
        _told(told, f"{SAMPLE_FACTOR:g} times the samples of {names[c]}", before, found[f"samples-{c}"])
    weights = _scaled(fractions, worst[0], best)
    return Remedy(tuple(told), "", weights / weights.sum() if helps else np.full(len(names), np.nan))


def _told(told: list[str], what: str, before: float, found: Arrays, tries: str = "") -> bool:
    """Add a sentence on what a change does to the largest score error; whether it helps."""
    after, stop = _largest(found)
    gain = 100 * (1 - after / before)
    if gain > 100 * HELPS:
        told.append(f"with {what} it is {gain:.0f} % less, stopped at {stop:.3g}{tries}")
    else:
        told.append(f"{what} would not help: {-gain:+.1f} %{tries}")
    return gain > 100 * HELPS


def _largest(arrays: Arrays) -> tuple[float, float]:
    """The largest score error of any class at the stop time that makes it small, and that stop time."""
    best, worst = best_common_stop(arrays["taus"], arrays["score_error"])
    return float(arrays["score_error"][best, worst]), float(arrays["taus"][best])


def searched(problem: Problem, names: Sequence[str], progress: Progress | None = None) -> Remedy:
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


def speciation(law: MixtureLaw, d: int, tolerance: float) -> dict[str, np.ndarray]:
    """(K,) diffusion times at which the backward process of the exact score decides for each class, `time`, and their `error`.

    The tolerance is that of the probability to return to the class.

    Raises:
        InputError: as `speciation_estimate`.
    """
    found = speciation_estimate(law, d=d, tolerance=max(tolerance, FINEST))
    return {"time": found.value, "error": found.error}
