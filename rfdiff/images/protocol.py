"""Which images a U-Net is trained on and tested on: classes, counts, held-out images, pixels, and the numbers that the theory takes.

Pixels: grey level / 255, averaged over blocks to `side` × `side`, then one number is taken from every pixel of every image and one divides
it: the mean of all pixels, and the root of (1/K) Σ_c tr Σ_c/d over the training file's images of the chosen classes. So the mean class
variance is 1, and the background is one negative number. Both depend on the classes and the side alone, not on counts or seeds. Rescaling
comes last: an image x of class c becomes m_c + √r_c (x - m_c), m_c the mean of its class, which multiplies the class's variance by r_c.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from rfdiff.errors import InputError
from rfdiff.images.fashion_mnist import CLASS_NAMES, WHITE, FashionMNIST, class_pixels
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import whole_number

WHOLE = 28
SIDES = (28, 14, 7)  # pixels a side; the original is averaged over whole blocks


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What a run takes from the data set.

    Args:
        classes: K distinct classes 0..9, see `CLASS_NAMES`.
        counts: K numbers of training images n_c, the first n_c of a fixed random order of the class: a larger count adds to a smaller one.
        held_out: images of each class from the end of that order, never trained on.
        side: pixels a side, 28, 14 or 7.
        rescale: K factors r_c > 0 of the class variances; None for 1.
        split_seed: of the random orders.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    classes: tuple[int, ...] = (8, 7)
    counts: tuple[int, ...] = (500, 500)
    held_out: int = 250
    side: int = 28
    rescale: tuple[float, ...] | None = None
    split_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("classes", "counts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.classes or not all(_whole(c, 0, len(CLASS_NAMES) - 1) for c in self.classes):
            raise InputError(f"classes: {self.classes}; allowed: distinct integers 0 to {len(CLASS_NAMES) - 1}")
        if len(set(self.classes)) != len(self.classes):
            raise InputError(f"classes: {self.classes} repeats a class; allowed: distinct integers 0 to {len(CLASS_NAMES) - 1}")
        if len(self.counts) != len(self.classes) or not all(_whole(n, 2) for n in self.counts):
            raise InputError(f"counts: {self.counts}; allowed: {len(self.classes)} integers >= 2, one for each class")
        if not _whole(self.held_out, 2):
            raise InputError(f"held_out: {self.held_out!r}; allowed: an integer >= 2")
        if self.side not in SIDES:
            raise InputError(f"side: {self.side!r}; allowed: {', '.join(map(str, SIDES))} pixels")
        if not _whole(self.split_seed, 0, 2**32 - 1):
            raise InputError(f"split_seed: {self.split_seed!r}; allowed: 0 to 2^32 - 1")
        if self.rescale is not None:
            object.__setattr__(self, "rescale", tuple(float(r) for r in self.rescale))
            if len(self.rescale) != len(self.classes) or not all(0 < r < np.inf for r in self.rescale):
                raise InputError(f"rescale: {self.rescale}; allowed: {len(self.classes)} finite numbers > 0, one for each class")

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """K names of the classes."""
        return tuple(CLASS_NAMES[c] for c in self.classes)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a run, as the network sees them, float32; labels are 0..K-1 in the order of the protocol's classes.

    Args:
        train: (n, s, s) training images, class after class.
        labels: (n,) their classes.
        held_out: (K, h, s, s) images that are not trained on.
        shift, scale: what was taken from a pixel of grey level / 255, and what divides it then.
        means: (K, s, s) means m_c about which a class is rescaled, over the training file.
        protocol: what chose them.
    """

    train: Float[np.ndarray, "n s s"]
    labels: Int[np.ndarray, " n"]
    held_out: Float[np.ndarray, "K h s s"]
    shift: float
    scale: float
    means: Float[np.ndarray, "K s s"]
    protocol: Protocol

    def normalized(self, images: np.ndarray, label: int | None) -> np.ndarray:
        """Images (n, 28, 28) of grey levels as the network sees those of a class (None: of none of the chosen, so not rescaled)."""
        x = (pooled(images, self.protocol.side) - self.shift) / self.scale
        if label is not None and self.protocol.rescale is not None:
            x = self.means[label] + np.sqrt(self.protocol.rescale[label]) * (x - self.means[label])
        return x.astype(np.float32)

    def grey(self, x: np.ndarray) -> np.ndarray:
        """What the network sees as grey levels 0 to 1, for a figure (a rescaling is left as it is)."""
        return np.clip(np.asarray(x, np.float64) * self.scale + self.shift, 0, 1)


