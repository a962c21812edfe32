"""The built wheel: imports and runs from another directory, holds the package and nothing else."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and show what it printed if it fails."""
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", **environment}
    result = subprocess.run([*map(str, command)], cwd=cwd, env=variables, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result


def version() -> str:
    """The version that the front door states, the one that pyproject.toml reads."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', (ROOT / "rfdiff/__init__.py").read_text(), re.MULTILINE)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    run(*pip, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel, cwd=target)
    return target


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "rfdiff").rglob("*.py")}
    assert sources <= set(names) and {"rfdiff/py.typed", "rfdiff/diagnosis/page.html"} <= set(names)
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "rfdiff/explorer/page").iterdir()}
    assert page <= set(names) and {"rfdiff/explorer/page/uPlot.iife.min.js", "rfdiff/explorer/page/uPlot.LICENSE"} <= page
    assert {name.split("/")[0].split("-")[0] for name in names} == {"rfdiff"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_imports_from_another_directory(installed: Path, tmp_path: Path) -> None:
    script = "import importlib.metadata, rfdiff, rfdiff.cli; print(rfdiff.__file__); print(importlib.metadata.version('rfdiff'))"
    output = run(sys.executable, "-P", "-c", script, cwd=tmp_path, PYTHONPATH=str(installed)).stdout.split()
    assert Path(output[0]).is_relative_to(installed)
    assert output[1] == version()


@pytest.mark.thorough
def test_command_runs_from_another_directory(installed: Path, tmp_path: Path) -> None:
    result = run(installed / "bin" / "rfdiff", "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    for command in ("predict", "simulate", "compare", "plot"):
        assert command in result.stdout


def test_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {version()}\n" in (ROOT / "CITATION.cff").read_text()


UNIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
ELSEWHERE = f"""
import os, pkgutil, signal, sys
import importlib, warnings
import platformdirs  # which looks at the name of the system, so it would take this one for a Unix
for name in {UNIX_ONLY}:
    sys.modules[name] = None  # makes the import fail, as where there is none
for name in ("O_DIRECTORY", "sched_getaffinity", "getuid", "geteuid"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGALRM", "SIGTSTP"):
    delattr(signal, name)
import rfdiff
from rfdiff.cli.entry import main
from rfdiff.cli.terminal import cost_line
from rfdiff.files.lock import locked
for module in pkgutil.walk_packages(rfdiff.__path__, "rfdiff."):
    if module.name != "rfdiff.__main__":
        importlib.import_module(module.name)
assert main(["--version"]) == 0
assert main(["init", "problem.toml"]) == 0 and os.path.getsize("problem.toml") > 500
assert main(["init", "problem.toml"]) == 2
with locked("results"):
    try:
        with locked("results"):
            raise AssertionError("held twice")
    except rfdiff.InputError:
        pass
assert cost_line(2.0) == "2.0 s wall time"
print("done", rfdiff.__version__)
"""


@pytest.mark.thorough
def test_nothing_needs_what_only_unix_has(tmp_path: Path) -> None:
    """Every module imports, and commands run, where Python has no `fcntl` and no `resource`, as on Windows."""
    result = run(sys.executable, "-c", ELSEWHERE, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert result.stdout.splitlines()[-1] == f"done {version()}"
