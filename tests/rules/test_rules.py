"""Training rules as spectral filters: limits, closed forms, direct recursions, stability."""

from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.rules import (
    RULES,
    STEP_BITS,
    GradientDescent,
    GradientFlow,
    HeavyBall,
    Ridge,
    Rule,
    RuleName,
    check_stability,
    check_taus,
    log_spaced,
    rule_numbers,
    rule_of,
)
from rfdiff.value_types import is_concrete
from tests.tolerances import loglog_slope

pytestmark = pytest.mark.usefixtures("strict_ranks")

KAPPA = 0.3
TAUS = [0.0, 0.7, 5.0, 12.0, 300.0, np.inf]
REAL = np.array([0.0, 1e-12, 1e-5, 0.02, 0.5, 3.0])
COMPLEX = np.array([0.0, 1e-9 + 1e-9j, 0.02 + 0.3j, 0.5 - 0.1j, 3.0 + 1.0j, 0.1j])


def evaluate(rule: Rule, taus: Any, eigenvalues: np.ndarray, kappa: float = KAPPA) -> tuple[np.ndarray, np.ndarray]:
    """Scheduled times and the filter in double precision."""
    with jax.enable_x64(True):
        times, clock = rule.schedule(taus, kappa)
        return times, np.asarray(jax.jit(rule.filter)(jnp.asarray(eigenvalues), clock, kappa))


def recursion(rule: HeavyBall, steps: int, eigenvalues: np.ndarray) -> np.ndarray:
    """f_k from the recursion of the docstring, step by step in extended precision."""
    wide = np.asarray(eigenvalues).astype(np.clongdouble if np.iscomplexobj(eigenvalues) else np.longdouble)
    rate, beta = np.longdouble(KAPPA) * np.longdouble(rule.step_size), np.longdouble(rule.momentum)
    previous, current = np.zeros_like(wide), np.zeros_like(wide)
    for _ in range(steps):
        previous, current = current, (1 + beta - rate * wide) * current - beta * previous + rate
    return current


def relative_error(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(np.abs(value - exact) / np.maximum(np.abs(exact), 1e-300)))


@pytest.mark.parametrize("eigenvalues", [REAL, COMPLEX], ids=["real", "complex"])
def test_flow_filter_is_its_formula(eigenvalues: np.ndarray) -> None:
    times, f = evaluate(GradientFlow(), TAUS, eigenvalues)
    np.testing.assert_array_equal(times, TAUS)
    assert f.shape == (6, 6) and f.dtype == eigenvalues.dtype
    lam = eigenvalues[1:].astype(np.clongdouble)
    for row, tau in zip(f[1:-1], TAUS[1:-1], strict=True):
        x = KAPPA * np.longdouble(tau) * lam
        series = 1 - x / 2 + x**2 / 6 - x**3 / 24
        exact = np.where(abs(x) < 1e-4, KAPPA * tau * series, (1 - np.exp(-x)) / lam)
        assert relative_error(row[1:], exact) < 1e-13
        assert row[0] == KAPPA * tau
    assert np.all(f[0] == 0)
    assert relative_error(f[-1, 1:], 1 / lam) < 1e-15 and f[-1, 0] == 0


def test_flow_is_linear_at_first_and_converges_at_last() -> None:
    small = [1e-1, 1e-2, 1e-3]
    _, f = evaluate(GradientFlow(), sorted(small), REAL)
    errors = np.abs(f - KAPPA * np.array(sorted(small))[:, None])[:, -1]
    assert abs(loglog_slope(sorted(small), errors) - 2) < 0.02
    _, late = evaluate(GradientFlow(), [200.0, np.inf], REAL[3:])
    np.testing.assert_allclose(late[0], late[1] * (1 - np.exp(-KAPPA * 200 * REAL[3:])), rtol=1e-14)


def test_flow_is_a_semigroup() -> None:
    """1 - λ f is the residual of a mode: training for τ then τ' multiplies residuals."""
    _, f = evaluate(GradientFlow(), [0.7, 4.3, 5.0], COMPLEX)
    residual = 1 - COMPLEX * f
    np.testing.assert_allclose(residual[2], residual[0] * residual[1], rtol=1e-13)
    assert np.abs(residual[2] - residual[0]).max() > 0.1


