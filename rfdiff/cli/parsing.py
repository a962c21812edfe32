"""The command line as data: one frozen dataclass a command, whose fields are its options, and how a line of text becomes one."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from rfdiff.cli.backward_options import Generate, Speciate
from rfdiff.cli.images_options import Images
from rfdiff.rules import RuleName

DESCRIPTION = """\
Per-class learning curves of random-features score learning on Gaussian mixtures, simulated and in closed form.

Exit status: 0 done (and theory and simulation agree), 1 they disagree or a cell of a sweep is not done, 2 bad input or too little memory,
130 interrupted.
rfdiff --version prints the version."""

Numbers = Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="NUMBER ...")]
Axis = Annotated[tuple[str, float, float, int], tyro.conf.arg(metavar="NAME LOW HIGH NUM")]
Scale = Literal["auto", "log", "linear"]
Pair = Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="CLASS CLASS")]
Quantity = Literal["all", "tau_gen", "tau_stop", "tau_mem", "tau_opt"]


class UsageError(ValueError):
    """A command line that cannot be understood, told in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command that computes."""

    problem: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PROBLEM.toml")]
    """Problem file; experiments/problem.toml is a commented example."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("rfdiff-out")
    """Folder of result.nc and the figures; created if absent."""
    points: int = 80
    """Number of training times, chosen to cover learning and memorisation."""
    taus: Numbers = None
    """Training times of your own instead, increasing; inf is convergence."""
    rule: RuleName = "gradient-flow"
    """Training rule."""
    step_size: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Step of gradient-descent and heavy-ball, in units of training time."""
    momentum: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Momentum of heavy-ball, in [0, 1)."""
    penalties: Numbers = None
    """Penalties of ridge, each > 0; they take the place of the training times."""
    q: float = 0.5
    """Fraction of the way to the exact score that counts as learned, in tau_opt(q)."""
    overwrite: bool = False
    """Replace results that stand in the folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Closed:
    """Options of the closed form."""

    tolerance: float = 1e-6
    """Largest numerical error of a closed-form loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """Options of the simulation."""

    d: int = 100
    """Dimension of the data; the network has psi_p d features, the training set psi_n d samples."""
    seeds: int = 10
    """Number of independent networks."""
    seed: int = 0
    """Random key; the same key gives the same networks."""
    dtype: Literal["default", "float64", "float32"] = "default"
    """Floating type; default is float64 on a CPU, float32 on an accelerator."""
    solver: Literal["auto", "exact", "krylov", "krylov-matrix-free", "krylov-probes"] = "auto"
    """How networks are trained: exact is an eigendecomposition each, with the spectrum; auto takes it where it fits (see rfdiff plan)."""
    krylov_tolerance: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Numerical error of the losses at which a Krylov space is large enough; 1e-8 if not given (1e-4 in float32)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(Closed, Options):
    """Closed-form learning curves and spectrum."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulate(Networks, Options):
    """Learning curves and spectrum of real networks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compare(Networks, Closed, Options):
    """Both, and whether they agree (simulated again at half the dimension, for the finite-size term)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Memory, work and time of every solver for networks of a problem, and which one is taken; nothing is computed or written."""

    problem: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PROBLEM.toml")]
    """Problem file; experiments/problem.toml is a commented example."""
    d: int = 100
    """Dimension of the data; the network has psi_p d features, the training set psi_n d samples."""
    seeds: int = 10
    """Number of independent networks."""
    points: int = 80
    """Number of training times."""
    dtype: Literal["default", "float64", "float32"] = "default"
    """Floating type; default is float64 on a CPU, float32 on an accelerator."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseMap:
    """Which class comes first, over two numbers of the problem (closed form)."""

    problem: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PROBLEM.toml")]
    """Problem file; what the axes do not vary."""
    x: Axis = ("variance_ratio", 0.25, 4.0, 33)
    """Horizontal axis: t, psi_p, psi_n, weight_C, variance_C, variance_ratio (0 over 1) or centroid_norm_C; C is the number of a class."""
    y: Axis = ("weight_0", 0.1, 0.9, 33)
    """Vertical axis, likewise."""
    x_scale: Scale = "auto"
    """Spacing of the horizontal axis; auto is linear for class fractions and logarithmic for all else."""
    y_scale: Scale = "auto"
    """Spacing of the vertical axis."""
    quantity: Quantity = "all"
    """Time whose map is drawn. The file holds all four anyway."""
    classes: Pair = None
    """The two classes compared; 0 1 if not given. The file holds all classes anyway."""
    q: float = 0.5
    """Fraction of the way to the exact score that counts as learned, in tau_opt(q)."""
    tolerance: float = 1e-4
    """Largest numerical error of a loss in a cell that counts as computed."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("rfdiff-out")
    """Folder of phase_map.nc and the figures; created if absent."""
    overwrite: bool = False
    """Replace results that stand in the folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Class-wise times read from the curves and from the spectrum (closed form), and what they respond to."""

    problem: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PROBLEM.toml")]
    """Problem file; experiments/problem.toml is a commented example."""
    sensitivity: bool = False
    """Also d log tau / d log parameter for every number of the problem, exactly."""
    q: float = 0.5
    """Fraction of the way to the exact score that counts as learned, in tau_opt(q)."""
    points: int = 400
    """Number of training times on which the curves are read."""
    tolerance: float = 1e-6
    """Largest numerical error of a closed-form loss."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("rfdiff-out")
    """Folder of times.nc and times.png; created if absent."""
    overwrite: bool = False
    """Replace results that stand in the folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepRun:
    """Many problems x dimensions x seeds x solvers, one file a cell; the same command goes on from what is there."""

    spec: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SPEC.toml")]
    """Specification; experiments/sweep.toml is a commented example."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the cells; created if absent, continued if it holds this sweep or a part of it."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Compute on the Dask cluster of the scheduler at this address, of dask-jobqueue or any other."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Compute in so many processes on this machine, by Dask. A cell that exhausts the memory then kills a worker, not the sweep."""
    retry: bool = False
    """Attempt the cells again that failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect:
    """One labelled dataset of the folder of a sweep, with figures."""

    dir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of rfdiff sweep."""
    skip_bad: bool = False
    """Leave out truncated, foreign and version-mismatched files, which are refused otherwise."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of the dataset; DIR/sweep.nc if not given. The figures go beside it."""
    overwrite: bool = False
    """Replace a file and figures that stand there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
    """Figures of a file that another command wrote."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A result.nc, phase_map.nc, times.nc, speciation.nc, generation.nc, sweep.nc (or the file of a cell), or evaluation.nc of images."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the figures; if not given that of the file, whose figures are replaced."""
    q: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Fraction of the way to the exact score that counts as learned, in tau_opt(q) of a result.nc; 0.5 if not given."""
    quantity: Quantity = "all"
    """Time whose map is drawn of a phase_map.nc."""
    classes: Pair = None
    """The two classes compared in a phase_map.nc; 0 1 if not given."""
    overwrite: bool = False
    """Replace figures that stand in the folder given by --out."""


