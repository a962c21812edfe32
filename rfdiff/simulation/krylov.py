"""Learning curves without an eigendecomposition: Rayleigh-Ritz on the block Krylov space of U started from V.

Every curve needs U only through f(U) V, for all training times at once. An orthonormal basis Q of span{V, UV, U²V, …} is grown a block
of b columns a step; with T = QᵀUQ = S Θ Sᵀ the Ritz pairs (Θ, Y = QS) stand for eigenpairs in the very formulas of `gradient_flow`,

    L_c(τ) = leading_c - (2/d) Σ_i f_i (Ṽ_c Ṽᵀ)_ii + (1/d) Σ_ij f_i f_j (ṼṼᵀ)_ij (Yᵀ U_c Y)_ij,      Ṽ = YᵀV.

Every block is orthogonalised against all the others, several times: an exactly degenerate eigenvalue (p > n has a huge one) otherwise
comes back as a ghost. T is the full projection, not a band, so whatever directions take the place of exhausted ones only enlarge
the space. From V itself (b = d) the curves converge to the exact flow; from V G with s random columns (`probes`) each column g
gives an unbiased estimate, E gᵀ(…)g = tr(…), whose spread is their standard error.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.rules import Rule
from rfdiff.simulation.krylov_curves import Measured
from rfdiff.simulation.moment_operators import Moment

PASSES = 4  # of orthogonalisation at most: each takes a dependent direction from rounding level up by 1/√ε at least
SLAB = 8  # blocks kept as one matrix: products of few large matrices are faster
FIRST_CHECK = 3
INVARIANT = 100.0  # times the rounding unit: a block that is no longer than this beside U times the last one holds nothing new
NEGLIGIBLE = 1e-12  # overlap of blocks, far below the square root of the rounding unit, at which Ritz values begin to suffer
SPACING = 1.5  # at most, of the steps at which the space is looked at: each look is an eigendecomposition of T
SQUARED = 3.0  # the losses converge as the square of the solution


class Averages(NamedTuple):
    """What the curves are made of: operators of the whole training set, of its classes, of the tested classes; and leading_c (K,)."""

    mixture: Moment
    train: tuple[Moment, ...]
    test: tuple[Moment, ...]
    leading: Any


class KrylovCurves(NamedTuple):
    """Curves of one network (T times, K classes).

    Args:
        train_loss, test_loss: (T, K) losses.
        train_error, test_error: (T, K) standard errors over probes; 0 without probes.
        error_estimate: largest change of any loss by the last step, and by a shift of the eigenvalues by ε of the largest (rounding).
        steps: blocks in the basis.
        ritz_values: (M,) Θ, ascending.
        converged: whether the change by the last step is within the tolerance; more steps do not mend rounding.
    """

    train_loss: np.ndarray
    test_loss: np.ndarray
    train_error: np.ndarray
    test_error: np.ndarray
    error_estimate: float
    steps: int
    ritz_values: np.ndarray
    converged: bool


_times = jax.jit(lambda moment, X: moment.times(X))
_slope = jax.jit(lambda moment: moment.slope())


@jax.jit
def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    # transposed in memory: XLA would fold the transposition into a product that then runs at half speed on a CPU
    return jnp.matmul(jax.lax.optimization_barrier(a.T), b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _subtract(block: jax.Array, own: jax.Array, coefficients: jax.Array) -> jax.Array:
    return block - jnp.matmul(own, coefficients, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _whiten(block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Columns of unit length spanning the same space, as far as rounding tells directions apart, and whether it tells all of them.

    By the eigenvectors of their Gram matrix, since a sum over rows is all that needs the whole block (its rows may lie on several devices).
    """
    lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
    block = block / jnp.where(lengths > 0, lengths, 1)
    values, vectors = jnp.linalg.eigh(_inner(block, block))
    floor = 4 * block.shape[1] * jnp.finfo(block.dtype).eps * values[-1]
    whole = values[0] > 1e-3 * values[-1]
    return jnp.matmul(block, vectors / jnp.sqrt(jnp.maximum(values, floor)), precision=jax.lax.Precision.HIGHEST), whole


