"""The command design: the setting that serves a goal best, what it costs, and the trade-off between the classes."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
import xarray as xr

from rfdiff import design, plots
from rfdiff.cli.command import AGREE, Command
from rfdiff.cli.folder import Files, check_drawing, drawn, redraw_dataset, results_folder, write_figures
from rfdiff.cli.options import (
    LARGEST_KEY,
    ClassPair,
    Drawing,
    Flag,
    Names,
    Number,
    Numbers,
    Output,
    ProblemFile,
    Redrawing,
    between,
    check,
    dimension,
    fraction,
    hint,
    read_problem,
)
from rfdiff.cli.rule_options import RuleOptions, rule_record, rule_text, training_rule
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import report, say_cost
from rfdiff.design.proposals import SETTINGS
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import save_dataset
from rfdiff.problem import Problem
from rfdiff.progress import reporting
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.simulation.features import sizes_at
from rfdiff.simulation.seed_batches import MOST_SEEDS
from rfdiff.theory.input_checks import tolerance_allowed

CONTENT = "design"
FILES = Files("design.nc", {"trade_off": ()})
GOAL_OPTIONS = {"weights": "goal_weights", "classes": "pair"}  # options that give the numbers of a goal under other names
DEFAULT_LEVERS = (("loss_weights", "stop_time"), ("step", "batch", "averaging", "stop_time"))  # of gradient flow, and of SGD
SHOWN = {"unchanged": "unchanged", "weights": "best loss weights", "samples": "more samples of class {worst}", "best": "best of all levers"}

GOALS = (
    "What to make small. worst-class: the largest score error of any class. weighted-sum: the score errors times --goal-weights, added up. "
    "learned-before: the time to learn the first class of --pair, over tau_mem (the memorisation time) of the second."
)
LEVERS = (
    "What may change: loss_weights (weights of the classes in the training loss), stop_time, psi_p (features over d), samples_C (training "
    "samples of class number C); with --rule sgd also step, batch, averaging."
)
Goal = Annotated[Literal["worst-class", "weighted-sum", "learned-before"], tyro.conf.arg(help=GOALS)]
Levers = Annotated[Names, tyro.conf.arg(help=LEVERS), hint("(default: loss_weights stop_time; with sgd step batch averaging stop_time)")]
Budget = Annotated[Number, hint("(default: as many as the unchanged setting visits up to its best stop time)")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design(RuleOptions, Output):
    """Find the loss weights, stop time, samples or features that help a class that is not learned, and what they cost the others."""

    problem: ProblemFile
    """Problem file in TOML, with two or more classes; rfdiff init writes a commented one."""
    rule: Literal["gradient-flow", "sgd"] = "gradient-flow"
    """Training rule. With sgd also the best step, batch and averaging are sought."""
    step_size: Number = None
    """Step size of sgd, in units of the training time tau."""
    momentum: Number = None
    """Momentum of sgd, at least 0 and below 1."""
    weight_decay: Number = None
    """Weight decay: a number added to every eigenvalue of U, the matrix of second moments of the features."""
    averaging: Number = None
    """Moving average of the weights; with gradient-flow its time constant; with sgd its decay per step, below 1."""
    goal: Goal = "worst-class"
    goal_weights: Annotated[Numbers, hint("(default: equal ones)")] = None
    """For --goal weighted-sum: weights of the classes in the sum."""
    pair: ClassPair = None
    """For --goal learned-before: class to learn first, and class whose memorisation should come later."""
    descent: float = 0.9
    """For --goal learned-before: a class is learned when its test loss has fallen by this fraction of its whole descent."""
    levers: Levers = None
    factor: float = 4.0
    """Samples may grow by at most this factor; psi_p and the batch of sgd may grow or shrink by it."""
    budget: Budget = None
    """For --rule sgd: how many samples a training may visit (steps times batch), divided by d."""
    tau: Number = None
    """Fixed stop time, if stop_time is not a lever; inf means convergence."""
    tolerance: float = 1e-4
    """Largest numerical error allowed in a loss of the closed form."""
    verify: Flag = False
    """Also train networks at the proposed setting and at the unchanged one."""
    d: int = 100
    """For --verify: dimension of the data."""
    num_seeds: int = 10
    """For --verify: number of networks at each setting."""
    seed: int = 0
    """For --verify: random seed of the networks."""


def run(options: Design) -> int:
    """Search the best setting, try it on networks if asked to, write, draw and print it.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, or existing results in the folder.
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    check(options, descent=fraction(options.descent, "descent"), tolerance=tolerance_allowed(options.tolerance))
    problem = read_problem(options.problem)
    goal, levers, rule = chosen(problem, options)
    if options.verify:
        check(
            options,
            d=dimension(options.d),
            num_seeds=(2 <= options.num_seeds <= MOST_SEEDS, f"2 to {MOST_SEEDS}, for a standard error"),
            seed=between(options.seed, 0, LARGEST_KEY),
        )
        sizes_at(problem, options.d)
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        with reporting("closed form: searches for the best setting", unit="search") as told:
            found = design.propose(
                problem, goal, levers, tau=options.tau, rule=rule, budget=options.budget, tolerance=options.tolerance, progress=told
            )
        data = found.to_xarray()
        if options.verify:
            with reporting(f"simulation at d = {options.d}") as told:
                key = jax.random.key(options.seed)
                trial = design.verify(found, problem, d=options.d, key=key, num_seeds=options.num_seeds, rule=rule, progress=told)
            data = data.merge(trial.to_xarray(), combine_attrs="no_conflicts")
        record = {**rule_record(options), "command": "design", "tolerance": options.tolerance}
        dataset = data.assign_attrs(content=CONTENT, problem=problem.record(), **record)
        save_dataset(dataset, options.out / FILES.data, seconds=round(time.monotonic() - start, 1))
        show(dataset, options.out, options, replace=True)
    say_cost(start, options.table)
    return AGREE


