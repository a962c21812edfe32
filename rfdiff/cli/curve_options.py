"""Options of predict, simulate and compare, and values of them that are refused."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from rfdiff import theory
from rfdiff.cli.options import (
    LARGEST_KEY,
    MOST_POINTS,
    FloatingType,
    NearOptimal,
    Number,
    Numbers,
    Output,
    ProblemFile,
    between,
    check,
    dimension,
    fraction,
    hint,
)
from rfdiff.cli.rule_options import RuleOptions, rule_record
from rfdiff.cli.terminal import note
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD, Ridge, Rule
from rfdiff.simulation.seed_batches import MOST_SEEDS
from rfdiff.theory.density import coupled_directions
from rfdiff.theory.input_checks import tolerance_allowed
from rfdiff.theory.minibatch import check_covered

SOLVERS = (
    "How networks are trained. exact: eigendecomposition of U, the p x p matrix of second moments of the features; gives the spectrum too. "
    "krylov: Krylov space of U, faster at large p. krylov-matrix-free: the same without storing U. krylov-probes: the same from random "
    "columns; least memory, losses with standard errors. auto: the first of these that fits in memory."
)
Solver = Annotated[Literal["auto", "exact", "krylov", "krylov-matrix-free", "krylov-probes"], tyro.conf.arg(help=SOLVERS)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curves(RuleOptions, Output):
    """Options of every command that computes learning curves."""

    problem: ProblemFile
    """Problem file in TOML; rfdiff init writes a commented one."""
    num_times: int = 80
    """Number of finite training times, chosen to cover learning and memorisation; inf (convergence) is added."""
    taus: Numbers = None
    """Training times, increasing, instead of --num-times; inf means convergence."""
    penalties: Numbers = None
    """Penalties of ridge, each > 0, in any order; they take the place of the training times."""
    q: NearOptimal = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Closed:
    """Options of the closed form."""

    tolerance: float = 1e-6
    """Largest numerical error allowed in a loss of the closed form."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """Options of the simulation."""

    d: int = 100
    """Dimension of the data; a network has psi_p * d features and psi_n * d training samples, with psi_p and psi_n of the problem file."""
    num_seeds: int = 10
    """Number of independent networks."""
    seed: int = 0
    """Random seed of the networks and their data; the same seed gives the same networks."""
    dtype: FloatingType = None
    """Floating type of the networks."""
    solver: Solver = "auto"
    krylov_tolerance: Annotated[Number, hint("(default: 1e-8; 1e-4 in float32)")] = None
    """Stop enlarging the Krylov space when the error of the losses falls below this."""


def check_curves(options: Curves, problem: Problem, rule: Rule) -> None:
    """Refuse values out of range that concern the curves, and training times that the rule does not take.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    check(options, num_times=between(options.num_times, 3, MOST_POINTS), q=fraction(options.q))
    if isinstance(options, Closed):
        check(options, tolerance=tolerance_allowed(options.tolerance))
    name = "penalties" if options.rule == Ridge.name else "taus"
    count = len(getattr(options, name) or ()) if options.rule == Ridge.name or options.taus else options.num_times
    if count < 3 and (name == "penalties" or isinstance(options, Networks)):  # the closed form's times do not depend on those shown
        raise InputError(f"--{name}: {count} given; allowed: at least 3, to read times from")
    if options.taus:
        rule.schedule(options.taus, problem.kappa)
    if isinstance(rule, MinibatchSGD):
        rule.check_loss_weights(problem.loss_weights, problem.mixture.weights)
        if isinstance(options, Closed):
            check_covered(problem, rule)
    if isinstance(rule, MinibatchSGD) and isinstance(options, Networks):
        if not options.taus or np.isinf(options.taus[-1]):
            what = "missing" if not options.taus else "inf"
            raise InputError(f"--taus: {what}; --rule sgd trains networks step by step, up to the last of finite training times")
        if options.solver not in ("auto", "exact"):
            raise InputError(f"--solver: {options.solver}; allowed: auto with --rule sgd, which trains step by step")


def check_networks(options: Networks, least_dimension: int, least_seeds: int, reason: str = "") -> None:
    """Refuse values out of range that concern the networks.

    Args:
        options: the options.
        least_dimension: of the data.
        least_seeds: number of networks.
        reason: why there must be that many.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """
    check(
        options,
        d=dimension(options.d, least_dimension),
        num_seeds=(least_seeds <= options.num_seeds <= MOST_SEEDS, f"{least_seeds} to {MOST_SEEDS}{reason}"),
        seed=between(options.seed, 0, LARGEST_KEY),
    )
    if options.krylov_tolerance is not None:
        check(options, krylov_tolerance=(0 < options.krylov_tolerance < 1, "0 < krylov_tolerance < 1"))
        if options.solver in ("auto", "exact"):
            raise InputError(f"--krylov-tolerance: applies only to Krylov solvers, not to --solver {options.solver}")


def training_times(options: Curves, problem: Problem, rule: Rule) -> np.ndarray | None:
    """The training times that the options ask for; None for ridge, whose penalties take their place."""
    if isinstance(rule, Ridge):
        return None
    if options.taus:
        return np.asarray(options.taus)
    return theory.time_grid(problem, num_times=options.num_times)


def closed_curves(problem: Problem, taus: np.ndarray | None, rule: Rule, tolerance: float) -> tuple[LearningCurves, LearningCurves | None]:
    """Closed-form curves at the times that are shown, and at those from which the times of each class are read (None for ridge).

    Raises:
        InputError: as `theory.learning_curves`.
    """
    if isinstance(rule, Ridge):
        return theory.learning_curves(problem, taus, rule=rule, tolerance=tolerance), None
    return theory.covering_curves(problem, taus, rule=rule, tolerance=tolerance)


def closed_spectrum(problem: Problem) -> Spectrum | None:
    """The spectrum in closed form; None, with a note, where too many directions of covariances that do not commute are coupled."""
    try:
        coupled_directions(problem)
    except InputError as err:
        note(f"the spectrum is left out: {err}")
        return None
    return theory.spectrum(problem)


def run_record(command: str, options: Curves) -> dict[str, Any]:
    """What a result file records of the command that made it; no paths."""
    record: dict[str, Any] = {"command": command, **rule_record(options)}
    for name in ("tolerance", "d", "num_seeds", "krylov_tolerance"):
        value = getattr(options, name, None)
        if value is not None:
            record[name] = value
    if options.penalties:
        record["penalties"] = ", ".join(repr(value) for value in options.penalties)
    if isinstance(options, Networks):
        record |= {"random_seed": options.seed, "solver": options.solver}
    return record
