"""Isotropic mixtures in few numbers: the backward process of x_t in the span of the centroids and the norm across it, exact in law.

With u (r,) the coordinates of x in the span of the centroids and ρ the norm of the rest, in D = d - r dimensions, the class posterior is a
function of (u, ρ) and the score is

    s = ( -Σ_c P_c (u - e^{-t} m_c)/Γ_c²,   -(Σ_c P_c/Γ_c²) x_⊥ ).

One step moves x_⊥ in the plane of itself and of the step's noise across the span, whose part along x_⊥ is N(0, 1) and whose norm across it
is χ with D - 1 degrees of freedom, independently. So (u, ρ, 0) and the noise (ξ_u, N(0, 1), χ_{D-1}) stepped in r + 2 dimensions, with the
plane turned back after each step, have the law of the full process under any scheme that uses one noise vector a step.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from rfdiff.noised_mixture import NoisedMixture
from rfdiff.value_types import value_type


@value_type
class Radial:
    """States (u, ρ) of r + 1 numbers; a `samplers.Space`.

    Args:
        transverse: number D ≥ 2 of dimensions across the span of the centroids.
    """

    transverse: Float[ArrayLike, ""]

    def lift(self, x: jax.Array) -> jax.Array:
        """(u, ρ, 0)."""
        return jnp.append(x, jnp.zeros((), x.dtype))

    def noise(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """Normal along the span and along x_⊥, χ_{D-1} across."""
        along, across = jax.random.split(key)
        normal = jax.random.normal(along, (like.size - 1,), like.dtype)
        square = jax.random.chisquare(across, jnp.asarray(self.transverse - 1, like.dtype), dtype=like.dtype)
        return jnp.append(normal, jnp.sqrt(square))

    def settle(self, x: jax.Array) -> jax.Array:
        """(u, |x_⊥|)."""
        return jnp.append(x[:-2], jnp.hypot(x[-2], x[-1]))


@value_type
class ReducedMixture:
    """Law of (u, ρ) at every t > 0 when x_0 is drawn from a mixture of isotropic classes; the methods of `NoisedMixture`.

    Args:
        weights: (K,) class fractions.
        coordinates: (K, r) centroids in their span.
        variances: (K,) class variances σ_c².
        dimension: full dimension d.
    """

    weights: Float[ArrayLike, " K"]
    coordinates: Float[np.ndarray, "K r"]
    variances: Float[ArrayLike, " K"]
    dimension: Float[ArrayLike, ""]

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.coordinates)[0])

    @property
    def space(self) -> Radial:
        """Where its trajectories live."""
        return Radial(self.dimension - np.shape(self.coordinates)[1])

    def score(self, x: jax.Array, t: ArrayLike) -> jax.Array:
        """Score at a lifted state (u, a, b) with x_⊥ = (a, b) in the plane of a step, shape (r + 2,)."""
        weights, variance = jnp.exp(self.log_posterior(x, t)), self._variances(t, x.dtype)
        inside = (x[None, :-2] - self._means(t, x.dtype)) / variance[:, None]
        return -jnp.append(jnp.sum(weights[:, None] * inside, axis=0), jnp.sum(weights / variance) * x[-2:])

    def log_posterior(self, x: jax.Array, t: ArrayLike) -> jax.Array:
        """Logarithms (K,) of the class probabilities at a state (u, ρ), or at a lifted one."""
        rank = np.shape(self.coordinates)[1]
        # against a class of variance 1, whose terms of order d all classes share: the rest is small where classes are hard to tell apart
        excess = self._variances(t, x.dtype) - 1
        square = jnp.sum((x[None, :rank] - self._means(t, x.dtype)) ** 2, axis=1) / (1 + excess)
        radial = jnp.sum(x[rank:] ** 2) * -excess / (1 + excess) + jnp.asarray(self.dimension, x.dtype) * jnp.log1p(excess)
        return jax.nn.log_softmax(jnp.log(jnp.asarray(self.weights, x.dtype)) - (square + radial) / 2)

    def draw(self, key: jax.Array, label: ArrayLike, t: ArrayLike, dtype: DTypeLike | None = None) -> Float[Array, " r+1"]:
        """One state (r + 1,) of x_t given its class."""
        along, across = jax.random.split(key)
        normal = jax.random.normal(along, (np.shape(self.coordinates)[1],), dtype)
        std = jnp.sqrt(self._variances(t, normal.dtype))[label]
        square = jax.random.chisquare(across, jnp.asarray(self.space.transverse, normal.dtype), dtype=normal.dtype)
        return jnp.append(self._means(t, normal.dtype)[label] + std * normal, std * jnp.sqrt(square))

    def _means(self, t: ArrayLike, dtype: DTypeLike) -> jax.Array:
        return jnp.exp(-jnp.asarray(t, dtype)) * jnp.asarray(self.coordinates, dtype)

    def _variances(self, t: ArrayLike, dtype: DTypeLike) -> jax.Array:
        """Γ_c², through its distance from 1."""
        return 1 + jnp.exp(-2 * jnp.asarray(t, dtype)) * (jnp.asarray(self.variances, dtype) - 1)


def reduced(mixture: NoisedMixture) -> ReducedMixture | None:
    """The reduction of a mixture, or None where a class is not isotropic or fewer than two dimensions lie across the centroids."""
    spread = np.asarray(mixture.eigenvalues, np.float64)
    if np.any(spread.max(axis=1) > spread.min(axis=1) * (1 + 1e-12)):
        return None
    means = np.asarray(mixture.means, np.float64)
    vectors, lengths, _ = np.linalg.svd(means, full_matrices=False)
    rank = int(np.sum(lengths > 1e-12 * max(lengths[0], 1e-300)))
    if means.shape[1] < rank + 2:
        return None
    return ReducedMixture(np.asarray(mixture.weights), vectors[:, :rank] * lengths[:rank], spread[:, 0], means.shape[1])
