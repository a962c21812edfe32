"""Compiled programs are kept between commands: JAX's persistent compilation cache, in the user's cache folder.

Only the process of a command sets it up, before JAX is loaded; the library never does. Programs hold instructions of the processor that
they were compiled on, so every kind of processor and release of jaxlib has a folder of its own. Whatever goes wrong here costs a
compilation, never a command: an entry that cannot be read is compiled again, and removed when the command ends.
"""

import contextlib
import hashlib
import os
import platform
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

SWITCH = "RFDIFF_CACHE"
MOST_BYTES = 2**29  # of all programs kept for one processor; the oldest go first
LEAST_SECONDS = "0.1"  # of compilation, below which a program is not worth a file
FRESH = 60.0  # seconds in which an entry may still be written by another process
UNREADABLE = "persistent compilation cache entry"  # in what JAX says of an entry that it cannot read or write


@contextlib.contextmanager
def kept_programs() -> Iterator[None]:
    """Let JAX, which is not loaded yet, and the processes started from here keep what they compile.

    Nothing is kept with RFDIFF_CACHE=off, or where there is no folder to write to. A cache that JAX_COMPILATION_CACHE_DIR names is the
    user's own, and left alone.
    """
    folder = None if _declined() else _folder()
    if folder is None:
        yield
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", LEAST_SECONDS)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")
    _remove_oldest(folder, MOST_BYTES)
    damaged = False
    shown = warnings.showwarning

    def show(message: Any, *rest: Any, **named: Any) -> None:
        nonlocal damaged
        if UNREADABLE in str(message):
            damaged = True
        else:
            shown(message, *rest, **named)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
        if damaged:
            _remove_oldest(folder, 0)


def _declined() -> bool:
    return os.environ.get(SWITCH, "").lower() in {"off", "0", "no", "false"} or bool(os.environ.get("JAX_COMPILATION_CACHE_DIR"))


def _folder() -> Path | None:
    """The folder of this processor and release, made if need be; None where that is impossible."""
    with contextlib.suppress(OSError, RuntimeError):  # a RuntimeError where the user has no home
        folder = Path(platformdirs.user_cache_dir("rfdiff", appauthor=False)) / "programs" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    return None


def _processor() -> str:
    """A name for what a program depends on beside itself: jaxlib, and the instructions that the processor has."""
    instructions = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        kinds = ("flags", "features", "model name")
        instructions = "".join(sorted({line for line in lines if line.lower().startswith(kinds)}))
    digest = hashlib.sha256(f"{platform.machine()} {instructions}".encode()).hexdigest()[:12]
    return f"jaxlib-{version('jaxlib')}-{digest}"


def _remove_oldest(folder: Path, most_bytes: int) -> None:
    """Remove the oldest entries until the others have at most that many bytes; those that may still be written stay."""
    entries = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                found = entry.stat()
                entries.append((found.st_mtime, found.st_size, entry.path))
    total, now = sum(size for _, size, _ in entries), time.time()
    for written, size, path in sorted(entries):
        if total <= most_bytes or now - written < FRESH:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
