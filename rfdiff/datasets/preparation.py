"""From a data set as read to samples that theory and simulation take: chosen classes, fewer pixels or components, variance of order 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfdiff.covariance_estimates import distinct_labels
from rfdiff.datasets.raw import Raw
from rfdiff.errors import InputError
from rfdiff.samples import Samples
from rfdiff.value_types import as_integer, as_number

STANDARDISATIONS = ("whole", "coordinates", "none")
LARGEST_DIMENSION = 2**14  # beyond, neither matrices of the theory nor networks fit a machine
Record = list[tuple[str, str]]


@dataclass(frozen=True)
class Preparation:
    """What to do with a data set; see `load_samples`.

    Raises:
        InputError: naming the option, its value and the allowed range.
    """

    classes: Sequence[str] | None
    samples_per_class: int | None
    held_out: float
    pixels: int | None
    components: int | None
    standardise: str
    seed: int

    def __post_init__(self) -> None:
        if self.classes is not None and (isinstance(self.classes, str) or len(set(map(str, self.classes))) != len(list(self.classes))):
            raise InputError(f"classes: {self.classes!r}; allowed: a list of different labels")
        for name, least in (("samples_per_class", 2), ("pixels", 1), ("components", 1)):
            if getattr(self, name) is not None:
                as_integer(name, getattr(self, name), least)
        share = as_number(self.held_out)
        if not 0 < share < 1:
            raise InputError(f"held_out: {self.held_out!r}; allowed: a share 0 < held_out < 1 of the smallest class")
        if self.standardise not in STANDARDISATIONS:
            raise InputError(f"standardise: {self.standardise!r}; allowed: {', '.join(map(repr, STANDARDISATIONS))}")
        as_integer("seed", self.seed, 0)


def prepare(raw: Raw, wanted: Preparation) -> Samples:
    """Samples (N, d) prepared as wanted, with a record of it.

    Raises:
        InputError: what the data do not allow, naming the file and the line, image or class.
    """
    if len(raw.labels.ravel()) != len(raw.samples) or raw.labels.ndim != 1:
        raise InputError(f"{raw.source}: labels of shape {raw.labels.shape} for {len(raw.samples)} samples; allowed: one for each")
    names, members = _classes(raw, wanted)
    rows = _chosen(members, len(names), wanted)
    members, record = members[rows], [("source", raw.source.name)]
    x = _finite(raw, rows)
    counts = np.bincount(members, minlength=len(names))
    if counts.min() < 2:
        thin = names[int(counts.argmin())]
        raise InputError(
            f"{raw.source}: class {thin!r} has {counts.min()} sample; allowed: at least 2 in every class, or classes= without it"
        )
    x = _scaled(x, raw.samples.dtype, record)
    x = _pooled(raw, x, wanted.pixels, record)
    shape, x = x.shape[1:], x.reshape(len(x), -1)
    if wanted.standardise == "coordinates":
        x = _by_coordinate(x, record)
    if wanted.components is not None:
        x = _principal(raw, x, wanted.components, record)
    if x.shape[1] > LARGEST_DIMENSION:
        raise InputError(
            f"{raw.source}: {x.shape[1]} coordinates per sample; allowed: at most {LARGEST_DIMENSION}: average images with pixels=, or "
            "keep principal components with components="
        )
    if wanted.standardise != "none":
        x = _as_a_whole(raw, x, members, record)
    held_out = max(1, int(wanted.held_out * counts.min()))
    return Samples(x, members, held_out, names, shape, tuple(record))


def _classes(raw: Raw, wanted: Preparation) -> tuple[tuple[str, ...], np.ndarray]:
    """Names (K,) of the classes wanted, in ascending order of the labels, and the class (N,) of each sample, -1 for none of them."""
    try:
        labels, members = distinct_labels(raw.labels, len(raw.samples))
    except InputError as err:
        raise InputError(f"{raw.source}: {err}") from err
    names = [_name(label) for label in labels]
    if wanted.classes is None:
        return tuple(names), members
    asked = [str(label) for label in wanted.classes]
    missing = [label for label in asked if label not in names]
    if missing or not asked:
        what = repr(missing[0]) if missing else "none"
        raise InputError(f"classes: {what}; allowed: labels of {raw.source}: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}")
    kept = [i for i, name in enumerate(names) if name in asked]
    place = np.full(len(names), -1)
    place[kept] = np.arange(len(kept))
    return tuple(names[i] for i in kept), place[members]


def _name(label: str | float) -> str:
    """A label as text; whole numbers without a decimal point, as tables read them with one where others are missing."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _chosen(members: np.ndarray, num_classes: int, wanted: Preparation) -> np.ndarray:
    """Rows to keep, in the order of the file."""
    if wanted.samples_per_class is None:
        return np.flatnonzero(members >= 0)
    rows = [np.flatnonzero(members == c) for c in range(num_classes)]
    orders = [np.random.default_rng([wanted.seed, c]).permutation(len(own)) for c, own in enumerate(rows)]
    return np.sort(np.concatenate([own[order[: wanted.samples_per_class]] for own, order in zip(rows, orders, strict=True)]))


