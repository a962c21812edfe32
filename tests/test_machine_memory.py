"""Memory limits: of control groups of both versions, of SLURM, of the device."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from rfdiff import machine_memory
from rfdiff.machine_memory import MIB, available_bytes, machine_bytes


def tree(root: Path, files: dict[str, str]) -> Path:
    """A file system of a few small files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def physical(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine of 64 GiB."""
    monkeypatch.setattr(machine_memory, "_physical", lambda: iter([64 * 2**30]))
    return 64 * 2**30


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2147483648\n"}, 2**31),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1024\n"}, 1024),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "5:cpu,memory:/job\n0::/\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "8192\n"}, 8192),
        ({"proc/self/cgroup": "5:memory:/docker/1f\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "512\n"}, 512),
        ({"proc/self/cgroup": "5:memory:/job\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"proc/self/cgroup": "5:cpu:/job\n", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1\n"}, None),
    ],
)
def test_control_groups(files: dict[str, str], limit: int | None, physical: int, tmp_path: Path) -> None:
    assert machine_bytes(tree(tmp_path, files), {}) == (physical if limit is None else limit)


@pytest.mark.parametrize(
    ("variables", "limit"),
    [
        ({"SLURM_MEM_PER_NODE": "2000"}, 2000 * MIB),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "4"}, 2000 * MIB),
        ({"SLURM_MEM_PER_CPU": "500"}, None),
        ({"SLURM_MEM_PER_NODE": "2G"}, None),
        ({"SLURM_MEM_PER_NODE": "99999999999"}, None),
    ],
)
def test_slurm(variables: dict[str, str], limit: int | None, physical: int, tmp_path: Path) -> None:
    assert machine_bytes(tmp_path, variables) == (physical if limit is None else limit)


def test_nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine_memory, "_physical", lambda: iter(()))
    assert machine_bytes(tmp_path, {}) is None


def test_this_machine_has_memory() -> None:
    found = machine_bytes()
    assert found is not None and found > 2**28


def test_an_accelerator_reports_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def device(stats: dict[str, Any] | None) -> Any:
        return lambda: [SimpleNamespace(memory_stats=lambda: stats)]

    monkeypatch.setattr(jax, "local_devices", device({"bytes_limit": 7}))
    assert available_bytes() == 7
    monkeypatch.setattr(jax, "local_devices", device(None))
    assert available_bytes() == machine_bytes()
