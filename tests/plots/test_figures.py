"""Figures: what is drawn equals the arrays given, on the axes it should be on, without touching matplotlib's global state."""

import dataclasses
import types
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import _pylab_helpers
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfdiff import plots
from rfdiff.class_times import times
from rfdiff.curves import LearningCurves
from rfdiff.plots import curve_figures
from tests import synthetic

K = 2


def xs(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata())


def ys(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata())


def colour(line: Line2D) -> str:
    return to_hex(cast(Any, line.get_color()))


def lines(panel: Axes, style: str, color: str) -> list[Line2D]:
    return [line for line in panel.lines if line.get_linestyle() == style and colour(line) == color.lower()]


def points(panel: Axes, curves: LearningCurves, name: str, c: int) -> Line2D:
    """The markers that stand at the simulated values of a curve."""
    values = np.asarray(getattr(curves, name))[:, c]
    (found,) = [line for line in panel.lines if len(xs(line)) == len(values) and np.array_equal(ys(line), values)]
    return found


def inner(curves: LearningCurves) -> np.ndarray:
    taus = np.asarray(curves.taus)
    return (taus > 0) & np.isfinite(taus)


@pytest.fixture(scope="module")
def figure() -> Figure:
    theory = synthetic.theory()
    return plots.plot_curves(theory, synthetic.simulation(), times(theory))


def test_theory_lines_hold_the_given_curves(figure: Figure) -> None:
    theory = synthetic.theory()
    losses, errors = figure.axes
    keep = inner(theory)
    drawn = [(losses, "train_loss", "--"), (losses, "test_loss", "-"), (errors, "score_error", "-")]
    for panel, name, style in drawn:
        for c in range(K):
            (line,) = [line for line in lines(panel, style, plots.OKABE_ITO[c]) if len(xs(line)) == keep.sum()]
            np.testing.assert_array_equal(xs(line), np.asarray(theory.taus)[keep])
            np.testing.assert_array_equal(ys(line), np.asarray(getattr(theory, name))[keep, c])


def test_simulation_points_and_bars_hold_means_and_standard_errors(figure: Figure) -> None:
    simulation = synthetic.simulation()
    losses, errors = figure.axes
    assert len(losses.containers) == 2 * K
    assert len(errors.containers) == K
    for panel, names in ((losses, ("train_loss", "test_loss")), (errors, ("score_error",))):
        bars = iter(panel.containers)
        for name in names:
            for c in range(K):
                dots = points(panel, simulation, name, c)
                assert colour(dots) == plots.OKABE_ITO[c].lower()
                assert (dots.get_markerfacecolor() == "white") == (name == "train_loss")
                _, _, (collection,) = cast(Any, next(bars))
                ends = np.array([segment[:, 1] for segment in collection.get_segments()])
                mean, error = np.asarray(getattr(simulation, name))[:, c], np.asarray(getattr(simulation, f"{name}_stderr"))[:, c]
                np.testing.assert_allclose(ends, np.stack([mean - error, mean + error], 1), rtol=1e-14)


def test_zero_and_infinite_times_stand_apart_behind_breaks(figure: Figure) -> None:
    theory = synthetic.theory()
    taus = np.asarray(theory.taus)
    for panel in figure.axes:
        assert panel.get_xscale() == "log"
        ticks = dict(zip([text.get_text() for text in panel.get_xticklabels()], panel.get_xticks(), strict=True))
        low, high = panel.get_xlim()
        assert low < ticks["0"] < taus[1]
        assert taus[-2] < ticks[r"$\infty$"] < high
        breaks = [line for line in panel.lines if line.get_transform() == panel.get_xaxis_transform()]
        assert len(breaks) == 2
    losses = figure.axes[0]
    marks = [line for line in losses.lines if line.get_marker() == "_"]
    ends = {(float(xs(line)[0]), float(ys(line)[0])) for line in marks}
    axis = curve_figures._TimeAxis([taus])
    for name in ("train_loss", "test_loss"):
        values = np.asarray(getattr(theory, name))
        assert {(axis.zero, values[0, 0]), (axis.limit, values[-1, 0]), (axis.limit, values[-1, 1])} <= ends


