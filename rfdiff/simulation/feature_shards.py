"""Which features a device holds: all of them, or inside `jax.shard_map` an equal part, with its rows of W, U, V and Krylov bases.

The same functions run in both cases. Where they need all features, `Rows` brings them together by JAX's collectives; where a device holds
all, every method returns what it is given. p need not be divisible by the number of devices: the last part is filled up with features
whose averages are set to exactly 0, so that they are null directions of U outside the range of V and enter no sum.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

SEEDS, FEATURES = "seeds", "features"  # axes of a mesh


@dataclass(frozen=True)
class Rows:
    """The features of one device; static.

    Args:
        p: features of the network, in all.
        parts: devices that share them, the axis "features" of the `shard_map` that this is used in; 1 outside of one.
    """

    p: int = 0
    parts: int = 1

    @property
    def held(self) -> int:
        """Features of each device, p/parts rounded up."""
        return -(-self.p // self.parts)

    def own(self, W: jax.Array) -> jax.Array:
        """This device's rows (held, …) of W (p, …); filled up with ones, which no average of a live feature sees."""
        if self.parts == 1:
            return W
        return jax.lax.dynamic_slice_in_dim(self.filled(W), jax.lax.axis_index(FEATURES) * self.held, self.held)

    def filled(self, W: jax.Array) -> jax.Array:
        """W (p, …) with rows of ones up to a multiple of the number of parts."""
        missing = self.held * self.parts - self.p
        return jnp.pad(W, ((0, missing), *((0, 0),) * (W.ndim - 1)), constant_values=1) if missing else W

    def numbers(self, held: int) -> jax.Array:
        """Numbers (held,) of this device's features among all."""
        return jnp.arange(held) + (0 if self.parts == 1 else jax.lax.axis_index(FEATURES) * held)

    def masked(self, x: jax.Array, axis: int = 0) -> jax.Array:
        """x with the features that only fill up set to 0; `axis` is that of the features."""
        if self.parts == 1 or self.p % self.parts == 0:
            return x
        live = self.numbers(x.shape[axis]) < self.p
        return jnp.where(live.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]), x, 0)

    def everywhere(self, x: Any, axis: int = 0) -> Any:
        """What the devices hold, side by side along `axis`, on each of them; for every leaf of x."""
        if self.parts == 1:
            return x
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, FEATURES, axis=axis, tiled=True), x)

    def total(self, x: Any) -> Any:
        """Sum over the devices."""
        return x if self.parts == 1 else jax.lax.psum(x, FEATURES)

    def scattered(self, x: jax.Array) -> jax.Array:
        """This device's block of rows of the sum over the devices."""
        return x if self.parts == 1 else jax.lax.psum_scatter(x, FEATURES, tiled=True)

    def exchanged(self, x: jax.Array) -> jax.Array:
        """Blocks of rows of own columns for own rows of all columns."""
        return x if self.parts == 1 else jax.lax.all_to_all(x, FEATURES, split_axis=0, concat_axis=1, tiled=True)


ALL = Rows()
