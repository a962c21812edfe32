"""Class-wise times read from curves whose times are known, and where no time exists."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from rfdiff.class_times import TIME_NAMES, ClassTimes, readings, times
from rfdiff.class_times.from_curves import _monotone_piece
from rfdiff.curves import LearningCurves
from tests.synthetic import given

GRID = np.geomspace(0.01, 1000, 400)


def curves(taus: Any, test: Any, train: Any, optimal: Any = 0.2, weights: Any = None) -> LearningCurves:
    """Learning curves of one or more classes, with nothing but losses filled in."""
    test, train = (np.asarray(x, float).reshape(len(taus), -1) for x in (test, train))
    k, zeros = test.shape[1], np.zeros_like(test)
    return LearningCurves(
        taus=np.asarray(taus, float),
        train_loss=train,
        test_loss=test,
        score_error=zeros,
        optimal_loss=np.broadcast_to(np.asarray(optimal, float), (k,)),
        weights=np.full(k, 1 / k) if weights is None else np.asarray(weights),
        kappa=1.0,
        error_estimate=0.0,
        train_loss_stderr=zeros,
        test_loss_stderr=zeros,
        score_error_stderr=zeros,
    )


def overfitting(taus: np.ndarray, fast: float, slow: float) -> np.ndarray:
    """1 - 0.6 (1 - e^{-τ/fast}) + 0.3 (1 - e^{-τ/slow}): descends, then rises."""
    return 1 + 0.6 * np.expm1(-taus / fast) - 0.3 * np.expm1(-taus / slow)


def overfitting_minimum(fast: float, slow: float) -> float:
    """Where 0.6 e^{-τ/fast}/fast = 0.3 e^{-τ/slow}/slow."""
    return math.log(2 * slow / fast) / (1 / fast - 1 / slow)


def test_times_of_analytic_curves() -> None:
    """Two classes, ten times apart; log-linear reading on 80 points a decade is good to 1e-4."""
    fast, slow = 1.0, 50.0
    test = np.stack([overfitting(GRID, fast * s, slow * s) for s in (1.0, 0.1)], axis=1)
    gap = np.stack([0.4 * -np.expm1(-GRID / (slow * s)) for s in (1.0, 0.1)], axis=1)
    result = times(curves(GRID, test, test - gap), q=0.25)
    stop = overfitting_minimum(fast, slow)
    np.testing.assert_allclose(result.tau_stop, [stop, stop / 10], rtol=1e-3)
    np.testing.assert_allclose(result.tau_mem, [slow * math.log(2), slow * math.log(2) / 10], rtol=1e-3)
    assert result.q == 0.25

    gen_level = (1 - math.exp(-1)) * (1 - float(overfitting(np.array(stop), fast, slow)))
    for level, got in ((gen_level, result.tau_gen), (0.25 * 0.8, result.tau_opt)):
        assert 1 - float(overfitting(got[0], fast, slow)) == pytest.approx(level, rel=1e-4)
        assert got[0] < stop and got[0] == pytest.approx(10 * got[1], rel=1e-3)


def test_pure_exponentials() -> None:
    """1 - c(1 - e^{-τ}): τ_gen = 1 when the grid sees the whole descent, τ_opt(q) = -log(1 - q (1 - L*)/c)."""
    taus = np.append(GRID, np.inf)
    decay = 1 + 0.8 * np.expm1(-taus)
    result = times(curves(taus, decay, decay, optimal=0.0))
    assert result.tau_gen[0] == pytest.approx(1.0, rel=1e-4)
    assert result.tau_opt[0] == pytest.approx(-math.log(1 - 0.5 / 0.8), rel=1e-4)
    assert result.tau_stop[0] == np.inf  # it falls for ever
    assert np.isnan(result.tau_mem[0])  # train and test never part


def test_the_interpolant_never_leaves_the_samples() -> None:
    """A staircase: a parabola or a spline through it would overshoot; the level is reached between its two samples and nowhere else."""
    taus = np.geomspace(1, 64, 7)
    read = times(curves(taus, [0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.6], np.full(7, 0.3), optimal=0.5), q=0.4)
    assert 4 < read.tau_opt[0] < 8 and 4 < read.tau_gen[0] < 8
    assert 8 <= read.tau_stop[0] <= 16
    exact = times(curves(taus, [0.9, 0.9, 0.9, 0.5, 0.5, 0.5, 0.6], np.full(7, 0.3), optimal=0.0), q=0.5)
    assert exact.tau_opt[0] == pytest.approx(8.0)  # a level that a sample has


TRUTHS = [(1.0, 50.0), (0.3, 20.0), (5.0, 3000.0)]


def truth(fast: float, slow: float) -> dict[str, float]:
    """Times of `overfitting` curves whose gap is 0.4 (1 - e^{-τ/slow}), with q = 0.25 and an exact score at 0.2."""
    stop = overfitting_minimum(fast, slow)

    def when(level: float) -> float:
        return float(brentq(lambda tau: 1 - overfitting(np.array(tau), fast, slow) - level, 0, stop))

    depth = 1 - float(overfitting(np.array(stop), fast, slow))
    return {"tau_gen": when((1 - math.exp(-1)) * depth), "tau_stop": stop, "tau_mem": slow * math.log(2), "tau_opt": when(0.25 * 0.8)}


def read_on(taus: np.ndarray, fast: float, slow: float) -> ClassTimes:
    test = overfitting(taus, fast, slow)
    return times(curves(taus, test, test + 0.4 * np.expm1(-taus / slow)), q=0.25)


def test_on_any_grid_a_time_is_right_or_bounded() -> None:
    """300 random grids, coarse and fine, early and late, with and without 0 and inf: no time is wrong, and every bound holds."""
    rng, resolved, bounded = np.random.default_rng(0), 0, 0
    for trial in range(300):
        fast, slow = TRUTHS[trial % 3]
        low, high = sorted(10 ** rng.uniform(-3, 6, 2))
        taus = np.unique(np.geomspace(low, high, rng.integers(3, 60)) * np.exp(rng.uniform(-0.05, 0.05)))
        taus = np.concatenate([[0.0] * rng.integers(2), taus, [np.inf] * rng.integers(2)])
        read = read_on(taus, fast, slow)
        for name, expected in truth(fast, slow).items():
            (value,), ((lower, upper),) = getattr(read, name), given(read.bounds)[name]
            if np.isnan(value):
                bounded += 1
                assert read.reason(name, 0), (taus, name)
                assert np.isnan(lower) or lower <= expected * 1.05, (taus, name, lower, expected)
                assert np.isnan(upper) or upper >= expected * 0.95, (taus, name, upper, expected)
            else:
                resolved += 1
                assert value == pytest.approx(expected, rel=0.2 if name == "tau_stop" else 0.1), (taus, name)  # a minimum is flat
    assert resolved > 200 and bounded > 200


def test_a_decade_grid_that_ends_too_early_gives_bounds() -> None:
    """The final gap is not that of the last time, and no parabola is laid through points decades apart."""
    read = read_on(np.array([0.1, 1.0, 10.0, 100.0]), 1.0, 2000.0)
    assert read.text("tau_mem", 0) == "> 10" and "still grows at the last training time, 100" in read.reason("tau_mem", 0)
    assert read.text("tau_stop", 0) == "1 … 100" and "no training times between 1, 10 and 100" in read.reason("tau_stop", 0)
    assert read.text("tau_opt", 0) == "0.1 … 1" and read.text("tau_gen", 0) == "0.1 … 100"
    late = read_on(np.array([1e6, 1e7, 1e8, np.inf]), 1.0, 2000.0)
    assert late.text("tau_mem", 0) == "< 1e+06" and "before the first training time" in late.reason("tau_mem", 0)
    early = read_on(np.array([0.01, 0.02, 0.04]), 1.0, 2000.0)
    assert early.text("tau_stop", 0) == "> 0.02" and early.text("tau_opt", 0) == "> 0.04" and early.text("tau_gen", 0).startswith("> ")


def test_minimum_is_that_of_the_parabola_in_log_time() -> None:
    taus = np.geomspace(0.1, 1000, 16)
    place = 0.8
    bowl = 0.5 + 0.02 * (np.log10(taus) - place) ** 2
    assert times(curves(taus, bowl, bowl)).tau_stop[0] == pytest.approx(10**place, rel=1e-10)
    coarse = taus[np.argmin(bowl)]
    assert abs(coarse / 10**place - 1) > 0.05  # the grid alone would be off


def test_where_no_time_exists() -> None:
    taus = [0.5, 1.0, 2.0, np.inf]
    falling, rising, flat = [0.9, 0.7, 0.51, 0.5], [1.01, 1.2, 1.3, 1.4], [1.0, 1.0, 1.0, 1.0]
    dipping = [0.9, 0.95, 1.0, 1.1]
    read = times(
        curves(taus, np.stack([falling, rising, flat, dipping], 1), np.stack([falling, falling, flat, [0.9, 0.8, 0.7, 0.6]], 1), 0.3)
    )
    np.testing.assert_array_equal(read.tau_stop, [np.inf, 0.0, 0.0, np.nan])
    assert [read.text("tau_gen", c) for c in range(4)][1:] == ["-", "-", "< 1"]
    assert read.text("tau_stop", 3) == "< 1" and read.reason("tau_stop", 3) == "the test loss is lowest at the first training time, 0.5"
    assert np.isnan(read.tau_mem).tolist() == [True, False, True, False]
    assert 0.5 < read.tau_mem[1] < 1.0 and read.reason("tau_mem", 0) == "the test loss does not part from the train loss"
    assert read.tau_opt.tolist()[1:] == [np.inf, np.inf, np.inf]
    assert 0.5 < read.tau_opt[0] < 2.0
    overfitted = times(curves([10.0, 20.0, 40.0], [1.3, 1.4, 1.5], [0.5, 0.4, 0.3]))
    assert overfitted.text("tau_stop", 0) == overfitted.text("tau_gen", 0) == "< 10"  # it may have fallen before


def test_minimum_next_to_the_ends_of_the_grid() -> None:
    late = times(curves([1.0, 2.0, 4.0, np.inf], [0.9, 0.8, 0.5, 0.7], [0.9, 0.7, 0.4, 0.1]))
    assert late.text("tau_stop", 0) == "> 2" and "last finite training time" in late.reason("tau_stop", 0)
    assert late.text("tau_mem", 0) == "> 4"  # half of the final gap is reached after the last finite time
    early = times(curves([0.0, 1.0, 2.0], [1.0, 0.5, 0.9], [1.0, 0.5, 0.1]))
    assert early.text("tau_stop", 0) == "< 2"
    plateau = times(curves([1.0, 2.0, 4.0, 8.0, np.inf], [0.9, 0.8, 0.5, 0.5, 0.5], [0.9, 0.8, 0.5, 0.5, 0.5]))
    assert plateau.tau_stop[0] == np.inf


def test_never_reaching_the_exact_score_is_not_the_same_as_having_none() -> None:
    taus = [1.0, 2.0, 4.0, np.inf]
    test, train = [0.9, 0.8, 0.9, 0.9], [0.9, 0.8, 0.7, 0.6]
    assert times(curves(taus, test, train, optimal=0.2), q=0.5).tau_opt[0] == np.inf
    assert times(curves(taus[:3], test[:3], train[:3], optimal=0.2), q=0.5).text("tau_opt", 0) == "> 4"
    assert 1 < times(curves(taus, test, train, optimal=0.2), q=0.2).tau_opt[0] < 2
    unknown = times(curves(taus, test, train, optimal=np.nan))
    assert unknown.reason("tau_opt", 0) == "the loss of the exact score is not known" and np.isfinite(unknown.tau_stop[0])
    assert times(curves(taus, test, train, optimal=1.0)).text("tau_opt", 0) == "-"


def test_a_time_that_never_comes_is_said_with_its_reason() -> None:
    taus = np.append(GRID, np.inf)
    fallen, gap = overfitting(GRID, 1.0, 50.0), 0.5 * np.exp(-GRID)
    for end in (fallen[-1], np.nan):  # with a limit, and without one as at p = n m
        read = times(curves(taus, np.append(fallen, end), np.append(gap, end), optimal=0.0), q=0.999)
        assert read.tau_opt[0] == np.inf and read.text("tau_opt", 0) == "never"
        assert read.reason("tau_opt", 0) == f"never reached: the lowest test loss is {fallen.min():.4g}, and 0.001 is asked for"
    falling = np.append(0.5 + 0.5 * np.exp(-0.001 * GRID), np.nan)  # it may still come down beyond the grid
    bound = times(curves(taus, falling, falling, optimal=0.0), q=0.999)
    assert bound.text("tau_opt", 0).startswith("> ") and "not reached at the last training time" in bound.reason("tau_opt", 0)


def test_a_class_that_is_not_trained_has_no_memorisation_time() -> None:
    test, train = np.array([0.9, 0.7, 0.8, 0.9]), np.array([0.9, 0.6, 0.4, 0.3])
    taus = [1.0, 2.0, 4.0, np.inf]
    both = curves(taus, np.stack([test, test], 1), np.stack([train, train], 1))
    assert np.isfinite(times(both, loss_weights=[0.5, 0.5]).tau_mem).all()
    read = times(both, loss_weights=[1.0, 0.0])
    assert np.isfinite(read.tau_mem[0]) and np.isnan(read.tau_mem[1]) and read.text("tau_mem", 1) == "-"
    assert read.reason("tau_mem", 1) == "the class is not trained on: its weight in the training loss is 0"
    assert np.isnan(readings(both, 0.5, [1.0, 0.0])[0][2]).tolist() == [False, True]
    shaken = times(curves(taus, [1.0, 1.1, 1.2, 1.3], [1.0, 1.0, 1.0, 1.0]))  # by the noise of minibatches: never learned, yet memorised
    assert 2 < shaken.tau_mem[0] < 4 and np.isnan(shaken.tau_gen[0])


@pytest.mark.parametrize(("gap", "known"), [(0.02, False), (0.2, True)])
def test_a_last_gap_within_its_error_is_noise(gap: float, known: bool) -> None:
    """Three seeds that scatter by 0.03 about the mean: a gap of 0.2 counts, one of 0.02 does not."""
    taus, test = [1.0, 2.0, 4.0, np.inf], np.array([0.9, 0.7, 0.7, 0.7])[:, None]
    train = test - gap * np.array([0.0, 0.3, 0.9, 1.0])[:, None]
    runs = {"test_loss": np.stack([test + shift for shift in (-0.03, 0.0, 0.03)]), "train_loss": np.stack([train] * 3)}
    runs["score_error"] = runs["test_loss"]
    read = times(dataclasses.replace(curves(taus, test[:, 0], train[:, 0]), per_seed=runs))
    assert np.isfinite(read.tau_mem[0]) == known
    assert known or read.reason("tau_mem", 0) == "the test loss does not part from the train loss by more than its error, 5.2e-02"


def test_reasons_of_ridge_name_penalties() -> None:
    read = times(curves([0.1, 1.0, 10.0, 100.0], [0.9, 0.6, 0.5, 0.7], [0.9, 0.5, 0.2, 0.05]), penalties=True)
    kappa = curves([1.0], [1.0], [1.0]).kappa
    assert read.reason("tau_stop", 0) == f"no penalties between {1 / kappa:.4g}, {0.1 / kappa:.4g} and {0.01 / kappa:.4g}"
    assert f"at the smallest penalty, {0.01 / kappa:.4g}" in read.reason("tau_mem", 0)
    assert not any("time" in reason or "tau" in reason for reasons in read.reasons for reason in reasons)


def test_where_the_test_loss_diverges_the_rest_is_read() -> None:
    """p = n m: NaN at τ = ∞ alone. The gap has no final value there, and everything before is sound."""
    taus = np.append(GRID, np.inf)
    test = np.append(overfitting(GRID, 1.0, 50.0), np.nan)
    read = times(curves(taus, test, np.append(0.5 * np.exp(-GRID), np.nan)))
    assert np.isnan(read.tau_mem[0]) and "diverges as tau -> inf (p = n m)" in read.reason("tau_mem", 0)
    assert read.text("tau_mem", 0) == "-"
    assert read.tau_stop[0] == pytest.approx(overfitting_minimum(1.0, 50.0), rel=1e-3) and np.isfinite(read.tau_gen[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", ["test", "train"])
def test_a_failed_cell_leaves_no_times_for_its_class_alone(bad: float, which: str) -> None:
    test = np.array([[0.9, 0.9], [0.8, 0.8], [0.9, 0.9]])
    train = test - np.array([[0.0], [0.1], [0.3]])
    (test if which == "test" else train)[1, 0] = bad
    read = times(curves([1.0, 2.0, 4.0], test, train))
    for name in TIME_NAMES:
        assert read.text(name, 0) == "-" and read.reason(name, 0) == "a loss is not finite"
        assert read.text(name, 1) != "-"


def test_steps_rounded_to_the_same_time_are_read() -> None:
    """Gradient descent moves times to whole steps, so two may coincide."""
    read = times(curves([1.0, 1.0, 2.0, 2.0, 4.0], [0.9, 0.9, 0.5, 0.5, 0.6], [0.9, 0.9, 0.5, 0.5, 0.4]))
    alone = times(curves([1.0, 2.0, 4.0], [0.9, 0.5, 0.6], [0.9, 0.5, 0.4]))
    assert read.equals(alone) and 1.0 < read.tau_stop[0] < 4.0 and 1.0 < read.tau_gen[0] < 2.0


@pytest.mark.parametrize("q", [0.0, 1.0, -0.5, 2.0, math.nan])
def test_q_is_a_fraction(q: float) -> None:
    with pytest.raises(ValueError, match="^q: .*allowed: 0 < q < 1"):
        times(curves([1, 2, 3], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]), q=q)


def test_grids_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="^taus: 2 training times; allowed: at least 3"):
        times(curves([1, 2], [0.9, 0.8], [0.9, 0.8]))
    with pytest.raises(ValueError, match=r"^taus: \[3, 2, 1\] decreases; allowed: increasing training times"):
        times(curves([3, 2, 1], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7]))


def test_totals_weigh_the_classes() -> None:
    value = curves([1, 2], [[0.9, 0.5], [0.8, 0.4]], [[0.7, 0.3], [0.6, 0.2]], weights=[0.75, 0.25])
    np.testing.assert_allclose(value.total("test_loss"), [0.8, 0.7], rtol=1e-14)
    np.testing.assert_allclose(value.total("train_loss"), [0.6, 0.5], rtol=1e-14)
    assert value.num_classes == 2
    with pytest.raises(ValueError, match="^name: 'mse'; allowed: train_loss, test_loss, score_error"):
        value.total("mse")


def test_curves_are_pytrees_with_their_source_as_structure() -> None:
    value = curves([1, 2, 3], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
    doubled = jax.tree.map(lambda x: 2 * x, value)
    assert doubled.source == "theory" and doubled.dimension is None and doubled.per_seed is None
    np.testing.assert_array_equal(doubled.test_loss[:, 0], [1.8, 1.6, 1.4])
    read = times(value)
    assert jax.tree.map(lambda x: x, read).q == read.q == 0.5


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_one_piece_of_a_monotone_cubic_is_that_of_the_whole_interpolant(size: int) -> None:
    rng = np.random.default_rng(size)
    for values in (rng.normal(size=size), np.sort(rng.normal(size=size)), np.zeros(size), rng.integers(-1, 2, size).astype(float)):
        x = np.cumsum(rng.uniform(0.1, 2.0, size))
        pieces = PchipInterpolator(x, values).c
        found = np.array([_monotone_piece(x, values, i) for i in range(size - 1)]).T
        np.testing.assert_allclose(found, pieces, rtol=1e-10, atol=1e-10)
