"""Figures of a sweep: theory and networks at every value of an axis, other axes in columns or at their middle."""

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.errors import InputError
from tests.plots import datasets, drawn
from tests.plots.drawn import colour, marks, ys


def test_times_along_an_axis() -> None:
    data = datasets.sweep()
    figure = plots.sweep_times(data, "psi_n")
    panels = np.array(figure.axes).reshape(3, 2)
    for j in range(2):
        assert f"{data.t.values[j]:.4g}" in panels[0, j].get_title()
        for i, quantity in enumerate(data.quantity.values):
            for c in range(2):
                color = plots.OKABE_ITO[c].lower()
                theory = data.theory_class_time.values[j, :, i, c]
                (line,) = [item for item in panels[i, j].lines if item.get_linestyle() == "-" and colour(item) == color]
                np.testing.assert_array_equal(ys(line), np.where(np.isfinite(theory), theory, np.nan))  # what is never reached is a gap
                for marker, d in zip("os", (10, 20), strict=True):
                    (seen,) = [item for item in marks(panels[i, j], marker) if colour(item) == color]
                    expected = data.class_time.sel(d=d, quantity=quantity).values[j, :, 0, c]
                    np.testing.assert_array_equal(ys(seen), np.where(np.isfinite(expected), expected, np.nan))
    assert panels[2, 0].get_xlabel() == r"$\psi_n = n/d$" and panels[2, 0].get_xscale() == "log"
    assert [panel.get_yscale() for panel in panels[:, 0]] == ["log", "log", "linear"]
    assert drawn.legend(figure) == {"class 0", "class 1", "theory", "exact, d = 10", "exact, d = 20"}


def test_single_panels_and_theory_alone() -> None:
    figure = plots.sweep_times(datasets.sweep(simulated=False), "t", panels="tau_mem", class_names=("many", "few"))
    assert len(figure.axes) == 3 and figure.axes[0].get_ylabel() == r"$\tau_{\rm mem}$"
    assert drawn.legend(figure) == {"many", "few", "theory"}
    assert not marks(figure.axes[0], "o")


def test_curves_at_values_of_an_axis() -> None:
    data = datasets.sweep(values=8)
    figure = plots.sweep_curves(data, "psi_n")
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert len(shown) == 6 and f"{data.psi_n.values[-1]:.4g}" in shown[-1].get_title()  # at most six values, both ends among them
    heights = [ys(line) for line in shown[0].lines]
    middle = data.isel(t=1, psi_n=0)
    assert any(np.array_equal(y, middle.theory_train_loss.values[1:-1, 1]) for y in heights)
    assert any(np.array_equal(y, middle.test_loss.sel(solver="exact", d=20).values[1:-1, 0]) for y in heights)
    assert "(points: exact, d = 20)" in drawn.legend(figure)
    assert "diffusion time" in figure.get_suptitle()


def test_bad_input_is_named() -> None:
    for draw in (plots.sweep_times, plots.sweep_curves):
        with pytest.raises(InputError, match="axis: 'psi_p'; allowed: t, psi_n"):
            draw(datasets.sweep(), "psi_p")
        with pytest.raises(InputError, match="class_names: 3 names; allowed: 2"):
            draw(datasets.sweep(), "t", class_names=("a", "b", "c"))
