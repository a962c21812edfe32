import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import ACTIVATIONS
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.simulation.features import Sizes, clean_samples, feature_map, first_layer, floating_type, sizes_at


def test_sizes_are_the_rounded_ratios(case_a: Problem) -> None:
    sizes = sizes_at(dataclasses.replace(case_a, psi_p=1.26, psi_n=0.94), 10)
    assert (sizes.d, sizes.p, sizes.n, sizes.counts, sizes.draws) == (10, 13, 9, (6, 3), None)
    assert sizes.rank == 13


def test_rank_is_limited_by_the_noised_samples(case_a: Problem) -> None:
    assert sizes_at(dataclasses.replace(case_a, noise_draws=1), 10).rank == 30
    assert sizes_at(dataclasses.replace(case_a, noise_draws=2), 10).rank == 40


def test_every_class_has_a_sample() -> None:
    law = MixtureLaw.isotropic([0.98, 0.01, 0.01], [1.0, 1.0, 1.0])
    assert sizes_at(Problem(law, "tanh", 0.1, 1.0, 0.5), 8).counts == (2, 1, 1)


@pytest.mark.parametrize("d", [0, -3, 2.5, True, "8", math.nan, None])
def test_dimension_that_is_no_positive_integer(case_a: Problem, d: object) -> None:
    with pytest.raises(ValueError, match=r"d: .*allowed: an integer >= 1"):
        sizes_at(case_a, d)  # type: ignore[arg-type]


@pytest.mark.parametrize(("psi_p", "psi_n"), [(0.04, 3.0), (4.0, 0.1)])
def test_dimension_too_small(case_a: Problem, psi_p: float, psi_n: float) -> None:
    with pytest.raises(ValueError, match=r"d: 10 makes p = \d+ features and n = \d+ samples; allowed: .*d > "):
        sizes_at(dataclasses.replace(case_a, psi_p=psi_p, psi_n=psi_n), 10)


@pytest.mark.parametrize("dtype", ["float16", "int32", jnp.complex64, "no such type"])
def test_refused_floating_types(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"dtype: .*allowed: float32 or float64"):
        floating_type(dtype)


def test_floating_type_of_a_cpu_is_double() -> None:
    assert floating_type(None) == ("float64" if jax.default_backend() == "cpu" else "float32")
    assert floating_type(jnp.float32) == floating_type(np.dtype("float32")) == "float32"


def test_first_layer_is_the_same_network_in_both_precisions(case_a: Problem) -> None:
    sizes = sizes_at(dataclasses.replace(case_a, psi_p=40.0), 100)
    single = np.asarray(first_layer(jax.random.key(1), sizes, jnp.float32))
    with jax.enable_x64(True):
        double = np.asarray(first_layer(jax.random.key(1), sizes, jnp.float64))
    assert double.dtype == np.float64
    np.testing.assert_array_equal(double, single)
    # mean, variance and the spread of the row norms (kept, not normalised) of 400,000 standard normal numbers
    assert abs(single.mean()) < 4 / math.sqrt(4e5)
    assert abs(single.var() - 1) < 4 * math.sqrt(2 / 4e5)
    norms = (single**2).mean(axis=1)
    assert norms.var() == pytest.approx(2 / 100, rel=4 * math.sqrt(2 / 4000) + 0.02)


def test_feature_map_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    W, x = rng.standard_normal((3, 5)), rng.standard_normal((2, 4, 5))
    with jax.enable_x64(True):
        phi = np.asarray(feature_map(ACTIVATIONS["tanh"], jnp.asarray(W), jnp.asarray(x)))
    expected = np.array([[[math.tanh(sum(w * y) / math.sqrt(5)) for w in W] for y in row] for row in x])
    np.testing.assert_allclose(phi, expected, rtol=1e-13)


def test_clean_samples_follow_their_class() -> None:
    mixture = GaussianMixture(np.array([0.6, 0.4]), np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([[4.0, 0.25], [0.0, 1.0]]))
    sizes = Sizes(2, 3, (3000, 2000), None)
    with jax.enable_x64(True):
        x = np.asarray(clean_samples(jax.random.key(0), mixture, sizes, jnp.float64))
    for part, mean, variance in zip((x[:3000], x[3000:]), mixture.means, mixture.variances, strict=True):
        assert np.all(np.abs(part.mean(0) - mean) <= 4 * np.sqrt(variance / len(part)))
        assert np.all(np.abs(part.var(0) - variance) <= 4 * variance * math.sqrt(2 / len(part)))
    assert x.shape == (5000, 2) and x.dtype == np.float64
