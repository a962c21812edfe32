"""Finished parts of an interrupted computation, one small file each, so that the same command resumes where it was stopped.

The parts are the seeds of a simulation, the chunks of cells of a map, or the points of a measurement. The folder's name holds a hash of
everything a part depends on (not the number of seeds, which a seed does not depend on): another command finds another folder, and a longer
simulation of the same problem takes over the seeds it shares.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.files.atomic import read_arrays, write_arrays
from rfdiff.files.provenance import computing_versions
from rfdiff.problem import Problem
from rfdiff.rules import Rule, rule_numbers

LAYOUT = 4


def folder_for(
    out: Path,
    problem: Problem,
    taus: ArrayLike | None,
    d: int,
    key: jax.Array,
    rule: Rule,
    dtype: str,
    solver: str = "exact",
    krylov_tolerance: float | None = None,
) -> Path:
    """Where the seeds of a run are kept until its result is written: OUT/seeds-HASH.partial.

    Args:
        out: folder of the results.
        problem, taus, d, key, rule, dtype, solver, krylov_tolerance: what the result of a seed depends on, beside the versions of
            rfdiff and JAX.
    """
    times = None if taus is None else np.asarray(taus, np.float64).tolist()
    words = np.asarray(jax.random.key_data(key)).tolist()
    parts = (LAYOUT, problem.record(), times, d, words, rule.name, rule_numbers(rule), dtype, solver, krylov_tolerance, _versions())
    return out / f"seeds-{_digest(parts)}.partial"


def map_folder(out: Path, problem: Problem, axes: Mapping[str, Any], q: float, tolerance: float, rule: Rule) -> Path:
    """Where the chunks of a map are kept until its result is written: OUT/cells-HASH.partial.

    Args:
        out: folder of the results.
        problem, axes, q, tolerance, rule: what the cells depend on, beside the versions of rfdiff and JAX.
    """
    values = [(name, np.asarray(v, np.float64).tolist()) for name, v in axes.items()]
    parts = (LAYOUT, problem.record(), values, q, tolerance, rule.name, rule_numbers(rule), _versions())
    return out / f"cells-{_digest(parts)}.partial"


def measurement_folder(out: Path, problem: Problem, *numbers: object) -> Path:
    """Where the points of a measurement are kept until its result is written: OUT/points-HASH.partial.

    Args:
        out: folder of the results.
        problem, numbers: what a point depends on, beside the versions of rfdiff and JAX.
    """
    return out / f"points-{_digest((LAYOUT, problem.record(), numbers, _versions()))}.partial"


class KeptArrays(MutableMapping[str, Mapping[str, np.ndarray]]):
    """Named groups of arrays as files of a folder, each whole or absent; the folder is made with the first.

    Args:
        folder: where they are kept.

    Raises:
        InputError: on reading a damaged file; the message names it.
        OSError: on writing to a folder that cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> dict[str, np.ndarray]:
        if not self._file(name).is_file():
            raise KeyError(name)
        return read_arrays(self._file(name), "delete it to compute these cells again")

    def __setitem__(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(self._file(name), arrays)

    def __delitem__(self, name: str) -> None:
        self._file(name).unlink()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self.folder.glob("[!.]*.npz")))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npz"


def remove(folder: Path) -> None:
    """Forget the kept parts, once the result that holds them is written.

    Raises:
        OSError: the folder cannot be removed.
    """
    if folder.exists():
        shutil.rmtree(folder)


def _digest(parts: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _versions() -> tuple[str, ...]:
    return tuple(computing_versions().values())
