"""Class-wise times without a grid: those of a fine grid, and their derivatives."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.class_times import ClassTimes, times
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import get_parameter, parameter_names, set_parameter
from rfdiff.problem import Problem
from tests.tolerances import rejects

NAMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")
ONE_CLASS = Problem(MixtureLaw.isotropic([1.0], [0.8]), "erf", t=0.2, psi_p=3.0, psi_n=2.0)


def on_a_grid(problem: Problem, q: float = 0.5) -> ClassTimes:
    return times(theory.learning_curves(problem, theory.time_grid(problem, num_times=1500)), q=q)


def assert_same(exact: ClassTimes, gridded: ClassTimes, relative: float) -> None:
    for name in NAMES:
        np.testing.assert_allclose(getattr(exact, name), getattr(gridded, name), rtol=relative, err_msg=name)


@pytest.mark.slow
def test_derivatives_of_the_times_of_one_class() -> None:
    """d τ along t, ψ_p, ψ_n and σ² against central differences of the same program's times, with that of another number rejected."""
    plan = theory.plan_curves(ONE_CLASS, tolerance=1e-3, gram_derivatives=False)

    def found(numbers: jax.Array) -> Any:
        t, psi_p, psi_n, variance = numbers
        law = dataclasses.replace(ONE_CLASS.mixture, eigenvalues=variance[None, None])
        problem = dataclasses.replace(ONE_CLASS, mixture=law, t=t, psi_p=psi_p, psi_n=psi_n)
        times = theory.class_times(theory.curve_kernel(problem, plan), q=0.3)
        return jnp.stack([getattr(times, name)[0] for name in NAMES])

    with jax.enable_x64(True):
        moved = jax.jit(lambda at, direction: jax.jvp(found, (at,), (direction,)))
        at, slopes = np.array([0.2, 3.0, 2.0, 0.8]), []
        for direction in np.eye(4):
            exact = np.asarray(moved(at, direction)[1])
            high, low = (np.asarray(moved(at + sign * 1e-4 * at * direction, direction)[0]) for sign in (1, -1))
            difference = (high - low) / (2e-4 * (at @ direction))
            assert np.all(np.isfinite(exact)) and np.any(exact != 0)
            np.testing.assert_allclose(exact, difference, rtol=1e-5, atol=1e-7 * np.max(abs(exact)))
            slopes.append(exact)
    rejects(lambda: np.testing.assert_allclose(slopes[1], slopes[2], rtol=1e-2))


@pytest.mark.slow
def test_times_of_one_class_and_their_derivatives() -> None:
    """Against the gridded times, and d log τ / d log θ of every parameter against differences of them, with a wrong one rejected."""
    problem = ONE_CLASS
    found = theory.sensitivity(problem, q=0.3)
    assert_same(found.times, on_a_grid(problem, 0.3), 2e-5)
    assert set(found.elasticities) == set(parameter_names(problem)) == {"t", "psi_p", "psi_n", "variance_0"}
    plan = theory.plan_curves(problem, tolerance=1e-7, gram_derivatives=False)
    with jax.enable_x64(True):
        at = jax.jit(lambda p: theory.class_times(theory.curve_kernel(p, plan), q=0.3))
        for name, slopes in found.elasticities.items():
            value, step = float(get_parameter(problem, name)), 1e-4
            high, low = (at(set_parameter(problem, name, value * np.exp(sign * step))) for sign in (1, -1))
            for time in NAMES:
                difference = (np.log(getattr(high, time)) - np.log(getattr(low, time))) / (2 * step)
                np.testing.assert_allclose(getattr(slopes, time), difference, rtol=1e-5, atol=1e-7, err_msg=f"{name} {time}")
    changed = {"psi_n": found.elasticities["psi_n"].tau_mem, "psi_p": found.elasticities["psi_p"].tau_mem}
    rejects(lambda: np.testing.assert_allclose(changed["psi_n"], changed["psi_p"], rtol=1e-2))


@pytest.mark.slow
@pytest.mark.parametrize("q", [0.5, 0.999])
def test_times_of_two_classes(q: float, case_a: Problem) -> None:
    """At q = 0.999 the exact score is never approached that closely: τ_opt is infinite on both sides."""
    plan = theory.plan_curves(case_a, tolerance=1e-7, gram_derivatives=False)
    with jax.enable_x64(True):
        exact = jax.jit(lambda p: theory.class_times(theory.curve_kernel(p, plan), q=q))(case_a)
    assert_same(jax.tree.map(np.asarray, exact), on_a_grid(case_a, q), 2e-4)
    assert np.all(np.isinf(exact.tau_opt)) == (q > 0.9)


@pytest.mark.slow
def test_elasticities_with_centroids(case_a: Problem) -> None:
    found = theory.sensitivity(case_a)
    assert found.error_estimate < 1e-7

    def log_times(problem: Problem) -> dict[str, np.ndarray]:
        plan = theory.plan_curves(problem, tolerance=1e-8, gram_derivatives=False)
        with jax.enable_x64(True):
            exact: Any = jax.jit(lambda p: theory.class_times(theory.curve_kernel(p, plan)))(problem)
        return {name: np.log(np.asarray(getattr(exact, name))) for name in NAMES}

    for name in ("variance_0", "weight_0", "centroid_norm_1", "t"):
        value, step = float(get_parameter(case_a, name)), 1e-2
        high, low = (log_times(set_parameter(case_a, name, value * np.exp(sign * step))) for sign in (1, -1))
        for time in NAMES:
            difference = (high[time] - low[time]) / (2 * step)
            np.testing.assert_allclose(getattr(found.elasticities[name], time), difference, rtol=2e-3, atol=2e-4, err_msg=f"{name} {time}")
    # scaling a centroid moves its row and column of the Gram matrix
    gram = np.asarray(case_a.mixture.centroid_gram)
    slopes = np.asarray(found.gram_derivatives.tau_mem)
    scaled = slopes[:, 1, 1] * gram[1, 1] + slopes[:, 0, 1] * gram[0, 1]
    np.testing.assert_allclose(found.elasticities["centroid_norm_1"].tau_mem, scaled, rtol=1e-6)


def test_malformed_q() -> None:
    with pytest.raises(ValueError, match="q: 1; allowed: 0 < q < 1"):
        theory.sensitivity(ONE_CLASS, q=1)
    with pytest.raises(ValueError, match="q: 'x'; allowed: 0 < q < 1"):
        theory.sensitivity(ONE_CLASS, q="x")  # type: ignore[arg-type]
