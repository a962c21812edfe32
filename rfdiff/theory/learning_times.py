"""Class-wise times of learning and memorisation as differentiable functions of the problem (docs/theory/times.md).

The definitions are those of `rfdiff.curves.times`, without a grid's interpolation error: a coarse grid brackets each time, a bracketing
secant finds it, and one Newton step that stays in the trace carries the derivative,

    F(log τ, θ) = 0    =>    d log τ = -(∂F/∂θ dθ)/(∂F/∂log τ).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.theory.contour_forms import CurveKernel
from rfdiff.theory.real_forms import RealForms

GRID = 72
SECANTS = 10
FIRST, LAST = 0.02, 40.0  # in relaxation times of the fastest and of the slowest mode the contour encloses
GENERALISED = 1 - math.exp(-1)  # fraction of the descent that τ_gen stands for
BEFORE = 12.0  # natural logarithms before the grid in which a crossing is still looked for

Excess = Callable[[RealForms, jax.Array, jax.Array], jax.Array]


def class_times(kernel: CurveKernel, *, q: float = 0.5, descent: float | jax.Array = GENERALISED) -> ClassTimes:
    """τ_gen, τ_stop, τ_mem and τ_opt(q) of each class under gradient flow, traceable and differentiable.

    As `rfdiff.times` of an ever finer grid that ends in τ = ∞: τ_gen is NaN without a descent; τ_stop is inf if the loss falls to the end
    and 0 if it only rises; τ_mem is NaN if the final gap is not positive; τ_opt is inf if it is never reached.

    Args:
        kernel: from `curve_kernel`; if its contour is good up to a finite `latest` only, times beyond are unknown and NaN.
        q: fraction of the way to the exact score's loss that counts as learned, in (0, 1).
        descent: fraction of the class's own descent at τ_gen, in (0, 1); it may be traced.

    Returns:
        `ClassTimes` of arrays (K,).

    Reference: docs/theory/times.md; tests/theory/test_learning_times.py.
    """
    with kernel.in_double():
        return times_of_forms(RealForms.of(kernel), q, descent)


def times_of_forms(forms: RealForms, q: float, descent: float | jax.Array = GENERALISED) -> ClassTimes:
    """`class_times` from the real forms of a kernel, in double precision."""
    complete = jnp.isinf(forms.latest)
    log_taus = _coarse_grid(forms)
    train, test = forms.losses(jnp.append(jnp.exp(log_taus), forms.latest))
    stop, lowest = _stopping(forms, log_taus, test)
    wanted = q * (1 - forms.optimal_loss)
    gen = _crossing(forms, log_taus, 1 - test, descent * (1 - lowest), _descent)
    mem = _crossing(forms, log_taus, test - train, (test[-1] - train[-1]) / 2, _gap)
    opt = _crossing(forms, log_taus, 1 - test, wanted, _descent)
    never = jnp.where(complete & ~jnp.any(1 - test >= wanted, 0), jnp.inf, jnp.nan)
    gen = jnp.where(lowest < 1, gen, jnp.nan)
    mem = jnp.where((test[-1] > train[-1]) & complete, mem, jnp.nan)
    opt = jnp.where(forms.optimal_loss < 1, jnp.where(jnp.isnan(opt), never, opt), jnp.nan)
    sound = jnp.all(jnp.isfinite(train) & jnp.isfinite(test), 0)
    fields: dict[str, Any] = {name: jnp.where(sound, time, jnp.nan) for name, time in zip(TIME_NAMES, (gen, stop, mem, opt), strict=True)}
    return ClassTimes(**fields, q=q)  # of traced arrays here, of numpy arrays where they are handed out


def _descent(forms: RealForms, level: jax.Array, x: jax.Array) -> jax.Array:
    return 1 - forms.own_test(x) - level


def _gap(forms: RealForms, level: jax.Array, x: jax.Array) -> jax.Array:
    return forms.own_test(x) - forms.own_train(x) - level


def _test_slope(forms: RealForms, level: jax.Array, x: jax.Array) -> jax.Array:
    return jax.jvp(forms.own_test, (x,), (jnp.ones_like(x),))[1] - level


def _coarse_grid(forms: RealForms) -> jax.Array:
    """Logarithms of GRID training times that cover every mode inside the contour."""
    real = jnp.real(forms.nodes)
    end = jnp.where(jnp.isinf(forms.latest), LAST / (forms.kappa * jnp.abs(jnp.min(real))), forms.latest)
    return jax.lax.stop_gradient(jnp.linspace(jnp.log(FIRST / (forms.kappa * jnp.max(real))), jnp.log(end), GRID))


def _root(function: Excess, forms: RealForms, level: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
    """A root x (K,) between brackets, found on frozen numbers; one Newton step on the live ones carries its derivative."""
    frozen, frozen_level = jax.tree.map(jax.lax.stop_gradient, (forms, level))
    x = jax.lax.stop_gradient(_bracketed(partial(function, frozen, frozen_level), left, right))
    value, slope = jax.jvp(partial(function, forms, level), (x,), (jnp.ones_like(x),))
    return x - value / jax.lax.stop_gradient(jnp.where(slope == 0, jnp.nan, slope))


def _crossing(forms: RealForms, log_taus: jax.Array, values: jax.Array, level: jax.Array, excess: Excess) -> jax.Array:
    """First τ (K,) at which what has `values` (GRID + 1, K) on the grid reaches its level (K,); NaN if it does so nowhere on it."""
    reached = values[:-1] >= level
    i = jnp.argmax(reached, 0)
    left = jnp.where(i == 0, log_taus[0] - BEFORE, log_taus[jnp.maximum(i - 1, 0)])
    return jnp.where(jnp.any(reached, 0), jnp.exp(_root(excess, forms, level, left, log_taus[i])), jnp.nan)


def _stopping(forms: RealForms, log_taus: jax.Array, test: jax.Array) -> tuple[jax.Array, jax.Array]:
    """τ_stop (K,) and the lowest test loss (K,); `test` (GRID + 1, K) ends at the last time."""
    best, i = jnp.min(test[:-1], 0), jnp.argmin(test[:-1], 0)
    inner = jnp.clip(i, 1, GRID - 2)
    turning = _root(_test_slope, forms, jnp.zeros_like(best), log_taus[inner - 1], log_taus[inner + 1])
    falls = (test[-1] <= best + 1e-12) | (i == GRID - 1)  # flat to rounding at the end: the minimum is the end
    rises = ~falls & (best >= 1)
    # at a minimum the value does not feel where it lies
    lowest = jnp.where(falls, test[-1], forms.own_test(jax.lax.stop_gradient(turning)))
    end = jnp.where(jnp.isinf(forms.latest), jnp.inf, jnp.nan)
    return jnp.where(falls, end, jnp.where(rises, 0.0, jnp.exp(turning))), jnp.where(rises, 1.0, lowest)


def _bracketed(function: Callable[[jax.Array], jax.Array], left: jax.Array, right: jax.Array) -> jax.Array:
    """Roots (K,) of a sign change from negative to positive between left and right (K,), by the Illinois secant."""

    def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        a, fa, b, fb, side = state
        x = b - fb * (b - a) / jnp.where(fb == fa, 1, fb - fa)
        x = jnp.where((x - a) * (x - b) < 0, x, (a + b) / 2)
        fx = function(x)
        up = fx >= 0
        # the end that stays twice has its value halved, so that both ends move
        fa = jnp.where(up, jnp.where(side == 1, fa / 2, fa), fx)
        fb = jnp.where(up, fx, jnp.where(side == -1, fb / 2, fb))
        return jnp.where(up, a, x), fa, jnp.where(up, x, b), fb, jnp.where(up, 1, -1)

    start = (left, function(left), right, function(right), jnp.zeros(left.shape, int))
    a, fa, b, fb, _ = jax.lax.fori_loop(0, SECANTS, step, start)
    return jnp.where(abs(fa) < abs(fb), a, b)
