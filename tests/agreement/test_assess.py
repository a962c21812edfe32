"""The verdict on curves made by hand, where the truth is known: its level, its power, what it refuses."""

from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.agreement import FALSE_ALARM, assess, compare
from rfdiff.curves import LearningCurves
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem

TAUS = np.geomspace(0.1, 1e3, 8)
LIMIT = np.stack([1 - 0.5 * TAUS / (1 + TAUS), 1 - 0.3 * TAUS / (3 + TAUS)], 1)
FINITE = np.stack([TAUS / (10 + TAUS), -TAUS / (3 + TAUS)], 1)  # the c of c/d


def theory(shift: float = 0.0, **changes: Any) -> LearningCurves:
    return curves(LIMIT + shift, "theory", None, None, **changes)


def curves(loss: np.ndarray, source: str, dimension: int | None, per_seed: np.ndarray | None, **changes: Any) -> LearningCurves:
    stderr = np.zeros_like(loss) if per_seed is None else per_seed.std(0, ddof=1) / np.sqrt(len(per_seed)) if len(per_seed) > 1 else loss
    values: dict[str, Any] = {
        "taus": TAUS, "train_loss": loss, "test_loss": loss, "score_error": loss, "optimal_loss": np.zeros(2),
        "weights": np.array([0.5, 0.5]), "kappa": 1.0, "error_estimate": 0.0 if per_seed is None else np.nan,
        "train_loss_stderr": stderr, "test_loss_stderr": stderr, "score_error_stderr": stderr,
        "per_seed": None if per_seed is None else {"train_loss": per_seed, "test_loss": per_seed},
    }  # fmt: skip
    return LearningCurves(**{**values, **changes}, source=source, dimension=dimension)


def networks(d: int, seed: int, seeds: int = 16, spread: float = 0.02, second: float = 0.0, **changes: Any) -> LearningCurves:
    """Seeds around limit + c/d + second·c²/d², with a common fluctuation along the curve as real networks have."""
    rng = np.random.default_rng([seed, d])
    mean = LIMIT + FINITE / d + second * FINITE**2 / d**2
    noise = rng.normal(size=(seeds, 1, 2)) * 0.7 + rng.normal(size=(seeds, *LIMIT.shape)) * 0.7
    per_seed = mean + spread / np.sqrt(d / 10) * noise
    return curves(per_seed.mean(0), "simulation", d, per_seed, **changes)


def test_a_true_theory_is_accepted_at_the_promised_rate() -> None:
    """False alarms come with probability of at most 1 %; 300 trials of a true theory see at most 9 of them."""
    alarms = sum(not assess(theory(), networks(40, seed), networks(20, seed)).agrees for seed in range(300))
    assert alarms <= 9
    assert FALSE_ALARM == 0.01


def test_a_wrong_theory_is_rejected_at_the_stated_resolution() -> None:
    verdict = assess(theory(), networks(40, 0), networks(20, 0))
    seen = max(float(np.max(values)) for values in verdict.resolution.values())
    assert 0.005 < seen < 0.1
    rejected = sum(not assess(theory(2 * seen), networks(40, seed), networks(20, seed)).agrees for seed in range(50))
    assert rejected >= 48


def test_the_finite_size_term_is_measured_not_granted() -> None:
    quiet: dict[str, Any] = {"spread": 1e-4}
    verdict = assess(theory(), networks(40, 1, **quiet), networks(20, 1, **quiet))
    assert verdict.agrees
    np.testing.assert_allclose(verdict.allowance["test_loss"], FINITE / 40, atol=1e-3)
    np.testing.assert_allclose(verdict.deviation["test_loss"], FINITE / 40, atol=1e-3)
    # a constant error of the theory does not shrink with d, so it does not pass as a finite-size term
    assert not assess(theory(0.01), networks(40, 1, **quiet), networks(20, 1, **quiet)).agrees


def test_sizes_other_than_half() -> None:
    quiet: dict[str, Any] = {"spread": 1e-4}
    verdict = assess(theory(), networks(60, 1, **quiet), networks(20, 1, **quiet))
    assert verdict.agrees
    np.testing.assert_allclose(verdict.allowance["test_loss"], FINITE / 60, atol=1e-3)


def test_second_order_terms_are_within_the_remainder() -> None:
    quiet: dict[str, Any] = {"spread": 1e-5, "second": 1.0}
    verdict = assess(theory(), networks(40, 2, **quiet), networks(20, 2, **quiet))
    assert verdict.agrees
    rest = verdict.deviation["test_loss"] - verdict.allowance["test_loss"]
    assert np.max(abs(rest) / verdict.stderr["test_loss"]) > verdict.threshold, "without the remainder they would not be"


