"""The folder of a command's results: checked before anything is computed, held against other processes, and filled with figures."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfdiff import plots
from rfdiff.cli.options import Drawing, Redrawing
from rfdiff.cli.terminal import note
from rfdiff.errors import InputError
from rfdiff.files.contents import load_content
from rfdiff.files.lock import NAME as LOCK
from rfdiff.files.lock import locked
from rfdiff.plots.style import SIZES, NotebookFigure, fault_of_names, is_crowded
from rfdiff.problem import Problem
from rfdiff.problem_file import weights_of_record

FORMATS = ("png", "pdf", "svg")


@dataclasses.dataclass(frozen=True)
class Files:
    """The files of a command.

    Args:
        data: name of the file that holds its result; "" where there is none.
        figures: names of its figures without their format, each with the names of its panels.
    """

    data: str
    figures: Mapping[str, Sequence[str]]

    def figure_names(self) -> list[str]:
        """Every name that a figure may have, in every format, alone or by its panels."""
        stems = [name for stem, panels in self.figures.items() for name in (stem, *(f"{stem}_{panel}" for panel in panels))]
        return [f"{stem}.{form}" for stem in stems for form in FORMATS]

    def present(self, folder: Path) -> list[str]:
        """Those that a folder holds."""
        return [name for name in (*[self.data] * bool(self.data), *self.figure_names()) if (folder / name).exists()]


@contextlib.contextmanager
def results_folder(out: Path, files: Files, overwrite: bool) -> Iterator[None]:
    """Make the folder of the results, and hold it until the block ends. What was made for nothing goes: input refused in the block leaves
    no empty folder behind.

    Raises:
        InputError: it holds results, another process works in it, or it is no folder that can be written to.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    prepare_folder(out, files.present(out), overwrite)
    try:
        with locked(out):
            yield
    except InputError:
        _remove_empty(made)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, innermost first, that hold nothing but the lock."""
    with contextlib.suppress(OSError):  # another process has put something there
        for folder in folders:
            if {path.name for path in folder.iterdir()} <= {LOCK}:
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()


def prepare_folder(out: Path, present: Sequence[str], overwrite: bool) -> None:
    """Make a folder, and refuse one that cannot be written to or holds files that were not to be replaced.

    Raises:
        InputError: as said.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if present and not overwrite:
        raise InputError(f"--out: {out} already holds {', '.join(present)}; choose another folder or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe.{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise InputError(f"--out: cannot write to {out} ({err.strerror or err})") from err


@contextlib.contextmanager
def redraw_folder(options: Redrawing, files: Files) -> Iterator[Path]:
    """The folder in which the figures of a file are drawn again, held until the block ends: that of the file, or another, made if need be.

    Raises:
        InputError: another folder than that of the file holds such figures; or another process works in it.
    """
    out = options.file.parent if options.out is None else options.out
    figures = Files("", files.figures) if options.out is not None else Files("", {})
    with results_folder(out, figures, options.overwrite):
        yield out


def redraw_dataset(options: Redrawing, content: str, files: Files, show: Callable[..., int | None]) -> int:
    """Print the tables of a dataset's file and draw its figures again.

    Args:
        options: which file, and how.
        content: what the file holds, one of `files.contents.CONTENTS`.
        files: the files of its command.
        show: draws the figures and prints the tables.

    Returns:
        What `show` returns, or exit status 0.

    Raises:
        InputError: a damaged file, one that lacks what is drawn, or existing figures in another folder than that of the file.
        OSError: the folder cannot be written to.
    """
    dataset = load_content(options.file, content)
    check_drawing(options, dataset.sizes["class"])
    with redraw_folder(options, files) as out:
        return show(dataset, out, options, replace=False) or 0


def check_drawing(drawing: Drawing, num_classes: int) -> None:
    """Refuse sizes and names of classes that figures do not take, before anything is computed.

    Raises:
        InputError: naming the option.
    """
    low, high = SIZES
    if drawing.size is not None and not all(low <= length <= high for length in drawing.size):
        raise InputError(f"--size: {drawing.size[0]:g} {drawing.size[1]:g}; allowed: two lengths in inches, {low:g} to {high:g}")
    if drawing.class_names is not None and len(drawing.class_names) != num_classes:
        raise InputError(f"--class-names: {len(drawing.class_names)} names; allowed: {num_classes}, one for each class")
    if drawing.class_names is not None and (fault := fault_of_names(drawing.class_names)):
        raise InputError(f"--class-names: {fault}")


def drawn(drawing: Drawing, stem: str, draw: Callable[..., NotebookFigure], panels: Sequence[str] = ()) -> dict[str, NotebookFigure]:
    """One figure as the options ask for it, or each of its panels, by the names of their files without the format.

    Args:
        drawing: the options.
        stem: name of the file.
        draw: function of `rfdiff.plots` with its results bound; takes `class_names`, `size` and, where there are several, `panels`.
        panels: names of the panels.
    """
    style: dict[str, Any] = {"class_names": drawing.class_names, "size": drawing.size}
    if not drawing.panels or len(panels) < 2:
        return {stem: draw(**style)}
    return {f"{stem}_{panel}": draw(**style, panels=panel) for panel in panels}


def write_figures(out: Path, files: Files, figures: Mapping[str, NotebookFigure], drawing: Drawing, replace: bool) -> list[str]:
    """Write figures, and remove those that an earlier run left in the folder.

    Args:
        out: the folder.
        files: the files of the command.
        figures: by the names of their files without the format.
        drawing: the format.
        replace: whether figures of an earlier result are removed; not where one file is drawn again.

    Returns:
        The files of the command that the folder holds now because of this run.
    """
    names = [f"{stem}.{drawing.format}" for stem in figures]
    if replace:
        for name in set(files.figure_names()) - set(names):
            (out / name).unlink(missing_ok=True)
    for name, figure in zip(names, figures.values(), strict=True):
        plots.save_figure(figure, out / name)
    if crowded := [name for name, figure in zip(names, figures.values(), strict=True) if is_crowded(figure)]:
        note(f"{', '.join(crowded)}: too small for the labels, which overlap; a larger --size has room for them")
    return [*[files.data] * (out / files.data).exists(), *names]


def loss_weight_lines(problem: Problem) -> list[str]:
    """A line on the weights of the classes in the training loss, where they are not the class fractions."""
    return _weight_lines(problem.loss_weights, problem.mixture.weights)


def loss_weight_lines_of(attributes: Mapping[str, Any]) -> list[str]:
    """The same for the attributes of a dataset that holds the record of its problem (`Problem.record`)."""
    return _weight_lines(*weights_of_record(str(attributes["problem"]))) if "problem" in attributes else []


def _weight_lines(loss_weights: Iterable[float] | None, fractions: Iterable[float]) -> list[str]:
    if loss_weights is None:
        return []
    numbers = (", ".join(f"{value:.4g}" for value in values) for values in (loss_weights, fractions))
    return ["weights of the classes in the training loss: {}; class fractions: {}".format(*numbers)]
