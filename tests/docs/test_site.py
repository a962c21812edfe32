"""The built documentation in a browser: formulas, links, outside requests, errors, narrow screens (`make docs-check`)."""

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.site
SITE = Path(__file__).resolve().parents[2] / "docs" / "_build" / "html"
OWN = ("genindex.html", "search.html", "py-modindex.html")  # Sphinx's own pages
NARROW = {"width": 400, "height": 900}


def pages() -> list[str]:
    return sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html") if path.name not in OWN and "_static" not in path.parts)


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that does not write a line for each."""

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if not (SITE / "index.html").exists():
        pytest.skip("docs/_build/html is not there: make docs builds it")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the extra browser brings it")
    program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def written(html: str) -> int:
    """Formulas in the source of a page."""
    return len(re.findall(r'class="math notranslate nohighlight', html))


def test_every_page_is_whole(browser: Any, address: str) -> None:
    """Each formula is rendered, nothing is asked of another host, no error is logged, no page is wider than a narrow screen."""
    found = pages()
    assert len(found) > 40 and "theory/curves.html" in found
    formulas, faults = 0, []
    page = browser.new_page(viewport=NARROW)
    page.on(
        "request", lambda request: faults.append(f"asked for {request.url}") if not request.url.startswith((address, "data:")) else None
    )
    page.on("console", lambda message: faults.append(f"{message.type}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    for name in found:
        before = len(faults)
        page.goto(f"{address}/{name}")
        count = written((SITE / name).read_text())
        if count:
            page.wait_for_function(f"document.querySelectorAll('.math mjx-container').length >= {count}", timeout=60_000)
        rendered = page.locator(".math mjx-container").count()
        unknown = page.locator("mjx-merror, [data-mjx-error]").count()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if rendered != count or unknown or wide > 1:
            faults.append(f"{rendered} of {count} formulas rendered, {unknown} with errors, {wide} pixels too wide")
        faults[before:] = [f"{name}: {fault}" for fault in faults[before:]]
        formulas += rendered
    assert not faults, "\n".join(faults)
    assert formulas > 200


def test_links_within_the_site_lead_somewhere() -> None:
    if not (SITE / "index.html").exists():
        pytest.skip("docs/_build/html is not there: make docs builds it")
    texts = {name: (SITE / name).read_text() for name in pages()}
    broken = []
    for name, text in texts.items():
        for link in re.findall(r'<a [^>]*href="([^"#]*)(?:#[^"]*)?"', text):
            if link and not re.match(r"[a-z]+:", link) and not (SITE / name).parent.joinpath(link).resolve().exists():
                broken.append(f"{name}: {link}")
    assert not broken, "\n".join(broken)
