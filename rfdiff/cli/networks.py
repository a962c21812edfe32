"""The networks of simulate and compare: which solver fits, and every finished network stored until the result is written.

With several processes each trains some of them, and the one that writes files stores them all.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rfdiff import simulation
from rfdiff.cli.curve_options import Curves, Networks, training_times
from rfdiff.cli.process_options import by_writer
from rfdiff.curves import LearningCurves
from rfdiff.files import kept_parts
from rfdiff.problem import Problem
from rfdiff.progress import SILENT, progress
from rfdiff.rules import MinibatchSGD, Rule
from rfdiff.simulation import is_writer, kept_seeds
from rfdiff.simulation.distributed import agreed, one_by_one, together
from rfdiff.simulation.features import floating_type
from rfdiff.simulation.networks import check_sgd
from rfdiff.simulation.seed_batches import SeedBatch


@dataclasses.dataclass(frozen=True)
class Ensembles:
    """Networks of one problem, at one dimension or several.

    Args:
        problem: the question.
        taus: (T,) training times; None for ridge.
        rule: the training rule.
        num_seeds: number of networks at each dimension.
        dtype: floating type.
        solvers: the solver at each dimension.
        krylov_tolerance: of Krylov spaces; None for the default.
        out: folder of the results, in which finished networks are stored meanwhile.
        mesh: devices of all processes, each of whose rows trains one network at a time; None for one device of one process.
    """

    problem: Problem
    taus: np.ndarray | None
    rule: Rule
    num_seeds: int
    dtype: str
    solvers: dict[int, str]
    krylov_tolerance: float | None
    out: Path
    mesh: Mesh | None = None

    def folder(self, d: int, key: jax.Array) -> Path:
        """Where the finished networks at a dimension are stored."""
        return kept_parts.folder_for(
            self.out, self.problem, self.taus, d, key, self.rule, self.dtype, self.solvers[d], self.krylov_tolerance
        )

    def run(self, d: int, key: jax.Array) -> LearningCurves | None:
        """Train the networks at a dimension, as many at a time as the mesh has rows; each is stored as soon as it is done, and read if it
        is stored already. None in a process that does not write files.

        Raises:
            InputError: as `simulation.run_seeds`; or a damaged checkpoint.
            KeyboardInterrupt: with a sentence on what is stored.
            OtherProcessError: another process failed.
        """
        folder, writes = self.folder(d, key), is_writer()
        batches = together(lambda: self._stored(folder) if writes else {})
        missing = [r for r, stored in enumerate(agreed(np.array([r in batches for r in range(self.num_seeds)]))) if not stored]
        options: dict[str, Any] = {
            "rule": self.rule,
            "dtype": self.dtype,
            "solver": self.solvers[d],
            "krylov_tolerance": self.krylov_tolerance,
            **({} if self.mesh is None else {"mesh": self.mesh}),
        }
        rows = 1 if self.mesh is None else len(self.mesh.devices)
        try:
            with progress(f"simulation at d = {d}", self.num_seeds, len(batches), stream=None if writes else SILENT) as advance:
                for start in range(0, len(missing), rows):
                    seeds = missing[start : start + rows]
                    found = one_by_one(simulation.run_seeds(self.problem, self.taus, d=d, key=key, seeds=seeds, **options))
                    batches |= zip(seeds, found, strict=True)
                    by_writer(functools.partial(_store, folder, found))
                    advance(len(seeds))
        except KeyboardInterrupt as stop:
            if not writes:
                raise
            count = sum(kept_seeds.holds(folder, r) for r in range(self.num_seeds))  # what is on disk: the signal may fall anywhere
            raise KeyboardInterrupt(f"{count} of {self.num_seeds} seeds at d = {d} are kept, the same command resumes from them") from stop
        return simulation.summarize([batches[r] for r in range(self.num_seeds)]) if writes else None

    def _stored(self, folder: Path) -> dict[int, SeedBatch]:
        return {r: batch for r in range(self.num_seeds) if (batch := kept_seeds.load_seed(folder, r)) is not None}


def _store(folder: Path, found: list[SeedBatch]) -> None:
    for batch in found:
        kept_seeds.save_seed(folder, batch)


def solvers_for(problem: Problem, options: Any, rule: Rule, dimensions: tuple[int, ...], mesh: Mesh | None = None) -> dict[int, str]:
    """The solver at each dimension; networks that do not fit in memory are refused before anything is computed or any folder made.

    Args:
        problem: the question.
        options: of simulate or compare.
        rule: the training rule that they name.
        dimensions: of the data.
        mesh: as in `Ensembles`.

    Raises:
        InputError: naming d, with the estimate and what would fit; or what `simulation.networks.check_sgd` refuses.
    """
    curves: Curves = options
    networks: Networks = options
    num_times = len(curves.taus or curves.penalties or ()) or curves.num_times
    dtype = floating_type(networks.dtype)
    solver = None if networks.solver == "auto" else networks.solver
    if isinstance(rule, MinibatchSGD):
        for d in dimensions:
            check_sgd(problem, np.asarray(curves.taus), d=d, rule=rule, dtype=dtype)
        return dict.fromkeys(dimensions, "exact")  # trained step by step
    return {
        d: simulation.fitting_solver(problem, d=d, num_times=num_times, num_seeds=networks.num_seeds, dtype=dtype, solver=solver, mesh=mesh)
        for d in dimensions
    }


def shared_times(options: Curves, problem: Problem, rule: Rule) -> np.ndarray | None:
    """The training times that the options ask for, the same in every process; None for ridge, whose penalties take their place."""
    taus = together(lambda: training_times(options, problem, rule))
    return None if taus is None else agreed(taus)


def ensembles(
    problem: Problem, taus: np.ndarray | None, rule: Rule, options: Any, solvers: dict[int, str], mesh: Mesh | None = None
) -> Ensembles:
    """The networks that the options of simulate or compare describe."""
    dtype = floating_type(options.dtype)
    return Ensembles(problem, taus, rule, options.num_seeds, dtype, solvers, options.krylov_tolerance, options.out, mesh)
