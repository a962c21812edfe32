"""Two-point traces of few classes at all pairs of the nodes of a contour at once, with the pairs as the last axis throughout.

The formulas are those of `traces.two_trace_of_pairs` (docs/theory/curves.md, eq-traces). Beside the layout three things make them cheap:
one real product of matrices gives the averages over the neuron types for all pairs; the small systems are eliminated in unrolled steps;
and of the responses Y' only b_1ᵀ Y' b_2 is formed.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.symmetric import pair_products, symmetric
from rfdiff.theory import batched_systems, resolvent
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Joint, Point, pairs_last, responses

MOST_BYTES = 2**27
MOST_CLASSES = 3  # with more, products of matrices are as fast and compile sooner


def fits(eq: Equivalent, points: int) -> bool:
    """Whether the classes are few, no directions are coupled, and all pairs of so many points fit into memory at once."""
    features = 3 * eq.linear.shape[1] * (eq.linear.shape[1] + 5) // 2  # about those of the averages
    pair_bytes = 16 * 600 * points**2 + 16 * features * points * eq.type_weights.size
    return eq.coupled is None and eq.linear.shape[1] <= MOST_CLASSES and pair_bytes <= MOST_BYTES


def averages_of_pairs(eq: Equivalent, r: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """E_h[r_i r'_j features featuresᵀ] and E_h[r_i r̄'_j features featuresᵀ] (F,F,Z,Y), from r (Z,J) and r' (Y,J) of the neuron types."""
    features = resolvent.type_features(eq)
    left, right = (jnp.concatenate([jnp.real(x), jnp.imag(x)]) for x in (r, other))  # (2Z, J), (2Y, J)
    weighted = (eq.type_weights[:, None] * pair_products(features)).T
    found = ((weighted[:, None] * left).reshape(-1, left.shape[1]) @ right.T).reshape(-1, 2, len(r), 2, len(other))
    real, mixed, turned, imag = found[:, 0, :, 0], found[:, 0, :, 1], found[:, 1, :, 0], found[:, 1, :, 1]
    index = symmetric(np.arange(found.shape[0]), features.shape[1])
    return jax.lax.complex(real - imag, mixed + turned)[index], jax.lax.complex(real + imag, turned - mixed)[index]


def two_trace_of_pairs(eq: Equivalent, p1: Point, p2: Point, types: jax.Array) -> jax.Array:
    """t2 = (1/d) tr[Vᵀ R(z1) U_c R(z2) V] (2,K,P) for the train and the test U_c at P pairs, `types` (F,F,P) being their averages."""
    k, kinds, size = eq.linear.shape[1], eq.kind_weights.size, p1.q.shape[0]
    known = responses(eq, p1, p2, Joint(jnp.moveaxis(types, -1, 0)))
    matrix = jnp.eye(known.unknowns.shape[0])[..., None] - known.system(eq)
    b1, b2, delta1, delta2 = (pairs_last(leaf, (size,), leaf.ndim - 1) for leaf in (p1.b, p2.b, p1.delta, p2.delta))
    between = ((b1[:, None] * b2)[:, :, None] * known.Y).sum((0, 1))  # b_1ᵀ Y' b_2 of each input
    weights = eq.kind_weights[:, None, None] * known.excitation
    signal, noise = eq.signal_gains[:, None, None] * weights, eq.noise_gains[:, None, None] * weights
    own = signal.sum(0), noise.sum(0) + eq.deterministic  # inputs a' and b' of class c of the training set; of the population both are 1

    def of_sources(values: jax.Array) -> jax.Array:
        of_a, of_b = values[..., :k, :], values[..., k : 2 * k, :]
        return jnp.concatenate([own[0] * of_a + own[1] * of_b, of_a + of_b], -2)

    solution = batched_systems.solve_last(matrix, of_sources(known.unknowns))
    delta = eq.loss_weights[:, None, None] * solution[: kinds * k].reshape(kinds, k, *solution.shape[1:])  # (S,K,2K,P)
    a, b = (-(gained[:, :, None] * delta).sum(0) for gained in (signal, noise))  # (K,2K,P)
    inputs = jnp.concatenate([a, b, solution[kinds * k :]])
    joined = of_sources(between) + (inputs * between[:, None]).sum(0)
    Y1, Y2 = (pairs_last(resolvent.mean_of_Y(eq, p), (size,), 2) for p in (p1, p2))
    after, before = (Y2 * b2).sum(1), (b1[:, None] * Y1).sum(0)
    theta = jnp.eye(k, 2 * k)[:, :, None]
    same = (noise[:, :, None] * (delta - (delta1 * delta2)[:, :, None] * theta)).sum((0, 1))
    left = (noise[:, :, None] * (delta + delta1[:, :, None] * theta)).sum(0)
    right = (noise[:, :, None] * (delta + delta2[:, :, None] * theta)).sum(0)
    joined = joined - (left * after[:, None] + right * before[:, None]).sum(0)
    return -(same + eq.noise_variance * joined).reshape(2, k, -1)
