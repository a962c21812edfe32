"""The figure of generation: means with standard errors, references, theory's times, single panels."""

from typing import Any, cast

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.errors import InputError
from tests.plots import datasets, drawn
from tests.plots.drawn import colour, xs, ys


def points(panel: Any, c: int) -> np.ndarray:
    """Heights of the networks of a class."""
    (line,) = [item for item in panel.lines if item.get_marker() == "o" and colour(item) == plots.OKABE_ITO[c].lower()]
    return ys(line)


def test_points_are_means_over_networks_with_standard_errors() -> None:
    data = datasets.generation()
    figure = plots.generation(data)
    fraction, mean, variance, memorised, score = figure.axes[:5]
    count = len(datasets.TAUS)
    expected = {
        fraction: data.counts.values / 100,
        mean: data.mean_error.values,
        variance: 1 + data.variance_error.values,
        score: data.score_error.values[:, :, 1],  # t = 0.1 is nearest to 0.12
    }
    for panel, values in expected.items():
        for c in range(2):
            np.testing.assert_allclose(points(panel, c), values.mean(axis=0)[:count, c])
    bars = cast(Any, fraction.containers[0])[2][0].get_segments()
    np.testing.assert_allclose(
        [segment[1, 1] - segment[0, 1] for segment in bars],
        2 * (data.counts.values[:, :count, 0] / 100).std(axis=0, ddof=1) / np.sqrt(3),
    )
    np.testing.assert_allclose(points(memorised, 0), data.memorised_interval.values[:count, 0, 0])
    assert not figure.axes[5].axison
    assert [panel.get_yscale() for panel in figure.axes[:5]] == ["linear", "linear", "log", "linear", "log"]
    assert drawn.legend_is_clear(figure)


def test_references_and_theory() -> None:
    data = datasets.generation()
    *_, score = plots.generation(data).axes[:5]
    flat = [line for line in score.lines if len(xs(line)) == 2 and ys(line)[0] == ys(line)[1] and line.get_linewidth() < 2]
    assert {line.get_linestyle() for line in flat} == {":"}  # the exact score has no error, and a logarithm no zero
    upright = sorted({float(xs(line)[0]) for line in score.lines if len(xs(line)) == 2 and xs(line)[0] == xs(line)[1]})
    assert upright == [3.0, 5.0, 40.0]  # τ_mem = 2000 is beyond the axis
    curve = [line for line in score.lines if line.get_linewidth() == 2.2 and xs(line)[0] < xs(line)[-1]]
    assert len(curve) == 2 and all(1 <= x <= 100 for line in curve for x in xs(line))


def test_infinity_is_the_last_point_and_one_network_has_no_error() -> None:
    figure = plots.generation(datasets.generation(networks=1), panels=["mean"])
    (panel,) = figure.axes
    (line,) = [item for item in panel.lines if item.get_marker() == "o" and colour(item) == plots.OKABE_ITO[0].lower()]
    np.testing.assert_array_equal(xs(line), [1, 10, 100, 300])
    assert r"\infty" in panel.get_xlabel()
    assert "theory's score error (curve)" not in drawn.legend(figure)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="class_names: 1 names; allowed: 2"):
        plots.generation(datasets.generation(), class_names=("a",))
    with pytest.raises(InputError, match="panels: gap; allowed: some of fraction, mean, variance, memorised, score_error"):
        plots.generation(datasets.generation(), panels="gap")
