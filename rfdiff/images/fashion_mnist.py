"""Fashion-MNIST from its four original files: 28 x 28 grey levels 0..255 of ten kinds of clothing, 60,000 to train and 10,000 to test.

The files are gzip-compressed IDX: two zero bytes, the type of the numbers (8: unsigned bytes), the number of axes, the length of each
axis (32 bits, big-endian), then the numbers, the last axis fastest. A file counts as an original only if its MD5 is the published one,
since those of MNIST have the same names, headers and lengths of axes. Only `load(download=True)` uses the network.

Reference: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747; checksums and addresses as on github.com/zalandoresearch/fashion-mnist.
"""

import gzip
import hashlib
import http.client
import io
import math
import os
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rfdiff.errors import InputError
from rfdiff.files.atomic import replacing

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
VARIABLE = "RFDIFF_FASHION_MNIST"
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"  # the authors' bucket, which answers to plain http only
TIMEOUT = 30.0  # seconds without an answer
WHITE = 255  # the highest grey level
FETCH = "download=True fetches what is missing, 30 MB, from the authors' server"

_GZIP = b"\x1f\x8b"
_IDX_TYPES = {8: "unsigned bytes", 9: "signed bytes", 11: "16-bit integers", 12: "32-bit integers", 13: "floats", 14: "doubles"}


class _Original(NamedTuple):
    """A published file: the field it fills, its name, MD5 and length in bytes as compressed, and the axes its header must state."""

    field: str
    name: str
    md5: str
    size: int
    shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        return struct.pack(f">HBB{len(self.shape)}I", 0, 8, len(self.shape), *self.shape)


