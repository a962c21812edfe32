"""One process at a time in a folder of results."""

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from rfdiff.errors import InputError
from rfdiff.files.atomic import expanded

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
FALLBACK_NAME = ".lock.held"
# what file systems without locks answer (Lustre without the option flock, some network and user-space file systems)
NOT_IMPLEMENTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextlib.contextmanager
def locked(folder: str | Path, what: str = "results") -> Iterator[None]:
    """Hold a folder, making it if it is absent; another process that asks for it is refused until the block ends.

    The kernel's lock (`flock`) ends with the process, however that ends. Where the file system has none, a lock file names the process
    that holds the folder; one that is left by a process of this machine that no longer runs is taken over.

    Args:
        folder: the folder; ~ stands for the home folder.
        what: what it holds, for the message.

    Raises:
        InputError: another process holds it.
        OSError: it cannot be made or written to.
    """
    folder = expanded(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / NAME, "a", encoding="utf-8") as handle:
        if _flock(handle.fileno(), folder, what):
            yield
            return
    with _lock_file(folder, what):
        yield


def _flock(descriptor: int, folder: Path, what: str) -> bool:
    """Take the kernel's lock; False where there is none to take."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise InputError(f"{folder}: another process works on the {what} in it; allowed: one at a time") from err
    except OSError as err:
        if err.errno not in NOT_IMPLEMENTED:
            raise
        return False
    return True


@contextlib.contextmanager
def _lock_file(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder by a file that only one process can make."""
    file = folder / FALLBACK_NAME
    for _ in range(2):
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError as err:
            holder = file.read_text(encoding="utf-8", errors="replace").split() if file.exists() else []
            if _runs(holder):
                by = f"process {holder[0]} on {holder[1]}" if len(holder) == 2 else "another process"
                raise InputError(
                    f"{folder}: {by} works on the {what} in it; allowed: one at a time (if none does any more, delete {file})"
                ) from err
            file.unlink(missing_ok=True)
    else:
        raise InputError(f"{folder}: another process works on the {what} in it; allowed: one at a time")
    with open(descriptor, "w", encoding="utf-8") as handle:
        handle.write(f"{os.getpid()} {platform.node()}\n")
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _runs(holder: list[str]) -> bool:
    """Whether the process that a lock file names may still run: unknown ones and those of other machines may."""
    if len(holder) != 2 or not holder[0].isdecimal() or holder[1] != platform.node() or sys.platform == "win32":
        return True
    try:
        os.kill(int(holder[0]), 0)  # sends nothing; asks whether the process is there
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
