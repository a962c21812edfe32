"""Curves from a Krylov space: the solutions of all training times as combinations of a few, to which the class averages are applied."""

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.rules import Rule

PROBED_TIMES = 8


class Space(Protocol):
    """An orthonormal basis Q grown in blocks of `width` columns, with T = QᵀUQ (M, M) on its part that is known."""

    T: np.ndarray
    width: int

    def coordinates(self, X: jax.Array) -> np.ndarray:
        """QᵀX."""

    def vectors(self, C: np.ndarray) -> jax.Array:
        """Q C."""


class _Ritz(NamedTuple):
    """Ritz vectors S (M, M) in the basis, 0 where U has no rank; their values Θ (M,); f (T, M) at these; YᵀV (M, s)."""

    S: np.ndarray
    values: np.ndarray
    f: np.ndarray
    slope: np.ndarray


class _Solutions(NamedTuple):
    """X(τ) = Σ_j g_j(τ) X_j with g (T, r): coordinates C (M, r, s) of the X_j, their traces with the whole U, tr[X_jᵀUX_k] (s, r, r)."""

    g: np.ndarray
    C: np.ndarray
    whole: np.ndarray


@jax.jit
def _by_column(A: jax.Array, B: jax.Array) -> jax.Array:
    """(s, j, k) products Σ_p A_pjs B_pks."""
    return jnp.einsum("pjs,pks->sjk", A, B, precision=jax.lax.Precision.HIGHEST)


_times = jax.jit(lambda moment, X: moment.times(X))


