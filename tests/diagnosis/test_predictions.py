"""Good training times and common stop times, from curves whose shape is known."""

import numpy as np
import pytest

from rfdiff.class_times import times
from rfdiff.diagnosis import predictions
from rfdiff.diagnosis.predictions import best_common_stop, class_times_of, curves_in, good_windows, predicted
from tests import synthetic
from tests.diagnosis.made_up import theory_part


def test_windows_are_where_nine_tenths_of_the_descent_are_made() -> None:
    taus = np.append(np.geomspace(0.1, 1e5, 3000), np.inf)
    x = np.log(taus[:-1])
    valley = np.append(np.exp(-((x - np.log(30)) ** 2) / 8), 0)  # descent 1 at τ = 30, a bell in log τ
    rising = np.append(-np.expm1(-taus[:-1] / 5), 1.0)
    windows = good_windows(taus, 1 - np.stack([0.6 * valley, 0.5 * rising, -rising], axis=1))
    half = np.sqrt(8 * np.log(1 / 0.9))
    np.testing.assert_allclose(windows[0], 30 * np.exp([-half, half]), rtol=1e-3)
    np.testing.assert_allclose(windows[1], [5 * np.log(10), np.inf], rtol=1e-3)
    assert np.isnan(windows[2]).all()


def test_losses_without_a_limit_are_read_up_to_the_last_finite_time() -> None:
    taus = np.append(np.geomspace(1, 100, 50), np.inf)
    loss = np.append(1 - 0.5 * np.linspace(0, 1, 50), np.nan)[:, None]
    window = good_windows(taus, loss)[0]
    assert 50 < window[0] < 100 and np.isinf(window[1])


def test_the_common_stop_makes_the_largest_error_small() -> None:
    taus = np.array([1.0, 10.0, 100.0, np.inf])
    errors = np.array([[3.0, 2.0], [1.0, 1.5], [0.5, 2.5], [0.1, np.nan]])
    assert best_common_stop(taus, errors) == (1, 1)


def test_arrays_give_the_curves_back() -> None:
    curves = synthetic.theory()
    arrays = theory_part(curves)
    assert curves_in(arrays, "shown").equals(curves)
    np.testing.assert_array_equal(class_times_of(arrays).tau_gen, times(curves).tau_gen)


def test_times_shown_are_where_losses_move(monkeypatch: pytest.MonkeyPatch) -> None:
    covering = synthetic.theory(grid=np.append(np.geomspace(1e-4, 1e9, 640), np.inf))
    monkeypatch.setattr(predictions, "covering_curves", lambda *_, **__: (None, covering))
    shown = curves_in(predicted(synthetic.problem(), 1e-3), "shown")
    taus = np.asarray(shown.taus)
    assert taus.size == predictions.NUM_TIMES + 1 and np.isinf(taus[-1]) and np.all(np.diff(taus) > 0)
    assert (
        5e-3 <= taus[0] < 6e-3 and 3 * 8_000 < taus[-2] < 3 * 16_000
    )  # the slower gap, of time 1600, is within 1e-3 after 6 to 7 of these
    np.testing.assert_array_equal(shown.test_loss[-1], covering.test_loss[-1])
