"""Spectra: closed forms for linear features, bulks decades apart, and eigenvalues of simulated networks."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy import integrate

from rfdiff import simulation
from rfdiff.curves import EmpiricalSpectrum, Spectrum
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import spectrum
from tests.synthetic import given
from tests.tolerances import loglog_slope, rejects


def linear(x: Any) -> Any:
    return x + 0.0


def mass(result: Spectrum, power: float = 0.0, within: tuple[float, float] = (0.0, math.inf), values: Any = None) -> float:
    """∫ λ^power ρ dλ over part of the grid, in the angle of each bulk (where the density has no square root left)."""
    total = 0.0
    values = result.density if values is None else values
    for number, (low, high) in enumerate(result.support):
        pick = result.bulk == number
        lam = result.eigenvalues[pick]
        middle, half = (low + high) / 2, (high - low) / 2
        angle = np.arccos(np.clip((lam - middle) / half, -1, 1))
        integrand = np.where((lam >= within[0]) & (lam <= within[1]), lam**power * values[pick] * half * np.sin(angle), 0)
        total += -float(integrate.trapezoid(np.append(np.insert(integrand, 0, 0), 0), np.append(np.insert(angle, 0, np.pi), 0)))
    return total


def two_classes(**changes: Any) -> Problem:
    values: dict[str, Any] = {"t": 0.3, "psi_p": 0.8, "psi_n": 1.6, "noise_draws": math.inf, **changes}
    return Problem(MixtureLaw.isotropic([0.65, 0.35], values.pop("variances", [1.4, 0.5])), "tanh", **values)


@functools.cache
def centred(draws: float = math.inf) -> Spectrum:
    return spectrum(two_classes(noise_draws=draws), num_points=400)


# -- closed forms


@pytest.mark.parametrize("psi_p", [0.5, 4.0])
def test_marchenko_pastur(psi_p: float) -> None:
    """Linear features of noise alone (variance 0, noise averaged): U = Δ W Wᵀ/d."""
    delta = -math.expm1(-0.6)
    result = spectrum(Problem(MixtureLaw.isotropic([1.0], [0.0]), linear, 0.3, psi_p, 3.0), num_points=300)
    edges = delta * (1 + np.array([-1, 1]) * math.sqrt(psi_p)) ** 2

    def agree(edges: np.ndarray, ratio: float) -> None:
        np.testing.assert_allclose(result.support, [edges], rtol=1e-8)
        lam = result.eigenvalues
        want = np.sqrt((edges[1] - lam) * (lam - edges[0])) / (2 * np.pi * delta * ratio * lam)
        np.testing.assert_allclose(result.density, want, rtol=1e-5, atol=1e-7)

    agree(edges, psi_p)
    rejects(lambda: agree(edges / delta, psi_p))
    rejects(lambda: agree(edges, 1.0))
    np.testing.assert_allclose(result.atom_weights, [1 - 1 / psi_p] if psi_p > 1 else [], atol=1e-6)
    assert result.missing_mass < 1e-6


def product_curve(psi_p: float, psi_n: float) -> tuple[np.ndarray, Any]:
    """Edges and density of U = W X Xᵀ Wᵀ/(n d) with W (p, d), X (d, n) standard normal, by free multiplication.

    With u the moment generating function over d, z = (1+u)(ψ_p+u)(ψ_n+u)/(ψ_n u): edges are its positive critical values.
    """
    critical = np.roots([2, 1 + psi_p + psi_n, 0, -psi_p * psi_n]).real
    values = (1 + critical) * (psi_p + critical) * (psi_n + critical) / (psi_n * critical)

    def density(lam: np.ndarray) -> np.ndarray:
        found = []
        for x in lam:
            roots = np.roots([1, 1 + psi_p + psi_n, psi_p + psi_n + psi_p * psi_n - psi_n * x, psi_p * psi_n])
            found.append(np.max((-(1 + roots / psi_p) / x).imag) / np.pi)
        return np.array(found)

    return np.sort(values[values > 0]), density


@pytest.mark.parametrize(("psi_p", "psi_n"), [(0.4, 2.5), (2.0, 3.0), (3.0, 0.5)])
def test_product_of_two_wishart_factors(psi_p: float, psi_n: float) -> None:
    """Linear features of one unit Gaussian with one noise draw: every edge and density in closed form."""
    result = spectrum(Problem(MixtureLaw.isotropic([1.0], [1.0]), linear, 0.3, psi_p, psi_n, 1), num_points=300)

    def agree(psi_p: float, psi_n: float) -> None:
        edges, density = product_curve(psi_p, psi_n)
        np.testing.assert_allclose(result.support, [edges], rtol=1e-8)
        np.testing.assert_allclose(result.density, density(result.eigenvalues), rtol=1e-6, atol=1e-8)

    agree(psi_p, psi_n)
    rejects(lambda: agree(psi_n, psi_p))
    zero = 1 - min(1, psi_p, psi_n) / psi_p
    np.testing.assert_allclose(result.atom_weights, [zero] if zero else [], atol=1e-7)
    np.testing.assert_allclose(result.atom_locations, [0.0] if zero else [])
    assert result.missing_mass < 1e-6
    assert abs(mass(result, 1.0) - 1) < 1e-4, "tr U/p = E φ² = 1"


# -- bulks, atoms, sums


def test_bulks_decades_apart_and_the_atom_of_carried_noise() -> None:
    """Small t: data modes, memorisation modes, and the p - n - d neurons left with their own noise at s²."""
    variance, t, psi_p, psi_n = 1.0, 0.01, 64.0, 8.0
    result = spectrum(Problem(MixtureLaw.isotropic([1.0], [variance]), "erf", t, psi_p, psi_n), num_points=400)
    delta = -math.expm1(-2 * t)
    signal = math.exp(-2 * t) * variance
    slope2 = 4 / np.pi / (1 + 2 * (signal + delta))
    carried = (
        2 / np.pi * (math.asin(2 * (signal + delta) / (1 + 2 * (signal + delta))) - math.asin(2 * signal / (1 + 2 * (signal + delta))))
    )
    assert result.support.shape == (3, 2)
    assert result.support[-1, 1] / result.support[0, 0] > 1e3
    np.testing.assert_allclose(result.atom_locations, [carried - slope2 * delta], rtol=1e-9)
    np.testing.assert_allclose(result.atom_weights, [1 - (1 + psi_n) / psi_p], rtol=1e-6)
    assert result.missing_mass < 1e-6
    weights = [mass(result, within=tuple(bulk)) for bulk in result.support]
    np.testing.assert_allclose(sum(weights), (1 + psi_n) / psi_p, rtol=1e-3)
    np.testing.assert_allclose(weights[-1], 1 / psi_p, rtol=1e-3, err_msg="d modes of the data")


@pytest.mark.thorough
def test_an_atom_beside_its_bulk_is_found() -> None:
    """At p little above n + d the bulk begins right beside the atom, where the fixed point is nearly singular."""
    law = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4])
    result = spectrum(Problem(law, "tanh", 0.1, 4.0, 2.5), num_points=400)
    np.testing.assert_allclose(result.atom_weights, [1 - 3.5 / 4], rtol=1e-12)
    assert result.missing_mass < 2e-3
    one = dataclasses.replace(Problem(law, "tanh", 0.1, 4.0, 2.5), loss_weights=np.array([1.0, 0.0]))  # samples of class 0 alone
    np.testing.assert_allclose(spectrum(one, num_points=400).atom_weights, [1 - (1 + 0.7 * 2.5) / 4], rtol=1e-12)


@pytest.mark.parametrize("draws", [math.inf, 1])
def test_mass_and_class_densities(draws: float) -> None:
    result = centred(draws)
    assert result.missing_mass < 1e-6
    total = result.class_density.sum(1)
    assert np.max(abs(total - result.density)) < 1e-8 * result.density.max()
    assert np.all(result.class_density > -1e-9 * result.density.max())
    assert result.atom_weights.size == 0
    # tr U_c/p = E_c φ², the means being 0 for an odd activation
    first = [mass(result, 1.0, values=result.class_density[:, c]) for c in range(2)]
    want = [pi * second_moment(variance, 0.3) for pi, variance in zip((0.65, 0.35), (1.4, 0.5), strict=True)]
    np.testing.assert_allclose(first, want, rtol=1e-3)
    rejects(lambda: np.testing.assert_allclose(first, want[::-1], rtol=1e-3))


def test_more_features_than_columns_leave_an_atom_at_zero() -> None:
    result = spectrum(two_classes(psi_p=2.2, noise_draws=1), num_points=400)
    np.testing.assert_allclose(result.atom_locations, [0.0])
    np.testing.assert_allclose(result.atom_weights, [1 - 1.6 / 2.2], atol=1e-7)
    assert result.missing_mass < 1e-6
    assert abs(mass(result) - 1.6 / 2.2) < 1e-4


def second_moment(variance: float, t: float) -> float:
    std = math.sqrt(math.exp(-2 * t) * variance - math.expm1(-2 * t))
    nodes = np.linspace(-9, 9, 721)
    weights = np.exp(-(nodes**2) / 2)
    return float(weights @ np.tanh(std * nodes) ** 2 / weights.sum())


def test_edges_are_square_roots() -> None:
    result = centred()
    for number, (low, high) in enumerate(result.support):
        pick = np.flatnonzero(result.bulk == number)
        for edge, near in ((low, pick[1:6]), (high, pick[-6:-1])):
            distance = abs(result.eigenvalues[near] - edge)
            assert np.max(distance) < 0.1 * edge
            assert abs(loglog_slope(distance, result.density[near]) - 0.5) < 0.05


def test_identical_classes_share_the_density_by_weight() -> None:
    result = spectrum(two_classes(variances=[1.0, 1.0]), num_points=400)
    np.testing.assert_allclose(result.class_density[:, 0] * 0.35, result.class_density[:, 1] * 0.65, rtol=1e-7, atol=1e-9)


# -- simulated networks

SIZE = 200


def cumulative(result: Spectrum, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """∫_{λ ≤ x} of a density on the grid."""
    lam, values = result.eigenvalues, np.asarray(values)
    steps = np.where(np.diff(result.bulk) == 0, np.diff(lam) * (values[1:] + values[:-1]) / 2, 0)
    return np.interp(x, lam, np.concatenate([[0], np.cumsum(steps)]), left=0)


@pytest.fixture(scope="module")
def networks() -> EmpiricalSpectrum:
    return given(simulation.learning_curves(two_classes(), [1.0, 10.0], d=SIZE, key=jax.random.key(5), num_seeds=4).spectrum)


def kolmogorov(networks: EmpiricalSpectrum, result: Spectrum, flip: bool = False, above: float = 0.0) -> np.ndarray:
    """Largest distance of the cumulative spectra beyond a point: of all eigenvalues, and of each class's share."""
    seeds, p = networks.eigenvalues.shape
    order = np.argsort(networks.eigenvalues.ravel())
    x = networks.eigenvalues.ravel()[order]
    shares = networks.class_weights.reshape(seeds * p, -1)[order] / seeds
    whole, seen = np.cumsum(np.full(x.size, 1 / x.size)), x > above
    classes = result.class_density[:, ::-1] if flip else result.class_density
    return np.array(
        [np.max(abs(whole - cumulative(result, result.density, x))[seen])]
        + [np.max(abs(np.cumsum(shares[:, c]) - cumulative(result, classes[:, c], x))[seen]) for c in range(shares.shape[1])]
    )


