"""The command compare: theory beside real networks, and the verdict whether they agree."""

import dataclasses
import time

import jax

from rfdiff.cli.command import Command
from rfdiff.cli.curve_options import (
    Closed,
    Curves,
    Networks,
    check_curves,
    check_networks,
    closed_curves,
    closed_spectrum,
    run_record,
    training_times,
)
from rfdiff.cli.curve_results import FILES, show
from rfdiff.cli.folder import check_drawing, results_folder
from rfdiff.cli.networks import ensembles, solvers_for
from rfdiff.cli.options import read_problem
from rfdiff.cli.rule_options import training_rule
from rfdiff.cli.terminal import note, say_cost
from rfdiff.files import kept_parts, result_file
from rfdiff.files.provenance import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Networks, Closed, Curves):
    """Compare theory with simulation and say whether they agree. Simulates at d and d/2, to estimate the effect of finite size."""


def run(options: Compare) -> int:
    """Compute both sides, write them, print times and verdict, draw them; an interrupted run resumes from the finished networks.

    Returns:
        0 if they agree, 1 if not.

    Raises:
        InputError: bad input, networks that do not fit in memory, or results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is stored.
    """
    start = time.monotonic()
    rule = training_rule(options)
    check_networks(options, 4, 2, ", for a standard error")
    problem = read_problem(options.problem)
    check_curves(options, problem, rule)
    half = options.d // 2
    solvers = solvers_for(problem, options, rule, (options.d, half))
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        taus = training_times(options, problem, rule)
        note("closed form: learning curves and spectrum")
        predicted, covering = closed_curves(problem, taus, rule, options.tolerance)
        spectrum = closed_spectrum(problem)
        networks = ensembles(problem, taus, rule, options, solvers)
        large, small = jax.random.split(jax.random.key(options.seed))  # as `agreement.compare`, so that both give the same networks
        smaller = networks.run(half, small)
        simulated = networks.run(options.d, large)
        record = provenance(**run_record("compare", options))
        result = result_file.Result(problem, predicted, spectrum, simulated, smaller, record, covering)
        result_file.save(result, options.out / FILES.data)
        for d, key in ((half, small), (options.d, large)):
            kept_parts.remove(networks.folder(d, key))
        status = show(result, options.out, options.q, options, replace=True)
    say_cost(start, options.table)
    return status


COMMAND = Command("compare", Compare, run)
