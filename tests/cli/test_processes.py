"""Commands that several processes share: what is refused, what reaches the library, and two local processes that give the curves of one."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.cli import entry
from rfdiff.errors import InputError, OtherProcessError
from rfdiff.files import result_file
from tests.cli.command_line import Words, refused, started, words
from tests.synthetic import given
from tests.tolerances import rejects

PATIENCE = 300  # seconds


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--num-processes 2", "--coordinator: missing, with --num-processes given; allowed: HOST:PORT of process 0, or auto"),
        ("--silence-timeout 9", "--coordinator: missing, with --silence-timeout given; allowed: HOST:PORT of process 0, or auto"),
        ("--coordinator h:1 --num-processes 2", "--process-id: missing; allowed: an integer, beside --coordinator HOST:PORT, or "),
        ("--coordinator h:1 --process-id 0", "--num-processes: missing; allowed: an integer, beside --coordinator HOST:PORT, or "),
        ("--coordinator auto --process-id 0", "--process-id: given with --coordinator auto, which finds it; allowed: one of the two"),
        ("--coordinator h --num-processes 2 --process-id 0", "--coordinator: 'h'; allowed: 'HOST:PORT'"),
        ("--coordinator h:1 --num-processes 0 --process-id 0", "--num-processes: 0; allowed: an integer >= 1"),
        ("--coordinator h:1 --num-processes 2 --process-id 2", "--process-id: 2; allowed: an integer >= 0 and <= 1"),
        ("--coordinator h:1 --num-processes two --process-id 2", "--num-processes: 'two' is not a whole number"),
        ("--coordinator auto --startup-timeout 0", "--startup-timeout: 0; allowed: an integer >= 1"),
        (
            "--coordinator auto --rule sgd --step-size 0.1 --batch 0.5",
            "--coordinator: given with --rule sgd, whose steps are taken one by ",
        ),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_impossible_processes_are_refused(
    command: str, options: str, line: str, problem_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(command, problem_file, tmp_path / "o", *options.split())
    capsys.readouterr()
    assert entry.main(arguments) == entry.BAD_INPUT
    told = [text for text in capsys.readouterr().err.splitlines() if not text.startswith("waiting")]
    assert len(told) == 1 and told[0].startswith(f"rfdiff: {line}")
    assert not (tmp_path / "o").exists()


def test_options_reach_the_library(problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def stop(**values: Any) -> None:
        seen.append(values)
        raise InputError("seen enough")

    monkeypatch.setattr(simulation, "initialize", stop)
    options = ["--coordinator", "h:1", "--num-processes", "4", "--process-id", "3", "--startup-timeout", "900"]
    for more in (options, ["--coordinator", "auto", "--silence-timeout", "20"]):
        assert entry.main(words("simulate", problem_file, tmp_path / "o", *more)) == entry.BAD_INPUT
    assert seen == [{"coordinator": "h:1", "num_processes": 4, "process_id": 3, "startup_timeout": 900}, {"silence_timeout": 20}]


def test_the_failure_of_another_process_is_one_line(
    problem_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OtherProcessError("process 1 of 2 failed")

    monkeypatch.setattr(simulation, "run_seeds", fail)
    assert entry.main(words("simulate", problem_file, tmp_path / "o")) == entry.NOT_COMPUTED
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: process 1 of 2 failed"


def two_processes(arguments: Words) -> list[tuple[int, str, str]]:
    """Status, output and errors of a command line in two processes that share it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    numbers = [["--coordinator", address, "--num-processes", "2", "--process-id", str(i)] for i in range(2)]
    processes = [started([*arguments, *number]) for number in numbers]
    try:
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_two_processes_give_the_curves_of_one(command: str, problem_file: Path, tmp_path: Path) -> None:
    """One of them writes and prints; a second run in the same folder is refused by that one, and the other learns of it."""
    out = tmp_path / "out"
    arguments = words(command, problem_file, out, "--table", "json")
    writer, other = two_processes(arguments)
    assert json.loads(writer[1]) and other[1] == ""
    status = entry.main(words(command, problem_file, tmp_path / "one"))
    assert [writer[0], other[0]] == [status, status], (writer, other)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "one").iterdir())
    shared, alone = (result_file.load(folder / "result.nc").simulation for folder in (out, tmp_path / "one"))
    assert shared is not None and alone is not None

    def agree(order: int) -> None:
        for name, values in given(alone.per_seed).items():
            np.testing.assert_allclose(given(shared.per_seed)[name], values[::order], rtol=0, atol=1e-10)

    agree(1)
    rejects(lambda: agree(-1))
    refused_writer, told = two_processes(arguments)
    assert refused_writer[0] == entry.BAD_INPUT and "already holds result.nc" in refused_writer[2].splitlines()[-1]
    assert told[0] == entry.NOT_COMPUTED and "rfdiff: process 0 of 2 failed; its own message says why" in told[2]


def test_a_line_that_no_process_shares_is_refused(problem_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--coordinator: not an option of rfdiff predict" in refused(capsys, "predict", str(problem_file), "--coordinator", "h:1")
