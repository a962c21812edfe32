"""The theory as a function of the problem: equal to the adaptive theory, and its derivatives equal to differences of that."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.activation import as_activation
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, Ridge
from rfdiff.theory import implicit
from tests.tolerances import rejects

TAUS = np.array([3.0, 100.0, np.inf])


def centred() -> Problem:
    """Two anisotropic centred classes: one neuron type, every direction of the Gram matrix outside its range."""
    law = MixtureLaw([0.7, 0.3], [[1.6, 0.2], [0.4, 1.2]], [0.4, 0.6], np.zeros((2, 2)))
    return Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def curves(problem: Problem) -> np.ndarray:
    """Train and test losses (2, T, K) of the adaptive theory."""
    found = theory.learning_curves(problem, TAUS, tolerance=1e-9)
    return np.stack([found.train_loss, found.test_loss])


def with_fields(problem: Problem, **fields: Any) -> Problem:
    """Fields replaced without validation: a difference quotient may leave Σπ_c = 1."""
    names = {f.name for f in dataclasses.fields(problem)}
    law = jax.tree.map(lambda leaf: leaf, problem.mixture)
    for name, value in fields.items():
        if name not in names:
            object.__setattr__(law, name, value)
    return dataclasses.replace(problem, mixture=law, **{name: value for name, value in fields.items() if name in names})


def slope(function: Callable[[float], np.ndarray], step: float, one_sided: bool = False) -> np.ndarray:
    """Derivative at 0 by differences of fourth order."""
    if one_sided:
        points = [function(i * step) for i in range(5)]
        return (-25 * points[0] + 48 * points[1] - 36 * points[2] + 16 * points[3] - 3 * points[4]) / (12 * step)
    return (8 * (function(step) - function(-step)) - (function(2 * step) - function(-2 * step))) / (12 * step)


def assert_slopes(exact: np.ndarray, differences: np.ndarray, relative: float = 1e-5) -> None:
    """Relative to the largest derivative of the same curve over the times: a derivative may pass through 0."""
    scale = np.max(abs(differences), axis=1, keepdims=True)
    assert np.all(scale > 1e-7)
    assert np.max(abs(exact - differences) / scale) < relative


@pytest.fixture(scope="module")
def found() -> Any:
    """Losses (2, T, K) of the centred problem, their estimated error, their Jacobian, and the plan: one compilation for all."""
    problem = centred()
    plan = theory.plan_curves(problem, TAUS, tolerance=1e-8)

    def losses(p: Problem) -> Any:
        kernel = theory.curve_kernel(p, plan)
        value = jnp.stack(kernel.losses(TAUS))
        return value, (value, kernel.error(TAUS))

    with jax.enable_x64(True):
        jacobian, (value, error) = jax.jit(jax.jacrev(losses, has_aux=True))(problem)
    return np.asarray(value), float(error), jacobian, plan


@pytest.fixture(scope="module")
def jacobian(found: Any) -> Any:
    return found[2]


@pytest.mark.thorough
def test_kernel_gives_the_learning_curves(found: Any) -> None:
    np.testing.assert_allclose(found[0], curves(centred()), atol=2e-8)
    assert found[1] < 1e-8


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["t", "psi_p", "psi_n"])
def test_derivative_in_a_number_of_the_problem(jacobian: Any, name: str) -> None:
    at = getattr(centred(), name)
    differences = slope(lambda h: curves(with_fields(centred(), **{name: at + h})), 2e-3 * at)
    assert_slopes(np.asarray(getattr(jacobian, name)), differences)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "index"),
    [("weights", (1,)), ("eigenvalues", (0, 1)), ("eigenvalues", (1, 0)), pytest.param("eigenvalue_weights", (0,), marks=pytest.mark.slow)],
)
def test_derivative_in_the_mixture(jacobian: Any, name: str, index: tuple[int, ...]) -> None:
    field = np.asarray(getattr(centred().mixture, name))
    unit = np.zeros_like(field)
    unit[index] = 1
    differences = slope(lambda h: curves(with_fields(centred(), **{name: field + h * unit})), 1e-3)
    exact = np.tensordot(np.asarray(getattr(jacobian.mixture, name)), unit, unit.ndim)
    assert_slopes(exact, differences)
    rejects(lambda: assert_slopes(1.001 * exact, differences))


@pytest.mark.slow
@pytest.mark.parametrize("change", [np.diag([1.0, 0.0]), np.array([[1.0, -0.6], [-0.6, 1.0]])], ids=["one norm", "an angle too"])
def test_derivative_where_the_gram_matrix_has_no_width(jacobian: Any, change: np.ndarray) -> None:
    """Centred classes that start to separate: a one-sided difference of the theory with real centroids."""
    differences = slope(lambda h: curves(with_fields(centred(), centroid_gram=h * change)), 2e-3, one_sided=True)
    exact = np.einsum("stkab,ab->stk", np.asarray(jacobian.mixture.centroid_gram), change)
    assert_slopes(exact, differences, 5e-5)  # what the difference itself is good for
    rejects(lambda: assert_slopes(1.001 * exact, differences, 5e-5))


@pytest.mark.slow
def test_derivative_of_a_density() -> None:
    lam = np.array([1.0, 2.0])
    problem = centred()
    plan = theory.plan_points(problem, lam)

    def density_of(psi_n: Any) -> Any:
        density = jnp.imag(theory.transform_at(dataclasses.replace(problem, psi_n=psi_n), plan)[0]) / jnp.pi
        return density, density

    def at(psi_n: float) -> np.ndarray:
        return theory.stieltjes(with_fields(problem, psi_n=psi_n), lam).value.imag / np.pi

    with jax.enable_x64(True):
        jacobian, density = jax.jit(jax.jacfwd(density_of, has_aux=True))(3.0)
    np.testing.assert_allclose(density, at(3.0), rtol=1e-8)
    assert np.all(np.asarray(density) > 0.01)
    np.testing.assert_allclose(jacobian, slope(lambda h: at(3.0 + h), 2e-3), rtol=1e-5)


@pytest.mark.slow
def test_no_iteration_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled gradient needs the same memory whatever the number of iterations that are allowed."""
    problem = centred()
    plan = theory.plan_points(problem, np.array([1.0 + 0.5j]))

    def temporary_bytes(iterations: int) -> int:
        monkeypatch.setattr(implicit, "ITERATIONS", iterations)
        with jax.enable_x64(True):
            gradient = jax.jit(jax.grad(lambda p: jnp.real(theory.transform_at(p, plan)[0][0])))
            analysis: Any = gradient.lower(problem).compile().memory_analysis()
            return analysis.temp_size_in_bytes

    assert temporary_bytes(500) <= temporary_bytes(5)


