"""What every experiment shares: one command line, cells that resume, a result file, a figure, and a README whose numbers come from the file.

An experiment is a folder with a thin `run.py` that defines

    compute(cells, smoke) -> xarray.Dataset       the numbers, from theory and simulation
    table(dataset) -> str                         what the README shows of them, in markdown
    verdict(dataset) -> [(statement, holds), …]   what would falsify the claim, evaluated
    draw(dataset) -> matplotlib Figure

and ends in `main(__file__, compute, table, verdict, draw)`. Commands: `python run.py` computes and writes result.nc, figure.png and the
README's numbers; `--smoke` does the same at toy size into --out; `--check` reads the committed result and tests README and claim against it.
"""

import argparse
import hashlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rfdiff import LearningCurves, times
from rfdiff._files import replacing
from rfdiff.datasets import load_dataset, save_dataset
from rfdiff.plots import save_figure
from rfdiff.report import readings

START, END = "<!-- numbers -->", "<!-- /numbers -->"
TIME_NAMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")

Verdict = list[tuple[str, bool]]


class Cells:
    """Pieces of an experiment, each kept on disk as soon as it is done, with a line of progress and the time left."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / f"cells-{name}.partial"
        self.start = time.monotonic()
        self.done = self.computed = 0

    def run(self, jobs: Sequence[tuple[Any, Callable[[], dict[str, Any]]]], label: str) -> list[dict[str, np.ndarray]]:
        """Results of jobs, each a key (everything its result depends on) and a function; finished ones are read back."""
        results = []
        for i, (key, job) in enumerate(jobs):
            path = self.folder / f"{hashlib.sha256(repr((label, key)).encode()).hexdigest()[:16]}.npz"
            if not path.is_file():
                found = job()
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary, open(temporary, "wb") as handle:
                    np.savez(handle, allow_pickle=False, **{name: np.asarray(value) for name, value in found.items()})
                self.computed += 1
                spent = time.monotonic() - self.start
                left = spent / self.computed * (len(jobs) - i - 1)
                print(f"{label}: {i + 1}/{len(jobs)}, {spent:.0f} s, about {left:.0f} s left", file=sys.stderr, flush=True)
            with np.load(path, allow_pickle=False) as stored:
                results.append({name: stored[name] for name in stored.files})
        return results


def read_times(curves: LearningCurves, q: float = 0.5) -> dict[str, np.ndarray]:
    """The four times (K,) of a set of curves, and of a simulation their standard errors over seeds."""
    found = times(curves, q)
    values = {name: np.asarray(getattr(found, name)) for name in TIME_NAMES}
    if curves.source == "simulation":
        values |= {f"{name}_stderr": error for name, error in zip(TIME_NAMES, readings(curves, q)[1][:4], strict=True)}
    return values


def stacked(results: list[dict[str, np.ndarray]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One reading of all cells as an array (*shape, …)."""
    return np.stack([result[name] for result in results]).reshape(*shape, *results[0][name].shape)


def number(value: float, digits: int = 3) -> str:
    """A number for a table: `digits` significant ones, words for what is none."""
    if np.isnan(value):
        return "–"
    return "∞" if np.isinf(value) else f"{value:.{digits}g}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def block(table: str, claims: Verdict) -> str:
    """The README's block of numbers: the table and, line by line, whether the claim holds."""
    lines = [f"- {'holds' if holds else '**does not hold**'}: {statement}" for statement, holds in claims]
    return f"{START}\n{table}\n\n" + "\n".join(lines) + f"\n{END}"


def main(file: str, compute: Any, table: Any, verdict: Any, draw: Any) -> None:
    """Command line of an experiment; exits with 0 if its claims hold, 1 if one does not, 2 on bad input, 130 when interrupted."""
    home = Path(file).resolve().parent
    parser = argparse.ArgumentParser(description=f"Experiment {home.name}; see its README.md.")
    parser.add_argument("--smoke", action="store_true", help="toy size, to see that everything runs; needs --out")
    parser.add_argument("--out", type=Path, help="folder of result.nc and figure.png; the experiment's own if not given")
    parser.add_argument("--check", action="store_true", help="read the committed result and test the README and the claims against it")
    options = parser.parse_args()
    if options.smoke and options.out is None:
        parser.error("--smoke: needs --out, so that it cannot replace the committed result")
    try:
        sys.exit(check(home, table, verdict) if options.check else run(home, options, compute, table, verdict, draw))
    except KeyboardInterrupt:
        print("interrupted; finished cells are kept, the same command goes on from them", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as err:
        print(f"{home.name}: {err}", file=sys.stderr)
        sys.exit(2)


def run(home: Path, options: argparse.Namespace, compute: Any, table: Any, verdict: Any, draw: Any) -> int:
    """Compute, write, draw, print; and the README's numbers where the result is the experiment's own."""
    out: Path = home if options.out is None else options.out
    out.mkdir(parents=True, exist_ok=True)
    cells = Cells(out, "smoke" if options.smoke else "full")
    dataset = compute(cells, options.smoke)
    path = save_dataset(dataset, out / "result.nc", experiment=home.name, minutes=round((time.monotonic() - cells.start) / 60, 1))
    shutil.rmtree(cells.folder, ignore_errors=True)
    dataset = load_dataset(path)
    save_figure(draw(dataset), out / "figure.png")
    claims = verdict(dataset)
    print(block(table(dataset), claims))
    if out == home:
        readme = home / "README.md"
        with replacing(readme) as temporary:
            temporary.write_text(with_block(readme.read_text(encoding="utf-8"), block(table(dataset), claims)), encoding="utf-8")
    return 0 if all(holds for _, holds in claims) else 1


def check(home: Path, table: Any, verdict: Any) -> int:
    """Whether the committed result satisfies the claims and the README shows just its numbers."""
    dataset = load_dataset(home / "result.nc")
    claims = verdict(dataset)
    shown = block(table(dataset), claims)
    if shown not in (home / "README.md").read_text(encoding="utf-8"):
        print(f"{home.name}: the numbers in README.md are not those of result.nc", file=sys.stderr)
        return 1
    return 0 if all(holds for _, holds in claims) else 1


def with_block(text: str, shown: str) -> str:
    """A README with its block of numbers replaced.

    Raises:
        ValueError: it has no such block, or several.
    """
    pattern = re.escape(START) + ".*?" + re.escape(END)
    if len(re.findall(pattern, text, re.DOTALL)) != 1:
        raise ValueError(f"README.md: allowed: exactly one block from {START} to {END}")
    return re.sub(pattern, lambda _: shown, text, flags=re.DOTALL)


def dataset_of(coordinates: dict[str, Any], variables: dict[str, tuple[Sequence[str], Any, str]]) -> xr.Dataset:
    """A dataset from {name: (dimensions, values, long name)}; training times are in the unit set by κ."""
    data = {name: (tuple(dims), np.asarray(values), {"long_name": text, "units": "1"}) for name, (dims, values, text) in variables.items()}
    return xr.Dataset(data, {name: (name, np.asarray(values)) for name, values in coordinates.items()})