@pytest.mark.parametrize("eigenvalues", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 1000])
def test_gradient_descent_is_its_closed_form(steps: int, eigenvalues: np.ndarray) -> None:
    rule = GradientDescent(0.5)
    times, f = evaluate(rule, [0.5 * steps], eigenvalues)
    assert times.tolist() == [0.5 * steps]
    x = np.longdouble(KAPPA) * np.longdouble(0.5) * eigenvalues.astype(np.clongdouble)
    growth = np.abs(1 - x).max()
    closed = (1 - (1 - x[3:]) ** steps) / eigenvalues[3:].astype(np.clongdouble)  # smaller ones lose digits in this form
    assert growth**steps < 1e20
    assert relative_error(f[0, 3:], closed) < 1e-14 * steps
    assert f[0, 0] == pytest.approx(KAPPA * 0.5 * steps, rel=1e-15)
    assert f[0, 1] == pytest.approx(KAPPA * 0.5 * steps, rel=1e-5)


def test_slow_modes_lose_no_digits_over_many_steps() -> None:
    """A power near 1 subtracted from 1 would leave errors of 1e-16 times the steps; 10^10 of them leave 1e-14 here."""
    rule, steps = GradientDescent(0.01), np.array([1e4, 1e8, 1e10])
    lam = np.array([1e-10, 1e-7, 1e-3, 2.0])
    _, f = evaluate(rule, steps * 0.01, lam)
    exponent = steps[:, None] * np.log1p(-np.longdouble(KAPPA) * np.longdouble(0.01) * lam)
    assert relative_error(f, -np.expm1(exponent) / lam) < 1e-14
    times, clock = rule.schedule(steps * 0.01, KAPPA)
    single = np.asarray(rule.filter(jnp.asarray(lam, jnp.float32), clock, KAPPA))
    assert single.dtype == np.float32 and times[-1] == 1e8
    assert relative_error(single, -np.expm1(exponent) / lam) < 1e-5


@pytest.mark.parametrize("eigenvalues", [REAL, COMPLEX], ids=["real", "complex"])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_heavy_ball_is_its_recursion(momentum: float, eigenvalues: np.ndarray) -> None:
    rule, counts = HeavyBall(0.4, momentum), [0, 1, 2, 5, 33, 100]
    _, f = evaluate(rule, [0.4 * k for k in counts], eigenvalues)
    for row, k in zip(f, counts, strict=True):
        exact = recursion(rule, k, eigenvalues)
        assert np.max(np.abs(row - exact) / np.maximum(np.abs(exact), 1e-9)) < 1e-13


def test_heavy_ball_without_momentum_is_gradient_descent() -> None:
    _, plain = evaluate(GradientDescent(0.5), TAUS, REAL)
    _, heavy = evaluate(HeavyBall(0.5, 0.0), TAUS, REAL)
    np.testing.assert_array_equal(plain, heavy)
    _, other = evaluate(HeavyBall(0.5, 0.5), TAUS, REAL)
    assert np.abs(other - plain).max() > 0.1
    np.testing.assert_array_equal(plain[-1], np.where(REAL == 0, 0, 1 / np.where(REAL == 0, 1, REAL)))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_descent_tends_to_the_flow_at_first_order(momentum: float) -> None:
    """η → 0 at fixed τ: gradient descent is Euler's method, and momentum β speeds time up by 1/(1 - β)."""
    steps = [0.4, 0.2, 0.1, 0.05]
    _, flow = evaluate(GradientFlow(), [4.0 / (1 - momentum)], REAL[3:])
    errors = [np.abs(evaluate(HeavyBall(step, momentum), [4.0], REAL[3:])[1] - flow).max() for step in steps]
    assert abs(loglog_slope(steps, errors) - 1) < 0.1
    assert errors[-1] < 0.05 * flow.max()


def test_schedule_rounds_to_whole_steps() -> None:
    rule = GradientDescent(0.5)
    times, (bits, final) = rule.schedule([0.0, 0.01, 0.74, 0.76, 100.2, np.inf], KAPPA)
    assert times.tolist() == [0.0, 0.5, 0.5, 1.0, 100.0, np.inf]
    assert (bits @ (1 << np.arange(STEP_BITS)))[:5].tolist() == [0, 1, 1, 2, 200]
    assert final.tolist() == [False] * 5 + [True]
    with pytest.raises(ValueError, match=r"^taus: 1e\+15 takes 1e\+17 steps of 0.01; allowed: < 2\^48 steps"):
        GradientDescent(0.01).schedule([1.0, 1e15], KAPPA)


