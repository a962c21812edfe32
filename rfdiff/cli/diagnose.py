"""The command diagnose: from a labelled data set to what theory says of its classes, checked by networks on these very data."""

import dataclasses
import functools
import hashlib
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import xarray as xr

from rfdiff import diagnosis, plots
from rfdiff.cli.command import AGREE, NOT_COMPUTED, Command
from rfdiff.cli.fit import DataOptions, read_samples
from rfdiff.cli.folder import Files, check_drawing, drawn, redraw_dataset, results_folder, write_figures
from rfdiff.cli.options import LARGEST_KEY, Drawing, Number, Numbers, Output, Redrawing, between, check, hint
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import report, say_cost
from rfdiff.diagnosis.assembly import CONTENT
from rfdiff.diagnosis.data_law import TIMES
from rfdiff.diagnosis.verdicts import REGIMES, deviations, overstatement, time_ratios
from rfdiff.files import kept_parts
from rfdiff.files.atomic import write_bytes
from rfdiff.files.dataset_file import save_dataset
from rfdiff.progress import Progress, reporting
from rfdiff.samples import Samples
from rfdiff.simulation.seed_batches import MOST_SEEDS
from rfdiff.theory.input_checks import tolerance_allowed

FILES = Files("diagnosis.nc", {"losses": (), "times": ()})
PAGE = "report.html"
CAPTIONS = {
    "losses": "Train and held-out loss of each class at t = {t:g}. Lines: theory; points: networks on the data.",
    "times": "When each class is learned (τ_gen) and memorised (τ_mem), against the diffusion time. Lines: theory; points: networks.",
}
NARROW, NARROW_CLASSES = (4.0, 4.6), 4  # inches of a figure for a phone; classes up to which its panels stand in one column
LEAST_ERROR = 1e-6  # of a speciation time that is worth telling
HELD_OUT = 0.2  # share of a class on which networks are tested


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnose(DataOptions, Output):
    """Which class of your data is learned first, which is memorised, when to stop, and what would help.

    Theory of the fitted law, checked by networks trained on the data. report.html is a page for those who did not run it.
    """

    networks: int = 3
    """Networks trained on the data at each diffusion time; 0 for none, else at least 2."""
    t: Annotated[Numbers, hint("(default: 0.01 0.03 0.1 0.3 1)")] = None
    """Diffusion times, increasing."""
    activation: str = "tanh"
    """Activation of the network: tanh, erf, relu, softplus, gelu or sin."""
    psi_p: float = 4.0
    """Features per dimension, p/d."""
    psi_n: Annotated[Number, hint("(default: four fifths of n/d of the data)")] = None
    """Training samples per dimension, n/d."""
    tolerance: float = 5e-3
    """Largest numerical error of a closed-form loss."""
    seed: int = 0
    """Random seed of the networks."""
    remedies: Literal["try", "search", "none"] = "try"
    """What would help. try: other weights and more samples of the worst class; search: the best weights of all classes, slow; none."""


def run(options: Diagnose) -> int:
    """Read the data, diagnose them, write the results and the page, and print what was found.

    Returns:
        Exit status 0, or 3 if a loss could not be computed.

    Raises:
        InputError: bad options or data, or existing results in the folder.
        OSError: the folder cannot be written to.
    """
    start = time.monotonic()
    check(
        options,
        networks=(options.networks == 0 or 2 <= options.networks <= MOST_SEEDS, f"0, or 2 to {MOST_SEEDS}"),
        seed=between(options.seed, 0, LARGEST_KEY),
        tolerance=tolerance_allowed(options.tolerance),
    )
    setting = setting_of(options)
    samples = read_samples(options, held_out=HELD_OUT)
    check_drawing(options, samples.num_classes)
    if options.psi_n is None:
        setting = dataclasses.replace(setting, psi_n=(1 - HELD_OUT) * len(samples.labels) / samples.dimension)
    law = diagnosis.fitted_law(samples)
    problem = diagnosis.problem_at(law, setting, setting.times[0])
    with results_folder(options.out, FILES, options.overwrite), ExitStack() as bars:
        depends_on = (CONTENT, 5, _digest(samples), setting.times, setting.tolerance, setting.seed)
        folder = kept_parts.measurement_folder(options.out, problem, *depends_on)

        def told(label: str) -> Progress:
            return bars.enter_context(reporting(label, unit="part"))

        dataset = diagnosis.diagnose(samples, setting, parts=kept_parts.KeptArrays(folder), progress=told)
        save_dataset(dataset, options.out / FILES.data, command="diagnose", seconds=round(time.monotonic() - start, 1))
        bars.close()
        status = show(dataset, options.out, options, replace=True)
        kept_parts.remove(folder)
    say_cost(start, options.table)
    return status


