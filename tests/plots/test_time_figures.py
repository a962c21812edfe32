"""The figure of class-wise times: marks on the lines that they are read from, and bulks of area one."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from rfdiff import plots
from rfdiff.class_times import times
from rfdiff.errors import InputError
from rfdiff.theory_results import BulkTimes
from tests import synthetic
from tests.plots import drawn
from tests.plots.drawn import colour, lines, marks, xs, ys

K = 2


def both(k: int = 2, separated: bool = True, **options: Any) -> Figure:
    """Both estimates; those from the spectrum are 4 and 250 times the number of the class."""
    spectrum, theory = synthetic.spectrum(k), synthetic.theory(k)
    scale = np.arange(1.0, k + 1) if separated else np.full(k, np.nan)
    two, edges = np.ones(2), np.asarray(spectrum.support)[::-1]
    bulks = BulkTimes(4.0 * scale, 250.0 * scale, two, two, np.ones((2, k)), edges, two, separated)
    return plots.times(theory, spectrum, times(theory), bulks, **options)


def test_times_are_on_the_lines_they_are_read_from() -> None:
    theory, figure = synthetic.theory(), both()
    above, below = figure.axes
    read = times(theory)
    for panel, expected in ((above, (read.tau_gen, read.tau_mem)), (below, ([4.0, 8.0], [250.0, 500.0]))):
        for marker, values in zip("^D", expected, strict=True):
            np.testing.assert_allclose([xs(mark)[0] for mark in marks(panel, marker)], np.asarray(values))
            assert [colour(mark) for mark in marks(panel, marker)] == [color.lower() for color in plots.OKABE_ITO[:K]]
    taus = np.asarray(theory.taus)
    finite = (taus > 0) & np.isfinite(taus)
    for c in range(K):
        (line,) = [line for line in lines(above, "-", plots.OKABE_ITO[c]) if len(xs(line)) == finite.sum()]
        np.testing.assert_array_equal(ys(line), np.asarray(theory.test_loss)[finite, c])
    assert above.get_xscale() == "log" and "(above)" in below.get_xlabel() and "(below)" in below.get_xlabel()
    assert drawn.legend(figure) == {"class 0", "class 1", "test loss", "train loss", r"$\tau_{\rm gen}$", r"$\tau_{\rm mem}$"}
    assert drawn.legend_is_clear(both(3))


def test_each_bulk_of_each_class_has_area_one() -> None:
    spectrum, panel = synthetic.spectrum(), both().axes[1]
    kappa = synthetic.theory().kappa
    for b in range(2):
        grid = 1 / (kappa * np.asarray(spectrum.eigenvalues)[np.asarray(spectrum.bulk) == b])
        heights = [ys(line) for line in panel.lines if np.array_equal(xs(line), grid)]
        assert len(heights) == K
        np.testing.assert_allclose([np.trapezoid(values[::-1], np.log10(grid[::-1])) for values in heights], 1, rtol=1e-12)
    together = both(separated=False).axes[1]
    areas = [np.trapezoid(ys(line)[::-1], np.log10(xs(line)[::-1])) for line in together.lines if len(xs(line)) == 40]
    assert sum(areas) == pytest.approx(K)
    assert max(areas) < 0.9
    assert "the bulks overlap, so it gives no times" in together.get_title()
    assert not marks(together, "^") and not marks(together, "D")


def test_single_panels() -> None:
    upper, lower = both(panels="curves"), both(panels="spectrum")
    assert [panel.get_xlabel() for panel in upper.axes] == [r"training time $\tau$"]
    assert [panel.get_xlabel() for panel in lower.axes] == [r"relaxation time $1/(\kappa\lambda)$ of a mode"]
    assert "train loss" in drawn.legend(upper) and "train loss" not in drawn.legend(lower)
    assert marks(upper.axes[0], "D") and marks(lower.axes[0], "D")


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="class_names: 1 names; allowed: 2, one a class"):
        both(class_names=("a",))
    with pytest.raises(InputError, match="panels: losses; allowed: some of curves, spectrum"):
        both(panels="losses")
