"""The explorer in a browser: every control changes what it should, numbers are the theory's, and it comes back after a restart."""

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import rfdiff
from rfdiff import theory
from rfdiff.explorer.answers import Axis
from rfdiff.explorer.state import BOUNDS
from rfdiff.files import result_file
from tests.explorer.conftest import PATIENCE, Served
from tests.explorer.page_driver import moved, opened, read, settled, starts, state_of, typed, until

pytestmark = pytest.mark.browser
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 900}


@pytest.fixture(scope="module")
def faults() -> list[str]:
    """What the browser complained of, and what it asked of another host."""
    return []


@pytest.fixture(scope="module")
def page(browser: Any, served: Served, faults: list[str]) -> Iterator[Any]:
    """One page for the tests that leave it as they find it."""
    context = browser.new_context(viewport=WIDE, accept_downloads=True)
    yield opened(context, served.url, faults)
    context.close()


def test_numbers_are_those_of_the_theory(page: Any) -> None:
    """To what is displayed: four digits of a loss, the times as the package writes them."""
    state = state_of(page)
    tau = Axis.of(theory.time_grid(state.problem())).taus(state)[int(page.input_value("#read-at"))]
    curves, times = theory.learning_curves(state.problem(), [tau]), theory.times(state.problem())
    shown = read(page)
    for c in range(2):
        for name in ("train_loss", "test_loss", "score_error"):
            assert float(shown[name, c]) == pytest.approx(float(getattr(curves, name)[0, c]), rel=6e-4, abs=6e-5), (name, c)
        for name in ("tau_gen", "tau_stop", "tau_mem", "tau_opt"):
            assert shown[name, c] == times.text(name, c)
    assert page.inner_text("#words").startswith("Learned first: class ")
    assert "decides for class 0 at t =" in page.inner_text("#speciation")


@pytest.mark.parametrize(
    ("control", "field", "key"),
    [
        ("t", "t", "ArrowRight"),
        ("psi_p", "psi_p", "ArrowLeft"),
        ("psi_n", "psi_n", "ArrowRight"),
        ("fraction-1", "fraction", "ArrowRight"),
        ("variance-0", "variance", "ArrowLeft"),
        ("weight_decay", "weight_decay", "PageUp"),
        ("averaging", "averaging", "PageUp"),
    ],
)
def test_sliders_move_their_number_and_the_curves(page: Any, control: str, field: str, key: str) -> None:
    before, numbers = state_of(page), read(page)
    assert moved(page, control, key, 3 if key == "PageUp" else 12) == "yes"
    after = state_of(page)
    changed = {name for name in after.__dataclass_fields__ if getattr(after, name) != getattr(before, name)}
    assert changed == {field} and sum(after.fraction) == pytest.approx(1)
    different = read(page)
    for c in range(2):
        assert different["test_loss", c] != numbers["test_loss", c]
    page.click("#undo") if key != "PageUp" else typed(page, control, "0")
    for _ in range(20):
        if settled(page) and state_of(page) == before:
            break
        page.click("#undo")
    assert state_of(page) == before and read(page) == numbers


def test_typed_values_undo_and_redo(page: Any) -> None:
    before = state_of(page)
    typed(page, "psi_n", "2.25")
    assert state_of(page).psi_n == 2.25
    page.click("h1")
    page.keyboard.press("Control+z")
    settled(page)
    assert state_of(page) == before
    page.keyboard.press("Control+Shift+z")
    settled(page)
    assert state_of(page).psi_n == 2.25
    page.click("#undo")
    settled(page)
    page.fill("#psi_n-value", "1e9")
    page.press("#psi_n-value", "Enter")
    assert page.get_attribute("#psi_n-value", "aria-invalid") == "true"
    assert state_of(page) == before
    assert page.inner_text("#refusal") == "training samples per dimension, ψ_n = n/d: 1e9; allowed: 0.1 to 100"
    moved(page, "psi_n")
    assert page.get_attribute("#psi_n-value", "aria-invalid") == "false" and page.text_content("#refusal") == ""
    page.click("#undo")
    settled(page)
    page.fill("#psi_n-value", "1.5")
    page.press("#psi_n-value", "Enter")
    assert page.get_attribute("#psi_n-value", "aria-invalid") in (None, "false")


