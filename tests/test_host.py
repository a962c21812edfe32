"""The closed forms compute on the CPU of the host in double precision, whatever the default device is; without a CPU one error says so."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.host import double_on_host

ROOT = Path(__file__).resolve().parents[1]

# Arrays of the theory that live on, and the numbers of the results, with the last of eight devices as the default one
ON_ANOTHER = """
import sys, json, numpy as np, jax
from rfdiff import Problem, MixtureLaw, theory
if sys.argv[1] == "last":
    jax.config.update("jax_default_device", jax.devices()[-1])
problem = Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)
taus = np.geomspace(1, 100, 5)
curves = theory.learning_curves(problem, taus, tolerance=1e-4)
plan = theory.plan_curves(problem, taus, tolerance=1e-4)
kernel = theory.curve_kernel(problem, plan)
losses = kernel.losses(taus)
spectrum = theory.spectrum(problem, num_points=40)
used = {device.id for array in jax.live_arrays() for device in array.devices()}
print(json.dumps({"devices": len(jax.devices()), "used": sorted(used), "kernel": [d.id for d in kernel.nodes.devices()],
                  "losses": curves.test_loss.tolist(), "same": np.asarray(losses.test).tolist(), "density": spectrum.density.sum()}))
"""

# Where the arrays inside the compiled functions of rarer quantities live, and what they come to
RARER = """
import sys, json, numpy as np, jax
from rfdiff import MixtureLaw, Problem, backward, theory
from rfdiff.backward import potential, speciation
from rfdiff.rules import MinibatchSGD
from rfdiff.theory import minibatch_settings
if sys.argv[1] == "last":
    jax.config.update("jax_default_device", jax.devices()[-1])
places = {}
def watch(module, name):
    function = getattr(module, name)
    def watched(*arguments):
        found = function(*arguments)
        places[name] = [d.id for leaf in jax.tree_util.tree_leaves(found) if isinstance(leaf, jax.Array) for d in leaf.devices()]
        return found
    setattr(module, name, watched)
for module, name in ((minibatch_settings, "_filter"), (speciation, "_speciation_times"), (potential, "_potential_times")):
    watch(module, name)
law = MixtureLaw.isotropic([0.6, 0.4], [1.2, 0.7], centroid_gram=np.array([[0.5, -0.3], [-0.3, 0.4]]))
problem, rule = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.2, 0.7]), "tanh", t=0.3, psi_p=2.0, psi_n=2.0), MinibatchSGD(0.5, 0.5)
found = {"settings": minibatch_settings.SGDSettings(problem, rule, 1e-2).losses(rule, np.array([10.0, np.inf])).tolist()}
g, parts = theory.transform_at(problem, theory.plan_points(problem, np.array([1.0 + 0.5j])))
places["transform_at"] = [d.id for d in g.devices()]
found |= {"transform": [float(g[0].real), float(g[0].imag)], "times": backward.speciation_times(law, d=100).tolist(),
          "wells": backward.potential_times(law, d=100).tolist()}
used = sorted({d.id for array in jax.live_arrays() for d in array.devices()})
print(json.dumps({"devices": len(jax.devices()), "places": places, "used": used, "found": found, "double": g.dtype == np.complex128}))
"""


def on_eight(script: str, which: str) -> dict[str, Any]:
    """What a script prints with the first or the last of eight devices as the default one."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    words = [sys.executable, "-c", script, which]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.thorough
def test_rarer_quantities_leave_another_default_device_alone_too() -> None:
    first, last = on_eight(RARER, "first"), on_eight(RARER, "last")
    assert last["devices"] == 8 and last["double"] and last["used"] == [0]
    assert set(last["places"]) == {"_filter", "_speciation_times", "_potential_times", "transform_at"}
    assert all(set(places) == {0} for places in last["places"].values()), last["places"]
    for name, values in first["found"].items():
        np.testing.assert_allclose(last["found"][name], values, rtol=1e-12)


@pytest.mark.thorough
def test_another_default_device_is_left_alone() -> None:
    first, last = on_eight(ON_ANOTHER, "first"), on_eight(ON_ANOTHER, "last")
    assert last["devices"] == 8 and last["kernel"] == [0] and last["used"] == [0]
    for name in ("losses", "same", "density"):
        np.testing.assert_allclose(last[name], first[name], rtol=1e-12)


def test_precision_and_place_are_those_of_the_theory_inside_and_the_caller_s_outside() -> None:
    names = "jax_enable_x64", "jax_default_device"
    before = [jax.config.values[name] for name in names]
    with double_on_host():
        inside = jnp.ones(3)
    assert inside.dtype == np.float64 and next(iter(inside.devices())).platform == "cpu"
    assert [jax.config.values[name] for name in names] == before


def test_without_a_cpu_one_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cpu(backend: str) -> list[jax.Device]:
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
    monkeypatch.setattr(jax, "local_devices", no_cpu)
    with (
        pytest.raises(InputError, match=r"^JAX_PLATFORMS: without the CPU, .*; allowed: JAX_PLATFORMS=cuda,cpu, or not set$"),
        double_on_host(),
    ):
        pass
