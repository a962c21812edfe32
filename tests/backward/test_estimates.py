"""Speciation of laws that are not isotropic: other routes to the same number, trajectories of the exact score, errors that cover."""

import math

import jax
import numpy as np
import pytest

from rfdiff.backward import (
    BackwardProcess,
    classical_time,
    clone_agreement,
    potential_times,
    return_estimate,
    return_probability,
    speciation_estimate,
    speciation_times,
    uturn,
    well_times,
)
from rfdiff.backward import estimates as module
from rfdiff.backward.isotropic import DIMENSION
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from tests.backward.test_overlap import wishart
from tests.tolerances import assert_within, rejects

GRAM = np.array([[0.6, -0.2], [-0.2, 0.4]])
GROUPS = MixtureLaw([0.7, 0.3], [[2.5, 0.4], [0.5, 1.2]], [0.25, 0.75], GRAM)
THREE = MixtureLaw([0.5, 0.3, 0.2], [[2.5, 0.4, 1.0], [0.5, 1.2, 1.0]], [0.25, 0.75], np.diag([0.3, 0.2, 0.4]))


def as_matrices(law: MixtureLaw, d: int) -> MixtureLaw:
    """The law as covariances in a random basis, its centroids with the same share in every group."""
    rng = np.random.default_rng(3)
    counts = np.round(law.eigenvalue_weights * d).astype(int)
    values, vectors = np.linalg.eigh(law.centroid_gram)
    roots = vectors * np.sqrt(np.maximum(values, 0))
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    means, start = [], 0
    for count in counts:
        frame = np.linalg.qr(rng.normal(size=(count, len(roots))))[0]
        means.append(np.sqrt(count) * roots @ frame.T)
        start += count
    spread = np.repeat(law.eigenvalues, counts, axis=0).T
    return MixtureLaw.from_covariances(law.weights, (axes * spread[:, None, :]) @ axes.T, np.concatenate(means, axis=1) @ axes.T)


def isotropic_in_two_groups(law: MixtureLaw) -> MixtureLaw:
    """The same classes as two groups of directions whose variances differ by nothing that matters."""
    return MixtureLaw(law.weights, np.stack([law.variances, law.variances * (1 + 1e-9)]), [0.5, 0.5], law.centroid_gram)


def test_isotropic_classes_written_as_groups() -> None:
    """Two classes: the closed form to its O(1/d), and for one variance to rounding."""
    for variances, largest in (([1.0, 1.0], 1e-8), ([1.5, 0.5], 5e-4)):
        law = MixtureLaw.isotropic([0.7, 0.3], variances, GRAM)
        same = isotropic_in_two_groups(law)
        np.testing.assert_allclose(return_probability(same, [2.0, 2.6], d=400), return_probability(law, [2.0, 2.6], d=400), atol=largest)
        np.testing.assert_allclose(speciation_times(same, d=400), speciation_times(law, d=400), atol=2 * largest)


@pytest.mark.thorough
def test_three_isotropic_classes_written_as_groups() -> None:
    """Return probability to the error; wells and the classical time to what the groups differ by."""
    law = MixtureLaw.isotropic([0.6, 0.3, 0.1], [1.0, 1.0, 1.0], np.diag([1.0, 0.5, 2.0]))
    found = return_estimate(isotropic_in_two_groups(law), [2.5], d=400)
    expected = return_probability(law, [2.5], d=400)
    assert np.all(abs(found.value - expected) < found.error + 2e-4) and found.error.max() <= 1e-3
    rejects(lambda: np.testing.assert_allclose(found.value, return_probability(law, [2.5], d=420), atol=1.2e-3))
    same = isotropic_in_two_groups(law)
    np.testing.assert_allclose(potential_times(same, d=400), potential_times(law, d=400), rtol=1e-6)
    assert classical_time(same, d=400) == pytest.approx(float(classical_time(law, d=400)), rel=1e-6)


