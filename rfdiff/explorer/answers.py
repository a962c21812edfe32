"""What the explorer says of a state, as plain numbers and text: curves, times in a table and in words, spectrum, speciation times."""

import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff import theory
from rfdiff.class_times import TIME_NAMES, ClassTimes, times
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.explorer.state import State
from rfdiff.explorer.words import order_in_words
from rfdiff.host import double_on_host
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import MinibatchSGD
from rfdiff.theory import live_curves
from rfdiff.theory.live_curves import NODES, LiveCurves

NUM_TIMES = 121  # of the curves on the page
POINTS = 300  # of its spectrum
DECADES = (-3.0, 12.0)  # of training times that an axis may span, as powers of 10
LONGEST_AXIS = 10.0  # decades
PREVIEW_ERROR = 1e-3  # of a loss while a slider moves
EXACT_ERROR = 1e-6
EXACT_POWER = 22  # of ten, up to which float64 holds it exactly
DIMENSION = 256  # at which speciation times are given
Json = dict[str, object]


class Axis(NamedTuple):
    """Powers of 10 between which the training times of the page lie, in steps of a half."""

    first: float
    last: float

    @classmethod
    def from_text(cls, text: str) -> "Axis":
        """An axis as the page sends it, "-1,5.5".

        Raises:
            InputError: not two powers in the allowed range.
        """
        words = text.split(",")
        try:
            first, last = (float(word) for word in words) if len(text) < 40 else (math.nan, math.nan)
        except ValueError:
            first = last = math.nan
        if not (DECADES[0] <= first < last <= DECADES[1] and last - first <= LONGEST_AXIS):
            raise InputError(f"axis: {text[:40]!r}; allowed: two powers of ten from {DECADES[0]:g} to {DECADES[1]:g}, as in -1,5")
        return cls(first, last)

    @classmethod
    def of(cls, taus: Float[np.ndarray, " T"]) -> "Axis":
        """The axis that holds some training times."""
        finite = taus[np.isfinite(taus)]
        first = max(DECADES[0], math.floor(2 * math.log10(finite[0])) / 2)
        last = min(DECADES[1], math.ceil(2 * math.log10(finite[-1])) / 2, first + LONGEST_AXIS)
        return cls(first, last)

    def taus(self, state: State, count: int = NUM_TIMES) -> Float[np.ndarray, " T"]:
        """Log-spaced training times; with SGD the whole numbers of steps next to them."""
        grid = np.logspace(self.first, self.last, count)
        if state.rule == "flow":
            return grid
        return np.unique(np.maximum(np.rint(grid / state.step_size), 1)) * state.step_size


def preview(state: State, axis: Axis, size: int) -> Json:
    """Curves to about `PREVIEW_ERROR`, by the program of the state's shape; SGD, which has none, by the closed form to that tolerance."""
    rule, taus = state.training_rule(), axis.taus(state)
    problem = problem_of(state)
    if isinstance(rule, MinibatchSGD):
        curves = theory.learning_curves(problem, taus, rule=rule, tolerance=PREVIEW_ERROR)
        return _curves_json(curves, curves.error_estimate) | {"times": None, "kind": "preview"}
    key = shape(state, size)
    live = live_curves.live_curves(problem, taus, rule=rule, size=size, near=_LATEST.get(key))
    if math.isfinite(live.error):
        _LATEST[key] = live.solutions
    curves = _as_curves(state, taus, live)
    read = times(curves, loss_weights=np.asarray(problem.training_weights))
    more = {"times": _times_json(read, words=False), "kind": "preview", "contour_error": number(live.contour_error)}
    return _curves_json(curves, live.error) | more


_LATEST: dict[tuple[object, ...], np.ndarray] = {}  # the last solutions of each shape: a moving slider begins there


@functools.lru_cache(maxsize=16)
def problem_of(state: State) -> Problem:
    """The problem of a state."""
    return state.problem()


def _as_curves(state: State, taus: Float[np.ndarray, " T"], live: LiveCurves) -> LearningCurves:
    """Live curves as the package's result."""
    zeros, problem = np.zeros_like(live.test), problem_of(state)
    score = (live.test - live.optimal) / float(noise_variance_of(state.t))
    return LearningCurves(
        taus=taus,
        train_loss=live.train,
        test_loss=live.test,
        score_error=score,
        optimal_loss=live.optimal,
        weights=problem.mixture.weights,
        kappa=float(problem.kappa),
        error_estimate=live.error,
        train_loss_stderr=zeros,
        test_loss_stderr=zeros,
        score_error_stderr=zeros,
    )