_ORIGINALS = (
    _Original("train_images", "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26421880, (60000, 28, 28)),
    _Original("train_labels", "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 29515, (60000,)),
    _Original("test_images", "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 4422102, (10000, 28, 28)),
    _Original("test_labels", "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 5148, (10000,)),
)


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """The whole data set, in the order of its files; the arrays that `load` returns cannot be written to.

    Args:
        train_images: (60000, 28, 28) uint8 grey levels: image, row from the top, column from the left; 0 is the background.
        train_labels: (60000,) uint8 classes 0..9, named by `CLASS_NAMES`; 6,000 images of each.
        test_images: (10000, 28, 28) uint8 grey levels.
        test_labels: (10000,) uint8 classes; 1,000 images of each.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(directory: str | Path | None = None, download: bool = False) -> FashionMNIST:
    """Fashion-MNIST from a directory that holds the four original gz files, each checked against its published MD5.

    Args:
        directory: where the files are; None for what the environment variable RFDIFF_FASHION_MNIST says.
        download: whether to fetch the files that are missing from the authors' bucket (30 MB in all) and keep them in the directory,
            which is made if need be. Files that are there, whole or damaged, are never written to; nothing is kept but originals.

    Raises:
        InputError: no directory given, or missing; a file that is missing, cannot be read, is truncated, damaged, not compressed,
            swapped with another of the four, of another data set, or cannot be fetched. The message names the file and the fault.

    Reference: tests/images/test_fashion_mnist.py.
    """
    folder = _folder(directory, download)
    there = [original for original in _ORIGINALS if os.path.lexists(folder / original.name)]
    missing = [original for original in _ORIGINALS if original not in there]
    if missing and not download:
        raise InputError(_missing_text(folder, [original.name for original in missing]))
    arrays = {original.field: _read(original, folder / original.name) for original in there}  # before anything is fetched
    arrays |= {original.field: _fetch(original, folder / original.name) for original in missing}
    return FashionMNIST(**arrays)


def class_pixels(data: FashionMNIST, classes: Sequence[int] | np.ndarray, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images of some classes as vectors of grey level / 255, for `MixtureLaw.fit`.

    Args:
        data: the data set.
        classes: K distinct classes 0..9 (see `CLASS_NAMES`); class `classes[k]` gets the label k.
        part: "train" or "test".

    Returns:
        x (n, 784) float64, pixels row by row in units of the highest grey level: 0 (background) to 1; and labels (n,) 0..K-1.
        Samples are in the order of `classes`, those of a class in the order of the files.

    Raises:
        InputError: classes that are not distinct integers 0..9; an unknown part.
    """
    listed = classes.tolist() if isinstance(classes, np.ndarray) else classes
    chosen = tuple(listed) if isinstance(listed, Sequence) else ()  # a set has no order
    whole = all(isinstance(c, int | np.integer) and not isinstance(c, bool) and 0 <= c < len(CLASS_NAMES) for c in chosen)
    if not chosen or not whole or len(set(chosen)) != len(chosen):
        raise InputError(f"classes: {classes!r}; allowed: at least one, distinct integers 0 to {len(CLASS_NAMES) - 1}")
    if part not in ("train", "test"):
        raise InputError(f"part: {part!r}; allowed: 'train' or 'test'")
    images, marks = (data.train_images, data.train_labels) if part == "train" else (data.test_images, data.test_labels)
    rows = [np.flatnonzero(marks == c) for c in chosen]
    samples = images[np.concatenate(rows)].astype(np.float64) / WHITE
    return samples.reshape(len(samples), -1), np.repeat(np.arange(len(chosen)), [len(own) for own in rows])


def _folder(directory: str | Path | None, download: bool) -> Path:
    """The directory of the files; one that is to be filled may be missing."""
    source = "directory"
    if directory is None:
        source, directory = VARIABLE, os.environ.get(VARIABLE)
        if not directory:
            raise InputError(
                f"directory: None, and the environment variable {VARIABLE} is not set; allowed: the directory of the four gz files, "
                f"as the argument or in that variable; {FETCH}"
            )
    folder = Path(directory).expanduser()
    if not os.path.isdir(folder) and (os.path.lexists(folder) or not download):
        fault = "is not a directory" if os.path.lexists(folder) else "no such directory"
        raise InputError(f"{source}: {folder}: {fault}; allowed: a directory with the four gz files; {FETCH}")
    return folder


def _missing_text(folder: Path, names: list[str]) -> str:
    unpacked = [stem for stem in (Path(name).stem for name in names) if os.path.lexists(folder / stem)]
    hint = f"; {', '.join(unpacked)} is there, but unpacked: the published checksums are those of the gz files" if unpacked else ""
    return f"{folder / names[0]}: no such file (missing: {', '.join(names)}){hint}; {FETCH}"


def _read(original: _Original, path: Path) -> np.ndarray:
    """The numbers in a file that is there."""
    try:
        if not path.is_file():
            raise InputError("is not a regular file")
        return _unpack(original, path.read_bytes())
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({_one_line(err)})") from err
    except ValueError as err:
        remedy = "no existing file is ever overwritten: remove this one and load with download=True to replace it"
        raise InputError(f"{path}: {err}; allowed: the original of {original.size:,} bytes ({remedy})") from err


def _fetch(original: _Original, path: Path) -> np.ndarray:
    """The numbers in a file of the authors' bucket, which is written to `path` once it has proved to be the original."""
    address = f"{ADDRESS}/{original.name}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as response:
            raw = response.read(original.size + 1)  # no more than shows that an answer is too long
    except (OSError, http.client.HTTPException) as err:
        if isinstance(err, urllib.error.HTTPError):
            err.close()  # it holds the connection
        raise InputError(
            f"{path}: {address} cannot be fetched ({_one_line(err)}); allowed: a network that reaches it, or the file put here by hand"
        ) from err
    try:
        numbers = _unpack(original, raw)
    except ValueError as err:
        raise InputError(
            f"{path}: what {address} sent {err}; allowed: the original of {original.size:,} bytes (nothing was written)"
        ) from err
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(raw)
    except OSError as err:
        raise InputError(f"{path}: cannot be written ({_one_line(err)})") from err
    return numbers


def _unpack(original: _Original, raw: bytes) -> np.ndarray:
    """The numbers in the bytes of a file; a ValueError states what is wrong with them, from the most telling fault to the least."""
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    for other in _ORIGINALS:
        if digest == other.md5 != original.md5:
            raise InputError(f"holds what belongs in {other.name}")
    if not raw.startswith(_GZIP):
        raise InputError(f"is not gzip-compressed: it holds {_describe(raw)}")
    content = _decompress(original, raw)
    length = len(original.header) + math.prod(original.shape)
    if not content.startswith(original.header):
        owners = [other.name for other in _ORIGINALS if content.startswith(other.header)]
        belongs = f", which belongs in {owners[0]}" if owners else ""
        raise InputError(f"holds {_describe(content)}{belongs}, where {_describe(original.header)} is expected")
    if len(content) != length:
        amount = f"more than {length:,}" if len(content) > length else f"{len(content):,}"
        raise InputError(f"unpacks to {amount} bytes, where its header asks for {length:,}")
    if digest != original.md5:
        raise InputError(f"has the right header, but the MD5 {digest} instead of {original.md5}: changed, repacked, or another data set")
    return np.frombuffer(content, np.uint8, offset=len(original.header)).reshape(original.shape)


def _decompress(original: _Original, raw: bytes) -> bytes:
    """What gzip holds, up to one byte more than the original does."""
    try:
        with gzip.open(io.BytesIO(raw)) as handle:
            return handle.read(len(original.header) + math.prod(original.shape) + 1)
    except EOFError as err:
        if len(raw) < original.size:
            raise InputError(f"is truncated: {len(raw):,} of {original.size:,} bytes") from err
        raise InputError("is damaged (it ends within the compressed data)") from err
    except (OSError, zlib.error) as err:
        raise InputError(f"is damaged ({_one_line(err)})") from err


def _describe(content: bytes) -> str:
    """What the first bytes say of an array."""
    if not content:
        return "nothing"
    axes = content[3] if len(content) > 3 and content[:2] == b"\0\0" and content[2] in _IDX_TYPES else 0
    if not axes or len(content) < 4 + 4 * axes:
        return f"no IDX header (its first bytes are {content[:4].hex(' ')})"
    lengths = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    return f"an IDX header of {' x '.join(map(str, lengths))} {_IDX_TYPES[content[2]]}"


def _one_line(err: BaseException) -> str:
    return " ".join(str(err).split()) or type(err).__name__
