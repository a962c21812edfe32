"""The command speciate: when each class is decided in the backward process, in closed form and measured: table, figures, dataset."""

import dataclasses
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from rfdiff import backward, plots
from rfdiff.backward.process import proportion_error
from rfdiff.backward.samplers import chunk_of
from rfdiff.backward.speciation_study import CONTENT
from rfdiff.cli import tables
from rfdiff.cli.command import Command
from rfdiff.cli.options import LARGEST_KEY, Flag, Output, ProblemFile, Redrawing, between, check
from rfdiff.cli.terminal import prepare_folder, read_problem, redraw_folder, say, say_cost, say_files
from rfdiff.files import kept_parts
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.mixture import GaussianMixture
from rfdiff.progress import reporting

FILE, FIGURES = "speciation.nc", ("return_probability.png", "trajectories.png")
LARGEST_DIMENSION, MOST, MOST_STEPS = 2**24, 10_000_000, 100_000

__all__ = ["COMMAND", "CONTENT", "redraw", "run", "show", "table"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speciate(Output):
    """When each class is decided in the backward process with the exact score: in closed form and measured (isotropic classes)."""

    problem: ProblemFile
    """Problem file; only its mixture matters here."""
    d: int = 1000
    """Dimension of the data."""
    trajectories: int = 2000
    """Trajectories for each class at each time of a U-turn, and pairs of clones at each time."""
    points: int = 12
    """Number of times for the U-turns, and for the clones."""
    steps: int = 192
    """Steps from noise to data; a multiple of --points."""
    full: Flag = False
    """Simulate all d coordinates. The default simulates only those that the exact score depends on, which gives the same law."""
    seed: int = 0
    """Random key."""


def run(options: Speciate) -> int:
    """Speciation times of a problem's mixture, measured and in closed form; a stopped measurement goes on from the points that are kept.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input, or results that stand in the folder.
        OSError: the folder cannot be written to.
        KeyboardInterrupt: with a sentence on what is kept.
    """
    start = time.monotonic()
    steps = options.points <= options.steps <= MOST_STEPS and options.steps % max(options.points, 1) == 0
    check(
        options,
        d=between(options.d, 2, LARGEST_DIMENSION),
        trajectories=between(options.trajectories, 10, MOST),
        points=between(options.points, 2, 1000),
        steps=(steps, f"a multiple of --points up to {MOST_STEPS}"),
        seed=between(options.seed, 0, LARGEST_KEY),
    )
    problem = read_problem(options.problem)
    closed_form = backward.speciation_table(problem.mixture, d=options.d)
    mixture = GaussianMixture.from_law(problem.mixture, options.d, jax.random.key(options.seed))
    process = backward.BackwardProcess(mixture, full=options.full, num_steps=options.steps)
    if options.full:
        chunk_of(options.d, options.trajectories * problem.num_classes, jnp.zeros(0).dtype)
    prepare_folder(options.out, (FILE, *FIGURES), options.overwrite)
    depends_on = (options.d, options.trajectories, options.points, options.steps, options.full, options.seed)
    folder = kept_parts.measurement_folder(options.out, problem, "speciation 2", *depends_on)
    measured = _measured(process, closed_form, options, kept_parts.KeptArrays(folder))
    dataset = measured.to_xarray().assign_attrs(problem=problem.to_toml(), random_seed=options.seed)
    save_dataset(dataset, options.out / FILE, command="speciate", seconds=round(time.monotonic() - start, 1))
    kept_parts.remove(folder)
    show(dataset, options.out)
    say_cost(time.monotonic() - start)
    return 0


def redraw(options: Redrawing) -> int:
    """Print the table of a speciation.nc and draw its figures again.

    Raises:
        InputError: a damaged file, or figures that stand in another folder than its own.
        OSError: the folder cannot be written to.
    """
    dataset = load_dataset(options.file)
    out = redraw_folder(options, FIGURES)
    show(dataset, out)
    return 0


def show(dataset: xr.Dataset, out: Path) -> None:
    """Print the table of a dataset, draw its figures, and say where they are."""
    say("\n".join(table(dataset)))
    for figure, name in zip((plots.return_probability(dataset), plots.trajectories(dataset)), FIGURES, strict=True):
        plots.save_figure(figure, out / name)
    say_files(out, FILE, FIGURES)


def table(dataset: xr.Dataset) -> list[str]:
    """Speciation times of each class in all readings, and how far the measured points lie from the closed form."""
    rows = [["class", "weight", "variance", "t_s, closed form", "t_s, U-turns", "t_s, well", "worst U-turn", "worst clones"]]
    uturns, clones = (_with_systematic(dataset, name) for name in ("uturn", "clone"))
    expected = dataset.uturn_theory.values  # whose standard errors hold near 0 and 1 too, where those of a few counts do not
    statistical = proportion_error(expected, dataset.attrs["trajectories"])
    turned = abs(dataset.uturn.values - expected) / np.hypot(statistical, uturns.systematic)
    cloned = abs(dataset.clone.values - dataset.clone_theory.values) / clones.error
    crossings = [
        backward.crossing(dataset.turn_time.values, dataset.uturn.values[:, c], uturns.error[:, c], (1 + weight) / 2)
        for c, weight in enumerate(dataset.weight.values)
    ]
    for c, weight in enumerate(dataset.weight.values):
        well = float(dataset.well_time.values[c])
        of_clones = cloned[np.isfinite(cloned[:, c]), c]
        rows.append(
            [
                str(c),
                f"{weight:.3g}",
                f"{dataset.variance.values[c]:.3g}",
                tables.number(float(dataset.speciation_time.values[c])),
                tables.number(*crossings[c]),
                "from the start" if np.isinf(well) else tables.number(well),
                f"{turned[:, c].max():.1f} s.e.",
                f"{of_clones.max():.1f} s.e." if of_clones.size else "-",
            ]
        )
    head = f"backward process of the exact score at d = {dataset.attrs['d']}, {dataset.attrs['trajectories']} trajectories for each point"
    classical = f"classical estimate, half the logarithm of the largest eigenvalue: {dataset.attrs['classical_time']:.4g}"
    return [head, classical, *_steps_note(dataset, uturns.systematic), "", *tables.columns(rows)]


class _Errors(NamedTuple):
    """Errors of measured fractions (T, K): from the length of the steps, and together with the statistical one."""

    systematic: np.ndarray
    error: np.ndarray


def _with_systematic(dataset: xr.Dataset, name: str) -> _Errors:
    stderr = dataset[f"{name}_stderr"].values
    systematic = dataset[f"{name}_systematic"].values if f"{name}_systematic" in dataset else np.zeros_like(stderr)
    return _Errors(systematic, np.hypot(stderr, systematic))


def _steps_note(dataset: xr.Dataset, systematic: np.ndarray) -> list[str]:
    """A line where the steps are too few for the number of trajectories: U-turns end elsewhere than their starts say."""
    if not systematic.any():
        return []
    i, c = np.unravel_index(int(np.argmax(systematic)), systematic.shape)
    return [
        f"{dataset.attrs['steps']} steps are too few: at t = {dataset.turn_time.values[i]:.3g} they move the U-turns of class {c} by "
        f"{systematic[i, c]:.2g}; the errors below include this; use more --steps"
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
        with reporting(f"{options.points} times of U-turns, then clones", "trajectory") as told:
            return backward.measure_speciation(
                process, closed_form, key=key, num=options.trajectories, points=options.points, parts=parts, progress=told
            )
    except KeyboardInterrupt as stop:
        text = f"{len(parts)} of {options.points + 1} points are kept, the same command goes on from them"
        raise KeyboardInterrupt(text) from stop


COMMAND = Command("speciate", Speciate, run)
