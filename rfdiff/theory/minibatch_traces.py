"""Traces that the noise of minibatches needs beside those of the curves, (1/p) tr[U_a R(z) U_c R(z')], on a contour (docs: practice.md).

All of them stand on the whole contour, both half-planes, with the weights dz/(2πi) taken in: an integral over two contours is then the
sum of all entries.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Complex

from rfdiff.theory import implicit, resolvent
from rfdiff.theory.contour import Contour
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.pair_traces import pair_tiles, paired, tile_side
from rfdiff.theory.responses import Joint
from rfdiff.theory.traces import moment_traces, one_trace, pair_responses, vector_traces


class NoiseTraces(NamedTuple):
    """Traces at the N nodes z of a whole contour; the first axis is train and test, K classes.

    linear (2, K, N): t1. second (2, K, N, N): t2. moments (2, K, K, N, N): (1/p) tr[U_a R U_c R], c before a, U_a of the training set.
    """

    nodes: Complex[np.ndarray, " N"]
    linear: Complex[np.ndarray, "2 K N"]
    second: Complex[np.ndarray, "2 K N N"]
    moments: Complex[np.ndarray, "2 K K N N"]

    @property
    def every_second(self) -> np.ndarray:
        """Indices of every second node in the order of the angle."""
        upper = len(self.nodes) // 2
        return np.concatenate([np.arange(0, upper, 2), upper + np.arange(1, upper, 2)])

    def halved(self) -> "NoiseTraces":
        """The rule of every second node: what it changes is about the square root of the error of all of them."""
        pick = self.every_second
        rows = pick[:, None]
        return NoiseTraces(
            self.nodes[pick], 2 * self.linear[..., pick], 4 * self.second[..., rows, pick], 4 * self.moments[..., rows, pick]
        )


@jax.jit
def _tile(eq: Equivalent, z: jax.Array, u: jax.Array, other_z: jax.Array, other_u: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """t1 (2, K, N), t2 (2K, N, N) and the moment traces (2K, K, N, N), as `pair_traces._tile`."""
    rows, cols = implicit.expand(eq, z, u), implicit.expand(eq, other_z, other_u)
    first, second = paired(rows, cols, z.shape[0])
    responses = pair_responses(eq, first, second, Joint(resolvent.feature_averages(eq, first.r * second.r)))
    shape = (-1, z.shape[0], z.shape[0])
    pairs = vector_traces(eq, first, second, responses).reshape(shape)
    moments = jax.numpy.moveaxis(moment_traces(eq, first, second, responses), -1, 1)
    linear = jax.numpy.swapaxes(jax.numpy.stack(one_trace(eq, rows)), 1, 2)
    return linear, pairs, moments.reshape(-1, *moments.shape[1:2], *shape[1:])


def noise_traces(eq: Equivalent, contour: Contour, u: np.ndarray) -> NoiseTraces:
    """Traces on the whole contour, from the packed solutions u (Z, U) on its upper half."""
    z, weights = np.asarray(contour.nodes), np.asarray(contour.weights)
    size, k, side = len(z), eq.linear.shape[1], tile_side(eq)
    padded = side * -(-size // side)
    points, unknowns = (np.concatenate([x, np.repeat(x[-1:], padded - size, 0)]) for x in (z, u))
    linear = np.zeros((2, k, padded), complex)
    # train and test, class c; then t2, and one for each class a
    same, conjugate = np.zeros((2, 2, k, 1 + k, padded, padded), complex)
    for row, col in pair_tiles(padded, side):
        one, *two = _tile(eq, points[row], unknowns[row], points[col], unknowns[col])
        linear[..., row] = one
        both = np.concatenate([np.asarray(two[0])[:, None], two[1]], 1).reshape(2, k, 1 + k, side, side)
        same[..., row, col] = both
        same[..., col, row] = np.swapaxes(both, -1, -2)
        two = _tile(eq, points[row], unknowns[row], points[col].conj(), unknowns[col].conj())[1:]
        both = np.concatenate([np.asarray(two[0])[:, None], two[1]], 1).reshape(2, k, 1 + k, side, side)
        conjugate[..., row, col] = both
        conjugate[..., col, row] = np.swapaxes(both, -1, -2).conj()
    linear, same, conjugate = linear[..., :size] * weights, same[..., :size, :size], conjugate[..., :size, :size]
    whole = np.block([[same, conjugate], [conjugate.conj(), same.conj()]])
    around = np.concatenate([weights, weights.conj()])
    whole = whole * around[:, None] * around
    return NoiseTraces(np.concatenate([z, z.conj()]), np.concatenate([linear, linear.conj()], -1), whole[:, :, 0], whole[:, :, 1:])