def test_finite_grid_has_no_break() -> None:
    figure = plots.plot_curves(synthetic.theory(grid=np.geomspace(1, 1e4, 9)))
    for panel in figure.axes:
        assert not {"0", r"$\infty$"} & {text.get_text() for text in panel.get_xticklabels()}
        assert not [line for line in panel.lines if line.get_transform() == panel.get_xaxis_transform()]


def test_exact_score_losses_and_times_are_marked(figure: Figure) -> None:
    theory = synthetic.theory()
    losses = figure.axes[0]
    levels = [ys(line)[0] for line in losses.lines if line.get_linestyle() == ":"]
    np.testing.assert_array_equal(levels, np.asarray(theory.optimal_loss))
    found = times(theory)
    for marker, expected in (("^", found.tau_gen), ("D", found.tau_mem)):
        marks = [line for line in losses.lines if line.get_marker() == marker]
        np.testing.assert_allclose([xs(line)[0] for line in marks], expected)
        for c, line in enumerate(marks):
            height = np.interp(np.log(expected[c]), np.log(np.asarray(theory.taus)[1:-1]), np.asarray(theory.test_loss)[1:-1, c])
            np.testing.assert_allclose(ys(line), height)
    unmarked = plots.plot_curves(theory)
    assert not [line for line in unmarked.axes[0].lines if line.get_marker() in ("^", "D")]


def test_axes_and_legend_name_what_is_shown(figure: Figure) -> None:
    losses, errors = figure.axes
    assert losses.get_xlabel() == errors.get_xlabel() == r"training time $\tau$"
    assert (losses.get_ylabel(), errors.get_ylabel()) == ("loss per coordinate", "score error per coordinate")
    assert (losses.get_yscale(), errors.get_yscale()) == ("linear", "log")
    (legend,) = figure.legends
    told = {text.get_text() for text in legend.get_texts()}
    assert {"class 0", "class 1", "test, theory", "train, theory", "test, simulation, d = 20", "train, simulation, d = 20"} <= told
    named = plots.plot_curves(synthetic.theory(), class_names=("many", "few"))
    assert {"many", "few"} <= {text.get_text() for text in named.legends[0].get_texts()}
    assert not any("simulation" in text.get_text() for text in named.legends[0].get_texts())


@pytest.mark.parametrize("kind", ["curves", "spectrum", "map", "times"])
def test_legend_covers_no_data(kind: str) -> None:
    figure = {
        "curves": lambda: plots.plot_curves(synthetic.theory(3), synthetic.simulation(3)),
        "spectrum": lambda: plots.plot_spectrum(synthetic.spectrum(3), synthetic.simulation(3).spectrum),
        "map": lambda: mapped(),
        "times": lambda: both_readings(3),
    }[kind]()
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes)
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_score_error_that_touches_zero_is_drawn_on_a_linear_axis() -> None:
    curves = dataclasses.replace(synthetic.theory(), score_error=np.asarray(synthetic.theory().score_error) - 2)
    assert plots.plot_curves(curves).axes[1].get_yscale() == "linear"


