"""Results of a sweep in one dataset, its axes as coordinates: curves, class-wise times, and the state of every cell."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tomli_w
import xarray as xr

from rfdiff.class_times import TIME_NAMES, readings
from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.errors import InputError
from rfdiff.files import result_file
from rfdiff.sweep.cells import Cell
from rfdiff.sweep.folder import DONE, FAILED, MISSING, Folder, Manifest
from rfdiff.sweep.specification import THEORY

Values = tuple[tuple[str, ...], np.ndarray]  # axes beside those of the sweep, values
Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]  # axes, values and attributes
CONTENT = "sweep"
SKIPPED = "skipped"  # state of a cell whose file is bad, in a collection that skips those
MOST_NAMED = 20
QUANTITIES = (*TIME_NAMES, "best_test_loss")
Q = 0.5


def collect(out: str | Path, *, skip_bad: bool = False) -> xr.Dataset:
    """Everything that the folder of a sweep holds, as one dataset.

    Closed forms: `theory_train_loss`, … (axes, time, class), `theory_class_time` (axes, quantity, class), `theory_status` (axes). Networks:
    `train_loss`, … (axes, solver, d, time, class), the mean over the seeds that are there, with `_stderr`; `train_loss_per_seed`, … and
    `status` with the axis seed; `class_time` with `_stderr`. Training times are `tau` (axes, time). Where a cell has failed or is
    missing there is NaN, `status` says which and `diagnosis` why.

    Args:
        out: the folder.
        skip_bad: leave out files that cannot be used, in place of refusing.

    Raises:
        InputError: no sweep there; or truncated, foreign and version-mismatched files, all named.

    Reference: tests/sweep/test_collection.py.
    """
    folder = Folder(Path(out))
    manifest = folder.read()
    states = folder.states(manifest.cells)
    bad = [f"{path}: is no cell of this sweep" for path in _foreign(folder, manifest)]
    found: dict[str, LearningCurves] = {}
    diagnoses: dict[str, str] = {}
    for cell in manifest.cells:
        try:
            if states[cell.name] == DONE:
                found[cell.name] = _load(folder, cell, manifest.versions)
            elif states[cell.name] == FAILED:
                diagnoses[cell.name] = folder.diagnosis(cell.name)
        except InputError as err:
            bad.append(str(err))
            states[cell.name], diagnoses[cell.name] = SKIPPED, str(err).rsplit("/", 1)[-1]
    if bad and not skip_bad:
        more = f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise InputError(f"{'; '.join(bad[:MOST_NAMED])}{more}; delete them and run the sweep again, or leave them out with --skip-bad")
    dataset = _Arrays(manifest).filled(found, states, diagnoses)
    return dataset.assign_attrs(skipped=len(bad))


def _foreign(folder: Folder, manifest: Manifest) -> list[Path]:
    """Files that are no cell of the sweep (leftovers of a killed process are hidden, and no results)."""
    expected = {folder.result(cell.name) for cell in manifest.cells} | {folder.failure(cell.name) for cell in manifest.cells}
    there = [path for place in (folder.cells, folder.failures) for path in sorted(place.glob("[!.]*"))]
    return [path for path in there if path not in expected]


def _load(folder: Folder, cell: Cell, versions: dict[str, str]) -> LearningCurves:
    """The curves in the file of a cell.

    Raises:
        InputError: truncated, unreadable or of a newer format; not of this cell; computed by other versions.
    """
    path = folder.result(cell.name)
    result = result_file.load(path)
    of = result.metadata.get("cell")
    if of != cell.name:
        raise InputError(f"{path}: is not of this cell (its attribute cell is {of!r})")
    other = [f"{name} {result.metadata.get(f'{name}_version')}" for name in ("rfdiff", "jax")]
    if other != [f"{name} {versions[name]}" for name in ("rfdiff", "jax")]:
        raise InputError(f"{path}: was computed by {', '.join(other)}, the sweep is of rfdiff {versions['rfdiff']}, jax {versions['jax']}")
    curves = result.theory if cell.task.solver == THEORY else result.simulation
    if curves is None or (cell.task.seeds and len((curves.per_seed or {}).get("test_loss", ())) != len(cell.task.seeds)):
        raise InputError(f"{path}: does not hold the curves of this cell")
    return curves


class _Arrays:
    """Arrays of the dataset of a sweep, NaN until they are filled."""

    def __init__(self, manifest: Manifest) -> None:
        self.sweep, self.cells = manifest.sweep, manifest.cells
        sweep = self.sweep
        self.axes = tuple(sweep.axes)
        self.shape = tuple(len(values) for values in sweep.axes.values())
        self.k = sweep.problems[0].num_classes
        self.networks = len(sweep.networks), len(sweep.dimensions)
        self.with_theory, self.with_networks = THEORY in sweep.solvers, bool(sweep.networks)

    def filled(self, found: dict[str, LearningCurves], states: dict[str, str], diagnoses: dict[str, str]) -> xr.Dataset:
        """The dataset with every curve at its place."""
        length = max((np.size(curves.taus) for curves in found.values()), default=0)
        tau = np.full((len(self.sweep.problems), length), np.nan)
        for cell in self.cells:
            if cell.name in found:
                tau[cell.index, : np.size(found[cell.name].taus)] = found[cell.name].taus
        variables: dict[str, Variable] = {"tau": ((*self.axes, "time"), tau.reshape(*self.shape, length), {"long_name": "training time"})}
        if self.with_theory:
            cells = [cell for cell in self.cells if cell.task.solver == THEORY]
            variables |= self._theory(cells, found, length) | self._states(cells, states, diagnoses, "theory_", ())
        if self.with_networks:
            cells = [cell for cell in self.cells if cell.task.solver != THEORY]
            variables |= self._simulated(cells, found, length) | self._states(cells, states, diagnoses, "", ("solver", "d", "seed"))
        dataset = xr.Dataset(variables, self._coordinates(), self._attributes(states.values()))
        return dataset.set_coords("tau")

    def _coordinates(self) -> dict[str, object]:
        sweep = self.sweep
        named: dict[str, object] = {name: (name, values, {"spacing": sweep.scales[name]}) for name, values in sweep.axes.items()}
        if self.with_networks:
            named |= {"solver": list(sweep.networks), "d": list(sweep.dimensions), "seed": np.arange(sweep.seeds)}
        return {**named, "class": np.arange(self.k), "quantity": list(QUANTITIES)}

    def _attributes(self, states: Iterable[str]) -> dict[str, str | float]:
        counts = list(states)
        text = tomli_w.dumps(self.sweep.document)
        named = {state: counts.count(state) for state in (DONE, FAILED, MISSING)}
        return {"content": CONTENT, "specification": text, "axes": ", ".join(self.axes), "q": Q, "cells": len(counts), **named}

    def _states(
        self, cells: list[Cell], states: dict[str, str], diagnoses: dict[str, str], prefix: str, dims: tuple[str, ...]
    ) -> dict[str, Variable]:
        """State and diagnosis at every place; a cell of several seeds says it for each."""
        shape = (len(self.sweep.problems), *((*self.networks, self.sweep.seeds) if dims else ()))
        state, why = np.full(shape, MISSING, object), np.full(shape, "", object)
        for cell in cells:
            place = self._index(cell) if dims else (cell.index,)
            state[place], why[place] = states[cell.name], diagnoses.get(cell.name, "")
        label = {"long_name": "state of the cell"}, {"long_name": "why it failed"}
        names, full = (f"{prefix}status", f"{prefix}diagnosis"), (*self.axes, *dims)
        pairs = zip(names, (state, why), label, strict=True)
        return {name: (full, values.reshape(*self.shape, *shape[1:]).astype(str), text) for name, values, text in pairs}

    def _index(self, cell: Cell) -> tuple[int, int, int, list[int]]:
        """Index of a cell of networks in arrays (problem, solver, d, seed)."""
        task = cell.task
        return cell.index, self.sweep.networks.index(task.solver), self.sweep.dimensions.index(task.d or 0), list(task.seeds)

    def _theory(self, cells: list[Cell], found: dict[str, LearningCurves], length: int) -> dict[str, Variable]:
        count = len(self.sweep.problems)
        curves = {name: np.full((count, length, self.k), np.nan) for name in CURVE_NAMES}
        times, errors, optimal = (np.full((count, *rest), np.nan) for rest in ((len(QUANTITIES), self.k), (), (self.k,)))
        for cell in cells:
            if (one := found.get(cell.name)) is not None:
                for name in CURVE_NAMES:
                    curves[name][cell.index, : np.size(one.taus)] = getattr(one, name)
                times[cell.index], errors[cell.index], optimal[cell.index] = (
                    readings(one, Q, self._loss_weights(cell.index))[0],
                    one.error_estimate,
                    one.optimal_loss,
                )
        named: dict[str, Values] = {f"theory_{name}": (("time", "class"), values) for name, values in curves.items()}
        named |= {"theory_class_time": (("quantity", "class"), times), "theory_error_estimate": ((), errors)}
        named["theory_optimal_loss"] = (("class",), optimal)
        return self._over_axes(named)

    def _simulated(self, cells: list[Cell], found: dict[str, LearningCurves], length: int) -> dict[str, Variable]:
        """Curves of every seed, their mean and standard error over the seeds that are there, and the times read from the mean."""
        lead = (len(self.sweep.problems), *self.networks)
        seeds = {name: np.full((*lead, self.sweep.seeds, length, self.k), np.nan) for name in CURVE_NAMES}
        errors = np.full((*lead, self.sweep.seeds), np.nan)
        first: dict[tuple[int, int, int], LearningCurves] = {}
        for cell in cells:
            if (one := found.get(cell.name)) is not None:
                problem, solver, d, replicas = self._index(cell)
                first.setdefault((problem, solver, d), one)
                errors[problem, solver, d, replicas] = one.error_estimate
                for name in CURVE_NAMES:
                    for r, values in zip(replicas, (one.per_seed or {})[name], strict=True):
                        seeds[name][problem, solver, d, r, : len(values)] = values
        means = {name: np.full((*lead, length, self.k), np.nan) for name in CURVE_NAMES}
        stderrs, times = {name: values.copy() for name, values in means.items()}, np.full((2, *lead, len(QUANTITIES), self.k), np.nan)
        for index, one in first.items():
            count = np.size(one.taus)
            pooled = _pooled(one, {name: values[index][:, :count] for name, values in seeds.items()})
            times[0][index], times[1][index] = readings(pooled, Q, self._loss_weights(index[0]))
            for name in CURVE_NAMES:
                means[name][index][:count], stderrs[name][index][:count] = getattr(pooled, name), getattr(pooled, f"{name}_stderr")
        named: dict[str, Values] = {"error_estimate": (("solver", "d", "seed"), errors)}
        named |= {f"{name}_per_seed": (("solver", "d", "seed", "time", "class"), values) for name, values in seeds.items()}
        named |= {name: (("solver", "d", "time", "class"), values) for name, values in means.items()}
        named |= {f"{name}_stderr": (("solver", "d", "time", "class"), values) for name, values in stderrs.items()}
        dims = ("solver", "d", "quantity", "class")
        named |= {"class_time": (dims, times[0]), "class_time_stderr": (dims, times[1])}
        return self._over_axes(named)

    def _loss_weights(self, problem: int) -> np.ndarray:
        return np.asarray(self.sweep.problems[problem].training_weights)

    def _over_axes(self, named: dict[str, Values]) -> dict[str, Variable]:
        """Arrays (problem, ...) as variables over the axes of the sweep."""
        return {name: ((*self.axes, *dims), values.reshape(*self.shape, *values.shape[1:]), {}) for name, (dims, values) in named.items()}


def _pooled(one: LearningCurves, seeds: dict[str, np.ndarray]) -> LearningCurves:
    """Mean and standard error over the seeds (S, T, K) that are there, in the place of one cell's curves."""
    there = ~np.isnan(seeds["train_loss"]).all(axis=(1, 2))
    kept = {name: values[there] for name, values in seeds.items()}
    count = int(there.sum())
    if count == len((one.per_seed or {})["train_loss"]):  # one cell holds them all, with standard errors over probes if those made it
        return one
    fields = {name: values.mean(axis=0) for name, values in kept.items()}
    fields |= {f"{name}_stderr": values.std(axis=0, ddof=1) / np.sqrt(count) for name, values in kept.items()}
    return dataclasses.replace(one, **fields, per_seed=kept, spectrum=None, untrained_loss=None)
