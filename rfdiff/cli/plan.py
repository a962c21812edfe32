"""The command plan: what networks of a problem would cost by every solver."""

import dataclasses

from rfdiff import simulation
from rfdiff.cli.command import Command
from rfdiff.cli.options import MOST_POINTS, FloatingType, Printing, ProblemFile, between, check, dimension, read_problem
from rfdiff.cli.tables import Table, shown, words
from rfdiff.cli.terminal import report
from rfdiff.simulation.seed_batches import MOST_SEEDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions(Printing):
    """Estimate memory, work and time of every solver for the networks of a problem, and say which is chosen. Trains and writes nothing."""

    problem: ProblemFile
    """Problem file in TOML; rfdiff init writes a commented one."""
    d: int = 100
    """Dimension of the data; a network has psi_p * d features and psi_n * d training samples, with psi_p and psi_n of the problem file."""
    num_seeds: int = 10
    """Number of independent networks."""
    num_times: int = 80
    """Number of training times."""
    dtype: FloatingType = None
    """Floating type of the networks."""


def run(options: PlanOptions) -> int:
    """Print the estimate of every solver.

    Raises:
        InputError: bad input.
    """
    check(
        options,
        d=dimension(options.d),
        num_seeds=between(options.num_seeds, 1, MOST_SEEDS),
        num_times=between(options.num_times, 3, MOST_POINTS),
    )
    plan = simulation.plan(
        read_problem(options.problem), d=options.d, num_times=options.num_times, num_seeds=options.num_seeds, dtype=options.dtype
    )
    memory = "unknown" if plan.available is None else f"{plan.available / 2**30:.3g} GiB"
    head = (
        f"p = {plan.sizes.p}, n = {plan.sizes.n}, d = {plan.sizes.d}, {plan.dtype}, {plan.num_seeds} networks; memory {memory}, "
        f"matrix products at {plan.rate / 1e9:.3g} GFLOP/s"
    )
    rows = [
        [
            words(one.solver),
            *(shown(value, ".3g") for value in (one.bytes / 2**30, one.flops / 1e12, one.seconds, one.seconds * plan.num_seeds)),
            words("taken" if one.solver == plan.solver else "fits" if one.fits else "does not fit"),
        ]
        for one in plan.estimates
    ]
    headings = ["solver", "GiB", "TFLOP each", "s each", "s in all", "verdict"]
    nothing = [] if plan.solver else ["nothing fits; allowed: a smaller d, psi_p or psi_n, or float32"]
    report([Table("solvers", headings, rows)], options.table, nothing, [head])
    return 0


COMMAND = Command("plan", PlanOptions, run)
