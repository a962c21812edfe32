"""What every experiment shares: command line, cells that survive Ctrl-C, result file, figure, numbers of the README, and the check.

An experiment is a folder with a `run.py` of four functions (and more where the full form needs a GPU):

    compute(smoke, cells) -> xarray.Dataset   the numbers; long work goes through `cells(label, function, arguments)`
    compute_small(cells) -> xarray.Dataset    optional: a form between the full and the smoke form, for `--small`
    compute_finished(cells) -> xarray.Dataset optional: of the runs of the full form that are finished, for `--finished`
    criteria(dataset) -> [Criterion]          what the claim says, as numbers that may break it
    table(dataset) -> str                     Markdown tables of the README
    draw(dataset) -> Figure                   theory and simulation on the same axes

The claim is the first paragraph of the docstring of `run.py`. A claim that its run contradicts stays as it was stated: `CONTRADICTED` in
`run.py` names the criteria that do not hold, `UNDECIDED` those that the result leaves open.

`python -m experiments.NAME.run` computes, writes result.nc and figure.png, and rewrites the README: the paragraph that begins with
**Claim.**, and what is between `<!-- numbers -->` and `<!-- /numbers -->`, namely criteria, tables and cost, from the result file alone.
`--check` compares both with the README.
"""

import argparse
import dataclasses
import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

import rfdiff
from rfdiff.plots import save_figure

