"""Averages over many neuron types at all pairs of contour nodes, from few functions (docs/theory/curves.md).

As functions of the neuron the resolvent entries r(z_i) of all nodes are nearly combinations of some twenty, since they are analytic in z:
r(z_i) = Σ_k c_ik ρ_k. So E_h[r(z_i) r(z_j) features featuresᵀ] for a thousand pairs are combinations of a few hundred averages of
ρ_k ρ_l features featuresᵀ.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from rfdiff.symmetric import multiplicity, pair_products, symmetric, upper_indices
from rfdiff.theory import implicit, resolvent
from rfdiff.theory.equivalent import Equivalent

LEFT_OUT = 1e-11  # of the largest of all combinations of entries: smaller ones are left out
LEAST, RANKS = 24, 8  # functions at least, and steps of their number: so that most problems share programs
PIECE = 1024  # neuron types whose products of features are at hand at once
WORTH = 4  # neuron types for each product ρ_k ρ_l from which they are worth it


class FewEntries(NamedTuple):
    """Shares c (Z, q) of the functions ρ in the entries of Z points, and averages (q (q + 1)/2, M) of ρ_k ρ_l and pairs of features."""

    shares: Complex[np.ndarray, "Z q"]
    table: Float[np.ndarray, "Q M"]


class SharedAverages(NamedTuple):
    """`FewEntries` of the rows and columns of a tile of pairs."""

    rows: Complex[np.ndarray, "N q"] | Complex[jax.Array, "N q"]
    cols: Complex[np.ndarray, "N q"] | Complex[jax.Array, "N q"]
    table: Float[np.ndarray, "Q M"] | Float[jax.Array, "Q M"]


@jax.jit
def _entries(eq: Equivalent, z: jax.Array, u: jax.Array) -> jax.Array:
    return implicit.expand(eq, z, u).r


def few_entries(eq: Equivalent, z: np.ndarray, u: np.ndarray) -> FewEntries | None:
    """The functions that the entries at Z points are made of; None where there are too few neuron types for it to be worth it.

    Args:
        eq: the Gaussian equivalent.
        z, u: (Z,) points, and their packed solutions (Z, U).
    """
    types = eq.type_weights.size
    if types < WORTH * len(z) or not np.all(np.isfinite(u)):
        return None
    entries = np.asarray(_entries(eq, jnp.asarray(z), jnp.asarray(u)))
    size = np.max(abs(entries), 1)
    left, strengths, functions = np.linalg.svd(np.concatenate([entries.real, entries.imag]) / np.tile(size, 2)[:, None], False)
    needed = max(LEAST, RANKS * -(-int(np.sum(strengths > LEFT_OUT * strengths[0])) // RANKS))
    if types < WORTH * needed * (needed + 1) // 2:
        return None
    parts, functions = (left * strengths)[:, :needed], functions[:needed]
    shares = size[:, None] * (parts[: len(z)] + 1j * parts[len(z) :])
    more = needed - len(functions)
    return FewEntries(np.pad(shares, ((0, 0), (0, more))), _averages(eq, np.pad(functions, ((0, more), (0, 0))).T))


def _averages(eq: Equivalent, functions: np.ndarray) -> Float[np.ndarray, "Q M"]:
    """Averages of products of functions (J, q) and of features, by pieces of the neuron types."""
    features, weights = np.asarray(resolvent.type_features(eq)), np.asarray(eq.type_weights)
    total = np.zeros((multiplicity(functions.shape[1]).size, multiplicity(features.shape[1]).size))
    for start in range(0, len(weights), PIECE):
        here = slice(start, start + PIECE)
        total += (pair_products(functions[here]) * weights[here, None]).T @ pair_products(features[here])
    return total


def averages_of_pairs(eq: Equivalent, shared: SharedAverages) -> jax.Array:
    """E_h[r_1 r_2 features featuresᵀ] (N N, F, F) for the pairs of N rows with N columns, the columns fastest."""
    rows, cols = (jnp.asarray(x)[:, None] if i == 0 else jnp.asarray(x)[None] for i, x in enumerate((shared.rows, shared.cols)))
    k, m = upper_indices(shared.rows.shape[-1])
    both = (rows[..., k] * cols[..., m] + rows[..., m] * cols[..., k]) * jnp.where(k == m, 0.5, 1.0)
    both = both.reshape(-1, both.shape[-1])
    table = jnp.asarray(shared.table)
    averages = jax.lax.complex(jnp.real(both) @ table, jnp.imag(both) @ table)
    return symmetric(averages, 2 * eq.linear.shape[1] + multiplicity(eq.linear.shape[1]).size)
