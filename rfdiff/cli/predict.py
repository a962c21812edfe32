"""The command predict: closed-form learning curves and spectrum of a problem."""

import dataclasses
import time

from rfdiff import theory
from rfdiff.cli.command import Command
from rfdiff.cli.curve_options import Closed, Curves, check_curves, run_record, training_rule, training_times
from rfdiff.cli.curve_results import FIGURES, FILE, show
from rfdiff.cli.terminal import note, prepare_folder, read_problem, say_cost
from rfdiff.files import result_file
from rfdiff.files.provenance import provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Closed, Curves):
    """Closed-form learning curves and spectrum."""


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
    prepare_folder(options.out, (FILE, *FIGURES[:2]), options.overwrite)
    taus = training_times(options, problem, rule)
    note("closed form: learning curves and spectrum")
    curves = theory.learning_curves(problem, taus, rule=rule, tolerance=options.tolerance)
    record = provenance(**run_record("predict", options))
    result = result_file.Result(problem, curves, theory.spectrum(problem), metadata=record)
    result_file.save(result, options.out / FILE)
    status = show(result, options.out, options.q)
    say_cost(time.monotonic() - start)
    return status


COMMAND = Command("predict", Predict, run)
