"""Whether measured U-turns and clones agree with the closed form of speciation, with the errors of steps and of finite d counted in."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from rfdiff.backward.process import proportion_error
from rfdiff.labels import as_dataset

if TYPE_CHECKING:
    import xarray as xr

FALSE_ALARM = 0.01  # chance that a right closed form is rejected, over all times and classes, of U-turns and clones together
CONCLUSIVE = 0.1  # a fraction that steps move by more cannot confirm the closed form
BLIND = 0.25  # part of a fraction by which the closed form may be off unnoticed at half of the times, for a measurement that confirms it
MEASURED = {"uturn": "turn_time", "clone": "clone_time"}  # fractions that are compared, and their times

DEVIATIONS = {  # of the fields of `Compared`, in their order
    "expected": "closed form",
    "systematic": "error from the length of the steps",
    "error": "whole error",
    "allowed": "error expected of the closed form",
    "standardised": "distance from the closed form, in errors,",
}


class Compared(NamedTuple):
    """One kind of measured fraction against the closed form (T times, K classes).

    Args:
        expected: (T, K) the closed form.
        systematic: (T, K) error from the length of the steps.
        error: (T, K) statistical error, that of the steps and that of the closed form at finite d, together.
        allowed: (T, K) the same with the statistical error of the expected fraction: what one unit of `standardised` is.
        standardised: (T, K) |measured - closed form| in these units; NaN where nothing was measured.
    """

    expected: Float[np.ndarray, "T K"]
    systematic: Float[np.ndarray, "T K"]
    error: Float[np.ndarray, "T K"]
    allowed: Float[np.ndarray, "T K"]
    standardised: Float[np.ndarray, "T K"]

    def unnoticed(self, threshold: float, relative: bool) -> Float[np.ndarray, " K"]:
        """(K,) median over the times of the largest error of the closed form that passes; `relative` to its value or not."""
        band = np.where(np.isnan(self.standardised), np.inf, threshold * self.allowed)
        return np.median(band / self.expected if relative else band, axis=0)


class SpeciationVerdict(NamedTuple):
    """Agreement of a measurement with the closed form.

    Args:
        text: "agree", "disagree" or "inconclusive".
        reason: what is off, as a sentence; empty where they agree.
        agrees: whether both kinds of fraction are within `threshold` everywhere, the steps are short enough to tell, and trajectories are
            enough to notice an error.
        threshold: largest deviation, in errors, of an agreeing measurement.
        unnoticed: largest error of the closed form of any class that would pass at half of the times, in both kinds of fraction.
        compared: by kind, "uturn" and "clone".
    """

    text: str
    reason: str
    agrees: bool
    threshold: float
    unnoticed: float
    compared: dict[str, Compared]

    def to_xarray(self) -> "xr.Dataset":
        """Errors and deviations of both kinds of fraction, as `uturn_error`, …; the verdict in the attributes."""
        variables = {
            f"{kind}_{name}": ((MEASURED[kind], "class"), value, {"long_name": f"{text} of the fraction {kind}", "units": "1"})
            for kind, of_kind in self.compared.items()
            for (name, text), value in zip(DEVIATIONS.items(), of_kind, strict=True)
        }
        verdict = {
            "verdict": self.text, "reason": self.reason, "agrees": int(self.agrees), "threshold": self.threshold,
            "unnoticed": self.unnoticed,
        }  # fmt: skip
        return as_dataset(variables, {}, verdict)


def speciation_verdict(dataset: "xr.Dataset") -> SpeciationVerdict:
    """Judge a measurement, as `Speciation.to_xarray` gives it, against the closed form.

    The error of a fraction has three parts: its standard error; what the length of the steps adds, estimated in U-turns from their own
    states; and how far the closed form is off at this d, which the mean posterior of the same states shows, for it needs no step.

    Returns:
        `SpeciationVerdict`: "disagree" beyond the threshold of a 1 % false alarm in all comparisons (Bonferroni); "inconclusive" where
        the measurement would agree with much: the steps move a fraction by more than 0.1, or for some class an error of the closed form
        of a quarter of its value would pass at half of the times.
    """
    of_closed_form = abs(dataset.posterior - dataset.uturn_theory).values if "posterior" in dataset else np.zeros(dataset.uturn.shape)
    finite_size = {
        "uturn": of_closed_form,
        "clone": np.stack([np.interp(dataset.clone_time, dataset.turn_time, column) for column in of_closed_form.T], axis=1),
    }
    compared = {name: _compare(dataset, name, finite_size[name]) for name in MEASURED}
    threshold = float(norm.isf(FALSE_ALARM / 2 / sum(one.error.size for one in compared.values())))
    worst = max(compared, key=lambda name: np.nanmax(compared[name].standardised, initial=0))
    steps = max(compared, key=lambda name: np.nanmax(compared[name].systematic, initial=0))
    largest = np.nanmax(compared[worst].standardised, initial=0)
    moved = np.nanmax(compared[steps].systematic, initial=0)
    # both kinds measure the same probability: the sharper one decides what is noticed of a class
    sharper = {relative: np.min([one.unnoticed(threshold, relative) for one in compared.values()], axis=0) for relative in (False, True)}
    unnoticed, blind = float(sharper[False].max()), sharper[True]
    nouns = {"uturn": "U-turns", "clone": "clones"}
    if largest > threshold:
        where = _where(dataset, worst, compared[worst].standardised)
        reason = f"{nouns[worst]} {where} are {largest:.1f} errors from the closed form, allowed are {threshold:.1f}; try more --num-steps"
        return SpeciationVerdict("disagree", reason, False, threshold, unnoticed, compared)
    if moved > CONCLUSIVE:
        where = _where(dataset, steps, compared[steps].systematic)
        reason = f"the steps move {nouns[steps]} {where} by {min(moved, 1.0):.2g}, which would hide a deviation; use more --num-steps"
        return SpeciationVerdict("inconclusive", reason, False, threshold, unnoticed, compared)
    if blind.max() > BLIND:
        reason = (
            f"too few trajectories: an error of {blind.max():.0%} of the closed form of class {int(blind.argmax())} would not be noticed "
            f"at half of the times, allowed are {BLIND:.0%}; use more --num-trajectories"
        )
        return SpeciationVerdict("inconclusive", reason, False, threshold, unnoticed, compared)
    return SpeciationVerdict("agree", "", True, threshold, unnoticed, compared)


def _compare(dataset: "xr.Dataset", name: str, finite_size: np.ndarray) -> Compared:
    measured, expected, stderr = (dataset[f"{name}{what}"].values for what in ("", "_theory", "_stderr"))
    systematic = dataset[f"{name}_systematic"].values if f"{name}_systematic" in dataset else np.zeros_like(stderr)
    # the standard errors of the expected proportion hold near 0 and 1 too, where those of a few counts do not
    statistical = proportion_error(expected, dataset.attrs["trajectories"]) if name == "uturn" else stderr
    beside = np.hypot(systematic, finite_size)
    allowed = np.hypot(statistical, beside)
    return Compared(expected, systematic, np.hypot(stderr, beside), allowed, abs(measured - expected) / allowed)


def _where(dataset: "xr.Dataset", name: str, size: np.ndarray) -> str:
    i, c = np.unravel_index(int(np.nanargmax(size)), size.shape)
    return f"of class {c} at t = {dataset[MEASURED[name]].values[i]:.3g}"
