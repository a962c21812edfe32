"""Where a result comes from: versions, kind of machine and date; no host names and no paths."""

import datetime
import platform
from importlib import metadata as packages

import jax

Entry = str | int | float  # what a NetCDF attribute can hold and give back


def provenance(**entries: Entry) -> dict[str, Entry]:
    """Versions, kind of machine and date of a run, for `Result.metadata`.

    Args:
        entries: further text and numbers to record (random seed, rule, …).
    """
    versions = {f"{name}_version": version_of(name) for name in ("rfdiff", "jax", "numpy", "scipy", "xarray")}
    device = jax.devices()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python_version": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform} ({device.device_kind}) x {jax.device_count()}",
        **entries,
    }


def version_of(name: str) -> str:
    """Version of an installed package."""
    try:
        return packages.version(name)
    except packages.PackageNotFoundError:
        return "not installed as a package"


def computing_versions() -> dict[str, str]:
    """Versions that a number depends on: rfdiff's own, and those of what it computes with."""
    return {name: version_of(name) for name in ("rfdiff", "jax", "jaxlib")}