@pytest.mark.parametrize(("law", "d"), [(GROUPS, 40), pytest.param(THREE, 40, marks=pytest.mark.thorough)], ids=["two", "three"])
def test_groups_written_as_matrices(law: MixtureLaw, d: int) -> None:
    matrices = as_matrices(law, d)
    assert matrices.commuting and matrices.dimension == d
    times = [0.3, 1.0, 1.8]
    groups, dense = return_estimate(law, times, d=d), return_estimate(matrices, times)
    assert np.all(abs(groups.value - dense.value) <= groups.error + dense.error + 1e-9) and dense.error.max() <= 1e-3
    np.testing.assert_allclose(speciation_times(matrices), speciation_times(law, d=d), atol=1e-9 if law is GROUPS else 4e-3)
    np.testing.assert_allclose(clone_agreement(matrices, 1.0), return_estimate(matrices, 1.0).value @ law.weights, rtol=1e-12)
    rejects(lambda: np.testing.assert_allclose(dense.value, return_probability(law, times, d=2 * d), atol=4e-3))


@pytest.mark.thorough
@pytest.mark.parametrize("classes", [2, pytest.param(3, marks=pytest.mark.thorough)])
def test_trajectories_of_the_exact_score(classes: int) -> None:
    """U-turns in all coordinates, at d = 4, of classes whose covariances do not commute; exchanged covariances are rejected."""
    rng = np.random.default_rng(5)
    weights = np.array([0.8, 0.2]) if classes == 2 else np.array([0.5, 0.3, 0.2])
    covariances = wishart(rng, classes, 4) * np.array([3.0, 0.5, 1.0])[:classes, None, None]
    centroids = rng.normal(size=(classes, 4))
    law = MixtureLaw.from_covariances(weights, covariances, centroids)
    assert not law.commuting
    process = BackwardProcess(GaussianMixture.from_law(law, 4, jax.random.key(0)), num_steps=64)
    t = 0.3
    measured = uturn(process, [t], key=jax.random.key(1), num_trajectories=4000)
    found = return_estimate(law, [t])
    assert np.all((found.value > weights + 0.03) & (found.value < 0.97))
    assert_within(measured.fraction, measured.stderr, found.value, 2e-3)
    assert_within(measured.posterior, measured.stderr, found.value, 2e-3)
    exchanged = MixtureLaw.from_covariances(weights, covariances[::-1], centroids)
    rejects(lambda: assert_within(measured.fraction, measured.stderr, return_probability(exchanged, [t]), 2e-3))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["groups", "matrices"])
def test_ten_classes_to_a_thousandth_with_errors_that_cover(kind: str) -> None:
    """The error of R is at most the tolerance, and covers what an estimate of about 16 times as many points changes."""
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.full(10, 3.0))
    if kind == "groups":
        places = 0.6 * rng.normal(size=(10, 6))
        law = MixtureLaw(weights, np.exp(0.7 * rng.normal(size=(4, 10))), [0.02, 0.2, 0.3, 0.48], places @ places.T / 6)
        d, t, tolerance = 400, 1.8, 1e-3
    else:
        law = MixtureLaw.from_covariances(weights, wishart(rng, 10, 40), 0.3 * rng.normal(size=(10, 40)))
        assert return_estimate(law, 1.0).error.max() <= 1e-3
        d, t, tolerance = 40, 1.0, 2e-3
    found, reference = (return_estimate(law, t, d=d, tolerance=tolerance / divisor) for divisor in (1, 4))
    assert found.error.max() <= tolerance and reference.error.max() <= tolerance / 4
    assert np.all((found.value > weights) & (found.value < 1))
    assert np.all(abs(found.value - reference.value) <= found.error + reference.error)
    rejects(lambda: np.testing.assert_allclose(found.value, return_estimate(law, 1.1 * t, d=d).value, atol=2 * tolerance))


