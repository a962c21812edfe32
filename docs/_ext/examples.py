"""Examples of the public names: one file of doctests for each page of the interface, docs/examples/PAGE.txt.

A file begins with what its examples share. Then each public name has a section `## name`. Both the site and the tests read them here.
"""

import importlib
import re
from collections.abc import Collection
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "examples"
HEADING = re.compile(r"^## (\w+)[ \t]*$", re.MULTILINE)
PROMPT = ">>> "
SUBPACKAGES = ("theory", "simulation", "backward", "design", "diagnosis", "calibration", "generation", "plots", "datasets")


def public_names() -> dict[str, list[str]]:
    """The names of each page of the interface, in the order in which they are shown."""
    names = {"rfdiff": sorted(importlib.import_module("rfdiff").HOMES)}
    return names | {page: sorted(importlib.import_module(f"rfdiff.{page}").__all__) for page in SUBPACKAGES}


class ExampleError(ValueError):
    """A public name without an example, or an example of nothing public."""


def split(text: str) -> tuple[str, dict[str, str]]:
    """What the examples of a page share, and the example of each name.

    Raises:
        ExampleError: a name that occurs twice.
    """
    shared, *rest = HEADING.split(text)
    names, bodies = rest[::2], rest[1::2]
    if len(set(names)) < len(names):
        raise ExampleError(f"two examples of {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
    return shared.strip(), {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def check(page: str, examples: Collection[str], names: Collection[str]) -> None:
    """Refuse examples that are not those of the public names.

    Raises:
        ExampleError: naming what is missing, or too much.
    """
    missing, unknown = sorted(set(names) - set(examples)), sorted(set(examples) - set(names))
    if missing:
        raise ExampleError(f"docs/examples/{page}.txt has no example of {', '.join(missing)}")
    if unknown:
        raise ExampleError(f"docs/examples/{page}.txt has examples of {', '.join(unknown)}, which are not public")


def of_page(page: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """The examples of a page of the interface: what they share, and one for each name.

    Raises:
        ExampleError: no such file, an example without code, or examples that are not those of the names.
    """
    path = FOLDER / f"{page}.txt"
    if not path.exists():
        raise ExampleError(f"docs/examples/{page}.txt is missing")
    shared, examples = split(path.read_text(encoding="utf-8"))
    check(page, examples, names)
    empty = [name for name, text in examples.items() if PROMPT not in text]
    if empty:
        raise ExampleError(f"docs/examples/{page}.txt shows no code for {', '.join(empty)}")
    return shared, examples


def markdown(text: str) -> str:
    """Prose and code of an example for a page of the site."""
    blocks = re.split(r"\n{2,}", text)
    return "\n\n".join(f"```pycon\n{block}\n```" if block.startswith(PROMPT) else block for block in blocks).replace("<BLANKLINE>", "")
