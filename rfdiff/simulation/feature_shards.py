"""Which features a device holds: all of them, or inside `jax.shard_map` an equal part, with its rows of W, U, V and Krylov bases.

The same functions run in both cases. Where they need all features, `Rows` gathers them by JAX's collectives; where one device holds them
all, every method returns its argument. p need not be divisible by the number of devices: the last shard is padded with features whose
averages are set to exactly 0, so that they are null directions of U outside the range of V and enter no sum.
"""

from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SEEDS, FEATURES = "seeds", "features"  # axes of a mesh

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """The rows (features) that one device holds; static.

    Args:
        p: features of the network, in all.
        shards: devices that share them, the axis "features" of the surrounding `shard_map`; 1 outside of one.
    """

    p: int = 0
    shards: int = 1

    @property
    def per_shard(self) -> int:
        """Features of each device, p/shards rounded up."""
        return -(-self.p // self.shards)

    def local(self, W: Float[Array, "p ..."]) -> Float[Array, "local ..."]:
        """This device's rows of W (p, …); padding rows are ones, which no average of a live feature sees."""
        if self.shards == 1:
            return W
        return jax.lax.dynamic_slice_in_dim(self.padded(W), jax.lax.axis_index(FEATURES) * self.per_shard, self.per_shard)

    def padded(self, W: Float[Array, "p ..."]) -> Float[Array, "padded ..."]:
        """W (p, …) with rows of ones up to a multiple of the number of shards."""
        missing = self.per_shard * self.shards - self.p
        return jnp.pad(W, ((0, missing), *((0, 0),) * (W.ndim - 1)), constant_values=1) if missing else W

    def numbers(self, count: int) -> Int[Array, " count"]:
        """Numbers of this device's `count` features among all."""
        return jnp.arange(count) + (0 if self.shards == 1 else jax.lax.axis_index(FEATURES) * count)

    def masked(self, x: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
        """x with its padding features set to 0; `axis` is that of the features."""
        if self.shards == 1 or self.p % self.shards == 0:
            return x
        live = self.numbers(x.shape[axis]) < self.p
        return jnp.where(live.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]), x, 0)

    def gathered(self, x: T, axis: int = 0) -> T:
        """The shards of every device side by side along `axis`, on each of them; for every leaf of x."""
        if self.shards == 1:
            return x
        return jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, FEATURES, axis=axis, tiled=True), x)

    def total(self, x: T) -> T:
        """Sum over the devices."""
        return x if self.shards == 1 else jax.lax.psum(x, FEATURES)

    def scattered(self, x: Float[Array, "rows ..."]) -> Float[Array, "local ..."]:
        """This device's block of rows of the sum over the devices."""
        return x if self.shards == 1 else jax.lax.psum_scatter(x, FEATURES, tiled=True)

    def exchanged(self, x: Float[Array, "rows columns"]) -> Float[Array, "local p"]:
        """All columns of the local rows, from all rows of the local columns."""
        return x if self.shards == 1 else jax.lax.all_to_all(x, FEATURES, split_axis=0, concat_axis=1, tiled=True)


ALL = Rows()
