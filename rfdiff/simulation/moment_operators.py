"""Feature moments as operators: U X for blocks X (p, b) without U, by pieces of it and blocks of samples.

`Formed` holds its (p, p) matrix. `NoiseAverage` and `Population` hold the first layer and the data and form a piece of Mehler's series
at a time (`assembly`); `Draws` recomputes the features of a block of noisy samples, Φ_b (p, b), and adds Φ_b (Φ_bᵀ X). Nothing they make
is larger than a piece, (p, block · orders) or X. All are pytrees, so that one compiled product serves every seed.

On several devices (`rows`) each holds the rows of its own features, of X too.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.mixture import GaussianMixture
from rfdiff.simulation import moment_assembly
from rfdiff.simulation.feature_shards import ALL, Rows
from rfdiff.simulation.features import feature_map
from rfdiff.simulation.mehler import MehlerTerms, population_terms, product, train_terms
from rfdiff.simulation.pieces import piece
from rfdiff.simulation.quadrature import Quadrature
from rfdiff.value_types import static, value_type

BLOCK_VALUES = 2**26  # entries of all coefficients (p, block · orders) of a block of samples
ACCELERATOR_VALUES = 2**29  # tiles of few samples would be bound by memory


def block_values() -> int:
    """Entries of what is held for a block of samples."""
    return piece(BLOCK_VALUES, ACCELERATOR_VALUES)


class Moment(Protocol):
    """A second moment U of the features, with the V of the same average."""

    def times(self, X: jax.Array) -> jax.Array:
        """U X for X (p, b)."""
        ...

    def half_times(self, X: jax.Array) -> jax.Array:
        """L X for some L with L + Lᵀ = U, whichever is cheapest: all that Xᵀ U X needs."""
        ...

    def slope(self) -> jax.Array:
        """V (p, d)."""
        ...


@value_type
class Formed:
    """A matrix U (p, p) that is there, and V (p, d); with `rows` of several devices, their rows."""

    U: Any
    V: Any
    rows: Rows = static(default=ALL)

    def times(self, X: jax.Array) -> jax.Array:
        """U X."""
        return product(self.U, self.rows.everywhere(X))

    def half_times(self, X: jax.Array) -> jax.Array:
        """U X/2."""
        return self.times(X) / 2

    def slope(self) -> jax.Array:
        """V."""
        return self.V

    def truncation(self) -> jax.Array:
        """0: nothing is left out of a matrix that is there."""
        return jnp.zeros((), self.U.dtype)


@value_type
class NoiseAverage:
    """Exact noise average over samples.

    Args:
        W: (p, d) first layer.
        x: (S, d) clean samples.
        share: (S,) their weights, of sum 1; samples that only fill x up to a common shape weigh nothing.
        t: diffusion time.
        activation, quadrature, order: σ, the rule of its averages and the highest power of the correlations.
        rows: the features whose W this is.
    """

    W: Any
    x: Any
    share: Any
    t: Any
    activation: Activation = static()
    quadrature: Quadrature = static()
    order: int = static()
    rows: Rows = static(default=ALL)

    def _blocks(self) -> tuple[jax.Array, jax.Array]:
        """Samples (B, s, d) and their weights (B, s); those that fill the last block up weigh nothing."""
        (S, d), p = self.x.shape, self.W.shape[0]
        size = min(S, max(16, block_values() // (p * (self.order + 1))))
        count = -(-S // size)
        x = jnp.pad(self.x, ((0, count * size - S), (0, 0))).reshape(count, size, d)
        share = jnp.pad(jnp.asarray(self.share, self.W.dtype), (0, count * size - S))
        return x, share.reshape(count, size)

    def _terms(self, x: jax.Array, share: jax.Array) -> MehlerTerms:
        return train_terms(self.W, x, share, self.t, self.activation, self.quadrature, self.order, self.rows)

    def times(self, X: jax.Array) -> jax.Array:
        """U X."""
        return self._added(lambda terms: moment_assembly.times(terms, X, self.rows), jnp.zeros_like(X))

    def half_times(self, X: jax.Array) -> jax.Array:
        """L X with L + Lᵀ = U."""
        return self._added(lambda terms: moment_assembly.half_times(terms, X, self.rows), jnp.zeros_like(X))

    def matrix(self) -> jax.Array:
        """U (p, p); of several devices, own rows."""
        p = len(self.W)
        return self._added(lambda terms: moment_assembly.matrix(terms, self.rows), jnp.zeros((p, p * self.rows.parts), self.W.dtype))

    def slope(self) -> jax.Array:
        """V by Stein's lemma."""

        def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            x, share = block
            return total + product(self._terms(x, share).coefficients[1], jnp.sqrt(share)[:, None])[:, 0], None

        norms = jnp.sqrt(jnp.sum(self.W * self.W, axis=1))
        first = jax.lax.scan(add, jnp.zeros_like(norms), self._blocks())[0]
        return (first / norms)[:, None] * self.W

    def truncation(self) -> jax.Array:
        """Relative bound on what the series leaves out, as `noise_averaged_moments` has it."""
        zero = jnp.zeros_like(self.W[:, 0])
        energy, kept = self._added(lambda terms: (terms.energy, terms.kept), (zero, zero))
        unit = self.W / jnp.sqrt(jnp.sum(self.W * self.W, axis=1))[:, None]
        return moment_assembly.left_out(unit, energy, kept, self.order, self.rows)

    def _added(self, part: Any, zero: Any) -> Any:
        """Sum of `part(terms)` over the blocks of samples."""

        def add(total: Any, block: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part(self._terms(*block))), None

        x, share = self._blocks()
        return part(self._terms(x[0], share[0])) if len(x) == 1 else jax.lax.scan(add, zero, (x, share))[0]