class _Space:
    """A Krylov basis Q and T = QᵀUQ, a small matrix on the host in float64. The newest block is in Q, but not yet in T."""

    def __init__(self, mixture: Moment, start: jax.Array) -> None:
        self.mixture, self.width = mixture, int(start.shape[1])
        self.slabs: list[jax.Array] = []
        self.loose: list[jax.Array] = []
        self.T = np.zeros((0, 0))
        self._append(self._orthonormal(start))

    def grow(self) -> bool:
        """Apply U to the newest block and add the next one; False when the space is exhausted."""
        image = _times(self.mixture, self.loose[-1] if self.loose else self.slabs[-1][:, -self.width :])
        rest, column = self._without(image)
        self.T = _bordered(self.T, column)
        size, eps = float(jnp.linalg.norm(image)), float(jnp.finfo(rest.dtype).eps)
        if float(jnp.linalg.norm(rest)) <= INVARIANT * eps * size:
            return False  # U maps the space into itself: only rounding would be added
        following = self._orthonormal(rest, eps * size)
        if not bool(jnp.any(following != 0)):
            return False
        self._append(following)
        return True

    @property
    def parts(self) -> list[jax.Array]:
        """Q in pieces of columns."""
        return [*self.slabs, *self.loose]

    def coordinates(self, X: jax.Array) -> np.ndarray:
        """QᵀX on the part of the basis that T is known on."""
        return np.concatenate([np.asarray(_inner(own, X), np.float64) for own in self.parts])[: len(self.T)]

    def basis(self) -> jax.Array:
        """Q (p, M), as far as T is known on it."""
        return jnp.concatenate(self.parts, axis=1)[:, : len(self.T)]

    def _append(self, block: jax.Array) -> None:
        self.loose.append(block)
        if len(self.loose) == SLAB:
            self.slabs.append(jnp.concatenate(self.loose, axis=1))
            self.loose = []

    def _without(self, block: jax.Array) -> tuple[jax.Array, np.ndarray]:
        """The block without its components along the basis, and those."""
        column = []
        for own in self.parts:
            coefficients = _inner(own, block)
            block = _subtract(block, own, coefficients)
            column.append(np.asarray(coefficients, np.float64))
        return block, np.concatenate([np.zeros((0, block.shape[1])), *column])

    def _orthonormal(self, block: jax.Array, rounding: float = math.inf) -> jax.Array:
        """An orthonormal block orthogonal to the basis; columns for which the space has no room left are 0.

        Args:
            block: the block, orthogonal to the basis up to `rounding`, an absolute error. Where no direction of it is so short that this
                matters, it is left at that.
        """
        for attempt in range(PASSES):
            shortest = float(jnp.min(jnp.linalg.norm(block, axis=0)))
            block, whole = _whiten(block)
            if not attempt and bool(whole) and rounding <= NEGLIGIBLE * shortest:
                return block
            block, overlap = self._without(block)
            if (attempt or bool(whole)) and np.max(abs(overlap), initial=0) < math.sqrt(jnp.finfo(block.dtype).eps):
                break  # what one subtraction leaves is rounding alone
        lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
        return block * (lengths > 0.5)


def _bordered(matrix: np.ndarray, column: np.ndarray) -> np.ndarray:
    """A symmetric matrix with one more block column, whose last rows are the diagonal block."""
    old, new = len(matrix), len(column)
    whole = np.zeros((new, new))
    whole[:old, :old] = matrix
    whole[:, old:] = column
    whole[old:, :old] = column[:old].T
    whole[old:, old:] = (column[old:] + column[old:].T) / 2
    return whole


def krylov_losses(
    averages: Averages,
    shares: Any,
    rule: Rule,
    clock: Any,
    kappa: float,
    d: int,
    rank: int,
    tolerance: float,
    max_steps: int,
    probes: Any = None,
) -> KrylovCurves:
    """Losses of every class along training from A = 0, all times at once.

    Args:
        averages: operators of one network; the first of the train classes is never applied (the classes add up to the whole).
        shares: (K,) class fractions of the training set.
        rule: training rule, evaluated at the Ritz values.
        clock: of the T training times, from `rule.schedule`.
        kappa: κ = 2Δ/ψ_p.
        d: dimension.
        rank: largest rank that U can have.
        tolerance: change of the losses by a step at which the space is large enough.
        max_steps: blocks in the basis at most.
        probes: (d, s) random signs g whose V g start the space, or None to start from V.
    """
    own = [_slope(part) for part in (*averages.train, *averages.test)]
    V = functools.reduce(jnp.add, [jnp.asarray(share, v.dtype) * v for share, v in zip(shares, own, strict=False)])
    if probes is not None:
        g = jnp.asarray(probes, V.dtype)
        V, own = _matmul(V, g), [_matmul(v, g) for v in own]
    space = _Space(averages.mixture, V)
    measured = Measured(space, V, rule, clock, float(kappa), d, probes is not None, rank)
    due, goal, seen = FIRST_CHECK, SQUARED * math.sqrt(tolerance), (0, math.nan)
    while True:
        more = space.grow()
        steps = len(space.T) // space.width
        last = not more or steps >= max_steps
        if not last and steps < due:
            continue
        newest = measured.newest()
        rate = math.log(newest / seen[1]) / (steps - seen[0]) if newest > 0 else -math.inf
        seen = steps, newest
        if not last and newest > goal:
            due = _next_look(steps, math.log(goal / newest), rate)
            continue
        found = measured.losses(averages, own, np.asarray(shares, np.float64), exhausted=not more)
        train, test, train_error, test_error, change, rounding = found
        if last or change <= tolerance:
            values, converged = measured.ritz_values, change <= tolerance
            return KrylovCurves(train, test, train_error, test_error, change + rounding, steps, values, converged)
        due = _next_look(steps, math.log(tolerance / change) / 2, rate)


def _next_look(steps: int, missing: float, rate: float) -> int:
    """Steps at which a logarithm that grew by `rate` a step will have grown by `missing` < 0, as far as that can be foreseen."""
    most = math.ceil(SPACING * steps)
    return max(steps + 1, min(most, steps + math.ceil(missing / rate)) if rate < 0 else most)
