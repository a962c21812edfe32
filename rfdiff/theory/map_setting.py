"""What the cells of a map share, and how fine the neuron types of each must be."""

import math
from collections.abc import Callable

import jax
import numpy as np

from rfdiff.problem import Problem
from rfdiff.theory import map_program as program
from rfdiff.theory.equivalent import column_kinds
from rfdiff.theory.map_program import Cells, Setting, Tables
from rfdiff.theory.neuron_coefficients import GaussRules, gauss_rules, terms_of_series
from rfdiff.theory.neuron_types import gram_root, is_odd, type_grid

CHUNK = 64  # cells between two reports of progress
FEW = 0.05  # share of the cells below which a program of their own is not worth its compilation
LEVEL = 2  # of the lattice of neuron types on which the spectra are bounded
LEVELS = (1, 2, 3, 4)  # those on which cells are computed
OF_TYPES = 0.5  # share of the tolerance that the neuron types may take
RADIUS = 5.5  # standard deviations of h: at ranks up to 3, where lattices are used, one neuron in a million is beyond


def shared_setting(cells: list[Problem]) -> tuple[Callable[[int], Setting], Cells]:
    """What all cells share, for each level of neuron types, and the cells with their leaves stacked."""
    roots = [gram_root(cell.mixture.centroid_gram) for cell in cells]
    rank = max(root.shape[1] for root in roots)
    padded = np.stack([np.pad(root, ((0, 0), (0, rank - root.shape[1]))) for root in roots])
    longest = np.diag(np.max(np.linalg.norm(padded, axis=1), axis=0))  # along each axis, of any cell
    steepest = max(range(len(cells)), key=lambda i: math.exp(-cells[i].t) * math.sqrt(np.max(cells[i].mixture.variances)))
    noisiest = min(range(len(cells)), key=lambda i: cells[i].t)
    candidates = [gauss_rules(cells[i]) for i in {steepest, noisiest}]
    rules = GaussRules(*(max(options, key=lambda rule: rule.nodes.size) for options in zip(*candidates, strict=True)))
    kinds, odd = column_kinds(cells[0].noise_draws), is_odd(cells[0].activation)
    grids = {level: type_grid(longest, level, RADIUS, odd, 16) for level in (range(LEVELS[0], LEVELS[-1] + 2) if rank else [LEVEL])}
    tables, rows = None, np.zeros(padded.shape[:2], int)
    if rank:
        tables, rows = _tables(cells, padded, max(float(np.max(np.linalg.norm(grid.nodes, axis=1))) for grid in grids.values()), rules)
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float64) for leaf in leaves]), *cells)
    return lambda level: Setting(grids[level], rules, kinds, tables), Cells(stacked, padded, rows)


def _tables(cells: list[Problem], roots: np.ndarray, radius: float, rules: GaussRules) -> tuple[Tables, np.ndarray]:
    """Tables of the coefficients, and the rows of each class of each cell (C, K) in them."""
    t = np.array([cell.t for cell in cells])
    pairs = np.stack([np.stack([cell.mixture.variances for cell in cells]), np.broadcast_to(t[:, None], roots.shape[:2])], -1)
    unique, rows = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    reach = float(np.max(np.exp(-t)[:, None] * np.linalg.norm(roots, axis=2))) * radius
    width = np.sqrt(np.exp(-2 * unique[:, 1]) * unique[:, 0] + (1 - np.exp(-2 * unique[:, 1])) / 2)
    size = terms_of_series(reach / float(np.min(width)))
    return program.tabulate(cells[0].activation, unique[:, 0], unique[:, 1], reach, rules, size), rows.reshape(roots.shape[:2])


def type_levels(cells: Cells, setting: Callable[[int], Setting], tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Level of the neuron types of each cell, and the error that they leave: what the next level changes of the losses of ridge regression.

    Losses are compared where they are of order 1, and relative to themselves where they are larger.
    """
    count = len(cells.roots)
    if cells.roots.shape[2] == 0:
        return np.full(count, LEVEL), np.zeros(count)
    found, error, todo = np.full(count, LEVELS[-1]), np.full(count, np.inf), np.arange(count)
    low, high = (np.asarray(x) for x in program.bounds(cells, setting(LEVEL)))
    before: tuple[np.ndarray, np.ndarray] | None = None
    for level in range(LEVELS[0], LEVELS[-1] + 2):
        part = filled_up(todo)
        losses, solved = (
            np.asarray(x)[: todo.size] for x in program.ridge(pick(cells, part), setting(level), low[part], high[part], todo.size)
        )
        if before is not None:
            change = np.max(abs(losses - before[0]) / np.maximum(1, abs(losses)), (1, 2, 3))
            change = np.where(solved & before[1] & np.isfinite(change), change, np.inf)
            found[todo], error[todo] = level - 1, change
            left = ~(change <= tolerance * OF_TYPES)
            todo, losses, solved = todo[left], losses[left], solved[left]
        if not todo.size:
            break
        before = losses, solved
    return rounded_up(found), error


def rounded_up(levels: np.ndarray) -> np.ndarray:
    """Levels that few cells need are rounded up to one that others need, as numbers of nodes are."""
    for level in np.unique(levels)[:-1]:
        if np.count_nonzero(levels == level) < FEW * levels.size:
            levels = np.where(levels == level, levels[levels > level].min(), levels)
    return levels


def filled_up(which: np.ndarray, chunk: int = CHUNK) -> np.ndarray:
    """Cells filled up with copies to a whole number of chunks, so that few programs are compiled."""
    return np.resize(which, chunk * -(-which.size // chunk))


def pick(cells: Cells, which: np.ndarray) -> Cells:
    """Some of the cells."""
    return jax.tree.map(lambda leaf: leaf[which], cells)
