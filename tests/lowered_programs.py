"""Every program that simulation, sampling and images compile, lowered for accelerators that this machine need not have.

Run as a process of its own, since `jax.jit` is replaced before the package is imported: python -m tests.lowered_programs DTYPE. It prints,
as JSON, a record of each program: its name, and for each platform the custom calls in it and whether a number of 64 bits occurs.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax

PLATFORMS = ("cuda", "tpu")
CUSTOM_CALL = re.compile(r"custom_call @(\w+)")
WIDE = re.compile(r"\bf64\b|xf64|complex<f64>|xcomplex<f64>")
traced: dict[tuple[str, str], tuple[Any, bool]] = {}
compile_as_ever = jax.jit


class Recorded:
    """A compiled function that keeps what it was traced to for every new kind of arguments."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.compiled = compile_as_ever(function, **options)
        inner = getattr(function, "func", function)
        self.name = f"{inner.__module__}.{inner.__qualname__}"

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Trace for the record, unless a program is being traced that calls this one, and call."""
        leaves = jax.tree.leaves((arguments, named))
        if self.name.startswith("rfdiff.") and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            shapes = str([getattr(leaf, "shape", leaf) for leaf in leaves] + [getattr(leaf, "dtype", "") for leaf in leaves])
            if (self.name, shapes) not in traced:
                traced[self.name, shapes] = self.compiled.trace(*arguments, **named), bool(jax.config.values["jax_enable_x64"])
        return self.compiled(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.compiled, name)


def recorded(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """What stands in the place of `jax.jit`."""
    return (lambda later: Recorded(later, options)) if function is None else Recorded(function, options)


def run_everything(dtype: str) -> None:
    """One small case of each solver, of training, sampling and generation, and of a U-Net."""
    import numpy as np
    import optax  # type: ignore[import-untyped]

    from rfdiff import GaussianMixture, MinibatchSGD, MixtureLaw, Problem, backward, generation, simulation
    from rfdiff.backward import BackwardProcess, clones, integrate, uturn

    key, taus, d = jax.random.key(0), [1.0, 10.0], 16
    law = MixtureLaw([0.5, 0.5], [[1.5, 0.5], [0.4, 0.8]], [0.5, 0.5], [[0.3, 0.0], [0.0, 0.3]])
    for draws in (float("inf"), 2):
        problem = Problem(law, "tanh", t=0.3, psi_p=4.0, psi_n=4.0, noise_draws=draws, loss_weights=[0.4, 0.6])
        settings: dict[str, Any] = {"d": d, "key": key, "dtype": dtype}
        for solver in simulation.SOLVERS:
            simulation.learning_curves(problem, taus, num_seeds=2, solver=solver, **settings)
        simulation.learning_curves(problem, [1.0, 2.0], num_seeds=2, rule=MinibatchSGD(0.1, 1.0, sampling="balanced"), **settings)
        optimizer = optax.adam(1e-2)
        kinds: tuple[dict[str, Any], ...] = ({}, {"batch_size": 8} if draws == 2 else {"batch_size": 8, "noise": "fresh"})
        for kind in kinds:
            simulation.descend(problem, optimizer=optimizer, num_steps=4, step_size=0.1, **kind, **settings)
    mixture = GaussianMixture(np.array([0.5, 0.5]), 0.3 * np.eye(2, d), np.linspace(0.4, 1.5, 2 * d).reshape(2, d))
    process = BackwardProcess(mixture, num_steps=4, full=True)
    uturn(process, [0.5], key=key, num_trajectories=8)
    clones(process, 1.0, key=key, num_trajectories=8, num_times=4)
    for method in backward.METHODS:
        x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((8, d)), dtype)
        integrate(process.score, x, backward.log_snr_grid(2.0, 0.1, 4), key=key, method=method)
    generation.generate(problem, taus, d=d, times=backward.log_snr_grid(2.0, 0.1, 4), key=key, num_samples=16, dtype=dtype, num_probes=8)


def read(program: Any, double: bool, platform: str) -> dict[str, Any]:
    """Custom calls of a traced program on a platform, and whether it has numbers of 64 bits."""
    with jax.enable_x64(double):
        text = program.lower(lowering_platforms=(platform,)).as_text()
    return {"calls": sorted(set(CUSTOM_CALL.findall(text))), "wide": bool(WIDE.search(text))}


def main(dtype: str) -> None:
    """Run everything and print what was compiled."""
    jax.jit = recorded
    run_everything(dtype)
    with TemporaryDirectory() as folder:
        from rfdiff.images.training import train
        from tests.images.toy import SETTINGS, toy_images

        train(SETTINGS, toy_images(), Path(folder) / "run")
    found = []
    for (name, _), (program, double) in traced.items():
        record: dict[str, Any] = {"name": name, "double": double}
        found.append(record | {platform: read(program, double, platform) for platform in PLATFORMS})
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
