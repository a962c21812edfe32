"""Which images a run takes: disjoint, nested, normalised as stated, and described by the numbers of the theory."""

import dataclasses
import functools

import numpy as np
import pytest

from rfdiff.cli import images_actions
from rfdiff.images.protocol import ImageSet, Protocol, fitted_law, imbalanced, law_numbers, pooled, prepare
from rfdiff.mixture import MixtureLaw
from tests.images.toy import PROTOCOL, toy_data, toy_images
from tests.tolerances import rejects


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_held_out_images_are_disjoint_and_stay_when_counts_change() -> None:
    images = toy_images()
    assert images.train.shape == (48, 7, 7) and images.train.dtype == np.float32 and images.held_out.shape == (2, 16, 7, 7)
    assert not rows(images.train) & rows(images.held_out.reshape(-1, 7, 7))
    more = prepare(toy_data(), dataclasses.replace(PROTOCOL, counts=(40, 30)))
    np.testing.assert_array_equal(more.held_out, images.held_out)
    np.testing.assert_array_equal(more.train[:24], images.train[:24])
    np.testing.assert_array_equal(more.train[40:64], images.train[24:])
    other = prepare(toy_data(), dataclasses.replace(PROTOCOL, split_seed=1))
    assert not np.array_equal(other.train, images.train)
    assert other.shift == images.shift and other.scale == images.scale


def test_pixels_are_normalised_as_stated() -> None:
    data, protocol = toy_data(), Protocol(classes=(1, 0), counts=(44, 44), held_out=16, side=14)
    images = prepare(data, protocol)
    x = [images.normalized(data.train_images[data.train_labels == c], k).astype(np.float64) for k, c in enumerate(protocol.classes)]
    assert abs(np.concatenate(x).mean()) < 1e-6
    assert np.mean([own.var(0).mean() for own in x]) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(images.labels, np.repeat([0, 1], 44))
    raw = pooled(data.train_images[:3], 14)
    np.testing.assert_allclose(raw[1, 2, 5], data.train_images[1, 4:6, 10:12].mean() / 255, rtol=1e-12)
    np.testing.assert_allclose(images.grey(images.normalized(data.train_images[:3], None)), raw, atol=1e-6)


def variance_ratio(images: ImageSet, before: ImageSet) -> np.ndarray:
    return np.stack([images.held_out[k].var(0).mean() / before.held_out[k].var(0).mean() for k in range(2)])


def test_rescaling_multiplies_the_variance_about_the_mean_alone() -> None:
    before, after = toy_images(), prepare(toy_data(), dataclasses.replace(PROTOCOL, rescale=(4.0, 1.0)))
    np.testing.assert_allclose(variance_ratio(after, before), [4, 1], rtol=1e-5)
    np.testing.assert_array_equal(after.means, before.means)
    np.testing.assert_array_equal(after.train[24:], before.train[24:])
    expected = before.means[0] + 2 * (before.train[:24] - before.means[0])
    close = functools.partial(np.testing.assert_allclose, after.train[:24], atol=1e-5)
    close(expected)
    rejects(lambda: close(2 * before.train[:24]))  # the whole image multiplied, its mean with it


def test_numbers_are_those_of_the_fitted_law() -> None:
    images = toy_images()
    law = fitted_law(images)
    direct = MixtureLaw.fit(images.train.reshape(48, 49), images.labels)
    found = law_numbers(law)
    np.testing.assert_array_equal(found["variance"], direct.variances)
    means = np.stack([images.train[images.labels == k].reshape(24, 49).mean(0, dtype=np.float64) for k in range(2)])
    np.testing.assert_allclose(found["centroid_norm"], (means**2).sum(1) / 49, rtol=1e-6)
    cosine = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    np.testing.assert_allclose(found["angle"], np.degrees(np.arccos(cosine)) * (1 - np.eye(2)), rtol=1e-6)
    own = [images.train[images.labels == k].astype(np.float64).var(0).mean() for k in range(2)]
    np.testing.assert_allclose(found["variance"], own, rtol=1e-5)  # shrinkage leaves the trace
    table, pixels = images_actions.law_table(images, law)
    text = "\n".join([*table.lines(), pixels])
    assert "Trouser" in text and f"{found['variance'][0]:.4g}" in text and "grey/255" in text


def test_imbalance_is_a_shorthand_for_counts() -> None:
    assert imbalanced(1000, 4.0) == (800, 200) and imbalanced(1000, 0.25) == (200, 800)
    assert imbalanced(1000, 7.0, 4) == (700, 100, 100, 100) and sum(imbalanced(997, 3.3, 3)) == 997
    with pytest.raises(ValueError, match=r"^imbalance: 0.*; allowed: a finite number > 0"):
        imbalanced(100, 0.0)
    with pytest.raises(ValueError, match=r"^imbalance: 200 of 100 images leaves 0 in a class; allowed: at least 2"):
        imbalanced(100, 200.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": (1, 10)}, "classes: .*allowed: distinct integers 0 to 9"),
        ({"classes": (1, 1)}, "classes: .*repeats a class"),
        ({"classes": ()}, "classes: "),
        ({"counts": (5,)}, "counts: .*allowed: 2 integers >= 2"),
        ({"counts": (5, 1)}, "counts: "),
        ({"held_out": 1}, "held_out: 1; allowed: an integer >= 2"),
        ({"side": 13}, "side: 13; allowed: 28, 14, 7"),
        ({"split_seed": -1}, "split_seed: -1"),
        ({"rescale": (1.0,)}, "rescale: .*allowed: 2 finite numbers > 0"),
        ({"rescale": (1.0, 0.0)}, "rescale: "),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(PROTOCOL, **change)  # type: ignore[arg-type]


def test_counts_above_what_is_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^counts: 45 images of class 0 and 16 held out; allowed: 60 in all, so at most 44 to train on"):
        prepare(toy_data(), dataclasses.replace(PROTOCOL, counts=(10, 45)))
