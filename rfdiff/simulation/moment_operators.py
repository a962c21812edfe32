"""Feature moments as operators: U X for blocks X (p, b) without U, by tiles of it and blocks of samples.

`Formed` holds its (p, p) matrix. `NoiseAverage` and `Population` hold the first layer and the data and form a tile of Mehler's series
at a time (`moment_assembly`); `Draws` recomputes the features of a block of noisy samples, Φ_b (p, b), and adds Φ_b (Φ_bᵀ X). No array is
larger than a tile, (p, block · orders) or X. All are pytrees, so that one compiled product serves every seed.

On several devices (`rows`) each holds the rows of its features, of X too.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from rfdiff.activation import Activation
from rfdiff.diffusion import noise_variance, signal_scale
from rfdiff.gaussian_mixture import GaussianMixture
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


T = TypeVar("T")


class Moment(Protocol):
    """Moments U = E[φ φᵀ] (p, p) and V = E[φ ξᵀ] (p, d) of the features over one average."""

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X for X (p, b)."""
        ...

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """L X for some L with L + Lᵀ = U, whichever is cheapest: all that Xᵀ U X needs."""
        ...

    def matrix(self) -> Float[Array, "p p"]:
        """U (p, p); on one of several devices, its rows."""
        ...

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V (p, d)."""
        ...

    def truncation(self) -> Float[Array, ""]:
        """Relative bound ‖error of U‖_F/‖diag U‖_F of Mehler's series."""
        ...


