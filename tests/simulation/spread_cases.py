"""Run in a process of its own with eight host devices: the same networks on many meshes, and on meshes that lose something.

Prints one JSON document: the largest deviation of each run from that without a mesh, and where the arrays of a Krylov space lie.
"""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff import MixtureLaw, Problem, simulation
from rfdiff.simulation import SeedBatch, krylov
from rfdiff.simulation.feature_shards import FEATURES, Rows

D, KEY, SEEDS = 9, jax.random.key(3), [0, 1]
TAUS = np.array([0.0, 1.0, 10.0, 1e2, 1e3])
LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
FIELDS = ("train_loss", "test_loss", "score_error", "truncation", "eigenvalues", "class_weights")


def problem(draws: float) -> Problem:
    """p = 63 features: no multiple of two, four or eight."""
    return Problem(LAW, "tanh", t=0.1, psi_p=7.0, psi_n=2.0, noise_draws=draws)


def run(solver: str, shape: tuple[int, int] | None, draws: float = math.inf, seeds: Any = SEEDS, dtype: str = "float64") -> SeedBatch:
    mesh = (
        None if shape is None else simulation.device_mesh(seeds=shape[0], features=shape[1], devices=jax.devices()[: shape[0] * shape[1]])
    )
    return simulation.run_seeds(problem(draws), TAUS, d=D, key=KEY, seeds=seeds, solver=solver, mesh=mesh, dtype=dtype)


def deviation(one: SeedBatch, other: SeedBatch) -> float:
    pairs = [(getattr(one, name), getattr(other, name)) for name in FIELDS]
    return max(float(np.max(abs(a - b))) for a, b in pairs if a is not None and b is not None)


@contextlib.contextmanager
def losing(what: str) -> Iterator[None]:
    """Features of the last device left out; or its padding left in."""
    whole = Rows.masked

    def masked(self: Rows, x: jax.Array, axis: int = 0) -> jax.Array:
        if what == "padding" or self.shards == 1:
            return x
        last = jax.lax.axis_index(FEATURES) == self.shards - 1
        return jnp.where(last, 0, whole(self, x, axis))

    Rows.masked = masked  # type: ignore[method-assign]
    jax.clear_caches()
    try:
        yield
    finally:
        Rows.masked = whole  # type: ignore[method-assign]


def shards(solver: str, shape: tuple[int, int]) -> list[int]:
    """How many rows the devices hold of the basis of a Krylov space, and of the W or U that it is grown with."""
    spaces: list[Any] = []

    class Kept(krylov.KrylovSpace):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            spaces.append(self)

    original, krylov.KrylovSpace = krylov.KrylovSpace, Kept  # type: ignore[misc,assignment]
    try:
        run(solver, shape, seeds=SEEDS[:1])
    finally:
        krylov.KrylovSpace = original  # type: ignore[misc]
    moment = spaces[0].mixture.moment
    arrays = [*spaces[0].blocks, moment.U if solver == "krylov" else moment.W]
    return sorted({shard.data.shape[0] for array in arrays for shard in array.addressable_shards})


def main(full: bool) -> None:
    found: dict[str, Any] = {"devices": len(jax.devices()), "p": 63}
    plain = {"krylov-matrix-free": run("krylov-matrix-free", None)}
    cases = [("krylov-matrix-free", (1, 8))]
    if full:
        plain["exact"] = run("exact", None)
        cases += [("exact", (2, 4)), ("exact", (1, 1)), ("exact", (2, 1)), ("exact", (2, 2)), ("exact", (8, 1)), ("exact", (1, 8))]
        cases += [("krylov-matrix-free", (1, 1)), ("krylov-matrix-free", (1, 2)), ("krylov-matrix-free", (2, 4)), ("krylov", (4, 2))]
        plain["krylov"] = run("krylov", None)
    found["same"] = {f"{solver} {shape}": deviation(run(solver, shape), plain[solver]) for solver, shape in cases}
    if full:
        for solver in ("exact", "krylov", "krylov-matrix-free", "krylov-probes"):
            found["same"][f"{solver}, stored draws"] = deviation(run(solver, (2, 4), 3.0), run(solver, None, 3.0))
    found["shards"] = shards("krylov" if full else "krylov-matrix-free", (1, 8))
    for what in ("a device", "padding") if full else ("a device",):
        with losing(what):
            found[f"without {what}"] = deviation(run("krylov-matrix-free", (1, 8)), plain["krylov-matrix-free"])
    print(json.dumps(found))


if __name__ == "__main__":
    main("--full" in sys.argv)