@pytest.mark.thorough
def test_single_precision_is_refused() -> None:
    problem = centred()
    plan = theory.plan_points(problem, np.array([1.0 + 0.5j]))
    with pytest.raises(ValueError, match=r"problem: traced in float32; allowed: float64"):
        jax.grad(lambda p: jnp.real(theory.transform_at(p, plan)[0][0]))(problem)


@pytest.mark.thorough
def test_a_kernel_gives_its_losses_outside_double_precision_too() -> None:
    kernel = theory.curve_kernel(centred(), theory.plan_curves(centred(), TAUS, tolerance=1e-8))
    np.testing.assert_allclose(np.stack(kernel.losses(TAUS)), curves(centred()), atol=2e-8)
    assert 0 < float(kernel.error(TAUS)) < 1e-8
    with pytest.raises(InputError, match=r"curve_kernel: traced in single precision; allowed: inside jax.enable_x64"):
        jax.jit(lambda taus: kernel.losses(taus).test)(TAUS)


@pytest.mark.thorough
def test_a_transform_is_given_outside_double_precision_too() -> None:
    problem, z = centred(), np.array([1.0 + 0.5j])
    g, parts = theory.transform_at(problem, theory.plan_points(problem, z))
    expected = theory.stieltjes(problem, z)
    np.testing.assert_allclose(np.asarray(g), expected.value, rtol=1e-10)
    np.testing.assert_allclose(np.asarray(parts), expected.class_resolved, rtol=1e-10)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="tolerance: 1; allowed"):
        theory.plan_curves(centred(), TAUS, tolerance=1)
    with pytest.raises(ValueError, match="taus: inf, where the test loss diverges"):
        theory.plan_curves(dataclasses.replace(centred(), psi_p=3.0, noise_draws=1), [1.0, np.inf])
    for z in ([0.0], [-1.0], [1 - 1j], [np.nan]):
        with pytest.raises(ValueError, match=r"z: .*allowed: finite points"):
            theory.plan_points(centred(), z)


