"""What is said of a diagnosis, and that networks which say otherwise are heard."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from rfdiff.diagnosis import Statement, statements
from rfdiff.diagnosis.verdicts import (
    CONFIRMED,
    CONTRADICTED,
    UNCHECKED,
    UNRESOLVED,
    common_window,
    deviations,
    final_gaps,
    overstatement,
    plain,
    time_ratios,
    with_error,
)
from tests import synthetic
from tests.diagnosis.made_up import GRID, diagnosis

THEORY = synthetic.theory(2, GRID)


def said(topic: str, found: list[Statement]) -> Statement:
    return next(one for one in found if one.topic == topic and one.t == 0.1)


def exchanged() -> "synthetic.LearningCurves":
    swapped: dict[str, Any] = {name: np.asarray(getattr(THEORY, name))[:, ::-1] for name in ("train_loss", "test_loss", "score_error")}
    return dataclasses.replace(THEORY, **swapped)


def test_networks_that_follow_theory_bear_it_out() -> None:
    data = diagnosis(noise=0.002)
    found = statements(data)
    assert len(found) == 8 and {one.verdict for one in found if one.topic != "bottleneck"} == {CONFIRMED}
    order = said("learning", found)
    assert order.text.startswith("learned, first to last: <ant> (") and "< bee" in order.text and "± " in order.text
    ratio, error = time_ratios(data) or (np.zeros(0), np.zeros(0))
    np.testing.assert_allclose(ratio[:, [0, 2]], 1, atol=0.02)
    assert np.isfinite(error[:, [0, 2]]).all()
    off = deviations(data)
    assert off is not None and abs(off).max() < 0.01 and overstatement(data) == []


def test_networks_of_the_other_order_contradict_it() -> None:
    found = statements(diagnosis(networks=exchanged(), noise=0.002))
    # the deviation that was measured is as large as what theory puts between the classes: their order is not claimed
    assert said("learning", found).verdict == UNRESOLVED and "≈" in said("learning", found).text
    assert "× " in said("learning", found).measured
    near = dataclasses.replace(THEORY, taus=THEORY.taus * 1.1)
    assert said("learning", statements(diagnosis(networks=near, noise=0.002))).verdict == CONFIRMED


def test_one_pair_of_three_classes_may_be_contradicted() -> None:
    """Networks exchange the second and third class, which theory puts far apart beside the deviation of the first."""
    theory = synthetic.theory(3, GRID)
    test, train = np.array(theory.test_loss), np.array(theory.train_loss)
    fast = lambda scale: -np.expm1(-GRID / scale)  # noqa: E731
    scales, seen = (2.0, 10.0, 16.0), (2.0, 16.5, 10.0)
    memorised = fast(3000.0)

    def with_scales(values: tuple[float, ...]) -> "synthetic.LearningCurves":
        for c, scale in enumerate(values):
            test[:, c], train[:, c] = 1 - 0.4 * fast(scale) + 0.2 * memorised, 1 - 0.4 * fast(scale) - 0.2 * memorised
        return dataclasses.replace(theory, test_loss=test.copy(), train_loss=train.copy())

    data = diagnosis(with_scales(scales), with_scales(seen), noise=0.002, num_classes=3)
    order = said("learning", statements(data))
    assert order.verdict == CONTRADICTED and "wasp comes before bee" in order.measured


def test_without_networks_nothing_is_checked() -> None:
    data = diagnosis(noise=0)
    assert {one.verdict for one in statements(data)} == {UNCHECKED}
    assert {one.measured for one in statements(data)} == {""}
    assert deviations(data) is None and time_ratios(data) is None and final_gaps(data) is None and overstatement(data) == []


def test_networks_that_memorise_less_are_told_of() -> None:
    gap = np.asarray(THEORY.test_loss) - np.asarray(THEORY.train_loss)
    less = dataclasses.replace(THEORY, test_loss=np.asarray(THEORY.test_loss) - 0.3 * gap)
    lines = overstatement(diagnosis(networks=less, noise=0.002))
    assert len(lines) == 2 and all("theory overstates what is memorised" in line and "-30 %" in line for line in lines)
    off = deviations(diagnosis(networks=less, noise=0.002))
    assert off is not None and off[1, 2].max() < -0.1 < off[1, 0].min()


def test_a_class_that_never_falls_has_no_window() -> None:
    test = np.array(THEORY.test_loss)
    test[:, 1] = 1 + 0.1 * (1 - np.exp(-GRID / 10))
    window = said("window", statements(diagnosis(dataclasses.replace(THEORY, test_loss=test), noise=0)))
    assert "the held-out loss of bee never falls" in window.text


def test_the_common_window_opens_with_the_last_and_closes_with_the_first() -> None:
    assert common_window(np.array([[1.0, 50.0], [7.0, np.inf], [3.0, 20.0]])) == (7.0, 20.0, 1, 2)
    first, last, _, _ = common_window(np.array([[1.0, 5.0], [7.0, 9.0]]))
    assert first > last


@pytest.mark.parametrize(
    ("value", "text"), [(13.24, "13.2"), (24_632.0, "24,600"), (0.0123456, "0.0123"), (np.inf, "never"), (np.nan, "–"), (3e8, "3e+08")]
)
def test_plain_numbers(value: float, text: str) -> None:
    assert plain(value) == text


def test_errors_are_deviations() -> None:
    assert with_error(10.0, 12.0) == "10 ± 20 %" and with_error(10.0, 10.0) == "10 ± 1 %"
    assert with_error(10.0, 12.0, 1.5) == "10 ± 25 %"
    assert with_error(10.0, np.nan) == "10" and with_error(np.inf, 3.0) == "never"
