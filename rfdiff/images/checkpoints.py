"""Checkpoints of a run by orbax: one folder a step, whole or absent, every number under a checksum; and the file that describes the run."""

import dataclasses
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfdiff.errors import InputError
from rfdiff.files.atomic import replacing
from rfdiff.files.provenance import provenance, version_of
from rfdiff.images.settings import Settings

RUN, METRICS, FOLDER = "run.json", "metrics.nc", "checkpoints"
FORMAT = "rfdiff images run"


def save(folder: Path, step: int, arrays: Mapping[str, np.ndarray]) -> Path:
    """Keep named arrays as the checkpoint of a step: written beside its place by orbax, renamed, then its checksum is written.

    Raises:
        OSError: it cannot be written; what was kept before stays, and the message says what that is.
    """
    target = _path(folder, step)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, 2 * sum(np.asarray(array).nbytes for array in arrays.values()))
        _checksum_file(target).unlink(missing_ok=True)
        with ocp.PyTreeCheckpointer() as writer:
            writer.save(target.absolute(), dict(arrays), force=True)
        with replacing(_checksum_file(target)) as temporary:
            temporary.write_text(_checksum(target), encoding="ascii")
    except (OSError, ValueError, RuntimeError) as err:  # tensorstore tells of a full disk by a ValueError
        good = next((earlier for earlier in reversed(kept(folder)) if earlier != step), None)
        rest = (
            "no earlier one is kept" if good is None else f"the last one kept is that of step {good}, and the same command resumes from it"
        )
        raise OSError(f"{target}: the checkpoint cannot be written ({_first_line(err)}); {rest}") from err
    return target


def load(folder: Path, step: int, remedy: str = "") -> dict[str, np.ndarray]:
    """The arrays of the checkpoint of a step; `remedy` ends the message about a damaged one.

    Raises:
        InputError: missing, or damaged (its files do not fit their checksum, or cannot be read); the message names it.
    """
    path = _path(folder, step)
    if step not in kept(folder):
        raise InputError(f"{path}: no such checkpoint; allowed: steps {kept(folder)}")
    try:
        if _checksum(path) != _checksum_file(path).read_text(encoding="ascii"):
            raise InputError("its files do not fit their checksum")
        with ocp.PyTreeCheckpointer() as reader:
            names = reader.metadata(path.absolute()).item_metadata.tree
            tree = reader.restore(path.absolute(), restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), names))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as err:
        raise InputError(f"{path}: damaged checkpoint ({_first_line(err)}){remedy}") from err
    return {name: np.asarray(value) for name, value in tree.items()}


def newest(folder: Path) -> tuple[int, dict[str, np.ndarray]] | None:
    """Step and arrays of the newest checkpoint that is whole; damaged ones after it are told on standard error. None without any.

    Raises:
        InputError: there are checkpoints, and all are damaged.
    """
    faults: list[str] = []
    for step in reversed(kept(folder)):
        try:
            arrays = load(folder, step)
        except InputError as err:
            faults.append(str(err))
            continue
        for fault in faults:
            print(f"{fault}; going on from step {step}, the last good one", file=sys.stderr, flush=True)
        return step, arrays
    if faults:
        raise InputError(f"{faults[0]}, and no other one is whole; delete {folder / FOLDER} to start again")
    return None


def kept(folder: Path) -> list[int]:
    """Steps whose checkpoints stand in the folder of a run, ascending; one without its checksum was never finished."""
    matches = [(path, re.fullmatch(r"step-(\d{9})", path.name)) for path in (folder / FOLDER).glob("step-*")]
    return sorted(int(match[1]) for path, match in matches if match and path.is_dir() and _checksum_file(path).is_file())


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process left half-written."""
    standing = {_path(folder, step) for step in kept(folder)}
    for path in (folder / FOLDER).glob("step-*"):
        if path.is_dir() and path not in standing:
            shutil.rmtree(path, ignore_errors=True)


class Description(NamedTuple):
    """What the folder of a run says it is.

    Args:
        settings: of the run.
        images_digest: hash of the images that it is trained and measured on.
    """

    settings: Settings
    images_digest: str


def describe(folder: Path, settings: Settings, data_digest: str, extra: Mapping[str, object]) -> None:
    """Write what a run is: settings, hash of its images, versions, and what else is given.

    Raises:
        OSError: the folder cannot be written to.
    """
    versions = {f"{name}_version": version_of(name) for name in ("flax", "optax", "orbax-checkpoint")}
    content = {"format": FORMAT, "settings": settings.record(), "images_sha256": data_digest, **provenance(**versions), **extra}
    with replacing(folder / RUN) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def described(folder: Path) -> Description:
    """What a run's folder says it is.

    Raises:
        InputError: no run, or a damaged description.
    """
    path = folder / RUN
    if not path.is_file():
        raise InputError(f"{path}: no such file; allowed: a folder of rfdiff images train")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"format is {content['format']!r}, expected {FORMAT!r}")
        return Description(Settings.of_record(content["settings"]), str(content["images_sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise InputError(f"{path}: cannot be read as a run ({_first_line(err)})") from err


def refuse_another(folder: Path, settings: Settings, data_digest: str) -> None:
    """Refuse to go on with a run that is another than the settings, except for the number of steps.

    Raises:
        InputError: naming what differs.
    """
    theirs = described(folder)
    here, there = _flat(dataclasses.asdict(settings)), _flat(dataclasses.asdict(theirs.settings))
    differing = [f"{name} is {there[name]!r} there, {here[name]!r} here" for name in here if name != "steps" and here[name] != there[name]]
    if theirs.images_digest != data_digest:
        differing.append("its images are others")
    if differing:
        raise InputError(f"--out: {folder} holds another run ({'; '.join(differing)}); allowed: another folder, or --overwrite")


def _path(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:09d}"


def _check_space(folder: Path, needed: int) -> None:
    """Refuse a disk that is full already: orbax would leave a trail of traces of its pending writes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"no space left: {free:,} bytes are free, {needed:,} may be needed")


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checksum(path: Path) -> str:
    """SHA-256 of the names and bytes of all files of a folder (orbax, given a damaged one, leaves readers behind that never end)."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            total.update(f"{file.relative_to(path)} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A record of records with names joined by points."""
    flat: dict[str, object] = {}
    for name, value in record.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _first_line(err: BaseException) -> str:
    lines = str(err).strip().splitlines()
    return lines[0][:300] if lines else type(err).__name__