def chosen(problem: Problem, options: Design) -> tuple[design.Goal, design.Levers, GradientFlow | MinibatchSGD]:
    """Goal, levers and training rule that the options name.

    Raises:
        InputError: naming the option.
    """
    for name, goal in (("goal_weights", "weighted-sum"), ("pair", "learned-before")):
        if getattr(options, name) is not None and options.goal != goal:
            raise InputError(f"--{name.replace('_', '-')}: not an option of --goal {options.goal}; it goes with {goal}")
    if problem.num_classes < 2:
        raise InputError("problem: 1 class; allowed: at least 2, between which a design weighs")
    pair = (0, 1) if options.pair is None else options.pair
    try:
        goal_found = design.goal_of(options.goal, problem.num_classes, weights=options.goal_weights, pair=pair, descent=options.descent)
    except InputError as err:
        name, colon, fault = str(err).partition(":")
        raise InputError(f"{GOAL_OPTIONS.get(name, name)}{colon}{fault}") from err
    names = DEFAULT_LEVERS[options.rule == MinibatchSGD.name] if options.levers is None else options.levers
    levers = design.levers_of(names, problem.num_classes, options.factor)
    if levers.stop_time != (options.tau is None):
        what = "given, and stop_time is a lever" if levers.stop_time else "missing, and stop_time is no lever"
        raise InputError(f"--tau: {what}; allowed: one of the two")
    rule: Any = training_rule(options)
    design.checked_design(problem, goal_found, levers, tau=options.tau, rule=rule, budget=options.budget)
    if options.verify and isinstance(rule, MinibatchSGD):
        smallest = float(rule.batch_per_dimension) / (levers.factor if levers.batch else 1)
        dataclasses.replace(rule, batch_per_dimension=smallest).batch_size(options.d)
    return goal_found, levers, rule


def redraw(options: Redrawing) -> int:
    """Print the table of a design.nc and draw its figure again, as `redraw_dataset`."""
    return redraw_dataset(options, CONTENT, FILES, show)


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> int:
    """Draw the trade-off, print the settings and the advice, and say where the figure is."""
    proposal = design.Proposal.from_xarray(dataset)
    tables = [settings_table(proposal, drawing.class_names)]
    if "simulated" in dataset:
        tables.append(trial_table(design.Trial.from_xarray(dataset), drawing.class_names))
    figures = drawn(drawing, "trade_off", functools.partial(plots.trade_off, dataset))
    names = write_figures(out, FILES, figures, drawing, replace)
    rule = rule_text(dataset.attrs)
    trained = [f"training rule, unchanged: {rule}"] if rule else []
    report(tables, drawing.table, [*trained, *proposal.advice(), f"in {out}: {', '.join(names)}"])
    return AGREE


def settings_table(proposal: design.Proposal, class_names: tuple[str, ...] | None = None) -> Table:
    """The settings, one line for each and class."""
    numbers = {"goal": proposal.goal, "stop time": proposal.tau, "psi_p": proposal.psi_p}
    of_sgd = {
        "step": proposal.step_size, "batch / d": proposal.batch, "averaging": proposal.averaging, "visited / d": proposal.visited
    }  # fmt: skip
    numbers |= {name: values for name, values in of_sgd.items() if values is not None}
    headings = ["setting", *numbers, "class", "loss weight", "samples / d", "score error", "change"]
    rows: list[list[Cell]] = []
    for i, name in enumerate(SETTINGS):
        label = SHOWN[name].format(worst=proposal.worst)
        for c in range(proposal.score_error.shape[1]):
            change = measured(float(proposal.score_error[i, c] - proposal.score_error[0, c]))
            rows.append(
                [
                    words(label), *(measured(values[i]) for values in numbers.values()),
                    words(c if class_names is None else class_names[c]), measured(proposal.loss_weights[i, c]),
                    measured(proposal.samples[i, c]), measured(proposal.score_error[i, c]), change,
                ]
            )  # fmt: skip
    return Table("settings", headings, rows, grouped=1 + len(numbers))


def trial_table(trial: design.Trial, class_names: tuple[str, ...] | None = None) -> Table:
    """Score errors of networks at both settings, with standard errors, beside the theory's, one line per class."""
    headings = ["class", "unchanged", "theory", "best", "theory (best)", "change", "theory (change)"]
    rows: list[list[Cell]] = []
    for c in range(trial.means.shape[1]):
        cells = [words(c if class_names is None else class_names[c])]
        for i in range(2):
            cells += [measured(trial.means[i, c], trial.stderr[i, c]), measured(trial.predicted[i, c])]
        predicted = float(np.subtract(trial.predicted[1, c], trial.predicted[0, c]))
        rows.append([*cells, measured(trial.difference[c], trial.difference_stderr[c]), measured(predicted)])
    return Table(f"networks at d = {trial.dimension}: score error", headings, rows)


COMMAND = Command("design", Design, run)
