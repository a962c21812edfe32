"""A result.nc on the terminal and as figures: the table of times, the verdict, curves, spectrum and agreement."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rfdiff import plots
from rfdiff.agreement import Agreement, assess
from rfdiff.class_times import TIME_NAMES, readings, times
from rfdiff.cli.command import AGREE, DISAGREE, NOT_COMPUTED
from rfdiff.cli.folder import Files, check_drawing, drawn, loss_weight_lines, redraw_folder, write_figures
from rfdiff.cli.options import Drawing, Redrawing, check, fraction
from rfdiff.cli.tables import Cell, Table, measured, words
from rfdiff.cli.terminal import report
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.files import result_file
from rfdiff.rules import Ridge

CURVE_PANELS, AGREEMENT_PANELS = ("losses", "score_error"), ("train_loss", "test_loss")
FILES = Files("result.nc", {"curves": CURVE_PANELS, "spectrum": (), "agreement": AGREEMENT_PANELS})


def show(result: result_file.Result, out: Path, q: float, drawing: Drawing, replace: bool) -> int:
    """Draw the figures of a result, print its table and verdict, and say where the figures are.

    Args:
        result: what to show.
        out: folder of the figures.
        q: fraction that counts as learned in τ_opt(q).
        drawing: how figures are drawn and tables printed.
        replace: whether figures of an earlier result are removed from the folder.

    Returns:
        The exit status: 0, 1 if theory and simulation disagree, 3 if a loss could not be computed.
    """
    agreement: Agreement | None = None
    if result.theory is not None and result.simulation is not None and result.smaller is not None:
        agreement = assess(result.theory, result.simulation, result.smaller)
    predicted = result.theory if result.covering is None else result.covering  # times do not depend on the times shown
    reference = predicted if predicted is not None else result.simulation
    drawing = dataclasses.replace(drawing, class_names=drawing.class_names or result.problem.mixture.class_names or None)
    reading = Reading.of(result)
    marked = None if reference is None else times(reference, q=q, loss_weights=reading.loss_weights)
    both = [curves for curves in (result.theory, result.simulation) if curves is not None]
    figures = drawn(drawing, "curves", functools.partial(plots.curves, *both, times=marked), CURVE_PANELS)
    spectra = [one for one in (result.spectrum, None if result.simulation is None else result.simulation.spectrum) if one is not None]
    if spectra:
        figures |= drawn(drawing, "spectrum", functools.partial(plots.spectrum, *spectra))
    if agreement is not None:
        figures |= drawn(drawing, "agreement", functools.partial(plots.agreement, agreement), AGREEMENT_PANELS)
    names = write_figures(out, FILES, figures, drawing, replace)
    table, notes = times_table(predicted, result.simulation, q, drawing.class_names, reading)
    missing = [f"not computed: {reason}" for curves in both if (reason := missing_losses(curves, reading))]
    if result.theory is not None:
        asked = result.metadata.get("tolerance")
        notes += error_lines(result.theory, asked if isinstance(asked, float) else None)
    verdict = verdict_lines(agreement, reading) if agreement is not None else []
    report([table], drawing.table, [*loss_weight_lines(result.problem), *notes, *verdict, *missing, f"in {out}: {', '.join(names)}"])
    if missing:
        return NOT_COMPUTED
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
    check_drawing(options, result.problem.num_classes)
    with redraw_folder(options, FILES) as out:
        return show(result, out, q, options, replace=False)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What of a problem and its rule decides how curves are read and spoken of.

    Args:
        loss_weights: (K,) weights of the classes in the training loss; None where all are above 0.
        penalties: whether training times stand for the penalties of ridge.
    """

    loss_weights: ArrayLike | None = None
    penalties: bool = False

    @classmethod
    def of(cls, result: result_file.Result) -> "Reading":
        """That of a result."""
        return cls(result.problem.training_weights, result.metadata.get("rule") == Ridge.name)

    def place(self, tau: float, kappa: float) -> str:
        """A place along training in words."""
        return f"penalty = {1 / (kappa * tau):.4g}" if self.penalties else f"tau = {tau:.4g}"

    def heading(self) -> list[str]:
        """What the times of ridge are."""
        text = "ridge: a time tau stands for the penalty 1/(kappa tau), kappa = 2 Delta/psi_p; smaller penalties for later times"
        return [text] * self.penalties


