"""A result.nc on the terminal and as figures: the table of times, the verdict, curves, spectrum and agreement."""

from pathlib import Path

from rfdiff import plots
from rfdiff.agreement import Agreement, assess
from rfdiff.class_times import times
from rfdiff.cli import tables
from rfdiff.cli.options import Redrawing, check, fraction
from rfdiff.cli.terminal import redraw_folder, say, say_files
from rfdiff.errors import InputError
from rfdiff.files import result_file

FILE = "result.nc"
FIGURES = ("curves.png", "spectrum.png", "agreement.png")
AGREE, DISAGREE = 0, 1


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
    figures = {"curves.png": plots.curves(*(one for one in (result.theory, result.simulation) if one is not None), times=marked)}
    empirical = None if result.simulation is None else result.simulation.spectrum
    if result.spectrum is not None or empirical is not None:
        figures["spectrum.png"] = plots.spectrum(*(one for one in (result.spectrum, empirical) if one is not None))
    if agreement is not None:
        figures["agreement.png"] = plots.agreement(agreement)
    for name, figure in figures.items():
        plots.save_figure(figure, out / name)
    say_files(out, FILE, list(figures))
    return AGREE if agreement is None or agreement.agrees else DISAGREE


def redraw(options: Redrawing) -> int:
    """Print the table of a result.nc and draw its figures again.

    Raises:
        InputError: a file without anything to draw; figures in another folder than that of the file.
        OSError: the folder cannot be written to.
    """
    q = 0.5 if options.q is None else options.q
    check(options, q=fraction(q))
    result = result_file.load(options.file)
    if result.theory is None and result.simulation is None:
        raise InputError(f"{options.file}: holds neither theory nor simulation, nothing to draw curves of")
    complete = result.theory is not None and result.simulation is not None and result.smaller is not None
    return show(result, redraw_folder(options, FIGURES if complete else FIGURES[:2]), q)
