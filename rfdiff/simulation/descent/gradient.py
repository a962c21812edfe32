"""Gradient of the training loss in the readout A (d, p), whole or of a batch, in the unit of training time.

With L(A) = (1/d) E‖√Δ A φ/√p + ξ‖² over the training set, the flow dA/dτ = -G(A) has

    G(A) = κ (A U + √(p/Δ) Vᵀ) = κ √(p/Δ) E[ (√(Δ/p) A φ + ξ) φᵀ ],      κ = 2Δ/ψ_p,

which is d² ∇L where ψ_p d is a whole number of features (κ is the problem's, as in the flow). The expectation over a batch drawn
uniformly from the pairs (sample, noise draw) is unbiased: each pair of a class weighs the same, and classes weigh n_c/n. Other weights ω_c
of the classes in the loss multiply the terms of class c by ω_c n/n_c; or the batch is drawn with them: a class with probability ω_c, then
one of its pairs.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from rfdiff.activation import Activation
from rfdiff.simulation.features import feature_map
from rfdiff.simulation.mehler import product
from rfdiff.simulation.moments import Moments
from rfdiff.value_types import value_type

BLOCK_VALUES = 2**24  # features (block, p) of a batch at once


@value_type
class Training:
    """What one replica is trained and measured on (n samples, m draws, p features, d dimensions).

    Args:
        U, V: (p, p) and (p, d) moments of the whole training set.
        train, test: moments of each class, of the training set and of the population (or of held-out samples).
        samples: W (p, d) and clean x (n, d), or None where U and V give every gradient.
        noise: (m n, d) stored draws, sample i of draw r in row r n + i, or None where the noise is averaged or fresh.
        keys: of fresh noise (draw k at step k) and of the batches (one permutation an epoch).
        kappa: κ.
        signal_scale, noise_std: e^{-t} and √Δ.
        weights: (K,) class fractions of the problem.
        sample_weights: (n,) weights ω_c n/n_c of the samples in the loss, of mean 1; None where all weigh 1.
        log_steps: (T,) increasing step numbers at which the losses are measured; the last ends the training.
    """

    U: Float[Array, "p p"]
    V: Float[Array, "p d"]
    train: Moments
    test: Moments
    samples: tuple[Float[Array, "p d"], Float[Array, "n d"]] | None
    noise: Float[Array, "pairs d"] | None
    keys: tuple[Key[Array, ""], Key[Array, ""]]
    kappa: Float[Array, ""]
    signal_scale: Float[Array, ""]
    noise_std: Float[Array, ""]
    weights: Float[Array, " K"]
    sample_weights: Float[Array, " n"] | None
    log_steps: Int[Array, " T"]


def losses(A: Float[Array, "d p"], training: Training) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
    """Train and test losses (K,), L_c = (1/d) E_c‖ξ‖² + (2/d) √(Δ/p) tr(A V_c) + (Δ/pd) tr(A U_c Aᵀ)."""
    d, scale = A.shape[0], _scale(A, training)

    def loss(moments: Moments) -> jax.Array:
        linear = jnp.stack([jnp.sum(A * V.T) for V in moments.V])
        quadratic = jnp.stack([jnp.sum(product(A, U) * A) for U in moments.U])
        return moments.untrained_loss + (2 * scale * linear + scale * scale * quadratic) / d

    return loss(training.train), loss(training.test)


def whole_gradient(A: Float[Array, "d p"], training: Training) -> Float[Array, "d p"]:
    """G(A) over the whole training set, from its moments."""
    return training.kappa * (product(A, training.U) + training.V.T / _scale(A, training))


def batch_gradient(
    A: Float[Array, "d p"],
    training: Training,
    activation: Activation,
    chosen: Int[Array, " B"],
    noise: Float[Array, "B d"],
    weights: Float[Array, " B"] | None = None,
) -> Float[Array, "d p"]:
    """G(A) over some noised samples, whose features are recomputed in blocks.

    Args:
        A: (d, p) readout.
        training: the replica.
        activation: σ.
        chosen: (B,) numbers of the clean samples.
        noise: (B, d) their noise.
        weights: (B,) of their terms in the loss; None for 1.
    """
    assert training.samples is not None  # `prepared_replica` draws them wherever batches are made
    W, x = training.samples
    scale, total = _scale(A, training), len(chosen)
    block = min(total, max(1, BLOCK_VALUES // W.shape[0]))
    count = -(-total // block)

    def add(gradient: jax.Array, samples: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        numbers, xi, live = samples
        phi = feature_map(activation, W, training.signal_scale * x[numbers] + training.noise_std * xi)
        residual = live[:, None] * (scale * product(phi, A.T) + xi)
        return gradient + product(residual.T, phi), None

    padding = count * block - total  # the last block is padded with samples that weigh nothing
    live = jnp.pad(jnp.ones(total, A.dtype) if weights is None else weights, (0, padding)).reshape(count, block)
    rows = jnp.pad(chosen, (0, padding)).reshape(count, block)
    xi = jnp.pad(noise, ((0, padding), (0, 0))).reshape(count, block, noise.shape[1])
    summed = jax.lax.scan(add, jnp.zeros_like(A), (rows, xi, live))[0]
    return training.kappa / (scale * total) * summed


def fresh_noise(key: Key[Array, ""], step: Int[Array, ""], shape: tuple[int, int], dtype: DTypeLike) -> Float[Array, "B d"]:
    """Noise of one step; drawn in float32 whatever the dtype, as the stored draws are."""
    return jax.random.normal(jax.random.fold_in(key, step), shape, jnp.float32).astype(dtype)


def drawn_by_class(key: Key[Array, ""], training: Training, batch: int, draws: int) -> Int[Array, " B"]:
    """Numbers (B,) of pairs, with replacement: a class with its weight ω_c in the loss, one of its samples, one of the draws.

    That is a sample with probability ω_c/n_c.
    """
    assert training.samples is not None
    sample_key, draw_key = jax.random.split(key)
    weights, n = training.sample_weights, len(training.samples[1])
    chosen = jax.random.choice(sample_key, n, (batch,), p=None if weights is None else weights / n)
    return chosen.astype(jnp.int32) + n * jax.random.randint(draw_key, (batch,), 0, draws, jnp.int32)


def _scale(A: Float[Array, "d p"], training: Training) -> Float[Array, ""]:
    """√(Δ/p)."""
    scale: jax.Array = training.noise_std / jnp.sqrt(jnp.asarray(A.shape[1], A.dtype))
    return scale
