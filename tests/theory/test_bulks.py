"""Times from the bulks of the spectrum: masses, averages against real eigenvalues, and support without a gap."""

import dataclasses

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.curves import Spectrum
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.density import grid_weights
from tests.synthetic import given
from tests.tolerances import rejects


def separated() -> Problem:
    return Problem(MixtureLaw.isotropic([0.6, 0.4], [1.5, 0.6]), "tanh", t=0.1, psi_p=8.0, psi_n=4.0)


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    return theory.spectrum(separated())


def test_the_gap_is_where_the_modes_of_the_dimensions_end(spectrum: Spectrum) -> None:
    found = theory.bulk_times(separated(), spectrum=spectrum)
    assert found.separated
    weights = grid_weights(spectrum.support, spectrum.eigenvalues)
    upper = spectrum.eigenvalues > found.gap[1] * (1 - 1e-9)
    assert np.sum((weights * spectrum.density)[upper]) == pytest.approx(1 / 8, rel=1e-6)
    assert np.sum((weights * spectrum.density)[~upper]) == pytest.approx(4 / 8, rel=1e-6)
    assert found.edges[0, 0] == found.gap[1] and found.edges[1, 1] == found.gap[0]
    np.testing.assert_allclose(found.shares.sum(1), 1, rtol=1e-12)
    kappa = separated().kappa
    np.testing.assert_allclose(found.slowest, 1 / (kappa * found.edges[:, 0]))
    assert np.all((found.fastest[0] < found.tau_gen) & (found.tau_gen < found.slowest[0]))
    assert np.all((found.fastest[1] < found.tau_mem) & (found.tau_mem < found.slowest[1]))


@pytest.mark.thorough
def test_typical_times_are_those_of_real_networks(spectrum: Spectrum) -> None:
    """The same averages over the eigenvalues of a network at d = 60; they deviate by O(1/d), less than the classes differ."""
    found = theory.bulk_times(separated(), spectrum=spectrum)
    d, kappa = 60, separated().kappa
    curves = simulation.learning_curves(separated(), [1.0], d=d, key=jax.random.key(1), num_seeds=3)
    values, shares = np.asarray(given(curves.spectrum).eigenvalues), np.asarray(given(curves.spectrum).class_weights)
    p, n = values.shape[1], 4 * d

    def typical(modes: slice) -> np.ndarray:
        return np.exp(np.einsum("sp,spk->k", -np.log(kappa * values[:, modes]), shares[:, modes]) / shares[:, modes].sum((0, 1)))

    generalisation, memorisation = typical(slice(p - d, p)), typical(slice(p - d - n, p - d))
    np.testing.assert_allclose(found.tau_gen, generalisation, rtol=0.05)
    np.testing.assert_allclose(found.tau_mem, memorisation, rtol=0.05)
    rejects(lambda: np.testing.assert_allclose(found.tau_mem[::-1], memorisation, rtol=0.05))


@pytest.mark.thorough
def test_memorisation_modes_slow_down_with_n() -> None:
    """The bulk lies at ψ_p/ψ_n v² above its floor."""
    few, many = (theory.bulk_times(dataclasses.replace(separated(), psi_p=64.0, psi_n=n)) for n in (4.0, 16.0))
    assert np.all(many.tau_mem / few.tau_mem > 2)
    np.testing.assert_allclose(many.tau_gen / few.tau_gen, 1, atol=0.25)


def test_overlapping_bulks_have_no_times() -> None:
    """One draw and few features: modes of dimensions and of samples form one bulk."""
    problem = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.5, 0.6]), "tanh", t=1.5, psi_p=0.5, psi_n=4.0, noise_draws=1)
    found = theory.bulk_times(problem)
    assert not found.separated
    assert np.all(np.isnan(found.tau_gen)) and np.all(np.isnan(found.tau_mem)) and np.all(np.isnan(found.edges))
