"""Derivatives of curves, densities and times in every number of a problem, with stored noise draws and centroids.

Against central differences of the same functions on the same plan, which must be the adaptive theory of the shifted problem.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import gram_derivatives
from tests.theory.test_plans import with_fields
from tests.tolerances import rejects

TAUS = np.array([3.0, 100.0, 10000.0])
LAMBDAS = np.array([0.5, 1.5])
NUMBERS = ("t", "psi_p", "psi_n")
FIELDS = ("weights", "eigenvalues", "eigenvalue_weights", "centroid_gram")
ENTRIES: dict[str, list[tuple[int, ...]]] = {
    "weights": [(0,), (1,)],
    "eigenvalues": [(0, 0), (0, 1), (1, 0), (1, 1)],
    "eigenvalue_weights": [(0,), (1,)],
    "centroid_gram": [(0, 0), (0, 1), (1, 1)],
}
QUANTITIES = {"points": ("density", "class density"), "curves": ("losses", "times")}
SLOW = pytest.mark.slow


def problem() -> Problem:
    """Two anisotropic classes whose centroids lie on one line: directions of the Gram matrix inside and outside its range."""
    law = MixtureLaw([0.7, 0.3], [[1.6, 0.2], [0.4, 1.2]], [0.4, 0.6], 0.5 * np.outer([1, -0.6], [1, -0.6]))
    return Problem(law, "tanh", t=0.2, psi_p=4.0, psi_n=3.0, noise_draws=3)


def observe_points(p: Problem, plan: theory.Plan) -> list[jax.Array]:
    """Density and class-resolved densities."""
    g, classes = theory.transform_at(p, plan)
    return [jnp.imag(g) / jnp.pi, jnp.imag(classes) / (jnp.pi * LAMBDAS[:, None])]


def observe_curves(p: Problem, plan: theory.Plan) -> list[jax.Array]:
    """Losses, and logarithms of the times."""
    kernel = theory.curve_kernel(p, plan)
    times = theory.class_times(kernel, q=0.4)
    return [jnp.stack(kernel.losses(TAUS)), jnp.log(jnp.stack([times.tau_gen, times.tau_stop, times.tau_mem, times.tau_opt]))]


class Observed:
    """Compiled values of a problem on a fixed plan, and their Jacobian."""

    def __init__(self, what: str) -> None:
        points = what == "points"
        plan = theory.plan_points(problem(), LAMBDAS, level=2) if points else theory.plan_curves(problem(), tolerance=1e-6)
        observe = observe_points if points else observe_curves
        self.names = QUANTITIES[what]
        self.values = jax.jit(lambda p: observe(p, plan))
        with jax.enable_x64(True):
            jacobian: Any = jax.jit(jax.jacrev(lambda p: observe(p, plan)))(problem())
        self.jacobian = dict(zip(self.names, jacobian, strict=True))

    def __call__(self, p: Problem) -> dict[str, np.ndarray]:
        with jax.enable_x64(True):
            return dict(zip(self.names, map(np.asarray, self.values(p)), strict=True))


@pytest.fixture(scope="module", params=["points", pytest.param("curves", marks=SLOW)])
def observed(request: pytest.FixtureRequest) -> Observed:
    return Observed(request.param)


def moved(name: str, index: tuple[int, ...], h: float) -> Problem:
    at = problem()
    if name in NUMBERS:
        return with_fields(at, **{name: getattr(at, name) + h})
    field = np.array(getattr(at.mixture, name), float)
    field[index] += h
    if name == "centroid_gram" and index[0] != index[1]:
        field[index[::-1]] += h
    return with_fields(at, **{name: field})


def derivative(observed: Observed, quantity: str, name: str, index: tuple[int, ...]) -> np.ndarray:
    own = observed.jacobian[quantity]
    if name in NUMBERS:
        return np.asarray(getattr(own, name))
    field = np.asarray(getattr(own.mixture, name))
    unit = np.zeros(field.shape[field.ndim - len(index) :])
    unit[index] = 1
    unit = np.maximum(unit, unit.T) if name == "centroid_gram" else unit
    return np.tensordot(field, unit, len(index))


CASES = [(name, ()) for name in NUMBERS] + [(name, index) for name in FIELDS for index in ENTRIES[name]]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "index"), CASES, ids=lambda x: str(x).replace(" ", ""))
def test_every_number(observed: Observed, name: str, index: tuple[int, ...]) -> None:
    """Fourth-order differences, relative to the largest derivative of the quantity, which is not 0."""
    step = 2e-3
    values = [observed(moved(name, index, i * step)) for i in (-2, -1, 1, 2)]
    for quantity in observed.names:
        far, low, high, end = (value[quantity] for value in values)
        difference = (8 * (high - low) - (end - far)) / (12 * step)
        exact = derivative(observed, quantity, name, index)
        assert np.all(np.isfinite(exact)) and exact.shape == difference.shape
        scale = np.max(abs(difference))
        assert scale > 1e-4

        def close(value: np.ndarray, difference: np.ndarray = difference, scale: float = scale) -> None:
            assert np.max(abs(value - difference)) < 1e-5 * scale

        close(exact)
        rejects(lambda close=close, exact=exact: close(1.0001 * exact))  # type: ignore[misc]


@pytest.mark.thorough
def test_a_plan_serves_the_neighbours(observed: Observed) -> None:
    """What is differentiated is the theory: at numbers other than the plan's own the values are still those of the adaptive routes."""
    near = with_fields(moved("psi_n", (), 0.2), t=0.21, psi_p=4.1)
    found, own = observed(near), observed(problem())
    if "losses" in found:
        curves = theory.learning_curves(near, TAUS, tolerance=1e-6)
        expected = {"losses": np.stack([curves.train_loss, curves.test_loss])}
    else:
        transform = theory.stieltjes(near, LAMBDAS, tolerance=1e-6)
        classes = transform.class_resolved.imag / (np.pi * LAMBDAS[:, None])
        expected = {"density": transform.value.imag / np.pi, "class density": classes}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=5e-6)
        rejects(lambda name=name, value=value: np.testing.assert_allclose(own[name], value, atol=5e-4))  # type: ignore[misc]


