"""Simulation with its errors against theory, curve by curve and class by class.

Theory is the limit d → ∞, a simulation has one d and deviates by `c/d + e/d² + …`, besides its sampling error. Two sizes d and
h ≈ d/2 give the first term without any tuning, `c/d = (m_h - m_d) h/(d - h)`, and what is left after taking it away,

    m_d - c/d - theory = -e/(d h) + noise,   noise² = (1 + k)² se_d² + k² se_h²,   k = h/(d - h),

is judged against its noise. For the second-order term the series is taken as geometric, e/d² = (c/d)²/excursion, with the excursion
of the curve from its value 1 of the untrained network as the scale: a small network may be far from the limit, but only where its own
finite-size term says so.

With stored noise draws the train loss of a class starts from the mean of ‖ξ‖²/d over them, which is random, but known and of mean 1. The
part of the curve that moves with it is taken out of every seed before the comparison (a control variate), with the theory's train loss as
the coefficient: 1 before training, and less as the noise is fitted.
"""

from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.agreement.band import Path, covariance_of_means, path_of, simultaneous_threshold
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, labelled_dataset, static_attributes
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress, within
from rfdiff.rules import GradientFlow, MinibatchSGD, Rule
from rfdiff.simulation import learning_curves as simulated_curves
from rfdiff.simulation.features import sizes_at
from rfdiff.theory import learning_curves as predicted_curves
from rfdiff.value_types import DType, as_integer, html_table, static, value_type

if TYPE_CHECKING:
    import xarray as xr

COMPARED = ("train_loss", "test_loss")
CONCLUSIVE = 0.25

PerCurve: TypeAlias = dict[str, Float[np.ndarray, "T K"]]


@value_type
class Agreement(Labelled):
    """Verdict on a simulation and a prediction of the same problem (T times, K classes; dictionaries over `COMPARED` curves).

    The score error is an affine function of the test loss and is judged with it.

    Args:
        theory: the prediction.
        simulation: networks at dimension d.
        smaller: networks at dimension h = d // 2.
        deviation: {curve: (T, K)} simulation at d minus theory, without the known part of the noise draws.
        allowance: {curve: (T, K)} finite-size part c/d of that deviation, estimated from the two sizes (signed).
        remainder: {curve: (T, K)} bound on the second-order part.
        stderr: {curve: (T, K)} standard error of deviation - allowance.
        standardised: {curve: (T, K)} deviation - allowance, brought towards 0 by the remainder, in standard errors; NaN where either side
            is not finite.
        threshold: largest |standardised| of an agreeing pair: a band around all curves and training times together that a true theory
            leaves in at most 1 % of all comparisons, given how its noise is correlated along training (`agreement.band`).
        conclusive: whether the comparison has the power to reject: a theory off by `CONCLUSIVE` times the excursion of a curve would have
            been noticed at half of the times, for each curve and class; or an entry is beyond the threshold as it is.
        agrees: whether every entry is within the threshold, none is missing that the theory has, and the comparison is conclusive.
    """

    theory: LearningCurves
    simulation: LearningCurves
    smaller: LearningCurves
    deviation: PerCurve
    allowance: PerCurve
    remainder: PerCurve
    stderr: PerCurve
    standardised: PerCurve
    threshold: float = static()
    conclusive: bool = static()
    agrees: bool = static()

    RESTORABLE: ClassVar = False  # `assess` makes it again from the curves of a result file
    LABELS: ClassVar = {
        "deviation": Label(("curve", "tau", "class"), "simulation at d minus theory"),
        "allowance": Label(("curve", "tau", "class"), "finite-size part of the deviation, from the two sizes"),
        "remainder": Label(("curve", "tau", "class"), "bound on the second-order part of the deviation"),
        "stderr": Label(("curve", "tau", "class"), "standard error of deviation minus allowance"),
        "standardised": Label(("curve", "tau", "class"), "deviation minus allowance, less the remainder, in standard errors"),
    }

    @property
    def verdict(self) -> str:
        """One of "agree", "disagree" and "inconclusive"."""
        return "agree" if self.agrees else "disagree" if self.conclusive else "inconclusive"

    def to_xarray(self) -> "xr.Dataset":
        """Deviations and what they are judged by, on the axes curve, tau and class; the curves themselves have `to_xarray` of their own."""
        stacked = {name: np.stack([getattr(self, name)[curve] for curve in COMPARED]) for name in self.LABELS}
        data = labelled_dataset(stacked, self.LABELS, static_attributes(self))
        return data.assign_coords(curve=list(COMPARED), tau=("tau", np.asarray(self.theory.taus)))

    def __repr__(self) -> str:
        """One line: the verdict and the numbers behind it."""
        worst = max(float(np.nanmax(abs(values))) for values in self.standardised.values())
        return (
            f"<Agreement: {self.verdict} at d = {self.simulation.dimension}, largest deviation {worst:.2f} standard errors, "
            f"allowed {self.threshold:.2f}>"
        )

    def _repr_html_(self) -> str:
        """A table, one row per curve and class: the largest deviation and the smallest error that would have been noticed."""
        rows = [
            [name.replace("_", " "), c, f"{np.nanmax(abs(values[:, c])):.2f}", f"{self.resolution[name][c]:.1e}"]
            for name, values in self.standardised.items()
            for c in range(values.shape[1])
        ]
        heading = (
            f"Simulation at d = {self.simulation.dimension} and theory: {self.verdict} (allowed: {self.threshold:.2f} standard errors)"
        )
        return html_table(heading, ["curve", "class", "largest deviation (standard errors)", "error that would be noticed"], rows)

    @property
    def resolution(self) -> dict[str, np.ndarray]:
        """{curve: (K,)} median over τ of the smallest error of the theory that this comparison would have noticed."""
        return {name: _resolution(self.threshold, self.stderr[name], self.remainder[name]) for name in self.standardised}


