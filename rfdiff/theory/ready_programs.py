"""Compiled programs kept on disk ready to run: a new process runs them without tracing, lowering or compiling anything.

JAX's persistent cache keeps what the compiler made, but finds it by the text of the program, for which everything is traced and lowered
again: seconds of Python for the kernel of `live_curves`. Here a program is found by what determines that text: the source of the package,
the versions of JAX and jaxlib, the processor, JAX's settings, and the shapes and types of the arguments. It lies in the folder of that
cache (`jax_compilation_cache_dir`), which is trusted as before, and nothing is kept where there is none or with RFDIFF_CACHE=off.
Whatever goes wrong with a file costs a compilation, never an answer: a program is kept if what is read back gives the same numbers.
Nothing is kept of activations and rules of a user's own, nor where a source is newer than the process: it is not what this process runs.
Constants of the package that are changed while it runs are not seen: whoever does so sets RFDIFF_CACHE=off.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import re
import secrets
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

import jax
import numpy as np
from jax.experimental import serialize_executable

from rfdiff.activation import ACTIVATIONS, Activation

P = ParamSpec("P")
R = TypeVar("R")
PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = ("*.py", "theory/**/*.py", "rules/**/*.py")  # whatever a program of the theory may be made of
MOST_PROGRAMS = 256  # of one function in memory
READ = "/rfdiff/ready_program/read_duration"  # what JAX's monitoring is told of each program that is read
LOADED = time.time()  # when this module was: the sources were read by then
SWITCH, OFF = "RFDIFF_CACHE", ("off", "0", "no", "false")  # as the command line has it


class ReadyProgram(Generic[P, R]):
    """A compiled function of the theory whose programs are kept on disk; called like the function itself, inside `double_on_host`.

    Args:
        function: what `jax.jit` returns. Its arguments are arrays, numbers, pytrees of them and activations; keywords are static.
    """

    def __init__(self, function: Callable[P, R]) -> None:
        self.function: Any = function
        self._programs: dict[Hashable, Callable[..., Any]] = {}
        self._making: dict[Hashable, threading.Lock] = {}
        _ALL.add(self)

    def __call__(self, *args: P.args, **static: P.kwargs) -> R:
        """The value of the function, by the program for arguments of these shapes and types."""
        dynamic = tuple(_typed(value) for value in args if not isinstance(value, Activation))
        activations = tuple((i, value) for i, value in enumerate(args) if isinstance(value, Activation))
        leaves, tree = jax.tree.flatten(dynamic)
        key = (tuple((leaf.shape, leaf.dtype) for leaf in leaves), tree, activations, tuple(sorted(static.items())))
        program = self._programs.get(key)
        if program is None:
            with self._making.setdefault(key, threading.Lock()):  # a second thread waits for the program that the first one makes
                program = self._programs.get(key)
                if program is None:
                    if len(self._programs) >= MOST_PROGRAMS:
                        self._programs.clear()
                    program = self._programs[key] = self._made(dynamic, activations, static, self._path(key))
        return cast(R, program(*dynamic))

    def _cache_size(self) -> int:
        """Number of programs in memory, by the name that `jax.jit` has for it."""
        return len(self._programs)

    def _made(
        self, dynamic: tuple[Any, ...], activations: tuple[tuple[int, Activation], ...], static: dict[str, Any], path: Path | None
    ) -> Callable[..., Any]:
        """The program at a path, or compiled and kept there."""
        if path is not None and path.exists():
            with contextlib.suppress(Exception):  # damaged, or of a release that reads it otherwise: compiled again
                start, read = time.perf_counter(), _read(path.read_bytes())
                jax.monitoring.record_event_duration_secs(READ, time.perf_counter() - start)
                return read

        def program(*values: Any) -> Any:
            words = list(values)
            for place, activation in activations:
                words.insert(place, activation)
            return self.function(*words, **static)

        # JAX's cache looks at the name too: what it has read from a file lacks parts of what would be written here
        program.__name__ = self.function.__name__ + (f"_{secrets.token_hex(8)}" if path is not None else "")
        compiled: Any = jax.jit(program).lower(*dynamic).compile()
        if path is not None:
            with contextlib.suppress(Exception):  # a full disk, or a program that cannot be written
                content = _content(compiled)
                if _same(_read(content)(*dynamic), compiled(*dynamic)):
                    _write(path, content)
        return cast(Callable[..., Any], compiled)

    def _path(self, key: Hashable) -> Path | None:
        """Where the program of a key lies; None where nothing is kept: what is of a user's own has no lasting name."""
        shapes, tree, activations, static = cast(Any, key)
        folder, origin = _folder(), _origin()
        if folder is None or origin is None or not _of_package(tree):
            return None
        if any(ACTIVATIONS.get(activation.name) is not activation for _, activation in activations):
            return None
        names = [(place, activation.name) for place, activation in activations]
        words = repr((self.function.__module__, self.function.__name__, shapes, str(tree), names, static, _settings(), origin))
        return folder / f"rfdiff-{self.function.__name__.strip('_')}-{hashlib.sha256(words.encode()).hexdigest()[:32]}"


