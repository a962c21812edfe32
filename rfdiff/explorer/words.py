"""The order of the classes in words: which is learned first, which is memorised first, and whether that is the same order."""

from itertools import pairwise

import numpy as np

from rfdiff.class_times import ClassTimes

CLOSE = 1.02  # ratio of two times below which they are called the same
VERBS = {"tau_gen": "learned", "tau_mem": "memorised"}


def order_in_words(read: ClassTimes) -> list[str]:
    """Sentences on the order of τ_gen and of τ_mem over the classes; none for a single class."""
    if np.size(read.tau_gen) < 2:
        return []
    sentences = [_order(name, np.asarray(getattr(read, name))) for name in VERBS]
    orders = [_ranking(np.asarray(getattr(read, name))) for name in VERBS]
    if all(order is not None for order in orders) and orders[0] != orders[1]:
        sentences.append("The order of memorisation is not the order of learning.")
    return sentences


def _ranking(values: np.ndarray) -> list[int] | None:
    """Classes by their times; None where one is missing or two are alike."""
    if not np.all(np.isfinite(values)):
        return None
    order = np.argsort(values)
    return None if np.any(values[order[1:]] < CLOSE * values[order[:-1]]) else order.tolist()


def _order(name: str, values: np.ndarray) -> str:
    verb = VERBS[name]
    finite = [int(c) for c in np.argsort(values) if np.isfinite(values[c])]
    missing = [c for c in range(values.size) if c not in finite]
    if not finite:
        return f"No class has a time at which it is {verb}."
    parts = [f"class {finite[0]}"]
    for before, c in pairwise(finite):
        ratio = values[c] / values[before] if values[before] > 0 else np.inf
        parts.append(f"class {c} at the same time" if ratio < CLOSE else f"then class {c}, at {ratio:.3g} times that τ")
    many = len(missing) > 1
    names = f"{'classes' if many else 'class'} {' and '.join(map(str, missing))}"
    tail = f"; {names} {'have' if many else 'has'} no such time" if missing else ""
    return f"{verb.capitalize()} first: {', '.join(parts)}{tail}."