def _resolution(threshold: float, stderr: np.ndarray, remainder: np.ndarray) -> np.ndarray:
    return np.nanmedian(threshold * stderr + remainder, axis=0)


def assess(theory: LearningCurves, simulation: LearningCurves, smaller: LearningCurves) -> Agreement:
    """Judge curves that are already computed.

    Args:
        theory: prediction (T, K).
        simulation: curves of at least 2 seeds at dimension d, on the same grid of taus.
        smaller: the same at a dimension between d/4 and 3d/4.

    Returns:
        `Agreement`.

    Raises:
        InputError: grids, class counts, dimensions or seed numbers that do not fit.
    """
    d, h = _checked(theory, simulation, smaller)
    parts = {name: _compared(name, theory, simulation, smaller, h / (d - h)) for name in COMPARED}
    limits = {name: np.asarray(getattr(theory, name), np.float64) for name in COMPARED}
    # where p = n m the theory diverges at τ = ∞ and says NaN; nothing else may be missing
    diverging = np.isinf(np.asarray(theory.taus))[:, None]
    lost = any(np.any(~np.isfinite(part.standardised) & ~(np.isnan(limits[name]) & diverging)) for name, part in parts.items())
    threshold = simultaneous_threshold([path for part in parts.values() for path in part.paths])
    judged = any(part.paths for part in parts.values())
    within = judged and all(np.nanmax(abs(part.standardised), initial=0) <= threshold for part in parts.values())
    conclusive = judged and all(
        bool(np.all(_resolution(threshold, part.stderr, part.remainder) <= CONCLUSIVE * np.nanmax(abs(1 - limits[name]), axis=0)))
        for name, part in parts.items()
    )
    conclusive |= judged and not within  # whatever the power, it was enough
    deviation, allowance, remainder, stderr, standardised = (
        {name: getattr(part, field) for name, part in parts.items()} for field in _Compared._fields[:5]
    )
    agrees = conclusive and not lost and within
    return Agreement(theory, simulation, smaller, deviation, allowance, remainder, stderr, standardised, threshold, conclusive, agrees)


class _Compared(NamedTuple):
    """One kind of curve: the fields of `Agreement` (T times, K classes), and the paths of the classes that have any finite entry."""

    deviation: Float[np.ndarray, "T K"]
    allowance: Float[np.ndarray, "T K"]
    remainder: Float[np.ndarray, "T K"]
    stderr: Float[np.ndarray, "T K"]
    standardised: Float[np.ndarray, "T K"]
    paths: list[Path]


def _checked(theory: LearningCurves, simulation: LearningCurves, smaller: LearningCurves) -> tuple[int, int]:
    """The two dimensions of curves that fit together; a refusal of others."""
    d, h = simulation.dimension, smaller.dimension
    if theory.source != "theory" or d is None or h is None:
        raise InputError("theory, simulation, smaller: allowed: one prediction and two simulations, in this order")
    if not d / 4 <= h <= 3 * d / 4:
        raise InputError(f"smaller: dimension {h} beside {d}; allowed: between {d / 4:g} and {3 * d / 4:g}")
    for name, curves in (("simulation", simulation), ("smaller", smaller)):
        if curves.per_seed is None:
            raise InputError(f"{name}: holds no curves of single seeds; allowed: curves that keep them, as the simulation returns them")
        if np.shape(curves.test_loss) != np.shape(theory.test_loss) or not np.allclose(curves.taus, theory.taus, rtol=1e-12, atol=0):
            raise InputError(f"{name}: its training times or classes are not those of the theory; allowed: the same grid")
    seeds = min(len((curves.per_seed or {})["test_loss"]) for curves in (simulation, smaller))
    if seeds < 2:
        raise InputError(f"num_seeds: {seeds}; allowed: at least 2, for a standard error")
    return d, h


