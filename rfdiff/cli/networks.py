"""The networks of simulate and compare: which solver fits, and every finished network stored until the result is written."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfdiff import simulation
from rfdiff.cli.curve_options import Curves, Networks
from rfdiff.curves import LearningCurves
from rfdiff.files import kept_parts
from rfdiff.problem import Problem
from rfdiff.progress import progress
from rfdiff.rules import MinibatchSGD, Rule
from rfdiff.simulation import kept_seeds
from rfdiff.simulation.features import floating_type
from rfdiff.simulation.networks import check_sgd


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
    """

    problem: Problem
    taus: np.ndarray | None
    rule: Rule
    num_seeds: int
    dtype: str
    solvers: dict[int, str]
    krylov_tolerance: float | None
    out: Path

    def folder(self, d: int, key: jax.Array) -> Path:
        """Where the finished networks at a dimension are stored."""
        return kept_parts.folder_for(
            self.out, self.problem, self.taus, d, key, self.rule, self.dtype, self.solvers[d], self.krylov_tolerance
        )

    def run(self, d: int, key: jax.Array) -> LearningCurves:
        """Train the networks at a dimension one by one; each is stored as soon as it is done, and read if it is stored already.

        Raises:
            InputError: as `simulation.run_seeds`; or a damaged checkpoint.
            KeyboardInterrupt: with a sentence on what is stored.
        """
        folder = self.folder(d, key)
        batches = {r: batch for r in range(self.num_seeds) if (batch := kept_seeds.load_seed(folder, r)) is not None}
        options: dict[str, Any] = {
            "rule": self.rule,
            "dtype": self.dtype,
            "solver": self.solvers[d],
            "krylov_tolerance": self.krylov_tolerance,
        }
        try:
            with progress(f"simulation at d = {d}", self.num_seeds, len(batches)) as advance:
                for r in range(self.num_seeds):
                    if r not in batches:
                        batches[r] = simulation.run_seeds(self.problem, self.taus, d=d, key=key, seeds=[r], **options)
                        kept_seeds.save_seed(folder, batches[r])
                        advance(1)
        except KeyboardInterrupt as stop:
            count = sum(kept_seeds.holds(folder, r) for r in range(self.num_seeds))  # what is on disk: the signal may fall anywhere
            raise KeyboardInterrupt(f"{count} of {self.num_seeds} seeds at d = {d} are kept, the same command resumes from them") from stop
        return simulation.summarize([batches[r] for r in range(self.num_seeds)])


def solvers_for(problem: Problem, options: Any, rule: Rule, dimensions: tuple[int, ...]) -> dict[int, str]:
    """The solver at each dimension; networks that do not fit in memory are refused before anything is computed or any folder made.

    Args:
        problem: the question.
        options: of simulate or compare.
        rule: the training rule that they name.
        dimensions: of the data.

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
        d: simulation.fitting_solver(problem, d=d, num_times=num_times, num_seeds=networks.num_seeds, dtype=dtype, solver=solver)
        for d in dimensions
    }


def ensembles(problem: Problem, taus: np.ndarray | None, rule: Rule, options: Any, solvers: dict[int, str]) -> Ensembles:
    """The networks that the options of simulate or compare describe."""
    dtype = floating_type(options.dtype)
    return Ensembles(problem, taus, rule, options.num_seeds, dtype, solvers, options.krylov_tolerance, options.out)
