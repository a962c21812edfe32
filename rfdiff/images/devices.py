"""Devices that share a batch, and steps repeated on them: data-parallel over all there are, parameters and data on each.

Many steps are one program, a loop with a traced length, so that no number of steps compiles anew and the memory of a step is taken once.
On a CPU the gradients of convolutions must be those of `convolution` for this: XLA's own take a slow path inside a loop.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rfdiff.errors import InputError

T = TypeVar("T")
AXIS = "batch"


class Devices:
    """The devices of a run.

    Args:
        count: how many of the local devices; None for all.

    Raises:
        InputError: more devices than there are.
    """

    def __init__(self, count: int | None = None) -> None:
        there = jax.local_devices()
        if count is not None and not 1 <= count <= len(there):
            raise InputError(f"devices: {count!r}; allowed: 1 to {len(there)}, the devices there are")
        chosen = there[:count]
        self.count, self.platform, self.kind = len(chosen), chosen[0].platform, chosen[0].device_kind
        mesh = jax.sharding.Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))
        self._split, self._whole = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Devices) and self.count == other.count

    def __hash__(self) -> int:
        return hash(self.count)

    def everywhere(self, tree: PyTree) -> PyTree:
        """A copy of every array on every device, in buffers of its own (they may be donated)."""
        return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf), self._whole), tree)

    def split(self, batch: jax.Array) -> jax.Array:
        """Inside a program: the first axis is shared among the devices."""
        return jax.lax.with_sharding_constraint(batch, self._split)

    def check_batch(self, name: str, size: int) -> None:
        """Refuse a batch that the devices cannot share.

        Raises:
            InputError: naming it.
        """
        if size % self.count:
            raise InputError(f"{name}: {size}; allowed: a multiple of {self.count}, the number of devices")

    def repeated(self, step: Callable[..., T]) -> Callable[..., T]:
        """`run(state, n, *arrays)`: `state = step(state, *arrays)`, n times; the state's buffers are taken over (donated)."""

        @partial(jax.jit, donate_argnums=0)
        def loop(state: T, n: jax.Array, *arrays: PyTree) -> T:
            return jax.lax.fori_loop(0, n, lambda _, state: step(state, *arrays), state)

        return lambda state, n, *arrays: loop(state, np.int32(n), *arrays)
