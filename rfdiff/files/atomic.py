"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed over it."""

import contextlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rfdiff.errors import InputError


def expanded(path: str | Path) -> Path:
    """The path with ~ and ~user replaced by home folders.

    Raises:
        InputError: the home folder is not known, or the path holds a null character.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: not a path (it holds a null character)")
    try:
        return Path(path).expanduser()
    except RuntimeError as err:
        raise InputError(f"{path}: {err}") from err


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write in; it takes the place of `path` in one step when the block ends without an error.

    Whatever stops the block, an existing `path` stays as it was and the temporary file is removed. A killed process may leave the
    temporary file (`.NAME.PID.partial`), never a half-written `path`.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    path = expanded(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: str | Path, content: bytes | memoryview) -> Path:
    """A file of these bytes, whole or not at all.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the error names `path`.
    """
    path = expanded(path)
    try:
        with replacing(path) as temporary, open(temporary, "wb", buffering=0) as handle:  # no buffer whose flush could fail once more
            rest = memoryview(content).cast("B")
            while rest:
                rest = rest[handle.write(rest) :]
    except OSError as err:
        raise OSError(err.errno, err.strerror or str(err), str(path)) from err
    return path


def write_arrays(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Named arrays as one file, without pickle and with checksums, whole or not at all.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getbuffer())


def read_arrays(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a file that `write_arrays` wrote.

    Args:
        path: the file.
        remedy: what to do about a damaged one, for the message.

    Raises:
        InputError: a damaged file; the message names it.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as err:
        raise InputError(f"{path}: damaged checkpoint ({err}); {remedy}") from err


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself; systems that cannot open a folder (Windows) need no such step."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
