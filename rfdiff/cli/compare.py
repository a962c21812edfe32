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
)
from rfdiff.cli.curve_results import FILES, show
from rfdiff.cli.folder import check_drawing, results_folder
from rfdiff.cli.networks import ensembles, shared_times, solvers_for
from rfdiff.cli.options import read_problem
from rfdiff.cli.process_options import Processes, by_writer, check_processes, ended, held_by_writer, join
from rfdiff.cli.rule_options import training_rule
from rfdiff.cli.terminal import note
from rfdiff.curves import LearningCurves, Spectrum
from rfdiff.files import kept_parts, result_file
from rfdiff.files.provenance import provenance
from rfdiff.simulation.distributed import together

Predicted = tuple[LearningCurves, LearningCurves | None, Spectrum | None]  # at the times shown, at those of every mode, and the spectrum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Processes, Networks, Closed, Curves):
    """Compare theory with simulation and say whether they agree. Simulates at d and d/2, to estimate the effect of finite size."""


def run(options: Compare) -> int:
    """Compute both sides, write them, print times and verdict, draw them; an interrupted run resumes from the finished networks.

    Of several processes each trains some of the networks, and one does all the rest.

    Returns:
        0 if they agree, 1 if not.

    Raises:
        InputError: bad input, networks that do not fit in memory, or results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is stored.
        OtherProcessError: another process failed.
    """
    start = time.monotonic()
    rule = training_rule(options)
    check_networks(options, 4, 2, ", for a standard error")
    check_processes(options, rule)
    problem = read_problem(options.problem)
    check_curves(options, problem, rule)
    check_drawing(options, problem.num_classes)
    mesh = join(options)
    half = options.d // 2
    solvers = together(lambda: solvers_for(problem, options, rule, (options.d, half), mesh))
    large, small = jax.random.split(jax.random.key(options.seed))  # as `agreement.compare`, so that both give the same networks

    def predict() -> Predicted:
        note("closed form: learning curves and spectrum")
        return *closed_curves(problem, taus, rule, options.tolerance), closed_spectrum(problem)

    def write() -> int:
        assert predicted is not None  # in the process that writes files
        closed, covering, spectrum = predicted
        record = provenance(**run_record("compare", options))
        result = result_file.Result(problem, closed, spectrum, simulated, smaller, record, covering)
        result_file.save(result, options.out / FILES.data)
        for d, key in ((half, small), (options.d, large)):
            kept_parts.remove(networks.folder(d, key))
        return show(result, options.out, options.q, options, replace=True)

    with held_by_writer(results_folder(options.out, FILES, options.overwrite)):
        taus = shared_times(options, problem, rule)
        predicted = by_writer(predict)
        networks = ensembles(problem, taus, rule, options, solvers, mesh)
        smaller = networks.run(half, small)
        simulated = networks.run(options.d, large)
        status = by_writer(write)
    return ended(status, start, options.table)


COMMAND = Command("compare", Compare, run)
