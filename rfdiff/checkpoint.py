"""Finished seeds of an interrupted simulation, one small file a seed, so that the same command goes on where it was stopped.

The folder's name holds a hash of everything a seed's result depends on (not the number of seeds, which it does not depend on): another
command finds another folder, and a longer run of the same problem takes over the seeds it shares.
"""

import dataclasses
import hashlib
import shutil
import zipfile
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfdiff._files import replacing
from rfdiff.problem import Problem
from rfdiff.simulation import SeedBatch

LAYOUT = 1


def folder_for(out: Path, problem: Problem, taus: Any, d: int, key: jax.Array, rule: Any, dtype: str) -> Path:
    """Where the seeds of a run are kept until its result is written: OUT/seeds-HASH.partial.

    Args:
        out: folder of the results.
        problem, taus, d, key, rule, dtype: what the result of a seed depends on, beside the versions of rfdiff and JAX.
    """
    numbers = {field.name: np.asarray(getattr(rule, field.name)).tolist() for field in dataclasses.fields(rule)}
    times = None if taus is None else np.asarray(taus, np.float64).tolist()
    words = np.asarray(jax.random.key_data(key)).tolist()
    parts = (LAYOUT, problem.to_toml(), times, d, words, type(rule).__name__, numbers, dtype, _versions())
    return out / f"seeds-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}.partial"


def save_seed(folder: Path, batch: SeedBatch) -> None:
    """Keep the result of one seed, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(_file(folder, int(batch.seeds[0]))) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, allow_pickle=False, **{field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)})


def holds(folder: Path, seed: int) -> bool:
    """Whether the result of a seed is kept."""
    return _file(folder, seed).is_file()


def load_seed(folder: Path, seed: int) -> SeedBatch | None:
    """The kept result of one seed, None if there is none.

    Raises:
        ValueError: a damaged file; the message names it.
    """
    path = _file(folder, seed)
    if not holds(folder, seed):
        return None
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            fields = {name: stored[name] for name in stored.files}
        plain = {name: fields.pop(name).item() for name in ("kappa", "dimension", "dtype")}
        return SeedBatch(**fields, **plain)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as err:
        raise ValueError(f"{path}: damaged checkpoint ({err}); delete it to compute this seed again") from err


def remove(folder: Path) -> None:
    """Forget the kept seeds, once the result that holds them is written.

    Raises:
        OSError: the folder cannot be removed.
    """
    if folder.exists():
        shutil.rmtree(folder)


def _file(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.npz"


def _versions() -> tuple[str, ...]:
    return tuple(packages.version(name) for name in ("jax", "jaxlib"))
