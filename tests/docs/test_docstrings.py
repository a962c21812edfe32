"""Docstrings and signatures as the site shows them."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from rfdiff import generation, theory
from tests.docs.extensions import extension

pytest.importorskip("sphinx", reason="sphinx is not installed: the extra docs brings it")


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    return extension("docstrings")


def signature_of(thing: Callable[..., Any]) -> str:
    from sphinx.util.inspect import signature, stringify_signature

    return str(stringify_signature(signature(thing), unqualified_typehints=True))


def test_arrays_have_their_usual_names(docstrings: ModuleType) -> None:
    for thing, shown in ((theory.learning_curves, "taus: ArrayLike | None"), (theory.phase_map, "Mapping[str, ArrayLike]")):
        assert "_NestedSequence" in signature_of(thing)
        named = docstrings.named(signature_of(thing))
        assert shown in named and "_NestedSequence" not in named
    named = docstrings.named(signature_of(generation.GridScore))
    assert "Float[ArrayLike, 'G d p']" in named and "_NestedSequence" not in named


def rewritten(docstrings: ModuleType, text: str) -> list[str]:
    lines = text.splitlines()
    docstrings.process(None, "function", "name", None, None, lines)
    return lines


def test_citations_are_links(docstrings: ModuleType) -> None:
    (line,) = rewritten(docstrings, "Losses (docs/theory/curves.md, eq-contour).")
    assert line == "Losses (:doc:`/theory/curves`, equation :eq:`eq-contour`)."
    assert rewritten(docstrings, "As x_{k+1}-eq-contour or `eq-contour`.")[0].count(":eq:") == 0


def test_indented_lines_before_the_headings_are_formulas(docstrings: ModuleType) -> None:
    lines = rewritten(docstrings, "A sum,\n\n    a * b\n\nwith a* and b.\n\nArgs:\n    a: one.\n")
    assert lines[:5] == ["A sum,", "", "::", "", "    a * b"] and r"with a\* and b." in lines and "    a: one." in lines