def _compared(name: str, theory: LearningCurves, simulation: LearningCurves, smaller: LearningCurves, k: float) -> _Compared:
    """Deviation, what is allowed for, and noise of one kind of curve; k = h/(d - h)."""
    limit = np.asarray(getattr(theory, name), np.float64)
    known = name == "train_loss" and simulation.untrained_loss is not None and smaller.untrained_loss is not None
    (at_d, noise_d), (at_h, noise_h) = (_mean_and_residuals(name, curves, limit if known else None) for curves in (simulation, smaller))
    deviation, allowance = at_d - limit, k * (at_h - at_d)
    parts = [(1 + k) * noise_d, k * noise_h]
    # rounding is the last floor of a standard error: identical seeds at τ → 0 differ by nothing else
    floor = 4 * np.finfo(simulation.dtype).eps * np.maximum(1, abs(at_d))
    stderr = np.sqrt(sum(covariance_of_means(part, part) for part in parts) + floor**2)
    excursion = np.fmax.accumulate(abs(1 - at_d), axis=0)
    remainder = (1 + k) / k * allowance**2 / np.maximum(excursion, floor)
    rest = deviation - allowance
    excess = np.maximum(abs(rest) - remainder - np.nan_to_num(theory.error_estimate), 0)
    standardised = np.where(np.isfinite(rest), np.sign(rest) * excess / stderr, np.nan)
    there = np.isfinite(standardised)
    paths = [path_of([part[:, there[:, c], c] for part in parts]) for c in range(limit.shape[1]) if there[:, c].any()]
    return _Compared(deviation, allowance, remainder, stderr, standardised, paths)


def _mean_and_residuals(
    name: str, curves: LearningCurves, coefficient: Float[np.ndarray, "T K"] | None
) -> tuple[Float[np.ndarray, "T K"], Float[np.ndarray, "S T K"]]:
    """Mean of simulated curves and each seed's distance from it; with a coefficient less its product with ‖ξ‖²/d - 1 of the seed."""
    mean, seeds = np.asarray(getattr(curves, name), np.float64), np.asarray((curves.per_seed or {})[name], np.float64)
    residuals = seeds - seeds.mean(axis=0)
    if coefficient is None:
        return mean, residuals
    excess = np.asarray(curves.untrained_loss, np.float64) - 1
    coefficient = np.nan_to_num(coefficient)
    return mean - coefficient * excess.mean(axis=0), residuals - coefficient * (excess - excess.mean(axis=0))[:, None, :]


def compare(
    problem: Problem,
    taus: ArrayLike | None,
    *,
    d: int,
    key: jax.Array,
    num_seeds: int,
    rule: Rule = GradientFlow(),
    dtype: DType | None = None,
    progress: Progress | None = None,
    tolerance: float = 1e-6,
) -> Agreement:
    """Predict, simulate at dimensions d and d // 2, and judge.

    Args:
        problem: the problem, K classes.
        taus: (T,) training times; None with `Ridge`.
        d: dimension of the larger simulation.
        key: JAX random key.
        num_seeds: networks at each size, at least 2.
        rule: training rule.
        dtype: floating type of the simulation; None for the device's own.
        progress: called with (done, total) seeds of both sizes together.
        tolerance: numerical error wanted of the theory.

    Returns:
        `Agreement`.

    Raises:
        InputError: from any of the three, before anything expensive starts where it can be known.
    """
    require_progress(progress)
    num_seeds = as_integer("num_seeds", num_seeds, 2, why="for a standard error")
    d = as_integer("d", d, 4, why="so that d // 2 is a size too")
    sizes_at(problem, d // 2)  # refuses what cannot be built before the theory is computed
    if isinstance(rule, MinibatchSGD):
        rule.check_batch(d)
        rule.check_batch(d // 2)
    theory = predicted_curves(problem, taus, rule=rule, tolerance=tolerance)
    large, small = jax.random.split(key)
    first, second = within(progress, 0, 2 * num_seeds), within(progress, num_seeds, 2 * num_seeds)
    smaller = simulated_curves(problem, taus, d=d // 2, key=small, num_seeds=num_seeds, rule=rule, dtype=dtype, progress=first)
    simulation = simulated_curves(problem, taus, d=d, key=large, num_seeds=num_seeds, rule=rule, dtype=dtype, progress=second)
    return assess(theory, simulation, smaller)
