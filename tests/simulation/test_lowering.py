"""Every program of the simulation lowers for GPUs and TPUs: no number of 64 bits in single precision, no call of the host, no LAPACK."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.lowered_programs import PLATFORMS, read

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {"cuda": {"cusolver_syevd_ffi"}, "tpu": {"Eigh"}}  # eigh is all that comes from a library of the device
MODULES = {  # images.devices: the loop over the steps of training
    "backward.process", "backward.samplers", "generation.measures", "generation.trained_scores", "images.losses", "images.devices",
    "simulation.descent.loop", "simulation.descent.minibatch", "simulation.descent.setup", "simulation.exact_ensemble", "simulation.krylov",
    "simulation.krylov_curves", "simulation.krylov_ensemble", "simulation.mesh",
}  # fmt: skip


def breaches(record: dict[str, Any], platforms: tuple[str, ...] = PLATFORMS) -> list[str]:
    """What of a program an accelerator cannot do, or does slowly."""
    found = []
    for platform in platforms:
        other = set(record[platform]["calls"]) - ALLOWED[platform]
        found += [f"{record['name']} on {platform} calls {name}" for name in sorted(other)]
        if record[platform]["wide"] and not record["double"]:
            found.append(f"{record['name']} on {platform} has numbers of 64 bits")
    return found


@pytest.mark.thorough
@pytest.mark.parametrize(("dtype", "platforms"), [("float32", PLATFORMS), ("float64", ("cuda",))])
def test_every_program_lowers(dtype: str, platforms: tuple[str, ...]) -> None:
    words = [sys.executable, "-m", "tests.lowered_programs", dtype]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout.splitlines()[-1])
    assert [breach for record in records for breach in breaches(record, platforms)] == []
    names = {record["name"] for record in records}
    assert {module for module in MODULES if not any(name.startswith(f"rfdiff.{module}.") for name in names)} == set()
    of_networks = [record for record in records if record["name"].startswith("rfdiff.simulation.exact")]
    assert {record["double"] for record in of_networks} == {dtype == "float64"}


def wide(x: jax.Array) -> jax.Array:
    with jax.enable_x64(True):
        return (x.astype(jnp.float64) ** 2).astype(jnp.float32)


def schur(x: jax.Array) -> jax.Array:
    return jnp.linalg.svd(jnp.outer(x, x))[1]


@pytest.mark.parametrize(("function", "says"), [(wide, "has numbers of 64 bits"), (schur, "calls")])
def test_what_an_accelerator_cannot_do_is_noticed(function: Any, says: str) -> None:
    record = {"name": "f", "double": False, "cuda": read(jax.jit(function).trace(jnp.ones(3, jnp.float32)), False, "cuda")}
    assert len(breaches(record, ("cuda",))) == 1 and says in breaches(record, ("cuda",))[0]
    plain = {"name": "f", "double": False, "cuda": read(jax.jit(jnp.sin).trace(jnp.ones(3, jnp.float32)), False, "cuda")}
    assert breaches(plain, ("cuda",)) == []


def test_a_call_of_the_host_has_no_program_elsewhere() -> None:
    called = jax.jit(lambda x: jax.pure_callback(np.sin, x, x))
    with pytest.raises(ValueError, match="lowering platform"):
        read(called.trace(jnp.ones(3, jnp.float32)), False, "cuda")
