"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (docs/theory/simulation.md).

What trains step by step (`descend` and what goes with it) is imported when it is first used, since optax is slow to import.
"""

import importlib
from typing import TYPE_CHECKING

from rfdiff.simulation.distributed import initialize, is_writer
from rfdiff.simulation.mesh import device_mesh
from rfdiff.simulation.networks import fitting_solver, learning_curves, run_seeds
from rfdiff.simulation.seed_batches import SeedBatch, summarize
from rfdiff.simulation.solver_costs import SOLVERS, SolverPlan, plan

if TYPE_CHECKING:
    from rfdiff.simulation.descent.checkpoint import Checkpoint as Checkpoint
    from rfdiff.simulation.descent.loop import StopWhen as StopWhen
    from rfdiff.simulation.descent.run import Descent as Descent
    from rfdiff.simulation.descent.run import descend as descend
    from rfdiff.simulation.descent.run import pool as pool

DESCENT_HOMES = {"Checkpoint": "checkpoint", "Descent": "run", "StopWhen": "loop", "descend": "run", "pool": "run"}

__all__ = [
    "SOLVERS", "Checkpoint", "Descent", "SeedBatch", "SolverPlan", "StopWhen", "descend", "device_mesh", "fitting_solver", "initialize",
    "is_writer", "learning_curves", "plan", "pool", "run_seeds", "summarize",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """A name of step-by-step training, imported now.

    Raises:
        AttributeError: no such name.
    """
    if name not in DESCENT_HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"rfdiff.simulation.descent.{DESCENT_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
