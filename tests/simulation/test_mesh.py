"""Networks on a mesh of eight host devices, in a process of its own: the same numbers, and meshes that are refused."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from rfdiff import simulation
from rfdiff.simulation import solver_costs
from tests.simulation import spread_cases
from tests.tolerances import rejects

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-10  # float64; what was seen is below 1e-12


def on_eight_devices(*arguments: str) -> dict[str, Any]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.simulation.spread_cases", *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def check(found: dict[str, Any]) -> None:
    def same(value: float) -> None:
        assert value < TOLERANCE

    assert found["devices"] == 8
    for name, value in found["same"].items():
        assert value < TOLERANCE, name
    for value in (value for name, value in found.items() if name.startswith("without")):
        rejects(functools.partial(same, value))


@pytest.mark.thorough
def test_the_same_numbers_on_any_mesh() -> None:
    """And of 63 features each device holds the rows of 8, of W and of the basis."""
    found = on_eight_devices()
    check(found)
    assert found["shards"] == [8]


@pytest.mark.slow
def test_the_same_numbers_on_more_meshes_and_solvers() -> None:
    found = on_eight_devices("--full")
    check(found)
    assert found["shards"] == [8]  # of U too


@pytest.mark.slow
def test_a_mesh_of_one_device_changes_nothing() -> None:
    mesh = simulation.device_mesh(devices=jax.devices()[:1])
    assert dict(mesh.shape) == {"seeds": 1, "features": 1}
    calls: list[tuple[int, int]] = []
    case = spread_cases.problem(3.0)
    run = functools.partial(simulation.learning_curves, case, spread_cases.TAUS, d=spread_cases.D, key=spread_cases.KEY, num_seeds=3)
    found = run(mesh=mesh, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (3, 3)
    plain = run()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("field", ["seeds", "features"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "1", 99])
def test_refused_numbers_of_devices(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}: .*; allowed: an integer >= 1 and <= 1, the number of devices"):
        simulation.device_mesh(**{field: value}, devices=jax.devices()[:1])


class Device:
    """What a mesh asks of a device."""

    platform, device_kind = "cpu", "cpu"

    def __init__(self, number: int, process: int) -> None:
        self.id, self.process_index = number, process


def test_meshes_of_many_devices() -> None:
    devices = [Device(i, i // 4) for i in range(8)]
    for given, expected in (({}, (8, 1)), ({"seeds": 2}, (2, 4)), ({"features": 4}, (2, 4)), ({"seeds": 4, "features": 2}, (4, 2))):
        assert simulation.device_mesh(**given, devices=devices[::-1]).devices.shape == expected
    mesh = simulation.device_mesh(features=4, devices=devices[::-1])
    assert [[device.id for device in row] for row in mesh.devices] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match=r"seeds, features: 3, 2; allowed: numbers whose product is 8, the number of devices"):
        simulation.device_mesh(seeds=3, features=2, devices=devices)
    with pytest.raises(ValueError, match=r"features: 8 devices for one network belong to several processes; allowed: a divisor"):
        simulation.device_mesh(features=8, devices=devices)
    with pytest.raises(ValueError, match=r"features: 4 devices for one network belong to several processes"):
        simulation.device_mesh(features=4, devices=[Device(i, i // 2) for i in range(8)])


@pytest.mark.parametrize(("platform", "exact", "krylov"), [("cpu", 8.0, 2.0), ("gpu", 1.0, 0.25)])
def test_memory_of_a_mesh(platform: str, exact: float, krylov: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of 2 rows of 4 devices: those of a CPU share the memory of the process's two networks."""
    monkeypatch.setattr(Device, "platform", platform)
    mesh = simulation.device_mesh(features=4, devices=[Device(i, i // 8) for i in range(16)])
    found = {solver: solver_costs._shared(solver, solver_costs._Cost(1.0, 1.0, 1.0), mesh).bytes for solver in ("exact", "krylov")}
    assert found == {"exact": exact, "krylov": krylov}


def test_what_is_no_such_mesh_is_refused() -> None:
    other = Mesh(np.array(jax.devices()[:1]), ("x",))
    for mesh in (other, 3, jax.devices()):
        with pytest.raises(ValueError, match=r"mesh: .*; allowed: one from simulation.device_mesh, or None"):
            simulation.run_seeds(spread_cases.problem(3.0), spread_cases.TAUS, d=9, key=jax.random.key(0), seeds=[0], mesh=mesh)  # type: ignore[arg-type]
