"""The command plan: what networks of a problem would cost by every solver."""

import dataclasses

from rfdiff import simulation
from rfdiff.cli.command import Command
from rfdiff.cli.options import MOST_POINTS, MOST_SEEDS, FloatingType, ProblemFile, between, check, dimension
from rfdiff.cli.terminal import read_problem, say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory, work and time of every solver for the networks of a problem, and which solver is taken. Computes and writes nothing."""

    problem: ProblemFile
    """Problem file; experiments/problem.toml is a commented example."""
    d: int = 100
    """Dimension of the data; a network has psi_p d features and psi_n d training samples."""
    seeds: int = 10
    """Number of independent networks."""
    points: int = 80
    """Number of training times."""
    dtype: FloatingType = None
    """Floating type; if not given, float64 on a CPU and float32 on an accelerator."""


def run(options: Plan) -> int:
    """Print the estimate of every solver.

    Raises:
        InputError: bad input.
    """
    check(
        options,
        d=dimension(options.d),
        seeds=between(options.seeds, 1, MOST_SEEDS),
        points=between(options.points, 3, MOST_POINTS),
    )
    plan = simulation.plan(read_problem(options.problem), options.d, options.points, options.seeds, options.dtype)
    say(str(plan) if plan.solver else f"{plan}\nnothing fits; allowed: a smaller d, psi_p or psi_n, or float32")
    return 0


COMMAND = Command("plan", Plan, run)
