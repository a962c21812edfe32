"""Training a U-Net with class weights: weighted losses and class-balanced batches."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.images.devices import Devices
from rfdiff.images.settings import Settings
from rfdiff.images.training import State, _chosen, initial_state, recipe_of, training_program
from tests.images.toy import SETTINGS, toy_images
from tests.tolerances import rejects

# plain descent: Adam would hide the scale of a gradient
PLAIN = dataclasses.replace(SETTINGS, optimizer="sgd", learning_rate=0.05, momentum=0.0)
COUNT = 24  # images of each class


def trained(settings: Settings, images: np.ndarray, steps: int = 3) -> list[np.ndarray]:
    devices = Devices()
    state = devices.everywhere(initial_state(settings))
    arrays = devices.everywhere(images), np.uint32(settings.seed)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(training_program(recipe_of(settings), devices)(state, steps, *arrays).parameters)]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def moved(images: np.ndarray) -> np.ndarray:
    """Other images in the second class."""
    return np.concatenate([images[:COUNT], -images[COUNT:]])


@pytest.mark.thorough
def test_weights_of_equal_shares_change_nothing() -> None:
    images = toy_images().train
    plain = trained(PLAIN, images)
    same(trained(dataclasses.replace(PLAIN, loss_weights=(0.5, 0.5)), images), plain)
    rejects(lambda: same(trained(dataclasses.replace(PLAIN, loss_weights=(0.1, 0.9)), images), plain))


@pytest.mark.thorough
@pytest.mark.parametrize("sampling", ["weighted", "balanced"])
def test_a_class_of_weight_0_is_not_trained_on(sampling: Any) -> None:
    one = dataclasses.replace(PLAIN, loss_weights=(1.0, 0.0), sampling=sampling)
    images = toy_images().train
    first = trained(one, images)
    same(trained(one, moved(images)), first)
    other = dataclasses.replace(one, loss_weights=(0.5, 0.5))
    rejects(lambda: same(trained(other, moved(images)), trained(other, images)))


def test_balanced_batches_hold_the_classes_as_they_weigh() -> None:
    protocol = dataclasses.replace(SETTINGS.protocol, counts=(30, 10))
    settings = dataclasses.replace(SETTINGS, protocol=protocol, loss_weights=(0.2, 0.8), sampling="balanced")
    recipe = recipe_of(settings)._replace(batch=40_000)
    state = State(np.int32(0), {}, {}, np.arange(40, dtype=np.int32))
    order, chosen = _chosen(state, jax.random.key(0), recipe, 40)
    np.testing.assert_array_equal(order, state.order)
    counts = np.bincount(np.asarray(chosen), minlength=40)
    for expected, here in ((8000 / 30, counts[:30]), (3200.0, counts[30:])):
        assert np.max(abs(here - expected)) < 5 * math.sqrt(expected)


def test_weights_are_checked_and_recorded() -> None:
    weighted = dataclasses.replace(SETTINGS, loss_weights=(0.25, 0.75), sampling="balanced")
    assert weighted.image_weights == (0.5, 1.5) and SETTINGS.image_weights is None
    assert Settings.of_record({**weighted.record(), "loss_weights": [0.25, 0.75]}) == weighted
    old = {name: value for name, value in SETTINGS.record().items() if name not in ("loss_weights", "sampling")}
    assert Settings.of_record(old) == SETTINGS  # runs of before
    with pytest.raises(InputError, match=r"^loss_weights: \[0.5, 0.6\] sums to 1.1"):
        dataclasses.replace(SETTINGS, loss_weights=(0.5, 0.6))
    with pytest.raises(InputError, match="^sampling: 'even'; allowed: weighted or balanced"):
        Settings.of_record({**SETTINGS.record(), "sampling": "even"})
