"""The command phase-map: which of two classes comes first over two numbers of a problem, as a dataset, figures and a table."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
import xarray as xr

from rfdiff import plots, theory
from rfdiff.class_times import TIME_NAMES
from rfdiff.cli.command import AGREE, NOT_COMPUTED, Command
from rfdiff.cli.folder import Files, check_drawing, drawn, loss_weight_lines_of, redraw_folder, results_folder, write_figures
from rfdiff.cli.map_results import CONTENT, converged_cells, labelled, map_of, order_table
from rfdiff.cli.options import ClassPair, Drawing, NearOptimal, Output, ProblemFile, Quantity, Redrawing, check, fraction, read_problem
from rfdiff.cli.rule_options import RuleInTime, RuleOptions, rule_in_time, rule_record, rule_text
from rfdiff.cli.terminal import report, say_cost
from rfdiff.errors import InputError
from rfdiff.files import kept_parts
from rfdiff.files.contents import load_content
from rfdiff.files.dataset_file import save_dataset
from rfdiff.parameters import get_parameter
from rfdiff.plots.style import NotebookFigure
from rfdiff.problem import Problem
from rfdiff.progress import progress
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory.input_checks import tolerance_allowed
from rfdiff.theory.maps import MOST_CELLS, cells_in, problem_at

FILES = Files("phase_map.nc", {f"phase_map_{name}": () for name in TIME_NAMES})
MOST_VALUES = 10_000

AXES = (
    "Horizontal axis: t (diffusion time), psi_p (features over d), psi_n (training samples over d), weight_C (fraction of class C; the "
    "others keep their proportions), samples_C (of class C over d; the others keep theirs), loss_weight_C (weight of class C in the "
    "training loss), variance_C, variance_ratio (of class 0 over class 1, whose variance stays fixed) or centroid_norm_C (squared norm "
    "over d; directions stay fixed). C is the number of a class."
)
TIMES = (
    "Which time to draw: tau_gen (the class is learned), tau_stop (its test loss is lowest), tau_mem (it is memorised), tau_opt (see --q); "
    "the file always holds all four."
)
Axis = Annotated[tuple[str, float, float, int], tyro.conf.arg(metavar="NAME LOW HIGH NUM")]
Horizontal = Annotated[Axis, tyro.conf.arg(metavar="NAME LOW HIGH NUM", help=AXES)]
Scale = Literal["auto", "log", "linear"]
SHARES = ("weight_", "loss_weight_")  # numbers between 0 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseMapOptions(RuleOptions, Output):
    """Map which class comes first against two parameters of the problem (closed form)."""

    rule: RuleInTime = GradientFlow.name
    """Training rule; the options below say with which rules they go."""
    problem: ProblemFile
    """Problem file in TOML (rfdiff init writes a commented one); it holds everything that the axes do not vary."""
    x: Horizontal = ("variance_ratio", 0.25, 4.0, 33)
    y: Axis = ("weight_0", 0.1, 0.9, 33)
    """Vertical axis, with the same names."""
    x_scale: Scale = "auto"
    """Spacing of the horizontal axis; auto is linear for class fractions and loss weights and logarithmic for everything else."""
    y_scale: Scale = "auto"
    """Spacing of the vertical axis."""
    quantity: Annotated[Quantity, tyro.conf.arg(help=TIMES)] = "all"
    pair: ClassPair = None
    """Which two classes to compare; the file always holds all classes."""
    q: NearOptimal = 0.5
    tolerance: float = 1e-4
    """Largest numerical error allowed in a loss; cells (points of the map) above it count as failed."""


def run(options: PhaseMapOptions) -> int:
    """Compute a map, write it, draw it, print its table; an interrupted one resumes from the chunks of cells that are kept.

    Returns:
        Exit status 0; cells that failed are counted in the table, marked in the file and hatched in the figures.

    Raises:
        InputError: bad input, or existing results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    check(options, q=fraction(options.q), tolerance=tolerance_allowed(options.tolerance))
    rule = rule_in_time(options)
    problem = read_problem(options.problem)
    axes, scales = axes_of(problem, options)
    pair = pair_of(options.pair, problem.num_classes)
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        folder = kept_parts.map_folder(options.out, problem, axes, options.q, options.tolerance, rule)
        record = {"tolerance": options.tolerance, **rule_record(options)}
        dataset = labelled(_computed(problem, axes, rule, options, folder), problem, scales, record)
        save_dataset(dataset, options.out / FILES.data, command="phase-map", seconds=round(time.monotonic() - start, 1))
        kept_parts.remove(folder)
        status = show(dataset, options.out, options.quantity, pair, options, replace=True)
    say_cost(start, options.table)
    return status


def redraw(options: Redrawing) -> int:
    """Print the table of a phase_map.nc and draw its figures again.

    Raises:
        InputError: a damaged file, a class that is not there, or existing figures in another folder than that of the file.
        OSError: the folder cannot be written to.
    """
    dataset = load_content(options.file, CONTENT)
    pair = pair_of(options.pair, dataset.sizes["class"])
    check_drawing(options, dataset.sizes["class"])
    with redraw_folder(options, FILES) as out:
        return show(dataset, out, options.quantity, pair, options, replace=False)


