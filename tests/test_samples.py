"""Data sets: what they hold, and every refusal."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.samples import Samples

X = np.arange(12.0).reshape(4, 3)


def test_what_a_data_set_says_of_itself() -> None:
    data = Samples(X.astype(np.float32), [1, 0, 1, 1], held_out=np.int64(7))
    assert (data.num_classes, data.dimension, data.counts, data.held_out) == (2, 3, (1, 3), 7)
    assert data.samples.dtype == np.float64 and data.labels.dtype == np.int64
    np.testing.assert_array_equal(data.samples, X)


def test_it_keeps_a_copy() -> None:
    x = X.copy()
    data = Samples(x, [0, 0, 1, 1])
    x[0, 0] = 99.0
    assert data.samples[0, 0] == 0.0


@pytest.mark.parametrize(
    ("samples", "labels", "held_out", "message"),
    [
        (X[0], [0], 1, r"samples: shape \(3,\); allowed: \(N, d\)"),
        (X[:0], [], 1, r"samples: shape \(0, 3\); allowed: \(N, d\)"),
        (X.reshape(2, 2, 3), [0, 1], 1, r"samples: shape \(2, 2, 3\); .*flatten images first"),
        ([["a", "b"]], [0], 1, r"samples: .*is not an array of numbers"),
        (np.where(X == 7, np.nan, X), [0, 0, 1, 1], 1, r"samples: row 2 is not finite"),
        (X, [0, 1], 1, r"labels: shape \(2,\); allowed: \(4,\), one for each sample"),
        (X, [0.0, np.nan, 1.0, 1.0], 1, r"labels: entry 1 is not a number"),
        (X, np.array([0, "a", 1, 1], object), 1, r"labels: cannot be put in order"),
        (X, [0, 0, 1, 1], 0, r"held_out: 0; allowed: an integer >= 1"),
        (X, [0, 0, 1, 1], 2.5, r"held_out: 2.5; allowed: an integer >= 1"),
        (X, [0, 0, 1, 1], True, r"held_out: True; allowed: an integer >= 1"),
    ],
)
def test_refusals(samples: Any, labels: Any, held_out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(samples, labels, held_out)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([1, 0, 1, 1], [1, 0, 1, 1], ("0", "1")),
        ([0, 0, 2, 2], [0, 0, 1, 1], ("0", "2")),
        ([-1, 0, 1, 1], [0, 1, 2, 2], ("-1", "0", "1")),
        (["shirt", "bag", "bag", "shirt"], [1, 0, 0, 1], ("bag", "shirt")),
        ([0.5, 0.5, 1.5, 1.5], [0, 0, 1, 1], ("0.5", "1.5")),
    ],
)
def test_any_labels_are_taken_as_the_fitted_law_takes_them(labels: Any, numbers: list[int], names: tuple[str, ...]) -> None:
    data = Samples(X, labels)
    assert data.labels.tolist() == numbers and data.class_names == names and data.num_classes == len(names)
    counts = np.bincount(numbers)
    if counts.min() >= 2:
        law = MixtureLaw.fit(X**2, labels)
        assert law.class_names == names and law.num_classes == data.num_classes
    again = dataclasses.replace(data, held_out=3)
    assert again.class_names == names and again.labels.tolist() == numbers


def test_names_that_do_not_fit_are_refused() -> None:
    for names in (("a",), ("a", "a"), ("a", 1)):
        with pytest.raises(InputError, match="^class_names: .*; allowed: 2 different names, one for each class"):
            Samples(X, [0, 0, 1, 1], class_names=names)  # type: ignore[arg-type]
    assert Samples(X, [0, 0, 1, 1], class_names=("bag", "shirt")).class_names == ("bag", "shirt")
