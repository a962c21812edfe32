"""Docstrings as the site shows them: their formulas are plain text, and what they cite are links.

A docstring is written to be read in a terminal. Outside of `literals` its asterisks, bars and underscores mean themselves, an indented line
is a formula, docs/theory/NAME.md is a page of the theory, and eq-NAME the label of an equation there: in the source of the page it stands
behind the equation, on the site it becomes the equation's number. Sphinx warns of a page or a label that does not exist.
"""

import re
from typing import Any

from sphinx.application import Sphinx

CITED = re.compile(r"docs/((?:theory/)?\w+)\.md")
EQUATION = re.compile(r"(?<![\w`-])(eq-[a-z]+(?:-[a-z]+)*)\b")
HEADINGS = ("Args:", "Returns:", "Raises:", "Reference:", "Yields:", "Attributes:")


def _escaped(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([*|\\])", r"\\\1", parts[i])
        parts[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", parts[i])
    return "".join(parts)


def _linked(line: str) -> str:
    return EQUATION.sub(r"equation :eq:`\1`", CITED.sub(r":doc:`/\1`", line))


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place."""
    result: list[str] = []
    prose = True  # before the first heading an indented line is a formula
    formula = False
    for line in lines:
        if line.strip() in HEADINGS or line.startswith(HEADINGS):
            prose = False
        indented = prose and line.startswith("    ")
        if indented and not formula:
            while result and not result[-1].strip():
                result.pop()
            result += ["", "::", ""]
        if formula and not indented and line.strip() and result and result[-1].strip():
            result.append("")
        if line.strip() or not formula:
            formula = indented
        result.append(line if indented else _escaped(_linked(line)))
    lines[:] = result


# types of arrays as signatures spell them out, with or without the modules in which they lie
_AT = r"~?(?:\w+\.)*"
_SUPPORTS = rf"{_AT}_SupportsArray\[{_AT}dtype\[{_AT}Any\]\]"
ARRAY_LIKE = re.compile(
    rf"{_AT}_?Buffer \| {_SUPPORTS} \| {_AT}_NestedSequence\[{_SUPPORTS}\] \| complex \| bytes \| str"
    rf" \| {_AT}_NestedSequence\[complex \| bytes \| str\]"
)
SHAPED = re.compile(rf"({_AT}\w+)\[_?Buffer, ('[^']*')\](?: \| {_AT}\w+\[\w+, \2\])+")


def named(text: str) -> str:
    """A signature with the types of arrays under the names that users know them by."""
    return SHAPED.sub(r"\1[ArrayLike, \2]", ARRAY_LIKE.sub("ArrayLike", text)).replace("jaxlib._jax.Array", "jax.Array")


def shorten(app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returned: str | None) -> Any:
    """Types under the names that users know them by."""
    return (None if signature is None else named(signature)), (None if returned is None else named(returned))


def setup(app: Sphinx) -> dict[str, bool]:
    """Before napoleon, which has priority 500."""
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}
