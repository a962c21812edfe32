"""Fixtures that the tests of several commands share."""

import io
import sys
import types
from pathlib import Path

import pytest

from rfdiff.cli import entry
from tests.cli.command_line import TOML, words


@pytest.fixture
def problem_file(tmp_path: Path) -> Path:
    path = tmp_path / "problem.toml"
    path.write_text(TOML)
    return path


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    """One run of `rfdiff compare`, with what it printed."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "problem.toml").write_text(TOML)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed)
        status = entry.main(words("compare", folder / "problem.toml", folder / "out"))
    return types.SimpleNamespace(status=status, out=folder / "out", problem=folder / "problem.toml", text=printed.getvalue())
