"""The figure of a design: the front, the settings on it, and networks beside them."""

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.errors import InputError
from tests.design import made_up
from tests.plots.drawn import marks, xs, ys


def test_settings_and_front_are_where_their_errors_say() -> None:
    proposal = made_up.proposal()
    (panel,) = plots.trade_off(proposal, class_names=["rare", "common"]).axes
    for i, marker in enumerate("os^*"):
        (mark,) = marks(panel, marker)
        np.testing.assert_allclose([xs(mark)[0], ys(mark)[0]], proposal.score_error[i])
    (front,) = [line for line in panel.lines if xs(line).size == 5]
    np.testing.assert_allclose(xs(front), np.sort(proposal.front_score_error[:, 0]))
    assert panel.get_xlabel() == "score error of rare"


def test_networks_have_error_bars() -> None:
    data = made_up.proposal().to_xarray().merge(made_up.trial().to_xarray(), combine_attrs="no_conflicts")
    (panel,) = plots.trade_off(data).axes
    crosses = marks(panel, "x")
    np.testing.assert_allclose(np.sort(xs(crosses[0])), np.sort(made_up.trial().means[:, 0]))


def test_other_results_are_refused() -> None:
    with pytest.raises(InputError, match="a design"):
        plots.trade_off(made_up.trial())
