"""Gaussian equivalent against adaptive quadrature (scipy) and closed forms, at mild and steep slopes and at small t."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from scipy import integrate, special

from rfdiff.activation import ACTIVATIONS
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.equivalent import _LATEST, column_kinds, equivalent
from rfdiff.theory.neuron_coefficients import PanelRule, coefficients, gauss_rules, smooth_rule, table_size, tabulated
from rfdiff.theory.neuron_types import by_lattice, gram_root, is_odd, levels, refined_error, sobol_grid, type_grid
from tests.tolerances import rejects

VARIANCES = (1.0, 25.0)
MEANS = np.array([0.0, 0.7, -1.6])
TIMES = (0.1, 0.01)


def panels(edges: Any) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and weights that include the Gaussian density, of a 16-point Gauss-Legendre rule between each two edges."""
    x, w = np.polynomial.legendre.leggauss(16)
    low, width = np.asarray(edges)[:-1, None], np.diff(edges)[:, None]
    nodes = low + width * (x + 1) / 2
    return nodes.ravel(), (width / 2 * w * np.exp(-(nodes**2) / 2)).ravel() / math.sqrt(2 * math.pi)


def _inner_quadrature(sigma: Callable[[Any], Any], mean: Any, std: float) -> Any:
    nodes, weights = panels(np.linspace(-9, 9, 19))
    return sigma(np.asarray(mean)[..., None] + std * nodes) @ weights


def _gelu_average(mean: Any, std: float) -> Any:
    width = math.sqrt(1 + std**2)
    return mean * special.ndtr(mean / width) + std**2 / width * np.exp(-((mean / width) ** 2) / 2) / math.sqrt(2 * math.pi)


def _relu_average(mean: Any, std: float) -> Any:
    return mean * special.ndtr(mean / std) + std * np.exp(-((mean / std) ** 2) / 2) / math.sqrt(2 * math.pi)


SIGMA: dict[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "erf": special.erf,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
    "gelu": lambda x: x * special.ndtr(x),
    "sin": np.sin,
}
SLOPE: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "erf": lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2)),
    "relu": lambda x: (x > 0) * 1.0,
    "softplus": special.expit,
    "gelu": lambda x: special.ndtr(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    "sin": np.cos,
}
# average of σ(mean + std g) over g ~ N(0, 1)
AVERAGED: dict[str, Callable[[Any, float], Any]] = {
    "tanh": functools.partial(_inner_quadrature, np.tanh),
    "erf": lambda mean, std: special.erf(mean / math.sqrt(1 + 2 * std**2)),
    "relu": _relu_average,
    "softplus": functools.partial(_inner_quadrature, lambda x: np.logaddexp(0, x)),
    "gelu": _gelu_average,
    "sin": lambda mean, std: np.sin(mean) * math.exp(-(std**2) / 2),
}


def gaussian_average(f: Callable[[Any], Any], mean: float, std: float) -> float:
    """E f(mean + std g), on panels that shrink towards the place where an activation of the set bends (x = 0)."""
    cut = float(np.clip(-mean / std, -9, 9))
    steps = np.concatenate([[0.0], np.geomspace(1e-2, 10 + abs(cut), 40)])
    nodes, weights = panels(np.concatenate([cut - steps[:0:-1], cut + steps]))
    return float(weights @ f(mean + std * nodes))