def test_ridge_is_a_resolvent_in_the_order_given() -> None:
    rule = Ridge([0.1, 10.0, 1.0])
    times, f = evaluate(rule, None, COMPLEX)
    np.testing.assert_allclose(f, 1 / (COMPLEX + np.array([0.1, 10.0, 1.0])[:, None]), rtol=1e-15)
    np.testing.assert_allclose(times, 1 / (KAPPA * np.array([0.1, 10.0, 1.0])), rtol=1e-15)
    with pytest.raises(ValueError, match="^taus: got a grid; allowed: None with Ridge"):
        rule.schedule([1.0], KAPPA)
    _, tiny = evaluate(Ridge(1e-14), None, REAL[2:])
    _, final = evaluate(GradientFlow(), [np.inf], REAL[2:])
    np.testing.assert_allclose(tiny, final, rtol=1e-8)


@pytest.mark.parametrize("rule", [GradientFlow(), HeavyBall(0.5, 0.6), Ridge([0.2, 0.4])], ids=["flow", "heavy-ball", "ridge"])
def test_filters_keep_dtype_and_shape(rule: Rule) -> None:
    taus = None if isinstance(rule, Ridge) else [1.0, 2.0]
    _, clock = rule.schedule(taus, KAPPA)
    filtered = partial(rule.filter, clock=clock, kappa=KAPPA)  # no program is compiled for what its types say
    assert jax.eval_shape(filtered, jnp.ones((2, 3), jnp.float32)).shape == (2, 2, 3)
    with jax.enable_x64(True):
        for dtype in (jnp.float32, jnp.float64, jnp.complex64, jnp.complex128):
            assert jax.eval_shape(filtered, jnp.ones(3, dtype)).dtype == dtype


def test_rules_are_pytrees_of_their_numbers() -> None:
    rule = HeavyBall(0.5, 0.25)
    assert jax.tree.leaves(rule) == [0.5, 0.25, 0.0] and jax.tree.leaves(GradientFlow()) == [0.0]
    doubled = jax.tree.map(lambda x: 8 * x, rule)  # momentum 2 would be refused if it were validated
    assert type(doubled) is HeavyBall and doubled.momentum == 2.0

    @jax.jit
    def build(step: jax.Array) -> jax.Array:
        built = GradientDescent(step)
        assert not is_concrete(built)
        return jnp.asarray(built.step_size)

    assert float(build(jnp.float32(0.5))) == 0.5
    assert jax.jit(lambda penalties: Ridge(penalties).penalties)(jnp.ones(2)).shape == (2,)


@pytest.mark.parametrize(
    ("rule", "limit"), [(GradientDescent(0.5), 2 / (KAPPA * 0.5)), (HeavyBall(0.5, 0.9), 3.8 / (KAPPA * 0.5))], ids=["plain", "heavy"]
)
def test_steps_that_diverge_are_refused(rule: HeavyBall, limit: float) -> None:
    assert rule.largest_stable_eigenvalue(KAPPA) == pytest.approx(limit, rel=1e-14)
    check_stability(rule, KAPPA, 0.999 * limit)
    with pytest.raises(ValueError, match="^step_size: 0.5 diverges, because the largest eigenvalue of U is .*; allowed: below 0.4995"):
        check_stability(rule, KAPPA, limit * 0.5 / 0.4995001)
    inside, outside = recursion(rule, 3000, np.array([0.99 * limit, 1.01 * limit]))
    assert abs(inside) < 1 < 1e6 < abs(outside)
    growth = rule.growth(np.array([0.99 * limit, limit, 1.01 * limit]), KAPPA)
    assert growth[0] < 1 < growth[2] and growth[1] == pytest.approx(1, abs=1e-12)


def test_rules_that_cannot_diverge_accept_everything() -> None:
    for rule in (GradientFlow(), Ridge([1e-9])):
        check_stability(rule, KAPPA, 1e300)


def test_growth_is_the_decay_of_a_mode() -> None:
    np.testing.assert_allclose(GradientFlow().growth(COMPLEX, KAPPA), np.exp(-KAPPA * COMPLEX.real), rtol=1e-15)
    np.testing.assert_allclose(GradientDescent(0.5).growth(COMPLEX, KAPPA), np.abs(1 - KAPPA * 0.5 * COMPLEX), rtol=1e-14)
    rule = HeavyBall(0.5, 0.3)
    f = evaluate(rule, [25.0, 25.5], REAL[4:])[1]
    measured = np.abs((1 - REAL[4:] * f[1]) / (1 - REAL[4:] * f[0]))
    assert measured[0] == pytest.approx(rule.growth(REAL[4:], KAPPA)[0], rel=1e-6)
    ridge = Ridge([0.1, 1.0])
    assert ridge.growth(np.array([-1.0, -0.06, -0.04, 0.0, 3.0]), KAPPA).tolist() == [np.inf, np.inf, 0, 0, 0]


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "1", None, True, 1j, [0.1]])
def test_step_sizes_are_positive(value: Any) -> None:
    for rule in (GradientDescent, HeavyBall):
        with pytest.raises(ValueError, match="^step_size: .*allowed: a finite number > 0"):
            rule(value)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, np.nan, "0.5", None, [0.5], True])
