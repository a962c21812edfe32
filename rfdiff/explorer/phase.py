"""The map of the times over two sliders, computed in the background: which class comes first, and where the shown state lies."""

import dataclasses

import numpy as np

from rfdiff import theory
from rfdiff.class_times import require_time_name
from rfdiff.errors import InputError
from rfdiff.explorer.answers import Json, numbers
from rfdiff.explorer.state import BOUNDS, State
from rfdiff.explorer.workers import Background
from rfdiff.parameters import get_parameter, parameter_names
from rfdiff.theory_results import PhaseMap

CELLS = 16  # on each axis
SPAN = 4.0  # factor by which an axis reaches beyond the state on either side
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Phase:
    """A map, or how far it is.

    Args:
        state: the state around which it lies.
        names: the two numbers that vary.
        quantity: which time is compared.
        done, total: cells.
        result: the map; None before it is finished.
    """

    state: State
    names: tuple[str, str]
    quantity: str
    done: int = 0
    total: int = CELLS**2
    result: PhaseMap | None = None

    def json(self) -> Json:
        """For the page: axes, and for each cell the first class and the logarithm of how much later the second one is."""
        answer: Json = {
            "names": list(self.names),
            "quantity": self.quantity,
            "done": self.done,
            "total": self.total,
        }
        if self.result is not None:
            values = np.asarray(getattr(self.result.times, self.quantity))
            known = np.isfinite(values).any(-1)
            ordered = np.sort(np.where(np.isfinite(values), values, np.inf), -1)
            with np.errstate(divide="ignore", invalid="ignore"):
                lead = np.log10(ordered[..., 1] / ordered[..., 0]) if values.shape[-1] > 1 else np.zeros(known.shape)
            first = np.where(known, np.argmin(np.where(np.isfinite(values), values, np.inf), -1), -1)
            answer |= {
                "first_axis": numbers(self.result.first),
                "second_axis": numbers(self.result.second),
                "first_class": first.tolist(),
                "lead": [numbers(row) for row in lead],
            }
        return answer


def axis_values(state: State, name: str) -> np.ndarray:
    """Values of a number around that of a state, log-spaced, inside its bounds.

    Raises:
        InputError: a number that the problem does not have or that cannot be varied.
    """
    problem = state.problem()
    names = parameter_names(problem)
    if name not in names:
        raise InputError(f"map: {name[:40]!r}; allowed: two of {', '.join(names)}")
    value = float(get_parameter(problem, name))
    kind = name.rpartition("_")[0] if name[-1].isdigit() else name
    key = {"weight": "fraction", "samples": "psi_n", "centroid_norm": "norm"}.get(kind, kind)
    least, most = BOUNDS[key]
    if kind == "centroid_norm":  # squared
        least, most = 1e-3, most**2
    if key in ("fraction", "loss_weight"):
        return np.linspace(0.05, 0.95, CELLS)
    low, high = max(least, value / SPAN), min(most, value * SPAN)
    return np.geomspace(min(low, value), max(high, value), CELLS)  # the state's own number may lie below: n_c of a small class


def start(background: Background[Phase], state: State, names: tuple[str, str], quantity: str) -> int:
    """Compute the map over two numbers in the background, and the number of this work.

    Raises:
        InputError: numbers that the problem does not have or that are the same, another time, a single class, or SGD.
    """
    require_time_name(quantity)
    if state.rule != "flow" or state.weight_decay or state.averaging:
        raise InputError("map: gradient flow without weight decay and averaging only; for other rules use rfdiff phase-map")
    if state.num_classes < 2 or names[0] == names[1]:
        raise InputError(
            f"map: {names[0][:40]!r}, {names[1][:40]!r} of {state.num_classes} classes; allowed: two different numbers, 2 classes or more"
        )
    axes = {name: axis_values(state, name) for name in names}
    blank = Phase(state, names, quantity)

    def work() -> None:
        background.tell(blank)
        result = theory.phase_map(
            state.problem(),
            axes,
            tolerance=TOLERANCE,
            progress=lambda done, total: background.tell(dataclasses.replace(blank, done=done, total=total)),
        )
        background.tell(dataclasses.replace(blank, done=blank.total, result=result))

    return background.start(work)
