"""Curves from a Krylov space: the class averages on its basis, and the filters at its Ritz values.

The entries of U are rounded independently, by about ε of their root mean square, ‖U‖_F/p. Such errors move an eigenvalue by at most
2 √p of that, far less than √p ε of the largest: small eigenvalues beside large ones survive in float32.
"""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.rules import Clock, Rule
from rfdiff.simulation.moment_operators import Moment

PROBED_TIMES = 8
ENTRY_ROUNDING = 4.0  # of an entry of U, in ε times the root mean square of its entries
SUMMED = 2048.0  # terms of an entry of U X whose rounding is as large as that
BASIS_ROUNDING = 2.0  # of an entry of QᵀQ, in ε
DRAW_MARGIN = 3.0  # over the largest change of a loss by one draw of these errors


class Averages(NamedTuple):
    """Operators of one network: of the whole training set, of each of its classes, of the tested classes; and (1/d) E_c‖ξ‖² (K,)."""

    mixture: Moment
    train: tuple[Moment, ...]
    test: tuple[Moment, ...]
    untrained_loss: Float[np.ndarray, " K"] | Float[Array, " K"]


class Space(Protocol):
    """An orthonormal basis Q grown in blocks of `width` columns, with T = QᵀUQ (M, M) of its leading M columns."""

    T: np.ndarray
    width: int

    def coordinates(self, X: Float[Array, "p b"]) -> Float[np.ndarray, "M b"]:
        """QᵀX."""

    def basis(self) -> Float[Array, "p M"]:
        """Q."""


class RitzLosses(NamedTuple):
    """Losses on a Krylov space, and what they may be off by (T times, K classes).

    Args:
        train_loss, test_loss: (T, K) losses.
        train_stderr, test_stderr: (T, K) standard errors over random probes; 0 without probes.
        change: largest change of a loss by the last step.
        rounding: largest change of a loss by a draw of all roundings, with a margin, and by the eigenvalues below them, which are left
            out. Late times, where small eigenvalues count, feel both.
    """

    train_loss: Float[np.ndarray, "T K"]
    test_loss: Float[np.ndarray, "T K"]
    train_stderr: Float[np.ndarray, "T K"]
    test_stderr: Float[np.ndarray, "T K"]
    change: float
    rounding: float


class _RitzPairs(NamedTuple):
    """Ritz vectors S (M, M) in the basis, 0 where U has no rank; their values Θ (M,); f (T, M) at these; YᵀV (M, s), Y = QS."""

    S: Float[np.ndarray, "M M"]
    values: Float[np.ndarray, " M"]
    f: Float[np.ndarray, "T M"]
    V: Float[np.ndarray, "M s"]


class _ClassMoments(NamedTuple):
    """Moments of the train classes, then the test classes, in one basis: matrices (M, M) of U_c and columns (M, s) of V_c."""

    U: list[Float[np.ndarray, "M M"]]
    V: list[Float[np.ndarray, "M s"]]


_half_times = jax.jit(lambda moment, X: moment.half_times(X))


