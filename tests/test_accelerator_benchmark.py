"""The script for a lent accelerator: its small form on this processor, and what it does when cases fail, crash or find no time."""

import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ITEMS = ("correctness", "ceilings", "assembly", "exact_flow", "krylov", "unet", "sampling", "theory")
DEVICE = {"platform": "cpu", "environment": {"device": "A Card", "versions": {"jax": "0.10"}}}
WORKER = """
import json, os, sys, time
done = json.loads(sys.argv[4])
def tell(**line): print(json.dumps(line), flush=True)
number, parts = json.loads(sys.argv[5])
for name in ("good", "bad", "crashing", "last")[number::parts]:
    if name in done: continue
    tell(begin=name)
    if name == "crashing": print("out of memory", file=sys.stderr, flush=True); os._exit(7)
    if name == "last" and sys.argv[1] == "krylov": time.sleep(60)
    tell(end=name, found={"failed": "no such thing"} if name == "bad" else {"seconds": {"best_s": 1.0}, "says": "so"})
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, whose processes are `WORKER`."""
    spec = importlib.util.spec_from_file_location("accelerator", ROOT / "benchmarks" / "accelerator.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "command", lambda *arguments: [sys.executable, "-c", WORKER, *arguments])
    return module


def test_one_case_does_not_stop_the_next(script: Any, tmp_path: Path) -> None:
    """A case that fails and one that takes its process with it are recorded with their reasons; the others are done, and stay so."""
    report = script.Report(tmp_path, "small", DEVICE)
    script.run_item(report, "assembly", "small", time.monotonic() + 60)
    assert set(report.document["cases"]) == {"assembly: good", "assembly: last"} == set(report.document["seconds"])
    assert report.document["failed"]["assembly: bad"] == "no such thing"
    assert report.document["failed"]["assembly: crashing"] == "exit status 7: out of memory"
    assert json.loads((tmp_path / "accelerator_a_card.json").read_text()) == report.document
    again = script.Report(tmp_path, "small", DEVICE)
    assert again.done("assembly") == ["good", "last"] and again.done("eigh") == []
    assert "out of memory" in again.table() and "1 s  so" in again.table()
    assert script.Report(tmp_path, "full", DEVICE).done("assembly") == []


def test_parts_of_an_item_run_side_by_side(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PROCESSES", {("assembly", "small"): 3})
    report = script.Report(tmp_path, "small", DEVICE)
    script.run_item(report, "assembly", "small", time.monotonic() + 60)
    assert set(report.document["cases"]) == {"assembly: good", "assembly: last"}
    assert set(report.document["failed"]) == {"assembly: bad", "assembly: crashing"}


@pytest.mark.thorough
def test_time_runs_out(script: Any, tmp_path: Path) -> None:
    report = script.Report(tmp_path, "small", DEVICE)
    start = time.monotonic()
    script.run_item(report, "krylov", "small", start + 8)
    assert time.monotonic() - start < 30
    assert "stopped after the" in report.document["failed"]["krylov: last"] and report.done("krylov") == ["good"]
    script.run_item(report, "unet", "small", start)
    assert report.document["failed"]["unet: all"] == "no time was left"


def test_committed_results() -> None:
    """Of every card: each item done, or the reason why not, and networks right; the curves they are checked against hold every case."""
    results = ROOT / "benchmarks" / "results"
    reference = json.loads((results / "accelerator_reference.json").read_text())
    assert len(reference["cases"]) == 10 and reference["theory"]["error_estimate"] <= 1e-6
    for path in set(results.glob("accelerator_*.json")) - {results / "accelerator_reference.json"}:
        document = json.loads(path.read_text())
        assert {name.split(":")[0] for name in [*document["cases"], *document["failed"]]} == set(ITEMS)
        right = [case["right"] for name, case in document["cases"].items() if name.startswith("correctness")]
        assert right and all(right)


def numbers(value: Any) -> list[float]:
    """All numbers of a document."""
    if isinstance(value, dict | list):
        return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.slow
def test_small_form(tmp_path: Path) -> None:
    """Every item, finite and right, in the processor time of 5 minutes of two cores; a second run computes only what is missing."""

    def run() -> dict[str, Any]:
        arguments = ["--form", "small", "--minutes", "120", "--out", str(tmp_path)]
        command = [sys.executable, str(ROOT / "benchmarks" / "accelerator.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=7000, check=False)
        assert done.returncode == 0, done.stderr
        (path,) = tmp_path.glob("accelerator_*.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    first = run()
    assert spent() - before < 600
    assert first["failed"] == {} and {name.split(":")[0] for name in first["cases"]} == set(ITEMS)
    assert all(math.isfinite(number) for number in numbers(first))
    right = [case["right"] for case in first["cases"].values() if "right" in case]
    assert len(right) >= 5 and all(right)
    (path,) = tmp_path.glob("accelerator_*.json")
    missing = "ceilings: copy"
    path.write_text(json.dumps({**first, "cases": {name: case for name, case in first["cases"].items() if name != missing}}))
    second = run()
    assert second["cases"][missing] != first["cases"][missing]
    assert all(second["cases"][name] == case for name, case in first["cases"].items() if name != missing)
