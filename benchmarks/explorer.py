"""Do the curves of the explorer follow the hand? (targets: 20 updates/s, 100 ms from input to paint at the 95th percentile)

A server as `rfdiff explore` starts it, and headless Chromium on the same machine. The mouse drags the slider of ψ_n to and fro, a step each
16 ms. Every input event counts: its latency is the time until a picture of its state, or of a later one, is painted (the first task after
the frame). An update is such a picture. Case A has centroids; the centred one is case A without. Rest: from the last input until exact
curves are shown, and until the spectrum is, after the drag and after clicks at some places of the slider (median and worst). Start: from
the command to the first curves, which is when sliders move them: cold, with an empty cache of programs, and warm, with what that first
server has left there; and until the programs of nearby states are made too. Programs: how many were compiled or read during the drag.
Run: python benchmarks/explorer.py [--smoke]. With --smoke the drag is short and nothing is written.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"updates_per_s": 20.0, "latency_p95_ms": 100.0, "start_warm_s": 3.0, "start_cold_s": 15.0, "rest_ms": 300.0}
CENTRED = 'activation = "tanh"\nt = 0.1\npsi_p = 4.0\npsi_n = 3.0\n[mixture]\nweights = [0.7, 0.3]\nvariances = [1.5, 0.4]\n'
LISTEN = "window.latencies = []; document.addEventListener('painted', (event) => window.latencies.push(event.detail));"
PERIOD = 0.016  # seconds between two moves of the mouse
PLACES = (0.3, 0.62, 0.38, 0.7, 0.46, 0.54, 0.8, 0.42, 0.58)  # of a slider, from one end to the other, at which it is let go
PATIENCE = 120  # seconds for compilation
WARMING = 240.0  # seconds that a page may be left alone, until the server has made the programs that the next slider may need
READY, SETTLED = "document.body.dataset.ready === 'true'", "document.body.dataset.settled === 'yes'"
SPECTRUM = (
    "!document.getElementById('spectrum').classList.contains('stale') && document.getElementById('bulks').textContent !== window.bulks"
)
ALIVE = "fetch('/api/alive').then((answer) => answer.json())"


def until(page: Page, expression: str, pause: float = 0.005, patience: float = PATIENCE) -> float:
    """Seconds until an expression is true, which is looked at after each pause."""
    start = time.perf_counter()
    while not page.evaluate(expression):
        if time.perf_counter() - start > patience:
            raise TimeoutError(expression)
        time.sleep(pause)
    return time.perf_counter() - start


def drag(page: Page, slider: str, seconds: float) -> tuple[int, int]:
    """Drag a slider to and fro by the mouse; the number of moves and of pictures."""
    box = page.locator(slider).bounding_box()
    assert box is not None
    middle, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate("window.latencies = []")
    page.mouse.move(middle, y)
    page.mouse.down()
    start, moves = time.perf_counter(), 0
    while (now := time.perf_counter()) - start < seconds:
        page.mouse.move(middle + 0.3 * box["width"] * np.sin(2 * (now - start)), y)
        moves += 1
        time.sleep(max(0.0, PERIOD - (time.perf_counter() - now)))
    pictures = int(page.evaluate("window.latencies.length"))
    page.mouse.up()
    return moves, pictures


def settled(page: Page, slider: str, place: float) -> tuple[float, float]:
    """Click on a slider; seconds until exact curves are shown, and the spectrum."""
    box = page.locator(slider).bounding_box()
    assert box is not None
    page.evaluate("window.bulks = document.getElementById('bulks').textContent; window.serial = document.body.dataset.serial")
    page.mouse.move(box["x"] + place * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    start = time.perf_counter()
    page.mouse.up()
    until(page, f"{SETTLED} && document.body.dataset.serial !== window.serial")
    curves = time.perf_counter() - start
    until(page, SPECTRUM)
    spectrum = time.perf_counter() - start
    time.sleep(1.5)  # at rest again
    return curves, spectrum


def processor_seconds(pid: int) -> float:
    """Seconds of processor that a process has used: unlike the wall, it hardly knows what else runs."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def opened(page: Page, url: str, started: float, pid: int) -> dict[str, float]:
    """Seconds from the command to the first curves, and those of the processor."""
    page.goto(url)
    until(page, READY)
    start = {"start_s": time.perf_counter() - started, "start_processor_s": processor_seconds(pid)}
    until(page, SETTLED)
    with contextlib.suppress(TimeoutError):
        start["nearby_programs_s"] = until(page, f"{ALIVE}.then((answer) => answer.warm)", 0.5, WARMING)
    return start