@pytest.mark.thorough
def test_other_numbers_compile_nothing(observed: Observed) -> None:
    observed(problem())
    before: Any = observed.values
    compiled = before._cache_size()
    observed(with_fields(problem(), t=0.19, psi_n=2.9))
    assert before._cache_size() == compiled


@pytest.mark.slow
def test_forward_reverse_and_mapped_derivatives_agree() -> None:
    at = problem()
    plan = theory.plan_points(at, np.array([0.5]), level=1)

    def density(psi_n: Any, weights: Any) -> Any:
        return jnp.imag(theory.transform_at(with_fields(at, psi_n=psi_n, weights=weights), plan)[0])

    with jax.enable_x64(True):
        numbers, weights = jnp.asarray([2.7, 3.0, 3.3]), jnp.asarray([0.7, 0.3])
        reverse, forward = (jax.jit(kind(density, argnums=(0, 1))) for kind in (jax.jacrev, jax.jacfwd))
        each = [reverse(number, weights) for number in numbers]
        for one, other in zip(each[1], forward(numbers[1], weights), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
        mapped = jax.jit(jax.vmap(jax.grad(lambda n, w: density(n, w)[0], argnums=(0, 1)), in_axes=(0, None)))(numbers, weights)
        for i, part in enumerate(mapped):
            np.testing.assert_allclose(part, np.stack([np.asarray(one[i])[0] for one in each]), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_stencil_of_directions_without_width(n: int) -> None:
    """½ Σ q_ab ∂_a ∂_b f at 0, exactly for polynomials of degree 6 and for a Gaussian to the step's sixth power."""
    offsets, moments = gram_derivatives.stencil(n)
    rng = np.random.default_rng(n)
    q, slopes, hessian = np.cov(rng.standard_normal((n, 9))).reshape(n, n), *rng.standard_normal((2, n, n))
    directions = rng.standard_normal((5, n))

    def expected(curvature: np.ndarray) -> float:
        return float(np.sum(q * curvature) / 2)

    def found(values: np.ndarray) -> float:
        return float(np.einsum("s,sab,ab->", values, moments, q))

    polynomial = np.einsum("sa,ab,sb->s", offsets, hessian, offsets) + offsets @ slopes[0] + 3
    for degree in (3, 4, 5, 6):
        polynomial = polynomial + ((offsets @ directions.T) ** degree).sum(1)
    assert found(polynomial) == pytest.approx(expected(hessian + hessian.T), rel=1e-9)
    gaussian = np.exp(-np.einsum("sa,sa->s", offsets, offsets) / 2)
    assert found(gaussian) == pytest.approx(expected(-np.eye(n)), rel=1e-5)


@pytest.mark.slow
def test_a_class_without_variance_has_derivatives() -> None:
    """One-sided differences in its variance; t moves it too. The root of a variance has no derivative at 0, the averages have."""
    at = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.0, 0.0]), "tanh", t=0.2, psi_p=3.0, psi_n=2.0, noise_draws=2)
    plan = theory.plan_points(at, np.array([0.3 + 0.2j]), gram_derivatives=False)
    with jax.enable_x64(True):
        value = jax.jit(lambda variance, t: jnp.imag(theory.transform_at(with_fields(at, eigenvalues=variance, t=t), plan)[0])[0])
        slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(jnp.asarray([[1.0, 0.0]]), 0.2)
        step, ahead = 1e-3, [float(value(jnp.asarray([[1.0, i * 1e-3]]), 0.2)) for i in range(5)]
        later, earlier = (float(value(jnp.asarray([[1.0, 0.0]]), 0.2 + sign * 1e-4)) for sign in (1, -1))
    difference = float(np.dot([-25, 48, -36, 16, -3], ahead)) / (12 * step)
    assert float(slopes[0][0, 1]) == pytest.approx(difference, rel=1e-5) and abs(difference) > 0.01
    assert float(slopes[1]) == pytest.approx((later - earlier) / 2e-4, rel=1e-5)