Command = Predict | Simulate | Compare | Plan | PhaseMap | Times | Speciate | Generate | SweepRun | Collect | Plot | Images
NAMES = {
    "predict": Predict,
    "simulate": Simulate,
    "compare": Compare,
    "plan": Plan,
    "phase-map": PhaseMap,
    "times": Times,
    "speciate": Speciate,
    "generate": Generate,
    "sweep": SweepRun,
    "collect": Collect,
    "plot": Plot,
    "images": Images,
}


def parse(arguments: Sequence[str]) -> Command:
    """The command that a command line means; help goes to standard output and exits.

    Raises:
        UsageError: a line that cannot be understood.
        SystemExit: with status 0, after printing help.
    """
    union: Any = Union[tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in NAMES.items())]  # noqa: UP007
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):  # tyro draws boxes there; they are retold in one line
            return tyro.cli(union, prog="rfdiff", description=DESCRIPTION, args=list(arguments), config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code in (None, 0):
            raise
        raise UsageError(_one_line(told.getvalue())) from None


def _one_line(box: str) -> str:
    """The message in the box that tyro draws, without frame, title and the hints under its rules.

    With a frame of line-drawing characters the title is part of it; where the terminal has none, the title is the first block.
    """
    blocks: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines():
        content = line.strip().strip("│").strip()
        if re.fullmatch(r"[─-]{4,}", content):
            blocks.append([])
        elif not content.startswith(("╭", "╰")):
            blocks[-1].append(content)
    body = blocks[0] if "╭" in box or len(blocks) == 1 else blocks[1]
    first = body[: body.index("")] if "" in body[1:] and body[0] else body  # what follows a blank line explains how tyro parses
    message = " ".join(" ".join(first).split()).rstrip(".")
    return f"{message or 'cannot understand the command line'} (see rfdiff --help)"
