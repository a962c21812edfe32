"""Finished seeds of an interrupted run on disk, one small file each: a seed is a `SeedBatch` of one replica."""

from pathlib import Path

from rfdiff.errors import InputError
from rfdiff.files.atomic import read_arrays, write_arrays
from rfdiff.simulation.seed_batches import SeedBatch

REMEDY = "delete it to compute this seed again"


def save_seed(folder: Path, batch: SeedBatch) -> None:
    """Store the result of one seed as FOLDER/seed-R.npz, whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_arrays(_file(folder, int(batch.seeds[0])), batch.to_arrays())


def holds(folder: Path, seed: int) -> bool:
    """Whether the result of a seed is stored."""
    return _file(folder, seed).is_file()


def load_seed(folder: Path, seed: int) -> SeedBatch | None:
    """The stored result of one seed, None if there is none.

    Raises:
        InputError: a damaged file; the message names it.
    """
    path = _file(folder, seed)
    if not holds(folder, seed):
        return None
    arrays = read_arrays(path, REMEDY)
    try:
        return SeedBatch.from_arrays(arrays)
    except InputError as err:
        raise InputError(f"{path}: damaged checkpoint ({err}); {REMEDY}") from err


def _file(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.npz"
