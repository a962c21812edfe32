"""How near does the training of the U-Net come to what the device can multiply? Images/s against FLOPs of a step x rate of a matmul.

The FLOPs are those of the program of a step before compilation (XLA's count); the rate is the best of a few square matrix products in the
same floating type. Both are stated, with images/s measured over steps that are run as in training (state donated, data on the device), the
seconds of the first chunk (compilation) and the programs that a second chunk of another length compiles: none.
Run: python benchmarks/images.py [--smoke]. With --smoke the sizes are tiny and nothing is written. On a GPU sizes are those of full runs.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.images.architecture import Architecture
from rfdiff.images.devices import Devices
from rfdiff.images.protocol import Protocol
from rfdiff.images.settings import Settings
from rfdiff.images.training import initial_state, recipe_of, training_program, training_step

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"side": 7, "width": 4, "depth": 2, "batch": 16, "steps": 3, "matmul": 128, "dtype": "float32"},
    "cpu": {"side": 14, "width": 16, "depth": 2, "batch": 32, "steps": 20, "matmul": 1024, "dtype": "float32"},
    "gpu": {"side": 28, "width": 64, "depth": 3, "batch": 128, "steps": 200, "matmul": 8192, "dtype": "bfloat16"},
}


def matmul_rate(size: int, dtype: str, repeats: int) -> tuple[float, dict[str, Any]]:
    """FLOP/s of the best of some products of square matrices."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    seconds = harness.measure(lambda: product(matrix), repeats)
    return 2 * size**3 / seconds["best_s"], seconds


def settings_of(size: dict[str, Any]) -> Settings:
    """The run that a size stands for."""
    network = Architecture(width=size["width"], depth=size["depth"])
    return Settings(protocol=Protocol(side=size["side"]), architecture=network, batch=size["batch"], dtype=size["dtype"])


def flops_per_image(settings: Settings) -> float:
    """Operations of a training step on a CPU over its images, as XLA counts them."""
    devices, side = Devices(), settings.protocol.side
    images = jax.ShapeDtypeStruct((1000, side, side), np.float32)
    lowered = jax.jit(training_step(recipe_of(settings), devices)).lower(initial_state(settings), images, np.uint32(0))
    return float(lowered.cost_analysis()["flops"]) / settings.batch  # type: ignore[call-overload, index]


def count_elsewhere(size: dict[str, Any]) -> subprocess.Popen[str]:
    """A process that prints `flops_per_image`: XLA's plugins for accelerators do not count."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, __file__, "--flops", json.dumps(size)], stdout=subprocess.PIPE, text=True, env=environment)


def run(size: dict[str, Any], repeats: int) -> dict[str, Any]:
    devices, side, batch, count = Devices(), size["side"], size["batch"], size["steps"]
    settings = settings_of(size)
    images = devices.everywhere(np.random.default_rng(0).standard_normal((1000, side, side)).astype(np.float32))
    state, seed = devices.everywhere(initial_state(settings)), np.uint32(0)
    counting = count_elsewhere(size) if devices.platform != "cpu" else None
    program = training_program(recipe_of(settings), devices)
    start = time.perf_counter()
    state = jax.block_until_ready(program(state, 1, images, seed))
    first = time.perf_counter() - start
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        state = jax.block_until_ready(program(state, count, images, seed))
        times.append((time.perf_counter() - start) / count)
    again = len(compiled)
    flops = flops_per_image(settings) if counting is None else float(counting.communicate()[0])
    rate, products = matmul_rate(size["matmul"], size["dtype"], repeats)
    step = {"first_s": first, "best_s": min(times), "median_s": float(np.median(times)), "worst_s": max(times), "repeats": repeats}
    speed = batch / min(times)
    return {
        "shape": {**size, "devices": devices.count, "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.parameters))},
        "seconds": {"step": step, "matmul": products},
        "images_per_s": speed,
        "flops_per_image": flops,
        "matmul_flops_per_s": rate,
        "part_of_the_matmul_rate": speed * flops / (rate * devices.count),
        "programs_compiled_by_later_chunks": again,
        "finite": bool(jnp.isfinite(jax.tree.leaves(state.parameters)[0]).all()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    parser.add_argument("--flops", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flops:
        print(flops_per_image(settings_of(json.loads(options.flops))))
    elif options.smoke:
        found = run(SIZES["smoke"], 1)
        assert math.isfinite(found["part_of_the_matmul_rate"])
        json.dump(found, sys.stdout, indent=2)
    else:
        harness.write("images", run(SIZES["cpu" if jax.default_backend() == "cpu" else "gpu"], 3))
