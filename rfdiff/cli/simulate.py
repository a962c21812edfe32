"""The command simulate: learning curves and spectrum of real networks."""

import dataclasses
import time

import jax

from rfdiff.cli.command import Command
from rfdiff.cli.curve_options import Curves, Networks, check_curves, check_networks, run_record
from rfdiff.cli.curve_results import FILES, show
from rfdiff.cli.folder import check_drawing, results_folder
from rfdiff.cli.networks import ensembles, shared_times, solvers_for
from rfdiff.cli.options import read_problem
from rfdiff.cli.process_options import Processes, by_writer, check_processes, ended, held_by_writer, join
from rfdiff.cli.rule_options import training_rule
from rfdiff.curves import LearningCurves
from rfdiff.files import kept_parts, result_file
from rfdiff.files.provenance import provenance
from rfdiff.simulation.distributed import together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(Processes, Networks, Curves):
    """Train real networks and measure their learning curves and spectrum."""


def run(options: Simulate) -> int:
    """Train the networks, write their curves, print their times and draw them; an interrupted run resumes from the finished networks.

    Of several processes each trains some of the networks, and one does all the rest.

    Raises:
        InputError: bad input, networks that do not fit in memory, or results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is stored.
        OtherProcessError: another process failed.
    """
    start = time.monotonic()
    rule = training_rule(options)
    check_networks(options, 1, 1)
    check_processes(options, rule)
    problem = read_problem(options.problem)
    check_curves(options, problem, rule)
    check_drawing(options, problem.num_classes)
    mesh = join(options)
    solvers = together(lambda: solvers_for(problem, options, rule, (options.d,), mesh))
    key = jax.random.key(options.seed)

    def write(simulated: LearningCurves | None) -> int:
        record = provenance(**run_record("simulate", options))
        result = result_file.Result(problem, simulation=simulated, metadata=record)
        result_file.save(result, options.out / FILES.data)
        kept_parts.remove(networks.folder(options.d, key))
        return show(result, options.out, options.q, options, replace=True)

    with held_by_writer(results_folder(options.out, FILES, options.overwrite)):
        networks = ensembles(problem, shared_times(options, problem, rule), rule, options, solvers, mesh)
        simulated = networks.run(options.d, key)
        status = by_writer(lambda: write(simulated))
    return ended(status, start, options.table)


COMMAND = Command("simulate", Simulate, run)