def test_no_fraction_falls_below_what_the_server_takes(page: Any) -> None:
    """Another class beside one that is as rare as can be."""
    made = page.evaluate("""import("/model.js").then(({ Model }) => [[0.99, 0.01], [0.01, 0.99]].map((fraction) => {
        const model = new Model({ fraction, variance: [1, 1], norm: [0, 0], angle: [0, 0], loss_weight: [] });
        for (const count of [3, 4]) model.setClasses(count);
        return model.state.fraction;
    }))""")
    for fractions in made:
        assert len(fractions) == 4 and min(fractions) >= BOUNDS["fraction"][0] and sum(fractions) == pytest.approx(1, abs=1e-12)
        assert fractions[3] == pytest.approx(0.25)


def test_activation_weights_and_noise_draws(page: Any) -> None:
    """Each needs programs of its own, and the page goes on meanwhile."""
    page.select_option("#activation", "erf")
    assert settled(page) == "yes" and state_of(page).activation == "erf"
    page.select_option("#activation", "tanh")
    settled(page)
    page.check("#own-weights")
    settled(page)
    assert state_of(page).loss_weight == (0.5, 0.5)
    typed(page, "loss_weight-0", "0.8")
    assert state_of(page).loss_weight == pytest.approx((0.8, 0.2))
    page.uncheck("#own-weights")
    settled(page)
    numbers = read(page)
    typed(page, "noise_draws", "1")
    assert state_of(page).noise_draws == 1 and read(page) != numbers
    typed(page, "noise_draws", "inf")
    assert read(page) == numbers


def test_sgd(page: Any) -> None:
    page.select_option("#rule", "sgd")
    assert settled(page) == "yes" and page.is_visible("#step_size") and page.is_visible("#batch")
    numbers = read(page)
    typed(page, "batch", "0.5")
    assert read(page) != numbers and "--rule sgd" in str(page.text_content("#command"))
    numbers = read(page)
    typed(page, "step_size", "0.2")
    assert read(page) != numbers
    typed(page, "norm-0", "0.5")
    assert settled(page) == "refused" and "centroid_gram: not 0 with rule sgd" in page.inner_text("#status")
    page.select_option("#rule", "flow")
    assert settled(page) == "yes" and state_of(page).norm[0] == 0.5
    typed(page, "norm-0", "0")


def test_geometry_and_number_of_classes(page: Any) -> None:
    before, numbers = state_of(page), read(page)
    typed(page, "norm-1", "1")
    assert state_of(page).norm == (0.0, 1.0) and read(page)["test_loss", 1] != numbers["test_loss", 1]
    numbers = read(page)
    typed(page, "norm-0", "0.8")
    along = read(page)
    assert along != numbers and typed(page, "angle-1", "90") == "yes" and read(page) != along
    typed(page, "norm-0", "0")
    typed(page, "norm-1", "0")
    page.select_option("#classes", "1")
    assert settled(page) == "yes" and page.locator("#times tr").count() == 2 and page.inner_text("#words") == ""
    page.click("#undo")
    settled(page)
    typed(page, "overlap", "0.5")
    assert state_of(page).overlap == 0.5
    until(page, "document.getElementById('speciation').textContent.includes('decides for class 0')")
    typed(page, "overlap", "1")
    typed(page, "angle-1", "0")
    assert state_of(page) == before


def test_ghosts_readout_and_theme(page: Any) -> None:
    page.click("#pin")
    assert page.get_attribute("#pin", "aria-pressed") == "true"
    tau = page.inner_text("#read-tau")
    box = page.locator("#losses .u-over").bounding_box()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20)
    until(page, f"document.getElementById('read-tau').textContent !== {tau!r}")
    page.click("#pin")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light and page.inner_text("#theme") == "Light"
    page.click("#theme")


