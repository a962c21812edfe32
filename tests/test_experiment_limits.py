"""The criterion of the experiments: two sizes brought to d → ∞, errors by leaving out one network, rejection of what is wrong; τ_gap."""

import numpy as np
import pytest
import xarray as xr

from experiments.limits import Comparison, agreement, compare, jackknife_error, rejection, same_order, variables, with_error
from experiments.readings import gap_times
from rfdiff import LearningCurves

D, SEEDS = 40, 30
TRUE = np.array([[2.0, 5.0], [3.0, 4.0], [1.0, 8.0]])  # (cell, class)


def ensemble(first: float, second: float, spread: float = 0.01) -> xr.Dataset:
    """Networks whose values are the true ones times exp(first/d + second/d²) times noise, at two sizes."""
    rng = np.random.default_rng(0)
    cells = []
    for true in TRUE:
        cell = {}
        for side, d, seeds in (("large", D, SEEDS), ("small", D // 2, 2 * SEEDS)):
            runs = true * np.exp(first / d + second / d**2) * (1 + spread * rng.standard_normal((seeds, 2)))
            cell[side] = runs.mean(axis=0)
            cell[f"{side}_left_out"] = (runs.sum(axis=0) - runs) / (seeds - 1)
        cells.append(cell)
    return xr.Dataset(variables(cells, "networks", {"cell": 3}, ("class",)))


def compared(data: xr.Dataset, theory: np.ndarray = TRUE) -> Comparison:
    return compare(data, "networks", np.log(theory), np.log, D)


@pytest.mark.parametrize("first", [0.0, 4.0, -8.0])
def test_the_limit_is_reached_and_everything_else_rejected(first: float) -> None:
    found = compared(ensemble(first, second=first**2 / 2))
    assert np.all(found.out() < found.threshold)
    assert agreement("times", [found]).holds and rejection("times", [(found, found.theory[:, ::-1])]).holds
    wrong = compared(ensemble(first, second=first**2 / 2), TRUE * 1.1)
    assert np.all(wrong.out() > wrong.threshold)
    assert not rejection("times", [(found, found.theory)]).holds


def test_what_survives_the_limit_is_not_agreement() -> None:
    found = compared(ensemble(first=4.0, second=0.0), TRUE * np.exp(0.1))
    assert not agreement("times", [found]).holds and rejection("times", [(found, found.theory[:, ::-1])]).holds
    # the deviation at d alone, 4/40, is just that size: without the second dimension it would have passed for theory
    np.testing.assert_allclose(found.seen, found.theory, atol=5 * found.seen_error.max())


def test_order_counts_only_where_it_is_clear() -> None:
    data = ensemble(4.0, 0.0)

    def lead(values: np.ndarray) -> np.ndarray:
        return np.log(values[..., 0] / values[..., 1])

    right = compare(data, "networks", lead(TRUE), lead, D)
    judged = same_order("times", [right])
    assert judged.holds and "(3 of 3 cells)" in judged.name and judged.worst == "0"
    wrong = same_order("times", [right, compare(data, "networks", -lead(TRUE), lead, D)])
    assert not wrong.holds and "(6 of 6 cells)" in wrong.name and wrong.worst == "3"
    noisy = compare(ensemble(4.0, 0.0, spread=3.0), "networks", lead(TRUE), lambda values: lead(np.abs(values)), D)
    assert not same_order("times", [noisy]).holds and not same_order("times", [right, noisy]).holds


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    runs = np.random.default_rng(1).standard_normal((2, 9, 3))
    left_out = (runs.sum(axis=1, keepdims=True) - runs) / 8
    np.testing.assert_allclose(jackknife_error(left_out, axis=1), runs.std(axis=1, ddof=1) / 3, rtol=1e-12)


def test_values_that_do_not_exist_are_left_out_and_none_at_all_is_no_agreement() -> None:
    data = ensemble(4.0, 8.0)
    data["networks_large"].values[0] = np.nan
    found = compared(data)
    assert "(4 values)" in agreement("times", [found]).name
    data["networks_large"].values[:] = np.nan
    nothing = compared(data)
    assert not agreement("times", [nothing]).holds and not rejection("times", [(nothing, np.log(TRUE[:, ::-1]))]).holds


def test_with_error_shows_two_digits_of_the_error() -> None:
    assert with_error(np.log(12.3456), 0.01) == "12.35 ± 0.12"
    assert with_error(np.nan, 0.1) == "—"


def test_gap_times_use_one_level_for_all_classes() -> None:
    taus = np.array([0.0, 1.0, 10.0, 100.0, np.inf])
    gap = np.array([[0.0, 0.0], [0.2, 0.1], [0.6, 0.3], [2.0, 0.8], [2.0, 0.8]])
    zeros = np.zeros_like(gap)
    curves = LearningCurves(taus, zeros, gap, zeros, np.zeros(2), np.full(2, 0.5), 1.0, 0.0, zeros, zeros, zeros)
    np.testing.assert_allclose(gap_times(curves), [10**0.5, 10**1.2], rtol=1e-12)  # both at 0.4, half of the smaller final gap
    closed = LearningCurves(taus, gap, gap, zeros, np.zeros(2), np.full(2, 0.5), 1.0, 0.0, zeros, zeros, zeros)
    assert np.isnan(gap_times(closed)).all()


def test_of_several_comparisons_the_one_nearest_to_failing_is_shown() -> None:
    near, far = compared(ensemble(4.0, 8.0)), compared(ensemble(4.0, 8.0), TRUE * 1.1)
    together = agreement("times", [near, far])
    assert not together.holds and together.worst == agreement("times", [far]).worst and "(12 values)" in together.name
    exchanged = (near, near.theory[:, ::-1])
    assert rejection("times", [exchanged, (near, near.theory)]).worst == "0 of 6 values"
