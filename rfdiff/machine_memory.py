"""Memory that a computation may use: the device's own, or the machine's within the limits of its container and of its batch job."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import jax

MIB = 2**20
# memory of a control group by version: folder of the hierarchy below /sys/fs/cgroup, file of the limit
CGROUP_LIMITS = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}


def available_bytes() -> int | None:
    """Bytes of memory of the device that JAX computes on: what the accelerator reports, else `machine_bytes`; None where neither says."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return machine_bytes()


def machine_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int | None:
    """Bytes of memory that this process may use: the smallest of what the machine has, its control groups allow and SLURM granted.

    Containers (Docker, Kubernetes, systemd) limit memory by control groups, of version 1 or 2, in which every group above the process's
    counts too. SLURM states its grant in megabytes for the node or for each of its processors, and does not always enforce it by a group.

    Args:
        root: root of the file system whose /proc and /sys are read.
        environment: environment variables.

    Returns:
        The limit in bytes; None where nothing is known.
    """
    limits = [*_physical(), *_cgroup_limits(root), *_slurm_limits(environment)]
    return min(limits, default=None)


def _physical() -> Iterator[int]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Limits of the control groups of this process and of those above them, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        for controller, (hierarchy, file) in CGROUP_LIMITS.items():
            if controller not in controllers.split(","):
                continue
            inner = PurePosixPath(group.lstrip("/"))  # a container may see the path of its host: then only its own root exists
            for folder in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit here
                    yield int((root / "sys/fs/cgroup" / hierarchy / folder / file).read_text(encoding="utf-8"))


def _slurm_limits(environment: Mapping[str, str]) -> Iterator[int]:
    """Memory that SLURM granted on this node; 0 stands for all of it."""
    node, each = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    processors = environment.get("SLURM_CPUS_ON_NODE", "")
    if node.isdecimal() and int(node) > 0:
        yield int(node) * MIB
    if each.isdecimal() and processors.isdecimal() and int(each) * int(processors) > 0:
        yield int(each) * int(processors) * MIB
