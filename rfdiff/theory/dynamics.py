"""Per-class learning curves at all training times, by contour integrals of the two-point function (`equations`, section 5)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import GradientFlow, Ridge, Rule, check_stability
from rfdiff.theory import resolvent
from rfdiff.theory.contour import Contour, ellipse, integrate
from rfdiff.theory.density import FEW_CLASSES, atoms, bounds, extent, support
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.neuron_types import (
    LATTICE_RANK,
    SCRAMBLES,
    SOBOL_LEVELS,
    SOBOL_RATE,
    SOBOL_REACH,
    STUDENT,
    gram_root,
    levels,
    refined_error,
)
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.resolvent import Point
from rfdiff.theory.traces import one_trace, two_trace, two_trace_of_pairs

LEAST = 256  # neuron types: enough for the first two levels of two classes, which then share one program
BLOCK_BYTES = 2**28
PAIR_BLOCK = 256
RESIDUAL = 1e-9  # of the fixed point, relative, above which a node has failed
SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
HALF_HEIGHTS = (np.pi / 4, 0.5, 0.3, 0.15)


class _Values(NamedTuple):
    """Train and test losses (T, K), the error of half the contour, the share of V it does not enclose, the fixed point's residual."""

    train: Any
    test: Any
    error: Any
    missing: Any
    residual: Any


class _Nodes(NamedTuple):
    """Solutions on the upper half of a contour, w f (T, Z) there, first integrals T1 (2, T, K) with errors, missing share, residual."""

    point: Point
    weighted: Any
    first: Any
    error: Any
    missing: Any
    residual: Any


@jax.jit
def _at_nodes(eq: Equivalent, contour: Contour, clock: Any, kappa: Any, rule: Rule, initial: Any = None) -> _Nodes:
    solution = resolvent.solve(eq, jnp.asarray(contour.nodes), initial)
    return _first_integrals(eq, contour, solution.point, solution.residual, clock, kappa, rule)


@jax.jit
def _first_integrals(eq: Equivalent, contour: Contour, point: Point, residual: Any, clock: Any, kappa: Any, rule: Rule) -> _Nodes:
    nodes, weights = jnp.asarray(contour.nodes), jnp.asarray(contour.weights)
    weighted = rule.filter(nodes, clock, kappa) * weights
    traces = jnp.stack(one_trace(eq, point))
    first, error = integrate(-weighted[:, None] * jnp.swapaxes(traces, 1, 2)[:, None])
    # f = 1 gives (1/d) tr[Vᵀ V_c], which is known: what the contour leaves out shows here
    overlap = eq.noise_variance * eq.psi_p * jnp.einsum("j,ja,a,jc->c", eq.type_weights, eq.linear, eq.class_weights, eq.linear)
    missing = jnp.max(abs(integrate(-weights * traces[1].T)[0] / overlap - 1))
    return _Nodes(point, weighted, first, jnp.max(abs(error)), missing, jnp.max(residual))


