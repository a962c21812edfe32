"""U-turns, clones and committor against the closed form and the posterior, full and reduced."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.backward import Denoiser, ReturnFractions, clones, committor, decisions, return_probability, samplers, uturn
from rfdiff.backward.decisions import proportion_error
from rfdiff.mixture import GaussianMixture, MixtureLaw
from rfdiff.noised_mixture import NoisedMixture
from tests.tolerances import assert_within, rejects

MIRROR = np.array([[1.0, -1.0], [-1.0, 1.0]])
ALLOWANCE = 3e-3  # of 96 steps


def law(weights: Any, variances: Any, gram: Any = MIRROR) -> MixtureLaw:
    return MixtureLaw.isotropic(weights, variances, gram)


def realised(mixture: MixtureLaw, d: int) -> GaussianMixture:
    return GaussianMixture.from_law(mixture, d, jax.random.key(0))


def theory(mixture: MixtureLaw, d: int, times: Any) -> np.ndarray:
    with jax.enable_x64(True):
        mapped = jax.vmap(return_probability, (None, None, None, None, 0))
        return np.asarray(jax.jit(mapped)(mixture.weights, mixture.centroid_gram, mixture.variances, float(d), jnp.asarray(times)))


@pytest.mark.parametrize(
    ("weights", "variances", "gram", "times"),
    [([0.5, 0.5], [1.0, 1.0], MIRROR, [4.2, 4.7, 5.2]), ([0.999, 0.001], [1.0, 0.6], MIRROR / 16, [2.6, 2.8, 3.0])],
    ids=["balanced", "strongly unbalanced"],
)
def test_uturns_at_d_16384_lie_on_the_theory(weights: Any, variances: Any, gram: np.ndarray, times: Any) -> None:
    d, mixture = 16_384, law(weights, variances, gram)
    measured = uturn(Denoiser(realised(mixture, d), num_steps=96), times, jax.random.key(1), 2000)
    predicted = theory(mixture, d, times)
    assert_within(measured.fraction, measured.stderr, predicted, ALLOWANCE)
    assert measured.bayes is not None
    assert_within(measured.bayes, measured.stderr, predicted, ALLOWANCE)
    rejects(lambda: assert_within(measured.fraction, measured.stderr, theory(mixture, d, np.array(times) + 0.3), ALLOWANCE))
    other = law([0.7, 0.3], variances, gram)
    rejects(lambda: assert_within(measured.fraction, measured.stderr, theory(other, d, times), ALLOWANCE))


@pytest.fixture(scope="module")
def small() -> GaussianMixture:
    return realised(law([0.7, 0.3], [1.2, 0.6], 0.3 * MIRROR), 24)


def test_full_and_reduced_uturns_agree_and_a_wrong_score_does_not(small: GaussianMixture) -> None:
    times, key = [0.8, 1.4], jax.random.key(2)
    few = uturn(Denoiser(small, num_steps=96), times, key, 2000)
    full = uturn(Denoiser(small, num_steps=96, full=True), times, key, 2000)
    both = np.hypot(few.stderr, full.stderr)
    assert_within(full.fraction, both, few.fraction, ALLOWANCE)
    bayes = np.asarray(full.bayes)
    assert_within(full.fraction, full.stderr, bayes, ALLOWANCE)
    wrong = jax.tree_util.Partial(NoisedMixture.score, NoisedMixture(small.weights[::-1], small.means, small.variances))
    other = uturn(Denoiser(small, score=wrong, num_steps=96), times, key, 2000)
    rejects(lambda: assert_within(other.fraction, other.stderr, bayes, ALLOWANCE))


def test_clones_agree_as_the_theory_says() -> None:
    """Pairs in one class: Σ π_c R_c; class by class: R_c. Copies made at the start are independent, copies made late never part."""
    d, mixture = 1024, law([0.8, 0.2], [1.0, 0.7])
    found, same, stderr = clones(Denoiser(realised(mixture, d), num_steps=96), 9.0, jax.random.key(3), 4000, branches=6, label="clones")
    predicted = theory(mixture, d, found.times)
    assert found.times.shape == (6,) and found.times[0] == 9.0
    assert_within(same, stderr, predicted @ mixture.weights, ALLOWANCE)
    assert_within(found.fraction, found.stderr, predicted, ALLOWANCE, max_stderr=0.06)
    rejects(lambda: assert_within(same, stderr, predicted @ [0.5, 0.5], ALLOWANCE))
    assert same[-1] == 1.0 and 0.6 < same[0] < 0.75


def test_committor_along_a_path_is_the_posterior(small: GaussianMixture) -> None:
    denoiser = Denoiser(small, num_steps=96)
    path = denoiser.draw(jax.random.key(4), np.repeat([0, 1], 5), 1.6)
    for i, (t, t_next) in enumerate(((1.6, 1.1), (1.1, 0.8))):
        share, stderr = committor(denoiser, path, t, jax.random.fold_in(jax.random.key(5), i), copies=400)
        assert share.shape == (10, 2)
        np.testing.assert_allclose(share.sum(axis=1), 1)
        posterior = denoiser.posterior(path, t)
        assert_within(share, stderr, posterior, 0.01)
        with pytest.raises(AssertionError, match="deviate"):
            assert_within(share, stderr, posterior[::-1], 0.01)
        path = denoiser.run(np.repeat(path, 400, axis=0), np.linspace(t, t_next, 97), jax.random.key(6))[0][::400]


def test_states_do_not_depend_on_the_chunks_and_have_to_fit(small: GaussianMixture, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat([0, 1], 600)
    whole = decisions.draw_states(small.noised, jax.random.key(0), labels, 1.0)
    monkeypatch.setattr(samplers, "CHUNK_BYTES", 500 * 24 * 4 * decisions.ARRAYS)
    np.testing.assert_allclose(decisions.draw_states(small.noised, jax.random.key(0), labels, 1.0), whole, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(samplers, "available_bytes", lambda: 10_000)
    with pytest.raises(ValueError, match="^d: 40 trajectories in 24 dimensions need about .* GiB of .* GiB; allowed: about"):
        uturn(Denoiser(small, full=True), [1.0], jax.random.key(0), 20)


def test_proportion_errors_are_never_zero() -> None:
    edge = math.sqrt(0.005 * 0.995 / 100)
    np.testing.assert_allclose(proportion_error([0.0, 0.5, 1.0], 100), [edge, 0.05, edge])


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda d: uturn(d, [0.01], jax.random.key(0)), "^times: .*each above t_end = 0.02"),
        (lambda d: uturn(d, [], jax.random.key(0)), "^times: .*at least one"),
        (lambda d: uturn(d, [math.inf], jax.random.key(0)), "^times: .*finite"),
        (lambda d: uturn(d, [1.0], jax.random.key(0), num=1), "^num: 1; allowed: an integer >= 2"),
        (lambda d: committor(d, np.zeros((1, 3)), 1.0, jax.random.key(0), copies=0), "^copies: 0"),
        (lambda d: clones(d, 0.01, jax.random.key(0)), "^t_start: 0.01; allowed: 0.02 < t_start"),
        (lambda d: clones(d, 5.0, jax.random.key(0), branches=7), "^branches: 7; allowed: a divisor of the 96 steps"),
    ],
)
def test_bad_input(small: GaussianMixture, act: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act(Denoiser(small, num_steps=96))


def test_bad_denoisers(small: GaussianMixture) -> None:
    with pytest.raises(ValueError, match="^num_steps: 0; allowed: an integer >= 1"):
        Denoiser(small, num_steps=0)
    with pytest.raises(ValueError, match="a single class has no speciation"):
        Denoiser(GaussianMixture(np.ones(1), np.zeros((1, 4)), np.ones((1, 4))))
    assert ReturnFractions(np.ones(1), np.ones((1, 2)), np.ones((1, 2))).bayes is None
