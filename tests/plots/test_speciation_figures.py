"""Figures of the backward process: measured points on the closed form, and trajectories in the colour of their class."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from rfdiff import plots
from rfdiff.errors import InputError
from tests.plots import drawn
from tests.plots.drawn import colour, marks, xs, ys

TIMES = np.linspace(0.5, 4, 30)
TURNS, COPIES = np.array([1.0, 2.0, 3.0]), np.array([7.0, 2.5, 1.5])


def returns(t: np.ndarray) -> np.ndarray:
    """R_c(t) of a made-up mixture, (T, 2)."""
    weights = np.array([0.7, 0.3])
    return weights + (1 - weights) / (1 + np.exp(3 * (t[:, None] - np.array([2.0, 1.6]))))


def speciation(measured: bool = True, **changes: Any) -> xr.Dataset:
    variables: dict[str, Any] = {
        "return_probability": (("time", "class"), returns(TIMES)),
        "speciation_time": ("class", [2.0, np.nan]),
        "well_time": ("class", [np.inf, 1.2]),
    }
    coordinates: dict[str, Any] = {"time": TIMES, "class": [0, 1]}
    if measured:
        for name, times, size in (("uturn", TURNS, 0.02), ("clone", COPIES, 0.03)):
            at = "turn_time" if name == "uturn" else "clone_time"
            variables |= {name: ((at, "class"), returns(times)), f"{name}_stderr": ((at, "class"), np.full((3, 2), size))}
            coordinates[at] = times
        variables["path"] = (("trajectory", "path_time", "axis"), np.full((2, 3, 2), 9.0) * np.array([1, 0.1]), {"long_name": "projection"})
        variables["path_class"] = ("trajectory", [1, 0])
        coordinates["path_time"] = [3.0, 2.0, 1.0]
    return xr.Dataset(variables | changes, coordinates)


def test_return_probability_holds_curves_points_and_times() -> None:
    figure = plots.return_probability(speciation())
    (panel,) = figure.axes
    for c in range(2):
        assert [line for line in panel.lines if np.array_equal(ys(line), returns(TIMES)[:, c])]
        assert [line for line in marks(panel, "o") if np.array_equal(ys(line), returns(TURNS)[:, c])]
        (clones,) = [line for line in marks(panel, "s") if colour(line) == plots.OKABE_ITO[c].lower()]
        np.testing.assert_array_equal(ys(clones), returns(COPIES[1:])[:, c])  # the copy at t = 7 is beyond the curve
    (star,) = marks(panel, "*")
    assert xs(star)[0] == 2.0 and ys(star)[0] == pytest.approx(np.interp(2.0, TIMES, returns(TIMES)[:, 0]))
    assert [xs(line)[0] for line in panel.lines if line.get_linestyle() == ":"] == [1.2]
    assert panel.get_xlim()[0] > panel.get_xlim()[1]  # noise on the left
    told = {"class 0", "class 1", "U-turns", "clones", r"$R_c = (1 + \pi_c)/2$", "the well of the class appears"}
    assert drawn.legend(figure) == told and drawn.legend_is_clear(figure)


def test_the_closed_form_alone_is_drawn() -> None:
    nowhere = {"speciation_time": ("class", [np.nan, np.nan]), "well_time": ("class", [np.inf, np.nan])}
    figure = plots.return_probability(speciation(False, **nowhere), class_names=("many", "few"))
    assert drawn.legend(figure) == {"many", "few"} and len(figure.axes[0].lines) == 2


def test_a_result_is_drawn_as_its_dataset() -> None:
    class Result:
        def to_xarray(self) -> xr.Dataset:
            return speciation()

    assert len(plots.return_probability(Result()).axes[0].lines) == len(plots.return_probability(speciation()).axes[0].lines)


def test_trajectories_have_the_colour_of_their_class() -> None:
    figure = plots.trajectories(speciation())
    first, second = figure.axes
    assert [colour(line) for line in first.lines[:2]] == [plots.OKABE_ITO[1].lower(), plots.OKABE_ITO[0].lower()]
    assert (first.get_yscale(), second.get_yscale()) == ("symlog", "linear")  # 9 is signal, 0.9 is within the noise
    assert [xs(line)[0] for line in first.lines if line.get_linestyle() == "--"] == [2.0]
    assert (first.get_ylabel(), second.get_ylabel()) == ("projection 1", "projection 2")
    assert second.get_xlim() == (3.0, 0.0)
    assert drawn.legend(figure) == {"class 0 (1)", "class 1 (1)", "speciation time"}


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="class_names: 1 names; allowed: 2"):
        plots.return_probability(speciation(), class_names=("a",))
    with pytest.raises(InputError, match="holds no path, path_class; allowed: a result of speciation with trajectories"):
        plots.trajectories(speciation(False))
