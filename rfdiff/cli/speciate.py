"""The command speciate: when each class is decided in the backward process, in closed form and measured: table, figures, dataset."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
import xarray as xr

from rfdiff import backward, plots
from rfdiff.backward.samplers import chunk_of
from rfdiff.backward.speciation_agreement import SpeciationVerdict, speciation_verdict
from rfdiff.backward.speciation_study import CONTENT
from rfdiff.cli.command import AGREE, DISAGREE, Command
from rfdiff.cli.folder import Files, check_drawing, drawn, loss_weight_lines_of, redraw_dataset, results_folder, write_figures
from rfdiff.cli.options import LARGEST_KEY, Drawing, Flag, Integer, Output, ProblemFile, Redrawing, between, check, hint, read_problem
from rfdiff.cli.tables import Cell, Table, measured, shown, words
from rfdiff.cli.terminal import report, say_cost
from rfdiff.files import kept_parts
from rfdiff.files.dataset_file import save_dataset
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.progress import reporting

FILES = Files("speciation.nc", {"return_probability": (), "trajectories": ()})
LARGEST_DIMENSION, MOST, MOST_STEPS = 2**24, 10_000_000, 100_000
LEAST_ERROR = 1e-6  # of a speciation time
DIMENSION = 1000  # of a law that has none, where none is given
TRAJECTORIES = (
    "Number of U-turns per class and time t (a sample is noised to t and denoised again), and of pairs of clones per time t (two copies of "
    "a backward trajectory that part at t)."
)

__all__ = ["COMMAND", "CONTENT", "redraw", "run", "show", "speciation_table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speciate(Output):
    """Compute, and measure, when backward sampling with the exact score commits to a class.

    Isotropic classes are computed in closed form, with Gaussian log-odds; two other classes exactly; more than two by quasi-Monte-Carlo,
    with its error. Covariances may be joint eigenvalues or matrices, whose trajectories are simulated in all d coordinates.
    """

    problem: ProblemFile
    """Problem file in TOML; only its mixture is used."""
    d: Annotated[Integer, hint("(default: 1000, or that of the problem's matrices)")] = None
    """Dimension of the data."""
    num_trajectories: Annotated[int, tyro.conf.arg(help=TRAJECTORIES)] = 2000
    num_times: int = 12
    """Number of times t of the U-turns, and of the clones."""
    num_steps: int = 192
    """Steps from noise to data; a multiple of --num-times."""
    full: Flag = False
    """Simulate all d coordinates; without it only those that the exact score depends on, which gives the same distribution."""
    seed: int = 0
    """Random seed of the trajectories."""


def run(options: Speciate) -> int:
    """Speciation times of a problem's mixture, measured and in closed form; an interrupted run resumes from its finished points.

    Returns:
        The exit status: 0, or 1 where the measurement does not confirm the closed form.

    Raises:
        InputError: bad input, or existing results in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    steps = options.num_times <= options.num_steps <= MOST_STEPS and options.num_steps % max(options.num_times, 1) == 0
    check(
        options,
        d=between(DIMENSION if options.d is None else options.d, 2, LARGEST_DIMENSION),
        num_trajectories=between(options.num_trajectories, 10, MOST),
        num_times=between(options.num_times, 2, 1000),
        num_steps=(steps, f"a multiple of --num-times up to {MOST_STEPS}"),
        seed=between(options.seed, 0, LARGEST_KEY),
    )
    problem = read_problem(options.problem)
    d = options.d if options.d is not None else problem.mixture.dimension or DIMENSION
    closed_form = backward.speciation_table(problem.mixture, d=d)
    mixture = GaussianMixture.from_law(problem.mixture, d, jax.random.key(options.seed))
    process = backward.BackwardProcess(mixture, full=options.full, num_steps=options.num_steps)
    if not process.is_reduced:
        chunk_of(d, options.num_trajectories * problem.num_classes, jnp.zeros(0).dtype)
    check_drawing(options, problem.num_classes)
    with results_folder(options.out, FILES, options.overwrite):
        depends_on = (d, options.num_trajectories, options.num_times, options.num_steps, options.full, options.seed)
        folder = kept_parts.measurement_folder(options.out, problem, "speciation 2", *depends_on)
        measured = _measured(process, closed_form, options, kept_parts.KeptArrays(folder))
        dataset = measured.to_xarray().assign_attrs(problem=problem.record(), random_seed=options.seed)
        save_dataset(dataset, options.out / FILES.data, command="speciate", seconds=round(time.monotonic() - start, 1))
        kept_parts.remove(folder)
        status = show(dataset, options.out, options, replace=True)
    say_cost(start, options.table)
    return status


