"""Losses of each class along somebody's own training, as a CSV holds them: columns step, class, train, held_out."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from rfdiff.errors import InputError
from rfdiff.value_types import value_type, vectorize_text

COLUMNS = ("step", "class", "train", "held_out")
LEAST_STEPS = 8  # different steps in a record: blocks of them give the error of the fit
LEAST_LOSSES = 6  # losses of a class, twice the numbers that are fitted to them
EXAMPLE = "allowed: a CSV with the columns step, class, train, held_out and one row for each step and class"


@value_type
class LossRecord:
    """Losses of a training at N rows, one for each step and class.

    Args:
        step: (N,) training step, ≥ 0.
        member: (N,) number of the class, 0 … K-1.
        train, held_out: (N,) losses of the class on its train and on its held-out samples; NaN where one was not measured.
    """

    step: Float[np.ndarray, " N"]
    member: Int[np.ndarray, " N"]
    train: Float[np.ndarray, " N"]
    held_out: Float[np.ndarray, " N"]

    @property
    def last_step(self) -> float:
        """The last step of the record."""
        return float(np.max(self.step))


def read_losses(path: str | Path, class_names: Sequence[str]) -> LossRecord:
    """The record in a CSV.

    The first line names the columns: `step`, `class`, and `train`, `held_out` or both; other columns are ignored. An empty cell is a
    loss that was not measured. Rows may have any order.

    Args:
        path: the file; ~ stands for the home folder.
        class_names: K names of the classes, as the column `class` holds them.

    Raises:
        InputError: a file that cannot be read; columns that are missing; a line with too few or too many cells; a cell that is not a
            number; an unknown class; a step and class that stand twice; too few steps or losses. The message names the file and the line.
    """
    file = Path(path).expanduser()
    names = [str(name) for name in class_names]
    rows: dict[tuple[float, int], tuple[float, float]] = {}
    lines = _lines(file)
    _, header = next(lines, (1, []))
    places = _columns(file, [word.strip() for word in header])
    for number, cells in lines:
        where = f"{file}: line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells; allowed: {len(header)}, as many as the first line has")
        row = {name: cells[place].strip() for name, place in places.items()}
        step, member = _number(where, "step", row["step"]), _member(where, row["class"], names)
        if not 0 <= step < math.inf:
            raise InputError(f"{where}: step is {row['step']}; allowed: a finite number >= 0")
        losses = tuple(_number(where, name, row[name]) if row.get(name) else math.nan for name in COLUMNS[2:])
        if (step, member) in rows:
            raise InputError(f"{where}: step {row['step']} of class {names[member]} stands twice; allowed: one row for each step and class")
        rows[step, member] = (losses[0], losses[1])
    if not rows:
        raise InputError(f"{file}: no rows below the first line; {EXAMPLE}")
    keys, values = np.array(list(rows), np.float64), np.array(list(rows.values()))
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    record = LossRecord(keys[order, 0], keys[order, 1].astype(np.int64), values[order, 0], values[order, 1])
    _check_amount(file, record, names)
    return record


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a CSV that are not empty, with their numbers from 1."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except UnicodeDecodeError as err:
        raise InputError(f"{file}: is not text in UTF-8 (byte {err.start}); {EXAMPLE}") from err
    except csv.Error as err:
        raise InputError(f"{file}: cannot be read as CSV ({err}); {EXAMPLE}") from err
    except OSError as err:
        raise InputError(f"{file}: cannot be read ({err.strerror or err})") from err


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    """The place of each column that is there."""
    for name in COLUMNS:
        if header.count(name) > 1:
            raise InputError(f"{file}: column {name} stands twice; {EXAMPLE}")
    places = {name: header.index(name) for name in COLUMNS if name in header}
    missing = [name for name in COLUMNS[:2] if name not in places]
    if missing or not {"train", "held_out"} & places.keys():
        absent = " and ".join(missing) or "train and held_out"
        found = vectorize_text(header, str) if header else "nothing"
        raise InputError(f"{file}: line 1 holds {found}, without {absent}; {EXAMPLE}")
    return places


def _number(where: str, name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise InputError(f"{where}: {name} is {word!r}; allowed: a number{'' if name == 'step' else ', or an empty cell'}") from None
    if name != "step" and not math.isfinite(value):
        raise InputError(f"{where}: {name} is {word}; allowed: a finite number, or an empty cell")
    return value


def _member(where: str, word: str, names: list[str]) -> int:
    if word not in names:
        raise InputError(f"{where}: class is {word!r}; allowed: {', '.join(names)}, the classes of the result")
    return names.index(word)


def _check_amount(file: Path, record: LossRecord, names: list[str]) -> None:
    """Refuse a record that is too short for a fit."""
    steps = np.unique(record.step).size
    if steps < LEAST_STEPS:
        raise InputError(f"{file}: {steps} different steps; allowed: at least {LEAST_STEPS}")
    counts = np.bincount(record.member, np.isfinite(record.train).astype(int) + np.isfinite(record.held_out), len(names))
    for c in np.unique(record.member):
        if counts[c] < LEAST_LOSSES:
            raise InputError(f"{file}: {counts[c]:.0f} losses of class {names[c]}; allowed: {LEAST_LOSSES} or more, or no row of the class")
