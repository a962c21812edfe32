"""Standard output that cannot be written to: a reader that is gone, a disk that is full."""

import errno
import io
import os
import sys
from pathlib import Path

import pytest

from rfdiff.cli import entry, init
from rfdiff.cli.terminal import output_failure, say
from rfdiff.problem import Problem


class Failing(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.error = OSError(number, os.strerror(number))

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(("number", "status"), [(errno.EPIPE, 0), (errno.ENOSPC, entry.BAD_INPUT)])
def test_files_are_written_whatever_becomes_of_the_table(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(number))
    assert entry.main(["init", str(tmp_path / "p.toml")]) == status
    assert (tmp_path / "p.toml").exists()
    told = capsys.readouterr().err
    line = "rfdiff: standard output cannot be written (No space left on device); files are written all the same"
    assert told.splitlines() == ([line] if status else [])


def test_a_failure_is_told_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Failing(errno.ENOSPC))
        say("one")
        say("two")
    failure = output_failure()
    assert failure is not None and failure.errno == errno.ENOSPC and output_failure() is None


def test_init_writes_a_problem_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new.toml"
    assert entry.main(["init", str(path)]) == 0
    problem = Problem.from_toml(path)
    assert (problem.num_classes, problem.psi_p, problem.t) == (2, 4.0, 0.1)
    assert "rfdiff predict new.toml" in path.read_text() and "FILE" not in path.read_text()
    assert f"next: rfdiff predict {path}" in capsys.readouterr().out
    assert entry.main(["init", str(path)]) == entry.BAD_INPUT
    assert "exists already; choose another name or add --overwrite" in capsys.readouterr().err
    path.write_text("mine")
    assert entry.main(["init", str(path), "--overwrite"]) == 0
    assert path.read_text() == init.PROBLEM.replace("FILE", "new.toml")
