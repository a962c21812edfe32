"""The entry of the command line: exit statuses, one line for bad input, tracebacks for bugs."""

import dataclasses
import os
import signal
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from rfdiff import theory
from rfdiff.cli import curve_results, entry
from rfdiff.files import result_file
from tests import synthetic
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

    monkeypatch.setattr(theory, "covering_curves", stop)
    assert entry.main(words("predict", problem_file, tmp_path / "out")) == entry.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "rfdiff: interrupted"


def test_process_reports_bad_input_on_standard_error_alone(tmp_path: Path) -> None:
    """A shell that Jupyter started names a backend of matplotlib that does not exist outside it."""
    process = started(["predict", "--nonsense"], cwd=tmp_path, backend="module://no_such_module.backend")
    printed, told = process.communicate(timeout=120)
    assert (process.returncode, printed) == (2, "")
    assert told.splitlines()[0].startswith("rfdiff: ")
    assert len(told.splitlines()) == 1


def test_an_interrupt_while_modules_load_ends_the_process_at_once(tmp_path: Path) -> None:
    process = started(["plot", "none.nc"], cwd=tmp_path)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate(timeout=120)
    assert (process.returncode, printed) in ((entry.INTERRUPTED, ""), (-signal.SIGINT, ""))  # the latter before Python runs any of it
    assert process.returncode < 0 or told == "rfdiff: interrupted\n"


def test_a_dropped_interrupt_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that arises in a finaliser is reported and forgotten by Python."""
    raised: list[str] = []
    monkeypatch.setattr(entry._thread, "interrupt_main", lambda: raised.append("again"))
    handler, hook, backend = signal.getsignal(signal.SIGINT), sys.unraisablehook, os.environ.get("MPLBACKEND")
    try:
        with entry._process():
            assert signal.getsignal(signal.SIGINT) is entry._end and "MPLBACKEND" not in os.environ
            sys.unraisablehook(types.SimpleNamespace(exc_value=KeyboardInterrupt(), exc_type=KeyboardInterrupt))
    finally:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = hook
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    assert raised == ["again"]


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")])
def test_a_platform_that_is_not_there_is_one_line(
    error: Exception, problem_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def devices(kind: str | None = None) -> None:
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    line = refusal(capsys, ["plan", str(problem_file)])
    assert line.startswith("rfdiff: JAX_PLATFORMS: 'cuda' (") and "with cpu among them, as in cuda,cpu" in line


def test_losses_that_are_no_numbers_have_their_own_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theory_curves = synthetic.theory()
    test_loss = np.array(theory_curves.test_loss)
    test_loss[3, 0] = np.nan
    wrong = dataclasses.replace(theory_curves, test_loss=test_loss, error_estimate=0.5)
    file = result_file.save(result_file.Result(synthetic.problem(), wrong, metadata={"tolerance": 1e-6}), tmp_path / "result.nc")
    assert entry.main(["plot", str(file)]) == entry.NOT_COMPUTED
    told = capsys.readouterr().out
    assert "warning: numerical error of the theory: 5.0e-01, above the tolerance 1.0e-06" in told
    assert f"not computed: the losses of theory at tau = {synthetic.taus()[3]:.4g} are not numbers" in told
    divergent = np.array(theory_curves.test_loss)
    divergent[-1] = np.nan  # at tau = inf, where p = n m: the test loss has no limit, and that is no failure
    limit = dataclasses.replace(theory_curves, taus=np.append(synthetic.taus()[:-1], np.inf), test_loss=divergent)
    assert curve_results.missing_losses(limit) == ""