def test_layout_does_not_jump_and_fits_narrow_screens(page: Any) -> None:
    places = "[...document.querySelectorAll('.card, #controls .slider')].map(box => Math.round(box.getBoundingClientRect().top))"
    before = page.evaluate(places)
    page.focus("#psi_n")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(30)
        assert page.evaluate(places) == before
    settled(page)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 1
    page.set_viewport_size(WIDE)
    typed(page, "psi_n", "1.5")


def test_networks_arrive_and_are_cancelled(page: Any) -> None:
    page.fill("#train-d", "20")
    page.fill("#train-seeds", "3")
    page.click("#train")
    starts(page, "train-note", "3 of 3 networks at d = 20")
    assert "bars are one standard error" in page.inner_text("#train-note")
    page.fill("#train-seeds", "100")
    page.fill("#train-d", "200")
    page.click("#train")
    page.wait_for_selector("#train-cancel:enabled")
    page.click("#train-cancel")
    starts(page, "train-note", "Cancelled; the network in hand is finished first.")
    page.fill("#train-d", "1")
    page.click("#train")
    starts(page, "train-note", "d: 1; allowed: 10 to 2000")


def test_map_is_cancelled_and_computed(page: Any) -> None:
    page.click("#map-start")
    page.wait_for_selector("#map-cancel:enabled")
    page.click("#map-cancel")
    starts(page, "map-note", "Cancelled.")
    page.select_option("#map-second", "variance_1")
    page.click("#map-start")
    starts(page, "map-note", "First by tau_gen: class")
    before = page.get_attribute("#map", "data-x")
    typed(page, "psi_n", "3")
    assert float(page.get_attribute("#map", "data-x")) > float(before)
    typed(page, "psi_n", "1.5")
    typed(page, "t", "0.4")
    starts(page, "map-note", "Map of an earlier state. First by tau_gen")
    typed(page, "t", "0.3")
    starts(page, "map-note", "First by tau_gen: class")


def test_a_map_that_another_tab_replaces_is_not_taken_for_the_own(page: Any, served: Served) -> None:
    page.select_option("#map-first", "psi_p")
    page.click("#map-start")
    page.wait_for_selector("#map-cancel:enabled")
    page.context.request.post(f"http://127.0.0.1:{served.port}/api/map?first=t&second=psi_n&{state_of(page).query()}")
    starts(page, "map-note", "Ended by another tab or a restart of the server.")
    assert page.is_disabled("#map-cancel")
    page.context.request.post(f"http://127.0.0.1:{served.port}/api/map/cancel")


