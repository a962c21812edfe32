"""Tables of results: aligned columns for people, CSV and JSON for programs."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

Form = Literal["text", "csv", "json"]
Value = str | int | float | None


BOUND_SIGNS = (">", "<", "…")  # what the text of a number says of which only bounds are known


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Args:
        value: what CSV and JSON hold.
        text: how the terminal shows it.
        error: standard error of the value; NaN without one.
    """

    value: Value
    text: str
    error: float = math.nan


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under headings.

    Args:
        name: what the rows are, for JSON.
        headings: one a column.
        rows: one cell a column.
        grouped: number of leading columns in which the terminal shows a repeated entry once.
    """

    name: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    grouped: int = 0

    def lines(self) -> list[str]:
        """Aligned columns."""
        shown, before = [list(self.headings)], [""] * self.grouped
        for row in self.rows:
            texts = [cell.text for cell in row]
            same = 0
            while same < self.grouped and texts[same] == before[same]:
                same += 1
            before = texts[: self.grouped]
            shown.append([""] * same + texts[same:])
        return columns(shown)

    def records(self) -> list[dict[str, Value]]:
        """Rows as plain values by heading; a column with errors is followed by one of them. NaN is None, or the text of its bounds."""
        with_error = {j for row in self.rows for j, cell in enumerate(row) if not math.isnan(cell.error)}
        records = []
        for row in self.rows:
            record: dict[str, Value] = {}
            for j, (heading, cell) in enumerate(zip(self.headings, row, strict=True)):
                bounded = cell.text.startswith(BOUND_SIGNS) or BOUND_SIGNS[-1] in cell.text
                record[heading] = cell.text if bounded and _plain(cell.value) is None else _plain(cell.value)
                if j in with_error:
                    record[f"{heading} error"] = _plain(cell.error)
            records.append(record)
        return records


def words(text: object) -> Cell:
    """A cell of text."""
    return Cell(str(text), str(text))


def integer(value: int) -> Cell:
    """A cell of a whole number."""
    return Cell(int(value), str(int(value)))


def shown(value: float, form: str, suffix: str = "") -> Cell:
    """A cell of a number in a format of its own ("-" for NaN)."""
    return Cell(float(value), "-" if math.isnan(value) else f"{value:{form}}{suffix}")


def measured(value: float, error: float = math.nan, text: str | None = None) -> Cell:
    """A cell of a number to the digits that its standard error leaves."""
    return Cell(float(value), number(float(value), float(error)) if text is None else text, float(error))


def render(tables: Sequence[Table], form: Form) -> str:
    """Tables as text: all of them for people ("text") and in JSON, the first one in CSV."""
    if form == "json":
        return json.dumps({table.name: table.records() for table in tables}, indent=1)
    if form == "csv":
        records = tables[0].records()
        told = io.StringIO()
        writer = csv.DictWriter(told, list(records[0]) if records else list(tables[0].headings), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return told.getvalue().rstrip("\n")
    return "\n\n".join("\n".join(table.lines()) for table in tables)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns stand below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def number(value: float, error: float = np.nan) -> str:
    """A number to four digits, or to the digits that its standard error leaves (two digits of the error)."""
    if np.isnan(value):
        return "-"
    if not np.isfinite(value) or not np.isfinite(error) or error <= 1e-6 * abs(value):  # an error of 0 too, as of seeds that all agree
        return f"{value:.4g}"
    decimals = 1 - int(np.floor(np.log10(error)))
    if decimals < 0:
        return f"{value:.0f} ± {error:.0f}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _plain(value: Value) -> Value:
    """The value as JSON can hold it: NaN is null, and infinity the word inf."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
