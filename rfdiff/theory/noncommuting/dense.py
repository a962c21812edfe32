"""Covariances that do not commute: the closed system with matrices in the place of joint eigenvalues (docs/theory/spectrum.md, eq-blocks).

A commuting law close by, the surrogate, has the same neuron types. It starts Newton's method, brackets the support (its span is widened,
and widened again until f = 1 on the contour gives the known (1/d) tr[Vᵀ V_c]), and measures how fine the neuron types must be.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.machine_memory import machine_bytes
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.progress import Progress
from rfdiff.rules import Rule
from rfdiff.theory import solutions
from rfdiff.theory.contour import Span
from rfdiff.theory.equivalent import LEAST_WEIGHT, Equivalent
from rfdiff.theory.noncommuting import closed_system
from rfdiff.theory.noncommuting.blocks import directions_for
from rfdiff.theory.noncommuting.coupled_tail import CoupledTail
from rfdiff.theory.noncommuting.directions import ROWS_ELEMENTS, products
from rfdiff.theory.noncommuting.tail_coupling import TailCoupling
from rfdiff.theory.noncommuting.working_basis import Matrices, WorkingBasis, aligned_eigenvalues, basis_of
from rfdiff.theory.resolvent import unpack
from rfdiff.theory.support import FEW_CLASSES
from rfdiff.theory.traces import sandwich

PAIR_BYTES = 2**27
GROUPS, FEW_GROUPS = 24, 8  # of directions in the surrogate; with more classes each of them is dear
RESIDUAL_SHARE = 1e-4  # of the tolerance of curves, that the residual of a fixed point may be: it moves them by 1e-2 of itself
WIDENING = 1.3  # of the surrogate's support, on either side
START = 1e-8  # residual of the surrogate's solutions
CORE_SHARE = 0.1  # of the tolerance, left to the coupling of the tail


@dataclass
class Work:
    """Units of work done and expected, reported as they grow."""

    progress: Progress | None
    done: int = 0
    total: int = 0

    def expect(self, units: int) -> None:
        """Add units to come."""
        self.total += units

    def advance(self, units: int) -> None:
        """Report units as done."""
        self.done += units
        if self.progress is not None:
            self.progress(self.done, self.total)


def surrogate(problem: Problem) -> Problem:
    """The problem with the nearest commuting law in place of covariances that do not commute; any other problem as it is."""
    law = problem.mixture
    if law.commuting:
        return problem
    groups = GROUPS if law.num_classes <= FEW_CLASSES else FEW_GROUPS
    values, shares = aligned_eigenvalues(np.asarray(law.covariances), np.asarray(law.weights), groups)
    near = MixtureLaw(law.weights, values, shares, law.centroid_gram)
    return problem.with_mixture(near)


def widened(span: Span, rule: Rule, kappa: float) -> Span:
    """The surrogate's span, wide enough for most laws near it; not beyond where a discrete rule diverges."""
    low, high = span
    stable = rule.largest_stable_eigenvalue(kappa)
    return Span(low / WIDENING, min(high * WIDENING, max(math.sqrt(stable) * math.sqrt(high), high)))


@dataclass(frozen=True)
class Dense:
    """A problem made ready.

    Args:
        system: closed system.
        near: Gaussian equivalent of the surrogate.
        start: the same or one near it, whose solutions Newton's method starts from.
        neglected: estimate of what the tail leaves out.
    """

    system: closed_system.System
    near: Equivalent
    start: Equivalent
    neglected: float


def prepare(problem: Problem, near: Equivalent, tolerance: float) -> Dense:
    """Make a problem ready for its neuron types.

    Args:
        problem: with covariances.
        near: Gaussian equivalent of its surrogate.
        tolerance: error wanted in the curves; 0 keeps every direction in the core.
    """
    basis = basis_for(problem)
    return with_core(near, near, basis.matrices(basis.enough(CORE_SHARE * tolerance)))


def basis_for(problem: Problem) -> WorkingBasis:
    """The covariances of a problem in their working basis."""
    delta, law = float(noise_variance_of(problem.t)), problem.mixture
    return basis_of(np.asarray(law.covariances), np.asarray(law.weights), 1 - delta, delta)


def with_core(near: Equivalent, start: Equivalent, matrices: Matrices, outside: TailCoupling | None = None) -> Dense:
    """A problem made ready for its neuron types, with a core of some directions.

    Args:
        near: Gaussian equivalent of its surrogate.
        start: as in `Dense`.
        matrices: core and tail of its covariances.
        outside: the elements outside the core, to second order; None to leave them out.
    """
    delta, linear, weights = float(near.noise_variance), np.asarray(near.linear), np.asarray(near.loss_weights)
    # the blocks of several neuron types divide by the weight of each class
    weighted = Equivalent(**{**vars(near), "loss_weights": np.maximum(weights, LEAST_WEIGHT)})
    directions = directions_for(matrices, linear, delta) if outside is None else CoupledTail(matrices, delta, outside)
    return Dense(closed_system.system_for(weighted, directions), near, start, matrices.neglected)


def spectra(dense: Dense, problem: Problem) -> Equivalent:
    """The Gaussian equivalent with each class's own spectrum: right for norms, not for anything that joins two classes."""
    law, signal = problem.mixture, 1 - float(dense.near.noise_variance)
    fields = {**vars(dense.near), "eigenvalues": signal * law.eigenvalues, "group_weights": law.eigenvalue_weights}
    return Equivalent(**fields)


