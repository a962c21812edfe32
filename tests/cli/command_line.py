"""A command line run in this process, and the small problem that the tests of commands share."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff.cli import entry

TOML = """\
activation = "tanh"
t = 0.3
psi_p = 2.0
psi_n = 2.0
[mixture]
weights = [0.6, 0.4]
variances = [1.4, 0.5]
"""
D, SEEDS = 24, 4
TAUS = ["0.5", "3", "20", "100", "1000", "inf"]
ROOT = Path(__file__).resolve().parents[2]

Words = list[str]


def run(*arguments: str) -> tuple[int, str]:
    """Exit status, and what is printed on standard output."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", told)
        return entry.main(list(arguments)), told.getvalue()


def words(command: str, problem: Path, out: Path, *more: str) -> Words:
    sizes = ["--d", str(D), "--num-seeds", str(SEEDS)] if command in ("simulate", "compare") else []
    times_given = [] if "--rule" in more or "--num-times" in more else ["--taus", *TAUS]
    return [command, str(problem), "--out", str(out), *sizes, *times_given, *more]


def refusal(capsys: pytest.CaptureFixture[str], arguments: Words) -> str:
    """The line with which a command line is refused, after checking that it is the only one and the status is 2."""
    assert entry.main(arguments) == entry.BAD_INPUT
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    *before, line = told.err.splitlines()
    assert not before, told.err
    assert told.out == ""
    assert line.startswith("rfdiff: ")
    return line


def leaves(value: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree_util.tree_leaves(value)]


def started(arguments: Words, backend: str = "agg", **options: Any) -> subprocess.Popen[str]:
    """A command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": backend}
    command = [sys.executable, "-m", "rfdiff", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The only line with which a command line is refused, with status 2."""
    capsys.readouterr()
    return refusal(capsys, list(arguments))