@pytest.mark.thorough
def test_covariances_that_do_not_commute_need_a_plan_of_their_own() -> None:
    covariances = np.stack([np.diag([1.0, 3.0]), np.array([[2.0, 0.5], [0.5, 1.0]])])
    problem = Problem(MixtureLaw.from_covariances([0.5, 0.5], covariances), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)
    plan = theory.plan_points(centred(), np.array([1.0 + 0.5j]))
    with pytest.raises(InputError, match="covariances do not commute"):
        theory.transform_at(problem, plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": as_activation("relu")}, "activation 'relu' on a plan made for 'tanh'"),
        ({"noise_draws": 2}, "noise_draws 2 on a plan made for inf"),
        ({"mixture": MixtureLaw.isotropic([1.0], [1.0])}, "1 classes on a plan made for 2"),
        (
            {"mixture": MixtureLaw.isotropic([0.7, 0.3], [1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])},
            "rank 1 on a plan made for rank 0",
        ),
    ],
    ids=["activation", "noise draws", "classes", "rank"],
)
def test_a_plan_made_for_another_problem_is_refused(change: dict[str, Any], message: str) -> None:
    """Without it a relu problem on a plan for tanh is off by 0.7, silently."""
    plan = theory.plan_points(centred(), np.array([1.0 + 0.5j]), gram_derivatives=False)
    with pytest.raises(InputError, match=message + ".*allowed: the plan's, or a new plan, made for this problem"):
        theory.transform_at(dataclasses.replace(centred(), **change), plan)


@pytest.mark.thorough
def test_a_problem_whose_spectrum_leaves_the_contour(found: Any) -> None:
    """Refused where its numbers are known; inside jit its error estimate is as large as its losses are wrong."""
    plan = found[3]
    far = dataclasses.replace(centred(), psi_n=0.3)
    with jax.enable_x64(True):
        with pytest.raises(InputError, match=r"its spectrum leaves the contour of the plan \(losses are off by"):
            theory.curve_kernel(far, plan)
        kernel = jax.jit(theory.curve_kernel)(far, plan)
        losses, error = jax.tree.map(np.asarray, kernel.losses(TAUS)), float(kernel.error(TAUS))
    truth = theory.learning_curves(far, TAUS)
    off = max(np.max(abs(losses.train - truth.train_loss)), np.max(abs(losses.test - truth.test_loss)))
    assert off > 1e-2 and not error < off


def nearby(problem: Problem, seed: int, reach: float) -> Problem:
    """A problem whose numbers are those of another times random factors up to 1 ± reach; centroids keep their directions."""
    rng = np.random.default_rng(seed)

    def factor(size: int | None = None) -> Any:
        return 1 + reach * rng.uniform(-1, 1, size)

    law, k = problem.mixture, problem.num_classes
    weights = law.weights * factor(k)
    lengths = np.sqrt(factor(k))
    gram = law.centroid_gram * np.outer(lengths, lengths)
    near = MixtureLaw(weights / weights.sum(), law.eigenvalues * factor(k), law.eigenvalue_weights, gram)
    return dataclasses.replace(problem, mixture=near, **{name: getattr(problem, name) * factor() for name in ("t", "psi_p", "psi_n")})


def assert_error_covers(problem: Problem, seeds: range, reach: float) -> None:
    """The kernel's estimate bounds the deviation from the adaptive theory of each near problem, three times at most, and is not idle."""
    plan = theory.plan_curves(problem, TAUS, tolerance=1e-5, gram_derivatives=False)
    compiled, useful = jax.jit(theory.curve_kernel), 0
    for seed in seeds:
        near = nearby(problem, seed, reach)
        with jax.enable_x64(True):
            kernel = compiled(near, plan)
            losses, error = np.stack(kernel.losses(TAUS)), float(kernel.error(TAUS))
        truth = theory.learning_curves(near, TAUS, tolerance=1e-7)
        off = float(np.max(abs(losses - np.stack([truth.train_loss, truth.test_loss]))))
        assert off <= 3 * error + 2 * truth.error_estimate, (seed, off, error)
        useful += error < 1e-3
    assert useful >= len(seeds) // 2