def imbalanced(total: int, ratio: float, num_classes: int = 2) -> tuple[int, ...]:
    """Counts n_c of `total` images, the first class `ratio` times as many as each other.

    Raises:
        InputError: a ratio that is not > 0, or too few images for 2 in each class.
    """
    if not 0 < ratio < np.inf:
        raise InputError(f"imbalance: {ratio!r}; allowed: a finite number > 0, images of the first class over those of each other")
    other = round(total / (ratio + num_classes - 1))
    counts = (total - other * (num_classes - 1), *([other] * (num_classes - 1)))
    if min(counts) < 2:
        raise InputError(f"imbalance: {ratio:g} of {total} images leaves {min(counts)} in a class; allowed: at least 2 in each")
    return counts


def prepare(data: FashionMNIST, protocol: Protocol) -> ImageSet:
    """Choose, pool and normalise the images of a protocol.

    Raises:
        InputError: counts above what the training file holds of a class.
    """
    marks = np.asarray(data.train_labels)
    for c, n in zip(protocol.classes, protocol.counts, strict=True):
        there = int(np.sum(marks == c))
        if n + protocol.held_out > there:
            raise InputError(
                f"counts: {n} images of class {c} and {protocol.held_out} held out; allowed: {there} in all, so at most "
                f"{max(there - protocol.held_out, 0)} to train on"
            )
    pixels, labels = class_pixels(data, protocol.classes)
    pixels = pooled(pixels.reshape(-1, WHOLE, WHOLE) * WHITE, protocol.side)
    per_class = [pixels[labels == k] for k in range(protocol.num_classes)]
    shift = float(pixels.mean())
    scale = float(np.sqrt(np.mean([own.var(axis=0).mean() for own in per_class])))
    if not scale > 0:
        raise InputError(f"classes: {protocol.classes}; every image of a class is the same; allowed: classes that vary")
    means = (np.stack([own.mean(axis=0) for own in per_class]) - shift) / scale
    whole = ImageSet(np.empty(0), np.empty(0), np.empty(0), shift, scale, means, protocol)
    train, held_out = [], []
    for k, (c, n) in enumerate(zip(protocol.classes, protocol.counts, strict=True)):
        rows = np.flatnonzero(marks == c)
        own = data.train_images[rows[np.random.default_rng([protocol.split_seed, c]).permutation(len(rows))]]
        train.append(whole.normalized(own[:n], k))
        held_out.append(whole.normalized(own[len(own) - protocol.held_out :], k))
    order = np.repeat(np.arange(protocol.num_classes), protocol.counts)
    return dataclasses.replace(whole, train=np.concatenate(train), labels=order, held_out=np.stack(held_out))


def pooled(images: np.ndarray, side: int) -> np.ndarray:
    """Images (n, 28, 28) of grey levels 0..255 as (n, side, side) averages over blocks, in units of the highest level."""
    block = WHOLE // side
    return np.asarray(images, np.float64).reshape(-1, side, block, side, block).mean((2, 4)) / WHITE


def fitted_law(images: ImageSet) -> MixtureLaw:
    """The Gaussian law of the training images, as the theory takes it: `MixtureLaw.fit` of them and their labels."""
    return MixtureLaw.fit(images.train, images.labels)


def law_numbers(law: MixtureLaw) -> dict[str, Float[np.ndarray, "..."]]:
    """What matters in theory: weights, variances tr Σ_c/d, squared centroid norms ‖μ_c‖²/d (K,), angles (K, K) in degrees."""
    gram = np.asarray(law.centroid_gram)
    norms = np.sqrt(np.diagonal(gram))
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = gram / np.outer(norms, norms)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    np.fill_diagonal(angles, 0.0)
    return {"weight": np.asarray(law.weights), "variance": np.asarray(law.variances), "centroid_norm": np.diagonal(gram), "angle": angles}


def _whole(value: object, least: int, most: float = np.inf) -> bool:
    number = whole_number(value)
    return number is not None and least <= number <= most
