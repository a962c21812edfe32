"""How does the cost of a network grow, and how near to the device's own speed is it? (target: assembly of U at 70 % of its products' rate)

Eigendecompositions, assembly of U, whole curves by the exact flow and by matrix-free Krylov spaces, and the closed form, at sizes chosen
by the device. The problem is case A (ψ_p = 4, ψ_n = 3), for Krylov spaces one of fixed d and n = 4d with p growing. Assembly is rated
by the operations of the matrix products that it does, beside square products of the same precision measured in turns with it: those of
Mehler's series to order k are 2(d + n(k + 1)) an entry, on and below the diagonal of the tiles of a symmetric matrix, p²/2 of it and more.
(`fraction_of_p2` counts all p² entries, as if none were mirrored.) The activation averages and elementwise sums count as loss.
Every case runs in a process of its own, so that the memory peak is that of the case: the device's where it reports one, else the
process's. What fails is recorded with its reason.
Run: python benchmarks/scaling.py [--only PART ...] [--smoke]. With --smoke the sizes are tiny and nothing is written.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from rfdiff import MixtureLaw, Problem, simulation, theory
from rfdiff.simulation.features import clean_samples, first_layer, sizes_at
from rfdiff.simulation.moment_assembly import tile_side
from rfdiff.simulation.moments import noise_averaged_moments
from rfdiff.simulation.replica import replica_mixture
from rfdiff.simulation.replica_memory import layout_for

TARGET = 0.7
PARTS = ("eigh", "assembly", "exact_flow", "krylov", "theory")
CPU_SIZES = (512, 1024, 2048, 4096, 8192)
SIZES: dict[str, dict[str, Any]] = {  # of each part; d of the Krylov spaces
    "smoke": {"eigh": (64,), "assembly": (64,), "exact_flow": (64,), "krylov": (256,), "d": 16, "product": 128},
    "cpu": {
        "eigh": CPU_SIZES, "assembly": CPU_SIZES, "exact_flow": CPU_SIZES, "krylov": CPU_SIZES, "d": 64, "product": 2048,
    },
    "accelerator": {
        "eigh": (4096, 8192, 16384), "assembly": (4096, 8192, 16384), "exact_flow": (4096, 8192, 16384),
        "krylov": (32768, 65536, 131072), "d": 512, "product": 8192,
    },
}  # fmt: skip
TAUS = np.geomspace(0.1, 1e5, 80)
LIMIT = 40.0  # seconds after which no repeat is begun
LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
Timing = dict[str, Any]


def problem(psi_p: float, psi_n: float) -> Problem:
    return Problem(LAW, "tanh", t=0.1, psi_p=psi_p, psi_n=psi_n)  # type: ignore[arg-type]


def eigh(p: int, dtype: str, sizes: dict[str, Any]) -> Timing:
    """A symmetric matrix with a spectrum like that of U."""
    a = jax.random.normal(jax.random.key(0), (p, 2 * p), jnp.float32).astype(dtype)
    U = jnp.matmul(a, a.T, precision=jax.lax.Precision.HIGHEST) / (2 * p)
    solve = jax.jit(lambda U: jnp.linalg.eigh(U, symmetrize_input=False))
    return {"seconds": harness.measure(lambda: solve(U), 3, LIMIT)}


def assembly(p: int, dtype: str, sizes: dict[str, Any]) -> Timing:
    """Training moments with averaged noise, beside square products, in turns."""
    d, side = p // 4, sizes["product"]
    case = problem(4.0, 3.0)
    shape = sizes_at(case, d)
    layout = layout_for(case, shape, dtype)
    mixture, keys = replica_mixture(case, d, jax.random.key(0))
    W, x = first_layer(keys[0], shape, jnp.dtype(dtype)), clean_samples(keys[1], mixture, shape, jnp.dtype(dtype))
    a = jax.random.normal(jax.random.key(1), (side, side), jnp.float32).astype(dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    train = jax.jit(lambda W, x: noise_averaged_moments(W, x, case.t, shape, case.activation, layout.train_rule, layout.train_order).U)
    times = harness.measure_together({"product": lambda: product(a), "assembly": lambda: train(W, x)}, 1 if p > side else 3)
    per_entry, side_of_tiles = 2.0 * (d + shape.n * (layout.train_order + 1)), tile_side(p)
    count = -(-p // side_of_tiles)
    flops = per_entry * side_of_tiles**2 * count * (count + 1) / 2
    rate, own = 2.0 * side**3 / times["product"]["best_s"], flops / times["assembly"]["best_s"]
    fractions = {"fraction": own / rate, "fraction_of_p2": per_entry * p * p / times["assembly"]["best_s"] / rate}
    facts = {"order": layout.train_order, "nodes": len(layout.train_rule.nodes), "n": shape.n, "product_side": side}
    return {"seconds": times["assembly"], **facts, "flops_per_s": own, "product_flops_per_s": rate, **fractions}


def exact_flow(p: int, dtype: str, sizes: dict[str, Any]) -> Timing:
    """Curves of one network at 80 times, end to end."""
    run = curves(problem(4.0, 3.0), p // 4, dtype, "exact")
    return {"seconds": harness.measure(run, 3, LIMIT)}


def krylov(p: int, dtype: str, sizes: dict[str, Any]) -> Timing:
    """Curves of one network at 80 times without U in memory, to the default tolerance."""
    d = sizes["d"]
    run = curves(problem(p / d, 4.0), d, dtype, "krylov-matrix-free")
    return {"seconds": harness.measure(run, 1, LIMIT), "d": d, "n": 4 * d, "error_estimate": float(run().error_estimate[0])}


def curves(case: Problem, d: int, dtype: str, solver: str) -> Callable[[], Any]:
    return lambda: simulation.run_seeds(case, TAUS, d=d, key=jax.random.key(0), seeds=[0], dtype=dtype, solver=solver)


def closed_form(what: str) -> Timing:
    """Case A: curves at 80 times to 1e-6, or the spectrum with its support."""
    call = (lambda: theory.learning_curves(problem(4.0, 3.0), TAUS)) if what == "curves" else (lambda: theory.spectrum(problem(4.0, 3.0)))
    return {"seconds": harness.measure(call, 5, LIMIT)}


def one_case(part: str, size: str, dtype: str, kind: str) -> dict[str, Any]:
    """One case in this process, with the memory peak."""
    if part == "device":
        device = jax.devices()[0]
        return {"platform": device.platform, "environment": harness.environment()}
    with jax.enable_x64(dtype == "float64"):
        found = closed_form(size) if part == "theory" else globals()[part](int(size), dtype, SIZES[kind])
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {**found, "peak_gib": peak / 2**30, "peak_of": "device" if "peak_bytes_in_use" in stats else "process"}


def in_a_process(*case: str) -> dict[str, Any]:
    """The result of `one_case` from a fresh process, or why there is none."""
    done = subprocess.run([sys.executable, __file__, "--case", *case], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": lines[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def run(parts: list[str], smoke: bool) -> tuple[str, dict[str, Any]]:
    """All cases of some parts, and the name of the device's platform."""
    device = in_a_process("device", "", "", "")
    kind = "smoke" if smoke else "cpu" if device["platform"] == "cpu" else "accelerator"
    cases, seconds = {}, {}
    for part in parts:
        sizes = ("curves", "spectrum") if part == "theory" else SIZES[kind][part]
        for dtype in ("float64",) if part == "theory" else ("float32", "float64"):
            for size in sizes:
                name = f"{part} {size} {dtype}"
                found = in_a_process(part, str(size), dtype, kind)
                if "seconds" in found:
                    seconds[name] = found.pop("seconds")
                cases[name] = found
                print(name, found.get("failed") or f"{seconds[name]['best_s']:.3g} s", file=sys.stderr, flush=True)
    growth = {}
    for part, dtype in itertools.product([p for p in parts if p != "theory"], ("float32", "float64")):
        times = {p: seconds[name]["best_s"] for p in SIZES[kind][part] if (name := f"{part} {p} {dtype}") in seconds}
        growth[f"{part} {dtype}"] = fitted(times)
    return device["platform"], {
        "sizes": kind,
        "seconds": seconds,
        "cases": cases,
        "seconds_grow_as_p_to": growth,
        "target_fraction": TARGET,
    }


def fitted(times: dict[int, float]) -> float | None:
    """Exponent of p in the time, by least squares through the logarithms; None for fewer than three sizes."""
    if len(times) < 3:
        return None
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run; written under their names")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(one_case(*options.case)))
    else:
        platform, document = run(options.only, options.smoke)
        suffix = "" if options.only == list(PARTS) else "_" + "_".join(options.only)
        if options.smoke:
            print(json.dumps(document, indent=2))
        else:
            harness.write(f"scaling_{platform}{suffix}", document)