@pytest.mark.thorough
def test_eigenvalues_of_real_networks(networks: EmpiricalSpectrum) -> None:
    def agree(result: Spectrum, flip: bool = False) -> None:
        # eigenvalues repel: they lie within about a spacing of their quantiles, and the finite-size shift is of order 1/d too
        assert np.max(kolmogorov(networks, result, flip)) < 3 / SIZE

    agree(centred())
    rejects(lambda: agree(centred(), flip=True))
    rejects(lambda: agree(spectrum(two_classes(psi_p=1.6, psi_n=0.8), num_points=400)))
    rejects(lambda: agree(spectrum(two_classes(t=-0.5 * math.log(1 + 2 * math.expm1(-0.6))), num_points=400)))
    rejects(lambda: agree(spectrum(two_classes(variances=[1.0, 1.0]), num_points=400)))
    rejects(lambda: agree(centred(1)))


@pytest.mark.slow
def test_spectrum_with_centroids(case_a: Problem) -> None:
    """Case A has a continuum of neuron types: two bulks, mass one, and real networks agree."""
    result = spectrum(case_a, num_points=400)
    assert result.support.shape == (2, 2)
    assert result.missing_mass < 2e-3
    real = given(simulation.learning_curves(case_a, [1.0, 10.0], d=100, key=jax.random.key(6), num_seeds=4).spectrum)

    def agree(flip: bool) -> None:
        # many neurons keep little but their own s², which varies with their row norm, by 1/√d: that smears the lowest edge
        assert np.max(kolmogorov(real, result, flip, above=0.05)) < 0.02

    agree(False)
    rejects(lambda: agree(True))


@pytest.mark.parametrize("num", [31, 0, 100.0, None, "many"])
def test_refused_sizes(num: Any) -> None:
    with pytest.raises(ValueError, match="num_points: .*; allowed: an integer >= 32"):
        spectrum(two_classes(), num_points=num)