def axes_of(problem: Problem, options: PhaseMapOptions) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Values (A,) and (B,) of the two axes, and the spacing of each ("log" or "linear"), by the names of their numbers.

    Raises:
        InputError: naming --x or --y: an unknown name, a number that the problem cannot vary, a range that is empty or leaves the allowed
            one, too few or too many values; or two numbers that cannot vary independently.
    """
    axes: dict[str, np.ndarray] = {}
    scales: dict[str, str] = {}
    for option, (name, low, high, num), scale in (("x", options.x, options.x_scale), ("y", options.y, options.y_scale)):
        try:
            _check_variable(problem, name)
        except ValueError as err:
            raise InputError(f"--{option}: {str(err).removeprefix('parameter: ')}") from err
        if name in axes:
            raise InputError(f"--y: {name}, as --x; allowed: another number of the problem")
        share = name.startswith(SHARES)
        spacing = ("linear" if share else "log") if scale == "auto" else scale
        least, most = (0.0, 1.0) if share else (0.0, math.inf)
        if not least < low < high < most:
            raise InputError(f"--{option}: {name} from {low:g} to {high:g}; allowed: {least:g} < LOW < HIGH < {most:g}")
        if not 2 <= num <= MOST_VALUES:
            raise InputError(f"--{option}: {num} values of {name}; allowed: 2 to {MOST_VALUES}")
        axes[name] = np.geomspace(low, high, num) if spacing == "log" else np.linspace(low, high, num)
        scales[name] = spacing
        for value in (low, high):
            _valid(option, problem, {name: value})
    if (cells := options.x[3] * options.y[3]) > MOST_CELLS:
        raise InputError(f"--x, --y: {options.x[3]} x {options.y[3]} = {cells} cells; allowed: at most {MOST_CELLS}")
    first, second = axes
    for a in options.x[1:3]:
        for b in options.y[1:3]:
            _valid("x, --y", problem, {first: a, second: b})
    return axes, scales


def pair_of(classes: tuple[int, int] | None, num_classes: int) -> tuple[int, int]:
    """The two classes that are compared.

    Raises:
        InputError: a class that is not there, one class twice, or any where there is only one class.
    """
    if classes is None:
        return 0, 1
    if num_classes == 1:
        raise InputError(f"--pair: {classes[0]} {classes[1]}; allowed: no --pair, since the problem has one class")
    if classes[0] == classes[1] or not all(0 <= c < num_classes for c in classes):
        raise InputError(f"--pair: {classes[0]} {classes[1]}; allowed: two different ones of 0 to {num_classes - 1}")
    return classes


def show(dataset: xr.Dataset, out: Path, quantity: str, pair: tuple[int, int], drawing: Drawing, replace: bool) -> int:
    """Draw the figures of a map, print its table, and say where they are.

    Returns:
        The exit status: 0, or 3 if no cell could be computed.
    """
    result = map_of(dataset)
    figures: dict[str, NotebookFigure] = {}
    for name in _shown(quantity):
        figures |= drawn(drawing, f"phase_map_{name}", functools.partial(plots.phase_map, result, name, pair=pair))
    names = write_figures(out, FILES, figures, drawing, replace)
    table, head = order_table(dataset, pair, drawing.class_names)
    rule = rule_text(dataset.attrs)
    notes = [*loss_weight_lines_of(dataset.attrs), *[f"training rule: {rule}"] * bool(rule)]
    report([table], drawing.table, [*notes, f"in {out}: {', '.join(names)}"], head)
    return AGREE if converged_cells(dataset).any() else NOT_COMPUTED


def _computed(problem: Problem, axes: Mapping[str, np.ndarray], rule: Rule, options: PhaseMapOptions, folder: Path) -> theory.PhaseMap:
    kept = kept_parts.KeptArrays(folder)
    total = math.prod(len(values) for values in axes.values())
    before = cells_in(kept)
    with progress("closed form: times in every cell", total, before, unit="cell") as advance:
        told = before

        def tell(done: int, _: int) -> None:
            nonlocal told
            if done > told:  # chunks that were kept come first, and were counted
                advance(done - told)
                told = done

        try:
            return theory.phase_map(problem, axes, rule=rule, q=options.q, tolerance=options.tolerance, progress=tell, store=kept)
        except KeyboardInterrupt as stop:
            count = cells_in(kept)  # what is on disk: the signal may fall anywhere
            raise KeyboardInterrupt(f"{count} of {total} cells are kept, the same command resumes from them") from stop


def _check_variable(problem: Problem, name: str) -> None:
    """Refuse a number that a problem does not have, or that is 0 and cannot be scaled.

    Raises:
        InputError: no such name or class, or a variance or centroid that is 0.
    """
    zero = [c for c in (0, 1) if name == "variance_ratio" and problem.num_classes > 1 and not problem.mixture.variances[c] > 0]
    if zero:
        raise InputError(f"parameter: {name} of a problem in which the variance of class {zero[0]} is 0; allowed: where both are > 0")
    present = get_parameter(problem, name)
    if not present > 0 and not name.startswith("loss_weight_"):
        raise InputError(f"parameter: {name} is {present:g} in the problem and cannot be scaled; allowed: a problem where it is > 0")


def _valid(option: str, problem: Problem, point: Mapping[str, float]) -> None:
    """Refuse a corner of the map that is no problem."""
    try:
        problem_at(problem, point)
    except ValueError as err:
        text = str(err)
        where = ", ".join(f"{name} = {value:g}" for name, value in point.items())
        raise InputError(f"--{option}: {text.removeprefix('axes: ') if text.startswith('axes: ') else f'{where}: {text}'}") from err


def _shown(quantity: str) -> tuple[str, ...]:
    return TIME_NAMES if quantity == "all" else (quantity,)


COMMAND = Command("phase-map", PhaseMapOptions, run)
