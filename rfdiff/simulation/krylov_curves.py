"""Curves from a Krylov space: the class averages on its basis, and the filters at its Ritz values."""

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

    def basis(self) -> jax.Array:
        """Q."""


class _Ritz(NamedTuple):
    """Ritz vectors S (M, M) in the basis, 0 where U has no rank; their values Θ (M,); f (T, M) at these; YᵀV (M, s)."""

    S: np.ndarray
    values: np.ndarray
    f: np.ndarray
    slope: np.ndarray


_half = jax.jit(lambda moment, X: moment.half_times(X))


class Measured:
    """Curves of a space that grows.

    Args:
        space: the space.
        V: (p, s) columns of V, or random combinations of them.
        rule, clock, kappa: training rule, its clock, κ.
        d: dimension, over which a trace is divided.
        probed: whether V holds random combinations, each of which gives the trace in the mean.
        rank: largest rank that U can have.
    """

    def __init__(self, space: Space, V: jax.Array, rule: Rule, clock: Any, kappa: float, d: int, probed: bool, rank: int) -> None:
        self.space, self.V, self.rule, self.clock, self.kappa = space, V, rule, clock, kappa
        self.d, self.probed, self.rank, self._last = d, probed, rank, _Ritz(*(np.zeros((0, 0)),) * 4)

    @property
    def ritz_values(self) -> np.ndarray:
        """(M,) values of the newest look, ascending."""
        return self._last.values

    def newest(self) -> float:
        """(2/d) ‖X_new‖ ‖V‖ at a few times, X_new the part of X in the newest block: about what X changed by in the last step."""
        found = self._ritz(len(self.space.T))
        chosen = np.unique(np.linspace(0, len(found.f) - 1, PROBED_TIMES).astype(int))
        parts = [found.S[-self.space.width :] @ (found.f[i][:, None] * found.slope) for i in chosen]
        scale = 2 / (self.d * (found.slope.shape[1] if self.probed else 1)) * float(np.linalg.norm(found.slope))
        return scale * max(float(np.linalg.norm(part)) for part in parts)

    def losses(
        self, averages: Any, own: list[jax.Array], shares: np.ndarray, exhausted: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, float]:
        """Train and test losses (T, K), their standard errors over probes; the largest change of a loss by the last step, and by
        a rounding of U, to which small eigenvalues at late times are sensitive.

        Args:
            averages: operators of the classes, and the leading terms of their train losses.
            own: V_c of the train and the test classes, or the same combinations of their columns as V's.
            shares: (K,) class fractions of the training set.
            exhausted: whether the space is invariant, so that nothing is left out but rounding.
        """
        size, space = len(self.space.T), self.space
        Q = space.basis()
        forms = []
        for operator in (*averages.train[1:], *averages.test):
            form = space.coordinates(_half(operator, Q))
            forms.append(form + form.T)
        slopes = [space.coordinates(v) for v in own]
        leading = np.concatenate([np.asarray(averages.leading, np.float64), np.ones(len(shares))])
        ritz = self._ritz(size)
        turned = self._turned(ritz, forms, slopes, shares)
        found = self._on(ritz, *turned, leading)
        change = 0.0
        if not exhausted:
            smaller = self._ritz(size - space.width)
            before = self._on(smaller, *self._turned(smaller, forms, slopes, shares), leading)
            change = float(np.max(abs(found[0] - before[0])))
        moved = ritz._replace(f=self._filter(np.where(ritz.values > 0, ritz.values + self._rounding(ritz.values[-1]), 0)))
        shifted = self._on(moved, *turned, leading)
        rounding = float(np.max(abs(found[0] - shifted[0]))) + size * float(np.finfo(self.V.dtype).eps * np.max(abs(found[0])))
        k = len(shares)
        return found[0][:, :k], found[0][:, k:], found[1][:, :k], found[1][:, k:], change, rounding

    def _turned(
        self, ritz: _Ritz, forms: list[np.ndarray], slopes: list[np.ndarray], shares: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """YᵀU_cY of every train and test class, and YᵀV_c."""
        size, k = len(ritz.values), len(shares)
        rotated = [ritz.S.T @ form[:size, :size] @ ritz.S for form in forms]
        first = np.diag(ritz.values) - sum(share * form for share, form in zip(shares[1:], rotated[: k - 1], strict=True))
        return [first / shares[0], *rotated], [ritz.S.T @ slope[:size] for slope in slopes]

    def _on(self, ritz: _Ritz, forms: list[np.ndarray], slopes: list[np.ndarray], leading: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses (T, 2K) of train and test classes on Ritz vectors, and their standard errors."""
        values, errors = zip(*(self._loss(ritz, slope, form) for slope, form in zip(slopes, forms, strict=True)), strict=True)
        return np.stack(values, 1) + leading, np.stack(errors, 1)

    def _loss(self, found: _Ritz, slope: np.ndarray, form: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """-(2/d) tr Vᵀ f V_c + (1/d) tr Vᵀ f U_c f V (T,): in one sum, or as a mean over probes with its standard error."""
        f, start = found.f, found.slope
        if not self.probed:
            overlap = np.einsum("ib,ib->i", slope, start)
            quadratic = np.einsum("ti,ti->t", f @ (form * (start @ start.T)), f)
            return (quadratic - 2 * f @ overlap) / self.d, np.zeros(len(f))
        solved = f[:, :, None] * start
        each = (np.einsum("tib,ij,tjb->tb", solved, form, solved, optimize=True) - 2 * np.einsum("tib,ib->tb", solved, slope)) / self.d
        return each.mean(1), each.std(1, ddof=1) / np.sqrt(each.shape[1])

    def _ritz(self, size: int) -> _Ritz:
        """The Ritz pairs of the leading part of the space; values at rounding level are 0, as in `gradient_flow`."""
        if self._last.S.shape[0] == size:
            return self._last
        values, S = np.linalg.eigh(self.space.T[:size, :size])
        dead = (values <= np.sqrt(self.V.shape[0]) * self._rounding(values[-1])) | (np.arange(size) < size - self.rank)
        values, S = np.where(dead, 0, values), S * ~dead
        found = _Ritz(S, values, self._filter(values), S.T @ self.space.coordinates(self.V)[:size])
        if size == len(self.space.T):
            self._last = found
        return found

    def _filter(self, values: np.ndarray) -> np.ndarray:
        """f (T, M) at some values."""
        padded = np.pad(values, (0, 2 ** math.ceil(math.log2(len(values))) - len(values)))  # few shapes, since each is compiled
        with jax.enable_x64(True):
            return np.asarray(self.rule.filter(jnp.asarray(padded), self.clock, self.kappa))[:, : len(values)]

    def _rounding(self, largest: float) -> float:
        """Of the eigenvalues, ε times the largest."""
        return float(np.finfo(self.V.dtype).eps * largest)