def test_many_simulated_times_are_thinned_but_keep_their_ends() -> None:
    grid = np.concatenate([np.geomspace(0.1, 1e5, 199), [np.inf]])
    simulation = synthetic.simulation(grid=grid)
    figure = plots.plot_curves(simulation=simulation)
    heights = [ys(line) for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(heights) == K
    for c, drawn in enumerate(heights):
        assert 35 <= len(drawn) <= 45
        assert drawn[0] == np.asarray(simulation.test_loss)[0, c]
        assert drawn[-1] == np.asarray(simulation.test_loss)[-1, c]


def test_spectrum_shows_density_per_decade_of_each_bulk() -> None:
    spectrum = synthetic.spectrum()
    panel = plots.plot_spectrum(spectrum).axes[0]
    assert panel.get_xscale() == "log"
    assert r"\lambda" in panel.get_xlabel()
    assert "weight per decade" in panel.get_ylabel()
    grid, density, parts = (np.asarray(x) for x in (spectrum.eigenvalues, spectrum.density, spectrum.class_density))
    for b in range(2):
        inside = np.asarray(spectrum.bulk) == b
        drawn = [ys(line) for line in panel.lines if np.array_equal(xs(line), grid[inside])]
        assert len(drawn) == 1 + K
        scale = grid[inside] * np.log(10)
        np.testing.assert_allclose(drawn[0], scale * density[inside])
        np.testing.assert_allclose(np.stack(drawn[1:], 1), scale[:, None] * parts[inside])
        mass = np.trapezoid(np.asarray(drawn[0]), np.log10(grid[inside]))
        assert mass == pytest.approx((0.3, 0.45)[b], rel=2e-2)


def test_histogram_counts_every_positive_eigenvalue_once() -> None:
    empirical = synthetic.simulation().spectrum
    panel = plots.plot_spectrum(None, empirical, bins_per_decade=10).axes[0]
    total, *parts = [cast(Any, patch).get_data() for patch in panel.patches if hasattr(patch, "get_data")]
    widths = np.diff(np.log10(total.edges))
    np.testing.assert_allclose(widths, 0.1)
    assert np.sum(total.values * widths) == pytest.approx(0.8)
    modes = np.asarray(synthetic.given(empirical).eigenvalues)
    expected = np.histogram(modes[modes > 0], total.edges)[0] / modes.size / 0.1
    np.testing.assert_allclose(total.values, expected)
    np.testing.assert_allclose(sum(part.values for part in parts), total.values)
    np.testing.assert_allclose([np.sum(part.values * widths) for part in parts], 0.8 * np.array([2, 1]) / 3)


def test_atoms_are_stems_with_their_weight_and_support_is_shaded() -> None:
    spectrum = synthetic.spectrum()
    panel = plots.plot_spectrum(spectrum, synthetic.simulation().spectrum).axes[0]
    stems = [float(xs(line)[0]) for line in panel.lines if line.get_marker() == "^"]
    assert len(stems) == 2
    assert stems[1] == 20.0
    assert panel.get_xlim()[0] < stems[0] < 0.02
    assert panel.get_xlim()[1] > 20
    assert dict(zip([text.get_text() for text in panel.get_xticklabels()], panel.get_xticks(), strict=True))["0"] == stems[0]
    assert [text.get_text() for text in panel.texts] == ["0.2\n(sim. 0.2)", "0.05"]
    spans = sorted(
        patch.get_extents().transformed(panel.transData.inverted()).x0 for patch in panel.patches if not hasattr(patch, "get_data")
    )
    np.testing.assert_allclose(spans, np.asarray(spectrum.support)[:, 0])
    alone = plots.plot_spectrum(None, synthetic.simulation().spectrum).axes[0]
    assert [text.get_text() for text in alone.texts] == ["(sim. 0.2)"]


def test_one_class_has_no_parts() -> None:
    panel = plots.plot_spectrum(synthetic.spectrum(1), synthetic.simulation(1).spectrum).axes[0]
    assert len([line for line in panel.lines if len(xs(line)) == 40]) == 2
    assert len([patch for patch in panel.patches if hasattr(patch, "get_data")]) == 1


@pytest.mark.parametrize(("size", "scale"), [(1.0, "linear"), (30.0, "symlog")])
def test_agreement_draws_the_standardised_deviations_and_the_threshold(size: float, scale: str) -> None:
    simulation = synthetic.simulation()
    values = np.random.default_rng(0).standard_normal((24, K)) * size
    values[0, 0] = np.nan
    deviations = {"train_loss": values, "test_loss": 2 * values}
    agreement = types.SimpleNamespace(simulation=simulation, standardised=deviations, threshold=4.0)
    panels = plots.plot_agreement(agreement).axes
    assert [panel.get_title() for panel in panels] == ["train loss", "test loss"]
    for panel, shown in zip(panels, deviations.values(), strict=True):
        drawn = [ys(line) for line in panel.lines if len(xs(line)) == 24]
        np.testing.assert_array_equal(np.stack(drawn, 1), shown)
        assert panel.get_yscale() == scale
        assert [ys(line)[0] for line in panel.lines if line.get_linestyle() == "--"] == [-4.0, 4.0]
    assert "standard errors" in panels[0].get_ylabel()


@pytest.mark.parametrize("num_classes", [1, 2, 7, 8, 12])
def test_classes_have_colours_of_their_own(num_classes: int) -> None:
    assert len({to_hex(color) for color in plots.class_colors(num_classes)}) == num_classes


X, Y = np.geomspace(0.25, 4, 9), np.linspace(0.1, 0.9, 5)


def mapped(quantity: str = "tau_gen", pair: tuple[int, int] = (0, 1), failed: Any = None, scale: Any = 1.0, k: int = 2) -> Figure:
    """A map of two classes whose times are 3 and 3 x: the order flips at x = 1."""
    values = 3 * X[:, None, None] ** np.arange(k) * np.ones((1, Y.size, 1)) * scale
    failed = np.zeros((X.size, Y.size), bool) if failed is None else failed
    values = np.where(failed[..., None], np.nan, values)
    return plots.plot_phase_map(X, Y, values, failed, ("variance_ratio", "weight_0"), quantity, pair, (True, False), 0.3)


def shown(figure: Figure) -> np.ndarray:
    """Values (A, B) of the heat map."""
    arrays: list[Any] = [np.ma.asarray(item.get_array()) for item in figure.axes[0].collections if isinstance(item, QuadMesh)]
    (values,) = [array for array in arrays if array.compressed().size > 1]
    return np.ma.filled(values, np.nan).reshape(Y.size, X.size).T


def flip_line(figure: Figure) -> np.ndarray:
    """Points (N, 2) of the line of equal times."""
    (line,) = [item for item in figure.axes[0].collections if isinstance(item, ContourSet)]
    return np.concatenate([path.vertices for path in line.get_paths()])


def told(figure: Figure) -> set[str]:
    return {text.get_text() for legend in figure.legends for text in legend.get_texts()}


def test_map_shows_the_ratio_and_the_line_where_it_is_one() -> None:
    figure = mapped()
    np.testing.assert_allclose(shown(figure), -np.log10(X)[:, None] * np.ones(Y.size), atol=1e-12)
    np.testing.assert_allclose(flip_line(figure)[:, 0], 1.0)
    np.testing.assert_allclose(shown(mapped(pair=(1, 0))), -shown(figure))
    panel, bar = figure.axes
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "linear")
    assert (panel.get_xlabel(), panel.get_ylabel()) == (r"$\sigma_0^2/\sigma_1^2$", r"class fraction $\pi$ of class 0")
    assert bar.get_ylabel() == r"$\log_{10}(\tau_{gen,0}/\tau_{gen,1})$   (negative: class 0 first)"
    assert told(figure) == {"equal times: the order flips"}
    one_sided = mapped(scale=np.array([1.0, 100.0]))
    assert told(one_sided) == set() and not [item for item in one_sided.axes[0].collections if isinstance(item, ContourSet)]
    assert "fraction 0.3" in mapped("tau_opt").axes[0].get_title()


