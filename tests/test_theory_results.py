"""Maps of times: which class is first, where the order flips, and how the axes are spaced."""

import numpy as np
import pytest

from rfdiff.class_times import ClassTimes
from rfdiff.errors import InputError
from rfdiff.theory_results import PhaseMap

PSI_P, PSI_N = np.geomspace(0.4, 6.4, 5), np.array([1.0, 2.0, 3.0])


def made_up() -> PhaseMap:
    """Class c has the time x^c in every cell, so that class 1 is first below x = 1 and class 0 above; one cell failed."""
    times = np.broadcast_to(PSI_P[:, None, None] ** np.arange(2), (5, 3, 2)).copy()
    converged = np.ones((5, 3), bool)
    converged[0, 0] = False
    times[0, 0] = np.nan
    return PhaseMap(PSI_P, PSI_N, ClassTimes(times, times, times, times), np.full((5, 3), 1e-6), converged, ("psi_p", "psi_n"))


def test_the_sign_of_the_ratio_says_which_class_is_first() -> None:
    order = made_up().log_ratio("tau_mem")
    np.testing.assert_allclose(order[1:], -np.log10(PSI_P[1:, None]) * np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(made_up().log_ratio("tau_mem", (1, 0))[2], -order[2], rtol=1e-12)
    assert np.isnan(order[0, 0]) and np.isfinite(order[0, 1])


def test_the_order_flips_where_the_times_are_equal() -> None:
    found = made_up()
    np.testing.assert_allclose(found.flips("tau_gen", 0), [1.0] * 3, rtol=1e-12)  # x is log-spaced, and log x is the order
    assert found.flips("tau_gen", 1).size == 0


def test_a_tie_is_a_flip_and_a_failed_cell_is_none() -> None:
    times = np.array([[[2.0, 1.0]], [[1.0, 1.0]], [[np.nan, np.nan]], [[1.0, 2.0]]])
    found = PhaseMap(
        np.arange(1.0, 5.0), np.ones(1), ClassTimes(times, times, times, times), np.zeros((4, 1)), np.ones((4, 1), bool), ("t", "psi_n")
    )
    np.testing.assert_allclose(found.flips("tau_gen", 0), [2.0])


@pytest.mark.parametrize(
    ("values", "name", "spacing"),
    [
        (np.geomspace(0.1, 10, 7), "variance_ratio", "log"),
        (np.linspace(0.1, 10, 7), "variance_ratio", "linear"),
        (np.array([0.1, 10.0]), "psi_n", "log"),
        (np.array([0.1, 0.9]), "weight_0", "linear"),
    ],
)
def test_spacing(values: np.ndarray, name: str, spacing: str) -> None:
    empty = np.ones((values.size, 1))
    found = PhaseMap(values, np.ones(1), ClassTimes(*[empty[..., None]] * 4), empty, empty > 0, (name, "t"))
    assert found.spacings[0] == spacing


@pytest.mark.parametrize("pair", [(0, 0), (0, 2), (-1, 0)])
def test_a_pair_that_is_none(pair: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"pair: .*allowed: two different classes of 0 to 1"):
        made_up().log_ratio("tau_gen", pair)