def solve(
    dense: Dense,
    z: np.ndarray,
    start: tuple[ArrayLike, ArrayLike] | None,
    work: Work,
    residual: float = closed_system.NEWTON_TOLERANCE,
) -> closed_system.PointSolutions:
    """One-point solutions at Z points of the upper half-plane, from those of the surrogate, or from (δ, H) given.

    Args:
        dense: a problem made ready.
        z: (Z,) points; neighbours stand beside each other.
        start: (Z, …) δ and H to start from; None for those of the surrogate.
        work: told of each finished point.
        residual: of the fixed point, relative, at which a point is solved.

    Raises:
        InputError: more memory is needed than the machine has.
    """
    check_memory(dense, len(z))
    work.expect(len(z) + dense.system.directions.matrices.core.shape[1])  # the points, and the rows of their products
    if start is None:
        near = dense.start
        surrogates = solutions.along(near, z[None], None, START, 400)  # a start for Newton's method, no more
        start = unpack(jnp.asarray(surrogates.u), near.kind_weights.shape[0], near.linear.shape[1])
    return closed_system.solve(dense.system, z, closed_system.start_from(dense.system, *start), work.advance, residual)


_sandwich = jax.jit(sandwich)


def second_traces(dense: Dense, solved: closed_system.PointSolutions, work: Work) -> jax.Array:
    """t2 (2, K, Z, 2Z): train and test, for all pairs of points with points and their conjugates (docs/theory/curves.md, eq-traces)."""
    system, count = dense.system, len(solved.nodes)
    k, eq = system.shape[1], system.eq
    gamma = products(system.directions, solved.nodes, work.advance)
    units, zeros = np.eye(k), np.zeros((k, k))
    theta = np.concatenate([units, zeros])
    signal, noise = np.concatenate([zeros, units]), np.concatenate([units * eq.deterministic, units])
    base, features = gamma.shape[-1] + 1, system.features.shape[1]
    row_bytes = 16 * 2 * count * (7 * base * max(base, features) + 2 * len(system.features))
    block = max(1, PAIR_BYTES // row_bytes)
    whole = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf.conj()])[None, :, None], solved.point)
    both, pieces = closed_system.sides(system, solved), []
    for start in range(0, count, block):
        rows, later = slice(start, min(start + block, count)), np.arange(start, count)
        cols = np.concatenate([later, count + later])  # pairs with earlier points are mirrors of theirs
        found = closed_system.responses(system, solved, both, rows, cols, gamma[rows][:, cols], theta, signal, noise)
        delta, Y = (_placed(x, cols, 2 * count) for x in found)  # of one shape, so that one program serves all rows
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows, None, None], solved.point)
        pieces.append(np.asarray(-_sandwich(eq, part, whole, jnp.asarray(delta), jnp.asarray(theta[:, None]), jnp.asarray(Y))))
    traces = np.moveaxis(np.concatenate(pieces), -1, 0).reshape(2, k, count, 2 * count)
    return jnp.asarray(_mirrored(traces, block))


def _placed(values: np.ndarray, cols: np.ndarray, size: int) -> np.ndarray:
    """(R, size, …) with values (R, C, …) at some columns, 0 elsewhere."""
    whole = np.zeros((values.shape[0], size, *values.shape[2:]), values.dtype)
    whole[:, cols] = values
    return whole


def _mirrored(traces: np.ndarray, block: int) -> np.ndarray:
    """t2 (…, Z, 2Z) of all pairs from those with no point before the block of rows: t2 is symmetric, and conjugate at conjugate points."""
    count = traces.shape[-2]
    same, conjugate = traces[..., :count], traces[..., count:]
    before = np.arange(count) < block * (np.arange(count) // block)[:, None]
    mirrors = np.swapaxes(same, -1, -2), np.swapaxes(conjugate, -1, -2).conj()
    return np.concatenate([np.where(before, *pair) for pair in zip(mirrors, (same, conjugate), strict=True)], -1)


def fits(dense: Dense, count: int) -> bool:
    """Whether this machine has the memory for `count` points, where it can be told."""
    available = machine_bytes()
    return available is None or memory_bytes(dense, count) <= available


def check_memory(dense: Dense, count: int) -> None:
    """Refuse what does not fit, before it is tried.

    Raises:
        InputError: naming the memory that `count` points need, and what there is.
    """
    need, available = memory_bytes(dense, count), machine_bytes()
    if available is not None and not fits(dense, count):
        r, k = dense.system.directions.matrices.core.shape[1], dense.system.shape[1]
        raise InputError(
            f"mixture: {k} classes whose covariances do not commute, with {r} coupled directions, need about {need / 2**30:.3g} GiB "
            f"for {count} contour nodes, of {available / 2**30:.3g} GiB of memory; allowed: a larger tolerance, which couples fewer "
            "directions and takes fewer nodes, fewer classes, or centred ones"
        )


def memory_bytes(dense: Dense, count: int) -> int:
    """Estimated peak memory of `count` points: their matrices, the rows in work, LAPACK's copies of one, and what neuron types weigh."""
    directions = dense.system.directions
    base = dense.system.shape[1] ** 2 + 1
    rows = 5 * 16 * base * count * ROWS_ELEMENTS
    of_types = 2 * dense.system.feature_pairs.nbytes
    return count * directions.node_bytes() + rows + directions.work_bytes() + of_types + 2 * PAIR_BYTES