HOME = Path(__file__).resolve().parent
OPEN, CLOSE = "<!-- numbers -->", "<!-- /numbers -->"
CLAIM = "**Claim.**"  # how the paragraph of a README begins that says the claim
NOT_RUN = "not run yet"  # what the index and the README of an experiment without a result say
VERDICTS = {True: "yes", False: "**NO**", None: "not decided"}
EXPECTED = {False: "CONTRADICTED", None: "UNDECIDED"}  # attributes of `run.py` that name criteria with these verdicts
Cell = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One line of the verdict on a claim.

    Args:
        name: the quantity that is judged.
        worst: its value where it is nearest to breaking the claim ("s.e." for standard errors).
        allowed: what it may be.
        holds: whether it is; None where the result does not decide it.
    """

    name: str
    worst: str
    allowed: str
    holds: bool | None


class Cells:
    """Runs cells in order, reports progress and time left, and keeps every finished cell until the result is written.

    A kept cell is identified by its label, its argument and the source text of the experiment, of what experiments share and of
    rfdiff: after a change of any source it is computed again.

    Args:
        folder: where finished cells are kept.
        source: source files that a cell's result depends on.
    """

    def __init__(self, folder: Path, source: Sequence[Path]) -> None:
        self.folder, self.seconds = folder, 0.0
        self._stamp = hashlib.sha256(b"\0".join(path.read_bytes() for path in source)).hexdigest()

    def workspace(self) -> Path:
        """Folder for what a cell keeps while it runs; other sources have another one."""
        return self.folder / f"place-{self._stamp[:16]}"

    def __call__(self, label: str, function: Callable[[Any], Cell], arguments: Sequence[Any]) -> list[Cell]:
        """`[function(argument) for argument in arguments]`, resumable.

        Args:
            label: what is being done; distinct for distinct functions of an experiment.
            function: takes one argument, returns named arrays.
            arguments: plain data (numbers, text, lists), as JSON holds it; tuples arrive as they were given.

        Raises:
            ValueError: a damaged kept cell; an argument that JSON does not hold.
        """
        try:
            keys = [json.dumps([self._stamp, label, argument]) for argument in arguments]
        except TypeError as err:
            raise ValueError(f"arguments: {err}; allowed: plain numbers, text, lists and tuples") from err
        paths = [self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz" for key in keys]
        done = sum(path.is_file() for path in paths)
        found = []
        with tqdm(total=len(paths), initial=done, desc=label, unit="cell") as bar:
            for path, argument in zip(paths, arguments, strict=True):
                cell = _load_cell(path) if path.is_file() else None
                if cell is None:
                    start = time.perf_counter()
                    cell = {name: np.asarray(value) for name, value in function(argument).items()}
                    cell["seconds"] = np.asarray(time.perf_counter() - start)
                    _save_cell(path, cell)
                    bar.update(1)
                self.seconds += float(cell.pop("seconds"))
                found.append(cell)
        return found


def stack(cells: Sequence[Cell], name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One named array of all cells, (number of cells, ...), or with `shape` in place of that first axis."""
    values = np.stack([cell[name] for cell in cells])
    return values if shape is None else values.reshape(*shape, *values.shape[1:])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]  # a bare stroke ends a cell
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main(experiment: Any, arguments: Sequence[str] | None = None) -> int:
    """Run the command line of an experiment.

    Args:
        experiment: its module.
        arguments: the command line, that of the process if None.

    Returns:
        Exit status: 0 the claim's criterion holds, 1 it does not (or `--check` found something), 2 bad input, 130 interrupted.
    """
    parser = argparse.ArgumentParser(description=experiment.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a small version with the same criteria, in seconds")
    if hasattr(experiment, "compute_small"):
        parser.add_argument("--small", action="store_true", help="the form for two CPU cores, until the full form replaces its result")
    if hasattr(experiment, "compute_finished"):
        parser.add_argument("--finished", action="store_true", help="train nothing: the result of the finished runs of the full form")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of result.nc and figure.png (default: that of the experiment)")
    parser.add_argument(
        "--check", action="store_true", help="compute nothing: does result.nc support the claim, and is README.md up to date?"
    )
    parser.add_argument("--redraw", action="store_true", help="compute nothing: figure.png and README again, from result.nc")
    options = parser.parse_args(arguments)
    home = folder(experiment)
    out = home if options.out is None else options.out
    if options.smoke and out.resolve() == home:
        print("--smoke: would replace the full result; give another folder with --out", file=sys.stderr)
        return 2
    try:
        if options.check:
            faults = check(experiment, out)
            print("\n".join(faults) or f"{out}: the criterion holds" + " and the README is up to date" * (out.resolve() == home))
            return 1 if faults else 0
        if options.redraw:
            return _present(experiment, out)
        chosen = [form for form in ("smoke", "small", "finished") if getattr(options, form, False)]
        if len(chosen) > 1:
            raise ValueError(f"--{chosen[1]}: given beside --{chosen[0]}; allowed: one of them")
        return _run(experiment, out, *chosen)
    except (ValueError, OSError) as err:
        print(f"{experiment.__name__}: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished cells are kept, and the same command resumes from them", file=sys.stderr)
        return 130


def folder(experiment: Any) -> Path:
    """Folder of an experiment's module."""
    return Path(experiment.__file__).resolve().parent


def experiments() -> dict[str, Any]:
    """Modules of all experiments by the names of their folders."""
    names = sorted(path.parent.name for path in HOME.glob("*/run.py"))
    return {name: importlib.import_module(f"experiments.{name}.run") for name in names}


def result_of(out: Path) -> xr.Dataset:
    """The numbers of an experiment.

    Raises:
        ValueError: no result, or one that is damaged or of another kind.
    """
    result = rfdiff.load(out / "result.nc")
    if not isinstance(result, xr.Dataset):
        raise ValueError(f"{out / 'result.nc'}: holds a {type(result).__name__}; allowed: the dataset that an experiment writes")
    return result


def numbers(experiment: Any, dataset: xr.Dataset) -> str:
    """What is between the markers of a README: criteria, tables, cost and versions, from the result alone."""
    rows = [[one.name, one.worst, one.allowed, VERDICTS[one.holds]] for one in experiment.criteria(dataset)]
    judged = markdown(["criterion", "worst value", "allowed", "holds"], rows)
    at = dataset.attrs
    made = f"{at['seconds'] / 60:.1f} minutes, rfdiff {at['rfdiff_version']}, jax {at['jax_version']}, {at['system']}, {at['date'][:10]}"
    tables = f"## Numbers\n\n{experiment.table(dataset).strip()}"
    return f"## Criteria\n\n{judged}\n\ns.e.: standard errors. Computed in {made}.\n\n{tables}"


def with_numbers(text: str, block: str) -> str:
    """A README with the block between its markers.

    Raises:
        ValueError: not exactly one pair of markers.
    """
    if text.count(OPEN) != 1 or text.count(CLOSE) != 1 or text.index(OPEN) > text.index(CLOSE):
        raise ValueError(f"README: needs {OPEN} and, after it, {CLOSE}, each once")
    return f"{text[: text.index(OPEN)]}{OPEN}\n{block}\n{text[text.index(CLOSE) :]}"


def claim_of(experiment: Any) -> str:
    """The claim of an experiment in one line: the first paragraph of the docstring of its `run.py`."""
    return " ".join((experiment.__doc__ or "").strip().split("\n\n")[0].split())


def with_claim(text: str, claim: str) -> str:
    """A README with the claim in the paragraph that begins with `CLAIM`.

    Raises:
        ValueError: not exactly one such paragraph.
    """
    paragraphs = text.split("\n\n")
    places = [i for i, paragraph in enumerate(paragraphs) if paragraph.startswith(CLAIM)]
    if len(places) != 1:
        raise ValueError(f"README: needs one paragraph that begins with {CLAIM}")
    paragraphs[places[0]] = "\n".join(textwrap.wrap(f"{CLAIM} {claim}", 119, break_on_hyphens=False, break_long_words=False))
    return "\n\n".join(paragraphs)


def check(experiment: Any, out: Path | None = None) -> list[str]:
    """Faults of a committed result: verdicts that `run.py` does not state; in the folder of the experiment also a smoke result, or a README
    that differs or does not say that its claim is contradicted or not decided.

    Raises:
        ValueError: no result, or a damaged one.
    """
    home = folder(experiment)
    out = home if out is None else out
    dataset = result_of(out)
    judged = experiment.criteria(dataset)
    own = out.resolve() == home
    faults = unexpected(experiment, judged, out.name, whole=own)
    if not (out / "figure.png").is_file():
        faults.append(f"{out.name}: no figure.png")
    if own:
        if dataset.attrs.get("smoke"):
            faults.append(f"{out.name}: result.nc is a smoke result")
        text = (home / "README.md").read_text(encoding="utf-8")
        if with_numbers(text, numbers(experiment, dataset)) != text:
            faults.append(f"{out.name}: numbers in README.md are not those of result.nc; run the experiment again")
        if with_claim(text, claim_of(experiment)) != text:
            faults.append(f"{out.name}: the claim in README.md is not that of run.py; run the experiment with --redraw")
        words = [word for holds, word in ((False, "contradict"), (None, "not decided")) if _stated(experiment, holds)]
        before = text[: text.find(OPEN)]
        faults += [f"{out.name}: README.md does not say {word!r} before its numbers" for word in words if word not in before]
    return faults


def unexpected(experiment: Any, judged: Sequence[Criterion], name: str, whole: bool) -> list[str]:
    """Criteria whose verdict is not the one that `run.py` states.

    Args:
        experiment: its module.
        judged: its criteria on a result.
        name: of the result.
        whole: whether all criteria are there, so that a stated verdict of one that is missing is a fault too.
    """
    faults = [] if judged else [f"{name}: no criterion"]
    stated = {one: holds for holds in EXPECTED for one in _stated(experiment, holds)}
    for one in judged:
        if one.holds != stated.get(one.name, True):
            text = {True: "holds", False: "does not hold", None: "is not decided"}[one.holds]
            faults.append(f"{name}: {text}: {one.name}: {one.worst}; allowed: {one.allowed}")
    if whole:
        missing = set(stated) - {one.name for one in judged}
        faults += [f"{name}: no criterion {one!r}, whose verdict run.py states" for one in sorted(missing)]
    return faults


def _stated(experiment: Any, holds: bool | None) -> tuple[str, ...]:
    """Names of the criteria to which `run.py` gives a verdict other than that they hold."""
    return tuple(getattr(experiment, EXPECTED[holds], ()))


def index() -> str:
    """Table of all experiments: claim and minutes."""
    rows = []
    for name, experiment in experiments().items():
        result = HOME / name / "result.nc"
        verdict = " **(contradicted)**" if _stated(experiment, False) else " (not decided)" if _stated(experiment, None) else ""
        rows.append(
            [f"[{name}]({name}/README.md)", claim_of(experiment) + verdict, f"{_seconds(result) / 60:.1f}" if result.exists() else NOT_RUN]
        )
    return markdown(["experiment", "claim", "minutes"], rows)


def _seconds(result: Path) -> float:
    """What a result cost, without reading its arrays."""
    with xr.open_dataset(result, engine="h5netcdf") as data:
        return float(data.attrs["seconds"])


def _run(experiment: Any, out: Path, form: str = "full") -> int:
    home = folder(experiment)
    out.mkdir(parents=True, exist_ok=True)
    if out.resolve() == home:
        text = with_numbers((home / "README.md").read_text(encoding="utf-8"), "")  # before anything expensive: the markers are there
        with_claim(text, claim_of(experiment))
    package = HOME.parent / "rfdiff"
    shared = [*sorted(HOME.glob("*.py")), *sorted(package.rglob("*.py"))]
    cells = Cells(out / "cells.partial", [Path(experiment.__file__), *shared])
    smoke = form == "smoke"
    dataset = getattr(experiment, f"compute_{form}")(cells) if form in ("small", "finished") else experiment.compute(smoke, cells)
    rfdiff.save(dataset, out / "result.nc", smoke=int(smoke), seconds=cells.seconds, experiment=home.name)
    if cells.folder.exists():
        shutil.rmtree(cells.folder)
    return _present(experiment, out)


def _present(experiment: Any, out: Path) -> int:
    """Figure, README numbers and exit status, from the result file alone."""
    dataset = result_of(out)
    own = out.resolve() == folder(experiment)
    save_figure(experiment.draw(dataset), out / "figure.png")
    block = numbers(experiment, dataset)
    print(block)
    if own:
        _write_block(out / "README.md", block, claim_of(experiment))
    print(f"written: result.nc, figure.png{', README.md' * own} in {out}")
    return 1 if unexpected(experiment, experiment.criteria(dataset), out.name, whole=False) else 0


def _write_block(path: Path, block: str, claim: str | None = None) -> None:
    text = with_numbers(path.read_text(encoding="utf-8"), block)
    text = text if claim is None else with_claim(text, claim)
    _write(path, text.encode())


def _save_cell(path: Path, cell: Cell) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **cell)
    _write(path, content.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _load_cell(path: Path) -> Cell:
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise ValueError(f"{path}: damaged cell ({err}); delete it to compute it again") from err


if __name__ == "__main__":
    _write_block(HOME / "README.md", index())
