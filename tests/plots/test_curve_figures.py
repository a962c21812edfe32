"""Figures of curves and of agreement: what is drawn equals the arrays given, on the axes it should be on."""

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rfdiff import plots
from rfdiff.agreement import Agreement
from rfdiff.class_times import times
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.plots.time_axis import TimeAxis
from tests import synthetic
from tests.plots import drawn
from tests.plots.drawn import colour, lines, marks, xs, ys

K = 2


def points(panel: Axes, curves: LearningCurves, name: str, c: int) -> Line2D:
    """The markers at the simulated values of a curve."""
    values = np.asarray(getattr(curves, name))[:, c]
    (markers,) = [line for line in panel.lines if len(xs(line)) == len(values) and np.array_equal(ys(line), values)]
    return markers


def inner(curves: LearningCurves) -> np.ndarray:
    taus = np.asarray(curves.taus)
    return (taus > 0) & np.isfinite(taus)


@pytest.fixture(scope="module")
def figure() -> Figure:
    theory = synthetic.theory()
    return plots.curves(theory, synthetic.simulation(), times=times(theory))


def test_theory_lines_hold_the_given_curves(figure: Figure) -> None:
    theory = synthetic.theory()
    losses, errors = figure.axes
    finite = inner(theory)
    for panel, name, style in ((losses, "train_loss", "--"), (losses, "test_loss", "-"), (errors, "score_error", "-")):
        for c in range(K):
            (line,) = [line for line in lines(panel, style, plots.OKABE_ITO[c]) if len(xs(line)) == finite.sum()]
            np.testing.assert_array_equal(xs(line), np.asarray(theory.taus)[finite])
            np.testing.assert_array_equal(ys(line), np.asarray(getattr(theory, name))[finite, c])


def test_simulation_points_and_bars_hold_means_and_standard_errors(figure: Figure) -> None:
    simulation = synthetic.simulation()
    losses, errors = figure.axes
    assert (len(losses.containers), len(errors.containers)) == (2 * K, K)
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


def test_the_order_of_theory_and_simulation_is_free(figure: Figure) -> None:
    theory = synthetic.theory()
    turned = plots.curves(synthetic.simulation(), theory, times=times(theory))
    for first, second in zip(figure.axes, turned.axes, strict=True):
        assert len(first.lines) == len(second.lines)
        assert all(np.array_equal(ys(a), ys(b), equal_nan=True) for a, b in zip(first.lines, second.lines, strict=True))


def test_zero_and_infinite_times_are_apart_behind_breaks(figure: Figure) -> None:
    theory = synthetic.theory()
    taus = np.asarray(theory.taus)
    for panel in figure.axes:
        assert panel.get_xscale() == "log"
        ticks = dict(zip([text.get_text() for text in panel.get_xticklabels()], panel.get_xticks(), strict=True))
        low, high = panel.get_xlim()
        assert low < ticks["0"] < taus[1]
        assert taus[-2] < ticks[r"$\infty$"] < high
        assert len(drawn.breaks(panel)) == 2
    losses = figure.axes[0]
    ends = {(float(xs(line)[0]), float(ys(line)[0])) for line in marks(losses, "_")}
    axis = TimeAxis([taus])
    for name in ("train_loss", "test_loss"):
        values = np.asarray(getattr(theory, name))
        assert {(axis.zero, values[0, 0]), (axis.limit, values[-1, 0]), (axis.limit, values[-1, 1])} <= ends


def test_finite_grid_has_no_break() -> None:
    figure = plots.curves(synthetic.theory(grid=np.geomspace(1, 1e4, 9)))
    for panel in figure.axes:
        assert not {"0", r"$\infty$"} & {text.get_text() for text in panel.get_xticklabels()}
        assert not drawn.breaks(panel)


def test_exact_score_losses_and_times_are_marked(figure: Figure) -> None:
    theory = synthetic.theory()
    losses = figure.axes[0]
    levels = [ys(line)[0] for line in losses.lines if line.get_linestyle() == ":"]
    np.testing.assert_array_equal(levels, np.asarray(theory.optimal_loss))
    read = times(theory)
    for marker, expected in (("^", read.tau_gen), ("D", read.tau_mem)):
        markers = marks(losses, marker)
        np.testing.assert_allclose([xs(line)[0] for line in markers], expected)
        for c, line in enumerate(markers):
            height = np.interp(np.log(expected[c]), np.log(np.asarray(theory.taus)[1:-1]), np.asarray(theory.test_loss)[1:-1, c])
            np.testing.assert_allclose(ys(line), height)
    assert not marks(plots.curves(theory).axes[0], "^")


