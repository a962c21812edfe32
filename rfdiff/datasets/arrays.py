"""Data sets in NumPy's own files: an archive .npz of samples and labels, or two .npy files."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from rfdiff.datasets.raw import Raw, one_line, require_memory, row
from rfdiff.errors import InputError

PAIRS = (("x", "y"), ("X", "y"), ("samples", "labels"), ("images", "labels"), ("data", "target"), ("data", "labels"))


def read_archive(path: Path) -> Raw:
    """Samples and labels of an .npz, under one of the pairs of names in `PAIRS`.

    Raises:
        InputError: a damaged file; none of the pairs, or more than one; arrays of objects.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path}: no .npz archive, or cut short; allowed: what np.savez writes")
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            there = [pair for pair in PAIRS if set(pair) <= set(archive.files)]
            if len(there) != 1:
                fault = "no pair" if not there else "more than one pair"
                pairs = ", ".join(f"{x} and {y}" for x, y in PAIRS)
                raise InputError(
                    f"{path}: holds {', '.join(archive.files) or 'nothing'}: {fault} of samples and labels; allowed: one of {pairs}"
                )
            samples, labels = (_member(path, archive, name) for name in there[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as err:
        raise InputError(f"{path}: damaged, or no .npz archive ({one_line(err)})") from err
    return _checked(path, samples, labels)


def read_pair(path: Path, labels: Path) -> Raw:
    """Samples of one .npy and labels of another.

    Raises:
        InputError: a damaged file; arrays of objects; not one label for each sample.
    """
    return _checked(path, _array(path), _array(labels))


def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as err:
        raise InputError(f"{path}: cannot be read as .npy ({one_line(err)}); allowed: an array of numbers or text") from err
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path}: an archive of several arrays; allowed: a file .npy with one array, or the name ending in .npz")
    return array


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except ValueError as err:
        raise InputError(f"{path}: {name}: {one_line(err)}; allowed: an array of numbers or text") from err


def _checked(path: Path, samples: np.ndarray, labels: np.ndarray) -> Raw:
    if samples.ndim < 2 or samples.size == 0:
        raise InputError(f"{path}: samples of shape {samples.shape}; allowed: (N, ...), one sample along the first axis")
    require_memory(path, samples.shape)
    return Raw(samples, labels, path, row)