def _finite(raw: Raw, rows: np.ndarray) -> np.ndarray:
    if raw.samples.dtype.kind not in "iufb":
        raise InputError(f"{raw.source}: samples of type {raw.samples.dtype}; allowed: real numbers")
    x = raw.samples[rows].astype(np.float64)
    bad = ~np.isfinite(x.reshape(len(x), -1)).all(1)
    if bad.any():
        raise InputError(f"{raw.source}: {raw.place(int(rows[np.argmax(bad)]))} holds a number that is not finite; allowed: finite numbers")
    return x


def _scaled(x: np.ndarray, dtype: np.dtype, record: Record) -> np.ndarray:
    """Whole numbers as shares of the highest level: of their type up to 16 bits, else the largest there is."""
    if dtype.kind not in "iu":
        return x
    highest = float(np.iinfo(dtype).max) if dtype.itemsize <= 2 else float(np.max(abs(x), initial=1.0))
    record.append(("highest level", f"{highest:.17g}"))
    return x / highest


def _pooled(raw: Raw, x: np.ndarray, side: int | None, record: Record) -> np.ndarray:
    """Images averaged over whole blocks to side x side."""
    if side is None:
        return x
    if x.ndim not in (3, 4):
        raise InputError(f"pixels: {side} for samples of shape {x.shape[1:]} in {raw.source}; allowed: with images only")
    n, height, width, *channels = x.shape
    if height % side or width % side:
        allowed = ", ".join(str(s) for s in range(1, min(height, width) + 1) if height % s == width % s == 0)
        raise InputError(f"pixels: {side} for images of {width} x {height} in {raw.source}; allowed: {allowed}")
    record.append(("pixels", f"{side} of {width} x {height}"))
    return x.reshape(n, side, height // side, side, width // side, *channels).mean((2, 4))


def _by_coordinate(x: np.ndarray, record: Record) -> np.ndarray:
    deviation = x.std(0)
    record.append(("coordinates standardised", f"{int((deviation > 0).sum())} of {x.shape[1]}, the others constant"))
    return (x - x.mean(0)) / np.where(deviation > 0, deviation, 1.0)


def _principal(raw: Raw, x: np.ndarray, number: int, record: Record) -> np.ndarray:
    """Coordinates along the directions in which all samples vary most."""
    most = min(x.shape[0] - 1, x.shape[1])
    if number > most:
        raise InputError(
            f"components: {number} of {raw.source}; allowed: 1 to {most}, what {x.shape[0]} samples of {x.shape[1]} numbers have"
        )
    x = x - x.mean(0)
    _, values, directions = np.linalg.svd(x, full_matrices=False)
    record.append(
        ("principal components", f"{number} of {x.shape[1]}, {np.sum(values[:number] ** 2) / np.sum(values**2):.6f} of the variance")
    )
    signs = np.sign(directions[np.arange(number), abs(directions[:number]).argmax(1)])  # so that a component has one sign everywhere
    return x @ (directions[:number] * signs[:, None]).T


def _as_a_whole(raw: Raw, x: np.ndarray, members: np.ndarray, record: Record) -> np.ndarray:
    """One number subtracted, one divided by, so that (1/K) Σ_c tr Σ_c/d = 1 for the covariances about each class's mean."""
    variances = [x[members == c].var(0).mean() for c in range(members.max() + 1)]
    shift, scale = float(x.mean()), float(np.sqrt(np.mean(variances)))
    if not scale > 1e-12 * max(1.0, abs(shift)):
        raise InputError(f"{raw.source}: the samples of every class are equal; allowed: samples that vary")
    record.extend([("subtracted", f"{shift:.17g}"), ("divided by", f"{scale:.17g}")])
    return (x - shift) / scale