class RitzCurves:
    """Curves of a space that grows.

    Args:
        space: the space.
        V: (p, s) columns of V, or random combinations of them.
        rule, clock, kappa: training rule, its clock, κ.
        d: dimension, over which a trace is divided.
        probed: whether V holds random combinations, each of which estimates the trace without bias.
        rank: largest rank that U can have.
    """

    def __init__(
        self, space: Space, V: Float[Array, "p s"], rule: Rule, clock: Clock, kappa: float, d: int, probed: bool, rank: int
    ) -> None:
        self.space, self.V, self.rule, self.clock, self.kappa = space, V, rule, clock, kappa
        self.d, self.probed, self.rank, self._latest = d, probed, rank, _RitzPairs(*(np.zeros((0, 0)),) * 4)

    @property
    def ritz_values(self) -> Float[np.ndarray, " M"]:
        """(M,) Ritz values of the newest space looked at, ascending."""
        return self._latest.values

    def last_step_change(self) -> float:
        """(2/d) ‖X_new‖ ‖V‖ at a few times, X_new the rows of X = f(U) V in the newest block: about the change of X by the last step."""
        ritz = self._ritz_pairs(len(self.space.T))
        times = np.unique(np.linspace(0, len(ritz.f) - 1, PROBED_TIMES).astype(int))
        rows = [ritz.S[-self.space.width :] @ (ritz.f[i][:, None] * ritz.V) for i in times]
        scale = 2 / (self.d * (ritz.V.shape[1] if self.probed else 1)) * float(np.linalg.norm(ritz.V))
        return scale * max(float(np.linalg.norm(block)) for block in rows)

    def losses(self, averages: Averages, class_V: list[jax.Array], shares: Float[np.ndarray, " K"], exhausted: bool) -> RitzLosses:
        """Train and test losses with their errors.

        Args:
            averages: operators of the classes, and the untrained train losses.
            class_V: V_c of the train and the test classes, or the same combinations of their columns as V's.
            shares: (K,) weights of the classes in the training loss.
            exhausted: whether the space is invariant, so that the only error is rounding.
        """
        space, k = self.space, len(shares)
        Q = space.basis()
        applied = [operator for c, operator in enumerate(averages.train) if c != _remaining(shares)]
        halves = [space.coordinates(_half_times(operator, Q)) for operator in (*applied, *averages.test)]
        on_basis = _ClassMoments([half + half.T for half in halves], [space.coordinates(V_c) for V_c in class_V])
        untrained = np.concatenate([np.asarray(averages.untrained_loss, np.float64), np.ones(k)])

        def losses_on(ritz: _RitzPairs, moments: _ClassMoments) -> tuple[np.ndarray, np.ndarray]:
            values, errors = zip(*(self._loss(ritz, V_c, U_c) for V_c, U_c in zip(moments.V, moments.U, strict=True)), strict=True)
            return np.stack(values, 1) + untrained, np.stack(errors, 1)

        ritz = self._ritz_pairs(len(space.T))
        rotated = _rotated(ritz, on_basis, shares)
        losses, stderr = losses_on(ritz, rotated)
        change = 0.0
        if not exhausted:
            smaller = self._ritz_pairs(len(space.T) - space.width)
            before, _ = losses_on(smaller, _rotated(smaller, on_basis, shares))
            change = float(np.max(abs(losses - before)))
        live = ritz.values > 0
        turned, noisy = self._disturbed(ritz, on_basis, shares)
        rounding = DRAW_MARGIN * float(np.max(abs(losses - losses_on(turned, noisy)[0])))
        # what the entries of the diagonal have in common shifts every eigenvalue alike
        common = ENTRY_ROUNDING * self._eps * float(np.sum(ritz.values)) / self.V.shape[0]
        shifted, _ = losses_on(ritz._replace(f=self._filter(np.where(live, ritz.values + common, 0))), rotated)
        rounding += float(np.max(abs(losses - shifted))) + ENTRY_ROUNDING * self._eps * float(np.max(abs(losses)))
        whole = self._ritz_pairs(len(space.T), drowned=True)
        if np.any((whole.values > 0) & ~live):  # at late times what drowns in rounding may matter: it is an error then
            undrowned, _ = losses_on(whole, _rotated(whole, on_basis, shares))
            rounding += float(np.max(abs(losses - undrowned)))
        return RitzLosses(losses[:, :k], losses[:, k:], stderr[:, :k], stderr[:, k:], change, rounding)

    def _loss(
        self, ritz: _RitzPairs, V_c: Float[np.ndarray, "M s"], U_c: Float[np.ndarray, "M M"]
    ) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
        """-(2/d) tr Vᵀ f V_c + (1/d) tr Vᵀ f U_c f V (T,): in one sum, or as a mean over probes with its standard error."""
        f, V = ritz.f, ritz.V
        if not self.probed:
            overlap = np.einsum("ib,ib->i", V_c, V)
            quadratic = np.einsum("ti,ti->t", f @ (U_c * (V @ V.T)), f)
            return (quadratic - 2 * f @ overlap) / self.d, np.zeros(len(f))
        X = f[:, :, None] * V
        each = (np.einsum("tib,ij,tjb->tb", X, U_c, X, optimize=True) - 2 * np.einsum("tib,ib->tb", X, V_c)) / self.d
        return each.mean(1), each.std(1, ddof=1) / np.sqrt(each.shape[1])

    def _ritz_pairs(self, size: int, drowned: bool = False) -> _RitzPairs:
        """The Ritz pairs of the leading `size` columns; values at rounding level are 0, as in `gradient_flow`.

        Args:
            size: columns.
            drowned: keep the values at rounding level that are positive.
        """
        if self._latest.S.shape[0] == size and not drowned:
            return self._latest
        values, S = np.linalg.eigh(self.space.T[:size, :size])
        least = 0.0 if drowned else self._norm_of_rounding(values)
        dead = (values <= least) | (np.arange(size) < size - self.rank)
        values, S = np.where(dead, 0, values), S * ~dead
        ritz = _RitzPairs(S, values, self._filter(values), S.T @ self.space.coordinates(self.V)[:size])
        if size == len(self.space.T) and not drowned:
            self._latest = ritz
        return ritz

    def _filter(self, values: Float[np.ndarray, " M"]) -> Float[np.ndarray, "T M"]:
        """f (T, M) at some values."""
        padded = np.pad(values, (0, 2 ** math.ceil(math.log2(len(values))) - len(values)))  # few shapes, since each is compiled
        with jax.enable_x64(True):
            return np.asarray(self.rule.filter(jnp.asarray(padded), self.clock, self.kappa))[:, : len(values)]

    def _disturbed(self, ritz: _RitzPairs, moments: _ClassMoments, shares: Float[np.ndarray, " K"]) -> tuple[_RitzPairs, _ClassMoments]:
        """Ritz pairs, and the moments in them, with one draw of every rounding: of U, U_c, V, V_c and of the orthogonality QᵀQ = 1."""
        rng, entry, live = np.random.default_rng(0), self._entry_rounding(ritz.values), ritz.values > 0
        column = ENTRY_ROUNDING * self._eps * float(np.linalg.norm(ritz.V)) / math.sqrt(self.V.size)
        size, count = len(live), int(np.sum(live))
        tilt = np.eye(size) - _symmetric(rng, BASIS_ROUNDING * self._eps / 2, size)
        inner = ritz.S.T[live] @ tilt @ ritz.S[:, live]
        found, turn = np.linalg.eigh(inner @ np.diag(ritz.values[live]) @ inner + _symmetric(rng, entry, count))
        values, S, V = ritz.values.copy(), ritz.S.copy(), ritz.V.copy()
        values[live] = np.maximum(found, np.min(ritz.values[live], initial=np.inf) / 2)
        S[:, live] = ritz.S[:, live] @ turn
        V[live] = turn.T @ (inner @ ritz.V[live] + rng.normal(0.0, column, (count, V.shape[1])))
        U_noisy = [tilt @ U_c @ tilt + _symmetric(rng, entry, size) for U_c in moments.U]
        V_noisy = [tilt @ V_c[:size] + rng.normal(0.0, column, (size, V.shape[1])) for V_c in moments.V]
        turned = _RitzPairs(S, values, self._filter(values), V)
        return turned, _rotated(turned, _ClassMoments(U_noisy, V_noisy), shares)

    @property
    def _eps(self) -> float:
        return float(np.finfo(self.V.dtype).eps)

    def _entry_rounding(self, values: Float[np.ndarray, " M"]) -> float:
        """Standard deviation of the rounding of an entry of U in any orthonormal basis, from its Ritz values.

        An entry is a sum of many terms of its own size, and so is each entry of U X, whose rounding acts like one of U.
        """
        p = self.V.shape[0]
        return ENTRY_ROUNDING * math.sqrt(1 + p / SUMMED) * self._eps * float(np.linalg.norm(values)) / p

    def _norm_of_rounding(self, values: Float[np.ndarray, " M"]) -> float:
        """Norm 2 √p of a symmetric (p, p) matrix of independent errors of this size: no eigenvalue below is known."""
        return 2 * math.sqrt(self.V.shape[0]) * self._entry_rounding(values)


def _symmetric(rng: np.random.Generator, deviation: float, size: int) -> Float[np.ndarray, "size size"]:
    """A symmetric matrix of independent Gaussian entries of one standard deviation, √2 of it on the diagonal."""
    half = rng.normal(0.0, deviation / math.sqrt(2), (size, size))
    return half + half.T


def _remaining(shares: Float[np.ndarray, " K"]) -> int:
    """The train class that needs no operator, for the others add up with it to U: the one of the largest share."""
    return int(np.argmax(shares))


def _rotated(ritz: _RitzPairs, moments: _ClassMoments, shares: Float[np.ndarray, " K"]) -> _ClassMoments:
    """YᵀU_cY of every train and test class, and YᵀV_c; U of the train class of the largest share is what the others leave of Θ."""
    size, k, remaining = len(ritz.values), len(shares), _remaining(shares)
    U = [ritz.S.T @ U_c[:size, :size] @ ritz.S for U_c in moments.U]
    rest = np.diag(ritz.values) - sum(share * U_c for share, U_c in zip(np.delete(shares, remaining), U[: k - 1], strict=True))
    U.insert(remaining, rest / shares[remaining])
    return _ClassMoments(U, [ritz.S.T @ V_c[:size] for V_c in moments.V])