_ALL: "weakref.WeakSet[ReadyProgram[Any, Any]]" = weakref.WeakSet()


def forget() -> None:
    """Let go of all programs in memory, as `jax.clear_caches` does of its own."""
    for program in _ALL:
        program._programs.clear()


def _typed(value: Any) -> Any:
    """An argument with arrays for its numbers, so that a number has one type wherever it comes from."""
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), value)


def _folder() -> Path | None:
    """Where programs are kept: the folder of JAX's cache."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    return Path(folder) if folder and os.environ.get(SWITCH, "").lower() not in OFF else None


def _settings() -> tuple[tuple[str, object], ...]:
    """JAX's settings in this thread that are plain values."""
    return tuple((name, value) for name, value in jax.config.values.items() if isinstance(value, bool | int | float | str))


def _of_package(tree: Any) -> bool:
    """Whether all types in the structure of a pytree are Python's or of this package."""
    node = tree.node_data()
    own = node is None or node[0].__module__.split(".")[0] in ("builtins", "rfdiff")
    return own and all(_of_package(child) for child in tree.children())


@cache
def _origin() -> tuple[str, ...] | None:
    """Source, versions and processor of which a program is made; None where the source may not be what this process has read."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in PACKAGE.glob(pattern)):
        if path.stat().st_mtime > LOADED:
            return None
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    instructions = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        kinds = ("flags", "features", "model name")
        instructions = "".join(sorted({line for line in lines if line.lower().startswith(kinds)}))
    return (
        digest.hexdigest(), platform.python_version(), version("jax"), version("jaxlib"), version("numpy"), platform.machine(),
        instructions, os.environ.get("XLA_FLAGS", ""),
    )  # fmt: skip


def _host() -> jax.Device:
    return jax.local_devices(backend="cpu")[0]


def _content(compiled: Any) -> bytes:
    """A program as bytes, begun by their digest.

    Raises:
        ValueError: it calls libraries that reading it does not load.
    """
    called = set(re.findall(r'custom_call_target="([^"]*)"', compiled.as_text()))
    if not all(name.startswith("lapack_") for name in called):
        raise ValueError(f"calls {called}")
    body = pickle.dumps((bool(called), *serialize_executable.serialize(compiled)))
    return hashlib.sha256(body).digest() + body


def _read(content: bytes) -> Callable[..., Any]:
    """A program from its bytes.

    Raises:
        ValueError: they are not those that were written.
    """
    digest, body = content[:32], content[32:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError("damaged")
    lapack, program, arguments, results = pickle.loads(body)
    if lapack:
        _load_lapack()
    loaded = serialize_executable.deserialize_and_load(program, arguments, results, backend=_host().client, execution_devices=[_host()])
    return cast(Callable[..., Any], loaded)


@cache
def _load_lapack() -> None:
    """Let JAX find LAPACK, as it does when it lowers a program that calls it: one that is read has been lowered elsewhere."""
    jax.jit(jax.lax.linalg.lu).lower(np.eye(2))


def _same(one: Any, other: Any) -> bool:
    """Whether two results are the same numbers, NaN like NaN."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind in "fc") for a, b in pairs)


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: another process may look for it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".rfdiff-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
