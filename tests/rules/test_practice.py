"""Weight decay, averaged weights and Nesterov's momentum: formulas, limits, removable points, and loops of optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest

from rfdiff.errors import InputError
from rfdiff.rules import GradientDescent, GradientFlow, HeavyBall, MinibatchSGD, Nesterov, Ridge, Rule, check_stability, rule_numbers
from tests.tolerances import loglog_slope, rejects

KAPPA = 0.3
TAUS = [0.0, 1e-3, 0.7, 1.9, 2.1, 12.0, 300.0, np.inf]
LAMBDAS = np.array([0.0, 1e-12, 1e-5, 0.02, 0.5, 3.0, 0.02 + 0.3j, 0.5 - 0.1j, 3.0 + 1.0j, 0.1j])


def evaluate(rule: Rule, taus: Any, eigenvalues: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(rule.filter)(jnp.asarray(eigenvalues), rule.schedule(taus, KAPPA)[1], KAPPA))


def relative(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.max(abs(value - exact) / np.maximum(abs(exact), 1e-300)))


@pytest.mark.parametrize("rule", [GradientFlow, lambda **more: HeavyBall(0.5, 0.6, **more), lambda **more: Nesterov(0.5, 0.6, **more)])
def test_decay_shifts_the_eigenvalues_and_ends_in_ridge(rule: Any) -> None:
    taus = [0.0, 0.5, 5.0, 300.0, np.inf]
    decayed = evaluate(rule(weight_decay=0.2), taus, LAMBDAS)
    assert relative(decayed, evaluate(rule(), taus, LAMBDAS + 0.2)) < 1e-15
    assert relative(decayed[-1], evaluate(Ridge([0.2]), None, LAMBDAS)[0]) < 1e-15
    assert relative(evaluate(rule(weight_decay=0.2), [3000.0], LAMBDAS[:6]), decayed[-1:, :6]) < 1e-12
    gaps = [np.max(abs(evaluate(rule(weight_decay=rho), [5.0], LAMBDAS) - evaluate(rule(), [5.0], LAMBDAS))) for rho in (1e-2, 1e-3, 1e-4)]
    assert abs(loglog_slope([1e-2, 1e-3, 1e-4], gaps) - 1) < 0.01


def averaged_flow(lam: complex, tau: float, memory: float) -> complex:
    """κ ∫_0^τ e^{-κλu} (1 - e^{-(τ-u)/T}) du by Gauss-Legendre on pieces that shrink towards both ends: no cancellation anywhere."""
    x, w = np.polynomial.legendre.leggauss(40)
    half = np.concatenate([[0], np.geomspace(1e-9, 1, 40)]) * tau / 2
    edges = np.concatenate([half, tau - half[::-1][1:]])
    centre, width = (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)[:, None] / 2
    u = centre + width * x
    return KAPPA * complex(np.sum(width * w * np.exp(-KAPPA * lam * u) * -np.expm1(-(tau - u) / memory)))


@pytest.mark.parametrize("memory", [1e-3, 0.1, 2.0, 50.0, 1e4])
def test_averaged_flow_is_its_formula_to_rounding(memory: float) -> None:
    """Also where κTλ = 1 is removable, on the point and a little beside it."""
    pole = 1 / (KAPPA * memory)
    lambdas = np.append(LAMBDAS, pole * np.array([1, 1 + 1e-9, 1 - 1e-5, 1 + 1e-7j]))
    f = evaluate(GradientFlow(averaging=memory), TAUS, lambdas)
    for row, tau in zip(f[1:-1], TAUS[1:-1], strict=True):
        assert relative(row, np.array([averaged_flow(lam, tau, memory) for lam in lambdas])) < 3e-14
    assert np.all(f[0] == 0) and relative(f[-1, 1:], 1 / lambdas[1:]) < 1e-15
    naive = [(1 - np.exp(-2.1 / memory) - (np.exp(-KAPPA * 2.1 * 3) - np.exp(-2.1 / memory)) / (1 - KAPPA * memory * 3)) / 3]
    np.testing.assert_allclose(f[4, 5], naive[0], rtol=1e-11)  # the formula as it is printed, where it loses nothing


def test_short_memory_is_no_average() -> None:
    memories = [1e-1, 1e-2, 1e-3]
    plain = evaluate(GradientFlow(), [5.0], LAMBDAS)
    gaps = [np.max(abs(evaluate(GradientFlow(averaging=T), [5.0], LAMBDAS) - plain)) for T in memories]
    assert abs(loglog_slope(memories, gaps) - 1) < 0.02
    assert relative(evaluate(HeavyBall(0.5, 0.3, averaging=0.0), [5.0], LAMBDAS), evaluate(HeavyBall(0.5, 0.3), [5.0], LAMBDAS)) < 1e-14


def test_averages_over_small_steps_are_those_of_the_flow() -> None:
    steps, memory = [0.2, 0.1, 0.05], 3.0
    flow = evaluate(GradientFlow(averaging=memory, weight_decay=0.1), [4.0], LAMBDAS[3:])
    gaps = [
        np.max(abs(evaluate(GradientDescent(h, averaging=float(np.exp(-h / memory)), weight_decay=0.1), [4.0], LAMBDAS[3:]) - flow))
        for h in steps
    ]
    assert abs(loglog_slope(steps, gaps) - 1) < 0.1


STEPPED = [
    GradientDescent(0.5, averaging=0.9),
    HeavyBall(0.5, 0.6, weight_decay=0.1, averaging=0.97),
    Nesterov(0.5, 0.6),
    Nesterov(0.4, 0.9, weight_decay=0.3, averaging=0.5),
]


@pytest.mark.parametrize("rule", STEPPED, ids=["averaged", "heavy", "nesterov", "practised"])
def test_steps_are_the_loops_of_optax(rule: HeavyBall) -> None:
    """On one weight for each mode: loss κ(λ w²/2 - w), decayed weights before the momentum, the average without bias correction."""
    counts, lambdas = [1, 2, 7, 40, 150], np.array([0.0, 0.02, 0.5, 3.0, 4.0])
    f = evaluate(rule, [float(rule.step_size) * k for k in counts], lambdas)
    with jax.enable_x64(True):
        lam = jnp.asarray(lambdas)
        sgd = optax.sgd(float(rule.step_size), momentum=float(rule.momentum), nesterov=isinstance(rule, Nesterov))
        optimizer = optax.chain(optax.add_decayed_weights(KAPPA * float(rule.weight_decay)), sgd)
        average = optax.ema(float(rule.averaging or 0.0), debias=False)

        @jax.jit
        def step(w: jax.Array, state: Any) -> Any:
            updates, inner = optimizer.update(KAPPA * (lam * w - 1), state[0], w)
            w = optax.apply_updates(w, updates)
            mean, averaged = average.update(w, state[1])
            return w, (inner, averaged), mean

        w, state = jnp.zeros(5), (optimizer.init(lam), average.init(lam))
        for k in range(1, counts[-1] + 1):
            w, state, mean = step(w, state)
            if k in counts:
                assert relative(f[counts.index(k)], np.asarray(mean)) < 1e-13
    other = evaluate(HeavyBall(rule.step_size, rule.momentum), [float(rule.step_size) * k for k in counts], lambdas)
    rejects(lambda: np.testing.assert_allclose(f, other, rtol=1e-3))  # neither decay nor average, and the momentum of heavy ball


@pytest.mark.parametrize("steps", [1e4, 1e8, 1e10])
def test_averages_lose_no_digits_over_many_steps(steps: float) -> None:
    """An average over as many steps as were made, in closed form at λ = 0 and where it has converged."""
    eta, share = 0.01, 0.5 / steps
    f = evaluate(GradientDescent(eta, averaging=1 - share), [steps * eta], np.array([0.0, 1.0, 2.0]))[0]
    gamma = np.longdouble(1 - share)
    held = np.expm1(steps * np.log1p(gamma - 1))  # γ^k - 1
    assert relative(f[0], KAPPA * eta * (steps + gamma / (1 - gamma) * held)) < 1e-13
    rate = KAPPA * eta * np.array([1.0, 2.0])
    exact = (-held - (1 - gamma) * (held + 1) * (1 - rate) / (gamma - 1 + rate)) / np.array([1.0, 2.0])
    assert relative(f[1:], exact) < 1e-11


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_nesterov_is_stable_up_to_its_limit(beta: float) -> None:
    rule = Nesterov(0.5, beta, weight_decay=0.25)
    limit = rule.largest_stable_eigenvalue(KAPPA)
    assert limit == pytest.approx(2 * (1 + beta) / ((1 + 2 * beta) * KAPPA * 0.5) - 0.25, rel=1e-14)
    growth = rule.growth(limit + np.array([-1e-3, 0.0, 1e-3]), KAPPA)
    assert growth[0] < 1 < growth[2] and growth[1] == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="step_size: 0.5 diverges") as caught:
        check_stability(rule, KAPPA, 2 * limit)
    allowed = float(str(caught.value).split("below ")[1])
    assert Nesterov(allowed, beta, weight_decay=0.25).largest_stable_eigenvalue(KAPPA) == pytest.approx(2 * limit, rel=1e-5)
    slow = np.array([1e-3])  # where both roots are real
    f = evaluate(Nesterov(0.5, beta), [400.0, 400.5], slow)[:, 0]
    assert (1 - 1e-3 * f[1]) / (1 - 1e-3 * f[0]) == pytest.approx(Nesterov(0.5, beta).growth(slow, KAPPA)[0], rel=1e-9)


def test_growth_waits_for_the_average() -> None:
    assert GradientFlow(averaging=2.0).growth(np.array([100.0]), KAPPA) == pytest.approx(np.exp(-0.5))
    assert GradientFlow(averaging=2.0, weight_decay=0.5).growth(np.array([0.1]), KAPPA) == pytest.approx(np.exp(-KAPPA * 0.6))
    assert HeavyBall(0.5, 0.1, averaging=0.99).growth(np.array([1.0]), KAPPA) == pytest.approx(0.99)
    assert GradientFlow(averaging=2.0).memory == 2 and GradientDescent(0.5, averaging=0.9).memory == pytest.approx(5.0)


def test_only_options_in_use_are_numbers_of_a_rule() -> None:
    assert rule_numbers(GradientFlow()) == {} and rule_numbers(GradientDescent(0.5)) == {"step_size": 0.5}
    assert rule_numbers(GradientFlow(weight_decay=0.5, averaging=3)) == {"weight_decay": 0.5, "averaging": 3.0}


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "1", True, [0.1]])
def test_refused_decays(value: Any) -> None:
    for rule in (GradientFlow, lambda **more: GradientDescent(0.1, **more)):
        with pytest.raises(ValueError, match="^weight_decay: .*allowed: a finite number >= 0"):
            rule(weight_decay=value)


def test_refused_averages() -> None:
    for value in (0, -1.0, np.nan, np.inf, "1"):
        with pytest.raises(ValueError, match="^averaging: .*allowed: a finite number > 0"):
            GradientFlow(averaging=value)  # type: ignore[arg-type]
    for value in (-0.1, 1, 2.0, np.nan, "1"):
        with pytest.raises(ValueError, match="^averaging: .*allowed: 0 <= averaging < 1, or None"):
            Nesterov(0.1, 0.5, averaging=value)  # type: ignore[arg-type]


def test_an_average_over_one_step_is_none() -> None:
    for rule in (HeavyBall(0.5, 0.5, averaging=0.0), MinibatchSGD(0.5, 1.0, averaging=0.0)):
        assert rule.averaging is None


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
def test_batches_that_need_weights_of_the_classes_are_refused_without(sampling: str) -> None:
    rule = MinibatchSGD(0.5, 1.0, sampling=sampling)
    with pytest.raises(InputError, match=f"^sampling: '{sampling}' without loss_weights.*; allowed: with loss_weights of the problem"):
        rule.check_loss_weights(None, [0.7, 0.3])
    rule.check_loss_weights([0.5, 0.5], [0.7, 0.3])


def test_batches_whose_rounding_changes_the_noise_are_refused() -> None:
    rule = MinibatchSGD(0.5, 0.1)
    rule.check_batch(50)
    with pytest.raises(
        InputError, match=r"^batch_per_dimension: 0.1 makes batches of 2 pairs at d = 24, where theory has 2.4; allowed: within 2%"
    ):
        rule.check_batch(24)
