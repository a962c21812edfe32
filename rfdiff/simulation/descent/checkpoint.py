"""States of a training on disk, whole or absent, with the names and hashes of all they depend on: a resumed run is the same to the bit.

A folder `seed-R` for each replica holds the last two states, `step-K.npz`. A state of another run is refused with what differs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata as packages
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.files.atomic import read_arrays, write_arrays
from rfdiff.simulation.descent.loop import State, owned
from rfdiff.value_types import as_number, set_field

KEPT = 2
PROBE = np.linspace(-4, 4, 65)  # arguments at which activations are told apart


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often the state of a training is kept.

    Args:
        folder: replica R is kept in FOLDER/seed-R.
        seconds: least time ≥ 0 between two states on disk; 0 keeps one after every chunk. The last one is always kept.
        label: description of the optimiser, for what its first updates do not show (a schedule); a resumed run must give the same.

    Raises:
        InputError: a folder that is no path, a negative time, a label that is not text.
    """

    folder: Path
    seconds: float = 60.0
    label: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | Path):
            raise InputError(f"folder: {self.folder!r}; allowed: a path")
        if not 0 <= as_number(self.seconds) < np.inf:
            raise InputError(f"seconds: {self.seconds!r}; allowed: a finite number >= 0")
        if not isinstance(self.label, str):
            raise InputError(f"label: {self.label!r}; allowed: text")
        set_field(self, "folder", Path(self.folder).expanduser())


def identity(parts: Mapping[str, PyTree]) -> dict[str, str]:
    """Hashes of everything a state depends on, by name; the versions of rfdiff, JAX, optax and numpy and the device are added.

    Args:
        parts: text, numbers, random keys, arrays or pytrees of these, and activations (told by name and values).
    """
    device = jax.local_devices()[0]
    versions = tuple(packages.version(name) for name in ("rfdiff", "jax", "jaxlib", "optax", "numpy"))
    everything = {**parts, "versions": versions, "device": f"{device.platform} {device.device_kind}"}
    return {name: _digest(value) for name, value in everything.items()}


def save_state(folder: Path, state: State, identity: Mapping[str, str]) -> None:
    """Keep a state, and the one before it.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {f"leaf_{i}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    write_arrays(folder / f"step-{int(state.step):012d}.npz", {"identity": np.array(json.dumps(dict(identity))), **leaves})
    for old in _state_files(folder)[:-KEPT]:
        old.unlink()


def load_state(folder: Path, template: State, identity: Mapping[str, str]) -> State | None:
    """The newest state kept, None if there is none.

    Args:
        folder: of the replica.
        template: a state of the same run, for the shapes and types.
        identity: that of this run.

    Raises:
        InputError: naming the file: a damaged one, or one of another run and what differs.
    """
    files = _state_files(folder)
    if not files:
        return None
    path, remedy = files[-1], f"delete it to go on from {files[-2].name}" if len(files) > 1 else "delete it to start again"
    stored = read_arrays(path, remedy)
    leaves, structure = jax.tree.flatten(template)
    try:
        theirs = dict(json.loads(str(stored["identity"])))
        differing = sorted(name for name in {*theirs, *identity} if theirs.get(name) != identity.get(name))
        if not differing:
            return owned(jax.tree.unflatten(structure, [_restored(stored[f"leaf_{i}"], leaf) for i, leaf in enumerate(leaves)]))
    except (KeyError, ValueError, TypeError) as err:
        raise InputError(f"{path}: damaged checkpoint ({err}); {remedy}") from err
    raise InputError(f"{path}: checkpoint of another run (other {', '.join(differing)}); allowed: another folder, or the same run")


def _state_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.npz"))


def _is_key(leaf: jax.Array | np.ndarray) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _plain(leaf: jax.Array | np.ndarray) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _restored(array: np.ndarray, like: jax.Array) -> jax.Array:
    """An array as the leaf it was; types that NumPy's files do not know (bfloat16) come back as bytes of their length."""
    plain = _plain(like)
    if array.shape != plain.shape or array.dtype.itemsize != plain.dtype.itemsize:
        raise InputError(f"an array of shape {array.shape} and type {array.dtype} in place of {plain.shape} and {plain.dtype}")
    value = jnp.asarray(array.view(plain.dtype))
    return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like)) if _is_key(like) else value


def _digest(value: PyTree) -> str:
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(value):  # structure would bring addresses of functions in, which differ from process to process
        if isinstance(leaf, Activation):
            total.update(leaf.name.encode() + np.asarray(leaf(PROBE.astype(np.float32))).tobytes())
        elif isinstance(leaf, jax.Array | np.ndarray):
            array = _plain(leaf)
            total.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
        else:
            total.update(repr(leaf).encode())
    return total.hexdigest()[:16]
