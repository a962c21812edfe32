"""Maps of class-wise times over two numbers of a problem: thousands of closed forms under vmap, none of them fatal.

All cells share one compiled program: the same numbers of contour nodes, neuron types and quadrature nodes, fine enough for the hardest
cell. The contour of each cell encloses norm bounds of U, which are wider than the support but need no search. Cells whose error
estimate is too large are done again with more nodes, those whose fixed point failed with care; what still fails is marked and left NaN.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.parameters import get_parameter, set_parameter
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory.approaches import approach_along_rays
from rfdiff.theory.contour import HALF_HEIGHT, ellipse
from rfdiff.theory.contour_forms import solve_kernel
from rfdiff.theory.equivalent import ColumnKinds, Equivalent, build, column_kinds
from rfdiff.theory.input_checks import checked_fraction, checked_tolerance, require_concrete
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.map_cells import one_by_one
from rfdiff.theory.neuron_coefficients import GaussRules, gauss_rules
from rfdiff.theory.neuron_types import TypeGrid, gram_root, is_odd, type_grid
from rfdiff.theory.plans import optimal_and_rate
from rfdiff.theory.resolvent import RESIDUAL, free_start
from rfdiff.theory.support import outer_bounds
from rfdiff.theory_results import PhaseMap
from rfdiff.value_types import as_real_array, vectorize_text

NODES = (48, 64, 96, 144, 224, 384)
FEW = 0.05  # share of the cells below which a number of nodes is not worth a program of its own
HARD = 1e-9  # lower bound of the spectrum, relative to the upper, below which the contour passes left of 0 instead
ATTEMPTS = 3
CHUNK = 64  # cells between two reports of progress
CACHE_BYTES = 2**25  # cells are batched inside a chunk so that their pairs of nodes stay in the processor's cache
LEVEL = 2  # of the lattice of neuron types
RADIUS = 5.5  # standard deviations of h: at ranks up to 3, where lattices are used, one neuron in a million is beyond
PROBES = (0.1, 1.0, 10.0, 100.0, 1000.0)
MOST_CELLS = 10**6

ChunkStore = MutableMapping[str, Mapping[str, np.ndarray]]
INSTEAD = "works outside of jit, grad and vmap; allowed inside: theory.class_times of a theory.curve_kernel"


def phase_map(
    problem: Problem,
    axes: Mapping[str, ArrayLike],
    *,
    rule: Rule = GradientFlow(),
    q: float = 0.5,
    tolerance: float = 1e-4,
    progress: Progress | None = None,
    store: ChunkStore | None = None,
) -> PhaseMap:
    """τ_gen, τ_stop, τ_mem and τ_opt(q) of every class over two numbers of a problem.

    Args:
        problem: what the axes do not vary.
        axes: two names of `rfdiff.parameters` with their values; every cell must be a valid problem.
        rule: training rule that trains in time. All but gradient flow alone are evaluated cell by cell (`theory.times`), which takes a
            hundred times as long; so are covariances that do not commute, each cell with a plan of its own (`plan_curves`).
        q: fraction of the way to the exact score's loss that counts as learned, in τ_opt.
        tolerance: largest error of a loss in a cell that counts as computed; larger than for curves, since a map shows times to 1e-3.
        progress: called on the host with (cells done, cells in all) after each chunk.
        store: finished chunks by name, {name: {array name: array}}; those in it are taken over, the others are added as they get done.
            One store goes with one call: same problem, axes, rule, q and tolerance.

    Returns:
        `PhaseMap`.

    Raises:
        InputError: not two axes; an unknown name; two names that cannot vary independently; a value for which there is no problem;
            malformed q or tolerance; a traced problem; a rule that no cell can be trained by.

    Reference: docs/theory/times.md; tests/theory/test_maps.py.
    """
    require_concrete(problem, "theory.phase_map", INSTEAD)
    names, values = _check(axes)
    require_progress(progress)
    q, tolerance = checked_fraction(q), checked_tolerance(tolerance)
    cells = [problem_at(problem, {names[0]: a, names[1]: b}) for a in values[0] for b in values[1]]  # all validated before any is computed
    with double_on_host():
        if rule.equals(GradientFlow()) and problem.mixture.commuting:
            results = _run(cells, q, tolerance, progress, {} if store is None else store)
        else:
            results = one_by_one(cells, rule, q, tolerance, progress, {} if store is None else store)
    shape = (len(values[0]), len(values[1]))
    times, error, converged = jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), results)
    return PhaseMap(values[0], values[1], times, error, converged, names)


def problem_at(problem: Problem, point: Mapping[str, float]) -> Problem:
    """The problem of a cell: numbers set by name, one after the other.

    Raises:
        InputError: as `set_parameter`; or a number that is changed again when a later one is set.
    """
    for name, value in point.items():
        problem = set_parameter(problem, name, float(value))
    for name, value in point.items():
        if not math.isclose(get_parameter(problem, name), value, rel_tol=1e-9, abs_tol=1e-300):
            raise InputError(
                f"axes: {' and '.join(point)} cannot vary independently; allowed: two numbers of which neither changes the other"
            )
    return problem


def cells_in(store: ChunkStore) -> int:
    """Number of cells in the chunks of a store; those done again are not counted twice."""
    return len({cell for name in store for cell in store[name]["cells"].tolist()})


def _check(axes: Mapping[str, ArrayLike]) -> tuple[tuple[str, str], list[np.ndarray]]:
    if not isinstance(axes, Mapping) or len(axes) != 2:
        raise InputError(f"axes: {', '.join(map(str, axes)) or 'none'}; allowed: a mapping of two names to their values")
    values = [np.atleast_1d(as_real_array(f"axes: {name}", v)) for name, v in axes.items()]
    for name, v in zip(axes, values, strict=True):
        if v.ndim != 1 or not v.size or not np.all(np.isfinite(v)) or np.any(np.diff(v) <= 0):
            raise InputError(f"axes: {name} = {vectorize_text(np.ravel(v))}; allowed: a list of finite values that increase")
    if values[0].size * values[1].size > MOST_CELLS:
        raise InputError(f"axes: {values[0].size} x {values[1].size} cells; allowed: at most {MOST_CELLS:g}")
    first, second = axes
    return (first, second), values


class _Setting(NamedTuple):
    """What all cells share: roots of their Gram matrices (C, K, rank), neuron types, quadrature rules, column kinds."""

    roots: Float[np.ndarray, "C K rank"]
    grid: TypeGrid
    rules: GaussRules
    kinds: ColumnKinds


def _run(
    cells: list[Problem], q: float, tolerance: float, progress: Progress | None, store: ChunkStore
) -> tuple[ClassTimes, np.ndarray, np.ndarray]:
    """Times, errors and convergence of all cells; those that miss the tolerance are done again, with more nodes or with care."""
    setting = _setting(cells)
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float64) for leaf in leaves]), *cells)
    low, high = (np.asarray(x) for x in _bounds(stacked, setting))
    sizes = _sizes(np.maximum(low, HARD * high), high, tolerance)
    empty = np.full((len(cells), cells[0].num_classes), np.nan)
    times, error = ClassTimes(empty, empty.copy(), empty.copy(), empty.copy(), q=q), np.full(len(cells), np.inf)
    todo, careful = np.arange(len(cells)), np.zeros(len(cells), bool)
    for attempt in range(ATTEMPTS):
        done = 0
        for size, care in sorted(set(zip(sizes[todo].tolist(), careful[todo].tolist(), strict=True))):
            group = todo[(sizes[todo] == size) & (careful[todo] == care)]
            tell = None if progress is None or attempt else partial(_advance, progress, done, len(cells))
            group_times, group_error = _in_chunks(stacked, setting, group, NODES[size], q, care, tell, store)
            done += group.size
            better = group_error < error[group]
            error[group[better]] = group_error[better]
            for name in TIME_NAMES:
                getattr(times, name)[group[better]] = getattr(group_times, name)[better]
        todo = todo[~(error[todo] <= tolerance)]
        if not todo.size:
            break
        missed = np.isfinite(error[todo])  # else the fixed point failed: the same nodes, with care
        sizes[todo] = np.minimum(sizes[todo] + missed, len(NODES) - 1)
        careful[todo] |= ~missed
    converged = error <= tolerance
    return jax.tree.map(lambda leaf: np.where(converged[:, None], leaf, np.nan), times), error, converged


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _sizes(low: np.ndarray, high: np.ndarray, tolerance: float) -> np.ndarray:
    """Index in `NODES` for each cell: the trapezoid rule converges as e^{-N η}, and the bounds are wider than the support.

    Numbers of nodes that few cells need are rounded up to one that others need, since each compiles a program.
    """
    wanted = 0.8 * np.log(3 * high / low) / 2 / HALF_HEIGHT * math.log(10 / tolerance)
    sizes = np.minimum(np.searchsorted(NODES, wanted), len(NODES) - 1)
    for size in range(len(NODES) - 1):
        above = sizes[sizes > size]
        if above.size and np.count_nonzero(sizes == size) < FEW * sizes.size:
            sizes[sizes == size] = above.min()
    return sizes


def _setting(cells: list[Problem]) -> _Setting:
    """Neuron types and quadrature rules that are fine enough for every cell."""
    roots = [gram_root(cell.mixture.centroid_gram) for cell in cells]
    rank = max(root.shape[1] for root in roots)
    padded = np.stack([np.pad(root, ((0, 0), (0, rank - root.shape[1]))) for root in roots])
    longest = np.diag(np.max(np.linalg.norm(padded, axis=1), axis=0))  # along each axis, of any cell
    grid = type_grid(longest, LEVEL, RADIUS, is_odd(cells[0].activation), 16)
    steepest = max(range(len(cells)), key=lambda i: math.exp(-cells[i].t) * math.sqrt(np.max(cells[i].mixture.variances)))
    noisiest = min(range(len(cells)), key=lambda i: cells[i].t)
    candidates = [gauss_rules(cells[i]) for i in {steepest, noisiest}]
    rules = GaussRules(*(max(options, key=lambda rule: rule.nodes.size) for options in zip(*candidates, strict=True)))
    return _Setting(padded, grid, rules, column_kinds(cells[0].noise_draws))


@jax.jit
def _bounds(stacked: Problem, setting: _Setting) -> tuple[jax.Array, jax.Array]:
    """Norm bounds (C,) of the spectra of all cells."""
    return jax.lax.map(lambda cell: outer_bounds(_equivalent(cell[0], cell[1], setting)), (stacked, setting.roots), batch_size=CHUNK)


def _equivalent(problem: Problem, root: jax.Array, setting: _Setting) -> Equivalent:
    return build(
        problem.activation, problem.mixture, problem.training_weights, problem.t, problem.psi_p, problem.psi_n,
        setting.kinds, root, setting.grid, setting.rules,
    )  # fmt: skip


@partial(jax.jit, static_argnames=("size", "q", "careful"))
def _cells(stacked: Problem, setting: _Setting, size: int, q: float, careful: bool) -> tuple[ClassTimes, jax.Array]:
    """Times (C, K) and errors (C,) of a chunk of cells; careful: every node is approached from far out along its ray."""
    k = setting.roots.shape[1]
    pair_bytes = 16 * (10 * (2 * k + k * (k + 1) // 2) ** 2 + setting.grid.weights.size)
    batch = max(1, min(CHUNK, 2 ** int(math.log2(max(1, CACHE_BYTES / (size**2 / 4 * pair_bytes))))))

    def one(cell: tuple[Problem, jax.Array]) -> tuple[ClassTimes, jax.Array]:
        eq = _equivalent(*cell, setting)
        low, high = outer_bounds(eq)
        hard = low < HARD * high  # p = n m: finite times only
        shift = jnp.where(hard, HARD * high, 0)
        contour = ellipse(jnp.where(hard, -shift / 2, low / 2), 1.5 * high, size, shift=shift)
        optimal, kappa = optimal_and_rate(cell[0])
        latest = jnp.where(hard, 1 / (kappa * jnp.where(hard, shift, 1)), jnp.inf)
        start = approach_along_rays(eq, contour.nodes) if careful else free_start(eq, contour.nodes)
        kernel = solve_kernel(eq, contour, start, optimal, kappa, latest)
        error = jnp.where(kernel.residual < RESIDUAL, kernel.error(jnp.append(jnp.asarray(PROBES) / (kappa * high), latest)), jnp.inf)
        return class_times(kernel, q=q), jnp.where(jnp.isfinite(error), error, jnp.inf)

    return jax.lax.map(one, (stacked, setting.roots), batch_size=batch)


def _in_chunks(
    stacked: Problem,
    setting: _Setting,
    which: np.ndarray,
    size: int,
    q: float,
    careful: bool,
    tell: Callable[[int], None] | None,
    store: ChunkStore,
) -> tuple[ClassTimes, np.ndarray]:
    """`_cells` of some cells in chunks of one shape, the last one filled up with copies; chunks of the store are not done again."""
    parts = []
    for start in range(0, len(which), CHUNK):
        some = which[start : start + CHUNK]
        name = f"chunk-{hashlib.sha256(repr((size, careful, some.tolist())).encode()).hexdigest()[:16]}"
        if name not in store:
            filled = np.resize(some, CHUNK)
            chunk = setting._replace(roots=setting.roots[filled])
            times, error = _cells(jax.tree.map(lambda leaf, i=filled: leaf[i], stacked), chunk, size=size, q=q, careful=careful)
            arrays = {**{time: getattr(times, time) for time in TIME_NAMES}, "error": error}
            store[name] = {"cells": some, **{key: np.asarray(value)[: some.size] for key, value in arrays.items()}}
        parts.append(store[name])
        if tell is not None:
            tell(min(start + CHUNK, len(which)))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in (*TIME_NAMES, "error")}
    error = joined.pop("error")
    return ClassTimes(*(joined[name] for name in TIME_NAMES), q=q), error
