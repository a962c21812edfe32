"""A server of the explorer in a process of its own, and a browser, for the tests that open its page."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120_000  # milliseconds for what compiles on a busy machine; no test passes by them


class Served:
    """A running `rfdiff explore`.

    Args:
        words: what follows the command.
    """

    def __init__(self, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RFDIFF_CACHE": "on"}
        command = [sys.executable, "-m", "rfdiff", "explore", "--no-browser", *words]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate()[1]

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.url.split(":")[2].split("/")[0])

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: the exit status, and what was told on standard error."""
        self.process.send_signal(signal.SIGINT)
        told = self.process.communicate(timeout=20)[1]
        return self.process.returncode, told


@pytest.fixture(scope="session")
def problem_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two centred classes: the shape whose programs are smallest."""
    path = tmp_path_factory.mktemp("explore") / "problem.toml"
    lines = ['activation = "tanh"', "t = 0.3", "psi_p = 2.0", "psi_n = 1.5", "[mixture]", "weights = [0.6, 0.4]", "variances = [1.4, 0.5]"]
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture(scope="module")
def served(problem_path: Path) -> Iterator[Served]:
    """A server at any free port."""
    server = Served(str(problem_path), "--port", "0")
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the extra browser brings it")
    program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        yield opened
        opened.close()