@pytest.mark.thorough
def test_speciation_times_are_roots_to_their_errors() -> None:
    for law, d in ((THREE, 100), (as_matrices(THREE, 40), 40)):
        times = speciation_estimate(law, d=d)
        returned = return_estimate(law, times.value, d=d, tolerance=3e-4)
        off = np.diagonal(returned.value) - (1 + law.weights) / 2
        assert np.all(abs(off) <= 2 * times.error + np.diagonal(returned.error)) and np.all(times.error < 5e-3)  # slopes are below 2


def test_two_classes_have_one_time_exactly() -> None:
    times = speciation_estimate(GROUPS, d=64)
    assert times.value[0] == times.value[1] and times.error.max() < 1e-10
    returned = return_probability(GROUPS, times.value[0], d=64)
    np.testing.assert_allclose(returned, (1 + GROUPS.weights) / 2, atol=1e-9)
    assert times.to_xarray().value.dims == ("class",)
    labelled = return_estimate(GROUPS, [0.5, 1.0], d=64).to_xarray()
    assert labelled.error.dims == ("time", "class") and labelled.value.shape == (2, 2)
    same = MixtureLaw([0.7, 0.3], [[1.0, 1.0], [2.0, 2.0]], [0.5, 0.5], np.zeros((2, 2)))
    assert np.isnan(speciation_times(same, d=64)).all()  # one law twice


def test_dimensions() -> None:
    """None is that of the matrices or 256; groups are shared among whole numbers of directions."""
    np.testing.assert_array_equal(return_probability(GROUPS, 1.0), return_probability(GROUPS, 1.0, d=DIMENSION))
    matrices = as_matrices(GROUPS, 8)
    np.testing.assert_array_equal(return_probability(matrices, 1.0), return_probability(matrices, 1.0, d=8))
    for function in (speciation_times, well_times, classical_time):
        with pytest.raises(InputError, match="^d: 10; allowed: 8, the dimension of the covariances"):
            function(matrices, d=10)
    for d in (1, 8.5):
        with pytest.raises(InputError, match=f"^d: {d}; allowed: a whole number >= 2"):
            speciation_times(GROUPS, d=d)


@pytest.mark.thorough
def test_wells_of_matrices_take_the_variance_along_the_axis() -> None:
    """Correlations across the axis change nothing; the classical time is that of the largest eigenvalue of the data."""
    d, axis = 12, np.eye(12)[0]
    centroids = np.outer([1.0, -1.0], axis) * math.sqrt(d)
    plain = np.stack([np.eye(d), np.eye(d)])
    changed = plain.copy()
    changed[1, 1:, 1:] += 0.5 * wishart(np.random.default_rng(0), 1, d - 1)[0]
    changed[0, 0, 0], changed[1, 0, 0] = 1.3, 0.6
    law = MixtureLaw.from_covariances([0.7, 0.3], changed, centroids)
    gram = centroids @ centroids.T / d
    np.testing.assert_allclose(well_times(law), well_times(MixtureLaw.isotropic([0.7, 0.3], [1.3, 0.6], gram), d=d), rtol=1e-9)
    off = well_times(MixtureLaw.isotropic([0.7, 0.3], law.variances, gram), d=d)
    rejects(lambda: np.testing.assert_allclose(well_times(law), off, rtol=1e-3))
    shift = centroids - law.weights @ centroids
    whole = np.einsum("k,kab->ab", law.weights, changed) + np.einsum("k,ka,kb->ab", law.weights, shift, shift)
    assert classical_time(law) == pytest.approx(math.log(np.linalg.eigvalsh(whole)[-1]) / 2)


@pytest.mark.parametrize("tolerance", [0.0, 1e-6, 0.5, math.nan])
def test_bad_tolerances(tolerance: float) -> None:
    with pytest.raises(InputError, match="^tolerance: .*; allowed: a number from 1e-05 to 0.1"):
        return_estimate(GROUPS, 1.0, tolerance=tolerance)


def test_bad_times() -> None:
    with pytest.raises(InputError, match="^times: .*; allowed: diffusion times > 0"):
        return_estimate(GROUPS, [1.0, 0.0])
    assert module.TOLERANCE == 1e-3