def test_momenta_are_below_one(value: Any) -> None:
    with pytest.raises(ValueError, match="^momentum: .*allowed: 0 <= momentum < 1"):
        HeavyBall(0.1, value)


def test_gradient_descent_has_no_momentum() -> None:
    with pytest.raises(ValueError, match="^momentum: 0.5; allowed: 0 for GradientDescent"):
        GradientDescent(0.1, 0.5)


@pytest.mark.parametrize("value", [0, -1, [], [0.1, 0.0], [np.nan], [np.inf], "1", None, [[0.1]], ["a"], [1j]])
def test_penalties_are_positive(value: Any) -> None:
    with pytest.raises(ValueError, match="^penalties: .*allowed: "):
        Ridge(value)


@pytest.mark.parametrize(
    ("taus", "message"),
    [
        ([], "non-empty list of training times >= 0"),
        ([-1.0, 2.0], "non-empty list of training times >= 0"),
        ([1.0, np.nan], "non-empty list of training times >= 0"),
        ([[1.0, 2.0]], "non-empty list of training times >= 0"),
        ([1.0, 1.0], r"\[1, 1\] does not increase strictly"),
        ([2.0, 1.0], "does not increase strictly"),
        ([1.0, np.inf, np.inf], "does not increase strictly"),
        (["a"], "not an array of numbers"),
        ("10", "not an array of numbers"),
        (None, "not an array of numbers"),
        ([1, [2, 3]], "not an array of numbers"),
        ([1j], "not an array of numbers"),
    ],
)
@pytest.mark.parametrize("schedule", [check_taus, lambda t: GradientFlow().schedule(t, KAPPA), lambda t: HeavyBall(0.1).schedule(t, KAPPA)])
def test_malformed_taus(taus: Any, message: str, schedule: Any) -> None:
    with pytest.raises(ValueError, match=f"^taus: .*{message}"):
        schedule(taus)


def test_one_time_is_a_list_of_one() -> None:
    assert check_taus(3).tolist() == [3.0] and check_taus([0, np.inf]).tolist() == [0.0, np.inf]


@pytest.mark.parametrize("rule", [GradientFlow(), GradientDescent(0.1), HeavyBall(0.1, 0.9), Ridge([0.1, 0.01])])
def test_a_rule_is_made_again_from_its_name_and_numbers(rule: Any) -> None:
    again: Any = rule_of(rule.name, **rule_numbers(rule))
    assert rule.equals(again) and type(again) is RULES[rule.name]


def test_the_registry_holds_every_rule() -> None:
    assert get_args(RuleName) == tuple(RULES)
    assert {name: rule.arguments for name, rule in RULES.items()} == {
        "gradient-flow": (),
        "gradient-descent": ("step_size",),
        "heavy-ball": ("step_size", "momentum"),
        "nesterov": ("step_size", "momentum"),
        "sgd": ("step_size", "batch_per_dimension"),
        "ridge": ("penalties",),
    }


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("adam", {}, "^rule: 'adam'; allowed: gradient-flow, gradient-descent, heavy-ball, nesterov, sgd, ridge"),
        ("heavy-ball", {"step_size": 0.1}, "^momentum: missing; allowed: rule heavy-ball takes step_size, momentum"),
        ("gradient-flow", {"step_size": 0.1}, "^step_size: given; allowed: rule gradient-flow takes no numbers"),
        ("gradient-descent", {"step_size": -1}, "^step_size: -1; allowed: a finite number > 0"),
    ],
)
def test_refused_rules(name: str, numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule_of(name, **numbers)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array, jnp.array])
def test_numbers_of_every_kind_are_taken(kind: Any) -> None:
    assert HeavyBall(kind(0.5), kind(0.25)).equals(HeavyBall(0.5, 0.25))
    assert Ridge(kind([0.5, 0.25]) if kind in (np.array, jnp.array) else [kind(0.5), kind(0.25)]).equals(Ridge([0.5, 0.25]))


def test_steps_are_log_spaced() -> None:
    assert log_spaced(20, 4) == [1, 2, 3, 6, 10, 18, 20]
    assert set(log_spaced(20, 4)) - {20} <= set(log_spaced(5000, 4))
    assert log_spaced(1, 8) == [1] and log_spaced(1000, 1) == [1, 10, 100, 1000]
