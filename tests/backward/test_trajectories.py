"""U-turns, clones and committor against the closed form and the posterior, full and reduced."""

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.backward import BackwardProcess, clones, committor, crossing, process, return_probability, samplers, uturn
from rfdiff.backward.process import proportion_error
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from rfdiff.noised_mixture import NoisedMixture
from tests.tolerances import assert_within, rejects

pytestmark = pytest.mark.usefixtures("full_optimisation")

MIRROR = np.array([[1.0, -1.0], [-1.0, 1.0]])
ALLOWANCE = 3e-3  # of 96 steps
KEY = jax.random.key(0)


def law(weights: Any, variances: Any, gram: Any = MIRROR) -> MixtureLaw:
    return MixtureLaw.isotropic(weights, variances, gram)


def realised(mixture: MixtureLaw, d: int) -> GaussianMixture:
    return GaussianMixture.from_law(mixture, d, jax.random.key(0))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("weights", "variances", "gram", "times"),
    [([0.5, 0.5], [1.0, 1.0], MIRROR, [4.2, 4.7, 5.2]), ([0.999, 0.001], [1.0, 0.6], MIRROR / 16, [2.6, 2.8, 3.0])],
    ids=["balanced", "strongly unbalanced"],
)
def test_uturns_at_d_16384_lie_on_the_theory(weights: Any, variances: Any, gram: np.ndarray, times: Any) -> None:
    d, mixture = 16_384, law(weights, variances, gram)
    measured = uturn(BackwardProcess(realised(mixture, d), num_steps=96), times, key=jax.random.key(1), num_trajectories=2000)
    predicted = return_probability(mixture, times, d=d)
    assert_within(measured.fraction, measured.stderr, predicted, ALLOWANCE)
    assert_within(measured.posterior, measured.stderr, predicted, ALLOWANCE)
    later = return_probability(mixture, np.array(times) + 0.3, d=d)
    rejects(lambda: assert_within(measured.fraction, measured.stderr, later, ALLOWANCE))
    other = return_probability(law([0.7, 0.3], variances, gram), times, d=d)
    rejects(lambda: assert_within(measured.fraction, measured.stderr, other, ALLOWANCE))


@pytest.fixture(scope="module")
def small() -> GaussianMixture:
    return realised(law([0.7, 0.3], [1.2, 0.6], 0.3 * MIRROR), 24)


@pytest.mark.thorough
def test_full_and_reduced_uturns_agree_and_a_wrong_score_does_not(small: GaussianMixture) -> None:
    times, key = [0.8, 1.4], jax.random.key(2)
    few = uturn(BackwardProcess(small, num_steps=96), times, key=key, num_trajectories=2000)
    full = uturn(BackwardProcess(small, num_steps=96, full=True), times, key=key, num_trajectories=2000)
    both = np.hypot(few.stderr, full.stderr)
    assert_within(full.fraction, both, few.fraction, ALLOWANCE)
    assert_within(full.fraction, full.stderr, full.posterior, ALLOWANCE)
    assert np.all(full.systematic == 0) and np.all(full.error == full.stderr)
    wrong = jax.tree_util.Partial(NoisedMixture.score, NoisedMixture(small.weights[::-1], small.means, small.variances))
    other = uturn(BackwardProcess(small, score=wrong, num_steps=96), times, key=key, num_trajectories=2000)
    rejects(lambda: assert_within(other.fraction, other.stderr, full.posterior, ALLOWANCE))
    assert other.systematic.max() > 0.05  # the measurement says so itself


@pytest.mark.thorough
def test_steps_that_are_too_long_are_part_of_the_error() -> None:
    """Classes told apart by their norm: 16 steps are many standard errors off, which the measurement notices from its own states."""
    mixture = law([0.7, 0.3], [1.5, 0.5], 0 * MIRROR)
    d, times = 1024, [1.0, 1.5, 2.0]
    coarse, fine = (
        uturn(BackwardProcess(realised(mixture, d), num_steps=n), times, key=jax.random.key(7), num_trajectories=1000) for n in (16, 160)
    )
    predicted = return_probability(mixture, times, d=d)
    rejects(lambda: assert_within(coarse.fraction, coarse.stderr, predicted, ALLOWANCE))
    assert_within(coarse.fraction, coarse.error, predicted, ALLOWANCE, k=5, max_stderr=1.0)
    assert np.max(np.abs(coarse.fraction - predicted) / coarse.stderr) > 8
    assert_within(fine.fraction, fine.stderr, predicted, 0.01)
    assert np.all(fine.systematic < 0.03)


