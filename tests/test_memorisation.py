"""The criterion of memorised samples and the bootstrap interval of their fraction."""

import numpy as np
import pytest

from rfdiff import memorisation
from rfdiff.errors import InputError
from rfdiff.memorisation import memorised_fraction, near_training
from tests.tolerances import rejects


def test_a_copy_is_a_sample_much_nearer_to_one_training_sample_than_to_all_others() -> None:
    rng = np.random.default_rng(0)
    training = rng.standard_normal((30, 5, 5))
    fresh = rng.standard_normal((40, 5, 5))
    copies = training[[3, 7]] + 0.01 * rng.standard_normal((2, 5, 5))
    memorised, nearest = near_training(np.concatenate([fresh, copies]), training)
    assert not memorised[:40].any() and memorised[40:].all() and nearest[40:].tolist() == [3, 7]
    assert near_training(fresh, training, threshold=1.0).memorised.all()
    exact = np.sort(np.linalg.norm(fresh[:, None] - training[None], axis=(2, 3)), axis=1)
    for threshold in (0.3, 0.9, 0.97):
        expected = exact[:, 0] < threshold * exact[:, 1]
        np.testing.assert_array_equal(near_training(fresh, training, threshold=threshold).memorised, expected)
    assert 0 < expected.sum() < 40


def test_the_ratio_is_that_of_distances() -> None:
    point = np.zeros((1, 1))
    assert not near_training(point, np.array([[1.0], [-2.9]])).memorised[0]
    assert near_training(point, np.array([[1.0], [-3.1]])).memorised[0]  # of squared distances it would be so in both


def test_samples_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    samples, training = rng.standard_normal((50, 3)), rng.standard_normal((20, 3))
    whole = near_training(samples, training, threshold=0.8)
    monkeypatch.setattr(memorisation, "BLOCK_BYTES", 7 * 8 * 20)
    for one, other in zip(near_training(samples, training, threshold=0.8), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_refusals() -> None:
    samples = np.zeros((3, 2))
    for threshold in (0, 1.5, np.nan):
        with pytest.raises(InputError, match="^threshold: .*; allowed: 0 < threshold <= 1"):
            near_training(samples, samples, threshold=threshold)
    with pytest.raises(InputError, match="^training: 1 samples; allowed: at least 2"):
        near_training(samples, samples[:1])


def test_the_interval_covers_and_knows_its_limits() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(100):
        _, low, high = memorised_fraction([200, 200], rng.binomial(200, 0.3, 2), seed=seed, resamples=300)
        inside += int(low <= 0.3 <= high)
    assert 75 <= inside <= 100  # two networks: the percentile interval is somewhat short
    none, every = memorised_fraction([50], [0]), memorised_fraction([50], [50])
    assert none.fraction == none.lower == 0 and 0.05 < none.upper < 0.08
    assert every.fraction == every.upper == 1 and 0.92 < every.lower < 0.95
    assert np.isnan(memorised_fraction([0, 0], [0, 0])).all()


def test_the_interval_of_one_network_is_that_of_resampling_its_samples() -> None:
    rng = np.random.default_rng(0)
    hits = np.repeat([True, False], [30, 70])
    drawn = np.quantile([rng.choice(hits, 100).mean() for _ in range(4000)], [0.025, 0.975])
    np.testing.assert_allclose(memorised_fraction([100], [30])[1:], drawn, atol=0.02)
    rejects(lambda: np.testing.assert_allclose(memorised_fraction([400], [120])[1:], drawn, atol=0.02))


def test_networks_that_differ_widen_the_interval() -> None:
    alike, apart = memorised_fraction([100, 100], [50, 50]), memorised_fraction([100, 100], [90, 10])
    assert alike.fraction == apart.fraction == 0.5
    assert apart.upper - apart.lower > 2 * (alike.upper - alike.lower)