@value_type
class Population:
    """Exact average over a whole class: noise and data.

    Args:
        W: (p, d) first layer.
        own: the class alone, as a mixture of one class.
        t: diffusion time.
        activation, quadrature, order, rows: as in `NoiseAverage`.
    """

    W: Any
    own: GaussianMixture
    t: Any
    activation: Activation = static()
    quadrature: Quadrature = static()
    order: int = static()
    rows: Rows = static(default=ALL)

    def _parts(self) -> tuple[MehlerTerms, jax.Array]:
        return population_terms(self.W, self.own, 0, self.t, self.activation, self.quadrature, self.order, self.rows)

    def times(self, X: jax.Array) -> jax.Array:
        """U X."""
        return moment_assembly.times(self._parts()[0], X, self.rows)

    def half_times(self, X: jax.Array) -> jax.Array:
        """L X with L + Lᵀ = U."""
        return moment_assembly.half_times(self._parts()[0], X, self.rows)

    def slope(self) -> jax.Array:
        """V by Stein's lemma."""
        return self._parts()[1][:, None] * self.W

    def truncation(self) -> jax.Array:
        """Relative bound on what the series leaves out."""
        terms = self._parts()[0]
        return moment_assembly.left_out(terms.unit, terms.energy, terms.kept, self.order, self.rows)


@value_type
class Draws:
    """Average over stored noise: m draws of the samples from `start` to `stop`, the noise being that of `drawn_moments`.

    Args:
        W: (p, d) first layer.
        x: (n, d) clean samples of all classes.
        t: diffusion time.
        key: JAX random key of the noise; draw r uses fold_in(key, r).
        activation: σ.
        draws: m.
        start, stop: which samples.
        rows: the features whose W this is.
    """

    W: Any
    x: Any
    t: Any
    key: Any
    activation: Activation = static()
    draws: int = static()
    start: int = static()
    stop: int = static()
    rows: Rows = static(default=ALL)

    def _sum(self, zero: Any, term: Any) -> Any:
        """Sum over draws and blocks of samples of `term(features (s, p), noise (s, d), live (s, 1))`, over the number of terms."""
        p, count = self.W.shape[0], self.stop - self.start
        size = min(count, max(16, block_values() // p))
        starts = np.arange(0, count, size)
        dtype = self.W.dtype
        std, scale = jnp.sqrt(noise_variance(self.t)).astype(dtype), signal_scale(self.t).astype(dtype)
        rows = np.minimum(starts[:, None] + np.arange(size), count - 1)
        live = (starts[:, None] + np.arange(size) < count).astype(dtype)

        def draw(r: Any, total: Any) -> Any:
            noise = jax.random.normal(jax.random.fold_in(self.key, r), self.x.shape, jnp.float32).astype(dtype)

            def block(total: Any, part: Any) -> tuple[Any, None]:
                where, mask = part
                e = noise[self.start + where]
                phi = self.rows.masked(feature_map(self.activation, self.W, scale * self.x[self.start + where] + std * e), axis=1)
                return jax.tree.map(jnp.add, total, term(phi * mask[:, None], e, mask[:, None])), None

            return jax.lax.scan(block, total, (rows, live))[0]

        total = jax.lax.fori_loop(0, self.draws, draw, zero)
        return jax.tree.map(lambda part: part / np.asarray(count * self.draws, dtype), total)

    def times(self, X: jax.Array) -> jax.Array:
        """U X."""
        return self._sum(jnp.zeros_like(X), lambda phi, noise, live: product(phi.T, self.rows.total(product(phi, X))))

    def half_times(self, X: jax.Array) -> jax.Array:
        """U X/2."""
        return self.times(X) / 2

    def matrix(self) -> jax.Array:
        """U (p, p); of several devices, own rows."""
        p, rows = len(self.W), self.rows
        zero = jnp.zeros((p, p * rows.parts), self.W.dtype)
        return self._sum(zero, lambda phi, noise, live: product(phi.T, rows.everywhere(phi, axis=1)))

    def slope(self) -> jax.Array:
        """V."""
        return self._sum(jnp.zeros_like(self.W), lambda phi, noise, live: product(phi.T, noise))

    def leading(self) -> jax.Array:
        """Mean of ‖ξ‖²/d over these draws, the loss of A = 0."""
        return self._sum(jnp.zeros((), self.W.dtype), lambda phi, noise, live: jnp.sum(live * noise * noise)) / self.W.shape[1]

    def truncation(self) -> jax.Array:
        """0: a plain average leaves nothing out."""
        return jnp.zeros((), self.W.dtype)