@pytest.mark.thorough
def test_clones_agree_as_the_theory_says() -> None:
    """Pairs in one class: Σ π_c R_c; class by class: R_c. Copies made at the start are independent, copies made late never part."""
    d, mixture = 1024, law([0.8, 0.2], [1.0, 0.7])
    told: list[tuple[int, int]] = []
    found = clones(
        BackwardProcess(realised(mixture, d), num_steps=96), 9.0, key=jax.random.key(3), num_trajectories=4000, num_times=6,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    predicted = return_probability(mixture, found.times, d=d)
    assert found.times.shape == (6,) and found.times[0] == 9.0
    assert_within(found.same, found.same_stderr, predicted @ mixture.weights, ALLOWANCE)
    assert_within(found.fraction, found.stderr, predicted, ALLOWANCE, max_stderr=0.06)
    rejects(lambda: assert_within(found.same, found.same_stderr, predicted @ [0.5, 0.5], ALLOWANCE))
    assert found.same[-1] == 1.0 and 0.6 < found.same[0] < 0.75
    assert told[-1] == (27 * 4000, 27 * 4000) and all(a <= b for (a, _), (b, _) in itertools.pairwise(told))


@pytest.mark.thorough
def test_committor_along_a_path_is_the_posterior(small: GaussianMixture) -> None:
    denoiser = BackwardProcess(small, num_steps=96)
    path = denoiser.draw(jax.random.key(4), np.repeat([0, 1], 5), 1.6)
    for i, (t, t_next) in enumerate(((1.6, 1.1), (1.1, 0.8))):
        share, stderr = committor(denoiser, path, t, key=jax.random.fold_in(jax.random.key(5), i), copies=400)
        assert share.shape == (10, 2)
        np.testing.assert_allclose(share.sum(axis=1), 1)
        posterior = denoiser.posterior(path, t)
        assert_within(share, stderr, posterior, 0.01)
        with pytest.raises(AssertionError, match="deviate"):
            assert_within(share, stderr, posterior[::-1], 0.01)
        path = denoiser.run(np.repeat(path, 400, axis=0), np.linspace(t, t_next, 97), jax.random.key(6))[0][::400]


@pytest.mark.thorough
def test_states_do_not_depend_on_the_chunks_and_have_to_fit(small: GaussianMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1], 600)
    whole = process.draw_states(small.noised, jax.random.key(0), labels, 1.0)
    monkeypatch.setattr(samplers, "CHUNK_BYTES", 500 * 24 * 4 * process.ARRAYS)
    np.testing.assert_allclose(process.draw_states(small.noised, jax.random.key(0), labels, 1.0), whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(samplers, "available_bytes", lambda: 10_000)
    with pytest.raises(InputError, match="^d: 40 trajectories in 24 dimensions need about .* GiB of .* GiB; allowed: about"):
        uturn(BackwardProcess(small, full=True), [1.0], key=jax.random.key(0), num_trajectories=20)


def test_proportion_errors_are_never_zero() -> None:
    edge = math.sqrt(0.005 * 0.995 / 100)
    np.testing.assert_allclose(proportion_error([0.0, 0.5, 1.0], 100), [edge, 0.05, edge])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda d: uturn(d, [0.01], key=KEY), "^times: .*each above t_end = 0.02"),
        (lambda d: uturn(d, [], key=KEY), "^times: .*at least one"),
        (lambda d: uturn(d, [math.inf], key=KEY), "^times: .*finite"),
        (lambda d: uturn(d, [1.0], key=KEY, num_trajectories=1), "^num_trajectories: 1; allowed: an integer >= 2"),
        (lambda d: committor(d, np.zeros((1, 3)), 1.0, key=KEY, copies=0), "^copies: 0"),
        (lambda d: clones(d, 0.01, key=KEY), "^t_start: 0.01; allowed: 0.02 < t_start"),
        (lambda d: clones(d, 5.0, key=KEY, num_times=7), "^num_times: 7; allowed: a divisor of the 96 steps"),
    ],
)
def test_bad_input(small: GaussianMixture, act: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        act(BackwardProcess(small, num_steps=96))


def test_bad_processes(small: GaussianMixture) -> None:
    with pytest.raises(InputError, match="^num_steps: 0; allowed: an integer >= 1"):
        BackwardProcess(small, num_steps=0)
    with pytest.raises(InputError, match="a single class has no speciation"):
        BackwardProcess(GaussianMixture(np.ones(1), np.zeros((1, 4)), np.ones((1, 4))))
    assert BackwardProcess(small, num_steps=np.int64(5)).num_steps == 5


def test_crossing() -> None:
    times, share, error = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.6, 0.2]), np.full(3, 0.02)
    found = crossing(times, share, error, 0.5)
    assert found.time == pytest.approx(2.25) and found.error == pytest.approx(0.05 * np.hypot(0.75, 0.25))
    assert np.isnan(crossing(times, share, error, 0.1)).all()
