"""Learning curves without an eigendecomposition: Rayleigh-Ritz on the block Krylov space of U started from V.

Every curve needs U only through f(U) V, for all training times at once. An orthonormal basis Q of span{V, UV, U²V, …} is grown a block
of b columns a step; with T = QᵀUQ = S Θ Sᵀ the Ritz pairs (Θ, Y = QS) stand for eigenpairs in the very formulas of `gradient_flow`,

    L_c(τ) = leading_c - (2/d) Σ_i f_i (Ṽ_c Ṽᵀ)_ii + (1/d) Σ_ij f_i f_j (ṼṼᵀ)_ij (Yᵀ U_c Y)_ij,      Ṽ = YᵀV.

Every block is orthogonalised against all the others, several times: an exactly degenerate eigenvalue (p > n has a huge one) otherwise
comes back as a ghost. T is the full projection, not a band, so whatever directions take the place of exhausted ones only enlarge
the space. From V itself (b = d) the curves converge to the exact flow; from V G with s random columns (`probes`) each column g
gives an unbiased estimate, E gᵀ(…)g = tr(…), whose spread is their standard error.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.rules import Rule
from rfdiff.simulation.operators import Moment

PASSES = 3  # of orthogonalisation: each takes a dependent direction from rounding level up by 1/√ε at least
FIRST_CHECK = 3
INVARIANT = 100.0  # times the rounding unit: a block that is no longer than this beside U times the last one holds nothing new
SPACING = 1.15  # of the steps at which the space is looked at: each look is an eigendecomposition of T
PROBED_TIMES = 8
SLACK = 1e3  # the solution moves by more than any loss does: it converges half as fast
Blocks = list[jax.Array]


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
        error_estimate: largest change of any loss by the last step.
        steps: blocks in the basis.
        ritz_values: (M,) Θ, ascending.
        converged: whether the estimate is within the tolerance.
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
def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _remove(block: jax.Array, own: jax.Array) -> jax.Array:
    return block - jnp.matmul(own, _inner(own, block), precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _whiten(block: jax.Array) -> jax.Array:
    """Columns of unit length spanning the same space, as far as rounding tells directions apart: by the eigenvectors of their Gram
    matrix, since a sum over rows is all that needs the whole block (its rows may lie on several devices).
    """
    lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
    block = block / jnp.where(lengths > 0, lengths, 1)
    values, vectors = jnp.linalg.eigh(_inner(block, block))
    floor = 4 * block.shape[1] * jnp.finfo(block.dtype).eps * values[-1]
    return jnp.matmul(block, vectors / jnp.sqrt(jnp.maximum(values, floor)), precision=jax.lax.Precision.HIGHEST)


def _orthonormal(block: jax.Array, basis: Blocks) -> jax.Array:
    """An orthonormal block orthogonal to the basis; columns for which the space has no room left are 0."""
    for _ in range(PASSES):
        for own in basis:
            block = _remove(block, own)
        block = _whiten(block)
    for own in basis:
        block = _remove(block, own)
    lengths = jnp.sqrt(jnp.sum(block * block, axis=0))
    return block * (lengths > 0.5)


class _Space:
    """A Krylov basis, and what U and the class averages are on it; small matrices live on the host in float64."""

    def __init__(self, averages: Averages, start: jax.Array) -> None:
        self.averages = averages
        self.blocks: Blocks = [_orthonormal(start, [])]
        self.width = int(start.shape[1])
        self.T = np.zeros((0, 0))
        self.forms = [np.zeros((0, 0)) for _ in (*averages.train[1:], *averages.test)]

    def grow(self) -> bool:
        """Apply U to the newest block and add the next one; False when the space is exhausted."""
        image = _times(self.averages.mixture, self.blocks[-1])
        column = self._project(image)
        self.T = _bordered(self.T, column)
        rest = image
        for _ in range(2):
            for own in self.blocks:
                rest = _remove(rest, own)
        if float(jnp.linalg.norm(rest)) <= INVARIANT * jnp.finfo(rest.dtype).eps * float(jnp.linalg.norm(image)):
            return False  # U maps the space into itself: only rounding would be added
        following = _orthonormal(rest, self.blocks)
        if not bool(jnp.any(following != 0)):
            return False
        self.blocks.append(following)
        return True

    def complete_forms(self) -> None:
        """QᵀU_cQ of every class average on the part of the basis that T is known on."""
        size = len(self.T) // self.width
        operators = (*self.averages.train[1:], *self.averages.test)
        for i, operator in enumerate(operators):
            known = len(self.forms[i]) // self.width
            if known < size:
                # all at once, since each application forms its panels anew; filled up to few shapes, since each shape is compiled
                fill = 2 ** math.ceil(math.log2(size - known)) - (size - known)
                new = [*self.blocks[known:size], *[jnp.zeros_like(self.blocks[0])] * fill]
                images = jnp.split(_times(operator, jnp.concatenate(new, axis=1)), len(new), axis=1)
                for j, image in enumerate(images[: size - known]):
                    self.forms[i] = _bordered(self.forms[i], self._project(image, known + j + 1))

    def _project(self, image: jax.Array, count: int | None = None) -> np.ndarray:
        used = self.blocks if count is None else self.blocks[:count]
        return np.concatenate([np.asarray(_inner(own, image), np.float64) for own in used])

    def coordinates(self, X: jax.Array) -> np.ndarray:
        """QᵀX on the part of the basis that T is known on."""
        return self._project(X, len(self.T) // self.width)


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
    V = _slope(averages.mixture)
    own = [_slope(part) for part in (*averages.train, *averages.test)]
    if probes is not None:
        g = jnp.asarray(probes, V.dtype)
        V, own = _apply(V, g), [_apply(v, g) for v in own]
    space = _Space(averages, V)
    measured = _Measured(space, np.asarray(shares, np.float64), rule, clock, float(kappa), d, rank, probes is not None)
    due = FIRST_CHECK
    while True:
        more = space.grow()
        steps = len(space.T) // space.width
        last = not more or steps >= max_steps
        if not last and steps < due:
            continue
        due = max(steps + 1, math.ceil(SPACING * steps))
        if not last and measured.newest(V) > SLACK * tolerance:
            continue
        space.complete_forms()
        found = measured.losses(V, own, averages.leading, len(space.T))
        values = measured.ritz_values
        if more:
            before = measured.losses(V, own, averages.leading, len(space.T) - space.width)
            estimate = max(float(np.max(abs(a - b))) for a, b in zip(found[:2], before[:2], strict=True))
        else:
            estimate = float(np.finfo(V.dtype).eps) * len(space.T)  # the whole space: nothing is left out but rounding
        if last or estimate <= tolerance:
            return KrylovCurves(*found, estimate, steps, values, estimate <= tolerance)


_apply = jax.jit(lambda V, g: jnp.matmul(V, g, precision=jax.lax.Precision.HIGHEST))


class _Measured:
    """Curves from the small matrices of a space, on the host."""

    def __init__(self, space: _Space, shares: np.ndarray, rule: Rule, clock: Any, kappa: float, d: int, rank: int, probed: bool) -> None:
        self.space, self.shares, self.rule, self.clock, self.kappa = space, shares, rule, clock, kappa
        self.d, self.rank, self.probed = d, rank, probed
        self.ritz_values, self.vectors = np.zeros(0), np.zeros((0, 0))

    def _ritz(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Ritz vectors in the basis, 0 where U has no rank, and f (T, M) at their values, which become `ritz_values`."""
        if size != len(self.vectors):
            self.ritz_values, self.vectors = np.linalg.eigh(self.space.T[:size, :size])
        values = self.ritz_values
        floor = np.sqrt(self.space.blocks[0].shape[0]) * np.finfo(self.space.blocks[0].dtype).eps * values[-1]
        dead = (values <= floor) | (np.arange(size) < size - self.rank)  # at rounding level, as in `gradient_flow`
        shape = np.zeros(2 ** math.ceil(math.log2(size)))  # few shapes, since each is compiled
        shape[:size] = np.where(dead, 0, values)
        with jax.enable_x64(True):
            f = np.asarray(self.rule.filter(jnp.asarray(shape), self.clock, self.kappa))[:, :size]
        return self.vectors * ~dead, f

    def newest(self, V: jax.Array) -> float:
        """(2/d) ‖X_new‖ ‖V‖ at a few times, X_new the part of X = f(U)V in the newest block: about what X changed by in the last step."""
        start, width = self.space.coordinates(V), self.space.width
        S, f = self._ritz(len(start))
        inner = S.T @ start
        chosen = np.unique(np.linspace(0, len(f) - 1, PROBED_TIMES).astype(int))
        parts = [S[-width:] @ (f[i][:, None] * inner) for i in chosen]
        scale = 2 / (self.d if not self.probed else self.d * start.shape[1]) * float(np.linalg.norm(start))
        return scale * max(float(np.linalg.norm(part)) for part in parts)

    def losses(self, V: jax.Array, own: list[jax.Array], leading: Any, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Train and test losses (T, K) on the leading part of the space, and their standard errors over probes."""
        S, f = self._ritz(size)
        k, space = len(self.shares), self.space
        start = S.T @ space.coordinates(V)[:size]
        slopes = [S.T @ space.coordinates(v)[:size] for v in own]
        rotated = [S.T @ form[:size, :size] @ S for form in space.forms]
        whole = np.diag(np.where(np.any(S != 0, axis=0), self.ritz_values, 0))
        rest = (whole - sum(w * r for w, r in zip(self.shares[1:], rotated[: k - 1], strict=True))) / self.shares[0]
        lead = np.concatenate([np.asarray(leading, np.float64), np.ones(k)])
        curves, errors = [], []
        for v, form, first in zip(slopes, [rest, *rotated], lead, strict=True):
            value, error = self._loss(start, v, form, f)
            curves.append(first + value)
            errors.append(error)
        train, test = np.stack(curves[:k], 1), np.stack(curves[k:], 1)
        return train, test, np.stack(errors[:k], 1), np.stack(errors[k:], 1)

    def _loss(self, start: np.ndarray, slope: np.ndarray, form: np.ndarray, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-(2/d) tr Vᵀ f V_c + (1/d) tr Vᵀ f U_c f V (T,): in one sum, or as a mean over probes with its standard error."""
        if not self.probed:
            overlap = np.einsum("ib,ib->i", slope, start)
            quadratic = np.einsum("ti,ti->t", f @ (form * (start @ start.T)), f)
            return (quadratic - 2 * f @ overlap) / self.d, np.zeros(len(f))
        solved = f[:, :, None] * start
        each = (np.einsum("tib,ij,tjb->tb", solved, form, solved, optimize=True) - 2 * np.einsum("tib,ib->tb", solved, slope)) / self.d
        count = each.shape[1]
        spread = each.std(1, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(f), np.nan)
        return each.mean(1), spread
