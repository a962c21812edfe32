"""One mesh of devices with axes (seeds, features): its making, and feature moments whose rows are spread over it.

Seeds are data-parallel. The features of one network are spread by rows over the devices of a row of the mesh: U, V and the basis of
a Krylov space for good, U and V of the exact flow while they are assembled. The eigendecomposition of the exact flow is not spread:
each device of a row then holds the whole U and solves it. All communication is JAX's own (`jax.shard_map`, and the compiler's
partitioning of the orthogonalisation).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from rfdiff.errors import InputError
from rfdiff.simulation.feature_shards import FEATURES, SEEDS, Rows
from rfdiff.simulation.moment_operators import Formed, Moment
from rfdiff.value_types import as_integer, static, value_type

BY_ROWS, SAME = PartitionSpec(FEATURES), PartitionSpec()
HAS_ROWS = {"W", "U", "V"}  # fields of a moment that have a row for each feature

T = TypeVar("T")


def device_mesh(*, seeds: int | None = None, features: int | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh for the argument `mesh` of `run_seeds` and `learning_curves`.

    Args:
        seeds: networks at a time; None for as many as the devices allow.
        features: devices that share the features of one network, all of one process; None for one, or what `seeds` leaves.
        devices: None for all devices of all processes.

    Raises:
        InputError: numbers that do not go with the number of devices; devices of several processes that would share one network.
    """
    chosen = list(jax.devices() if devices is None else devices)
    count = len(chosen)
    seeds, features = (
        None if value is None else as_integer(name, value, 1, count, "the number of devices")
        for name, value in (("seeds", seeds), ("features", features))
    )
    if features is None:
        features = 1 if seeds is None else count // seeds
    rows = count // features if seeds is None else seeds
    if rows * features != count:
        raise InputError(f"seeds, features: {rows}, {features}; allowed: numbers whose product is {count}, the number of devices")
    grid = np.empty(count, object)
    grid[:] = sorted(chosen, key=lambda device: (device.process_index, device.id))
    mesh = Mesh(grid.reshape(rows, features), (SEEDS, FEATURES))
    check_mesh(mesh)
    return mesh


def check_mesh(mesh: object) -> None:
    """Refuse anything but a mesh of the axes (seeds, features) that keeps each network within one process.

    Raises:
        InputError: naming what is allowed.
    """
    if not isinstance(mesh, Mesh) or mesh.axis_names != (SEEDS, FEATURES):
        raise InputError(f"mesh: {mesh!r}; allowed: one from simulation.device_mesh, or None")
    if any(len({device.process_index for device in row}) > 1 for row in mesh.devices):
        raise InputError(
            f"features: {mesh.shape[FEATURES]} devices for one network belong to several processes; allowed: a divisor of the number of "
            "devices of each process"
        )


def local_rows(mesh: Mesh) -> Mesh | None:
    """The rows of a mesh that this process has the devices of; None if it has none."""
    mine = [row for row in mesh.devices if row[0].process_index == jax.process_index()]
    return Mesh(np.stack(mine), mesh.axis_names) if mine else None


def single_rows(mesh: Mesh) -> list[Mesh]:
    """One mesh for each row, which holds one network at a time."""
    return [Mesh(row[None], mesh.axis_names) for row in mesh.devices]


def spread(mesh: Mesh, tree: T, spec: PartitionSpec = SAME) -> T:
    """A tree with all its leaves on the devices of a mesh: the same everywhere, or by rows."""
    return jax.device_put(tree, NamedSharding(mesh, spec))


@value_type
class Spread:
    """A moment of `moment_operators` over the devices of one row of a mesh; U X and V are spread by rows, as X is.

    Args:
        moment: its arrays W, U and V spread by rows; its `rows` has one shard for each device of the row.
        mesh: of one row.
    """

    moment: Moment
    mesh: Mesh = static()

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X."""
        return self._mapped(lambda moment, X: moment.times(X), X, out=BY_ROWS)

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """L X with L + Lᵀ = U."""
        return self._mapped(lambda moment, X: moment.half_times(X), X, out=BY_ROWS)

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V."""
        return self._mapped(lambda moment: moment.feature_noise_moment(), out=BY_ROWS)

    def truncation(self) -> Float[Array, ""]:
        """Relative bound on the truncation error of the series."""
        return self._mapped(lambda moment: moment.truncation(), out=SAME)

    def untrained_loss(self) -> Float[Array, ""]:
        """Mean of ‖ξ‖²/d over stored draws."""
        return self._mapped(lambda moment: moment.untrained_loss(), out=SAME)

    def matrix(self) -> Float[Array, "p p"]:
        """U, spread by rows."""
        return self._mapped(lambda moment: moment.matrix(), out=BY_ROWS)

    def _mapped(self, function: Callable[..., jax.Array], *arguments: jax.Array, out: PartitionSpec) -> jax.Array:
        specs = (placement(self.moment), *(BY_ROWS for _ in arguments))
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(self.moment, *arguments)


def placement(moment: Moment) -> Any:
    """Partition of each array of a moment: by rows of the features, or the same on every device."""
    return jax.tree_util.tree_map_with_path(lambda path, _: BY_ROWS if path[0].name in HAS_ROWS else SAME, moment)


def on_mesh(moment: Moment, mesh: Mesh | None) -> Moment:
    """The moment itself without a mesh, else with its arrays on it."""
    if mesh is None:
        return moment
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), placement(moment), is_leaf=lambda x: isinstance(x, PartitionSpec))
    return Spread(jax.device_put(moment, shardings), mesh)


def rows_of(W: Float[Array, "p d"], mesh: Mesh | None) -> tuple[Float[Array, "padded d"], Rows]:
    """W (p, d) by rows on a mesh, padded to equal shards, and how they are shared."""
    rows = Rows(len(W), 1 if mesh is None else mesh.shape[FEATURES])
    return (W if mesh is None else spread(mesh, rows.padded(W), BY_ROWS)), rows


_matrix = jax.jit(lambda moment: moment.matrix())
_feature_noise_moment = jax.jit(lambda moment: moment.feature_noise_moment())


def with_matrix(moment: Moment, rows: Rows, mesh: Mesh | None) -> Moment:
    """A moment that holds its U, formed once."""
    return on_mesh(Formed(_matrix(moment), _feature_noise_moment(moment), rows), mesh)
