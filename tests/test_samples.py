"""Data sets: what they hold, and every refusal."""

from typing import Any

import numpy as np
import pytest

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
        (X, [0, 1], 1, r"labels: shape \(2,\) of int64; allowed: \(4,\) integers"),
        (X, [0.0, 0.0, 1.0, 1.0], 1, r"labels: shape \(4,\) of float64; allowed: \(4,\) integers"),
        (X, [0, 0, 2, 2], 1, r"labels: \[0, 2\]; allowed: 0, 1, …, K-1, every class at least once"),
        (X, [1, 1, 2, 2], 1, r"labels: \[1, 2\]; allowed: 0, 1"),
        (X, [-1, 0, 1, 1], 1, r"labels: \[-1, 0, 1\]; allowed: 0, 1"),
        (X, [0, 0, 1, 1], 0, r"held_out: 0; allowed: an integer >= 1"),
        (X, [0, 0, 1, 1], 2.5, r"held_out: 2.5; allowed: an integer >= 1"),
        (X, [0, 0, 1, 1], True, r"held_out: True; allowed: an integer >= 1"),
    ],
)
def test_refusals(samples: Any, labels: Any, held_out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Samples(samples, labels, held_out)