def redraw(options: Redrawing) -> int:
    """Print the table of a speciation.nc and draw its figures again, as `redraw_dataset`; status 1 where it does not confirm the theory."""
    return redraw_dataset(options, CONTENT, FILES, show)


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> int:
    """Draw the figures of a dataset, print its table and verdict, say where the figures are, and return the exit status."""
    figures = drawn(drawing, "return_probability", functools.partial(plots.return_probability, dataset))
    figures |= drawn(drawing, "trajectories", functools.partial(plots.trajectories, dataset))
    names = write_figures(out, FILES, figures, drawing, replace)
    tables = [speciation_table(dataset, drawing.class_names)]
    verdict = speciation_verdict(dataset)
    report(tables, drawing.table, [_verdict_line(verdict), f"in {out}: {', '.join(names)}"], head_lines(dataset))
    return AGREE if verdict.agrees else DISAGREE


def head_lines(dataset: xr.Dataset) -> list[str]:
    """What was measured, the classical estimate, and a warning where the steps are too few."""
    return [
        f"backward process of the exact score at d = {dataset.attrs['d']}, {dataset.attrs['trajectories']} trajectories for each point",
        f"classical estimate, half the logarithm of the largest eigenvalue: {dataset.attrs['classical_time']:.4g}",
        *[f"{line}, which the exact score is of" for line in loss_weight_lines_of(dataset.attrs)],
        *_steps_note(dataset, speciation_verdict(dataset).compared["uturn"].systematic),
    ]


def _verdict_line(verdict: SpeciationVerdict) -> str:
    power = f"an error of {verdict.unnoticed:.1e} of the closed form would be noticed at half of the times"
    if verdict.text == "inconclusive":
        return f"verdict: INCONCLUSIVE, {verdict.reason} ({power})"
    if verdict.text == "disagree":
        return f"verdict: measurement and closed form DISAGREE: {verdict.reason} ({power})"
    return f"verdict: measurement and closed form agree (allowed: {verdict.threshold:.3g} errors; {power})"


def speciation_table(dataset: xr.Dataset, class_names: Sequence[str] | None = None) -> Table:
    """Speciation times of each class in all readings, and how far the measured points lie from the closed form."""
    headings = ["class", "weight", "variance", "t_s, closed form", "t_s, U-turns", "t_s, well", "worst U-turn", "worst clones"]
    rows: list[list[Cell]] = []
    compared = speciation_verdict(dataset).compared
    turned, cloned, error = compared["uturn"].standardised, compared["clone"].standardised, compared["uturn"].error
    for c, weight in enumerate(dataset.weight.values):
        well = float(dataset.well_time.values[c])
        of_clones = cloned[np.isfinite(cloned[:, c]), c]
        crossing = backward.crossing(dataset.turn_time.values, dataset.uturn.values[:, c], error[:, c], (1 + weight) / 2)
        rows.append(
            [
                words(c if class_names is None else class_names[c]),
                shown(float(weight), ".3g"),
                shown(float(dataset.variance.values[c]), ".3g"),
                measured(float(dataset.speciation_time.values[c]), _speciation_error(dataset, c)),
                measured(*crossing),
                measured(well, text="from the start" if np.isinf(well) else None),
                shown(float(turned[:, c].max()), ".1f", " s.e."),
                shown(float(of_clones.max()) if of_clones.size else np.nan, ".1f", " s.e."),
            ]
        )
    return Table("speciation times", headings, rows)


def _speciation_error(dataset: xr.Dataset, c: int) -> float:
    """Error of the computed speciation time of a class; NaN where there is none worth showing, as for isotropic and for two classes."""
    error = float(dataset.speciation_error.values[c]) if "speciation_error" in dataset else 0.0
    return error if error > LEAST_ERROR else np.nan


def _steps_note(dataset: xr.Dataset, systematic: np.ndarray) -> list[str]:
    """A line where the steps are too few for the number of trajectories: U-turns end elsewhere than their starts say."""
    if not systematic.any():
        return []
    i, c = np.unravel_index(int(np.argmax(systematic)), systematic.shape)
    return [
        f"{dataset.attrs['steps']} steps are too few: at t = {dataset.turn_time.values[i]:.3g} they move the U-turns of class {c} by "
        f"{systematic[i, c]:.2g}; the errors below include this; use more --num-steps"
    ]


def _measured(
    process: backward.BackwardProcess, closed_form: backward.SpeciationTable, options: Speciate, parts: kept_parts.KeptArrays
) -> backward.Speciation:
    """The measurement; each point is kept as soon as it is done.

    Raises:
        KeyboardInterrupt: with a sentence on what is kept.
    """
    key = jax.random.fold_in(jax.random.key(options.seed), 1)
    try:
        with reporting(f"{options.num_times} times of U-turns, then clones", "trajectory") as told:
            return backward.measure_speciation(
                process,
                closed_form,
                key=key,
                num_trajectories=options.num_trajectories,
                num_times=options.num_times,
                parts=parts,
                progress=told,
            )
    except KeyboardInterrupt as stop:
        text = f"{len(parts)} of {options.num_times + 1} points are kept, the same command resumes from them"
        raise KeyboardInterrupt(text) from stop


COMMAND = Command("speciate", Speciate, run)
