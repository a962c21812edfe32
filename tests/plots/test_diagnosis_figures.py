"""Figures of a diagnosis: curves and times where the numbers say, with and without networks."""

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.errors import InputError
from tests.diagnosis.made_up import diagnosis
from tests.plots.drawn import marks, ys


def test_losses_have_one_panel_a_class_with_theory_and_networks() -> None:
    data = diagnosis()
    panels = plots.diagnosis_losses(data).axes
    assert [panel.get_title() for panel in panels] == ["<ant>", "bee"]
    theory = data.isel(t=1)["test_loss"].values
    for c, panel in enumerate(panels):
        lines = [line for line in panel.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]
        np.testing.assert_allclose(ys(lines[0]), theory[np.isfinite(data["tau"].values[1]), c])
        assert len(marks(panel, "o")) == 1 and len(marks(panel, "s")) == 1
    assert len({panel.get_position().y0 for panel in plots.diagnosis_losses(data, columns=1).axes}) == 2


def test_times_are_drawn_against_the_diffusion_time() -> None:
    data = diagnosis()
    (panel,) = plots.diagnosis_times(data, class_names=["one", "other"]).axes
    (first, _) = [line for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]
    np.testing.assert_allclose(ys(first), data["time"].sel(quantity="tau_gen").values[:, 0])
    assert len(marks(panel, "^")) == 2 and len(marks(panel, "D")) == 2
    assert panel.get_xscale() == panel.get_yscale() == "log"


def test_without_networks_there_are_lines_alone() -> None:
    data = diagnosis(noise=0)
    for figure in (plots.diagnosis_losses(data), plots.diagnosis_times(data)):
        assert all(not marks(panel, marker) for panel in figure.axes for marker in "os^D")


def test_other_results_are_refused() -> None:
    for draw in (plots.diagnosis_losses, plots.diagnosis_times):
        with pytest.raises(InputError, match="a diagnosis"):
            draw(diagnosis().drop_vars("window"))


@pytest.mark.thorough
def test_a_figure_as_svg_is_the_same_each_time() -> None:
    content = plots.svg_of(plots.diagnosis_times(diagnosis()))
    assert content.startswith(b"<?xml") and content == plots.svg_of(plots.diagnosis_times(diagnosis()))