class Measured:
    """Curves of a space that grows.

    Args:
        space: the space.
        V: (p, s) columns of V, or random combinations of them.
        rule, clock, kappa: training rule, its clock, κ.
        columns: what a sum over the s columns is divided by.
        rank: largest rank that U can have.
    """

    def __init__(self, space: Space, V: jax.Array, rule: Rule, clock: Any, kappa: float, columns: int, rank: int) -> None:
        self.space, self.V, self.rule, self.clock, self.kappa = space, V, rule, clock, kappa
        self.columns, self.rank, self._last = columns, rank, _Ritz(*(np.zeros((0, 0)),) * 4)

    @property
    def ritz_values(self) -> np.ndarray:
        """(M,) values of the newest look, ascending."""
        return np.linalg.eigvalsh(self.space.T) if self._last.S.shape[0] != len(self.space.T) else self._last.values

    def newest(self) -> float:
        """(2/d) ‖X_new‖ ‖V‖ at a few times, X_new the part of X in the newest block: about what X changed by in the last step."""
        found = self._ritz(len(self.space.T))
        parts = [found.S[-self.space.width :] @ (found.f[i][:, None] * found.slope) for i in self._some(found.f)]
        return self._scale(found) * max(float(np.linalg.norm(part)) for part in parts)

    def losses(
        self, averages: Any, own: list[jax.Array], shares: np.ndarray, trim: float, exhausted: bool
    ) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], float]:
        """Train and test losses (T, K), their standard errors over the columns, and the largest change by the last step.

        Args:
            averages: operators of the classes, and the leading terms of their train losses.
            own: V_c of the train and the test classes, or the same combinations of their columns as V's.
            shares: (K,) class fractions of the training set.
            trim: what the solutions may leave out, in units of the loss.
            exhausted: whether the space is invariant, so that nothing is left out but rounding.
        """
        k, found = len(shares), self._ritz(len(self.space.T))
        solutions = self._solutions(found, trim)
        some = self._some(found.f)
        changes = None if exhausted else self._changes(found, some)
        X = self._columns(solutions.C)
        D = None if changes is None else self._columns(changes)
        quadratic, cross = [], []  # of every class but the first, which is what the others leave of the whole
        for operator in (*averages.train[1:], *averages.test):
            image = _times(operator, X.reshape(X.shape[0], -1)).reshape(X.shape)
            quadratic.append(np.asarray(_by_column(X, image), np.float64))
            cross.append(None if D is None else np.asarray(_by_column(D, image), np.float64))
        whole = None
        if changes is not None:
            image = (self.space.T @ solutions.C.reshape(len(self.space.T), -1)).reshape(solutions.C.shape)
            whole = np.einsum("ijs,iks->sjk", changes, image, optimize=True)
        first = _rest(solutions.whole, quadratic[: k - 1], shares)
        forms, crosses = [first, *quadratic], [None if whole is None else _rest(whole, cross[: k - 1], shares), *cross]
        curves, errors, estimate = [], [], 0.0
        for v, form, mixed in zip(own, forms, crosses, strict=True):
            linear = np.asarray(_by_column(X, v[:, None]), np.float64)[:, :, 0]
            each = np.einsum("tj,sjk,tk->ts", solutions.g, form, solutions.g, optimize=True) - 2 * solutions.g @ linear.T
            curves.append(each.sum(1) / self.columns)
            errors.append(
                each.std(1, ddof=1) * math.sqrt(each.shape[1]) / self.columns if each.shape[1] > 1 else np.full(len(each), np.nan)
            )
            if D is not None and mixed is not None:
                moved = np.einsum("sij,ij->i", mixed, solutions.g[some]) - np.asarray(_by_column(D, v[:, None]), np.float64)[:, :, 0].sum(0)
                estimate = max(estimate, float(np.max(abs(moved))) * 2 / self.columns)
        if exhausted:
            estimate = float(np.finfo(self.V.dtype).eps) * len(self.space.T)
        train, test = np.stack(curves[:k], 1) + np.asarray(averages.leading, np.float64), 1 + np.stack(curves[k:], 1)
        return train, test, (np.stack(errors[:k], 1), np.stack(errors[k:], 1)), estimate

    def _ritz(self, size: int) -> _Ritz:
        """The Ritz pairs of the leading part of the space; values at rounding level are 0, as in `gradient_flow`."""
        if self._last.S.shape[0] == size:
            return self._last
        values, S = np.linalg.eigh(self.space.T[:size, :size])
        floor = np.sqrt(self.V.shape[0]) * np.finfo(self.V.dtype).eps * values[-1]
        dead = (values <= floor) | (np.arange(size) < size - self.rank)
        values, S = np.where(dead, 0, values), S * ~dead
        shape = np.pad(values, (0, 2 ** math.ceil(math.log2(size)) - size))  # few shapes, since each is compiled
        with jax.enable_x64(True):
            f = np.asarray(self.rule.filter(jnp.asarray(shape), self.clock, self.kappa))[:, :size]
        found = _Ritz(S, values, f, S.T @ self.space.coordinates(self.V)[:size])
        if size == len(self.space.T):
            self._last = found
        return found

    def _solutions(self, found: _Ritz, trim: float) -> _Solutions:
        """The X_j: singular vectors of f_τ(Θ_i) ‖(YᵀV)_i‖ over training times and Ritz values, down to what may be left out."""
        lengths = np.linalg.norm(found.slope, axis=1)
        left, sizes, right = np.linalg.svd(found.f * lengths, full_matrices=False)
        r = max(1, int(np.sum(self._scale(found) * sizes > trim)))
        h = right[:r] / np.where(lengths > 0, lengths, 1)
        C = np.stack([found.S @ (h[j][:, None] * found.slope) for j in range(r)], 1)
        whole = np.einsum("ji,ki,is->sjk", h, h * found.values, found.slope**2, optimize=True)
        return _Solutions(left[:, :r] * sizes[:r], C, whole)

    def _changes(self, found: _Ritz, some: np.ndarray) -> np.ndarray:
        """Coordinates (M, T', s) of what the last step changed X by, at a few times."""
        before = self._ritz(len(self.space.T) - self.space.width)
        new, old = (np.stack([part.S @ (part.f[i][:, None] * part.slope) for i in some], 1) for part in (found, before))
        new[: len(old)] -= old
        return new

    def _columns(self, C: np.ndarray) -> jax.Array:
        """Vectors (p, j, s) of coordinates (M, j, s)."""
        return self.space.vectors(C.reshape(len(C), -1)).reshape(-1, *C.shape[1:])

    def _scale(self, found: _Ritz) -> float:
        return 2 / self.columns * float(np.linalg.norm(found.slope))

    def _some(self, f: np.ndarray) -> np.ndarray:
        return np.unique(np.linspace(0, len(f) - 1, PROBED_TIMES).astype(int))


def _rest(whole: np.ndarray, others: list[Any], shares: np.ndarray) -> np.ndarray:
    """The form of the first class: U = Σ_c share_c U_c."""
    return (whole - sum(share * other for share, other in zip(shares[1:], others, strict=True))) / shares[0]
