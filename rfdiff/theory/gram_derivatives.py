"""Derivatives in the Gram matrix Q of the centroids: its root where it has a width, a difference stencil where it has none.

The root R (R Rᵀ = Q) is moved by `dR = (I - P/2) dQ R⁺ᵀ`, P the projector on the range of Q, which is smooth where eigenvectors are
not (equal eigenvalues). Directions outside the range have no width to move: there the average over neuron types changes by
`dE[f] = ½ Σ dQ_ab E[∂_a ∂_b f]`, and the second derivatives are taken by neuron types of weight 0 on a difference stencil, whose
weights have a derivative although they vanish.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.theory import batched_systems

STENCIL_STEP = 0.12  # times a direction's unit of h: sixth order, an error of about step^6/560 times an eighth derivative
STENCIL = np.array([1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90])


def stencil(n: int) -> tuple[Float[np.ndarray, "s n"], Float[np.ndarray, "s n n"]]:
    """Offsets (s, n) and moments (s, n, n): to first order in q, E f = Σ_s (δ_{s0} + Σ_ab q_ab moments_sab) f(offset_s) over N(0, q).

    Second derivatives along e_a and along (e_a + e_b)/√2 give all of ½ Σ q_ab ∂_a ∂_b.

    Args:
        n: number of directions without width.
    """
    offsets, moments = [np.zeros(n)], [np.zeros((n, n))]
    shifts = STENCIL_STEP * np.array([-3, -2, -1, 1, 2, 3])
    factors = np.delete(STENCIL, 3) / STENCIL_STEP**2
    for a in range(n):
        for b in range(a, n):
            direction, share = np.zeros(n), np.zeros((n, n))
            if a == b:
                direction[a] = 1
                share[a, a] = 0.5
                share[a, :] -= 0.25 * (np.arange(n) != a)
                share[:, a] -= 0.25 * (np.arange(n) != a)
            else:
                direction[[a, b]] = np.sqrt(0.5)
                share[a, b] = share[b, a] = 0.5
            for shift, factor in zip(shifts, factors, strict=True):
                offsets.append(shift * direction)
                moments.append(factor * share)
            moments[0] = moments[0] + STENCIL[3] / STENCIL_STEP**2 * share
    return np.stack(offsets), np.stack(moments)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def traced_root(gram: Float[Array, "K K"], rank: int) -> Float[Array, "K rank"]:
    """Root R (K, rank) of a Gram matrix of known rank, R Rᵀ = Q, with derivatives that know no eigenvalue gaps."""
    values, vectors = jnp.linalg.eigh(gram)
    used = slice(gram.shape[-1] - rank, None)
    return vectors[:, used] * jnp.sqrt(jnp.maximum(values[used], 0))


@traced_root.defjvp
def _traced_root_jvp(
    rank: int, primals: tuple[Float[Array, "K K"]], tangents: tuple[Float[Array, "K K"]]
) -> tuple[Float[Array, "K rank"], Float[Array, "K rank"]]:
    root = traced_root(primals[0], rank)
    if not rank:
        return root, root
    inverse = batched_systems.solve(root.T @ root, root.T)
    moved = tangents[0] @ inverse.T
    return root, moved - root @ (inverse @ moved) / 2
