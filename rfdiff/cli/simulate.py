"""The command simulate: learning curves and spectrum of real networks."""

import dataclasses
import time

import jax

from rfdiff.cli.command import Command
from rfdiff.cli.curve_options import Curves, Networks, check_curves, check_networks, run_record, training_times
from rfdiff.cli.curve_results import FILES, show
from rfdiff.cli.folder import check_drawing, results_folder
from rfdiff.cli.networks import ensembles, solvers_for
from rfdiff.cli.options import read_problem
from rfdiff.cli.rule_options import training_rule
from rfdiff.cli.terminal import say_cost
from rfdiff.files import kept_parts, result_file
from rfdiff.files.provenance import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(Networks, Curves):
    """Train real networks and measure their learning curves and spectrum."""


def run(options: Simulate) -> int:
    """Train the networks, write their curves, print their times and draw them; an interrupted run resumes from the finished networks.

    Raises:
        InputError: bad input, networks that do not fit in memory, or results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is stored.
    """
    start = time.monotonic()
    rule = training_rule(options)
    check_networks(options, 1, 1)
    problem = read_problem(options.problem)
    check_curves(options, problem, rule)
    solvers = solvers_for(problem, options, rule, (options.d,))
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        networks = ensembles(problem, training_times(options, problem, rule), rule, options, solvers)
        key = jax.random.key(options.seed)
        record = provenance(**run_record("simulate", options))
        result = result_file.Result(problem, simulation=networks.run(options.d, key), metadata=record)
        result_file.save(result, options.out / FILES.data)
        kept_parts.remove(networks.folder(options.d, key))
        status = show(result, options.out, options.q, options, replace=True)
    say_cost(start, options.table)
    return status


COMMAND = Command("simulate", Simulate, run)
