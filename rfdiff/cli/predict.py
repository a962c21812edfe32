"""The command predict: closed-form learning curves and spectrum of a problem."""

import dataclasses
import time

from rfdiff.cli.command import Command
from rfdiff.cli.curve_options import Closed, Curves, check_curves, closed_curves, closed_spectrum, run_record, training_times
from rfdiff.cli.curve_results import FILES, show
from rfdiff.cli.folder import check_drawing, results_folder
from rfdiff.cli.options import read_problem
from rfdiff.cli.rule_options import training_rule
from rfdiff.cli.terminal import note, say_cost
from rfdiff.files import result_file
from rfdiff.files.provenance import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Closed, Curves):
    """Compute learning curves and spectrum in closed form."""


def run(options: Predict) -> int:
    """Compute the closed form, write it, print its times and draw it.

    Raises:
        InputError: bad input, or results in the folder.
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    rule = training_rule(options)
    problem = read_problem(options.problem)
    check_curves(options, problem, rule)
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        taus = training_times(options, problem, rule)
        note("closed form: learning curves and spectrum")
        curves, covering = closed_curves(problem, taus, rule, options.tolerance)
        record = provenance(**run_record("predict", options))
        result = result_file.Result(problem, curves, closed_spectrum(problem), metadata=record, covering=covering)
        result_file.save(result, options.out / FILES.data)
        status = show(result, options.out, options.q, options, replace=True)
    say_cost(start, options.table)
    return status


COMMAND = Command("predict", Predict, run)
