"""Learning curves without an eigendecomposition: Rayleigh-Ritz on the block Krylov space of U started from V.

Every curve needs U only through f(U) V, for all training times at once. An orthonormal basis Q of span{V, UV, U²V, …} is grown a block
of b columns a step; with T = QᵀUQ = S Θ Sᵀ the Ritz pairs (Θ, Y = QS) stand for eigenpairs in the very formulas of `gradient_flow`,

    L_c(τ) = (1/d) E_c‖ξ‖² - (2/d) Σ_i f_i (Ṽ_c Ṽᵀ)_ii + (1/d) Σ_ij f_i f_j (ṼṼᵀ)_ij (Yᵀ U_c Y)_ij,      Ṽ = YᵀV.

Every block is orthogonalised against all the others, several times: an exactly degenerate eigenvalue (p > n has a huge one) otherwise
comes back as a ghost. T is the full projection, not a band, so directions that replace exhausted ones only enlarge the space.
From V itself (b = d) the curves converge to the exact flow; from V G with s random columns (`probes`) each column g gives an unbiased
estimate, E gᵀ(…)g = tr(…), whose spread is their standard error.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from rfdiff.rules import Clock, Rule
from rfdiff.simulation.krylov_curves import Averages, RitzCurves
from rfdiff.simulation.moment_operators import Moment

PASSES = 4  # of orthogonalisation at most: each takes a dependent direction from rounding level up by 1/√ε at least
SLAB = 8  # blocks held as one matrix: products of few large matrices are faster
FIRST_CHECK = 3
INVARIANT = 100.0  # times the rounding unit: a block that is no longer than this beside U times the last one holds nothing new
NEGLIGIBLE = 1e-12  # overlap of blocks, far below the square root of the rounding unit, at which Ritz values begin to suffer
SPACING = 1.5  # at most, of the steps at which the space is looked at: each look is an eigendecomposition of T
SQUARED = 3.0  # the losses converge as the square of the solution


class KrylovCurves(NamedTuple):
    """Curves of one network (T times, K classes).

    Args:
        train_loss, test_loss: (T, K) losses.
        train_stderr, test_stderr: (T, K) standard errors over probes; 0 without probes.
        error_estimate: largest change of any loss by the last step, and by rounding (`krylov_curves`).
        steps: blocks in the basis.
        ritz_values: (M,) Θ, ascending.
        converged: whether the change by the last step is within the tolerance; more steps cannot reduce rounding.
    """

    train_loss: Float[np.ndarray, "T K"]
    test_loss: Float[np.ndarray, "T K"]
    train_stderr: Float[np.ndarray, "T K"]
    test_stderr: Float[np.ndarray, "T K"]
    error_estimate: float
    steps: int
    ritz_values: Float[np.ndarray, " M"]
    converged: bool


_times = jax.jit(lambda moment, X: moment.times(X))
_feature_noise_moment = jax.jit(lambda moment: moment.feature_noise_moment())


@jax.jit
def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    # transposed in memory: XLA would fold the transposition into a product that then runs at half speed on a CPU
    return jnp.matmul(jax.lax.optimization_barrier(a.T), b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _subtract(block: jax.Array, Q: jax.Array, coefficients: jax.Array) -> jax.Array:
    return block - jnp.matmul(Q, coefficients, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _whiten(block: Float[Array, "p b"]) -> tuple[Float[Array, "p b"], Bool[Array, ""]]:
    """Columns of unit length spanning the same space, as far as rounding tells directions apart, and whether it tells all of them.

    By the eigenvectors of their Gram matrix, since a sum over rows is all that needs the whole block (its rows may lie on several devices).
    """
    lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
    block = block / jnp.where(lengths > 0, lengths, 1)
    values, vectors = jnp.linalg.eigh(_inner(block, block))
    floor = 4 * block.shape[1] * jnp.finfo(block.dtype).eps * values[-1]
    whole = values[0] > 1e-3 * values[-1]
    return jnp.matmul(block, vectors / jnp.sqrt(jnp.maximum(values, floor)), precision=jax.lax.Precision.HIGHEST), whole


@jax.jit
def _polished(block: Float[Array, "p b"]) -> Float[Array, "p b"]:
    """The block by a step of Newton's: of columns orthonormal up to a small error, or 0, it leaves the square of the error.

    Whitening leaves hundreds of ε, which would enter every Ritz value.
    """
    correction = 1.5 * jnp.eye(block.shape[1], dtype=block.dtype) - _inner(block, block) / 2
    return jnp.matmul(block, correction, precision=jax.lax.Precision.HIGHEST)


class KrylovSpace:
    """A Krylov basis Q and T = QᵀUQ, a small matrix on the host in float64. The newest block is in Q, but not yet in T.

    Args:
        mixture: U of the whole training set.
        start: (p, b) block whose columns, orthonormalised, are the first of Q.
    """

    def __init__(self, mixture: Moment, start: Float[Array, "p b"]) -> None:
        self.mixture, self.width = mixture, int(start.shape[1])
        self.slabs: list[jax.Array] = []
        self.loose: list[jax.Array] = []
        self.T = np.zeros((0, 0))
        self._append(self._orthonormal(start))

    def grow(self) -> bool:
        """Apply U to the newest block and add the next one; False when the space is exhausted."""
        image = _times(self.mixture, self.loose[-1] if self.loose else self.slabs[-1][:, -self.width :])
        rest, column = self._projected_out(image)
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
    def blocks(self) -> list[Float[Array, "p b"]]:
        """Q in blocks of columns."""
        return [*self.slabs, *self.loose]

    def coordinates(self, X: Float[Array, "p s"]) -> Float[np.ndarray, "M s"]:
        """QᵀX for the columns of Q that T covers."""
        return np.concatenate([np.asarray(_inner(Q, X), np.float64) for Q in self.blocks])[: len(self.T)]

    def basis(self) -> Float[Array, "p M"]:
        """Q (p, M), the columns that T covers."""
        return jnp.concatenate(self.blocks, axis=1)[:, : len(self.T)]

    def _append(self, block: jax.Array) -> None:
        self.loose.append(block)
        if len(self.loose) == SLAB:
            self.slabs.append(jnp.concatenate(self.loose, axis=1))
            self.loose = []

    def _projected_out(self, block: jax.Array) -> tuple[jax.Array, np.ndarray]:
        """The block without its components along the basis, and these components."""
        column = []
        for Q in self.blocks:
            coefficients = _inner(Q, block)
            block = _subtract(block, Q, coefficients)
            column.append(np.asarray(coefficients, np.float64))
        return block, np.concatenate([np.zeros((0, block.shape[1])), *column])

    def _orthonormal(self, block: jax.Array, rounding: float = math.inf) -> jax.Array:
        """An orthonormal block orthogonal to the basis; columns without a direction left in the space are 0.

        Args:
            block: the block, orthogonal to the basis up to `rounding`, an absolute error; it is orthogonalised again unless even its
                shortest direction is so long that this error is negligible.
        """
        for attempt in range(PASSES):
            shortest = float(jnp.min(jnp.linalg.norm(block, axis=0)))
            block, whole = _whiten(block)
            if not attempt and bool(whole) and rounding <= NEGLIGIBLE * shortest:
                return _polished(block)
            block, overlap = self._projected_out(block)
            if (attempt or bool(whole)) and np.max(abs(overlap), initial=0) < math.sqrt(jnp.finfo(block.dtype).eps):
                break  # one subtraction leaves nothing but rounding
        lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
        return _polished(block * (lengths > 0.5))


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
    shares: ArrayLike,
    *,
    rule: Rule,
    clock: Clock,
    kappa: float,
    d: int,
    rank: int,
    tolerance: float,
    max_steps: int,
    probes: Float[Array, "d s"] | None = None,
) -> KrylovCurves:
    """Losses of every class along training from A = 0, all times at once.

    Args:
        averages: operators of one network; the train class of the largest share is never applied (the classes add up to the whole).
        shares: (K,) weights of the classes in the training loss.
        rule: training rule, evaluated at the Ritz values.
        clock: of the T training times, from `rule.schedule`.
        kappa: κ = 2Δ/ψ_p.
        d: dimension.
        rank: largest rank that U can have.
        tolerance: change of the losses by a step at which the space is large enough.
        max_steps: blocks in the basis at most.
        probes: (d, s) random signs g whose V g start the space, or None to start from V.
    """
    fractions = np.asarray(shares, np.float64)
    class_V = [_feature_noise_moment(moment) for moment in (*averages.train, *averages.test)]
    V = functools.reduce(jnp.add, [jnp.asarray(share, V_c.dtype) * V_c for share, V_c in zip(fractions, class_V, strict=False)])
    if probes is not None:
        g = jnp.asarray(probes, V.dtype)
        V, class_V = _matmul(V, g), [_matmul(V_c, g) for V_c in class_V]
    space = KrylovSpace(averages.mixture, V)
    curves = RitzCurves(space, V, rule, clock, float(kappa), d, probes is not None, rank)
    look, goal, steps_before, change_before = FIRST_CHECK, SQUARED * math.sqrt(tolerance), 0, math.nan
    while True:
        more = space.grow()
        steps = len(space.T) // space.width
        last = not more or steps >= max_steps
        if not last and steps < look:
            continue
        change = curves.last_step_change()
        rate = math.log(change / change_before) / (steps - steps_before) if change > 0 else -math.inf
        steps_before, change_before = steps, change
        if not last and change > goal:
            look = _next_look(steps, math.log(goal / change), rate)
            continue
        losses = curves.losses(averages, class_V, fractions, exhausted=not more)
        if last or losses.change <= tolerance:
            error, converged = losses.change + losses.rounding, losses.change <= tolerance
            return KrylovCurves(*losses[:4], error, steps, curves.ritz_values, converged)
        look = _next_look(steps, math.log(tolerance / losses.change) / 2, rate)


def _next_look(steps: int, missing: float, rate: float) -> int:
    """Steps at which a logarithm that grew by `rate` a step will have grown by `missing` < 0, as far as that can be foreseen."""
    most = math.ceil(SPACING * steps)
    return max(steps + 1, min(most, steps + math.ceil(missing / rate)) if rate < 0 else most)
