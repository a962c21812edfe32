"""Maps of class-wise times over two numbers of a problem: thousands of closed forms by a few programs, none of them fatal.

Cells share a few compiled programs, by numbers of contour nodes and of neuron types; the latter are as fine as each cell needs
(`map_setting.type_levels`). The contour of a cell encloses norm bounds of U, which need no search, less what they exceed the support by
in a few cells of the map. Cells whose error estimate is too large are done again with more nodes and the whole bounds, those whose fixed
point failed with care; what still fails is marked and left NaN.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from rfdiff.class_times import TIME_NAMES, ClassTimes
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.parameters import get_parameter, set_parameter
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress
from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory import map_program as program
from rfdiff.theory.contour import HALF_HEIGHT
from rfdiff.theory.input_checks import checked_fraction, checked_tolerance, require_concrete
from rfdiff.theory.map_cells import one_by_one
from rfdiff.theory.map_program import Cells, Setting
from rfdiff.theory.map_setting import CHUNK, FEW, LEVEL, filled_up, pick, shared_setting, type_levels
from rfdiff.theory.training_times import problem_extents
from rfdiff.theory_results import PhaseMap
from rfdiff.value_types import as_real_array, vectorize_text

NODES = (48, 64, 80, 96, 144, 224, 384)
ATTEMPTS = 3
SAMPLED, MANY, MARGIN = 4, 64, 1.25  # cells whose spectra are found, in maps that are worth it, and how much wider the others may be
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


def _run(
    cells: list[Problem], q: float, tolerance: float, progress: Progress | None, store: ChunkStore
) -> tuple[ClassTimes, np.ndarray, np.ndarray]:
    """Times, errors and convergence of all cells; those that miss the tolerance are done again, with more nodes or with care."""
    setting, stacked = shared_setting(cells)
    levels, of_types = type_levels(stacked, setting, tolerance)
    reference = setting(LEVEL)
    low, high = (np.asarray(x) for x in program.bounds(stacked, reference))
    narrowed = np.full(len(cells), _narrowing(cells, high))
    sizes = _sizes(np.maximum(low, program.HARD * high), high / narrowed, tolerance)
    empty = np.full((len(cells), cells[0].num_classes), np.nan)
    times, error = ClassTimes(empty, empty.copy(), empty.copy(), empty.copy(), q=q), np.full(len(cells), np.inf)
    todo, careful = np.arange(len(cells)), np.zeros(len(cells), bool)
    for attempt in range(ATTEMPTS):
        done = 0
        for size, care, level in sorted(set(zip(sizes[todo].tolist(), careful[todo].tolist(), levels[todo].tolist(), strict=True))):
            group = todo[(sizes[todo] == size) & (careful[todo] == care) & (levels[todo] == level)]
            tell = None if progress is None or attempt else partial(_advance, progress, done, len(cells))
            how = _How(NODES[size], q, care, level)
            group_times, group_error = _in_chunks(stacked, setting(level), group, how, narrowed, tell, store)
            done += group.size
            group_error = group_error + of_types[group]
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
        narrowed[todo] = 1.0
    converged = error <= tolerance
    return jax.tree.map(lambda leaf: np.where(converged[:, None], leaf, np.nan), times), error, converged


class _How(NamedTuple):
    """How a group of cells is done: number of nodes, q, whether with care, and the level of the neuron types."""

    size: int
    q: float
    careful: bool
    level: int


def _narrowing(cells: list[Problem], high: np.ndarray) -> float:
    """By how much the norm bounds exceed the spectra, from a few cells of the map, with a margin."""
    few = np.unique(np.linspace(0, len(cells) - 1, SAMPLED).round().astype(int)) if len(cells) >= MANY else np.zeros(0, int)
    ratios = [high[i] / problem_extents(cells[i])[0][1] for i in few]
    return float(max(1.0, min(ratios, default=1.0) / MARGIN))


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _sizes(low: np.ndarray, high: np.ndarray, tolerance: float) -> np.ndarray:
    """Index in `NODES` for each cell: the trapezoid rule converges as e^{-N η}, and the bounds are wider than the support.

    Numbers of nodes that few cells need are rounded up to one that others need, since each compiles a program.
    """
    wanted = 0.88 * np.log(3 * high / low) / 2 / HALF_HEIGHT * math.log(10 / tolerance)
    sizes = np.minimum(np.searchsorted(NODES, wanted), len(NODES) - 1)
    for size in range(len(NODES) - 1):
        above = sizes[sizes > size]
        if above.size and np.count_nonzero(sizes == size) < FEW * sizes.size:
            sizes[sizes == size] = above.min()
    return sizes


def _in_chunks(
    cells: Cells,
    setting: Setting,
    which: np.ndarray,
    how: _How,
    narrowed: np.ndarray,
    tell: Callable[[int], None] | None,
    store: ChunkStore,
) -> tuple[ClassTimes, np.ndarray]:
    """Times and errors of some cells in chunks of one shape, the last one filled up with copies; those of the store are not done again."""
    parts = []
    for start in range(0, len(which), CHUNK):
        some = which[start : start + CHUNK]
        key = (how.size, how.careful, how.level, some.tolist(), narrowed[some].tolist())
        name = f"chunk-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
        if name not in store:
            filled = filled_up(some, CHUNK)
            chosen = pick(cells, filled), setting, narrowed[filled], some.size
            curves, error = program.forms(*chosen, size=how.size, careful=how.careful)
            times = program.times(curves, some.size, q=how.q)
            arrays = {**{time: getattr(times, time) for time in TIME_NAMES}, "error": error}
            store[name] = {"cells": some, **{key: np.asarray(value)[: some.size] for key, value in arrays.items()}}
        parts.append(store[name])
        if tell is not None:
            tell(min(start + CHUNK, len(which)))
    joined = {key: np.concatenate([part[key] for part in parts]) for key in (*TIME_NAMES, "error")}
    error = joined.pop("error")
    return ClassTimes(*(joined[name] for name in TIME_NAMES), q=how.q), error
