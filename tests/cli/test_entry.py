"""The entry of the command line: exit statuses, one line for bad input, tracebacks for bugs."""

from pathlib import Path

import jax
import pytest

from rfdiff import theory
from rfdiff.cli import entry
from tests.cli.command_line import refusal, started, words


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "rfdiff: out of memory"),
        (MemoryError("Unable to allocate\n3 GiB"), "rfdiff: out of memory: Unable to allocate 3 GiB"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nno room"),
            "rfdiff: out of memory: RESOURCE_EXHAUSTED: no room",
        ),
    ],
)
def test_too_little_memory_is_one_line_and_status_two(
    error: Exception, line: str, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(theory, "time_grid", fail)
    assert refusal(capsys, ["predict", str(problem_file), "--out", str(tmp_path / "o")]) == line


@pytest.mark.parametrize("error", [ValueError("wrong shape"), RuntimeError("lost"), jax.errors.JaxRuntimeError("INTERNAL: broken")])
def test_a_bug_keeps_its_traceback_and_has_its_own_status(
    error: Exception, problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(theory, "time_grid", fail)
    assert entry.main(["predict", str(problem_file), "--out", str(tmp_path / "o")]) == entry.BUG
    told = capsys.readouterr().err.splitlines()
    assert told.count("Traceback (most recent call last):") == 1 and any(line.endswith(str(error)) for line in told)
    assert told[-1] == "rfdiff: this is a bug in rfdiff; please report it with the command and the traceback above"


def test_interruption_before_the_simulation_is_one_line_too(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(theory, "learning_curves", stop)
    assert entry.main(words("predict", problem_file, tmp_path / "out")) == entry.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: interrupted"


def test_process_reports_bad_input_on_standard_error_alone(tmp_path: Path) -> None:
    process = started(["predict", "--nonsense"], cwd=tmp_path)
    printed, told = process.communicate(timeout=60)
    assert (process.returncode, printed) == (2, "")
    assert told.splitlines()[0].startswith("rfdiff: ")
    assert len(told.splitlines()) == 1
