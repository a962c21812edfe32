"""What would help the class that is learned worst, and when generation decides for each class; each says why where it cannot be said.

Two ways to a remedy: a few larger weights and sample counts of the worst class, each tried in the theory of the fitted law; or the search
of `rfdiff.design` for the best weights, which costs many times that.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from rfdiff.backward import speciation_times
from rfdiff.design import WorstClass, propose
from rfdiff.design.proposals import SETTINGS
from rfdiff.diagnosis.predictions import best_common_stop
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.progress import Progress
from rfdiff.theory import learning_curves, time_grid

TOLERANCE = 1e-3
WEIGHT_FACTORS, SAMPLE_FACTORS = (2.0, 4.0, 8.0), (2.0, 4.0)
NUM_TIMES = 30
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


def candidates(problem: Problem, worst: int) -> dict[str, Problem]:
    """The problem with larger loss weights of a class ("weight-2", ...), and with more samples of it ("samples-2", ...)."""
    law = problem.mixture
    fractions = np.asarray(law.weights, np.float64)
    found = {}
    for factor in WEIGHT_FACTORS:
        weights = fractions * np.where(np.arange(fractions.size) == worst, factor, 1.0)
        found[f"weight-{factor:g}"] = dataclasses.replace(problem, loss_weights=weights / weights.sum())
    for factor in SAMPLE_FACTORS:
        counts = fractions * np.where(np.arange(fractions.size) == worst, factor, 1.0)
        grown = MixtureLaw.from_covariances(counts / counts.sum(), np.asarray(law.covariances), law.centroids, class_names=law.class_names)
        found[f"samples-{factor:g}"] = dataclasses.replace(problem, mixture=grown, psi_n=problem.psi_n * counts.sum())
    return found


def score_errors(problem: Problem, tolerance: float) -> dict[str, np.ndarray]:
    """Training times (T,) and score errors (T, K) of a problem, from which stop times are chosen.

    Raises:
        InputError: what `theory.learning_curves` refuses.
    """
    curves = learning_curves(problem, time_grid(problem, num_times=NUM_TIMES), tolerance=tolerance)
    return {"taus": np.asarray(curves.taus), "score_error": np.asarray(curves.score_error)}


def hardest(score_error: Float[np.ndarray, "T K"]) -> int:
    """The class whose score error is largest even at its own best stop time."""
    return int(np.argmax(np.nanmin(score_error, axis=0)))


def tried(names: Sequence[str], worst: int, unchanged: Arrays, found: Mapping[str, Arrays], fractions: np.ndarray) -> Remedy:
    """The remedy from what `candidates` gave, each as arrays of `score_errors`."""
    before, stop = _largest(unchanged)
    told = [f"unchanged, the largest score error of any class is {before:.3g}, at the best common stop time {stop:.3g}"]
    proposed = np.full(len(names), np.nan)
    for kind, factors in (("weight", WEIGHT_FACTORS), ("samples", SAMPLE_FACTORS)):
        best = min(factors, key=lambda factor: _largest(found[f"{kind}-{factor:g}"])[0])
        after, stop = _largest(found[f"{kind}-{best:g}"])
        gain = 1 - after / before
        what = f"{best:g} times the {'weight in the loss' if kind == 'weight' else 'samples'} of {names[worst]}"
        tries = ", ".join(f"{factor:g}" for factor in factors)
        if gain > HELPS:
            told.append(f"{what} takes {100 * gain:.0f} % off it, stopped at {stop:.3g} (tried: {tries} times)")
        else:
            told.append(f"{what} does not help ({-100 * gain:+.1f} %; tried: {tries} times)")
        if kind == "weight" and gain > HELPS:
            weights = fractions * np.where(np.arange(fractions.size) == worst, best, 1.0)
            proposed = weights / weights.sum()
    return Remedy(tuple(told), "", proposed)


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


def speciation(law: MixtureLaw, d: int) -> tuple[np.ndarray, str]:
    """(K,) diffusion time at which the backward process of the exact score decides for each class, and why there is none, or ""."""
    try:
        return np.asarray(speciation_times(law, d=d), np.float64), ""
    except InputError as err:
        return np.full(law.num_classes, np.nan), str(err)
