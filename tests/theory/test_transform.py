"""Stieltjes transform: reference values, the sum rule everywhere, and the published one-Gaussian limit, solved here on its own."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize

from rfdiff.activation import ACTIVATIONS
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import Stieltjes, stieltjes
from tests.tolerances import loglog_slope, rejects

# case A: four points of the reference table; in the support, its conjugate's mirror, in the gap between the bulks, far away
POINTS = np.array([-0.5, -0.05, 0.3 + 0.1j, 1 + 0.1j, 1.0, 0.3 - 0.1j, 0.16, 4e3 + 3e3j])
G = np.array([1.582290, 9.647306, -2.106897 + 1.376214j, -0.860142 + 0.403439j])
KAPPA = np.array(
    [
        [0.168408, 0.040447],
        [0.404311, 0.113323],
        [0.191368 + 0.153942j, 0.038941 + 0.048232j],
        [0.096711 + 0.257242j, 0.002803 + 0.060183j],
    ]
)


@pytest.fixture(scope="module")
def result_a(case_a: Problem) -> Stieltjes:
    return stieltjes(case_a, POINTS)


def on_table(value: np.ndarray, class_resolved: np.ndarray) -> None:
    assert np.max(abs(value - G)) < 1e-5
    assert np.max(abs(class_resolved - KAPPA)) < 1e-5


def test_reference_values_of_case_a(result_a: Stieltjes, case_a: Problem) -> None:
    on_table(result_a.value[:4], result_a.class_resolved[:4])
    rejects(lambda: on_table(result_a.value[:4], result_a.class_resolved[:4, ::-1]))
    rejects(lambda: on_table(result_a.value[:4].conj(), result_a.class_resolved[:4]))
    swapped = Problem(case_a.mixture, case_a.activation, case_a.t, case_a.psi_n, case_a.psi_p)
    rejects(lambda: on_table(*_first(stieltjes(swapped, POINTS))))
    doubled = -0.5 * math.log(1 - 2 * -math.expm1(-2 * case_a.t))
    rejects(lambda: on_table(*_first(stieltjes(Problem(case_a.mixture, case_a.activation, doubled, 4.0, 3.0), POINTS))))


def _first(result: Stieltjes) -> tuple[np.ndarray, np.ndarray]:
    return result.value[:4], result.class_resolved[:4]


def test_everything_converged_and_says_so(result_a: Stieltjes) -> None:
    assert np.all(result_a.converged)
    assert np.all(result_a.residual < 1e-8)
    assert np.all(result_a.error_estimate < 1e-7)


def sum_rule(z: np.ndarray, result: Stieltjes) -> None:
    assert np.max(abs(result.class_resolved.sum(1) - 1 - z * result.value)) < 1e-9


def test_conjugation_and_the_side_of_the_axis(result_a: Stieltjes) -> None:
    g, kappa = result_a.value, result_a.class_resolved
    assert g[5] == g[2].conj()
    np.testing.assert_array_equal(kappa[5], kappa[2].conj())
    assert g[4].imag > 0.1, "on the support: the density"
    assert np.all(kappa[4].imag > 0.01)
    assert np.all(abs(g[[0, 1, 6]].imag) < 1e-7), "real left of the support and in the gap"
    assert g[6].real < 0 < g[0].real


def test_far_away_the_first_moment_shows(result_a: Stieltjes, case_a: Problem) -> None:
    """g = -1/z - tr U/p / z² + …, with tr U/p = E φ² less the means, known from the linear and non-linear variances."""
    z = POINTS[7]
    moment = trace_moment(case_a)
    assert abs(-z * (1 + z * result_a.value[7]) - moment) < 3 * moment / abs(z)
    assert abs(result_a.class_resolved[7].sum() * -z - moment) < 3 * moment / abs(z)


def trace_moment(problem: Problem) -> float:
    """(1/p) tr of the limiting U: Σ_c π_c E_h[Var σ(e^{-t} h_c + Γ_c g)], by a plain product rule."""
    t, law = problem.t, problem.mixture
    nodes = np.linspace(-9, 9, 721)
    weights = np.exp(-(nodes**2) / 2)
    weights /= weights.sum()
    total = 0.0
    for pi, variance, square in zip(law.weights, law.variances, np.diag(law.centroid_gram), strict=True):
        gamma = math.sqrt(math.exp(-2 * t) * variance - math.expm1(-2 * t))
        values = np.tanh(math.exp(-t) * math.sqrt(square) * nodes[:, None] + gamma * nodes[None])
        total += pi * float(weights @ (values**2 @ weights - (values @ weights) ** 2))
    return total


def test_sum_rule_of_case_a(result_a: Stieltjes) -> None:
    sum_rule(POINTS, result_a)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("draws", [1, math.inf])
def test_sum_rule_for_every_activation(name: str, draws: float) -> None:
    problem = Problem(MixtureLaw([0.6, 0.4], [[1.6, 0.2], [0.4, 1.2]], [0.5, 0.5], np.zeros((2, 2))), name, 0.15, 3.1, 2.2, draws)
    z = np.array([-0.7, -1e-3, 1e-3, 0.05, 0.2, 0.5 + 0.01j, 1.5, 60.0])
    result = stieltjes(problem, z)
    assert np.all(result.converged)
    sum_rule(z, result)
    assert np.all(result.value.imag >= 0)
    assert np.any(result.value[z.imag == 0].imag > 1e-2)
    assert np.any(result.value[(z.imag == 0) & (z.real > 0)].imag < 1e-7)


GROUPS, SHARES, TIME, PSI_P, PSI_N = np.array([1.6, 0.4]), np.array([0.3, 0.7]), 0.1, 4.0, 1.5


def published(z: complex, psi_p: float, psi_n: float, delta_factor: float = 1.0) -> complex:
    """(1/p) tr (U - z)^{-1} for one Gaussian and erf features, from the published saddle point (Bonnaire et al. 2025, theorem 3.1).

    Written with their own letters: q = (1/p) tr R, r and s the traces of W R Wᵀ with and without the data covariance. Coefficients from
    the arc-sine kernel. Solved by continuation from large |z|, with a general-purpose root finder.
    """
    delta, scale2 = -delta_factor * math.expm1(-2 * TIME), math.exp(-2 * TIME)
    variance = float(SHARES @ GROUPS)
    gamma2 = scale2 * variance + delta
    a2 = 4 / np.pi / (1 + 2 * gamma2)
    kept = 2 / np.pi * math.asin(2 * scale2 * variance / (1 + 2 * gamma2))
    v2 = kept - a2 * scale2 * variance
    s2 = 2 / np.pi * math.asin(2 * gamma2 / (1 + 2 * gamma2)) - kept - a2 * delta
    b2 = a2 * delta

    def equations(x: np.ndarray, z: complex) -> np.ndarray:
        q, r = complex(x[0], x[1]), complex(x[2], x[3])
        common = 1 + a2 * scale2 * psi_p / psi_n * r + psi_p * v2 / psi_n * q
        s_hat, r_hat = b2 * psi_p + 1 / q, psi_p * a2 * scale2 / common
        s = SHARES @ (1 / (s_hat + GROUPS * r_hat))
        first = psi_p * (s2 - z) + psi_p * v2 / common + (1 - psi_p) / q - s / q**2
        second = r - SHARES @ (GROUPS / (s_hat + GROUPS * r_hat))
        return np.array([(q * first).real, (q * first).imag, second.real, second.imag], float)

    start = -1 / (z + 300j)
    x = np.array([start.real, start.imag, variance * start.real, variance * start.imag])
    for height in 300 * 0.6 ** np.arange(60):
        found = optimize.root(equations, x, args=(z + 1j * height,), tol=1e-13)
        x = found.x
    found = optimize.root(equations, x, args=(z,), tol=1e-14)
    assert np.max(np.abs(found.fun)) < 1e-11
    return complex(found.x[0], found.x[1])


def test_published_saddle_point_of_one_gaussian() -> None:
    z = np.array([-0.5, -0.02, 0.05 + 0.01j, 0.3 + 0.1j, 1 + 0.05j, 2.5 + 0.3j, 5 + 0.01j, 0.7 + 1j])
    problem = Problem(MixtureLaw([1.0], GROUPS[:, None], SHARES, [[0.0]]), "erf", TIME, PSI_P, PSI_N)
    g = stieltjes(problem, z).value

    def agree(*numbers: float) -> None:
        want = np.array([published(point, *numbers) for point in z])
        assert np.max(abs(g - want) / abs(want)) < 1e-8

    agree(PSI_P, PSI_N)
    rejects(lambda: agree(PSI_N, PSI_P))
    rejects(lambda: agree(PSI_P, PSI_N, 2.0))


@pytest.mark.thorough
def test_finite_draws_tend_to_the_average_as_one_over_m() -> None:
    law = MixtureLaw([1.0], GROUPS[:, None], SHARES, [[0.0]])
    z = np.array([-0.7, -1e-3, 0.5 + 0.01j, 1 + 1j, 2j, -2.0, -3.0, -4.0])

    def at(m: float) -> Any:
        return stieltjes(Problem(law, "tanh", TIME, PSI_P, PSI_N, m), z)

    draws, limit = np.array([64, 128, 256, 512]), at(math.inf)
    for pick in ("value", "class_resolved"):
        gaps = [np.max(abs(getattr(at(int(m)), pick) - getattr(limit, pick))) for m in draws]
        assert abs(loglog_slope(draws, gaps) + 1) < 0.1


@pytest.mark.parametrize(
    ("z", "says"),
    [
        ([0.0], "z: .* other than 0"),
        ([1.0, 0j], "other than 0"),
        ([math.nan], "finite complex numbers"),
        ([complex(1, math.inf)], "finite complex numbers"),
        ([], "non-empty list"),
        ([[1.0], [2.0]], "list of finite"),
        ("one", "z: 'one'; allowed"),
        ([1.0, [2.0]], "list of complex numbers"),
    ],
)
def test_refused_points(case_a: Problem, z: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stieltjes(case_a, z)
