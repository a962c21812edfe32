"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed over it."""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfdiff.errors import InputError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file to write in; it takes the place of `path` in one step when the block ends without an error.

    Whatever stops the block, an existing `path` stays as it was and the temporary file is removed. A killed process may leave the
    temporary file (`.NAME.PID.partial`), never a half-written `path`.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
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


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Named arrays as one file, without pickle and with checksums, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, **arrays)


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
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as err:
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
