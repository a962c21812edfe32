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
def _rest(block: jax.Array, own: jax.Array) -> jax.Array:
    return block - jnp.matmul(own, _inner(own, block), precision=jax.lax.Precision.HIGHEST)


def _remove(block: jax.Array, own: jax.Array) -> jax.Array:
    """The block without its components along another. On several devices it is waited for: a CPU's pool has a thread for each device, and
    one that waits to launch the 33rd program on its device is missing where the others wait for that device's part of a sum.
    """
    rest = _rest(block, own)
    return rest.block_until_ready() if len(rest.devices()) > 1 else rest


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
    previous: np.ndarray | None = None
    due = FIRST_CHECK
    while True:
        more = space.grow()
        steps = len(space.T) // space.width
        change, previous = measured.change(V, previous)
        last = not more or steps >= max_steps
        if not last and (steps < due or change > SLACK * tolerance):
            continue
        due = steps + 2
        space.complete_forms()
        found = measured.losses(V, own, averages.leading, len(space.T))
        if more:
            before = measured.losses(V, own, averages.leading, len(space.T) - space.width)
            estimate = max(float(np.max(abs(a - b))) for a, b in zip(found[:2], before[:2], strict=True))
        else:
            estimate = float(np.finfo(V.dtype).eps) * len(space.T)  # the whole space: nothing is left out but rounding
        if last or estimate <= tolerance:
            values = np.linalg.eigvalsh(space.T)
            return KrylovCurves(*found, estimate, steps, values, estimate <= tolerance)


_apply = jax.jit(lambda V, g: jnp.matmul(V, g, precision=jax.lax.Precision.HIGHEST))


class _Measured:
    """Curves from the small matrices of a space, on the host."""

    def __init__(self, space: _Space, shares: np.ndarray, rule: Rule, clock: Any, kappa: float, d: int, rank: int, probed: bool) -> None:
        self.space, self.shares, self.rule, self.clock, self.kappa = space, shares, rule, clock, kappa
        self.d, self.rank, self.probed = d, rank, probed

    def _ritz(self, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (M,), their vectors in the basis, and f (T, M); values at rounding level are 0, as in `gradient_flow`."""
        values, S = np.linalg.eigh(self.space.T[:size, :size])
        floor = np.sqrt(self.space.blocks[0].shape[0]) * np.finfo(self.space.blocks[0].dtype).eps * values[-1]
        dead = (values <= floor) | (np.arange(size) < size - self.rank)
        values = np.where(dead, 0, values)
        with jax.enable_x64(True):
            f = np.asarray(self.rule.filter(jnp.asarray(values), self.clock, self.kappa))
        return np.where(dead, 0, values), S * ~dead, f

    def change(self, V: jax.Array, before: np.ndarray | None) -> tuple[float, np.ndarray]:
        """(2/d) ‖ΔX‖ ‖V‖ at a few times, ΔX the change of X = f(U)V by the last step; and X's coordinates."""
        size = len(self.space.T)
        _, S, f = self._ritz(size)
        start = self.space.coordinates(V)
        chosen = np.unique(np.linspace(0, len(f) - 1, PROBED_TIMES).astype(int))
        now = np.stack([S @ (f[i][:, None] * (S.T @ start)) for i in chosen])
        if before is None:
            return np.inf, now
        change = now.copy()
        change[:, : before.shape[1]] -= before
        scale = 2 / (self.d if not self.probed else self.d * start.shape[1]) * float(np.linalg.norm(start))
        return scale * float(np.max(np.linalg.norm(change, axis=(1, 2)))), now

    def losses(self, V: jax.Array, own: list[jax.Array], leading: Any, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Train and test losses (T, K) on the leading part of the space, and their standard errors over probes."""
        values, S, f = self._ritz(size)
        k, space = len(self.shares), self.space
        start = S.T @ space.coordinates(V)[:size]
        slopes = [S.T @ space.coordinates(v)[:size] for v in own]
        rotated = [S.T @ form[:size, :size] @ S for form in space.forms]
        rest = (np.diag(values) - sum(w * r for w, r in zip(self.shares[1:], rotated[: k - 1], strict=True))) / self.shares[0]
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
