"""Small stand-ins for the four files of Fashion-MNIST, and what makes them pass for the originals."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from rfdiff.images import fashion_mnist

NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """An array as IDX, written from the format's description and not with the loader's code."""
    return bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def arrays() -> dict[str, np.ndarray]:
    """A small data set: 12 and 5 images, every pixel random."""
    rng = np.random.default_rng(0)
    made = {}
    for count, images, labels in ((12, TRAIN_IMAGES, TRAIN_LABELS), (5, TEST_IMAGES, TEST_LABELS)):
        made[images] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        made[labels] = rng.integers(0, 10, count, np.uint8)
    return made


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the files of a folder the originals, their own checksums and sizes the published ones."""
    small = arrays()
    table = []
    for original in fashion_mnist._ORIGINALS:
        raw = (folder / original.name).read_bytes()
        table.append(original._replace(md5=hashlib.md5(raw).hexdigest(), size=len(raw), shape=small[original.name].shape))
    monkeypatch.setattr(fashion_mnist, "_ORIGINALS", tuple(table))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
