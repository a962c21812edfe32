"""The figure of a calibration: the losses as recorded, and the theory in the same units."""

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.calibration import fit_steps
from rfdiff.class_times import times
from rfdiff.cli.calibrate import labelled
from rfdiff.errors import InputError
from tests.calibration.test_steps_per_tau import CURVES, record
from tests.plots.drawn import marks, xs, ys


def test_losses_lie_on_the_fitted_curves() -> None:
    losses, read = record(last=3000), times(CURVES)
    data = labelled(fit_steps(CURVES, losses, read), losses, CURVES, read, ["ant", "bee"])
    panels = plots.calibration(data, class_names=["ant", "bee"]).axes
    for c, panel in enumerate(panels):
        (points,) = marks(panel, "o")
        np.testing.assert_array_equal(ys(points), losses.held_out[losses.member == c])
        line = next(line for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "None")
        np.testing.assert_allclose(np.interp(xs(points), xs(line), ys(line)), ys(points), rtol=0.02)
        (reached,) = marks(panel, "^")
        (ahead,) = marks(panel, "D")
        assert reached.get_markerfacecolor() != "white" and ahead.get_markerfacecolor() == "white"
    with pytest.raises(InputError, match="a calibration"):
        plots.calibration(data.drop_vars("train_curve"))
