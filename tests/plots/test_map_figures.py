"""Maps of times: the ratio that is drawn, the line where it is one, and what the hatching says of cells without a value."""

from typing import Any

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from rfdiff import plots
from rfdiff.class_times import ClassTimes
from rfdiff.errors import InputError
from rfdiff.theory_results import PhaseMap
from tests.plots import drawn

X, Y = np.geomspace(0.25, 4, 9), np.linspace(0.1, 0.9, 5)


def mapped(scale: Any = 1.0, failed: np.ndarray | None = None, k: int = 2) -> PhaseMap:
    """A map of times 3 x^c of class c: of two classes the order flips at x = 1."""
    values = 3 * X[:, None, None] ** np.arange(k) * np.ones((1, Y.size, 1)) * scale
    converged = np.ones((X.size, Y.size), bool) if failed is None else ~failed
    values = np.where(converged[..., None], values, np.nan)
    times = ClassTimes(values, values, values, values, q=0.3)
    return PhaseMap(X, Y, times, np.full(converged.shape, 1e-6), converged, ("variance_ratio", "weight_0"))


def shown(figure: Figure) -> np.ndarray:
    """Values (A, B) of the heat map."""
    arrays: list[Any] = [np.ma.asarray(item.get_array()) for item in figure.axes[0].collections if isinstance(item, QuadMesh)]
    (values,) = [array for array in arrays if array.compressed().size > 1]
    return np.ma.filled(values, np.nan).reshape(Y.size, X.size).T


def flip_line(figure: Figure) -> np.ndarray:
    """Points (N, 2) of the line of equal times."""
    (line,) = [item for item in figure.axes[0].collections if isinstance(item, ContourSet)]
    return np.concatenate([path.vertices for path in line.get_paths()])


def test_map_shows_the_ratio_and_the_line_where_it_is_one() -> None:
    figure = plots.phase_map(mapped(), "tau_gen")
    np.testing.assert_allclose(shown(figure), -np.log10(X)[:, None] * np.ones(Y.size), atol=1e-12)
    np.testing.assert_allclose(flip_line(figure)[:, 0], 1.0)
    np.testing.assert_allclose(shown(plots.phase_map(mapped(), "tau_gen", pair=(1, 0))), -shown(figure))
    panel, bar = figure.axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "linear")
    assert (panel.get_xlabel(), panel.get_ylabel()) == (
        r"$\sigma_0^2/\sigma_1^2$ at fixed $\sigma_1^2$",
        r"class fraction $\pi$ of class 0",
    )
    assert bar.get_ylabel() == r"$\log_{10}(\tau_{\rm gen,0}/\tau_{\rm gen,1})$   (negative: class 0 first)"
    assert drawn.legend(figure) == {"equal times: the order flips"}
    one_sided = plots.phase_map(mapped(scale=np.array([1.0, 100.0])), "tau_gen")
    assert not drawn.legend(one_sided) and not [item for item in one_sided.axes[0].collections if isinstance(item, ContourSet)]
    assert "fraction 0.3" in plots.phase_map(mapped(), "tau_opt").axes[0].get_title()
    named = plots.phase_map(mapped(), "tau_gen", class_names=("many", "few"))
    assert "(negative: many first)" in named.axes[1].get_ylabel()


def test_map_hatches_what_has_no_ratio() -> None:
    failed = np.zeros((X.size, Y.size), bool)
    failed[0, 0] = True
    never, none = (np.ones((X.size, Y.size, 2)) for _ in range(2))
    never[2, 3, 1], none[4, 1, 0] = np.inf, np.nan
    figure = plots.phase_map(mapped(never * none, failed), "tau_gen")
    assert {(int(i), int(j)) for i, j in np.argwhere(np.isnan(shown(figure)))} == {(0, 0), (2, 3), (4, 1)}
    assert {"not converged", "a class never reaches the criterion", "this time does not exist"} <= drawn.legend(figure)
    hatched: list[Any] = [item for item in figure.axes[0].collections if item.get_hatch()]
    assert sorted(item.get_hatch() for item in hatched) == ["...", "///", "xx"]
    figure.draw_without_rendering()
    for item in hatched:
        assert len(item.get_facecolor()) == 1 and item.get_facecolor()[0][3] == 0  # its cell alone, and the grey shows through
        assert item.get_alpha() is None and to_hex(item.get_edgecolor()[0]) == "#595959"
    assert drawn.legend_is_clear(figure)


def test_map_of_one_class_shows_the_time() -> None:
    figure = plots.phase_map(mapped(k=1, scale=X[:, None, None]), "tau_gen")
    np.testing.assert_allclose(shown(figure), np.log10(3 * X)[:, None] * np.ones(Y.size))
    assert figure.axes[1].get_ylabel() == r"$\log_{10} \tau_{\rm gen}$"


def test_a_map_without_any_value_is_drawn() -> None:
    nothing = plots.phase_map(mapped(failed=np.ones((X.size, Y.size), bool)), "tau_mem")
    assert drawn.legend(nothing) == {"not converged"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "tau"}, "quantity: 'tau'; allowed: tau_gen, tau_stop"),
        ({"pair": (0, 2)}, r"\(0, 2\); allowed: two different classes of 0 to 1"),
        ({"pair": (1, 1)}, r"\(1, 1\); allowed"),
        ({"class_names": ["a"]}, "class_names: 1 names; allowed: 2"),
    ],
)
def test_bad_maps_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plots.phase_map(mapped(), **{"quantity": "tau_gen", **change})


def test_an_axis_of_one_value_is_refused() -> None:
    times = np.ones((1, 2, 2))
    line = PhaseMap(
        np.ones(1), np.array([1.0, 2.0]), ClassTimes(times, times, times, times), np.zeros((1, 2)), np.ones((1, 2), bool), ("t", "psi_p")
    )
    with pytest.raises(InputError, match="axes: 1 x 2 values; allowed: at least 2 on each axis"):
        plots.phase_map(line, "tau_gen")