def test_what_leaves_the_page(page: Any, tmp_path: Path) -> None:
    state = state_of(page)
    beginnings = {
        "curves.png": b"\x89PNG",
        "curves.svg": b"<?xml",
        "spectrum.pdf": b"%PDF",
        "problem.toml": b"# rfdiff predict",
        "result.nc": b"\x89HDF",
    }
    for name, beginning in beginnings.items():
        with page.expect_download() as download:
            page.click(f"#downloads a[download='{name}']")
        download.value.save_as(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(beginning)
    assert rfdiff.Problem.from_toml(tmp_path / "problem.toml").equals(state.problem())
    result = result_file.load(tmp_path / "result.nc")
    assert result.problem.equals(state.problem()) and result.covering is not None
    assert rfdiff.times(result.covering).text("tau_mem", 0) == read(page)["tau_mem", 0]
    assert "theory.learning_curves(problem, rule=rule)" in str(page.text_content("#python"))


def test_two_tabs_and_a_link(page: Any, served: Served, faults: list[str]) -> None:
    first = state_of(page)
    second = opened(page.context, f"http://127.0.0.1:{served.port}/?{first.query().replace('psi_p=2', 'psi_p=3')}", faults)
    assert state_of(second).psi_p == 3 and state_of(page) == first
    typed(second, "psi_n", "2")
    assert moved(page, "t") == "yes"
    assert state_of(second).psi_n == 2 and state_of(page).psi_n == 1.5 and state_of(second).t == first.t
    second.close()
    typed(page, "t", "0.3")


def test_nothing_was_complained_of(page: Any, faults: list[str]) -> None:
    """A refusal of a state is the one kind of error that the browser logs."""
    settled(page)
    assert [fault for fault in faults if "422" not in fault] == []


def test_a_restarted_server_is_found_again(browser: Any, problem_path: Path) -> None:
    server = Served(str(problem_path), "--port", "0")
    context = browser.new_context(viewport=WIDE)
    left = opened(context, server.url, [])
    left.click("#train")  # Ctrl-C waits for nothing that is being computed
    status, told = server.interrupt()
    assert status == 0 and "Traceback" not in told and told.endswith("rfdiff explore has ended\n")
    typed_before = left.input_value("#psi_n-value")
    left.wait_for_selector("#banner:visible")
    assert "does not answer" in left.inner_text("#banner")
    again = Served(str(problem_path), "--port", str(server.port))
    try:
        until(left, "document.getElementById('banner').textContent.includes('asks for its token')")
        context.new_page().goto(again.url)
        left.wait_for_selector("#banner", state="hidden", timeout=PATIENCE)
        assert settled(left) == "yes" and left.input_value("#psi_n-value") == typed_before
        assert urlsplit(left.url).port == again.port
    finally:
        assert again.interrupt()[0] == 0
        context.close()


def resident(server: Served) -> float:
    """Resident memory of a server in MiB."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize(("seconds", "most_mib"), [(12, 8), pytest.param(60, 15, marks=pytest.mark.slow)])
def test_dragging_leaks_and_compiles_nothing(browser: Any, served: Served, seconds: int, most_mib: float) -> None:
    """Once everything around the state is compiled, a drag makes no program, and the memory of both sides is what it stays.

    A leak of one picture's numbers each would show in the browser; in the server it takes the 60 seconds.
    """
    context = browser.new_context(viewport=WIDE)
    page = opened(context, served.url, [])
    session = context.new_cdp_session(page)

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
        return float(metrics["JSHeapUsedSize"]) / 2**20

    def alive(name: str) -> int:
        return int(page.evaluate(f"fetch('/api/alive').then((answer) => answer.json()).then((answer) => answer.{name})"))

    session.send("Performance.enable")
    box = page.locator("#psi_n").bounding_box()
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    page.evaluate("document.addEventListener('painted', () => { window.pictures += 1; })")

    def drag(seconds: float) -> tuple[int, int]:
        """Pictures that were painted, and programs at the end."""
        page.evaluate("window.pictures = 0")
        page.mouse.move(middle, y)
        page.mouse.down()
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            page.mouse.move(middle + 0.3 * box["width"] * math.sin(3 * (time.monotonic() - start)), y)
            page.wait_for_timeout(16)
        found = int(page.evaluate("window.pictures")), alive("programs")
        page.mouse.up()
        settled(page)
        return found

    until(page, "fetch('/api/alive').then((answer) => answer.json()).then((answer) => answer.warm)")
    drag(seconds / 6)
    programs = -1
    while programs != (programs := alive("programs")):  # the spectrum of the first drag comes after its curves
        page.wait_for_timeout(2000)
    before, heap_before = resident(served), heap()
    pictures, programs_then = drag(seconds)
    assert pictures > 5 * seconds
    one_picture = 2 * 3 * 121 * 8 / 2**20  # of two classes: three curves as doubles
    assert heap() - heap_before < max(0.5, 0.1 * pictures * one_picture)
    assert resident(served) - before < most_mib
    assert programs_then == programs
    context.close()
