"""What every reader returns: samples as they stand in their file, a label for each, and where each came from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rfdiff.errors import InputError
from rfdiff.machine_memory import MIB, machine_bytes

MEMORY_SHARE = 0.5  # of the machine's memory, that the samples may take as float64


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as read.

    Args:
        samples: (N, ...) numbers, one sample along the first axis.
        labels: (N,) numbers or text.
        source: the file or folder.
        place: what a message calls a row, such as "line 7" or the name of an image.
    """

    samples: np.ndarray
    labels: np.ndarray
    source: Path
    place: Callable[[int], str]


def require_memory(path: Path, shape: tuple[int, ...]) -> None:
    """Refuse samples that would not fit.

    Raises:
        InputError: naming the file, the shape and what is allowed.
    """
    needed, there = 8 * float(np.prod(shape, dtype=float)), machine_bytes()
    if there is not None and needed > MEMORY_SHARE * there:
        raise InputError(
            f"{path}: samples of shape {shape} take {needed / MIB:,.0f} MiB as float64; "
            f"allowed: at most {MEMORY_SHARE * there / MIB:,.0f} MiB, half of the machine's memory"
        )


def one_line(err: BaseException) -> str:
    """The message of an exception without its line breaks, or its type where it has none."""
    return " ".join(str(err).split()) or type(err).__name__


def row(i: int) -> str:
    """The place of a sample that has no other name."""
    return f"row {i}"