@jax.jit
def _over_pairs(eq: Equivalent, rows: Point, upper: Point, weighted_rows: jax.Array, weighted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Second integrals T2 (2, T, K) over some rows z1 and all z2, with the (signed) errors of half the rows."""
    whole = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf.conj()]), upper)
    return _second_integrals(jnp.stack(two_trace(eq, rows, whole)), weighted_rows, weighted)


def _second_integrals(traces: jax.Array, weighted_rows: jax.Array, weighted: jax.Array) -> tuple[jax.Array, jax.Array]:
    double = jnp.concatenate([weighted, weighted.conj()], 1)
    return integrate(weighted_rows[:, None] * jnp.einsum("skij,tj->stki", traces, double))


def _evaluate(eq: Equivalent, contour: Contour, clock: Any, kappa: Any, rule: Rule) -> _Values:
    """Losses from one contour; pairs in blocks of rows that keep the products of the neuron types below `BLOCK_BYTES`."""
    at = _at_nodes(eq, contour, clock, kappa, rule)
    if at.residual > RESIDUAL:
        # near p = n m the smallest nodes are out of reach of the free resolvent: approach each from far out along its ray
        u = None
        for scale in resolvent.RAY:
            p = resolvent.solve_jit(eq, contour.nodes * scale, u, 1e-10, 60).point
            u = resolvent.pack(p.delta, p.H)
        at = _at_nodes(eq, contour, clock, kappa, rule, u)
    second, error = (_over_rows if eq.linear.shape[1] <= FEW_CLASSES else _over_half)(eq, at)
    losses = 1 - 2 * np.asarray(at.first) + second
    return _Values(losses[0], losses[1], float(2 * at.error + 2 * np.max(abs(error))), float(at.missing), float(at.residual))


def _over_rows(eq: Equivalent, at: _Nodes) -> tuple[np.ndarray, np.ndarray]:
    """Second integrals and errors over all pairs, in blocks of rows that keep the products of the neuron types below `BLOCK_BYTES`."""
    rows, features = at.weighted.shape[1], resolvent.type_features(eq).shape[1]
    row_bytes = 16 * features**2 * (eq.type_weights.size + 8 * rows)
    block = next((b for b in range(rows, 2, -2) if rows % b == 0 and b * row_bytes <= BLOCK_BYTES), 2)
    second, error = np.zeros(at.first.shape), np.zeros(at.first.shape)
    for start in range(0, rows, block):
        part = jax.tree.map(lambda leaf, start=start: leaf[start : start + block], at.point)
        value, missed = _over_pairs(eq, part, at.point, at.weighted[:, start : start + block], at.weighted)
        second, error = second + np.asarray(value), error + np.asarray(missed)
    return second, error


def _over_half(eq: Equivalent, at: _Nodes) -> tuple[np.ndarray, np.ndarray]:
    """The same over half the pairs: t2(z1, z2) is symmetric. For many classes, where every pair is dear."""
    rows, cols = (np.tile(index, 2) for index in np.triu_indices(at.weighted.shape[1]))
    conjugate = np.arange(rows.size) >= rows.size // 2
    share = np.where(rows == cols, 1.0, 2.0)
    parity = np.where(np.arange(at.weighted.shape[1]) % 2 == 0, 1.0, -1.0)
    half = np.where(rows == cols, parity[rows], parity[rows] + np.where(conjugate, -1, 1) * parity[cols])
    second, error = np.zeros(at.first.shape), np.zeros(at.first.shape)
    for start in range(0, rows.size, PAIR_BLOCK):
        # the last block is filled up with pairs of weight 0, so that one program serves all
        parts = [np.resize(array[start : start + PAIR_BLOCK], PAIR_BLOCK) for array in (rows, cols, conjugate, share, half)]
        parts[3], parts[4] = (np.where(np.arange(PAIR_BLOCK) < rows.size - start, part, 0) for part in parts[3:])
        value, missed = _over_pair_list(eq, at.point, at.weighted, *parts)
        second, error = second + np.asarray(value), error + np.asarray(missed)
    return second, error


@jax.jit
def _over_pair_list(eq: Equivalent, point: Point, weighted: Any, rows: Any, cols: Any, conjugate: Any, share: Any, half: Any) -> Any:
    """Second integrals (2, T, K) over a list of pairs, weighed by `share`, and what half the nodes miss, by `half`."""

    def other(leaf: jax.Array) -> jax.Array:
        taken = leaf[cols]
        return jnp.where(conjugate.reshape(-1, *(1,) * (taken.ndim - 1)), taken.conj(), taken)

    first, second = jax.tree.map(lambda leaf: leaf[rows], point), jax.tree.map(other, point)
    C = resolvent.feature_averages(eq, first.r * second.r)
    traces = jnp.stack(two_trace_of_pairs(eq, first, second, C))
    products = weighted[:, rows] * other(weighted.T).T
    terms = traces[:, None] * products[:, None]
    return 2 * jnp.real(terms @ share), 2 * jnp.imag(terms @ half)


def _evaluate_dense(ready: dense.Dense, work: dense.Work, contour: Contour, clock: Any, kappa: Any, rule: Rule) -> _Values:
    """`_evaluate` where the covariances do not commute."""
    solved = dense.solve(ready, contour.nodes, None, work)
    at = _first_integrals(ready.system.eq, contour, solved.point, solved.residual, clock, kappa, rule)
    second, error = jax.jit(_second_integrals)(dense.second_traces(ready, solved, work), at.weighted, at.weighted)
    losses = 1 - 2 * np.asarray(at.first) + np.asarray(second)
    return _Values(losses[0], losses[1], float(2 * at.error + 2 * np.max(abs(error))), float(at.missing), float(at.residual))


def _lay(low: float, high: float, rule: Rule, kappa: float, taus: np.ndarray, size: int | None, tolerance: float) -> tuple[Contour, int]:
    """A contour around [low, high] on which the rule's filter does not grow, and the index of its size.

    A support that starts far below 1/(κ τ_max), or below the penalty ρ, need not be resolved: there the filter is smooth, and the contour
    may pass left of 0, between 0 and the pole at -ρ (not at τ = ∞).
    """
    smooth = np.min(rule.penalties) if isinstance(rule, Ridge) else 1 / (kappa * taus[-1]) if taus[-1] > 0 else 2 * high
    shift = float(smooth) / 2 if smooth / 2 > low else 0.0
    left = -shift / 2 if shift else low / 2
    margin = min(1.5, math.sqrt(max(rule.largest_stable_eigenvalue(kappa) / high, 1.0001)))
    right = margin * (high + shift) - shift
    for half_height in HALF_HEIGHTS:
        trial = ellipse(left, right, SIZES[-1], half_height, shift)
        if np.all(rule.growth(trial.nodes + (0 if isinstance(rule, Ridge) else shift), kappa) <= 1 + 1e-12):
            break
    axis = math.log((right + shift) / (left + shift)) / 2
    if size is None:
        wanted = axis / min(half_height, 4 * math.log(margin)) * math.log(10 / tolerance)
        size = next((i for i, n in enumerate(SIZES) if n >= wanted), len(SIZES) - 1)
    return ellipse(left, right, SIZES[size], half_height, shift), size


def _converge(
    eq: Equivalent,
    span: tuple[float, float],
    rule: Rule,
    kappa: float,
    clock: Any,
    taus: np.ndarray,
    tol: float,
    evaluate: Callable[..., _Values] | None = None,
    widening: float = np.inf,
) -> tuple[_Values, float, tuple[float, float]]:
    """Values on a contour refined until its error estimate is below `tol`; with the estimate, and what the contour goes around.

    The trapezoid error is e^{-cN}: with half the nodes it would be the square root, up to a factor taken as 10.
    """
    size, last = None, np.inf
    evaluate = partial(_evaluate, eq) if evaluate is None else evaluate
    while True:
        contour, size = _lay(*span, rule, kappa, taus, size, tol)
        values = evaluate(contour, clock, kappa, rule)
        wide = bounds(eq)[0], min(bounds(eq)[1], 0.99 * rule.largest_stable_eigenvalue(kappa))
        if values.missing > 10 * tol and span != wide and span[0] > 0:
            # a bulk too narrow for the scan lies outside: go around everything there can be
            span, size = (max(wide[0], span[0] / widening), min(wide[1], span[1] * widening)), None
            continue
        error = float(min(values.error, 10 * values.error**2)) + values.missing
        if values.residual > RESIDUAL or not np.isfinite(error):
            error = np.inf
        if error <= tol or size == len(SIZES) - 1 or (not error < 0.5 * last and last < np.inf):
            return values, error, span
        size, last = size + 1, error


def learning_curves(
    problem: Problem,
    taus: Any = None,
    rule: Rule = GradientFlow(),
    tolerance: float = 1e-6,
    progress: dense.Progress | None = None,
) -> LearningCurves:
    """Per-class train and test losses and score errors at all training times, in the limit d → ∞ with ψ_p, ψ_n fixed.

    `L_c(τ) = 1 - 2 T1 + T2` with `T1 = -(1/2πi) ∮ f t1 dz` and `T2 = (1/2πi)² ∮∮ f f t2 dz1 dz2` (`equations`, section 5). Numbers of
    contour nodes and neuron types are raised until two estimates, each from a rule of lower order, add up to less than `tolerance`.

    Outlier eigenvalues of U of size O(p), which class means and even activations make, move no curve of the flow and are not in the
    theory. A discrete rule must be stable for them too, with a step of order 1/d: the simulation checks it, the theory only the bulk.

    Covariances that do not commute cost a matrix per contour node, of d rows for two classes or centred ones and (K - 1) d for more, less
    where the spectra decay; a looser tolerance makes them smaller and fewer.

    Args:
        problem: the problem, K classes.
        taus: (T,) increasing training times ≥ 0, in the unit set by κ = 2Δ/ψ_p; the last may be inf. None with `Ridge`.
        rule: training rule.
        tolerance: largest absolute error wanted in any loss, between 1e-9 and 0.1.
        progress: called with (units of work done, expected so far) where the covariances do not commute, and with (1, 1) at the end.

    Returns:
        `LearningCurves`; `error_estimate` is the error reached. Where the fixed point fails, entries are NaN and the estimate inf; so
        are the entries at τ = ∞ when the support touches 0 (p = n m), where the limit diverges. With a Gram matrix of rank above 3 neuron
        types are averaged by quasi-Monte-Carlo, which stops at about 1e-4 to 1e-3: the estimate is then 3.2 standard errors over
        independent point sets, and may stay above the tolerance.

    Raises:
        InputError: malformed taus, tolerance or progress; a step size at which the rule diverges; matrices that do not fit in memory.

    Reference: `equations`, section 5; tests/theory/test_dynamics.py.
    """
    if not (isinstance(tolerance, float | int) and 1e-9 <= tolerance <= 0.1):
        raise InputError(f"tolerance: {tolerance!r}; allowed: 1e-9 <= tolerance <= 0.1")
    if progress is not None and not callable(progress):
        raise InputError(f"progress: {progress!r}; allowed: a function of (done, total), or None")
    kappa = float(problem.kappa)
    taus, clock = rule.schedule(taus, kappa)
    rank = gram_root(problem.mixture.centroid_gram).shape[1]
    tail = tolerance / 40 if rank else 0.0  # share of the neurons beyond the radius; a loss feels a few times that
    radius = math.sqrt(chi2.isf(tail, rank)) if rank else 0.0
    with jax.enable_x64(True):
        near = dense.surrogate(problem)
        span = _span(near, rule, kappa, radius)
        diverges = np.isinf(taus) & (span[0] == 0)
        if diverges.all():
            raise InputError("taus: only inf, where the test loss diverges (p = n m); allowed: finite training times")
        if diverges.any():
            _, clock = rule.schedule(taus[~diverges], kappa)
        widening = np.inf if near is problem else 2.0  # where every node costs a matrix, in steps
        converge = partial(_converge, rule=rule, kappa=kappa, clock=clock, taus=taus[~diverges], tol=tolerance / 4, widening=widening)
        refine = _over_levels if rank <= LATTICE_RANK else _over_scrambles
        values, error, types, span, eq = refine(near, radius, span, converge, tolerance, tail)
        if near is not problem:
            values, error = _with_matrices(problem, eq, span, converge, tolerance, dense.Work(progress))
        error += types
    if progress is not None:
        progress(1, 1)
    return _package(problem, taus, values, error, diverges)


def _over_levels(problem: Problem, radius: float, span: Any, converge: Any, tolerance: float, tail: float) -> tuple[Any, ...]:
    """Values, errors of contour and neuron types, what the contour goes around, and the equivalent, refined until `tolerance` is met."""
    values, error, types = None, np.inf, np.inf
    for level in levels(problem, 1, radius):
        eq, before = equivalent(problem, level, radius, LEAST), values
        values, error, span = converge(eq, span)
        types = 5 * tail
        if radius and before is None:
            types = np.inf  # one level says nothing of its own error
        elif before is not None:
            pairs = ((values.train, before.train), (values.test, before.test))
            types += refined_error(problem, max(float(np.max(abs(new - old))) for new, old in pairs))
        if error + types <= tolerance:
            break
    return values, error, types, span, eq


def _over_scrambles(problem: Problem, radius: float, span: Any, converge: Any, tolerance: float, tail: float) -> tuple[Any, ...]:
    """`_over_levels` for neuron types by quasi-Monte-Carlo: the mean over independent scrambles, and 3.2 standard errors of it.

    A first round measures the error, the second takes the number of points that the tolerance asks for, up to the largest. The contour
    need not be better than such an average can be.
    """
    converge = partial(converge, tol=max(tolerance / 4, 1e-5))
    last = SOBOL_LEVELS - 2
    level = 0 if tolerance > SOBOL_REACH else last
    while True:
        runs, errors = [], []
        for scramble in range(SCRAMBLES):
            eq = equivalent(problem, level, radius, LEAST, scramble)
            values, error, span = converge(eq, span)
            runs.append(values)
            errors.append(error)
        mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *runs)
        spread = max(float(np.max(np.std([getattr(run, side) for run in runs], 0, ddof=1))) for side in ("train", "test"))
        types = STUDENT * spread / math.sqrt(SCRAMBLES) + 5 * tail
        if types + max(errors) <= tolerance or level == last or not np.isfinite(types):
            return mean, max(errors), types, span, eq
        level = min(last, level + max(1, math.ceil(math.log2(types / tolerance) / SOBOL_RATE)))


def _with_matrices(
    problem: Problem, near: Equivalent, span: tuple[float, float], converge: Any, tolerance: float, work: dense.Work
) -> tuple[_Values, float]:
    """Values with the covariances as they are, and the error of contour and core, from those of the surrogate's neuron types."""
    ready = dense.prepare(problem, near, tolerance)
    stable = converge.keywords["rule"].largest_stable_eigenvalue(converge.keywords["kappa"])
    wider = span[0] / dense.WIDENING, min(span[1] * dense.WIDENING, max(math.sqrt(stable) * math.sqrt(span[1]), span[1]))
    values, error, _ = converge(dense.spectra(ready, problem), wider, evaluate=partial(_evaluate_dense, ready, work))
    return values, error + ready.neglected


def _span(problem: Problem, rule: Rule, kappa: float, radius: float) -> tuple[float, float]:
    """Numbers below and above the spectrum that carries weight; for a discrete rule, after checking that its step is stable."""
    eq = equivalent(problem, 1 if problem.num_classes <= FEW_CLASSES else 0, radius, LEAST)
    low, high = extent(eq)
    if float(eq.deterministic) and low > 0:
        # neurons of large h put bands below the support, too narrow for a scan: a contour that cuts them converges slowly
        low = min(low, 1.5 * bounds(eq)[0])
    if np.isfinite(rule.largest_stable_eigenvalue(kappa)):
        bulks, *_ = support(eq, atoms(eq))
        high = float(bulks[-1, 1]) if len(bulks) else high
        check_stability(rule, kappa, high)
    return low, high


def _package(problem: Problem, taus: np.ndarray, values: Any, error: float, diverges: np.ndarray) -> LearningCurves:
    law = problem.mixture
    lost = np.zeros((diverges.sum(), problem.num_classes)) * np.nan
    train, test = (np.concatenate([loss, lost]) for loss in (values.train, values.test))
    if not np.isfinite(error):
        train, test = train * np.nan, test * np.nan
    optimal = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
    score = (test - optimal) / float(noise_variance_of(problem.t))
    zeros = np.zeros_like(test)
    return LearningCurves(taus, train, test, score, optimal, law.weights, float(problem.kappa), error, zeros, zeros, zeros, source="theory")


def time_grid(problem: Problem, num: int = 80) -> np.ndarray:
    """Training times (num + 1,), log-spaced from before the first mode learns to after the last one has, then inf.

    From 0.05/(κ λ_max) to 30/(κ λ_min), at most 9 decades; inf is left out where the support touches 0 and the limit diverges.

    Args:
        problem: the problem.
        num: number of finite times.

    Raises:
        InputError: num below 3.
    """
    if not isinstance(num, int) or num < 3:
        raise InputError(f"num: {num!r}; allowed: an integer >= 3")
    with jax.enable_x64(True):
        low, high = extent(equivalent(dense.surrogate(problem), 1, 5.9, LEAST))
    kappa = float(problem.kappa)
    grid = np.geomspace(0.05 / (kappa * high), 30 / (kappa * max(low, 6e-7 * high)), num)
    return grid if low == 0 else np.append(grid, np.inf)
