"""Running and continuing a sweep in one process: what is computed, kept, recorded, refused."""

import concurrent.futures
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import simulation, theory
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.files import result_file
from rfdiff.sweep import DONE, FAILED, MISSING, Folder, Sweep, Task, compute, run_sweep, serially
from rfdiff.sweep.cells import cells_of, check_finite, problem_of, versions
from rfdiff.sweep.outcome import attempt
from tests.sweep.instant import instant, sweep
from tests.tolerances import rejects

SMALL: dict[str, Any] = {"solvers": ["theory", "exact"], "d": [12], "seeds": 2, "axes": {"psi_n": [2.0, 3.0]}}  # 6 cells


def small(**changes: Any) -> Sweep:
    return sweep(**{**SMALL, **changes})


def counting(calls: list[Task], fail: Callable[[Task], bool] = lambda task: False, error: type[BaseException] = ValueError) -> Any:
    """`instant` that remembers its tasks and fails for some of them."""

    def function(task: Task) -> LearningCurves:
        calls.append(task)
        if fail(task):
            raise error("made to fail")
        return instant(task)

    return serially(function)


def run(out: Path, asked: Sweep, execute: Any = None, **options: Any) -> dict[str, str]:
    return run_sweep(asked, out, execute=serially(instant) if execute is None else execute, stream=io.StringIO(), **options)


def names(out: Path) -> set[str]:
    return {path.name for path in out.rglob("*") if path.is_file() and path.name != ".lock"}