@value_type
class Formed:
    """U (p, p) and V (p, d) held as matrices; on one of several devices, its rows of them."""

    U: Float[Array, "p p"]
    V: Float[Array, "p d"]
    rows: Rows = static(default=ALL)

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X."""
        return product(self.U, self.rows.gathered(X))

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X/2."""
        return self.times(X) / 2

    def matrix(self) -> Float[Array, "p p"]:
        """U."""
        return self.U

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V."""
        return self.V

    def truncation(self) -> Float[Array, ""]:
        """0: a matrix that is held is not a series."""
        return jnp.zeros((), self.U.dtype)


@value_type
class NoiseAverage:
    """Exact noise average over samples.

    Args:
        W: (p, d) first layer.
        x: (S, d) clean samples.
        share: (S,) their weights, of sum 1; samples that only pad x to a common shape weigh nothing.
        t: diffusion time.
        activation, quadrature, order: σ, the rule of its averages and the highest power of the correlations.
        rows: the features whose W this is.
    """

    W: Float[Array, "p d"]
    x: Float[Array, "S d"]
    share: Float[np.ndarray, " S"] | Float[Array, " S"]
    t: ArrayLike
    activation: Activation = static()
    quadrature: Quadrature = static()
    order: int = static()
    rows: Rows = static(default=ALL)

    def _blocks(self) -> tuple[jax.Array, jax.Array]:
        """Samples (B, s, d) and their weights (B, s); those that pad the last block weigh nothing."""
        (S, d), p = self.x.shape, self.W.shape[0]
        size = min(S, max(16, block_values() // (p * (self.order + 1))))
        count = -(-S // size)
        x = jnp.pad(self.x, ((0, count * size - S), (0, 0))).reshape(count, size, d)
        share = jnp.pad(jnp.asarray(self.share, self.W.dtype), (0, count * size - S))
        return x, share.reshape(count, size)

    def _terms(self, x: jax.Array, share: jax.Array) -> MehlerTerms:
        return train_terms(self.W, x, share, self.t, self.activation, self.quadrature, self.order, self.rows)

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X."""
        return self._sum_over_blocks(lambda terms: moment_assembly.times(terms, X, self.rows), jnp.zeros_like(X))

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """L X with L + Lᵀ = U."""
        return self._sum_over_blocks(lambda terms: moment_assembly.half_times(terms, X, self.rows), jnp.zeros_like(X))

    def matrix(self) -> Float[Array, "p p"]:
        """U (p, p); on one of several devices, its rows."""
        p = len(self.W)
        return self._sum_over_blocks(
            lambda terms: moment_assembly.matrix(terms, self.rows), jnp.zeros((p, p * self.rows.shards), self.W.dtype)
        )

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V by Stein's lemma."""

        def add(total: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            x, share = block
            return total + product(self._terms(x, share).coefficients[1], jnp.sqrt(share)[:, None])[:, 0], None

        norms = jnp.sqrt(jnp.sum(self.W * self.W, axis=1))
        first = jax.lax.scan(add, jnp.zeros_like(norms), self._blocks())[0]
        return (first / norms)[:, None] * self.W

    def truncation(self) -> Float[Array, ""]:
        """Relative bound on the truncation error of the series, as in `noise_averaged_moments`."""
        zero = jnp.zeros_like(self.W[:, 0])
        energy, captured = self._sum_over_blocks(lambda terms: (terms.energy, terms.captured_energy), (zero, zero))
        unit = self.W / jnp.sqrt(jnp.sum(self.W * self.W, axis=1))[:, None]
        return moment_assembly.truncation_bound(unit, energy, captured, self.order, self.rows)

    def _sum_over_blocks(self, function: Callable[[MehlerTerms], T], zero: T) -> T:
        """Sum of `function(terms)` over the blocks of samples."""

        def add(total: T, block: tuple[jax.Array, jax.Array]) -> tuple[T, None]:
            return jax.tree.map(jnp.add, total, function(self._terms(*block))), None

        x, share = self._blocks()
        return function(self._terms(x[0], share[0])) if len(x) == 1 else jax.lax.scan(add, zero, (x, share))[0]


@value_type
class Population:
    """Exact average over a whole class: noise and data.

    Args:
        W: (p, d) first layer.
        mixture: the class alone, as a mixture of one class.
        t: diffusion time.
        activation, quadrature, order, rows: as in `NoiseAverage`.
    """

    W: Float[Array, "p d"]
    mixture: GaussianMixture
    t: ArrayLike
    activation: Activation = static()
    quadrature: Quadrature = static()
    order: int = static()
    rows: Rows = static(default=ALL)

    def _terms_and_factor(self) -> tuple[MehlerTerms, Float[Array, " p"]]:
        return population_terms(self.W, self.mixture, 0, self.t, self.activation, self.quadrature, self.order, self.rows)

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X."""
        return moment_assembly.times(self._terms_and_factor()[0], X, self.rows)

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """L X with L + Lᵀ = U."""
        return moment_assembly.half_times(self._terms_and_factor()[0], X, self.rows)

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V by Stein's lemma."""
        return self._terms_and_factor()[1][:, None] * self.W

    def truncation(self) -> Float[Array, ""]:
        """Relative bound on the truncation error of the series."""
        terms = self._terms_and_factor()[0]
        return moment_assembly.truncation_bound(terms.unit, terms.energy, terms.captured_energy, self.order, self.rows)

    def matrix(self) -> Float[Array, "p p"]:
        """U (p, p); on one of several devices, its rows."""
        return moment_assembly.matrix(self._terms_and_factor()[0], self.rows)


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
        weights: (n,) weights ≥ 0 of the samples, of mean 1 over these; None where all weigh 1.
    """

    W: Float[Array, "p d"]
    x: Float[Array, "n d"]
    t: ArrayLike
    key: Key[Array, ""]
    activation: Activation = static()
    draws: int = static()
    start: int = static()
    stop: int = static()
    rows: Rows = static(default=ALL)
    weights: Float[np.ndarray, " n"] | Float[Array, " n"] | None = None

    def _sum(self, zero: jax.Array, term: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> jax.Array:
        """Sum over draws and blocks of samples of `term(features (s, p), noise (s, d), live (s, 1))`, over the number of terms."""
        p, count = self.W.shape[0], self.stop - self.start
        size = min(count, max(16, block_values() // p))
        starts = np.arange(0, count, size)
        dtype = self.W.dtype
        std, scale = jnp.sqrt(noise_variance(self.t)).astype(dtype), signal_scale(self.t).astype(dtype)
        samples = np.minimum(starts[:, None] + np.arange(size), count - 1)
        live = (starts[:, None] + np.arange(size) < count).astype(dtype)
        root = None if self.weights is None else jnp.sqrt(jnp.asarray(self.weights, dtype))  # a half for either factor of a product

        def draw(r: jax.Array, total: jax.Array) -> jax.Array:
            noise = jax.random.normal(jax.random.fold_in(self.key, r), self.x.shape, jnp.float32).astype(dtype)

            def block(total: jax.Array, samples: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
                which, mask = samples
                xi = noise[self.start + which]
                scaled = mask[:, None] if root is None else (mask * root[self.start + which])[:, None]
                phi = self.rows.masked(feature_map(self.activation, self.W, scale * self.x[self.start + which] + std * xi), axis=1)
                return total + term(phi * scaled, xi if root is None else xi * scaled, mask[:, None]), None

            return jax.lax.scan(block, total, (jnp.asarray(samples), jnp.asarray(live)))[0]

        return jax.lax.fori_loop(0, self.draws, draw, zero) / np.asarray(count * self.draws, dtype)

    def times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X."""
        return self._sum(jnp.zeros_like(X), lambda phi, noise, live: product(phi.T, self.rows.total(product(phi, X))))

    def half_times(self, X: Float[Array, "p b"]) -> Float[Array, "p b"]:
        """U X/2."""
        return self.times(X) / 2

    def matrix(self) -> Float[Array, "p p"]:
        """U (p, p); on one of several devices, its rows."""
        p, rows = len(self.W), self.rows
        zero = jnp.zeros((p, p * rows.shards), self.W.dtype)
        return self._sum(zero, lambda phi, noise, live: product(phi.T, rows.gathered(phi, axis=1)))

    def feature_noise_moment(self) -> Float[Array, "p d"]:
        """V."""
        return self._sum(jnp.zeros_like(self.W), lambda phi, noise, live: product(phi.T, noise))

    def untrained_loss(self) -> Float[Array, ""]:
        """Mean of ‖ξ‖²/d over these draws, the loss at A = 0."""
        return self._sum(jnp.zeros((), self.W.dtype), lambda phi, noise, live: jnp.sum(live * noise * noise)) / self.W.shape[1]

    def truncation(self) -> Float[Array, ""]:
        """0: a plain average is not a series."""
        return jnp.zeros((), self.W.dtype)
