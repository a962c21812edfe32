"""The folder of a sweep: one whole file a finished cell, one record a failed one, a manifest. Nothing else records what is done.

    DIR/manifest.json       the specification, the cells with their coordinates, the versions
    DIR/cells/NAME.nc       result of a finished cell (`rfdiff.files.result_file`; NAME is the hash of what it depends on)
    DIR/failures/NAME.json  diagnosis of a failed one

Every file is written beside its place, flushed and renamed: a process that is killed leaves at most a hidden `.partial` file, which no
reader takes for a result and which the next run removes. One process at a time works in a folder, held by a lock that dies with it.
"""

import contextlib
import dataclasses
import datetime
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.files import result_file
from rfdiff.files.atomic import expanded, replacing
from rfdiff.files.lock import locked
from rfdiff.files.provenance import Entry, version_of
from rfdiff.sweep.cells import Cell, cells_of, problem_of
from rfdiff.sweep.specification import THEORY, Sweep, point_of, sweep_from_dict

FORMAT = "rfdiff sweep"
FORMAT_VERSION = 1
DONE, FAILED, MISSING = "done", "failed", "missing"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder's manifest says.

    Args:
        sweep: the specification.
        versions: versions that the cells are computed with.
        cells: the cells.
    """

    sweep: Sweep
    versions: dict[str, str]
    cells: list[Cell]


class Folder:
    """Files of a sweep.

    Args:
        path: the folder; made by `begin`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = expanded(path)
        self.manifest = path / "manifest.json"
        self.cells, self.failures = path / "cells", path / "failures"

    def result(self, name: str) -> Path:
        """File of the result of a cell."""
        return self.cells / f"{name}.nc"

    def failure(self, name: str) -> Path:
        """File of the diagnosis of a cell."""
        return self.failures / f"{name}.json"

    def states(self, cells: Iterable[Cell]) -> dict[str, str]:
        """State of each cell, from the files that are there: done, failed or missing."""
        done = {path.name for path in self.cells.glob("*.nc")}
        failed = {path.name for path in self.failures.glob("*.json")}
        return {cell.name: DONE if f"{cell.name}.nc" in done else FAILED if f"{cell.name}.json" in failed else MISSING for cell in cells}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, making it if it is absent; leftovers of killed processes are removed.

        Raises:
            InputError: another process holds it, or it cannot be written to.
        """
        try:
            for folder in (self.cells, self.failures):
                folder.mkdir(parents=True, exist_ok=True)
            held = contextlib.ExitStack()
            held.enter_context(locked(self.path, "sweep"))
        except OSError as err:
            raise InputError(f"--out: cannot write to {self.path} ({err.strerror or err})") from err
        with held:
            for folder, pattern in ((self.path, ".manifest.json.*.partial"), (self.cells, ".*.partial"), (self.failures, ".*.partial")):
                for leftover in folder.glob(pattern):
                    leftover.unlink()
            yield

    def begin(self, sweep: Sweep, versions: Mapping[str, str]) -> list[Cell]:
        """Write the manifest of a sweep, and return its cells; the folder must be locked.

        A sweep that contains every cell of the one in the folder (more seeds, dimensions, solvers, values of an axis) reuses its cells.
        Any other is refused.

        Raises:
            InputError: the folder holds another sweep, or one of other versions; or its manifest is damaged.
        """
        cells = cells_of(sweep, versions)
        if self.manifest.exists():
            old = self.read()
            if old.versions != dict(versions):
                differing = [f"{name} {old.versions.get(name)}, here {version}" for name, version in versions.items()]
                changed = "; ".join(
                    text for text, name in zip(differing, versions, strict=True) if old.versions.get(name) != versions[name]
                )
                raise InputError(
                    f"--out: the sweep in {self.path} was computed with other versions ({changed}); "
                    "allowed: those versions, or another folder"
                )
            lost = {cell.name for cell in old.cells} - {cell.name for cell in cells}
            if lost:
                raise InputError(
                    f"--out: {self.path} holds another sweep: {len(lost)} of its {len(old.cells)} cells are not in this one; "
                    "allowed: the same sweep, one that adds cells to it, or another folder"
                )
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": dict(versions),
            "specification": tomli_w.dumps(sweep.document),
            "cells": {cell.name: coordinates(sweep, cell) for cell in cells},
        }
        _write_json(self.manifest, document)
        return cells

    def read(self) -> Manifest:
        """The manifest.

        Raises:
            InputError: none there, a damaged one, or one of a newer format; the message names the file.
        """
        document = _read_json(self.manifest, "manifest")
        if document.get("format") != FORMAT:
            raise InputError(f"{self.manifest}: is not the manifest of an rfdiff sweep (format is {document.get('format')!r})")
        version = document.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(f"{self.manifest}: has format version {version!r}; allowed: up to {FORMAT_VERSION}; upgrade rfdiff")
        try:
            sweep = sweep_from_dict(tomllib.loads(document["specification"]))
            cells = cells_of(sweep, document["versions"])
            if {cell.name: coordinates(sweep, cell) for cell in cells} != document["cells"]:
                by = f"; written by rfdiff {document['versions']['rfdiff']}, here {version_of('rfdiff')}"
                raise InputError(f"its cells are not those of its specification{by}")
        except (KeyError, TypeError, AttributeError, ValueError) as err:
            raise InputError(f"{self.manifest}: damaged manifest, or one of another version ({err})") from err
        return Manifest(sweep, document["versions"], cells)

    def keep(self, cell: Cell, curves: LearningCurves, metadata: Mapping[str, Entry]) -> None:
        """Write the result of a cell, whole or not at all, and drop an earlier failure of it.

        Raises:
            OSError: the folder cannot be written to.
        """
        task, problem = cell.task, problem_of(cell.task)
        record: dict[str, Entry] = {"command": "sweep", "cell": cell.name, "solver": task.solver, "rule": task.rule, **metadata}
        if task.random_seed is not None:
            record |= {"random_seed": task.random_seed, "seeds": ", ".join(map(str, task.seeds))}
        closed, drawn = (curves, None) if task.solver == THEORY else (None, curves)
        result_file.save(result_file.Result(problem, theory=closed, simulation=drawn, metadata=record), self.result(cell.name))
        self.failure(cell.name).unlink(missing_ok=True)

    def record_failure(self, cell: Cell, place: Mapping[str, object], diagnosis: Mapping[str, str]) -> None:
        """Write the diagnosis of a cell.

        Raises:
            OSError: the folder cannot be written to.
        """
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        _write_json(self.failure(cell.name), {"cell": cell.name, **place, **diagnosis, "date": date})

    def diagnosis(self, name: str) -> str:
        """Type and message of a failure in one line.

        Raises:
            InputError: a damaged record; the message names it.
        """
        record = _read_json(self.failure(name), "failure record")
        if record.get("cell") != name or not all(isinstance(record.get(key), str) for key in ("type", "message")):
            raise InputError(f"{self.failure(name)}: is not the failure record of this cell")
        return f"{record['type']}: {record['message']}"


def coordinates(sweep: Sweep, cell: Cell) -> dict[str, object]:
    """Place of a cell in the sweep, as the manifest records it."""
    return {"point": point_of(sweep, cell.index), "solver": cell.task.solver, "d": cell.task.d, "seeds": list(cell.task.seeds)}


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as err:
        raise InputError(f"{path}: no such {what}; allowed: a folder that rfdiff sweep wrote") from err
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path}: damaged {what} ({err})") from err
    if not isinstance(document, dict):
        raise InputError(f"{path}: damaged {what} (not an object)")
    return document