def same_curves(a: LearningCurves | None, b: LearningCurves | None) -> None:
    assert a is not None and b is not None
    assert str(jax.tree.structure(a)) == str(jax.tree.structure(b))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_each_cell_is_one_file_that_holds_what_was_computed(tmp_path: Path) -> None:
    calls: list[Task] = []
    states = run(tmp_path, small(), counting(calls))
    cells = cells_of(small(), versions())
    assert states == {cell.name: DONE for cell in cells} and calls == [cell.task for cell in cells]
    assert names(tmp_path) == {"manifest.json", *(f"{cell.name}.nc" for cell in cells)}
    for cell in cells:
        result = result_file.load(tmp_path / "cells" / f"{cell.name}.nc")
        same_curves(result.theory if cell.task.solver == "theory" else result.simulation, instant(cell.task))
        assert result.problem.to_toml() == cell.task.problem
        assert result.metadata["cell"] == cell.name and result.metadata["jax_version"] == versions()["jax"]
    rejects(lambda: same_curves(result_file.load(tmp_path / "cells" / f"{cells[0].name}.nc").theory, instant(cells[1].task)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["versions"] == versions()
    assert manifest["cells"][cells[-1].name] == {"point": {"psi_n": 3.0}, "solver": "exact", "d": 12, "seeds": [1]}


def test_a_sweep_goes_on_from_what_is_there(tmp_path: Path) -> None:
    calls: list[Task] = []

    def stop(task: Task) -> bool:
        return len(calls) == 4

    with pytest.raises(KeyboardInterrupt, match="3 of 6 cells are kept, the same command resumes from them"):
        run(tmp_path, small(), counting(calls, stop, KeyboardInterrupt))
    (tmp_path / "cells" / ".abc.nc.12.partial").write_bytes(b"torn")
    (tmp_path / ".manifest.json.12.partial").write_bytes(b"torn")
    more: list[Task] = []
    states = run(tmp_path, small(), counting(more))
    assert set(states.values()) == {DONE} and more == calls[3:] + [cell.task for cell in cells_of(small(), versions())[4:]]
    assert not [name for name in names(tmp_path) if name.endswith(".partial")]
    none: list[Task] = []
    assert run(tmp_path, small(), counting(none)) == states and none == []


@pytest.mark.parametrize("error", [ValueError, MemoryError, FloatingPointError, RuntimeError, KeyError, RecursionError])
def test_whatever_goes_wrong_in_a_cell_is_its_diagnosis(error: type[Exception]) -> None:
    def broken(task: Task) -> LearningCurves:
        raise error("made to fail")

    outcome = attempt(broken, cells_of(small(), versions())[0].task, versions())
    assert outcome.curves is None and outcome.diagnosis is not None
    assert outcome.diagnosis["type"] == error.__name__ and "made to fail" in outcome.diagnosis["message"]


def test_a_cell_that_fails_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    calls: list[Task] = []
    states = run(tmp_path, small(), counting(calls, lambda task: task.solver == "theory", MemoryError))
    assert [list(states.values()).count(state) for state in (DONE, FAILED, MISSING)] == [4, 2, 0] and len(calls) == 6
    failed = [name for name, state in states.items() if state == FAILED]
    record = json.loads((tmp_path / "failures" / f"{failed[0]}.json").read_text())
    assert record["type"] == "MemoryError" and "made to fail" in record["message"] and record["cell"] == failed[0]
    assert record["where"].startswith("rfdiff.sweep.outcome:") and record["where"].endswith("in attempt")  # the test is not of the package
    assert record["point"] == {"psi_n": 2.0} and record["solver"] == "theory"
    again: list[Task] = []
    assert run(tmp_path, small(), counting(again)) == states and again == []  # failed cells are left alone
    stopped: list[Task] = []
    with pytest.raises(KeyboardInterrupt, match="4 of 6"):  # an interrupted retry keeps the records
        run(tmp_path, small(), counting(stopped, lambda task: True, KeyboardInterrupt), retry=True)
    assert Folder(tmp_path).states(cells_of(small(), versions())) == states
    assert set(run(tmp_path, small(), counting(again), retry=True).values()) == {DONE}
    assert len(again) == 2 and list((tmp_path / "failures").iterdir()) == []


def test_real_failures_tell_their_cause(tmp_path: Path) -> None:
    """Networks that do not fit in any memory: refused by the solver where they are to be built, since the workers' memory decides."""
    asked = small(solvers=["exact"], seeds=1, d=[10**6])
    assert set(run(tmp_path, asked, serially(compute)).values()) == {FAILED}
    record = json.loads(next((tmp_path / "failures").iterdir()).read_text())
    assert record["type"] == "InputError" and "GiB" in record["message"] and record["where"].startswith("rfdiff.simulation.networks:")


def test_curves_that_are_not_finite_are_a_failure() -> None:
    cells = cells_of(small(), versions())
    curves, problem = instant(cells[0].task), problem_of(cells[0].task)
    check_finite(curves, problem)
    np.asarray(curves.test_loss)[2, 1] = np.nan
    with pytest.raises(ValueError, match="losses: not finite from tau = 20 on, at 1 of 5 training times"):
        check_finite(curves, problem)


def test_a_process_of_other_versions_computes_nothing() -> None:
    task = cells_of(small(), versions())[0].task
    outcome = attempt(instant, task, {**versions(), "jax": "0.0"})
    assert outcome.curves is None and outcome.diagnosis is not None
    assert outcome.diagnosis["message"].startswith(f"worker: has jax {versions()['jax']}, not 0.0")
    assert attempt(instant, task, versions()).curves is not None


@pytest.mark.thorough
def test_another_sweep_is_refused_and_a_larger_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, small())
    before = names(tmp_path)
    for other in (small(random_seed=1), small(seeds=1), small(axes={"psi_n": [2.0, 4.0]})):
        with pytest.raises(ValueError, match="holds another sweep: .* of its 6 cells are not in this one"):
            run(tmp_path, other)
    assert names(tmp_path) == before
    calls: list[Task] = []
    run(tmp_path, small(seeds=3, axes={"psi_n": [1.5, 2.0, 3.0]}), counting(calls))
    assert len(calls) == 1 + 3 + 2 and before < names(tmp_path)
    monkeypatch.setattr("rfdiff.sweep.running.versions", lambda: {**versions(), "jax": "0.0"})
    with pytest.raises(ValueError, match=r"was computed with other versions \(jax .*, here 0\.0\); allowed: those versions, or"):
        run(tmp_path, small(seeds=3, axes={"psi_n": [1.5, 2.0, 3.0]}))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(task: Task) -> LearningCurves:
        with pytest.raises(ValueError, match="another process works on the sweep in") as err:
            run(tmp_path, small())
        refused.append(str(err.value))
        return instant(task)

    run(tmp_path, small(), serially(second))
    assert len(refused) == 6
    run(tmp_path, small())  # the lock ended with the run


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out: cannot write to"):
        run(tmp_path / "file", small())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged manifest"),
        ("[]", "damaged manifest"),
        ("{}", "is not the manifest of an rfdiff sweep"),
        ('{"format": "rfdiff sweep", "format_version": 9}', "has format version 9; allowed: up to 1; upgrade rfdiff"),
        ('{"format": "rfdiff sweep", "format_version": 1}', "damaged manifest"),
    ],
)
def test_damaged_and_newer_manifests_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=rf"manifest\.json: {message}"):
        run(tmp_path, small())


