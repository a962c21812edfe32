"""Feature moments as operators: U X for blocks X (p, b) without U, by panels of rows and blocks of samples.

`Formed` holds its (p, p) matrix. `NoiseAverage` and `Population` hold the first layer and the data and form a panel (rows, p) of Mehler's
series at a time; `Draws` recomputes the features of a block of noisy samples, Φ_b (p, b), and adds Φ_b (Φ_bᵀ X). Nothing they make is
larger than (p, panel), (p, block · orders) or X. All are pytrees, so that one compiled product serves every seed.

On several devices (`rows`) each holds the rows of its own features, of X too: a panel has the rows of a few features of every device and
the columns of the own ones, so that only the terms of these few features and sums (panel, b) travel.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff._pytree import static, value_type
from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.mixture import GaussianMixture
from rfdiff.simulation.features import feature_map
from rfdiff.simulation.moments import MehlerTerms, mehler_rows, population_terms, product, train_terms, truncation_rows
from rfdiff.simulation.quadrature import Quadrature
from rfdiff.simulation.rows import ALL, Rows

PANEL_VALUES = 2**22  # entries of a panel (rows, p): large enough for fast products, small enough to stay cheap beside X
BLOCK_VALUES = 2**26  # entries of all coefficients (p, block · orders) of a block of samples


class Moment(Protocol):
    """A second moment U of the features, with the V of the same average."""

    def times(self, X: jax.Array) -> jax.Array:
        """U X for X (p, b)."""
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
        size = min(S, max(16, BLOCK_VALUES // (p * (self.order + 1))))
        count = -(-S // size)
        x = jnp.pad(self.x, ((0, count * size - S), (0, 0))).reshape(count, size, d)
        share = jnp.pad(jnp.asarray(self.share, self.W.dtype), (0, count * size - S))
        return x, share.reshape(count, size)

    def _terms(self, x: jax.Array, share: jax.Array) -> MehlerTerms:
        return train_terms(self.W, x, share, self.t, self.activation, self.quadrature, self.order, self.rows)

    def times(self, X: jax.Array) -> jax.Array:
        """U X."""

        def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return total + _mehler_product(self._terms(*block), X, self.rows), None

        return jax.lax.scan(add, jnp.zeros_like(X), self._blocks())[0]

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

        def add(total: Any, block: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            terms = self._terms(*block)
            return (total[0] + terms.energy, total[1] + terms.kept), None

        zero = jnp.zeros_like(self.W[:, 0])
        energy, kept = jax.lax.scan(add, (zero, zero), self._blocks())[0]
        return _truncation(self.W / jnp.sqrt(jnp.sum(self.W * self.W, axis=1))[:, None], energy, kept, self.order, self.rows)


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
        return _mehler_product(self._parts()[0], X, self.rows)

    def slope(self) -> jax.Array:
        """V by Stein's lemma."""
        return self._parts()[1][:, None] * self.W

    def truncation(self) -> jax.Array:
        """Relative bound on what the series leaves out."""
        terms = self._parts()[0]
        return _truncation(terms.unit, terms.energy, terms.kept, self.order, self.rows)


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
        size = min(count, max(16, BLOCK_VALUES // p))
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

    def slope(self) -> jax.Array:
        """V."""
        return self._sum(jnp.zeros_like(self.W), lambda phi, noise, live: product(phi.T, noise))

    def leading(self) -> jax.Array:
        """Mean of ‖ξ‖²/d over these draws, the loss of A = 0."""
        return self._sum(jnp.zeros((), self.W.dtype), lambda phi, noise, live: jnp.sum(live * noise * noise)) / self.W.shape[1]

    def truncation(self) -> jax.Array:
        """0: a plain average leaves nothing out."""
        return jnp.zeros((), self.W.dtype)


def formed(moment: NoiseAverage | Draws) -> jax.Array:
    """The matrix U (p, p) of an average over samples, in panels of rows, or a product of features; of several devices, own rows."""
    p, rows = moment.W.shape[0], moment.rows
    zero = jnp.zeros((p, p * rows.parts), moment.W.dtype)
    if isinstance(moment, Draws):
        return moment._sum(zero, lambda phi, noise, live: product(phi.T, rows.everywhere(phi, axis=1)))

    def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        terms = moment._terms(*block)
        return total + _by_panels(terms, rows, lambda part, live, r, off: rows.exchanged(mehler_rows(part, terms, r, off))), None

    return jax.lax.scan(add, zero, moment._blocks())[0]


def _by_panels(terms: MehlerTerms, rows: Rows, panel: Any) -> jax.Array:
    """`panel(terms of its rows, which are no repetition, correlations (b, p), off-diagonal mask)` of every panel, put together along rows.

    A panel has as many rows of each device, and the columns of this one; what `panel` returns has those of its rows that are this device's.
    """
    p = terms.unit.shape[0]
    size = min(p, max(32, PANEL_VALUES // (p * rows.parts)))
    count = -(-p // size)
    columns = rows.numbers(p)

    def one(where: jax.Array) -> Any:
        which = jnp.minimum(where, p - 1)
        part, numbers, live = rows.everywhere((jax.tree.map(lambda leaf: leaf[which], terms), columns[which], where < p))
        return panel(part, live, product(part.unit, terms.unit.T), columns != numbers[:, None])

    parts = jax.lax.map(one, np.arange(count * size).reshape(count, size))
    return parts.reshape(count * size, *parts.shape[2:])[:p]


def _mehler_product(terms: MehlerTerms, X: jax.Array, rows: Rows) -> jax.Array:
    return _by_panels(terms, rows, lambda part, live, r, off: rows.scattered(product(mehler_rows(part, terms, r, off), X)))


def _truncation(unit: jax.Array, energy: jax.Array, kept: jax.Array, order: int, rows: Rows) -> jax.Array:
    """`truncation_rows` over all panels, relative to the diagonal."""
    # one centre whose squares add up to what the series keeps has the same remainder
    blank = jnp.zeros((len(energy), 1), unit.dtype)
    terms = MehlerTerms(unit, (jnp.sqrt(kept)[:, None], *(blank for _ in range(order))), energy)

    def panel(part: MehlerTerms, live: jax.Array, r: jax.Array, off: jax.Array) -> jax.Array:
        size = len(live) // rows.parts
        return jnp.broadcast_to(truncation_rows(part, terms, r, off & live[:, None]) / size, (size,))

    return jnp.sqrt(rows.total(jnp.sum(_by_panels(terms, rows, panel))) / rows.total(jnp.vdot(energy, energy)))
