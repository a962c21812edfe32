"""Messages that the troubleshooting page quotes are messages of the package."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "troubleshooting.md"


def quoted(text: str) -> list[str]:
    """What stands in backticks in the first column of tables."""
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


def messages(sources: str) -> str:
    """Sources in which texts that go on in the next line are whole."""
    return re.sub(r'"\s*\n\s*f?"', "", sources)


def unknown(quotes: list[str], sources: str) -> list[str]:
    """Quotes of which a part between the places left open (…) is nowhere in the sources."""
    return [quote for quote in quotes if not all(part.strip() in sources for part in quote.split("…"))]


def test_quoted_messages_exist() -> None:
    sources = messages("\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rfdiff").rglob("*.py"))))
    quotes = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(quotes) > 20
    assert unknown(quotes, sources) == []


def test_other_messages_are_seen() -> None:
    sources = messages('raise InputError(f"d: {d} needs about {x} "\n    f"GiB of memory")')
    assert unknown(["needs about … GiB of memory"], sources) == []
    assert unknown(["needs about … GB"], sources) == ["needs about … GB"]
    assert quoted("| `a …` or `b` | c `d` |\n| x | `y` |\n") == ["a …", "b"]