def test_a_manifest_of_other_cells_than_its_specification_is_damaged(tmp_path: Path) -> None:
    run(tmp_path, small())
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["cells"].popitem()
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"of another version \(its cells are not those of its specification; written by rfdiff .*, here"):
        run(tmp_path, small())


def test_sigterm_stops_as_an_interrupt_does(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def function(task: Task) -> LearningCurves:
        if task.solver == "exact":
            os.kill(os.getpid(), signal.SIGTERM)
        return instant(task)

    with pytest.raises(KeyboardInterrupt, match="2 of 6 cells are kept"):
        run(tmp_path, small(), serially(function))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_sweep_runs_in_a_thread(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        states = pool.submit(run, tmp_path, small()).result()  # an exception of the thread is one here
        assert set(states.values()) == {DONE} and len(list((tmp_path / "cells").glob("*.nc"))) == 6
        broken = pool.submit(run, tmp_path, small(random_seed=1))
        with pytest.raises(InputError, match="holds another sweep"):
            broken.result()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_counts_each_solver_and_tells_failures(tmp_path: Path, stream: type[io.StringIO]) -> None:
    told = stream()
    execute = counting([], lambda task: task.solver == "exact" and task.seeds == (1,))
    run_sweep(small(), tmp_path, execute=execute, stream=told)
    text = told.getvalue()
    assert text.count("failed: ValueError: made to fail") == 2 and "s left" in text
    if stream is Terminal:
        assert "exact" in text and "theory" in text and "done=2, failed=2, left=0" in text
        return
    lines = [line for line in text.splitlines() if "made to fail" not in line]
    assert lines[0] == "sweep: 6 cells; theory 0 done 0 failed 2 left; exact 0 done 0 failed 4 left"
    assert lines[-1].startswith("sweep: 6/6 cells, ") and lines[-1].endswith("theory 2 done 0 failed 0 left; exact 2 done 2 failed 0 left")
    assert len(lines) == 7
    told = stream()
    run_sweep(small(), tmp_path, execute=serially(instant), stream=told)
    assert told.getvalue().startswith("sweep: 6 cells, 6 of them done or failed before; ")


@pytest.mark.slow
def test_real_cells_hold_what_theory_and_simulation_compute(tmp_path: Path) -> None:
    asked = small(axes=None, seeds=2, seeds_per_cell=2, solvers=["theory", "exact", "krylov"])
    assert set(run(tmp_path, asked, serially(compute)).values()) == {DONE}
    problem, taus = asked.problems[0], np.asarray(asked.taus)
    results = {cell.task.solver: result_file.load(tmp_path / "cells" / f"{cell.name}.nc") for cell in cells_of(asked, versions())}
    same_curves(results["theory"].theory, theory.learning_curves(problem, taus))
    key = jax.random.fold_in(jax.random.key(0), 12)
    expected = simulation.learning_curves(problem, taus, d=12, key=key, num_seeds=2, dtype="float64")
    same_curves(results["exact"].simulation, expected)
    krylov = results["krylov"].simulation
    assert krylov is not None
    np.testing.assert_allclose(krylov.test_loss, expected.test_loss, atol=1e-7)  # the same networks
    wrong = simulation.learning_curves(problem, taus, d=12, key=jax.random.key(0), num_seeds=2, dtype="float64")
    rejects(lambda: np.testing.assert_allclose(wrong.test_loss, expected.test_loss, atol=1e-7))


@pytest.mark.thorough
def test_a_real_cell(tmp_path: Path) -> None:
    asked = small(axes=None, seeds=1, solvers=["exact"])
    (name,) = run(tmp_path, asked, serially(compute))
    found = result_file.load(tmp_path / "cells" / f"{name}.nc").simulation
    key = jax.random.fold_in(jax.random.key(0), 12)
    same_curves(found, simulation.learning_curves(asked.problems[0], np.asarray(asked.taus), d=12, key=key, num_seeds=1, dtype="float64"))