def test_map_hatches_what_has_no_ratio() -> None:
    failed = np.zeros((X.size, Y.size), bool)
    failed[0, 0] = True
    never, none = (np.ones((X.size, Y.size, 2)) for _ in range(2))
    never[2, 3, 1], none[4, 1, 0] = np.inf, np.nan
    figure = mapped(failed=failed, scale=never * none)
    values = shown(figure)
    assert {(int(i), int(j)) for i, j in np.argwhere(np.isnan(values))} == {(0, 0), (2, 3), (4, 1)}
    assert {"failed", "a class never gets there", "no such time"} <= told(figure)
    hatches = [item.get_hatch() for item in figure.axes[0].collections if item.get_hatch()]
    assert sorted(hatches) == ["...", "///", "xx"]


def test_map_of_one_class_shows_the_time() -> None:
    figure = mapped(k=1, scale=X[:, None, None])
    np.testing.assert_allclose(shown(figure), np.log10(3 * X)[:, None] * np.ones(Y.size))
    assert figure.axes[1].get_ylabel() == r"$\log_{10} \tau_{gen}$"


def both_readings(k: int = 2, separated: bool = True, names: tuple[str, ...] | None = None) -> Figure:
    spectrum = synthetic.spectrum(k)
    support = np.asarray(spectrum.support)
    scale = np.arange(1, k + 1) if separated else np.full(k, np.nan)
    bulks = types.SimpleNamespace(tau_gen=4.0 * scale, tau_mem=250.0 * scale, edges=support[::-1], separated=separated)
    return plots.plot_times(synthetic.theory(k), spectrum, times(synthetic.theory(k)), bulks, names)


