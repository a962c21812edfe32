"""Wells of the potential: counted on a fine grid, the classical limit, derivatives."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.backward import potential, potential_times, well_times
from rfdiff.mixture import MixtureLaw
from tests.tolerances import rejects

MIRROR = np.array([[1.0, -1.0], [-1.0, 1.0]])


def at(weights: Any, gram: Any, variances: Any, d: float) -> np.ndarray:
    return well_times(MixtureLaw.isotropic(weights, variances, gram), d=d)


def count_wells(t: float, weights: Any, gram: np.ndarray, variances: Any, d: float) -> int:
    """Local minima of 𝒰_t between -40 and 40, from its values alone on a fine grid, in numpy."""
    q = np.linspace(-40, 40, 400_001)
    distance = math.sqrt(d * (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]))
    density = np.zeros_like(q)
    logs = []
    for c in range(len(weights)):
        gamma = math.exp(-2 * t) * variances[c] - math.expm1(-2 * t)
        place = math.exp(-t) * d * (gram[c, 0] - gram[c, 1]) / distance
        logs.append(math.log(weights[c]) - (q - place) ** 2 / (2 * gamma) - math.log(gamma) / 2)
    density = np.logaddexp.reduce(logs)
    energy = -(q**2) / 2 - 2 * density
    return int(np.sum((energy[1:-1] < energy[:-2]) & (energy[1:-1] < energy[2:])))


def test_balanced_classes_split_at_the_classical_time() -> None:
    """e^{-2t} ‖μ_1 - μ_2‖²/4 = ½ with ‖μ_1 - μ_2‖² = 4d: both wells appear at ½ log 2d, for all d in one mapped call."""
    d = np.array([50.0, 400.0, 1e6])
    balanced = MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0], MIRROR)
    with jax.enable_x64(True):
        times = np.asarray(jax.jit(jax.vmap(lambda d: well_times(balanced, d=d)))(d))
    split = np.log(2 * d)[:, None, None] / 2
    expected = np.where(np.eye(2, dtype=bool), np.nan, split)
    np.testing.assert_allclose(times, expected, rtol=1e-9)
    rejects(lambda: np.testing.assert_allclose(times, expected + 0.5 * math.log(2), rtol=1e-9))


@pytest.mark.parametrize(
    ("weights", "variances", "gram"),
    [
        ([0.6, 0.4], [1.0, 1.0], MIRROR),
        ([0.999, 0.001], [1.0, 1.0], MIRROR),
        ([0.3, 0.7], [1.4, 0.6], np.array([[0.5, 0.1], [0.1, 1.0]])),
    ],
)
def test_a_second_well_appears_at_that_time(weights: Any, variances: Any, gram: np.ndarray) -> None:
    times = at(weights, gram, variances, 100.0)
    (new,) = times[np.isfinite(times)]
    assert np.sum(np.isinf(times)) == 1  # the other well was always there
    assert np.isfinite(times[np.argmin(weights)]).any()
    assert count_wells(new + 1e-4, weights, gram, variances, 100.0) == 1
    assert count_wells(new - 1e-4, weights, gram, variances, 100.0) == 2


def test_rarer_classes_get_their_well_later_and_wells_follow_half_log_d() -> None:
    rare = [at([1 - w, w], MIRROR, [1.0, 1.0], 400.0)[1, 0] for w in (0.49, 0.1, 0.01, 1e-3)]
    assert np.all(np.diff(rare) < -0.05)
    large = [at([0.9, 0.1], MIRROR, [1.5, 0.5], d)[1, 0] for d in (1e6, 1e8)]
    assert large[1] - large[0] == pytest.approx(math.log(100) / 2, abs=1e-5)


def test_no_wells() -> None:
    assert np.all(np.isnan(at([0.7, 0.3], 0 * MIRROR, [1.5, 0.5], 400.0)))  # one centroid
    assert np.all(np.isnan(at([0.7, 0.3], MIRROR * 1e-3, [1.0, 1.0], 10.0)))  # always one well


@pytest.mark.thorough
def test_three_classes() -> None:
    mixture = MixtureLaw.isotropic([0.6, 0.3, 0.1], [1.5, 0.5, 1.0], np.diag([1.0, 0.5, 2.0]))
    times, least = well_times(mixture, d=400), potential_times(mixture, d=400)
    assert least[0] == np.inf and np.all(np.isinf(times[0, 1:]))  # the majority
    np.testing.assert_allclose(least[1:], [times[1, 0], min(times[2, 0], times[2, 1])])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("weights", "line", "appear"),
    [
        ([0.1, 0.8, 0.1], [-1.0, 0.0, 1.3], [2, 0]),  # both rare classes beside the one in the middle
        ([0.3, 0.4, 0.3], [-1.0, 0.2, 1.0], [0, 1]),  # the one in the middle comes out of its neighbour's well
        ([0.45, 0.1, 0.45], [-1.0, 0.0, 1.0], [0, 1]),  # a split, class 2 with class 0, then one in the middle of it
    ],
)
def test_three_classes_on_a_line(weights: list[float], line: list[float], appear: list[int]) -> None:
    """A third class on the axis of two: its well is not taken for theirs."""
    places = np.array(line) - np.dot(weights, line)
    gram, variances = np.outer(places, places), np.ones(3)
    found = potential_times(MixtureLaw.isotropic(weights, variances, gram), d=400)
    for count, c in enumerate(appear):
        assert count_wells(found[c] + 1e-3, weights, gram, variances, 400.0) == count + 1
        assert count_wells(found[c] - 1e-3, weights, gram, variances, 400.0) == count + 2
    others = np.delete(found, appear)
    assert np.all(np.isinf(others) | np.isclose(others, found[appear[0]]))


@pytest.mark.thorough
def test_derivatives() -> None:
    """Saddle-node: along a random direction, against central differences. Split of balanced classes: d t/d d = 1/(2d)."""
    rng = np.random.default_rng(0)
    point: tuple[Any, ...] = (np.array([0.9, 0.1]), MIRROR, np.array([1.2, 0.7]), np.asarray(400.0))
    change: tuple[Any, ...] = rng.normal(size=2) * 0.1, np.diag(rng.normal(size=2) * 0.1), rng.normal(size=2) * 0.1, np.asarray(5.0)
    h = 1e-4

    def times(weights: Any, gram: Any, variances: Any, d: Any) -> Any:
        return well_times(MixtureLaw(weights, variances[None], np.ones(1), gram), d=d)

    with jax.enable_x64(True):
        compiled, slope = jax.jit(times), jax.jit(lambda p, w: jax.jvp(times, p, w)[1])
        up, down = (float(compiled(*(v + s * h * w for v, w in zip(point, change, strict=True)))[1, 0]) for s in (1, -1))
        found = float(slope(point, change)[1, 0])
        balanced = (np.array([0.5, 0.5]), MIRROR, np.ones(2), np.asarray(400.0))
        still = (np.zeros(2), np.zeros((2, 2)), np.zeros(2), np.asarray(1.0))
        split = np.asarray(slope(balanced, still))
    assert found == pytest.approx((up - down) / (2 * h), rel=1e-6)
    np.testing.assert_allclose(split[[0, 1], [1, 0]], 1 / 800, rtol=1e-6)


@pytest.mark.thorough
def test_slope_is_the_derivative_of_the_potential() -> None:
    weights, places, variances = np.array([0.7, 0.3]), np.array([2.0, -1.0]), np.array([1.5, 0.4])

    def energy(q: Any) -> Any:
        gamma = jnp.exp(-1.0) * variances - jnp.expm1(-1.0)
        logs = jnp.log(weights) - (q - jnp.exp(-0.5) * places) ** 2 / (2 * gamma) - jnp.log(gamma) / 2
        return -(q**2) / 2 - 2 * jax.scipy.special.logsumexp(logs)

    with jax.enable_x64(True):
        axis = potential.Axis(*map(jnp.asarray, (weights, places, variances)))
        for q in (-1.0, 0.2, 3.0):
            found = potential.slope(jnp.asarray(q), jnp.asarray(0.5), axis)
            assert float(found) == pytest.approx(float(jax.grad(energy)(q)), rel=1e-12)
