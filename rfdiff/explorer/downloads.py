"""What leaves the explorer: the problem as TOML, results as NetCDF, the package's own figures, and the lines that compute the same."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rfdiff.errors import InputError
from rfdiff.explorer import answers
from rfdiff.explorer.networks import Networks
from rfdiff.explorer.state import State
from rfdiff.rules import rule_numbers

if TYPE_CHECKING:
    from rfdiff.files.provenance import Entry
    from rfdiff.files.result_file import Result

FIGURES = ("curves", "spectrum")
MEDIA = {"toml": "application/toml", "nc": "application/x-netcdf", "png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
FLAGS = {"batch_per_dimension": "batch"}  # of the command line, where it calls a number of a rule otherwise


def file_names() -> tuple[str, ...]:
    """Every file that can be downloaded."""
    return ("problem.toml", "result.nc", *(f"{figure}.{form}" for figure in FIGURES for form in ("png", "svg", "pdf")))


def content(name: str, state: State, networks: Networks | None) -> bytes:
    """The content of a file for a state.

    Args:
        name: one of `file_names`.
        state: the state.
        networks: networks that were trained; they are part of a result if they are of this very state.

    Raises:
        InputError: another name, or a state that the theory refuses.
    """
    if name not in file_names():
        raise InputError(f"file: {name[:40]!r}; allowed: {', '.join(file_names())}")
    if name == "problem.toml":
        return toml_of(state).encode()
    from rfdiff import plots  # figures and files cost a second to import, which the first curves do not wait for
    from rfdiff.files import result_file

    result = result_of(state, networks)
    if name == "result.nc":
        return _written(name, lambda path: result_file.save(result, path))
    if name.startswith("curves"):
        assert result.theory is not None and result.covering is not None
        both = [curves for curves in (result.theory, result.simulation) if curves is not None]
        figure = plots.curves(*both, times=answers.exact_times(state, result.covering))
    else:
        spectra = [answers.exact_spectrum(state)]
        empirical = None if result.simulation is None else result.simulation.spectrum
        figure = plots.spectrum(*spectra, *([] if empirical is None else [empirical]))
    return _written(name, lambda path: plots.save_figure(figure, path))


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    """The bytes that a function writes to a file, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rfdiff-explore-") as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def result_of(state: State, networks: Networks | None) -> "Result":
    """A state's problem with its curves and spectrum, as `rfdiff predict` would write it."""
    from rfdiff.files.provenance import provenance
    from rfdiff.files.result_file import Result

    _, curves, covering = answers.exact_curves(state)
    same = networks is not None and networks.state == state
    rule = state.training_rule()
    numbers: dict[str, Entry] = {name: value for name, value in rule_numbers(rule).items() if isinstance(value, str | int | float)}
    return Result(
        state.problem(),
        theory=curves,
        spectrum=answers.exact_spectrum(state),
        simulation=networks.curves if same and networks is not None else None,
        metadata=provenance(command="explore", rule=rule.name, tolerance=answers.EXACT_ERROR, **numbers),
        covering=covering,
    )


def toml_of(state: State) -> str:
    """The problem file, with the command that computes what the page shows."""
    return f"# {command_of(state)}\n{state.problem().to_toml()}"


def command_of(state: State) -> str:
    """The command line that computes the curves of a state from its problem file."""
    rule = state.training_rule()
    given = "".join(f" --{FLAGS.get(name, name).replace('_', '-')} {value}" for name, value in rule_numbers(rule).items())
    chosen = "" if rule.name == "gradient-flow" else f" --rule {rule.name}"
    return f"rfdiff predict problem.toml{chosen}{given} --out rfdiff-out"


def python_of(state: State) -> str:
    """Lines of Python that compute the curves, the times and the spectrum of a state."""
    problem, rule = state.problem(), state.training_rule()
    law = problem.mixture
    arguments = [f"{name}={value!r}" for name, value in rule_numbers(rule).items()]
    made = f"rfdiff.{type(rule).__name__}({', '.join(arguments)})"
    lists = [np.asarray(values).tolist() for values in (law.weights, law.eigenvalues, law.eigenvalue_weights, law.centroid_gram)]
    draws = "float('inf')" if np.isinf(problem.noise_draws) else str(problem.noise_draws)
    weights = "" if problem.loss_weights is None else f", loss_weights={np.asarray(problem.loss_weights).tolist()}"
    return "\n".join(
        [
            "import rfdiff",
            "from rfdiff import theory",
            "",
            "law = rfdiff.MixtureLaw(",
            *(
                f"    {name}={values},"
                for name, values in zip(("weights", "eigenvalues", "eigenvalue_weights", "centroid_gram"), lists, strict=True)
            ),
            ")",
            f"problem = rfdiff.Problem(law, {state.activation!r}, t={state.t!r}, psi_p={state.psi_p!r}, psi_n={state.psi_n!r}, "
            f"noise_draws={draws}{weights})",
            f"rule = {made}",
            "curves = theory.learning_curves(problem, rule=rule)",
            "times = theory.times(problem, rule=rule)",
            "spectrum = theory.spectrum(problem)",
            "print(times)",
            "",
        ]
    )