def setting_of(options: Diagnose) -> diagnosis.Setting:
    """What the options ask to diagnose.

    Raises:
        InputError: naming the field.
    """
    return diagnosis.Setting(
        activation=options.activation,
        times=TIMES if options.t is None else options.t,
        psi_p=options.psi_p,
        psi_n=1.0 if options.psi_n is None else options.psi_n,
        tolerance=options.tolerance,
        num_seeds=options.networks,
        seed=options.seed,
        remedies=options.remedies,
    )


def _digest(samples: Samples) -> str:
    """What tells data sets apart."""
    parts = (np.ascontiguousarray(samples.samples), np.ascontiguousarray(samples.labels), np.array(samples.held_out))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def redraw(options: Redrawing) -> int:
    """Print the tables of a diagnosis.nc, draw its figures and write its page again, as `redraw_dataset`."""
    return redraw_dataset(options, CONTENT, FILES, show)


def show(dataset: xr.Dataset, out: Path, drawing: Drawing, replace: bool) -> int:
    """Draw the figures, write the page, print the tables and what is said, and name the files.

    Returns:
        The exit status: 0, or 3 if a loss could not be computed.
    """
    if drawing.class_names is not None:
        dataset = dataset.assign_coords({"class": list(drawing.class_names)})
    drawing = dataclasses.replace(drawing, class_names=tuple(str(name) for name in dataset["class"].values))
    draws = {"losses": plots.diagnosis_losses, "times": plots.diagnosis_times}
    figures = {
        name: figure for stem, draw in draws.items() for name, figure in drawn(drawing, stem, functools.partial(draw, dataset)).items()
    }
    names = write_figures(out, FILES, figures, drawing, replace)
    main = float(dataset["t"].values[int(dataset.attrs["main"])])
    images = {CAPTIONS[stem].format(t=main): pair for stem, pair in page_images(dataset).items()}
    write_bytes(out / PAGE, diagnosis.render_page(dataset, images).encode())
    tables = [times_table(dataset), classes_table(dataset), statements_table(dataset), *deviation_tables(dataset)]
    unknown = [float(t) for t, error in zip(dataset["t"].values, dataset["error_estimate"].values, strict=True) if not np.isfinite(error)]
    lost = [f"not computed: the closed form at t = {', '.join(f'{t:g}' for t in unknown)}"] * bool(unknown)
    report(tables, drawing.table, [*sentences(dataset), *lost, f"in {out}: {', '.join([*names, PAGE])}"])
    return NOT_COMPUTED if unknown else AGREE


def page_images(dataset: xr.Dataset) -> dict[str, tuple[bytes, bytes]]:
    """The figures as the page holds them, each for wide and for narrow screens."""
    few = dataset.sizes["class"] <= NARROW_CLASSES
    narrow = plots.diagnosis_losses(dataset, columns=1 if few else 2)
    return {
        "losses": (plots.svg_of(plots.diagnosis_losses(dataset)), plots.svg_of(narrow)),
        "times": (plots.svg_of(plots.diagnosis_times(dataset)), plots.svg_of(plots.diagnosis_times(dataset, size=NARROW))),
    }


