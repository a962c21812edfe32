"""The page of the explorer as a test uses it: open, move, type, wait, read."""

from typing import Any
from urllib.parse import urlsplit

from rfdiff.explorer.state import State
from tests.explorer.conftest import PATIENCE


def opened(context: Any, url: str, faults: list[str]) -> Any:
    """A page with its first exact curves; errors and requests to elsewhere go to `faults`."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    start = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if not request.url.startswith((start, "data:")) else None)
    page.goto(url)
    settled(page)
    return page


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true. The page's policy forbids what Playwright's own waiting does: evaluating text inside the page."""
    for _ in range(PATIENCE // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}; the page says {page.inner_text('#status')!r}")


def starts(page: Any, name: str, text: str) -> None:
    """Wait until the text of an element begins so."""
    until(page, f"document.getElementById({name!r}).textContent.startsWith({text!r})")


def settled(page: Any) -> str:
    """Wait until the page rests; "yes" where exact curves are shown, "refused" where the state was refused."""
    until(page, "!['no', undefined].includes(document.body.dataset.settled)")
    return str(page.evaluate("document.body.dataset.settled"))


def state_of(page: Any) -> State:
    """The state that the link of the page holds."""
    return State.from_query(urlsplit(page.input_value("#link")).query)


def read(page: Any) -> dict[tuple[str, int], str]:
    """Numbers of the readout and of the table of times, by name and class."""
    cells = page.eval_on_selector_all(
        "#readout td[data-name], #times td[data-name]",
        "cells => cells.map(cell => [cell.dataset.name, Number(cell.dataset.class), cell.textContent])",
    )
    return {(name, c): text for name, c, text in cells}


def moved(page: Any, control: str, key: str = "ArrowRight", times: int = 12) -> str:
    """Press a key on a slider, and wait until the page rests."""
    page.focus(f"#{control}")
    for _ in range(times):
        page.keyboard.press(key)
    return settled(page)


def typed(page: Any, control: str, text: str) -> str:
    """Type a number, and wait until the page rests."""
    page.fill(f"#{control}-value", text)
    page.press(f"#{control}-value", "Enter")
    return settled(page)
