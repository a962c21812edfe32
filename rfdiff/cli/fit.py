"""The command fit: from labelled data to the problem file that the other commands take."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from rfdiff.activation import ACTIVATIONS
from rfdiff.cli.command import AGREE, Command
from rfdiff.cli.options import Flag, Integer, Names, Number, OptionalFile, Printing, Text, check
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Printing):
    """Which data, and how they are prepared."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Labelled samples: .npz, .npy (with --labels), .csv or .parquet, IDX files, or a folder with one folder of images a class."""
    labels: OptionalFile = None
    """The .npy of labels, for samples in an .npy."""
    label_column: Text = None
    """Column of labels in a table; if not given, the one called label, labels, class, target or y."""
    part: Literal["train", "test"] = "train"
    """Which part of a folder of IDX files."""
    classes: Names = None
    """Labels of the classes to keep; all if not given."""
    samples_per_class: Integer = None
    """Most samples to keep of a class; all if not given."""
    pixels: Integer = None
    """Side in pixels to which images are averaged."""
    components: Integer = None
    """Number of principal components to keep in the place of the coordinates."""
    standardise: Literal["whole", "coordinates", "none"] = "whole"
    """whole: one shift and one scale for all coordinates, to a class variance of 1; coordinates: each coordinate first by its own; none."""
    data_seed: int = 0
    """Random seed of the choice of samples."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(DataOptions):
    """Fit the law of labelled data, class by class, and write it as a problem file for the other commands."""

    out: Annotated[Path, tyro.conf.arg(metavar="PROBLEM.toml", aliases=["-o"])] = Path("problem.toml")
    """Problem file to write; the class covariances go beside it, as NAME.matrices.npz."""
    overwrite: Flag = False
    """Replace existing files."""
    activation: str = "tanh"
    """Activation of the network: tanh, erf, relu, softplus, gelu or sin."""
    t: float = 0.1
    """Diffusion time."""
    psi_p: float = 4.0
    """Features per dimension, p/d."""
    psi_n: Number = None
    """Samples per dimension, n/d; if not given, what the data have."""
    shrinkage: Number = None
    """Weight ρ of the isotropic part in each covariance, 0 <= ρ < 1; if not given, Ledoit and Wolf's."""


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
    return load_samples(
        options.data,
        labels=options.labels,
        label_column=options.label_column,
        part=options.part,
        classes=options.classes,
        samples_per_class=options.samples_per_class,
        held_out=held_out,
        pixels=options.pixels,
        components=options.components,
        standardise=options.standardise,
        seed=options.data_seed,
    )


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
