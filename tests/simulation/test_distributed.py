"""Two processes on this machine give the curves of one, and learn of each other's failures."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.simulation import distributed
from rfdiff.simulation.seed_batches import SeedBatch
from tests.simulation import spread_cases
from tests.synthetic import given
from tests.tolerances import rejects

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 3

SCRIPT = """
import json, sys
import jax
import numpy as np
before = dict(jax.config.values)
from rfdiff import simulation
from rfdiff.simulation import distributed
from rfdiff.simulation.seed_batches import SeedBatch
simulation.initialize(coordinator=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from tests.simulation.spread_cases import D, KEY, TAUS, problem  # makes a key, so computes
changed = [name for name, value in jax.config.values.items() if before.get(name) != value]
mesh = simulation.device_mesh()
found = {"writer": simulation.is_writer(), "mesh": list(mesh.devices.shape), "changed": changed}
for solver, count in (("exact", 3), ("exact", 1)):
    curves = simulation.learning_curves(problem(3.0), TAUS, d=D, key=KEY, num_seeds=count, solver=solver, mesh=mesh)
    found[f"{solver} {count}"] = {name: value.tolist() for name, value in curves.per_seed.items()}
try:
    distributed.over_processes(lambda seeds, mesh: 1 / jax.process_index(), [0, 1], mesh)
except (ZeroDivisionError, RuntimeError, AttributeError) as err:
    found["failure"] = f"{type(err).__name__}: {err}"
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def both() -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, address, str(i)], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def deviation(found: dict[str, Any], solver: str, count: int, key: Any = spread_cases.KEY) -> float:
    case, taus, d = spread_cases.problem(3.0), spread_cases.TAUS, spread_cases.D
    single = simulation.learning_curves(case, taus, d=d, key=key, num_seeds=count, solver=solver)
    return max(float(np.max(abs(np.asarray(found[f"{solver} {count}"][name]) - value))) for name, value in given(single.per_seed).items())


@pytest.mark.thorough
@pytest.mark.parametrize(("solver", "count"), [("exact", 3), ("exact", 1)])
def test_both_have_the_curves_of_one_process(both: list[dict[str, Any]], solver: str, count: int) -> None:
    """Three seeds over two processes, one with two of them; and one seed, of which the second process has none."""
    for found in both:
        assert deviation(found, solver, count) < 1e-10
    assert both[0][f"{solver} {count}"] == both[1][f"{solver} {count}"]

    def another_ensemble() -> None:
        assert deviation({f"{solver} {count}": {n: v[::-1] for n, v in both[0][f"{solver} {count}"].items()}}, solver, count) < 1e-10

    if count > 1:
        rejects(another_ensemble)


@pytest.mark.thorough
def test_one_writes_and_no_setting_changes(both: list[dict[str, Any]]) -> None:
    assert [found["writer"] for found in both] == [True, False] and all(found["mesh"] == [2, 1] for found in both)
    assert both[0]["changed"] == both[1]["changed"] == []
    assert simulation.is_writer()


@pytest.mark.thorough
def test_a_failure_is_told_to_the_others(both: list[dict[str, Any]]) -> None:
    assert both[0]["failure"].startswith("ZeroDivisionError")
    assert both[1]["failure"] == "OtherProcessError: process 0 of 2 failed; its own message says why"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), r"coordinator, num_processes, process_id: 'host:1', None, None; allowed: all three, or none"),
        ((None, 2, 0), r"allowed: all three, or none under a scheduler"),
        (("host", 2, 0), r"coordinator: 'host'; allowed: 'HOST:PORT'"),
        ((":80", 2, 0), r"coordinator: ':80'; allowed: 'HOST:PORT'"),
        (("host:99999", 2, 0), r"coordinator: 'host:99999'"),
        (("host:1", 0, 0), r"num_processes: 0; allowed: an integer >= 1"),
        (("host:1", 2, 2), r"process_id: 2; allowed: an integer >= 0 and <= 1"),
        (("host:1", 2, -1), r"process_id: -1"),
        (("host:1", True, 0), r"num_processes: True"),
    ],
)
def test_refused_arguments(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulation.initialize(**dict(zip(("coordinator", "num_processes", "process_id"), arguments, strict=True)))


def test_a_mesh_without_a_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"mesh: no device of process 1; allowed: at least one row of each process"):
        distributed.over_processes(lambda seeds, mesh: None, [0], simulation.device_mesh())  # type: ignore[arg-type,return-value]


def test_every_array_of_seeds_is_gathered() -> None:
    axes = {}
    for name, hint in get_type_hints(SeedBatch).items():
        for array in (kind for kind in (hint, *get_args(hint)) if hasattr(kind, "dim_str")):
            if "S" in (letters := array.dim_str.split()):
                axes[name] = letters.index("S")
    assert axes == distributed.SEED_AXIS