@functools.lru_cache(maxsize=16)
def exact_curves(state: State) -> tuple[Axis, LearningCurves, LearningCurves]:
    """The axis that suits a state, its curves there, and at times that cover every mode, to `EXACT_ERROR`."""
    problem, rule = problem_of(state), state.training_rule()
    axis = Axis.of(theory.time_grid(problem))
    return axis, *theory.covering_curves(problem, axis.taus(state), rule=rule, tolerance=EXACT_ERROR)


@functools.lru_cache(maxsize=16)
def exact_spectrum(state: State) -> Spectrum:
    """The spectrum of a state."""
    return theory.spectrum(problem_of(state), num_points=POINTS)


def exact_times(state: State, covering: LearningCurves) -> ClassTimes:
    """The times of every class, from curves at times that cover every mode."""
    return times(covering, loss_weights=np.asarray(problem_of(state).training_weights))


def exact(state: State) -> Json:
    """Curves and times of a state by the closed form, on the axis that suits it."""
    axis, curves, covering = exact_curves(state)
    read = exact_times(state, covering)
    return _curves_json(curves, curves.error_estimate) | {"times": _times_json(read, words=True), "kind": "exact", "axis": list(axis)}


def spectrum(state: State) -> Json:
    """The spectrum of a state per logarithm of λ, class by class, its bulks and its atoms."""
    result = exact_spectrum(state)
    scale = result.eigenvalues * math.log(10)
    return {
        "eigenvalues": numbers(result.eigenvalues),
        "density": numbers(scale * result.density),
        "class_density": [numbers(scale * column) for column in result.class_density.T],
        "bulk": result.bulk.tolist(),
        "support": [numbers(edges) for edges in result.support],
        "atoms": [numbers(atom) for atom in zip(result.atom_locations, result.atom_weights, strict=True)],
    }


def speciation(state: State) -> Json:
    """When the backward process of the exact score decides for each class, and why that is not known where it is not."""
    if state.num_classes == 1:
        return {"times": None, "reason": "a single class has nothing to decide"}
    from rfdiff import backward  # not before the first curves

    with double_on_host():
        values = backward.speciation_times(problem_of(state).mixture, d=DIMENSION)
    return {"times": numbers(np.asarray(values)), "reason": "", "dimension": DIMENSION}


def _curves_json(curves: LearningCurves, error: float) -> Json:
    by_class = {
        name: [numbers(column) for column in np.asarray(getattr(curves, name)).T] for name in ("train_loss", "test_loss", "score_error")
    }
    return {
        "taus": numbers(curves.taus),
        **by_class,
        "optimal_loss": numbers(curves.optimal_loss),
        "error": number(error),
    }


def _times_json(read: ClassTimes, words: bool) -> Json:
    count = np.size(read.tau_gen)
    return {
        **{name: {"values": numbers(getattr(read, name)), "texts": [read.text(name, c) for c in range(count)]} for name in TIME_NAMES},
        "reasons": {name: [read.reason(name, c) for c in range(count)] for name in TIME_NAMES},
        "words": order_in_words(read) if words else [],
    }


def numbers(values: ArrayLike) -> list[float | None]:
    """Numbers to 7 digits, those that are not finite as None, which JSON can hold."""
    array = np.asarray(values, np.float64)
    finite = np.isfinite(array)
    known = np.where(finite, array, 0)
    # to a whole number times or over a power of ten: both are exact, so the quotient is the shortest number of these digits
    power = 6 - np.floor(np.log10(np.where(known == 0, 1, abs(known))))
    if np.all(abs(power) <= EXACT_POWER):
        up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
        rounded = np.rint(known * up / down) * down / up
        return [value if there else None for value, there in zip(rounded.tolist(), finite.tolist(), strict=True)]
    return [number(value) for value in array.tolist()]


def number(value: float) -> float | None:
    """One of them."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


@functools.lru_cache(maxsize=16)
def shape(state: State, size: int) -> tuple[object, ...]:
    """What the compiled programs of a preview depend on."""
    rule = ("sgd",) if state.rule == "sgd" else (state.averaging > 0,)
    return (*live_curves.shape_of(problem_of(state)), *rule, NODES[size] if state.rule == "flow" else 0)
