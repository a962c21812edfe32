"""The fixed point and its linear response on Gaussian equivalents drawn at random: exact identities, and the equations written out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import approaches, resolvent
from rfdiff.theory.contour import ellipse
from rfdiff.theory.equivalent import Equivalent, column_kinds, equivalent
from rfdiff.theory.responses import Joint, Point
from rfdiff.theory.support import outer_bounds
from rfdiff.theory.traces import one_trace, two_trace_of_pairs
from tests.tolerances import rejects

GROUPS, TYPES = 2, 5
POINTS = np.array([0.4 + 0.05j, 1.7 + 0.3j, 0.02 + 0.4j, -0.6 + 0.01j])
CASES = [
    (1, np.inf),
    pytest.param(2, 1, marks=pytest.mark.thorough),
    (2, np.inf),
    pytest.param(2, 3, marks=pytest.mark.thorough),
    pytest.param(3, np.inf, marks=pytest.mark.thorough),
    pytest.param(3, 4, marks=pytest.mark.thorough),
]


def draw(k: int, m: float, seed: int = 0) -> Equivalent:
    """Random coefficients: the identities are algebraic and hold for any of them."""
    rng = np.random.default_rng([seed, k])
    shares, signal, noise, draws, deterministic = column_kinds(m)
    type_weights, fractions, group_weights = (rng.dirichlet(np.full(size, 3.0)) for size in (TYPES, k, GROUPS))
    loss_weights = np.random.default_rng([seed, k, 1]).dirichlet(np.full(k, 3.0))
    coefficients: list[Any] = [  # host arrays stand in for JAX's
        type_weights,
        rng.uniform(0.2, 1.0, (TYPES, k)) * rng.choice([-1, 1], (TYPES, k)),
        rng.uniform(0.02, 0.3, (TYPES, k)),
        rng.uniform(0.02, 0.3, (TYPES, k)),
        fractions,
        loss_weights,
        rng.uniform(0.1, 2.0, (GROUPS, k)),
        group_weights,
        *(np.asarray(x) for x in (0.35, 2.3, 1.4)),
        *(np.asarray(x, float) for x in (shares, signal, noise, draws, deterministic)),
    ]
    return Equivalent(*coefficients)


def two_trace(eq: Equivalent, p1: Point, p2: Point) -> tuple[jax.Array, jax.Array]:
    """The two-point traces of all pairs of two lists of points."""
    first, second = jax.tree.map(lambda x: x[:, None], p1), jax.tree.map(lambda x: x[None], p2)
    products = p1.r[:, None] * p2.r
    averages = resolvent.feature_averages(eq, products.reshape(-1, products.shape[-1]))
    return two_trace_of_pairs(eq, first, second, Joint(averages.reshape(*products.shape[:2], *averages.shape[1:])))


@jax.jit
def _all(eq: Equivalent, z: Any) -> Any:
    solution = resolvent.solve(eq, z)
    p = solution.point
    return solution, resolvent.stieltjes_of(eq, p), one_trace(eq, p), two_trace(eq, p, p)


@functools.cache
def solved(k: int, m: float) -> tuple[Equivalent, Any]:
    eq = draw(k, m)
    with jax.enable_x64(True):
        return eq, jax.tree.map(np.asarray, _all(eq, jnp.asarray(POINTS)))


@pytest.mark.parametrize(("k", "m"), CASES)
def test_converges_to_the_physical_solution(k: int, m: float) -> None:
    solution = solved(k, m)[1][0]
    assert np.all(solution.residual < 1e-12)
    assert np.all(solution.point.r.imag > 0)
    assert np.all(solution.point.delta.imag > 0)


@pytest.mark.parametrize(("k", "m"), CASES)
def test_sum_rule(k: int, m: float) -> None:
    g, kappa = solved(k, m)[1][1]

    def holds(kappa: np.ndarray) -> None:
        assert np.max(abs(kappa.sum(1) - 1 - POINTS * g)) < 1e-11

    holds(kappa)
    rejects(lambda: holds(kappa * 1.001))


@pytest.mark.parametrize(("k", "m"), CASES)
def test_equations_of_section_4_term_by_term(k: int, m: float) -> None:
    """The unknowns solve the fixed point as the equations print it, with loops over classes and column types."""
    eq, (solution, _, _, _) = solved(k, m)

    def satisfied(psi_n: float, kept: jax.Array | np.ndarray) -> None:
        for i, z in enumerate(POINTS):
            delta, H = solution.point.delta[i], solution.point.H[i]
            new_delta, new_H = _image(eq, z, delta, H, m, psi_n, kept)
            assert np.max(abs(new_delta - delta)) < 1e-11
            assert np.max(abs(new_H - H)) < 1e-11

    satisfied(float(eq.psi_n), eq.kept)
    rejects(lambda: satisfied(float(eq.psi_p), eq.kept))
    rejects(lambda: satisfied(float(eq.psi_n), 0 * eq.kept))


def _image(eq: Equivalent, z: complex, delta: np.ndarray, H: np.ndarray, m: float, psi_n: float, kept: jax.Array | np.ndarray) -> Any:
    """Right-hand sides for δ (S, K) and H (K, K), the rows for m = ∞ and for finite m as they stand."""
    k, omega, big_delta, psi_p = H.shape[0], eq.loss_weights, float(eq.noise_variance), float(eq.psi_p)
    averaged = np.isinf(m)
    columns = [(np.inf, 1.0)] if averaged else [(m, 1 / m), (0.0, 1 - 1 / m)][: delta.shape[0]]
    M, T = np.zeros((GROUPS, k), complex), np.zeros(TYPES, complex)
    for c in range(k):
        for s, (gain, share) in enumerate(columns):
            xi = omega[c] * share / (1 + delta[s, c])
            if averaged:
                M[:, c] += xi * eq.eigenvalues[:, c] + omega[c] * big_delta
                T += xi * kept[:, c] + omega[c] * eq.carried[:, c]
            else:
                M[:, c] += xi * (gain * eq.eigenvalues[:, c] + big_delta)
                T += xi * (gain * kept[:, c] + eq.carried[:, c])
    inverses = [np.linalg.inv(np.eye(k) + np.diag(M[group]) @ H) for group in range(GROUPS)]
    psi = sum(w * inverse @ np.diag(M[group]) for group, (w, inverse) in enumerate(zip(eq.group_weights, inverses, strict=True)))
    Y = np.array([H @ inverse for inverse in inverses])
    r = np.array([1 / (T[j] - z + eq.linear[j] @ psi @ eq.linear[j]) for j in range(TYPES)])
    new_H = psi_p * sum(eq.type_weights[j] * r[j] * np.outer(eq.linear[j], eq.linear[j]) for j in range(TYPES))
    new_delta = np.zeros_like(delta)
    for c in range(k):
        n = psi_n * eq.fractions[c] / omega[c]  # effective samples over d
        for s, (gain, _) in enumerate(columns):
            if averaged:
                trace = eq.group_weights @ (eq.eigenvalues[:, c] * Y[:, c, c])
                new_delta[s, c] = (trace + psi_p * (eq.type_weights * r) @ kept[:, c]) / n
            else:
                trace = eq.group_weights @ ((gain * eq.eigenvalues[:, c] + big_delta) * Y[:, c, c])
                new_delta[s, c] = (trace + psi_p * (eq.type_weights * r) @ (gain * kept[:, c] + eq.carried[:, c])) / (m * n)
    return new_delta, new_H


@pytest.mark.parametrize(("k", "m"), CASES)
def test_ward_identity_ties_two_points_to_one(k: int, m: float) -> None:
    """Σ_c ω_c R(z1) U_c R(z2) = R(z1) U R(z2) = (z1 R(z1) - z2 R(z2))/(z1 - z2), between Vᵀ and V."""
    eq, (_, _, (one_train, _), (two_train, two_test)) = solved(k, m)
    one = one_train @ eq.loss_weights
    z1, z2 = POINTS[:, None], POINTS[None]
    away = ~np.eye(len(POINTS), dtype=bool)

    def holds(two: np.ndarray) -> None:
        total = np.einsum("c,cij->ij", eq.loss_weights, two)
        want = (z1 * one[:, None] - z2 * one[None])[away] / (z1 - z2)[away]
        assert np.max(abs(total[away] - want)) < 1e-11

    holds(two_train)
    rejects(lambda: holds(two_test))


@pytest.mark.parametrize(("k", "m"), CASES)
def test_two_point_function_is_symmetric(k: int, m: float) -> None:
    _, (_, _, _, (train, test)) = solved(k, m)
    for two in (train, test):
        np.testing.assert_allclose(two, np.swapaxes(two, 1, 2), rtol=1e-10)
        assert np.max(abs(two[0, 0, 1] - two[0, 1, 2])) > 1e-6


@pytest.mark.parametrize(("k", "m"), [(2, np.inf), (3, 4)])
def test_responses_are_derivatives(k: int, m: float) -> None:
    """The matrix of the response system at z1 = z2 against finite differences of the fixed point."""
    eq, (solution, _, _, _) = solved(k, m)
    with jax.enable_x64(True):
        A = np.asarray(jax.jit(resolvent.jacobian)(eq, resolvent.type_features(eq), solution.point))[0]
    delta, H = solution.point.delta[0], solution.point.H[0]
    u = np.concatenate([delta.ravel(), H[np.triu_indices(k)]])
    rows, cols = np.triu_indices(k)

    def image(vector: np.ndarray) -> np.ndarray:
        full = np.zeros((k, k), complex)
        full[rows, cols] = full[cols, rows] = vector[delta.size :]
        d, h = _image(eq, POINTS[0], vector[: delta.size].reshape(delta.shape), full, m, float(eq.psi_n), eq.kept)
        return np.concatenate([d.ravel(), h[rows, cols]])

    step = 1e-6
    numeric = np.stack([(image(u + step * e) - image(u - step * e)) / (2 * step) for e in np.eye(u.size)], 1)
    np.testing.assert_allclose(A, numeric, rtol=1e-6, atol=1e-7 * abs(numeric).max())


@pytest.mark.thorough
def test_rays_reach_nodes_near_the_axis() -> None:
    """A wide spectrum whose lowest part belongs to few samples: stages of whole decades end in a cycle at the node nearest to it."""
    law = MixtureLaw.isotropic([0.95, 0.05], [10.0, 1.0])
    with jax.enable_x64(True):
        eq = equivalent(Problem(law, "tanh", t=0.1, psi_p=8.0, psi_n=4.0), 1, 6.0)
        low, high = (float(x) for x in outer_bounds(eq))
        nodes = jnp.asarray(ellipse(low / 2, 1.5 * high, 64).nodes)
        far = jax.jit(approaches.approach_along_rays)(eq, nodes)
        solve = jax.jit(resolvent.solve)
        reached, free = (solve(eq, nodes, start) for start in (far, resolvent.free_start(eq, nodes)))
        assert np.max(reached.residual) < 1e-12
        np.testing.assert_allclose(reached.point.H, free.point.H, rtol=1e-9)