@functools.cache
def computed(name: str, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """α, v², s² (3 means, 2 classes) of the package."""
    problem = Problem(MixtureLaw.isotropic([0.5, 0.5], VARIANCES), name, t, 1.0, 1.0)
    signal, noise = np.exp(-t) * np.sqrt(VARIANCES), math.sqrt(-math.expm1(-2 * t))
    with jax.enable_x64(True):
        run = jax.jit(coefficients, static_argnums=0)
        alpha, kept, carried = run(ACTIVATIONS[name], np.tile(MEANS[:, None], 2), signal, noise, gauss_rules(problem))
        return np.asarray(alpha), np.asarray(kept), np.asarray(carried)


@functools.cache
def expected(name: str, t: float) -> dict[str, np.ndarray]:
    """α0, α, P and E σ² (3 means, 2 classes) by adaptive quadrature."""
    sigma, noise = SIGMA[name], math.sqrt(-math.expm1(-2 * t))
    table: dict[str, np.ndarray] = {key: np.zeros((len(MEANS), 2)) for key in ("mean", "alpha", "kept_square", "square")}
    for i, mean in enumerate(MEANS):
        for c, variance in enumerate(VARIANCES):
            signal = math.exp(-t) * math.sqrt(variance)
            gamma = math.hypot(signal, noise)
            table["mean"][i, c] = gaussian_average(sigma, mean, gamma)
            table["alpha"][i, c] = gaussian_average(SLOPE[name], mean, gamma)
            table["square"][i, c] = gaussian_average(lambda x: sigma(x) ** 2, mean, gamma)
            table["kept_square"][i, c] = gaussian_average(lambda x: AVERAGED[name](x, noise) ** 2, mean, signal)
    return table


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_the_yardstick_is_exact(name: str) -> None:
    """The panels against scipy's adaptive rule, at the steepest point."""
    sigma, limits = SIGMA[name], dict[str, Any](points=[-0.14], epsabs=1e-12, epsrel=1e-12, limit=500)
    want = integrate.quad(lambda g: sigma(0.7 + 5 * g) ** 2 * math.exp(-(g**2) / 2), -10, 10, **limits)[0] / math.sqrt(2 * math.pi)
    assert abs(gaussian_average(lambda x: sigma(x) ** 2, 0.7, 5.0) / want - 1) < 1e-11


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_coefficients_against_adaptive_quadrature(name: str, t: float) -> None:
    truth, delta = expected(name, t), -math.expm1(-2 * t)
    signal = math.exp(-2 * t) * np.array(VARIANCES)
    kept = truth["kept_square"] - truth["mean"] ** 2 - truth["alpha"] ** 2 * signal
    carried = truth["square"] - truth["kept_square"] - truth["alpha"] ** 2 * delta

    def agree(alpha: np.ndarray, v2: np.ndarray, s2: np.ndarray) -> None:
        scale = max(1.0, float(truth["square"].max()))
        for got, want in ((alpha, truth["alpha"]), (v2, kept), (s2, carried)):
            assert np.max(abs(got - want)) < 1e-9 * scale

    alpha, v2, s2 = computed(name, t)
    agree(alpha, v2, s2)
    # Parseval, with α0 and E σ² from the quadrature
    total = truth["mean"] ** 2 + alpha**2 * (signal + delta) + v2 + s2
    np.testing.assert_allclose(total, truth["square"], rtol=1e-10, atol=1e-10)
    rejects(lambda: agree(alpha, s2, v2))
    rejects(lambda: agree(*computed(name, TIMES[1 - TIMES.index(t)])))


@pytest.mark.parametrize("t", TIMES)
def test_closed_forms(t: float) -> None:
    delta, signal = -math.expm1(-2 * t), math.exp(-2 * t) * np.array(VARIANCES)
    gamma2 = signal + delta
    # relu at mean 0, by Price's theorem: the arc-cosine kernel of order one
    rho = signal / gamma2
    kept_square = gamma2 / (2 * np.pi) * (np.sqrt(1 - rho**2) + rho * (np.pi / 2 + np.arcsin(rho)))
    alpha, v2, s2 = (x[0] for x in computed("relu", t))
    np.testing.assert_allclose(alpha, 0.5, rtol=1e-12)
    np.testing.assert_allclose(v2, kept_square - gamma2 / (2 * np.pi) - signal / 4, rtol=0, atol=1e-9)
    np.testing.assert_allclose(s2, gamma2 / 2 - kept_square - delta / 4, rtol=0, atol=1e-9)
    # erf at mean 0: the arc-sine kernel
    alpha, v2, s2 = (x[0] for x in computed("erf", t))
    slope2 = 4 / np.pi / (1 + 2 * gamma2)
    kept_square = 2 / np.pi * np.arcsin(2 * signal / (1 + 2 * gamma2))
    np.testing.assert_allclose(alpha**2, slope2, rtol=1e-11)
    np.testing.assert_allclose(v2, kept_square - slope2 * signal, rtol=0, atol=1e-11)
    np.testing.assert_allclose(s2, 2 / np.pi * np.arcsin(2 * gamma2 / (1 + 2 * gamma2)) - kept_square - slope2 * delta, rtol=0, atol=1e-11)
    # sin at any mean: exponentials
    mean = MEANS[:, None]
    alpha0, slope = np.sin(mean) * np.exp(-gamma2 / 2), np.cos(mean) * np.exp(-gamma2 / 2)
    kept_square = (np.exp(-delta) - np.cos(2 * mean) * np.exp(-2 * signal - delta)) / 2
    square = (1 - np.cos(2 * mean) * np.exp(-2 * gamma2)) / 2
    alpha, v2, s2 = computed("sin", t)
    np.testing.assert_allclose(alpha, slope, rtol=0, atol=1e-12)
    np.testing.assert_allclose(v2, kept_square - alpha0**2 - slope**2 * signal, rtol=0, atol=1e-12)
    np.testing.assert_allclose(s2, square - kept_square - slope**2 * delta, rtol=0, atol=1e-12)


GRAM = np.array([[1.0, 0.3, 0.2], [0.3, 0.5, -0.1], [0.2, -0.1, 2.0]])


@pytest.mark.parametrize(("rank", "odd"), [(1, False), (2, True), (3, False), (3, True)])
def test_neuron_types_average_like_their_gaussian(rank: int, odd: bool) -> None:
    root = gram_root(GRAM)[:, :rank]
    grid = type_grid(root, 3, 6.0, odd)
    h = grid.nodes @ root.T
    direction = np.array([0.4, -0.7, 0.5])
    assert abs(grid.weights.sum() - 1) < 1e-14
    np.testing.assert_allclose((grid.weights[:, None] * h).T @ h, root @ root.T, atol=1e-5)
    want = math.exp(-direction @ root @ root.T @ direction / 2)
    assert abs(float(grid.weights @ np.cos(h @ direction)) - want) < 1e-6
    if not odd:
        assert np.max(abs(grid.weights @ h)) < 1e-12


def test_quasi_random_types_above_rank_three() -> None:
    grid = sobol_grid(4, 13)
    direction = np.array([0.4, -0.7, 0.5, 0.2])
    assert abs(float(grid.weights @ np.cos(grid.nodes @ direction)) - math.exp(-direction @ direction / 2)) < 1e-3
    np.testing.assert_allclose((grid.weights[:, None] * grid.nodes).T @ grid.nodes, np.eye(4), atol=0.02)
    np.testing.assert_array_equal(type_grid(np.eye(4), 4, 6.0, True).nodes, sobol_grid(4, 13).nodes)


def test_gram_root() -> None:
    np.testing.assert_allclose(gram_root(GRAM) @ gram_root(GRAM).T, GRAM, atol=1e-14)
    assert gram_root(np.ones((3, 3))).shape == (3, 1)
    assert gram_root(np.zeros((2, 2))).shape == (2, 0)


@pytest.mark.parametrize("m", [1, 2, 3, 50])
def test_column_kinds_keep_the_covariance_of_the_data(m: int) -> None:
    shares, signal, noise, draws, deterministic = column_kinds(m)
    assert (draws, deterministic) == (m, 0.0)
    np.testing.assert_allclose([shares.sum(), shares @ signal, shares @ noise], 1.0, rtol=1e-14)
    assert np.sum(signal > 0) == 1, "only the mean over the draws carries the clean sample"


def test_column_kinds_of_averaged_noise() -> None:
    shares, signal, noise, draws, deterministic = column_kinds(math.inf)
    assert [float(shares @ signal), float(shares @ noise), draws, deterministic] == [1.0, 0.0, 1.0, 1.0]


def test_odd_activations_are_recognised() -> None:
    with jax.enable_x64(True):
        assert {name for name, activation in ACTIVATIONS.items() if is_odd(activation)} == {"tanh", "erf", "sin"}


def test_types_of_a_problem_see_their_centroids(case_a: Problem) -> None:
    """α_c(h) of case A averages to the slope at the total variance, e^{-2t} Q_cc + Γ_c²: projections of a centroid are Gaussian too."""
    with jax.enable_x64(True):
        eq = equivalent(case_a, 3, 6.0)
        averaged = np.asarray(eq.type_weights) @ np.asarray(eq.linear)
    for c, variance in enumerate(case_a.mixture.variances + np.diag(case_a.mixture.centroid_gram)):
        std = math.sqrt(math.exp(-0.2) * variance - math.expm1(-0.2))
        assert abs(averaged[c] - gaussian_average(SLOPE["tanh"], 0.0, std)) < 1e-7
        assert abs(averaged[1 - c] - gaussian_average(SLOPE["tanh"], 0.0, std)) > 1e-2


def test_kept_neurons_are_those_of_the_problem(case_a: Problem) -> None:
    """Ratios, fractions, weights and noise draws take the neurons that are kept; spectra, centroids, t and activation make their own."""
    law, half = case_a.mixture, np.array([0.5, 0.5])
    moved = replace(case_a, psi_p=1.3, psi_n=0.7, noise_draws=3, loss_weights=half, mixture=replace(law, weights=half))
    others = [replace(case_a, t=0.3), replace(case_a, activation=ACTIVATIONS["erf"])]
    others += [replace(case_a, mixture=replace(law, **{name: 1.1 * getattr(law, name)})) for name in ("eigenvalues", "centroid_gram")]
    with jax.enable_x64(True):
        for problem in (moved, *others):
            _LATEST.clear()
            alone = equivalent(problem, 1, 5.0)
            _LATEST.clear()
            kept = equivalent(case_a, 1, 5.0)
            found = equivalent(problem, 1, 5.0)
            assert len(_LATEST) == (1 if problem is moved else 2)
            assert (found.linear is kept.linear) == (problem is moved)
            assert str(jax.tree.structure(found)) == str(jax.tree.structure(alone))
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


def test_a_lattice_is_as_fine_as_its_own_direction_needs() -> None:
    """Steps follow the length of the centroids along each principal axis, so short ones cost few points, and averages stay right."""
    root = np.diag([0.3, 3.0])
    grid, isotropic = type_grid(root, 3, 6.0, False), type_grid(3 * np.eye(2), 3, 6.0, False)
    assert np.count_nonzero(grid.weights) < 0.4 * np.count_nonzero(isotropic.weights)
    direction = np.array([0.9, 0.4])
    want = math.exp(-direction @ root @ root.T @ direction / 2)
    assert abs(float(grid.weights @ np.cos(grid.nodes @ root.T @ direction)) - want) < 1e-6


def test_centroids_too_long_for_a_lattice_take_quasi_random_types() -> None:
    law = MixtureLaw.isotropic([0.4, 0.3, 0.3], [1.0, 0.8, 0.6], 10.0 * np.eye(3))
    far = Problem(law, "relu", t=0.1, psi_p=2.0, psi_n=2.0)
    near = Problem(MixtureLaw.isotropic(law.weights, [1.0, 0.8, 0.6], 0.3 * np.eye(3)), "relu", t=0.1, psi_p=2.0, psi_n=2.0)
    assert by_lattice(near, 6.0) and not by_lattice(far, 6.0)
    assert list(levels(far, 1, 6.0)) == [1, 2, 3, 4] and len(levels(near, 1, 6.0)) >= 2
    assert type_grid(gram_root(law.centroid_gram), 1, 6.0, False).weights.size == 2**10


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_coefficients_of_many_types_are_read_from_a_series(name: str) -> None:
    """A narrow class far from the others needs the longest series; one that is too short is noticed."""
    law = MixtureLaw.isotropic([0.5, 0.5], [0.06, 2.0], [[2.0, 0.3], [0.3, 1.0]])
    problem = Problem(law, name, t=0.01, psi_p=2.0, psi_n=2.0)
    with jax.enable_x64(True):
        means = jax.numpy.asarray(np.linspace(-6, 6, 41)[:, None] * np.sqrt(np.diag(law.centroid_gram)) * math.exp(-0.01))
        arguments = (problem.activation, means, np.exp(-0.01) * np.sqrt([0.06, 2.0]), np.sqrt(-np.expm1(-0.02)))
        rules = gauss_rules(problem)
        exact = [np.asarray(x) for x in coefficients(*arguments, rules)]
        size = table_size(problem, gram_root(law.centroid_gram), 6.0)
        series = [np.asarray(x) for x in tabulated(*arguments, rules, size)]
        short = [np.asarray(x) for x in tabulated(*arguments, rules, size // 4)]
        rounding = 5e-14 * float(problem.activation(np.max(means))) ** 2  # v² and s² are differences of numbers of the size of E σ²
    for one, other in zip(exact, series, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=rounding)
    rejects(lambda: np.testing.assert_allclose(short[1], exact[1], rtol=0, atol=rounding))


@pytest.mark.thorough
@pytest.mark.parametrize("t", [0.003, 0.05])
def test_panels_around_a_kink_average_like_a_fine_uniform_rule(t: float) -> None:
    """With little noise a uniform rule needs thousands of nodes; panels see the kink at any mean, and need 192."""
    law = MixtureLaw.isotropic([0.5, 0.5], [0.2, 3.0])
    problem = Problem(law, "relu", t=t, psi_p=2.0, psi_n=2.0)
    signal, noise = math.exp(-t) * np.sqrt([0.2, 3.0]), math.sqrt(-math.expm1(-2 * t))
    with jax.enable_x64(True):
        rules = gauss_rules(problem)
        means = jax.numpy.asarray(np.array([-5.0, -0.7, 0.0, 0.02, 1.3, 6.0])[:, None] * np.ones(2))
        uniform = smooth_rule(4 * signal.max() / noise)
        arguments = (problem.activation, means, jax.numpy.asarray(signal), jax.numpy.asarray(noise))
        panels, exact = ([np.asarray(x) for x in coefficients(*arguments, chosen)] for chosen in (rules, rules._replace(signal=uniform)))
    assert isinstance(rules.signal, PanelRule) and rules.signal.nodes.size == 192 < uniform.nodes.size / 2
    for one, other in zip(panels, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_what_a_refinement_leaves_is_not_promised_too_soon() -> None:
    """Errors of a lattice at four levels, erf with narrow classes: each estimate covers a third of the error that is left."""
    errors = np.array([9.06e-5, 1.42e-5, 1.33e-6, 1.4e-11])
    changes = errors[:-1] - errors[1:]
    estimates = [refined_error(True, changes[0]), refined_error(True, changes[1], changes[0]), refined_error(True, changes[2], changes[1])]
    assert all(error <= 3 * estimate for error, estimate in zip(errors[1:], estimates, strict=True))
    assert estimates[-1] < 1e-6 < estimates[-2] and refined_error(False, 1e-3, 1e-3) == 1e-3
