"""The criteria themselves: each accepts what it should and rejects the rest."""

import numpy as np
import pytest

from tests.tolerances import assert_within, loglog_slope, rejects


def test_within_accepts_a_deviation_of_fewer_than_k_errors() -> None:
    assert_within([1.0, 2.0], [0.01, 0.02], [1.03, 1.95])
    assert_within([1.0, 2.0], 0.01, [1.03, 2.0])
    assert_within([1.0], [0.01], [1.13], allowance=0.1)
    assert_within([1.0], [0.3], [1.0], max_stderr=0.5)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (([1.0, 2.0], [0.01, 0.01], [1.0, 2.05]), {}, r"1 of 2 entries deviate; worst at \(1,\): estimate 2, prediction 2.05"),
        (([1.0, 2.0], [0.01, 0.01], [0.95, 2.0]), {}, r"worst at \(0,\).* 5.0 standard errors"),
        (([1.0], [0.01], [1.04]), {}, "1 of 1"),
        (([1.0], [0.01], [1.15]), {"allowance": 0.1}, "allowed: 4 standard errors"),
        (([1.0], [0.01], [1.03]), {"k": 2.0}, "3.0 standard errors"),
        (([1.0], [0.2], [1.0]), {}, "no power"),
        (([1.0, 1.0], [0.001, 0.02], [1.0, 1.0]), {"max_stderr": 0.01}, "0.02 is above its ceiling 0.01"),
        (([1.0], [0.0], [1.0]), {}, "stderr has an entry <= 0"),
        (([np.nan], [0.01], [1.0]), {}, "estimate has an entry that is not finite"),
        (([1.0], [0.01], [np.nan]), {}, "prediction has an entry that is not finite"),
        (([1.0], [np.inf], [1.0]), {}, "stderr has an entry that is not finite"),
        (([1.0], [0.01], [1.0]), {"allowance": np.nan}, "allowance has an entry that is not finite"),
        (([1.0], [0.01], [1.0]), {"allowance": -0.1}, "allowance has an entry < 0"),
        (([1.0, 1.0], [0.01, 0.01], [1.0]), {}, "nothing may be broadcast"),
        (([], [], []), {}, "nothing to compare"),
    ],
)
def test_within_rejects(arguments: tuple, keywords: dict, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_within(*arguments, **keywords)


def test_within_has_the_error_rate_it_promises() -> None:
    """At k = 2 about 4.6 % of true hypotheses fail, and a shift of 3 errors is caught about 84 % of the time."""
    draws = np.random.default_rng(0).normal(1.0, 0.01, 2000)

    def failures(shift: float) -> int:
        count = 0
        for x in draws:
            try:
                assert_within([x], [0.01], [1.0 + shift], k=2.0)
            except AssertionError:
                count += 1
        return count

    assert abs(failures(0.0) - 91) < 4 * np.sqrt(91)
    assert abs(failures(0.03) - 1683) < 4 * np.sqrt(1683 * 0.16)


def test_rejects_needs_a_failed_assertion() -> None:
    rejects(lambda: assert_within([1.0], [0.01], [2.0]))
    with pytest.raises(AssertionError, match="accepts what it should reject"):
        rejects(lambda: assert_within([1.0], [0.01], [1.0]))
    with pytest.raises(ZeroDivisionError):
        rejects(lambda: 1 / 0)


@pytest.mark.parametrize("order", [-1.0, 0.5, 2.0])
def test_slope_of_a_power(order: float) -> None:
    x = np.array([1.0, 3.0, 10.0, 20.0])
    assert abs(loglog_slope(x, -4 * x**order) - order) < 1e-12


@pytest.mark.parametrize(
    ("x", "y"), [([1, 2], [0.0, 1.0]), ([0, 2], [1, 1]), ([1, 1], [1, 2]), ([1], [1]), ([1, 2], [1, 2, 3]), ([1, 2], [np.nan, 1])]
)
def test_slope_rejects(x: list[float], y: list[float]) -> None:
    with pytest.raises(AssertionError, match="a slope needs"):
        loglog_slope(x, y)