def dragged(page: Page, seconds: float, pid: int) -> dict[str, Any]:
    """One drag after everything that the page asks for is compiled, and what it measured."""
    drag(page, "#psi_n", 0.2 * seconds)
    until(page, SETTLED)
    time.sleep(1.0)
    page.evaluate("window.bulks = document.getElementById('bulks').textContent")
    programs, used = page.evaluate(ALIVE)["programs"], processor_seconds(pid)
    moves, pictures = drag(page, "#psi_n", seconds)
    rest = until(page, SETTLED)
    used_until_rest = processor_seconds(pid) - used
    rest_spectrum = rest + until(page, SPECTRUM)
    latencies = np.concatenate(page.evaluate("window.latencies"))
    rests = np.array([settled(page, "#psi_n", place) for place in PLACES])
    return {
        "updates_per_s": pictures / seconds,
        "moves_per_s": moves / seconds,
        "server_processor_ms_per_update": 1e3 * used_until_rest / pictures,
        "latency_best_ms": float(latencies.min()),
        "latency_median_ms": float(np.median(latencies)),
        "latency_p95_ms": float(np.percentile(latencies, 95)),
        "latency_worst_ms": float(latencies.max()),
        "rest_after_drag_ms": 1e3 * rest,
        "rest_after_drag_spectrum_ms": 1e3 * rest_spectrum,
        "rest_ms": 1e3 * float(np.median(rests[:, 0])),
        "rest_worst_ms": 1e3 * float(rests[:, 0].max()),
        "rest_spectrum_ms": 1e3 * float(np.median(rests[:, 1])),
        "rest_spectrum_worst_ms": 1e3 * float(rests[:, 1].max()),
        "programs_while_dragging": page.evaluate(ALIVE)["programs"] - programs,
        "inputs": int(latencies.size),
    }


def served(problem: Path, cache: str, seconds: float) -> dict[str, Any]:
    """One server and one page: its start, and a drag of so many seconds, if any."""
    program = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    command = [sys.executable, "-m", "rfdiff", "explore", str(problem), "--no-browser", "--port", "0"]
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1", "RFDIFF_CACHE": "on"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **kept}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(LISTEN)
        started = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        try:
            assert server.stdout is not None
            start = opened(page, server.stdout.readline().strip(), started, server.pid)
            return {**start, **(dragged(page, seconds, server.pid) if seconds else {})}
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
            browser.close()


def run(drag_seconds: float) -> dict[str, Any]:
    """Both problems, each with a cold server and a warm one of its own."""
    with tempfile.TemporaryDirectory() as folder:
        centred = Path(folder) / "centred.toml"
        centred.write_text(CENTRED, encoding="utf-8")
        cases = {}
        for name, problem in {"case_a": ROOT / "experiments" / "problem.toml", "centred": centred}.items():
            first = served(problem, folder, 0.0)
            kind = "after_the_other_problem" if cases else "cold"  # the second problem finds programs of the first
            cases[name] = served(problem, folder, drag_seconds) | {f"{kind}_{what}": value for what, value in first.items()}
    seconds = {
        f"{name}_input_to_paint": {f"{which}_s": found[f"latency_{which}_ms"] / 1e3 for which in ("best", "median", "worst")}
        | {"repeats": found["inputs"]}
        for name, found in cases.items()
    }
    return {"seconds": seconds, "cases": cases, "targets": TARGETS}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a short drag, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(1.0), indent=2))
    else:
        harness.write("explorer", run(10.0))