def test_the_standard_error_propagates_through_the_extrapolation() -> None:
    large, small = networks(40, 3), networks(20, 3)
    verdict = assess(theory(), large, small)
    want = np.sqrt((2 * large.test_loss_stderr) ** 2 + small.test_loss_stderr**2)
    np.testing.assert_allclose(verdict.stderr["test_loss"], want, rtol=1e-12)
    np.testing.assert_allclose(verdict.allowance["test_loss"], small.test_loss - large.test_loss, rtol=1e-12)


def test_only_a_diverging_limit_may_be_missing() -> None:
    lost = LIMIT.copy()
    lost[-1] = np.nan
    changes: dict[str, Any] = {"train_loss": lost, "test_loss": lost}
    final = np.append(TAUS[:-1], np.inf)
    verdict = assess(theory(**changes, taus=final), networks(40, 0, taus=final), networks(20, 0, taus=final))
    assert verdict.agrees
    assert np.all(np.isnan(verdict.standardised["test_loss"][-1]))
    assert np.all(np.isfinite(verdict.standardised["test_loss"][:-1]))
    assert not assess(theory(**changes), networks(40, 0), networks(20, 0)).agrees, "at a finite time the theory owes a number"
    with np.errstate(all="ignore"):
        assert not assess(theory(), networks(40, 0, test_loss=lost), networks(20, 0)).agrees, "so do the networks"


def test_few_seeds_are_inconclusive_and_do_not_agree() -> None:
    pair = networks(40, 5, seeds=2), networks(20, 5, seeds=2)
    verdict = assess(theory(), *pair)
    assert not verdict.conclusive
    assert not verdict.agrees
    assert not assess(theory(0.4), *pair).agrees
    assert assess(theory(), networks(40, 5), networks(20, 5)).conclusive


def test_a_theory_error_is_granted() -> None:
    quiet: dict[str, Any] = {"spread": 1e-5}
    pair = networks(40, 4, **quiet), networks(20, 4, **quiet)
    assert not assess(theory(0.01), *pair).agrees
    assert assess(theory(0.01, error_estimate=0.0101), *pair).agrees


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, large, small: (large, large, small), "one prediction and two simulations, in this order"),
        (lambda t, large, small: (t, t, small), "one prediction and two simulations"),
        (lambda t, large, small: (t, large, t), "one prediction and two simulations"),
        (lambda t, large, small: (t, large, large), "smaller: dimension 40 beside 40; allowed: between 10 and 30"),
        (lambda t, large, small: (t, small, large), "smaller: dimension 40 beside 20; allowed: between 5 and 15"),
        (lambda t, large, small: (t, large, networks(8, 0)), "smaller: dimension 8 beside 40"),
        (lambda t, large, small: (t, networks(40, 0, taus=2 * TAUS), small), "simulation: its training times or classes"),
        (lambda t, large, small: (t, large, networks(20, 0, taus=2 * TAUS)), "smaller: its training times or classes"),
        (lambda t, large, small: (t, large, networks(20, 0, test_loss=LIMIT[:, :1])), "smaller: its training times or classes"),
        (lambda t, large, small: (t, networks(40, 0, seeds=1), small), "num_seeds: 1; allowed: at least 2"),
        (lambda t, large, small: (t, large, networks(20, 0, seeds=1)), "num_seeds: 1; allowed: at least 2"),
    ],
)
def test_refused_curves(change: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        assess(*change(theory(), networks(40, 0), networks(20, 0)))


@pytest.mark.parametrize(
    ("d", "seeds", "says"),
    [
        (40, 1, "num_seeds: 1; allowed: an integer >= 2"),
        (40, 2.0, "num_seeds: 2.0; allowed"),
        (40, None, "num_seeds: None"),
        (3, 4, "d: 3; allowed: an integer >= 4"),
        (40.0, 4, "d: 40.0; allowed"),
        ("40", 4, "d: '40'; allowed"),
    ],
)
def test_refused_before_anything_is_computed(d: Any, seeds: Any, says: str) -> None:
    problem = Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, 2.0, 2.0)
    with pytest.raises(ValueError, match=says):
        compare(problem, [1.0], d=d, key=jax.random.key(0), num_seeds=seeds)


def test_bad_times_are_refused_before_anything_is_computed() -> None:
    problem = Problem(MixtureLaw.isotropic([1.0], [1.0]), "tanh", 0.1, 2.0, 2.0)
    with pytest.raises(ValueError, match="taus: .* does not increase strictly"):
        compare(problem, [2.0, 1.0], d=40, key=jax.random.key(0), num_seeds=4)
