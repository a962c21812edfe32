"""Command line: predict | simulate | compare | plan | phase-map | times | speciate | generate | sweep | collect | plot | images."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfdiff import plots, simulation, theory
from rfdiff.agreement import Agreement, assess
from rfdiff.class_times import times
from rfdiff.cli import generate as generate_command
from rfdiff.cli import phase_map as map_command
from rfdiff.cli import speciate as speciate_command
from rfdiff.cli import sweep as sweep_command
from rfdiff.cli import tables
from rfdiff.cli import times as times_command
from rfdiff.cli.backward_options import Generate, Speciate
from rfdiff.cli.checks import check_options, read_problem, redraw_folder, training_rule
from rfdiff.cli.images_options import Images
from rfdiff.cli.parsing import Collect, Command, Compare, Networks, PhaseMap, Plan, Plot, Predict, Simulate, SweepRun, Times, parse
from rfdiff.cli.terminal import prepare_folder, say
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.files import dataset_file, kept_parts, result_file
from rfdiff.files.provenance import provenance, version_of
from rfdiff.images import readout
from rfdiff.problem import Problem
from rfdiff.progress import progress
from rfdiff.rules import Ridge, Rule
from rfdiff.simulation.features import LARGEST_DIMENSION, floating_type

AGREE, DISAGREE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: the words after `rfdiff`; those of this process if None.

    Returns:
        0 done (and in agreement), 1 theory and simulation disagree or cells of a sweep are not done, 2 bad input or too little
        memory (one line on standard error), 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if list(arguments) == ["--version"]:
        print(f"rfdiff {version_of('rfdiff')}")
        return AGREE
    try:
        return run(parse(arguments))
    except (ValueError, OSError) as err:
        print(f"rfdiff: {' '.join(str(err).split())}", file=sys.stderr)
        return BAD_INPUT
    except (MemoryError, RuntimeError) as err:  # a RuntimeError is how JAX tells that an accelerator is out of memory
        reason = "out of memory" if isinstance(err, MemoryError) else f"the computation failed ({type(err).__name__})"
        print(f"rfdiff: {': '.join([reason, ' '.join(str(err).split())]).removesuffix(': ')}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        print(f"rfdiff: interrupted{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # after printing help
        return int(stop.code or 0)


def run(command: Command) -> int:
    """Do what a command asks for, and return the exit status."""
    if isinstance(command, PhaseMap):
        return map_command.compute(command)
    if isinstance(command, Times):
        return times_command.compute(command)
    if isinstance(command, Plan):
        return estimate(command)
    if isinstance(command, SweepRun):
        return sweep_command.compute(command)
    if isinstance(command, Collect):
        return sweep_command.gather(command)
    if isinstance(command, Speciate):
        return speciate_command.compute(command)
    if isinstance(command, Generate):
        return generate_command.compute(command)
    if isinstance(command, Images):
        return images(command)
    return plot(command) if isinstance(command, Plot) else compute(command)


def images(command: Images) -> int:
    """Do what a command on images asks for; the only one that needs flax and orbax.

    Raises:
        InputError: bad input, or the extra is not installed.
        OSError: files that cannot be read or written.
    """
    try:
        from rfdiff.cli import images as image_command
    except ModuleNotFoundError as err:
        raise InputError(f"images: the module {err.name} is missing; allowed: an environment with the extra, rfdiff[images]") from err
    return image_command.compute(command)


def compute(options: Predict | Simulate | Compare) -> int:
    """Compute what a command asks for, write it, print it.

    Raises:
        InputError: bad input, or results that stand in the folder.
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    rule = training_rule(options)
    check_options(options)
    problem = read_problem(options.problem)
    if options.taus:
        rule.schedule(options.taus, problem.kappa)
    solvers = check_networks(problem, options) if isinstance(options, Simulate | Compare) else {}
    files = ("result.nc", "curves.png", "spectrum.png") + ("agreement.png",) * isinstance(options, Compare)
    prepare_folder(options.out, files, options.overwrite)
    taus = None if isinstance(rule, Ridge) else np.asarray(options.taus) if options.taus else theory.time_grid(problem, num=options.points)
    predicted = spectrum = simulated = smaller = None
    if isinstance(options, Predict | Compare):
        print("closed form: learning curves and spectrum", file=sys.stderr, flush=True)
        predicted = theory.learning_curves(problem, taus, rule=rule, tolerance=options.tolerance)
        spectrum = theory.spectrum(problem)
    kept: list[Path] = []
    if isinstance(options, Simulate):
        simulated = run_networks(problem, taus, options.d, jax.random.key(options.seed), options, rule, solvers, kept)
    if isinstance(options, Compare):
        large, small = jax.random.split(jax.random.key(options.seed))  # as `agreement.compare`, so that both give the same networks
        smaller = run_networks(problem, taus, options.d // 2, small, options, rule, solvers, kept)
        simulated = run_networks(problem, taus, options.d, large, options, rule, solvers, kept)
    result = result_file.Result(problem, predicted, spectrum, simulated, smaller, provenance(**run_record(options)))
    result_file.save(result, options.out / "result.nc")
    for folder in kept:
        kept_parts.remove(folder)
    status = show(result, options.out, options.q)
    say(tables.cost_line(time.monotonic() - start))
    return status


def plot(options: Plot) -> int:
    """Draw the figures of a result file, or of a file of another command, again.

    Raises:
        InputError: a file without anything to draw; an option that does not go with it; figures that stand in another folder.
        OSError: the folder cannot be written to.
    """
    if options.q is not None and not 0 < options.q < 1:
        raise InputError(f"--q: {options.q!r}; allowed: 0 < q < 1")
    content = dataset_file.content_of(options.file)
    redrawn = (times_command, sweep_command, speciate_command, generate_command, readout)
    if options.q is not None and content in (map_command.CONTENT, *(command.CONTENT for command in redrawn)):
        raise InputError(f"--q: {options.q!r}; {options.file} holds times read at its own q; compute it again with this one")
    if content != map_command.CONTENT and (options.classes is not None or options.quantity != "all"):
        raise InputError(f"--{'quantity' if options.classes is None else 'classes'}: goes with a file of rfdiff phase-map alone")
    if content == map_command.CONTENT:
        return map_command.redraw(options)
    for command in redrawn:
        if content == command.CONTENT:
            return command.redraw(options)
    result = result_file.load(options.file)
    if result.theory is None and result.simulation is None:
        raise InputError(f"{options.file}: holds neither theory nor simulation, nothing to draw curves of")
    complete = result.theory is not None and result.simulation is not None and result.smaller is not None
    out = redraw_folder(options, ("curves.png", "spectrum.png") + ("agreement.png",) * complete)
    return show(result, out, 0.5 if options.q is None else options.q)


def show(result: result_file.Result, out: Path, q: float) -> int:
    """Print the table and the verdict of a result, draw its figures, and say where they are.

    Returns:
        The exit status that the verdict gives.
    """
    say(tables.times_table(result.theory, result.simulation, q))
    agreement: Agreement | None = None
    if result.theory is not None and result.simulation is not None and result.smaller is not None:
        agreement = assess(result.theory, result.simulation, result.smaller)
        say("\n".join(tables.verdict_lines(agreement)))
    reference = result.theory if result.theory is not None else result.simulation
    marked = None if reference is None else times(reference, q)
    figures = {"curves.png": plots.plot_curves(result.theory, result.simulation, marked)}
    empirical = None if result.simulation is None else result.simulation.spectrum
    if result.spectrum is not None or empirical is not None:
        figures["spectrum.png"] = plots.plot_spectrum(result.spectrum, empirical)
    if agreement is not None:
        figures["agreement.png"] = plots.plot_agreement(agreement)
    for name, figure in figures.items():
        plots.save_figure(figure, out / name)
    data = ["result.nc"] if (out / "result.nc").exists() else []
    say(f"in {out}: {', '.join([*data, *figures])}")
    return AGREE if agreement is None or agreement.agrees else DISAGREE


def run_networks(
    problem: Problem,
    taus: Any,
    d: int,
    key: jax.Array,
    options: Simulate | Compare,
    rule: Rule,
    solvers: dict[int, str],
    kept: list[Path],
) -> LearningCurves:
    """Simulate the seeds of a command one by one, each kept in a checkpoint as soon as it is done.

    Raises:
        InputError: as `simulation.run_seeds`; or a damaged checkpoint.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    dtype = floating_type(None if options.dtype == "default" else options.dtype)
    solver, tolerance = solvers[d], options.krylov_tolerance
    folder = kept_parts.folder_for(options.out, problem, taus, d, key, rule, dtype, solver, tolerance)
    kept.append(folder)
    batches = {r: batch for r in range(options.seeds) if (batch := kept_parts.load_seed(folder, r)) is not None}
    try:
        with progress(f"simulation at d = {d}", options.seeds, len(batches)) as advance:
            for r in range(options.seeds):
                if r not in batches:
                    batches[r] = simulation.run_seeds(
                        problem, taus, d, key, [r], rule=rule, dtype=dtype, solver=solver, tolerance=tolerance
                    )
                    kept_parts.save_seed(folder, batches[r])
                    advance(1)
    except KeyboardInterrupt as stop:
        count = sum(kept_parts.holds(folder, r) for r in range(options.seeds))  # what is on disk: the signal may fall anywhere
        raise KeyboardInterrupt(f"{count} of {options.seeds} seeds at d = {d} are kept, the same command goes on from them") from stop
    return simulation.summarize([batches[r] for r in range(options.seeds)])


def check_networks(problem: Problem, options: Simulate | Compare) -> dict[int, str]:
    """The solver of each dimension; networks that do not fit in memory are refused before the theory is computed and the folder is made.

    Raises:
        InputError: naming d, with the estimate and what would fit.
    """
    num_times = len(options.taus or options.penalties or ()) or options.points
    dtype = floating_type(None if options.dtype == "default" else options.dtype)
    asked = None if options.solver == "auto" else options.solver
    dimensions = (options.d, options.d // 2) if isinstance(options, Compare) else (options.d,)
    return {d: simulation.fitting_solver(problem, d, num_times, options.seeds, dtype, solver=asked) for d in dimensions}


def estimate(options: Plan) -> int:
    """Print what networks of a problem would cost by every solver.

    Raises:
        InputError: bad input.
    """
    for name, least, most in (("d", 1, LARGEST_DIMENSION), ("seeds", 1, 2**32 - 1), ("points", 3, 100_000)):
        if not least <= getattr(options, name) <= most:
            raise InputError(f"--{name}: {getattr(options, name)}; allowed: {least} to {most}")
    dtype = None if options.dtype == "default" else options.dtype
    found = simulation.plan(read_problem(options.problem), options.d, options.points, options.seeds, dtype)
    say(str(found) if found.solver else f"{found}\nnothing fits; allowed: a smaller d, psi_p or psi_n, or float32")
    return AGREE


def run_record(options: Predict | Simulate | Compare) -> dict[str, Any]:
    """What a result file records of the command that made it; no paths."""
    record: dict[str, Any] = {"command": type(options).__name__.lower(), "rule": options.rule}
    for name in ("step_size", "momentum", "tolerance", "d", "seeds", "krylov_tolerance"):
        value = getattr(options, name, None)
        if value is not None:
            record[name] = value
    if options.penalties:
        record["penalties"] = ", ".join(repr(value) for value in options.penalties)
    if isinstance(options, Networks):
        record |= {"random_seed": options.seed, "solver": options.solver}
    return record


if __name__ == "__main__":
    sys.exit(main())
