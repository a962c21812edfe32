"""Data sets in the IDX files of MNIST and its relatives, compressed or not: `train-images-idx3-ubyte(.gz)` with its labels beside it.

Two zero bytes, the type of the numbers, the number of axes, the length of each (32 bits, big-endian), then the numbers, the last axis
fastest.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from rfdiff.datasets.raw import Raw, one_line, require_memory, row
from rfdiff.errors import InputError

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
PARTS = {"train": "train", "test": "t10k"}
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def idx_images(path: Path, part: str) -> Path | None:
    """The file of images of a part ("train", "test") in a folder, packed or not; None without one."""
    names = [f"{PARTS[part]}-{IMAGES}{suffix}" for suffix in ("", ".gz")]
    return next((path / name for name in names if (path / name).is_file()), None)


def read_idx(images: Path) -> Raw:
    """Samples (N, height, width) of an IDX file, and the labels of the file beside it.

    Raises:
        InputError: no labels beside the images; a damaged or truncated file.
    """
    stem = images.name.removesuffix(".gz").replace(IMAGES, LABELS)
    beside = next((images.with_name(name) for name in (stem, f"{stem}.gz") if images.with_name(name).is_file()), None)
    if beside is None:
        raise InputError(f"{images}: no labels; allowed: {stem} or {stem}.gz in the same folder")
    samples, labels = _numbers(images), _numbers(beside)
    if samples.ndim < 2:
        raise InputError(f"{images}: numbers of shape {samples.shape}; allowed: (N, ...), one sample along the first axis")
    return Raw(samples, labels, images, row)


def _numbers(path: Path) -> np.ndarray:
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (OSError, EOFError, zlib.error) as err:
        raise InputError(f"{path}: damaged ({one_line(err)})") from err
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or len(content) < 4 + 4 * content[3] or not content[3]:
        raise InputError(f"{path}: no IDX header (its first bytes are {content[:4].hex(' ') or 'none'})")
    start = 4 + 4 * content[3]
    shape, dtype = struct.unpack(f">{content[3]}I", content[4:start]), np.dtype(TYPES[content[2]])
    require_memory(path, shape)
    length = start + math.prod(shape) * dtype.itemsize
    if len(content) != length:
        raise InputError(f"{path}: {len(content):,} bytes unpacked, where its header asks for {length:,}")
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
