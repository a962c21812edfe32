"""Docstrings cite pages and equations that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THEORY = ROOT / "docs" / "theory"
LABEL = re.compile(r"^\$\$ \((eq-[\w-]+)\)$", re.MULTILINE)
PAGE = re.compile(r"docs/(\w+/)?(\w+)\.md")
EQUATION = re.compile(r"(?<![\w`-])eq-[a-z]+(?:-[a-z]+)*")


def labels() -> dict[str, set[str]]:
    """{page of the theory: labels of its equations}."""
    return {path.stem: set(LABEL.findall(path.read_text(encoding="utf-8"))) for path in sorted(THEORY.glob("*.md"))}


def wrong_citations(text: str, known: dict[str, set[str]]) -> list[str]:
    """Cited pages that do not exist, and labels that the page cited before them on their line does not have."""
    wrong = []
    for line in text.splitlines():
        everywhere = page = set().union(*known.values())
        for found in re.finditer(f"{PAGE.pattern}|{EQUATION.pattern}", line):
            if found[0].startswith("docs/"):
                page = known.get(found[2], set()) if found[1] == "theory/" else everywhere
                if not (ROOT / found[0]).exists():
                    wrong.append(found[0])
            elif found[0] not in page:
                wrong.append(found[0])
    return wrong


def cited(text: str) -> set[str]:
    return set(EQUATION.findall(text))


SOURCES = sorted((ROOT / "rfdiff").rglob("*.py"))


def test_cited_pages_and_equations_exist() -> None:
    known = labels()
    wrong = {str(path.relative_to(ROOT)): found for path in SOURCES if (found := wrong_citations(path.read_text(encoding="utf-8"), known))}
    assert not wrong


def test_the_main_equations_are_cited() -> None:
    everything = set().union(*(cited(path.read_text(encoding="utf-8")) for path in SOURCES))
    main = {"eq-filter", "eq-coefficients", "eq-fixed-point", "eq-density", "eq-two-point", "eq-traces", "eq-contour", "eq-volterra"}
    assert main <= everything and len(everything) >= 20


def test_labels_are_unique() -> None:
    found = [label for path in sorted(THEORY.glob("*.md")) for label in LABEL.findall(path.read_text(encoding="utf-8"))]
    assert len(found) == len(set(found)) > 30


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("(docs/theory/curves.md, eq-contour).", []),
        ("docs/theory/spectrum.md, eq-density and docs/theory/curves.md, eq-contour", []),
        ("(docs/theory/model.md, eq-contour)", ["eq-contour"]),  # of another page
        ("(docs/theory/curves.md, eq-contours)", ["eq-contours"]),
        ("(docs/theory/curve.md)", ["docs/theory/curve.md"]),
        ("as eq-no-such", ["eq-no-such"]),
    ],
)
def test_wrong_citations_are_seen(line: str, wrong: list[str]) -> None:
    assert wrong_citations(line, labels()) == wrong
