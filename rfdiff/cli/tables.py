"""What the command line prints about a result: the table of class-wise times and the verdict."""

from collections.abc import Sequence

import numpy as np

from rfdiff.agreement import Agreement
from rfdiff.class_times import readings
from rfdiff.curves import LearningCurves


def times_table(theory: LearningCurves | None, simulation: LearningCurves | None, q: float) -> str:
    """Class-wise times and best test losses, theory beside simulation, one line a class and side.

    The error bars of the simulation are standard errors over seeds of the same numbers read from the curves of each seed; where a
    time does not exist in some seed there is none.

    Args:
        theory: closed-form curves, or None.
        simulation: simulated curves, or None.
        q: fraction that counts as learned in τ_opt(q).

    Raises:
        InputError: fewer than 3 training times, or q out of range.
    """
    header = ["class", "weight", "", "tau_gen", "tau_stop", "tau_mem", f"tau_opt({q:g})", "best test loss"]
    sides = [(name, curves, readings(curves, q)) for name, curves in (("theory", theory), ("simulation", simulation)) if curves is not None]
    rows = [header]
    for c in range(sides[0][1].num_classes if sides else 0):
        for i, (name, curves, (values, errors)) in enumerate(sides):
            first = [str(c), f"{np.asarray(curves.weights)[c]:.3g}"] if i == 0 else ["", ""]
            rows.append([*first, name, *(number(values[j, c], errors[j, c]) for j in range(len(values)))])
    return "\n".join(columns(rows))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns stand below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: float, error: float = np.nan) -> str:
    """A number to four digits, or to the digits that its standard error leaves (two digits of the error)."""
    if np.isnan(value):
        return "-"
    if not np.isfinite(value) or not np.isfinite(error):
        return f"{value:.4g}"
    if error < 1e-6 * abs(value):
        return f"{value:.4g}"
    decimals = 1 - int(np.floor(np.log10(error)))
    if decimals < 0:
        return f"{value:.0f} ± {error:.0f}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def verdict_lines(agreement: Agreement) -> list[str]:
    """The place where simulation and theory are furthest apart, for each kind of curve, the smallest error noticed, and the verdict."""
    taus = np.asarray(agreement.simulation.taus)
    lines = []
    for name, standardised in agreement.standardised.items():
        excess = np.abs(np.asarray(standardised))
        i, c = np.unravel_index(int(np.argmax(np.where(np.isnan(excess), -1, excess))), excess.shape)
        lines.append(
            f"{name.replace('_', ' ')}: simulation - theory is furthest out for class {c} at tau = {taus[i]:.4g}: "
            f"{agreement.deviation[name][i, c]:+.2e}, of which finite size {agreement.allowance[name][i, c]:+.1e} "
            f"within {agreement.remainder[name][i, c]:.1e}, standard error {agreement.stderr[name][i, c]:.1e}: "
            f"{excess[i, c]:.2f} standard errors out"
        )
    noticed = max(float(np.max(values)) for values in agreement.resolution.values())
    sides = f"simulation at d = {agreement.simulation.dimension} and theory {'agree' if agreement.agrees else 'DISAGREE'}"
    if not agreement.conclusive:
        sides = f"INCONCLUSIVE, simulation at d = {agreement.simulation.dimension} leaves room for any theory; more seeds or a larger d"
    power = f"an error of {noticed:.1e} of the theory would be noticed at half of the times"
    lines.append(f"verdict: {sides} (allowed: {agreement.threshold:.3g} standard errors; {power})")
    return lines