def test_times_stand_on_the_lines_they_are_read_from() -> None:
    theory, (above, below) = synthetic.theory(), both_readings().axes
    read = times(theory)
    for panel, expected in ((above, (read.tau_gen, read.tau_mem)), (below, ([4.0, 8.0], [250.0, 500.0]))):
        for marker, values in zip("^D", expected, strict=True):
            marks = [line for line in panel.lines if line.get_marker() == marker]
            np.testing.assert_allclose([xs(mark)[0] for mark in marks], np.asarray(values))
            assert [colour(mark) for mark in marks] == [color.lower() for color in plots.OKABE_ITO[:K]]
    keep = inner(theory)
    for c in range(K):
        (line,) = [line for line in lines(above, "-", plots.OKABE_ITO[c]) if len(xs(line)) == keep.sum()]
        np.testing.assert_array_equal(ys(line), np.asarray(theory.test_loss)[keep, c])
    assert above.get_xscale() == "log" and r"\tau" in below.get_xlabel()
    assert {"class 0", "class 1", "test loss", "train loss", r"$\tau_{gen}$", r"$\tau_{mem}$"} == told(both_readings())


def test_each_bulk_of_each_class_has_area_one() -> None:
    spectrum, panel = synthetic.spectrum(), both_readings().axes[1]
    kappa = synthetic.theory().kappa
    for b in range(2):
        grid = 1 / (kappa * np.asarray(spectrum.eigenvalues)[np.asarray(spectrum.bulk) == b])
        drawn = [ys(line) for line in panel.lines if np.array_equal(xs(line), grid)]
        assert len(drawn) == K
        np.testing.assert_allclose([np.trapezoid(heights[::-1], np.log10(grid[::-1])) for heights in drawn], 1, rtol=1e-12)
    together = both_readings(separated=False).axes[1]
    areas = [np.trapezoid(ys(line)[::-1], np.log10(xs(line)[::-1])) for line in together.lines if len(xs(line)) == 40]
    assert sum(areas) == pytest.approx(K)
    assert max(areas) < 0.9
    assert "the bulks overlap, no times" in together.get_title()
    assert not [line for line in together.lines if line.get_marker() in ("^", "D")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": "tau"}, "quantity: 'tau'; allowed: tau_gen, tau_stop"),
        ({"pair": (0, 2)}, r"classes: \(0, 2\); allowed: two different ones of 0 to 1"),
        ({"pair": (1, 1)}, r"classes: \(1, 1\); allowed"),
    ],
)
def test_bad_maps_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mapped(**change)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="axes: 1 x 2 values; allowed: at least 2 on each axis"):
        plots.plot_phase_map([1.0], [1.0, 2.0], np.ones((1, 2, 2)), np.zeros((1, 2), bool), ("t", "psi_p"), "tau_gen")
    with pytest.raises(ValueError, match="class_names: 1 names; allowed: 2, one a class"):
        both_readings(names=("a",))
    with pytest.raises(ValueError, match="theory, simulation: both None"):
        plots.plot_curves()
    with pytest.raises(ValueError, match="spectrum, empirical: both None"):
        plots.plot_spectrum()
    with pytest.raises(ValueError, match="class_names: 3 names; allowed: 2, one a class"):
        plots.plot_curves(synthetic.theory(), class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="class_names: 1 names; allowed: 2"):
        plots.plot_spectrum(synthetic.spectrum(), class_names=("a",))
    with pytest.raises(ValueError, match="no eigenvalue is positive"):
        nothing = dataclasses.replace(synthetic.given(synthetic.simulation().spectrum), eigenvalues=np.zeros((3, 80)))
        plots.plot_spectrum(None, nothing)


def test_figures_are_free_of_global_state_and_written_whole(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figure = plots.plot_curves(synthetic.theory())
    path = plots.save_figure(figure, tmp_path / "a.png", dpi=50)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs
    with pytest.raises(OSError, match="nowhere"):
        plots.save_figure(figure, tmp_path / "nowhere" / "a.png", dpi=50)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
