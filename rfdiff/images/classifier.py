"""A small convolutional classifier of the ten kinds of clothing: it says which class a sample belongs to, and its features measure quality.

It is trained on the whole training file, pixels as the network of the run sees them (side, normalisation, rescaling), and its accuracy is
that on the test file.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Int, PyTree

from rfdiff.errors import InputError
from rfdiff.files.atomic import read_arrays, write_arrays
from rfdiff.images.convolution import Conv
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import CLASS_NAMES, FashionMNIST
from rfdiff.images.protocol import ImageSet
from rfdiff.images.unet import initial_parameters
from rfdiff.progress import progress

FEATURES = 32
BATCH, RATE, BLOCK = 128, 3e-3, 1000
LAYOUT, SEED = 2, 0


class Network(nn.Module):
    """Two convolutions with pooling, a dense layer, `FEATURES` features, ten logits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features (n, 32) and logits (n, 10) of images (n, s, s)."""
        h = x[..., None]
        for channels in (32, 64):
            h = nn.max_pool(nn.relu(Conv(channels)(h)), (2, 2), (2, 2), padding="SAME")
        h = nn.relu(nn.Dense(128)(h.reshape(len(h), -1)))
        features = nn.relu(nn.Dense(FEATURES)(h))
        return features, nn.Dense(len(CLASS_NAMES))(features)


class _State(NamedTuple):
    step: Int[Array, ""] | np.int32
    parameters: PyTree
    optimizer: PyTree


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier.

    Args:
        parameters: of `Network`.
        accuracy: fraction of the test file that it gets right.
        identity: hash of all it was trained on and with.
    """

    parameters: PyTree
    accuracy: float
    identity: str

    def read(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, 32) and classes (n,) 0..9 of images (n, s, s)."""
        return _read(self.parameters, x)


def trained_classifier(data: FashionMNIST, images: ImageSet, epochs: int, devices: Devices, path: Path) -> Classifier:
    """The classifier in a file, or one that is trained and written there.

    Args:
        data: the data set.
        images: of the run, for their normalisation.
        epochs: passes over the training file.
        devices: that share a batch.
        path: of the file.

    Raises:
        InputError: a damaged file; one trained otherwise, or on other images.
        OSError: it cannot be written.
    """
    train, test = _all_images(data, images, "train"), _all_images(data, images, "test")
    digest = hashlib.sha256(repr((LAYOUT, epochs, BATCH, RATE)).encode())
    for array in (*train, *test):
        digest.update(array.tobytes())
    identity = digest.hexdigest()[:32]
    empty = jax.eval_shape(Network().init, jax.random.key(0), jax.ShapeDtypeStruct((1, *train[0].shape[1:]), jnp.float32))
    leaves, structure = jax.tree.flatten(empty)
    if path.is_file():
        arrays = read_arrays(path, "delete it to train the classifier again")
        if str(arrays.get("identity")) != identity:
            raise InputError(f"{path}: classifier of other images or epochs; allowed: another file, or delete it to train it again")
        return Classifier(
            jax.tree.unflatten(structure, [arrays[f"leaf_{i}"] for i in range(len(leaves))]), float(arrays["accuracy"]), identity
        )
    parameters = _train(*train, epochs, devices)
    accuracy = float(np.mean(_read(parameters, test[0])[1] == test[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(parameters))}
    write_arrays(path, {**kept, "accuracy": np.float64(accuracy), "identity": np.array(identity)})
    return Classifier(parameters, accuracy, identity)


def _all_images(data: FashionMNIST, images: ImageSet, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Every image of a file as the network of the run sees it, and its class 0..9."""
    raw, marks = (data.train_images, data.train_labels) if part == "train" else (data.test_images, data.test_labels)
    x = images.normalized(raw, None)
    if images.protocol.rescale is not None:
        for k, c in enumerate(images.protocol.classes):
            x[marks == c] = images.normalized(raw[marks == c], k)
    return x, np.asarray(marks, np.int32)


def _train(x: np.ndarray, labels: np.ndarray, epochs: int, devices: Devices) -> PyTree:
    network, batch = Network(), min(BATCH, len(x)) // devices.count * devices.count
    count = len(x) // batch
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, epochs * count))
    parameters = initial_parameters(network, SEED, jax.ShapeDtypeStruct((1, *x.shape[1:]), jnp.float32))

    def step(state: _State, images: jax.Array, labels: jax.Array, order: jax.Array) -> _State:
        rows = jax.lax.dynamic_slice(order, (state.step % count * batch,), (batch,))
        batch_images, marks = devices.split(images[rows]), labels[rows]

        def loss(parameters: PyTree) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(network.apply(parameters, batch_images)[1], marks).mean()

        updates, inner = optimizer.update(jax.grad(loss)(state.parameters), state.optimizer)
        return _State(state.step + 1, optax.apply_updates(state.parameters, updates), inner)

    run, rng = devices.repeated(step), np.random.default_rng(SEED)
    state = devices.everywhere(_State(np.int32(0), parameters, jax.tree.map(np.asarray, optimizer.init(parameters))))
    arrays = devices.everywhere((x, labels))
    with progress("training the classifier", epochs * count, unit="step") as advance:
        for _ in range(epochs):
            order = devices.everywhere(rng.permutation(len(x)).astype(np.int32))
            for first in range(0, count, 50):
                part = min(50, count - first)
                state = jax.block_until_ready(run(state, part, *arrays, order))
                advance(part)
    return jax.tree.map(np.asarray, state.parameters)


_apply = jax.jit(Network().apply)


def _read(parameters: PyTree, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes, in blocks of one shape."""
    block = min(BLOCK, max(len(x), 1))
    padded = np.zeros((-(-len(x) // block) * block, *x.shape[1:]), np.float32)
    padded[: len(x)] = x
    parts = [_apply(parameters, padded[i : i + block]) for i in range(0, len(padded), block)]
    features, logits = (np.concatenate([np.asarray(part[j]) for part in parts])[: len(x)] for j in range(2))
    return features, logits.argmax(1)