def times_table(
    theory: LearningCurves | None,
    simulation: LearningCurves | None,
    q: float,
    class_names: tuple[str, ...] | None = None,
    reading: Reading = Reading(),
) -> tuple[Table, list[str]]:
    """Class-wise times and best test losses, theory beside simulation, one line per class and side.

    The error bars of the simulation are standard errors over seeds of the same numbers read from the curves of each seed; where a
    time does not exist in some seed there is none. Where the training times do not resolve a time, its bounds take its place.

    Args:
        theory: closed-form curves, or None.
        simulation: simulated curves, or None.
        q: fraction that counts as learned in τ_opt(q).
        class_names: of the classes; their numbers if None.
        reading: how times are read and spoken of.

    Returns:
        The table, and a sentence for each time that is not resolved or never reached.

    Raises:
        InputError: fewer than 3 training times, or q out of range.
    """
    headings = ["class", "weight", "source", *TIME_NAMES[:-1], f"tau_opt({q:g})", "best test loss"]
    both = [(name, curves) for name, curves in (("theory", theory), ("simulation", simulation)) if curves is not None]
    sides = [(name, curves, readings(curves, q, reading.loss_weights)) for name, curves in both]
    rows: list[list[Cell]] = []
    notes: list[str] = reading.heading()
    for c in range(sides[0][1].num_classes if sides else 0):
        label = str(c) if class_names is None else class_names[c]
        for name, curves, (values, errors) in sides:
            read = times(curves, q=q, loss_weights=reading.loss_weights, penalties=reading.penalties)
            weight = float(np.asarray(curves.weights)[c])
            cells = [measured(value, error) for value, error in zip(values[:, c], errors[:, c], strict=True)]
            for j, time in enumerate(TIME_NAMES):
                if reason := read.reason(time, c):
                    cells[j] = measured(values[j, c], text=read.text(time, c))
                    notes.append(f"{time} of class {label}, {name}: {reason}")
            rows.append([words(label), Cell(weight, f"{weight:.3g}"), words(name), *cells])
    return Table("times", headings, rows, grouped=2), notes


def missing_losses(curves: LearningCurves, reading: Reading = Reading()) -> str:
    """What of a set of curves is not a number although it has a value; "" if nothing is.

    At p = n m the test loss has no limit τ → ∞, and NaN there is the answer.
    """
    taus, test, train = (np.asarray(values, np.float64) for values in (curves.taus, curves.test_loss, curves.train_loss))
    limitless = np.isinf(taus) & np.isnan(test).all(axis=1) & (np.arange(taus.size) == taus.size - 1) & (taus.size > 1)
    bad = (np.isnan(test) | np.isnan(train))[~limitless]
    if not bad.any():
        return ""
    where = taus[~limitless][bad.any(axis=1)]
    first, last = (reading.place(float(tau), float(curves.kappa)) for tau in where[[0, -1]])
    span = first if where.size == 1 else f"{where.size} places along training, {first} to {last}"
    return f"the losses of {curves.source} at {span} are not numbers (numerical error {float(curves.error_estimate):.1e})"


def error_lines(theory: LearningCurves, tolerance: float | None) -> list[str]:
    """The numerical error that the closed form reached, with a warning where it is above the one that was asked for."""
    reached = float(theory.error_estimate)
    line = f"numerical error of the theory: {reached:.1e}"
    if tolerance is None or reached <= tolerance:
        return [line]
    return [f"warning: {line}, above the tolerance {tolerance:.1e}"]


def verdict_lines(agreement: Agreement, reading: Reading = Reading()) -> list[str]:
    """The place where simulation and theory are furthest apart, for each kind of curve, the smallest error noticed, and the verdict."""
    taus, kappa = np.asarray(agreement.simulation.taus), float(agreement.simulation.kappa)
    lines = []
    for name, standardised in agreement.standardised.items():
        excess = np.abs(np.asarray(standardised))
        i, c = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), -1, excess))), excess.shape)
        lines.append(
            f"{name.replace('_', ' ')}: simulation - theory is furthest out for class {c} at {reading.place(taus[i], kappa)}: "
            f"{agreement.deviation[name][i, c]:+.2e}, of which finite size {agreement.allowance[name][i, c]:+.1e} "
            f"within {agreement.remainder[name][i, c]:.1e}, standard error {agreement.stderr[name][i, c]:.1e}: "
            f"{excess[i, c]:.2f} standard errors out"
        )
    noticed = max(float(np.max(values)) for values in agreement.resolution.values())
    sides = f"simulation at d = {agreement.simulation.dimension} and theory {'agree' if agreement.agrees else 'DISAGREE'}"
    if not agreement.conclusive:
        sides = f"INCONCLUSIVE, simulation at d = {agreement.simulation.dimension} leaves room for any theory; more seeds or a larger d"
    places = "penalties" if reading.penalties else "times"
    power = f"an error of {noticed:.1e} of the theory would be noticed at half of the {places}"
    lines.append(f"verdict: {sides} (allowed: {agreement.threshold:.3g} standard errors; {power})")
    return lines
