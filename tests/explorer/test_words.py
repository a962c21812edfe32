"""The order of the classes in words."""

import numpy as np

from rfdiff import ClassTimes
from rfdiff.explorer.words import order_in_words


def read(gen: list[float], mem: list[float]) -> ClassTimes:
    return ClassTimes(np.array(gen), np.array(gen), np.array(mem), np.array(gen))


def test_orders_are_said_and_compared() -> None:
    assert order_in_words(read([1.0, 3.0], [40.0, 20.0])) == [
        "Learned first: class 0, then class 1, at 3 times that τ.",
        "Memorised first: class 1, then class 0, at 2 times that τ.",
        "The order of memorisation is not the order of learning.",
    ]
    assert len(order_in_words(read([1.0, 3.0], [20.0, 40.0]))) == 2
    assert order_in_words(read([1.0], [2.0])) == []


def test_equal_and_missing_times() -> None:
    sentences = order_in_words(read([2.0, 2.01, 5.0], [np.nan, 30.0, np.inf]))
    assert sentences[0] == "Learned first: class 0, class 1 at the same time, then class 2, at 2.49 times that τ."
    assert sentences[1] == "Memorised first: class 1; classes 0 and 2 have no such time."
    assert order_in_words(read([1.0, 2.0], [np.nan, np.nan]))[1] == "No class has a time at which it is memorised."