def classes_table(dataset: xr.Dataset) -> Table:
    """What each class is like."""
    columns = {
        "samples": "samples", "fraction": "fraction", "variance": "variance", "effective dimension": "effective_dimension",
        "distance of mean": "centroid_norm",
    }  # fmt: skip
    rows: list[list[Cell]] = [
        [words(name), *(measured(float(dataset[variable].values[c])) for variable in columns.values())]
        for c, name in enumerate(dataset["class"].values)
    ]
    return Table(f"classes, d = {int(dataset.attrs['d'])}", ["class", *columns], rows)


def times_table(dataset: xr.Dataset) -> Table:
    """Times and good window of each class at each diffusion time, and the networks' times over theory's."""
    shown, ratios = ("tau_gen", "tau_stop", "tau_mem"), time_ratios(dataset)
    compared = () if ratios is None else ("tau_gen", "tau_mem")
    ratio, error = (np.zeros(0), np.zeros(0)) if ratios is None else ratios
    quantities = [str(name) for name in dataset["quantity"].values]
    rows: list[list[Cell]] = []
    for i, t in enumerate(dataset["t"].values):
        for c, name in enumerate(dataset["class"].values):
            values = [float(dataset["time"].transpose("t", "quantity", "class").values[i, quantities.index(time), c]) for time in shown]
            window = dataset["window"].transpose("t", "class", "edge").values[i, c]
            row = [measured(float(t)), words(name), *(measured(value) for value in [*values, *window.tolist()])]
            for time_name in compared:
                at = (i, quantities.index(time_name), c)
                row.append(measured(float(ratio[at]), float(error[at] * ratio[at])))
            rows.append(row)
    headings = ["t", "class", *shown, "good from", "to", *(f"{name}, networks/theory" for name in compared)]
    return Table("times", headings, rows, grouped=1)


def statements_table(dataset: xr.Dataset) -> Table:
    """Everything that is said, and what the networks say of it."""
    rows = [[measured(one.t), words(one.text), words(one.verdict)] for one in diagnosis.statements(dataset)]
    return Table("statements", ["t", "theory says", "networks"], rows, grouped=1)


def deviation_tables(dataset: xr.Dataset) -> list[Table]:
    """Largest deviation of the networks' losses from theory's in each regime, in per cent."""
    off = deviations(dataset)
    if off is None:
        return []
    headings = ["class", *(f"{word}, {regime}" for word in ("held-out", "train") for regime in REGIMES)]
    rows: list[list[Cell]] = [
        [words(name), *(Cell(float(100 * off[k, r, c]), f"{100 * off[k, r, c]:+.1f} %") for k in (1, 0) for r in range(len(REGIMES)))]
        for c, name in enumerate(dataset["class"].values)
    ]
    return [Table("deviation of networks from theory, in per cent of the loss", headings, rows)]


def sentences(dataset: xr.Dataset) -> list[str]:
    """What would help, when generation decides, and what theory overstates; or why that cannot be said."""
    told = [f"what would help: {line}" for line in json.loads(dataset.attrs["remedy"])]
    if dataset.attrs["no_remedy"]:
        told.append(f"what would help is not available: {dataset.attrs['no_remedy']}")
    if dataset.attrs["no_speciation"]:
        told.append(f"speciation times are not available: {dataset.attrs['no_speciation']}")
    else:
        times = dataset["speciation_time"].values
        errors = dataset["speciation_error"].values if "speciation_error" in dataset else np.full(times.shape, np.nan)
        cells = [measured(float(t), float(e) if e > LEAST_ERROR else np.nan).text for t, e in zip(times, errors, strict=True)]
        told.append("speciation times: " + ", ".join(f"{name} {text}" for name, text in zip(dataset["class"].values, cells, strict=True)))
    if not int(dataset.attrs["num_seeds"]):
        return [*told, "no networks were trained: nothing here is checked on the data"]
    return [*told, *overstatement(dataset)]


COMMAND = Command("diagnose", Diagnose, run)