@pytest.mark.thorough
def test_the_error_of_a_kernel_covers_near_problems() -> None:
    assert_error_covers(centred(), range(4), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("reach", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("case", ["case_a", "case_b"])
def test_the_error_of_a_kernel_covers_near_problems_with_centroids(case: str, reach: float, request: pytest.FixtureRequest) -> None:
    assert_error_covers(request.getfixturevalue(case), range(8), reach)


def test_traced_problems_are_told_what_to_use() -> None:
    def inside(call: Callable[[Problem], Any]) -> None:
        with jax.enable_x64(True):
            jax.jit(lambda psi_n: call(dataclasses.replace(centred(), psi_n=psi_n)))(3.0)

    for name in ("learning_curves", "plan_curves", "spectrum", "time_grid"):
        with pytest.raises(InputError, match=rf"theory.{name} .*outside of jit.*theory.gradient.*theory.curve_kernel"):
            inside(getattr(theory, name))
    points: list[Any] = [partial(theory.stieltjes, z=[1j]), partial(theory.plan_points, z=[1j])]
    for call in points:
        with pytest.raises(InputError, match=r"outside of jit.*allowed inside: .*theory.transform_at"):
            inside(call)
    of_times: list[Any] = [theory.sensitivity, partial(theory.phase_map, axes={"t": [0.1], "psi_p": [2.0]})]
    for call in of_times:
        with pytest.raises(InputError, match=r"outside of jit.*allowed inside: theory.class_times"):
            inside(call)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GradientDescent(0.05), Ridge([0.3, 0.01])], ids=["gradient descent", "ridge"])
def test_other_rules(rule: Any, case_b: Problem) -> None:
    taus = None if isinstance(rule, Ridge) else np.array([1.0, 10.0, 100.0])
    plan = theory.plan_curves(case_b, taus, rule=rule, gram_derivatives=False)
    with jax.enable_x64(True):
        losses = jax.jit(theory.curve_kernel)(case_b, plan).losses(taus, rule=rule)
    found = theory.learning_curves(case_b, taus, rule=rule)
    np.testing.assert_allclose(losses.train, found.train_loss, atol=2e-6)
    np.testing.assert_allclose(losses.test, found.test_loss, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["case_a", "case_b"])
def test_derivatives_with_centroids(case: str, request: pytest.FixtureRequest) -> None:
    """With neuron types: in the Gram matrix, whose root is moved, a width, and a number of the problem; second derivatives too."""
    problem: Problem = request.getfixturevalue(case)
    plan = theory.plan_curves(problem, TAUS, tolerance=1e-8)
    with jax.enable_x64(True):
        jac = jax.jit(jax.jacrev(lambda p: jnp.stack(theory.curve_kernel(p, plan).losses(TAUS))))(problem)
    gram = np.asarray(problem.mixture.centroid_gram)

    def shifted(change: np.ndarray, h: float) -> np.ndarray:
        return curves(with_fields(problem, centroid_gram=gram + h * change))

    for change in (np.diag([0.0, 1.0]), np.array([[0.0, 0.5], [0.5, 0.0]])):
        differences = slope(partial(shifted, change), 1e-2)
        exact = np.einsum("stkab,ab->stk", np.asarray(jac.mixture.centroid_gram), change)
        scale = np.max(abs(differences))
        orthogonal = gram[0, 1] == 0 and change[0, 0] == change[1, 1] == 0  # odd neurons: both signs of an angle are one problem
        assert scale > 1e-4 or orthogonal
        assert np.max(abs(exact - differences)) < (1e-10 if orthogonal else 1e-5 * scale)
    assert_slopes(np.asarray(jac.t), slope(lambda h: curves(with_fields(problem, t=problem.t + h)), 1e-3))


@pytest.mark.slow
def test_second_derivative() -> None:
    problem = centred()
    plan = theory.plan_curves(problem, TAUS, tolerance=1e-8)

    def loss(psi_n: Any) -> Any:
        return theory.curve_kernel(dataclasses.replace(problem, psi_n=psi_n), plan).losses(TAUS).test[1, 0]

    with jax.enable_x64(True):
        first, second = jax.jit(jax.grad(loss)), jax.jit(jax.grad(jax.grad(loss)))
        exact, difference = float(second(3.0)), float(first(3.0 + 1e-4) - first(3.0 - 1e-4)) / 2e-4
    assert abs(exact) > 1e-4
    assert exact == pytest.approx(difference, rel=1e-5)
