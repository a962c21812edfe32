"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (`equations`, section 6)."""

from rfdiff.simulation.batches import SeedBatch, summarize
from rfdiff.simulation.descent import Descent, descend, pool
from rfdiff.simulation.descent_checkpoint import Checkpoint
from rfdiff.simulation.descent_loop import StopWhen
from rfdiff.simulation.distributed import initialize, is_writer
from rfdiff.simulation.mesh import device_mesh
from rfdiff.simulation.planning import SOLVERS, SolverPlan, plan
from rfdiff.simulation.solvers import fitting_solver, learning_curves, run_seeds

__all__ = [
    "SOLVERS", "Checkpoint", "Descent", "SeedBatch", "SolverPlan", "StopWhen", "descend", "device_mesh", "fitting_solver", "initialize",
    "is_writer", "learning_curves", "plan", "pool", "run_seeds", "summarize",
]  # fmt: skip
