"""Data sets in tables, CSV or Parquet: one sample a row, a column of labels, numbers in all others."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rfdiff.datasets.raw import Raw, one_line, require_memory
from rfdiff.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
EXTRA = "pip install 'rfdiff[data]'"
FIRST_LINE = 2  # of a CSV's samples: the header is line 1


def read_table(path: Path, label_column: str | None) -> Raw:
    """Samples and labels of a CSV or Parquet file.

    Args:
        path: the file, its format by its suffix.
        label_column: the column of labels; None for the one that is called as in `LABEL_COLUMNS`.

    Raises:
        InputError: a file that cannot be read as a table; no column of labels; a cell that is not a number. The message names the column
            and the line (CSV) or row (Parquet, from 0).
    """
    csv = path.suffix.lower() != ".parquet"
    frame = _frame(path, csv)
    name = _label_column(path, [str(column) for column in frame.columns], label_column)
    frame.columns = [str(column) for column in frame.columns]

    def place(i: int) -> str:
        return f"line {i + FIRST_LINE}" if csv else f"row {i}"

    if frame.empty:
        raise InputError(f"{path}: no rows; allowed: one sample a row below the header")
    labels = frame.pop(name)
    if labels.isna().any():
        raise InputError(f"{path}: {place(int(np.argmax(labels.isna())))}: column {name!r} is empty; allowed: a label for each sample")
    if not len(frame.columns):
        raise InputError(f"{path}: no columns beside {name!r}; allowed: at least one column of numbers")
    require_memory(path, frame.shape)
    return Raw(_numbers(path, frame, place), _plain(labels), path, place)


def _frame(path: Path, csv: bool) -> "pd.DataFrame":
    try:
        import pandas as pd
    except ImportError as err:
        raise InputError(f"{path}: reading tables needs pandas: {EXTRA}") from err
    try:
        return pd.read_csv(path, encoding="utf-8-sig", skip_blank_lines=False) if csv else pd.read_parquet(path)
    except ImportError as err:
        raise InputError(f"{path}: reading Parquet needs pyarrow: {EXTRA}") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not text in UTF-8 (byte {err.start}); allowed: a CSV in UTF-8") from err
    except pd.errors.EmptyDataError as err:
        raise InputError(f"{path}: empty; allowed: a header and one sample a row") from err
    except (ValueError, OSError) as err:  # what pandas and pyarrow raise at a malformed file
        raise InputError(f"{path}: cannot be read as {'CSV' if csv else 'Parquet'} ({one_line(err)})") from err


def _label_column(path: Path, columns: list[str], asked: str | None) -> str:
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise InputError(f"{path}: column {sorted(twice)[0]!r} stands twice; allowed: different names")
    if asked is not None:
        if asked not in columns:
            raise InputError(f"{path}: no column {asked!r} (label_column); allowed: one of {_short(columns)}")
        return asked
    there = [column for column in columns if column.lower() in LABEL_COLUMNS]
    if len(there) != 1:
        fault = "no column is" if not there else f"{' and '.join(map(repr, there))} are all"
        raise InputError(
            f"{path}: {fault} called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}; "
            f"allowed: one such column, or its name as label_column, one of {_short(columns)}"
        )
    return there[0]


def _numbers(path: Path, frame: "pd.DataFrame", place: Callable[[int], str]) -> np.ndarray:
    """The cells as numbers; whole numbers stay whole."""
    kinds = {dtype.kind for dtype in frame.dtypes}
    if kinds <= {"i", "u"}:
        return frame.to_numpy()
    if kinds <= {"i", "u", "f", "b"}:
        return frame.to_numpy(dtype=np.float64)
    for name in frame.columns:
        for i, cell in enumerate(frame[name].tolist()):
            try:
                float(cell)
            except (TypeError, ValueError):
                raise InputError(f"{path}: {place(i)}: column {name!r} holds {cell!r}; allowed: a number") from None
    return frame.to_numpy(dtype=np.float64)


def _plain(labels: "pd.Series") -> np.ndarray:
    """Labels as numbers or text of NumPy's own."""
    if labels.dtype.kind in "iufb":
        return np.asarray(labels.to_numpy())
    return np.array([str(label) for label in labels.tolist()])


def _short(columns: list[str]) -> str:
    return ", ".join(columns) if len(columns) <= 8 else f"{', '.join(columns[:6])}, … {columns[-1]} ({len(columns)})"