def test_axes_and_legend_name_what_is_shown(figure: Figure) -> None:
    losses, errors = figure.axes
    assert losses.get_xlabel() == errors.get_xlabel() == r"training time $\tau$"
    assert (losses.get_ylabel(), errors.get_ylabel()) == ("loss per coordinate", "score error per coordinate")
    assert (losses.get_yscale(), errors.get_yscale()) == ("linear", "log")
    sources = {"test, theory", "train, theory", "test, simulation, d = 20", "train, simulation, d = 20"}
    assert {"class 0", "class 1", *sources} <= drawn.legend(figure)
    named = plots.curves(synthetic.theory(), class_names=["many", "few"])
    assert {"many", "few"} <= drawn.legend(named) and not any("simulation" in label for label in drawn.legend(named))


def test_single_panels() -> None:
    theory = synthetic.theory()
    losses = plots.curves(theory, panels="losses")
    assert [panel.get_ylabel() for panel in losses.axes] == ["loss per coordinate"]
    errors = plots.curves(theory, panels=["score_error"], times=times(theory))
    assert [panel.get_ylabel() for panel in errors.axes] == ["score error per coordinate"]
    assert drawn.legend(errors) == {"class 0", "class 1", "theory"}  # what the panel does not show is not explained
    assert len(plots.agreement(judged(), panels="test_loss").axes) == 1


def test_score_error_that_touches_zero_is_drawn_on_a_linear_axis() -> None:
    curves = dataclasses.replace(synthetic.theory(), score_error=np.asarray(synthetic.theory().score_error) - 2)
    assert plots.curves(curves).axes[1].get_yscale() == "linear"


def test_many_simulated_times_are_thinned_but_keep_their_ends() -> None:
    grid = np.concatenate([np.geomspace(0.1, 1e5, 199), [np.inf]])
    simulation = synthetic.simulation(grid=grid)
    heights = [ys(line) for line in marks(plots.curves(simulation).axes[0], "o")]
    assert len(heights) == K
    for c, values in enumerate(heights):
        assert 35 <= len(values) <= 45
        assert values[0] == np.asarray(simulation.test_loss)[0, c]
        assert values[-1] == np.asarray(simulation.test_loss)[-1, c]


def judged(size: float = 1.0) -> Agreement:
    """An agreement whose standardised deviations are noise of a given size, one of them missing."""
    theory, simulation = synthetic.theory(), synthetic.simulation()
    values = np.random.default_rng(0).standard_normal((24, K)) * size
    values[0, 0] = np.nan
    deviations = {"train_loss": values, "test_loss": 2 * values}
    zeros = {name: np.zeros((24, K)) for name in deviations}
    return Agreement(theory, simulation, simulation, zeros, zeros, zeros, zeros, deviations, threshold=4.0, conclusive=True, agrees=True)


@pytest.mark.parametrize(("size", "scale"), [(1.0, "linear"), (30.0, "symlog")])
def test_agreement_draws_the_standardised_deviations_and_the_threshold(size: float, scale: str) -> None:
    result = judged(size)
    figure = plots.agreement(result, class_names=("many", "few"))
    assert [panel.get_title() for panel in figure.axes] == ["train loss", "test loss"]
    for panel, values in zip(figure.axes, result.standardised.values(), strict=True):
        heights = [ys(line) for line in panel.lines if len(xs(line)) == 24]
        np.testing.assert_array_equal(np.stack(heights, 1), values)
        assert panel.get_yscale() == scale
        assert [ys(line)[0] for line in panel.lines if line.get_linestyle() == "--"] == [-4.0, 4.0]
    assert "standard errors" in figure.axes[0].get_ylabel()
    assert drawn.legend(figure) == {"many", "few", "allowed: ±4"}


def test_legends_cover_no_data() -> None:
    assert drawn.legend_is_clear(plots.curves(synthetic.theory(3), synthetic.simulation(3)))
    assert drawn.legend_is_clear(plots.agreement(judged()))


def test_bad_input_is_named() -> None:
    theory = synthetic.theory()
    with pytest.raises(InputError, match="curves: none; allowed: a prediction, a simulation, or one of each"):
        plots.curves()
    with pytest.raises(InputError, match="curves: theory, theory; allowed: a prediction"):
        plots.curves(theory, theory)
    with pytest.raises(InputError, match="curves: of 2 and 3 classes; allowed: curves of one problem"):
        plots.curves(theory, synthetic.simulation(3))
    with pytest.raises(InputError, match="curves: a Spectrum; allowed: LearningCurves"):
        plots.curves(synthetic.spectrum())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="class_names: 3 names; allowed: 2, one a class"):
        plots.curves(theory, class_names=("a", "b", "c"))
    with pytest.raises(InputError, match="panels: gap; allowed: some of losses, score_error"):
        plots.curves(theory, panels="gap")
    with pytest.raises(InputError, match="panels: none; allowed: some of train_loss, test_loss"):
        plots.agreement(judged(), panels=[])
