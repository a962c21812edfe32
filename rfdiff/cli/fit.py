"""The command fit: from labelled data to the problem file that the other commands take."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from rfdiff.activation import ACTIVATIONS
from rfdiff.cli.command import AGREE, Command
from rfdiff.cli.options import Flag, Integer, Name, Names, Number, OptionalFile, Printing, check, hint, in_options
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import report
from rfdiff.covariance_estimates import class_moments
from rfdiff.datasets import load_samples
from rfdiff.errors import InputError
from rfdiff.files.storage import matrices_beside, save
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.samples import Samples

__all__ = ["COMMAND", "DataOptions", "Fit", "fitted", "law_table", "read_samples", "run"]

WORDS = {  # what `load_samples` calls its arguments
    "labels=OTHER.npy": "--labels OTHER.npy",
    "(label_column)": "(--label-column)",
    "its name as label_column": "its name as --label-column",
    "or classes= without it": "or --classes without it",
    "with pixels=": "with --pixels",
    "with components=": "with --components",
}

SCALING = (
    "How to shift and scale. whole: all coordinates alike, so that the mean class variance is 1. coordinates: first each coordinate "
    "to mean 0 and variance 1, then as whole. none: not at all."
)
Standardise = Annotated[Literal["whole", "coordinates", "none"], tyro.conf.arg(help=SCALING)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Printing):
    """Which data, and how they are prepared."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Labelled samples: .npz, .npy (with --labels), .csv or .parquet, IDX files, or a folder with one folder of images per class."""
    labels: OptionalFile = None
    """If DATA is an .npy of samples: the .npy of their labels."""
    label_column: Annotated[Name, hint("(default: the one called label, labels, class, target or y)")] = None
    """If DATA is a table: the column of labels."""
    part: Literal["train", "test"] = "train"
    """If DATA is a folder of IDX files: which part to read."""
    classes: Annotated[Names, hint("(default: all)")] = None
    """Labels of the classes to keep."""
    samples_per_class: Annotated[Integer, hint("(default: all)")] = None
    """Keep at most this many samples of each class."""
    pixels: Annotated[Integer, hint("(default: as they are)")] = None
    """Average images over blocks to this many pixels per side."""
    components: Integer = None
    """Number of principal components to use instead of the coordinates."""
    standardise: Standardise = "whole"
    data_seed: int = 0
    """Random seed of the choice of samples (--samples-per-class)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(DataOptions):
    """Fit a mixture of Gaussians to labelled data, one per class, and write it as a problem file for the other commands."""

    out: Annotated[Path, tyro.conf.arg(metavar="PROBLEM.toml", aliases=["-o"])] = Path("problem.toml")
    """Problem file to write; the class covariances go beside it, into NAME.matrices.npz."""
    overwrite: Flag = False
    """Replace existing files."""
    activation: Annotated[str, tyro.conf.arg(metavar="NAME")] = "tanh"
    """Activation of the network: tanh, erf, relu, softplus, gelu or sin."""
    t: float = 0.1
    """Diffusion time."""
    psi_p: float = 4.0
    """Features per dimension, p/d."""
    psi_n: Annotated[Number, hint("(default: n/d of the data)")] = None
    """Training samples per dimension, n/d."""
    shrinkage: Annotated[Number, hint("(default: estimated from the data as by Ledoit and Wolf)")] = None
    """Weight of the isotropic part in each covariance, at least 0 and below 1."""


def run(options: Fit) -> int:
    """Read the data, fit the law, write the problem and say what was found.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad options or data, or files that exist.
        OSError: a file cannot be written.
    """
    if options.out.suffix != ".toml":
        raise InputError(f"--out: {options.out}; allowed: a name that ends in .toml")
    check(options, activation=(options.activation in ACTIVATIONS, ", ".join(ACTIVATIONS)))
    if not options.overwrite:
        for path in (options.out, matrices_beside(options.out)):
            if path.exists():
                raise InputError(f"--out: {path} exists already; choose another name or add --overwrite")
    samples = read_samples(options)
    problem = fitted(samples, options)
    save(problem, options.out)
    steps = [f"{name}: {value}" for name, value in samples.preparation]
    told = [*steps, f"in {options.out} and {matrices_beside(options.out).name}; next: rfdiff predict {options.out}"]
    report([law_table(samples, problem.mixture)], options.table, told)
    return AGREE


def read_samples(options: DataOptions, held_out: float = 0.2) -> Samples:
    """The samples that the options name.

    Raises:
        InputError: naming the file or the option.
    """
    names = ("labels", "label_column", "part", "classes", "samples_per_class", "pixels", "components", "standardise")
    chosen: dict[str, Any] = {name: getattr(options, name) for name in names}
    try:
        return load_samples(options.data, **chosen, held_out=held_out, seed=options.data_seed)
    except InputError as err:
        raise InputError(in_options(str(err), WORDS)) from err


def fitted(samples: Samples, options: Fit) -> Problem:
    """The problem of the samples' own law, with the options' network.

    Raises:
        InputError: numbers out of range, or samples of no variance or of too large a scale.
    """
    shrinkage = "ledoit-wolf" if options.shrinkage is None else options.shrinkage
    weights, covariances, centroids, _ = class_moments(samples.samples, samples.labels, shrinkage=shrinkage)
    law = MixtureLaw.from_covariances(weights, covariances, centroids, class_names=samples.class_names)
    psi_n = len(samples.labels) / samples.dimension if options.psi_n is None else options.psi_n
    return Problem(law, options.activation, options.t, options.psi_p, psi_n)


def law_table(samples: Samples, law: MixtureLaw) -> Table:
    """The classes: samples, fraction, variance, effective dimension (tr Σ)²/tr Σ², squared norm of the centroid over d."""
    rows: list[list[Cell]] = []
    for c, name in enumerate(samples.class_names):
        spectrum = np.linalg.eigvalsh(np.asarray(law.covariances)[c])
        effective = spectrum.sum() ** 2 / (spectrum**2).sum()
        numbers = (samples.counts[c], law.weights[c], law.variances[c], effective, law.centroid_gram[c, c])
        rows.append([words(name), *(measured(float(number)) for number in numbers)])
    headings = ["class", "samples", "fraction", "variance", "effective dimension", "centroid norm² / d"]
    return Table(f"law of the data, d = {samples.dimension}", headings, rows)


COMMAND = Command("fit", Fit, run)
