"""A small stand-in for Fashion-MNIST and a tiny run on it, shared by the tests of rfdiff.images (one set of compiled programs)."""

import functools

import numpy as np

from rfdiff.images.architecture import Architecture
from rfdiff.images.fashion_mnist import FashionMNIST
from rfdiff.images.protocol import ImageSet, Protocol, prepare
from rfdiff.images.settings import Settings

EACH = 60  # images of each of two classes in either file
PROTOCOL = Protocol(classes=(1, 0), counts=(24, 24), held_out=16, side=7)
SETTINGS = Settings(
    protocol=PROTOCOL, architecture=Architecture(width=4, depth=2, attention=1), steps=12, batch=8, measured=16, levels=2, per_decade=4
)


@functools.lru_cache(maxsize=1)
def toy_data() -> FashionMNIST:
    """Discs (class 0) and fainter stripes (class 1), on a texture."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(2):
        rows, columns = np.mgrid[:28, :28] / 28
        place, radius = rng.uniform(0.2, 0.8, (2, EACH, 1, 1)), rng.uniform(0.15, 0.35, (EACH, 1, 1))
        discs = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 < radius**2
        phase = rng.uniform(0, 2 * np.pi, (EACH, 1, 1))
        stripes = 0.3 + 0.2 * np.sin(2 * np.pi * 1.5 * columns + phase)
        shapes = np.concatenate([discs, stripes]) + 0.1 * rng.uniform(-1, 1, (2 * EACH, 28, 28))
        files += [np.round(255 * np.clip(shapes, 0, 1)).astype(np.uint8), np.repeat([0, 1], EACH).astype(np.uint8)]
    return FashionMNIST(*files)


@functools.lru_cache(maxsize=1)
def toy_images() -> ImageSet:
    """The images of `PROTOCOL`."""
    return prepare(toy_data(), PROTOCOL)
